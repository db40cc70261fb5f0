//! Models, and options for loading them.

use bolmo::model::*;
use jni_sys::{jdouble, jint, jlong};

use crate::callback::Callback;
use crate::env::{ByteArray, ProgressObject, at, size};
use crate::native::{check, make, number, text};

natives! {
    fn loadOptionsCreate(_env) -> jlong { make(|out| abi!(bolmo_load_options_create(out))) }

    fn loadOptionsSetFormat(_env, options: jlong, format: jint) {
        check(abi!(bolmo_load_options_set_format(at(options), format)))
    }

    fn loadOptionsSetPartFormat(_env, options: jlong, part: jint, format: jint) {
        check(abi!(bolmo_load_options_set_part_format(at(options), part, format)))
    }

    fn loadOptionsSetTokenizerPath(env, options: jlong, path: ByteArray) {
        let path = env.bytes(path)?;
        check(abi!(bolmo_load_options_set_tokenizer_path(at(options), path.pointer().cast(), path.len())))
    }

    fn loadOptionsSetTokenizer(env, options: jlong, json: ByteArray, config: ByteArray) {
        let (json, config) = (env.bytes(json)?, env.bytes(config)?);
        check(abi!(bolmo_load_options_set_tokenizer(
            at(options),
            json.pointer().cast(),
            json.len(),
            config.pointer().cast(),
            config.len()
        )))
    }

    fn loadOptionsSetRopeTheta(_env, options: jlong, theta: jdouble) {
        check(abi!(bolmo_load_options_set_rope_theta(at(options), theta)))
    }

    fn loadOptionsSetRopeScaling(env, options: jlong, scaling: ByteArray) {
        let scaling = env.bytes(scaling)?;
        check(abi!(bolmo_load_options_set_rope_scaling(at(options), scaling.pointer().cast(), scaling.len())))
    }

    fn loadOptionsDelete(_env, options: jlong) {
        bolmo_load_options_delete(at(options));
        Ok(())
    }

    /// Loads with a progress callback, which is set in the options.
    fn modelLoad(env, engine: jlong, checkpoint: jlong, options: jlong, progress: ProgressObject) -> jlong {
        let callback = Callback::new(env, progress.0);
        check(abi!(bolmo_load_options_set_progress(at(options), callback.progress(), callback.user_data())))?;
        let model = make(|out| abi!(bolmo_model_load(at(engine), at(checkpoint), at(options), out)));
        callback.outcome_or(model, |model| bolmo_model_delete(at(model)))
    }

    fn modelNumber(_env, model: jlong, which: jint) -> jlong {
        number(|out| abi!(bolmo_model_number(at(model), which, out)))
    }

    fn modelDeviceBytes(_env, model: jlong) -> jlong {
        number(|out| abi!(bolmo_model_device_bytes(at(model), out)))
    }

    fn modelMappedBytes(_env, model: jlong) -> jlong {
        number(|out| abi!(bolmo_model_mapped_bytes(at(model), out)))
    }

    fn modelSessionBytes(_env, model: jlong, patches: jlong) -> jlong {
        let patches = size(patches, "patches")?;
        number(|out| abi!(bolmo_model_session_bytes(at(model), patches, out)))
    }

    fn modelFingerprint(env, model: jlong) -> ByteArray {
        let mut fingerprint = [0; BOLMO_FINGERPRINT_SIZE];
        check(abi!(bolmo_model_fingerprint(at(model), fingerprint.as_mut_ptr())))?;
        env.byte_array(&fingerprint)
    }

    fn modelWarningCount(_env, model: jlong) -> jlong {
        number(|out| abi!(bolmo_model_warning_count(at(model), out)))
    }

    fn modelWarning(env, model: jlong, index: jlong) -> ByteArray {
        let index = size(index, "index")?;
        text(env, |data, size| abi!(bolmo_model_warning(at(model), index, data, size)))
    }

    fn modelDelete(_env, model: jlong) {
        bolmo_model_delete(at(model));
        Ok(())
    }
}
