//! Generating step by step, in a loop of the program's own.
//!
//! ```c
//! float logits[BOLMO_LOGITS];
//! uint16_t id;
//! bolmo_sampler *sampler;
//! bolmo_sampler_create(options, &sampler);
//! for (int i = 0; i < 100; i++) {
//!     bolmo_session_logits(session, 0.0f, logits, BOLMO_LOGITS);
//!     bolmo_sampler_choose(sampler, session, logits, BOLMO_LOGITS, NULL, &id); // or choose it yourself
//!     uint16_t plain = id >= BOLMO_FUSED_OFFSET ? id - BOLMO_FUSED_OFFSET : id;
//!     if (plain == BOLMO_END_ID) break;
//!     bolmo_session_push(session, id);
//!     putchar(plain - BOLMO_BYTE_OFFSET);
//! }
//! bolmo_sampler_delete(sampler);
//! ```
//!
//! Of the 520 ids, 4 to 259 are the bytes, 1 ends the text, and 0, 2 and 3 are never chosen. Adding 260 to an id says
//! that a patch ends there.

use std::sync::Mutex;

use bolmo_runtime::Sampler;
use bolmo_runtime::block_on;
use bolmo_runtime::ids;

use crate::constraint::BOLMO_CANDIDATES;
use crate::handle::{self, opaque};
use crate::input::{self, Out, invalid};
use crate::options::{self, bolmo_generate_options};
use crate::session::{bolmo_session, with};
use crate::status::{bolmo_status, call};
use crate::text::lock;

/// Logits per step: one for each id, plain and fused.
pub const BOLMO_LOGITS: usize = 520;

const _: () = assert!(BOLMO_LOGITS == ids::IDS);

/// Chooses ids, with its own stream of random numbers. For one thread at a time.
pub struct bolmo_sampler {
    _opaque: [u8; 0],
}
opaque!(bolmo_sampler, Mutex<Sampler>);

/// Copies the logits of the next id to `logits`, which has room for `capacity` numbers, at least BOLMO_LOGITS. After
/// appended text this first decides whether its last byte ends a patch, with `boundary_bias` added to the logit of
/// ending one.
///
/// BOLMO_INVALID_ARGUMENT: the session has no text yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_logits(
    session: *mut bolmo_session,
    boundary_bias: f32,
    logits: *mut f32,
    capacity: usize,
) -> bolmo_status {
    call(|| {
        if capacity < ids::IDS || logits.is_null() {
            return Err(invalid(format!(
                "logits: expected room for {} numbers, found {capacity} at {logits:p}",
                ids::IDS
            )));
        }
        if !boundary_bias.is_finite() {
            return Err(invalid(format!("boundary_bias: expected a finite number, found {boundary_bias}")));
        }
        let all = with(session, |session| block_on(session.logits(boundary_bias)))?;
        trusted!(input::fill(logits, capacity, &all, "logits"))
    })
}

/// Appends a chosen id: 1, 4 to 259, or one of them plus 260. The model processes it in the next call that needs
/// logits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_push(session: *mut bolmo_session, id: u16) -> bolmo_status {
    call(|| with(session, |session| block_on(session.push(id))))
}

/// Creates a sampler at the start of its seed's random numbers. `options` may be NULL. The sampler uses the sampling
/// options only, not budget, stop strings and constraint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_sampler_create(
    options: *const bolmo_generate_options,
    sampler: *mut *mut bolmo_sampler,
) -> bolmo_status {
    call(|| {
        let sampler = trusted!(Out::new(sampler, "sampler"))?;
        let made = Sampler::new(options::read(options)?.sampling)?;
        sampler.set(handle::insert(Mutex::new(made))?);
        Ok(())
    })
}

/// Chooses the id that follows the session's text, from BOLMO_LOGITS `logits`: that of a byte, or 1 or 261 for the end.
/// `allowed`, which may be NULL, has BOLMO_CANDIDATES flags as from bolmo_matcher_allowed. Where a flag is 0, neither
/// the plain nor the fused id is chosen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_sampler_choose(
    sampler: *mut bolmo_sampler,
    session: *mut bolmo_session,
    logits: *const f32,
    count: usize,
    allowed: *const u8,
    id: *mut u16,
) -> bolmo_status {
    call(|| {
        let id = trusted!(Out::new(id, "id"))?;
        let logits = trusted!(input::items(logits, count, "logits"))?;
        let allowed =
            if allowed.is_null() { None } else { Some(trusted!(input::items(allowed, BOLMO_CANDIDATES, "allowed"))?) };
        let mask = allowed.map(|flags| std::array::from_fn(|i| flags.get(i).is_some_and(|&flag| flag != 0)));
        let object = handle::get(sampler)?;
        let mut sampler = lock(&object, "bolmo_sampler")?;
        let window = sampler.options().repetition_window;
        let history: Vec<u16> = with(session, |session| {
            let ids = session.ids();
            Ok(ids[ids.len().saturating_sub(window)..].iter().map(|&id| ids::plain(id)).collect())
        })?;
        id.set(sampler.choose(logits, &history, mask.as_ref())?);
        Ok(())
    })
}

/// Deletes the sampler. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_sampler_delete(sampler: *mut bolmo_sampler) {
    handle::delete(sampler);
}
