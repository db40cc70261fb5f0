//! Options for generating.
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
//! Each setter checks its value at once and changes nothing if the value is out of range. A call reads its options when
//! it begins; later changes apply to later calls.

use std::ffi::c_void;
use std::sync::Mutex;

use bolmo_runtime::{GenerateOptions, Result};

use crate::constraint::bolmo_constraint;
use crate::handle::{self, opaque};
use crate::input::{self, Out, invalid};
use crate::status::{bolmo_status, call};
use crate::text::lock;

/// Options for generating.
pub struct bolmo_generate_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_generate_options, Mutex<GenerateOptions>);

/// The options behind a handle; the defaults for NULL.
pub(crate) fn read(options: *const bolmo_generate_options) -> Result<GenerateOptions> {
    match handle::get_optional(options)? {
        Some(object) => Ok(lock(&object, "bolmo_generate_options")?.clone()),
        None => Ok(GenerateOptions::default()),
    }
}

/// Changes the options if the result is valid.
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

/// Creates options with the defaults: 256 bytes, greedy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_create(options: *mut *mut bolmo_generate_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        options.set(handle::insert(Mutex::default())?);
        Ok(())
    })
}

/// Sets the maximum number of bytes to generate, at least 1. Default: 256.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_max_bytes(
    options: *mut bolmo_generate_options,
    max_bytes: usize,
) -> bolmo_status {
    change(options, |o| o.max_bytes = max_bytes)
}

/// Sets the temperature, which divides the log-probabilities of the bytes. 0, the default, always chooses the most
/// probable id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_temperature(
    options: *mut bolmo_generate_options,
    temperature: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.temperature = temperature)
}

/// Samples from the `top_k` most probable bytes only. 0, the default, turns this off.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_top_k(
    options: *mut bolmo_generate_options,
    top_k: usize,
) -> bolmo_status {
    change(options, |o| o.sampling.top_k = top_k)
}

/// Samples from the most probable bytes whose probabilities add up to `top_p` only. 1, the default, turns this off.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_top_p(
    options: *mut bolmo_generate_options,
    top_p: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.top_p = top_p)
}

/// Samples only from bytes whose probability is at least `min_p` times that of the most probable byte. 0, the default,
/// turns this off.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_min_p(
    options: *mut bolmo_generate_options,
    min_p: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.min_p = min_p)
}

/// Multiplies the log-probability of bytes that are among the last `window` ids by `penalty`. Above 1 discourages
/// repetition; 1, the default, turns this off. Clamped to 100.
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

/// Adds `bias` to the logits of `byte`, plain and fused. Replaces an earlier bias for the same byte. Clamped to
/// -1000..=1000, as all biases are.
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

/// Adds `bias` to the logits of the end of the text: above 0 ends earlier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_end_bias(
    options: *mut bolmo_generate_options,
    bias: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.end_bias = bias)
}

/// Adds `bias` to the logits of all ids that end a patch: above 0 makes patches shorter, below 0 longer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_boundary_bias(
    options: *mut bolmo_generate_options,
    bias: f32,
) -> bolmo_status {
    change(options, |o| o.sampling.boundary_bias = bias)
}

/// Sets the seed of the random numbers. The same seed draws the same numbers on every platform.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_seed(
    options: *mut bolmo_generate_options,
    seed: u64,
) -> bolmo_status {
    change(options, |o| o.sampling.seed = seed)
}

/// Adds a stop string, which is copied. Generation ends when it occurs; it is not part of the generated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_add_stop(
    options: *mut bolmo_generate_options,
    stop: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let stop = trusted!(input::bytes(stop, size, "stop"))?;
        if stop.is_empty() {
            return Err(invalid("stop: the stop string is empty; expected at least one byte"));
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

/// Sets whether to keep the log-probability of each id (bolmo_generation_logprobs). Each byte's logits then go to the
/// host, which takes longer. Greedy text is the same as without; sampled text may differ where rounding decides,
/// because the device and the host compute with different precision. Default: false.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_options_set_logprobs(
    options: *mut bolmo_generate_options,
    keep: bool,
) -> bolmo_status {
    change(options, |o| o.logprobs = keep)
}

/// Sets the constraint that the text must match; NULL, the default, for none. The options keep their own reference.
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

/// Deletes the options. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_generate_options_delete(options: *mut bolmo_generate_options) {
    handle::delete(options);
}
