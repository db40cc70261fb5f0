//! Training.

use bolmo::training::*;
use jni_sys::{jboolean, jint, jlong};

use crate::callback::{Callback, on_metrics};
use crate::env::{ByteArray, MetricsObject, at, size};
use crate::native::{check, make, number, take_bytes};

natives! {
    fn trainerOptionsCreate(_env) -> jlong { make(|out| abi!(bolmo_trainer_options_create(out))) }

    fn trainerOptionsSetKind(_env, options: jlong, kind: jint) {
        check(abi!(bolmo_trainer_options_set_kind(at(options), kind)))
    }

    fn trainerOptionsSetConfig(env, options: jlong, toml: ByteArray) {
        let toml = env.bytes(toml)?;
        check(abi!(bolmo_trainer_options_set_config(at(options), toml.pointer().cast(), toml.len())))
    }

    fn trainerOptionsSetOverride(env, options: jlong, pair: ByteArray) {
        let pair = env.bytes(pair)?;
        check(abi!(bolmo_trainer_options_set_override(at(options), pair.pointer().cast(), pair.len())))
    }

    fn trainerOptionsAddText(env, options: jlong, text: ByteArray) {
        let text = env.bytes(text)?;
        check(abi!(bolmo_trainer_options_add_text(at(options), text.pointer().cast(), text.len())))
    }

    fn trainerOptionsAddHeldOutText(env, options: jlong, text: ByteArray) {
        let text = env.bytes(text)?;
        check(abi!(bolmo_trainer_options_add_held_out_text(at(options), text.pointer().cast(), text.len())))
    }

    fn trainerOptionsSetResume(_env, options: jlong, resume: jboolean) {
        check(abi!(bolmo_trainer_options_set_resume(at(options), i32::from(resume))))
    }

    fn trainerOptionsDelete(_env, options: jlong) {
        bolmo_trainer_options_delete(at(options));
        Ok(())
    }

    fn trainerCreate(_env, engine: jlong, options: jlong) -> jlong {
        make(|out| abi!(bolmo_trainer_create(at(engine), at(options), out)))
    }

    fn trainerStep(env, trainer: jlong, count: jlong, metrics: MetricsObject) {
        let (count, callback) = (size(count, "count")? as u64, Callback::new(env, metrics.0));
        let function: bolmo_metrics_callback = if metrics.0.is_null() { None } else { Some(on_metrics) };
        callback.outcome(check(abi!(bolmo_trainer_step(at(trainer), count, function, callback.user_data()))))
    }

    fn trainerCancel(_env, trainer: jlong) { check(abi!(bolmo_trainer_cancel(at(trainer)))) }

    fn trainerResetCancel(_env, trainer: jlong) { check(abi!(bolmo_trainer_reset_cancel(at(trainer)))) }

    fn trainerSteps(_env, trainer: jlong) -> jlong { number(|out| abi!(bolmo_trainer_steps(at(trainer), out))) }

    fn trainerEvaluate(env, trainer: jlong) -> ByteArray {
        take_bytes(env, |out| abi!(bolmo_trainer_evaluate(at(trainer), out)))
    }

    fn trainerSave(_env, trainer: jlong) { check(abi!(bolmo_trainer_save(at(trainer)))) }

    fn trainerExport(env, trainer: jlong, path: ByteArray) {
        let path = env.bytes(path)?;
        check(abi!(bolmo_trainer_export(at(trainer), path.pointer().cast(), path.len())))
    }

    fn trainerDelete(_env, trainer: jlong) {
        bolmo_trainer_delete(at(trainer));
        Ok(())
    }
}
