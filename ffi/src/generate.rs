//! Generating: bytes as they are produced.
//!
//! ```c
//! static int32_t print(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
//!     (void)ids;
//!     // Not 0: stop.
//!     return fwrite(data, 1, size, (FILE *)user_data) != size || fflush((FILE *)user_data) != 0;
//! }
//! ...
//! bolmo_generation *generation;
//! if (bolmo_session_generate(session, options, print, stdout, &generation) == BOLMO_OK) {
//!     int32_t stop;
//!     bolmo_generation_stop(generation, &stop);
//!     fprintf(stderr, "stop: %s\n", bolmo_stop_name(stop));
//!     bolmo_generation_delete(generation);
//! }
//! ```

use std::ffi::{CStr, c_char, c_void};
use std::ops::ControlFlow;

use bolmo_runtime::ids;
use bolmo_runtime::{Error, ErrorKind, Generation, Piece, Result, StopReason, block_on};

use crate::handle::{self, opaque};
use crate::input::{Out, UserData, invalid};
use crate::options::{self, bolmo_generate_options};
use crate::session::{bolmo_session, with};
use crate::status::{bolmo_status, call};

/// Difference between a fused id and its plain id. A fused id says that a patch ends there.
pub const BOLMO_FUSED_OFFSET: u16 = 260;
/// The plain id of byte 0; byte `b` has the id BOLMO_BYTE_OFFSET + `b`.
pub const BOLMO_BYTE_OFFSET: u16 = 4;
/// The plain id that begins a text, and with which the model ends one.
pub const BOLMO_END_ID: u16 = 1;

const _: () = assert!(BOLMO_FUSED_OFFSET == ids::FUSED_OFFSET && BOLMO_END_ID == ids::END_ID);
const _: () = assert!(BOLMO_BYTE_OFFSET == ids::BYTE_OFFSET as u16);

/// The result of a generation. Any number of threads may use it at once.
pub struct bolmo_generation {
    _opaque: [u8; 0],
}
opaque!(bolmo_generation, Generation);

/// Why a generation ended.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_stop {
    /// The maximum number of bytes was reached.
    BOLMO_STOP_BUDGET = 0,
    /// The model ended the text.
    BOLMO_STOP_END = 1,
    /// A stop string occurred.
    BOLMO_STOP_STRING = 2,
    /// bolmo_session_cancel was called, or the callback returned a value other than 0.
    BOLMO_STOP_CANCELLED = 3,
    /// The text matches the constraint, and no further byte can follow.
    BOLMO_STOP_COMPLETE = 4,
}

/// A kind of log-probability. All are natural logarithms, under the model's own distribution over its BOLMO_LOGITS ids:
/// without temperature, biases, penalty or constraint. Minus infinity for what the model rules out.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_logprob {
    /// Of the id: of the byte together with whether a patch ends there.
    BOLMO_LOGPROB_JOINT = 0,
    /// Of the byte alone, plain and fused id summed.
    BOLMO_LOGPROB_FOLDED = 1,
}

/// The log-probabilities of kind `which` (bolmo_logprob).
pub(crate) fn chosen_logprobs<'a>(which: i32, joint: &'a [f32], folded: &'a [f32]) -> Result<&'a [f32]> {
    match which {
        0 => Ok(joint),
        1 => Ok(folded),
        other => Err(invalid(format!("which: expected a bolmo_logprob (0 or 1), found {other}"))),
    }
}

/// Receives a chunk of output, usually the bytes of one patch; bytes that may begin a stop string are held back. `ids`
/// also has `size` items: each byte's id, fused (BOLMO_FUSED_OFFSET added) where it ends a patch. Both are valid during
/// the call. Returns 0 to continue; any other value ends the generation. Called by the thread that called
/// bolmo_session_generate. It may call the library, but not with this session, which returns BOLMO_BUSY;
/// bolmo_session_cancel and bolmo_session_delete are allowed.
pub type bolmo_piece_callback =
    Option<unsafe extern "C" fn(data: *const u8, size: usize, ids: *const u16, user_data: *mut c_void) -> i32>;

/// Generates until something ends it (bolmo_stop). `options` may be NULL; they are read when the call begins.
/// `callback` may be NULL. `generation` may be NULL if it is not needed. The bytes, including those of a stop string,
/// become part of the session; the id that ends a text does not.
///
/// BOLMO_INVALID_ARGUMENT: the session has no text yet. After BOLMO_DEVICE_LOST and similar failures the session keeps
/// the bytes that the callback received.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_generate(
    session: *mut bolmo_session,
    options: *const bolmo_generate_options,
    callback: bolmo_piece_callback,
    user_data: *mut c_void,
    generation: *mut *mut bolmo_generation,
) -> bolmo_status {
    call(|| {
        let generation = trusted!(Out::optional(generation))?;
        let options = options::read(options)?;
        let user_data = UserData::new(user_data);
        let mut hand_out = |piece: Piece<'_>| {
            let (data, ids) = (piece.bytes, piece.ids);
            let go_on = callback.is_none_or(|callback| {
                trusted!(callback(data.as_ptr(), data.len(), ids.as_ptr(), user_data.get())) == 0
            });
            if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let made = with(session, |session| block_on(session.generate(&options, &mut hand_out)))?;
        if let Some(generation) = generation {
            generation.set(handle::insert(made)?);
        }
        Ok(())
    })
}

