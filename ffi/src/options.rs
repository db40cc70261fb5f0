//! Options of a generation.
//!
//! ```c
//! bolmo_generate_options *options;
//! bolmo_generate_options_create(&options);
//! bolmo_generate_options_set_max_bytes(options, 1000);
//! bolmo_generate_options_set_temperature(options, 0.8f);
//! bolmo_generate_options_set_top_p(options, 0.95f);
//! bolmo_generate_options_set_seed(options, 42);
//! bolmo_generate_options_add_stop(options, "\n\n", 2);
//! ```
//!
//! Each setter checks its value at once and changes nothing if it is out of its range. A call that uses options reads them when it
//! begins: later changes count for later calls.

use std::ffi::c_void;
use std::sync::Mutex;

use bolmo_runtime::{GenerateOptions, Result};

use crate::constraint::bolmo_constraint;
use crate::handle::{self, opaque};
use crate::input::{self, Out, invalid};
use crate::status::{bolmo_status, call};
use crate::text::lock;

/// How to generate.
pub struct bolmo_generate_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_generate_options, Mutex<GenerateOptions>);

/// The options behind a handle, or what they are unless set for NULL.
pub(crate) fn read(options: *const bolmo_generate_options) -> Result<GenerateOptions> {
    match handle::get_optional(options)? {
        Some(object) => Ok(lock(&object, "bolmo_generate_options")?.clone()),
        None => Ok(GenerateOptions::default()),
    }
}

/// Changes the options if they are then still in their ranges.
fn change(options: *mut bolmo_generate_options, edit: impl FnOnce(&mut GenerateOptions)) -> bolmo_status {
    call(|| {
        let object = handle::get(options)?;
        let mut this = lock(&object, "bolmo_generate_options")?;
        let mut changed = this.clone();
        edit(&mut changed);
        changed.validate()?;
        *this = changed;
        Ok(())
    })
}

/// Options with everything as it is unless set: 256 bytes, greedy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_create(options: *mut *mut bolmo_generate_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        options.set(handle::insert(Mutex::default())?);
        Ok(())
    })
}

/// The most bytes to generate, at least 1; 256 unless set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_max_bytes(
    options: *mut bolmo_generate_options,
    max_bytes: usize,
) -> bolmo_status {
    change(options, |o| o.max_bytes = max_bytes)
}

/// Divides the log-probabilities of the bytes; 0, as unless set, takes the most probable id instead of drawing one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_temperature(
    options: *mut bolmo_generate_options,
    temperature: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.temperature = temperature)
}

/// Draws only from this many most probable bytes; 0, as unless set, is off.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_top_k(
    options: *mut bolmo_generate_options,
    top_k: usize,
) -> bolmo_status {
    change(options, |o| o.sampling.top_k = top_k)
}

/// Draws only from the most probable bytes that together have at least this probability; 1, as unless set, is off.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_top_p(
    options: *mut bolmo_generate_options,
    top_p: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.top_p = top_p)
}

/// Draws only from bytes with at least this share of the most probable byte's probability; 0, as unless set, is off.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_min_p(
    options: *mut bolmo_generate_options,
    min_p: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.min_p = min_p)
}

/// Multiplies the model's log-probability of bytes among the last `window` ids: above 1 discourages them; 1, as unless set, is off.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_repetition_penalty(
    options: *mut bolmo_generate_options,
    penalty: f32,
    window: usize,
) -> bolmo_status {
    change(options, |o| {
        o.sampling.repetition_penalty = penalty;
        o.sampling.repetition_window = window;
    })
}

/// Added to the logits of `byte`, plain and fused, in place of what was set for it before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_byte_bias(
    options: *mut bolmo_generate_options,
    byte: u8,
    bias: f32,
) -> bolmo_status {
    change(options, |o| {
        o.sampling.byte_bias.retain(|&(other, _)| other != byte);
        o.sampling.byte_bias.push((byte, bias));
    })
}

/// Added to the logits of the end of the text: above 0 ends earlier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_end_bias(
    options: *mut bolmo_generate_options,
    bias: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.end_bias = bias)
}

/// Added to the logits of all ids that end a patch: above 0 makes patches shorter, below 0 longer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_boundary_bias(
    options: *mut bolmo_generate_options,
    bias: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.boundary_bias = bias)
}

/// Where the random numbers begin: equal seeds draw equal numbers on every platform.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_seed(
    options: *mut bolmo_generate_options,
    seed: u64,
) -> bolmo_status {
    change(options, |o| o.sampling.seed = seed)
}

/// Adds bytes that end the generation when they come up; they are not part of its text. They are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_add_stop(
    options: *mut bolmo_generate_options,
    stop: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let stop = trusted!(input::bytes(stop, size, "stop"))?;
        if stop.is_empty() {
            return Err(invalid("stop: expected at least one byte, found none"));
        }
        let object = handle::get(options)?;
        let mut this = lock(&object, "bolmo_generate_options")?;
        let mut changed = this.clone();
        changed.stops.push(stop.to_vec());
        changed.validate()?;
        *this = changed;
        Ok(())
    })
}

/// What the text must match; NULL for nothing, as unless set. The options keep what they need of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_constraint(
    options: *mut bolmo_generate_options,
    constraint: *const bolmo_constraint,
) -> bolmo_status {
    call(|| {
        let constraint = handle::get_optional(constraint)?;
        let object = handle::get(options)?;
        lock(&object, "bolmo_generate_options")?.constraint = constraint.map(|c| (*c).clone());
        Ok(())
    })
}

/// Deletes the options. NULL and handles that were deleted are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_generate_options_delete(options: *mut bolmo_generate_options) {
    handle::delete(options);
}
