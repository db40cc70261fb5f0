//! Merging.

use bolmo::merge::*;
use jni_sys::{jboolean, jfloat, jlong};

use crate::callback::Callback;
use crate::env::{ByteArray, ProgressObject, at};
use crate::native::{check, make, take_bytes};

natives! {
    fn mergeOptionsCreate(_env) -> jlong { make(|out| abi!(bolmo_merge_options_create(out))) }

    fn mergeOptionsSetBolmo(env, options: jlong, path: ByteArray) {
        let path = env.bytes(path)?;
        check(abi!(bolmo_merge_options_set_bolmo(at(options), path.pointer().cast(), path.len())))
    }

    fn mergeOptionsSetBase(env, options: jlong, path: ByteArray) {
        let path = env.bytes(path)?;
        check(abi!(bolmo_merge_options_set_base(at(options), path.pointer().cast(), path.len())))
    }

    fn mergeOptionsSetPostTrained(env, options: jlong, path: ByteArray) {
        let path = env.bytes(path)?;
        check(abi!(bolmo_merge_options_set_post_trained(at(options), path.pointer().cast(), path.len())))
    }

    fn mergeOptionsSetAlpha(_env, options: jlong, alpha: jfloat) {
        check(abi!(bolmo_merge_options_set_alpha(at(options), alpha)))
    }

    fn mergeOptionsSetEmbeddings(_env, options: jlong, embeddings: jboolean) {
        check(abi!(bolmo_merge_options_set_embeddings(at(options), embeddings)))
    }

    fn mergeOptionsDelete(_env, options: jlong) {
        bolmo_merge_options_delete(at(options));
        Ok(())
    }

    /// Merges with a progress callback, which is set in the options. Returns the report.
    fn merge(env, options: jlong, out: ByteArray, progress: ProgressObject) -> ByteArray {
        let (out, callback) = (env.bytes(out)?, Callback::new(env, progress.0));
        check(abi!(bolmo_merge_options_set_progress(at(options), callback.progress(), callback.user_data())))?;
        let (path, size) = (out.pointer().cast(), out.len());
        // An exception of the callback is not pending while the report is copied: `outcome` throws it.
        callback.outcome(take_bytes(env, |report| abi!(bolmo_merge(at(options), path, size, report))))
    }
}
