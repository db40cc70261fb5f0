//! What an adapter can do at most, measured, and what a model asks of it: the two sides of `bolmo bench`.
//!
//! [`Limits::measure`] times single kernels, [`Traffic`] counts what a byte of text costs, [`decode`] and [`ends_patch`] run a model
//! along a fixed schedule of patch ends, so that random weights don't decide how much work there is.

mod limits;
mod traffic;

pub use limits::{Limits, ProductRate, Spread};
pub use traffic::Traffic;

use futures_util::future::try_join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::stages::bytes;

/// The fixed schedule: whether byte `i` (from 0) ends a patch at `bytes_per_patch`, so that n bytes end ⌊n / `bytes_per_patch`⌋ patches.
pub fn ends_patch(i: usize, bytes_per_patch: f64) -> bool {
    let patches = |bytes: usize| (bytes as f64 / bytes_per_patch).floor();
    patches(i + 1) > patches(i)
}

/// Lets each session go on by `count` bytes that end patches by the schedule; each byte is the session's most probable one.
/// `progress` hears of the bytes that each session has got, and stops the work with `false`.
///
/// # Errors
/// `Cancelled`; whatever the device reports.
pub async fn decode(
    sessions: &mut [Session],
    count: usize,
    bytes_per_patch: f64,
    progress: &mut (dyn FnMut(usize) -> bool + Send),
) -> Result<()> {
    for i in 0..count {
        if !progress(i) {
            return Err(Error::new(ErrorKind::Cancelled, format!("stopped after {i} of {count} bytes")));
        }
        let ends = ends_patch(i, bytes_per_patch);
        try_join_all(sessions.iter_mut().map(|session| step(session, ends))).await?;
    }
    progress(count);
    Ok(())
}

/// Chooses a byte and takes it through the model.
async fn step(session: &mut Session, ends: bool) -> Result<()> {
    let logits = session.logits(0.0).await?;
    let first = bytes::byte_to_id(0, session.byte_offset()?);
    let value = |id: u16| {
        let [plain, fused] = [id, id + bytes::FUSED_OFFSET].map(|id| logits.get(usize::from(id)).copied());
        plain.unwrap_or(f32::MIN).max(fused.unwrap_or(f32::MIN))
    };
    let best = (first..bytes::PLAIN_IDS).max_by(|&a, &b| value(a).total_cmp(&value(b))).unwrap_or(first);
    session.push(best + if ends { bytes::FUSED_OFFSET } else { 0 }).await?;
    session.logits(0.0).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn patches_are_as_long_as_asked(n in 0usize..5000, bytes_per_patch in 1.0f64..50.0) {
            let ends: Vec<bool> = (0..n).map(|i| ends_patch(i, bytes_per_patch)).collect();
            let count = ends.iter().filter(|&&end| end).count();
            prop_assert_eq!(count, (n as f64 / bytes_per_patch).floor() as usize);
            // No patch is a byte longer or shorter than the others have to be.
            let at: Vec<usize> = ends.iter().enumerate().filter(|(_, end)| **end).map(|(i, _)| i).collect();
            for pair in at.windows(2) {
                let length = (pair[1] - pair[0]) as f64;
                prop_assert!((length - bytes_per_patch).abs() < 1.0, "{length} at {bytes_per_patch}");
            }
        }
    }

    #[test]
    fn whole_numbers() {
        let ends = |r| (0..6).map(|i| ends_patch(i, r)).collect::<Vec<_>>();
        assert_eq!(ends(1.0), [true; 6]);
        assert_eq!(ends(3.0), [false, false, true, false, false, true]);
        assert_eq!(ends(1e9), [false; 6]);
    }
}
