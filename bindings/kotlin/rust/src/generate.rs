//! Generating: options, pieces, results, and generating step by step.

use std::ffi::c_void;

use bolmo::generate::*;
use bolmo::options::*;
use bolmo::sampler::*;
use bolmo::text::{bolmo_utf8_create, bolmo_utf8_delete};
use jni_sys::{jboolean, jfloat, jint, jlong, jobject, jvalue};

use crate::callback::Callback;
use crate::env::{ByteArray, Env, FloatArray, PiecesObject, Result, ShortArray, at, ids, size, slice};
use crate::native::{check, items, make, number, read};
use crate::text;

/// Calls `Pieces.piece`. Returns whether to continue.
pub(crate) fn tell(
    env: Env,
    object: jobject,
    index: usize,
    (data, piece_ids, text): (&[u8], &[u16], &str),
) -> Result<bool> {
    let data = env.local(env.byte_array(data)?.0);
    let piece_ids = env.local(env.short_array(piece_ids)?.0);
    let text = env.local(env.string(text)?);
    let index = jvalue { j: index as jlong };
    env.call_boolean(
        object,
        ids()?.piece,
        &[index, jvalue { l: data.1 }, jvalue { l: piece_ids.1 }, jvalue { l: text.1 }],
    )
}

/// The receiver of a generation's pieces, and what assembles their text.
struct Pieces {
    callback: Callback,
    assembler: jlong,
}

unsafe extern "C" fn on_piece(data: *const u8, size: usize, ids: *const u16, user_data: *mut c_void) -> i32 {
    // SAFETY: `user_data` is the `Pieces` of the native method that is running on this thread; bytes and ids are valid
    // during the call.
    let (pieces, data, ids) = unsafe { (&*user_data.cast::<Pieces>(), slice(data, size), slice(ids, size)) };
    pieces.callback.run(1, |env| {
        // SAFETY: this thread alone has the assembler.
        let text = unsafe { text::push(pieces.assembler, data) }?;
        Ok(i32::from(!tell(env, pieces.callback.object, 0, (data, ids, text))?))
    })
}

/// Generates, and passes on the end of a character that was cut as a piece without bytes.
fn generate(pieces: &Pieces, session: jlong, options: jlong) -> Result<jlong> {
    let user_data = (&raw const *pieces).cast_mut().cast();
    let generated = make(|out| abi!(bolmo_session_generate(at(session), at(options), Some(on_piece), user_data, out)));
    let delete = |generation| bolmo_generation_delete(at(generation));
    let generation = pieces.callback.outcome_or(generated, delete)?;
    // SAFETY: this thread alone has the assembler.
    let told = unsafe { text::finish(pieces.assembler) }.and_then(|rest| {
        if rest.is_empty() { Ok(true) } else { tell(pieces.callback.env, pieces.callback.object, 0, (&[], &[], rest)) }
    });
    if told.is_err() {
        delete(generation);
    }
    told.map(|_| generation)
}

