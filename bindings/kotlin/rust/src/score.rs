//! Scores.

use bolmo::score::*;
use jni_sys::{jboolean, jdouble, jint, jlong};

use crate::callback::Callback;
use crate::env::{ByteArray, FloatArray, IntArray, ProgressObject, at, slice};
use crate::native::{check, items, make, number, read, text};

natives! {
    fn scoreOptionsCreate(_env) -> jlong { make(|out| abi!(bolmo_score_options_create(out))) }

    fn scoreOptionsSetBoundaries(env, options: jlong, flags: ByteArray) {
        let flags = env.bytes(flags)?;
        check(abi!(bolmo_score_options_set_boundaries(at(options), flags.pointer(), flags.len())))
    }

    fn scoreOptionsSetTensors(_env, options: jlong, keep: jboolean) {
        check(abi!(bolmo_score_options_set_tensors(at(options), keep)))
    }

    fn scoreOptionsDelete(_env, options: jlong) {
        bolmo_score_options_delete(at(options));
        Ok(())
    }

    /// Scores with a progress callback, which is set in the options.
    fn modelScore(env, model: jlong, data: ByteArray, options: jlong, progress: ProgressObject) -> jlong {
        let (data, callback) = (env.bytes(data)?, Callback::new(env, progress.0));
        check(abi!(bolmo_score_options_set_progress(at(options), callback.progress(), callback.user_data())))?;
        let (pointer, size) = (data.pointer().cast(), data.len());
        let score = make(|out| abi!(bolmo_model_score(at(model), pointer, size, at(options), out)));
        callback.outcome_or(score, |score| bolmo_score_delete(at(score)))
    }

    fn modelScoreIds(env, model: jlong, ids: IntArray, options: jlong, progress: ProgressObject) -> jlong {
        let (ids, callback) = (env.ints(ids)?, Callback::new(env, progress.0));
        check(abi!(bolmo_score_options_set_progress(at(options), callback.progress(), callback.user_data())))?;
        let score = make(|out| abi!(bolmo_model_score_ids(at(model), ids.pointer(), ids.len(), at(options), out)));
        callback.outcome_or(score, |score| bolmo_score_delete(at(score)))
    }

    fn scoreNumber(_env, score: jlong, which: jint) -> jdouble {
        read(|out| abi!(bolmo_score_number(at(score), which, out)))
    }

    fn scoreBoundaries(env, score: jlong) -> ByteArray {
        text(env, |data, size| abi!(bolmo_score_boundaries(at(score), data, size)))
    }

    fn scoreLogprobs(env, score: jlong, which: jint) -> FloatArray {
        let get = |data: *mut _, size: *mut _| abi!(bolmo_score_logprobs(at(score), which, data, size));
        // SAFETY: Kotlin deletes the score after this.
        env.float_array(unsafe { items(get) }?)
    }

    /// The numbers of a tensor, row by row.
    fn scoreTensor(env, score: jlong, which: jint) -> FloatArray {
        let (mut data, mut rows, mut columns) = (std::ptr::null(), 0, 0);
        check(abi!(bolmo_score_tensor(at(score), which, &mut data, &mut rows, &mut columns)))?;
        // SAFETY: the library returns a valid tensor, and Kotlin deletes the score after this.
        env.float_array(unsafe { slice(data, rows * columns) })
    }

    fn scoreTensorRows(_env, score: jlong, which: jint) -> jlong {
        let (mut data, mut columns) = (std::ptr::null(), 0);
        number(|rows| abi!(bolmo_score_tensor(at(score), which, &mut data, rows, &mut columns)))
    }

    fn scoreDelete(_env, score: jlong) {
        bolmo_score_delete(at(score));
        Ok(())
    }
}