/// Gets the reason why the generation ended (bolmo_stop).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generation_stop(generation: *const bolmo_generation, stop: *mut i32) -> bolmo_status {
    call(|| {
        let stop = trusted!(Out::new(stop, "stop"))?;
        stop.set(match handle::get(generation)?.stop {
            StopReason::Budget => bolmo_stop::BOLMO_STOP_BUDGET,
            StopReason::End => bolmo_stop::BOLMO_STOP_END,
            StopReason::StopString => bolmo_stop::BOLMO_STOP_STRING,
            StopReason::Cancelled => bolmo_stop::BOLMO_STOP_CANCELLED,
            StopReason::Complete => bolmo_stop::BOLMO_STOP_COMPLETE,
        } as i32);
        Ok(())
    })
}

/// Name of a reason, such as "budget", with a NUL at the end. Never NULL: "unknown" for a number that this version
/// doesn't have. Valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_stop_name(stop: i32) -> *const c_char {
    let name: &CStr = match stop {
        0 => c"budget",
        1 => c"end",
        2 => c"stop-string",
        3 => c"cancelled",
        4 => c"complete",
        _ => c"unknown",
    };
    name.as_ptr()
}

/// Gets the text, without a stop string. Valid until the generation is deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generation_bytes(
    generation: *const bolmo_generation,
    data: *mut *const u8,
    size: *mut usize,
) -> bolmo_status {
    call(|| {
        let (data, size) = trusted!((Out::new(data, "data")?, Out::new(size, "size")?));
        let generation = handle::get(generation)?;
        data.set(generation.bytes.as_ptr());
        size.set(generation.bytes.len());
        Ok(())
    })
}

/// Gets the ids as they were chosen, fused (BOLMO_FUSED_OFFSET added) where a byte ends a patch. They include those of
/// a stop string, and a final BOLMO_END_ID, plain or fused, if the model ended the text. Valid until the generation is
/// deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generation_ids(
    generation: *const bolmo_generation,
    ids: *mut *const u16,
    count: *mut usize,
) -> bolmo_status {
    call(|| {
        let (ids, count) = trusted!((Out::new(ids, "ids")?, Out::new(count, "count")?));
        let generation = handle::get(generation)?;
        ids.set(generation.ids.as_ptr());
        count.set(generation.ids.len());
        Ok(())
    })
}

/// Gets the log-probability of each id of bolmo_generation_ids, of kind `which` (bolmo_logprob). Also a byte that a
/// constraint forced has the model's. Where a generation was cancelled within forced bytes, the last one's id is plain,
/// because the next byte decides whether a patch ends there. Valid until the generation is deleted.
///
/// BOLMO_NOT_FOUND: the options did not ask for them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generation_logprobs(
    generation: *const bolmo_generation,
    which: i32,
    logprobs: *mut *const f32,
    count: *mut usize,
) -> bolmo_status {
    call(|| {
        let (logprobs, count) = trusted!((Out::new(logprobs, "logprobs")?, Out::new(count, "count")?));
        let generation = handle::get(generation)?;
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                "the generation has no log-probabilities; call bolmo_generate_options_set_logprobs before generating",
            )
        };
        let kept = generation.logprobs.as_ref().ok_or_else(missing)?;
        let found = chosen_logprobs(which, &kept.joint, &kept.marginal)?;
        logprobs.set(found.as_ptr());
        count.set(found.len());
        Ok(())
    })
}

/// Gets the number of patches that the chosen ids ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generation_patches(
    generation: *const bolmo_generation,
    patches: *mut usize,
) -> bolmo_status {
    call(|| {
        let patches = trusted!(Out::new(patches, "patches"))?;
        patches.set(handle::get(generation)?.patches());
        Ok(())
    })
}

/// Gets whether the whole text matches the constraint. It does, unless the generation was cancelled, was cut by a stop
/// string or had a budget below the shortest match. False without a constraint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generation_matched(
    generation: *const bolmo_generation,
    matched: *mut bool,
) -> bolmo_status {
    call(|| {
        let matched = trusted!(Out::new(matched, "matched"))?;
        matched.set(handle::get(generation)?.matched == Some(true));
        Ok(())
    })
}

/// Deletes the generation. Its text stays in the session. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_generation_delete(generation: *mut bolmo_generation) {
    handle::delete(generation);
}
