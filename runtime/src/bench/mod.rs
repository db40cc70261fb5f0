//! Benchmarks: the measured limits of an adapter, and the work that a model needs per byte of text.
//!
//! [`Limits::measure`] times single kernels, and [`Traffic`] counts the cost of a byte. [`decode`] and [`ends_patch`]
//! run a model with a fixed schedule of patch ends, so that the amount of work does not depend on random weights.

mod limits;
#[cfg(not(target_family = "wasm"))]
mod memory;
mod traffic;

pub use limits::{Limits, ProductRate, Spread};
pub use traffic::Traffic;

use crate::error::{Error, ErrorKind, Result};
use crate::generate::{GenerateOptions, StopReason, generate_batch};
use crate::session::Session;

pub use crate::sampling::device::ends_patch;

/// Decodes `count` bytes greedily in each session, with patches that end by the schedule of [`ends_patch`]. The last
/// byte goes through the model too.
///
/// # Errors
/// `Cancelled` if a session is cancelled; any error of the device.
pub async fn decode(sessions: &mut [Session], count: usize, bytes_per_patch: f64) -> Result<()> {
    let mut options =
        GenerateOptions { max_bytes: count, bytes_per_patch: Some(bytes_per_patch), ..GenerateOptions::default() };
    // Otherwise a model with random weights would end the text early.
    options.sampling.end_bias = -1e30;
    let all = vec![options; sessions.len()];
    for generation in generate_batch(sessions, &all).await? {
        let generation = generation?;
        if generation.stop != StopReason::Budget {
            let done = generation.bytes.len();
            return Err(Error::new(ErrorKind::Cancelled, format!("decoding stopped after {done} of {count} bytes")));
        }
    }
    for session in sessions {
        session.logits(0.0).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn patches_have_the_requested_length(n in 0usize..5000, bytes_per_patch in 1.0f64..50.0) {
            let ends: Vec<bool> = (0..n).map(|i| ends_patch(i, bytes_per_patch)).collect();
            let count = ends.iter().filter(|&&end| end).count();
            prop_assert_eq!(count, (n as f64 / bytes_per_patch).floor() as usize);
            // The lengths of patches differ by as little as possible.
            let at: Vec<usize> = ends.iter().enumerate().filter(|(_, end)| **end).map(|(i, _)| i).collect();
            for pair in at.windows(2) {
                let length = (pair[1] - pair[0]) as f64;
                prop_assert!((length - bytes_per_patch).abs() < 1.0, "{length} at {bytes_per_patch}");
            }
        }
    }

    #[test]
    fn a_whole_number_of_bytes_per_patch_ends_every_nth_byte() {
        let ends = |r| (0..6).map(|i| ends_patch(i, r)).collect::<Vec<_>>();
        assert_eq!(ends(1.0), [true; 6]);
        assert_eq!(ends(3.0), [false, false, true, false, false, true]);
        assert_eq!(ends(1e9), [false; 6]);
    }
}