natives! {
    fn generateOptionsCreate(_env) -> jlong { make(|out| abi!(bolmo_generate_options_create(out))) }

    fn generateOptionsSetMaxBytes(_env, options: jlong, bytes: jlong) {
        check(abi!(bolmo_generate_options_set_max_bytes(at(options), size(bytes, "max_bytes")?)))
    }

    fn generateOptionsSetTemperature(_env, options: jlong, temperature: jfloat) {
        check(abi!(bolmo_generate_options_set_temperature(at(options), temperature)))
    }

    fn generateOptionsSetTopK(_env, options: jlong, top_k: jlong) {
        check(abi!(bolmo_generate_options_set_top_k(at(options), size(top_k, "top_k")?)))
    }

    fn generateOptionsSetTopP(_env, options: jlong, top_p: jfloat) {
        check(abi!(bolmo_generate_options_set_top_p(at(options), top_p)))
    }

    fn generateOptionsSetMinP(_env, options: jlong, min_p: jfloat) {
        check(abi!(bolmo_generate_options_set_min_p(at(options), min_p)))
    }

    fn generateOptionsSetRepetitionPenalty(_env, options: jlong, penalty: jfloat, window: jlong) {
        let window = size(window, "window")?;
        check(abi!(bolmo_generate_options_set_repetition_penalty(at(options), penalty, window)))
    }

    fn generateOptionsSetByteBias(_env, options: jlong, byte: jint, bias: jfloat) {
        let byte = u8::try_from(byte)
            .map_err(|_| crate::env::Failure::Argument(format!("byte: must be between 0 and 255, found {byte}")))?;
        check(abi!(bolmo_generate_options_set_byte_bias(at(options), byte, bias)))
    }

    fn generateOptionsSetEndBias(_env, options: jlong, bias: jfloat) {
        check(abi!(bolmo_generate_options_set_end_bias(at(options), bias)))
    }

    fn generateOptionsSetBoundaryBias(_env, options: jlong, bias: jfloat) {
        check(abi!(bolmo_generate_options_set_boundary_bias(at(options), bias)))
    }

    fn generateOptionsSetSeed(_env, options: jlong, seed: jlong) {
        check(abi!(bolmo_generate_options_set_seed(at(options), seed as u64)))
    }

    fn generateOptionsAddStop(env, options: jlong, stop: ByteArray) {
        let stop = env.bytes(stop)?;
        check(abi!(bolmo_generate_options_add_stop(at(options), stop.pointer().cast(), stop.len())))
    }

    fn generateOptionsSetConstraint(_env, options: jlong, constraint: jlong) {
        check(abi!(bolmo_generate_options_set_constraint(at(options), at(constraint))))
    }

    fn generateOptionsSetLogprobs(_env, options: jlong, keep: jboolean) {
        check(abi!(bolmo_generate_options_set_logprobs(at(options), keep)))
    }

    fn generateOptionsDelete(_env, options: jlong) {
        bolmo_generate_options_delete(at(options));
        Ok(())
    }

    /// Generates, and returns the generation.
    fn sessionGenerate(env, session: jlong, options: jlong, receiver: PiecesObject) -> jlong {
        let assembler = make(|out| abi!(bolmo_utf8_create(out)))?;
        let pieces = Pieces { callback: Callback::new(env, receiver.0), assembler };
        let generation = generate(&pieces, session, options);
        bolmo_utf8_delete(at(assembler));
        generation
    }

    fn generationStop(_env, generation: jlong) -> jint {
        read(|out| abi!(bolmo_generation_stop(at(generation), out)))
    }

    fn generationBytes(env, generation: jlong) -> ByteArray {
        crate::native::text(env, |data, size| abi!(bolmo_generation_bytes(at(generation), data, size)))
    }

    fn generationIds(env, generation: jlong) -> ShortArray {
        let get = |data: *mut _, size: *mut _| abi!(bolmo_generation_ids(at(generation), data, size));
        // SAFETY: Kotlin deletes the generation after this.
        env.short_array(unsafe { items(get) }?)
    }

    fn generationPatches(_env, generation: jlong) -> jlong {
        number(|out| abi!(bolmo_generation_patches(at(generation), out)))
    }

    fn generationMatched(_env, generation: jlong) -> jboolean {
        read(|out| abi!(bolmo_generation_matched(at(generation), out)))
    }

    fn generationLogprobs(env, generation: jlong, which: jint) -> FloatArray {
        let get = |data: *mut _, size: *mut _| abi!(bolmo_generation_logprobs(at(generation), which, data, size));
        // SAFETY: Kotlin deletes the generation after this.
        env.float_array(unsafe { items(get) }?)
    }

    fn generationDelete(_env, generation: jlong) {
        bolmo_generation_delete(at(generation));
        Ok(())
    }

    fn sessionLogits(env, session: jlong, boundary_bias: jfloat) -> FloatArray {
        let mut logits = [0.0; BOLMO_LOGITS];
        check(abi!(bolmo_session_logits(at(session), boundary_bias, logits.as_mut_ptr(), BOLMO_LOGITS)))?;
        env.float_array(&logits)
    }

    fn sessionPush(_env, session: jlong, id: jint) {
        // No id is negative or above the range.
        check(abi!(bolmo_session_push(at(session), u16::try_from(id).unwrap_or(u16::MAX))))
    }

    fn samplerCreate(_env, options: jlong) -> jlong { make(|out| abi!(bolmo_sampler_create(at(options), out))) }

    fn samplerChoose(env, sampler: jlong, session: jlong, logits: FloatArray, allowed: ByteArray) -> jint {
        let (logits, allowed) = (env.floats(logits)?, env.bytes(allowed)?);
        if !matches!(allowed.len(), 0 | bolmo::constraint::BOLMO_CANDIDATES) {
            let found = allowed.len();
            let message = format!("allowed: expected {} flags, found {found}", bolmo::constraint::BOLMO_CANDIDATES);
            return Err(crate::env::Failure::Argument(message));
        }
        let (pointer, count, flags) = (logits.pointer(), logits.len(), allowed.pointer());
        read(|out| abi!(bolmo_sampler_choose(at(sampler), at(session), pointer, count, flags, out))).map(jint::from)
    }

    fn samplerDelete(_env, sampler: jlong) {
        bolmo_sampler_delete(at(sampler));
        Ok(())
    }
}
