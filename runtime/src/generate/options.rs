//! Options and result of a generation.

use crate::constraint::Constraint;
use crate::error::{Error, Result};
use crate::sampling::host::SamplingOptions;
use crate::sampling::logprobs::IdLogProbs;
use crate::text::ids;
use crate::text::stop::StopMatcher;

/// Options of a generation.
///
/// ```
/// use bolmo_runtime::{Constraint, GenerateOptions};
///
/// let options = GenerateOptions::default()
///     .max_bytes(200)
///     .stop("\n")
///     .constraint(Constraint::regex("[a-z ]+")?);
/// options.validate()?;
/// # Ok::<(), bolmo_runtime::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Maximum number of bytes to generate, at least 1.
    pub max_bytes: usize,
    /// How ids are chosen.
    pub sampling: SamplingOptions,
    /// Byte strings that end the generation; they are not part of the text.
    pub stops: Vec<Vec<u8>>,
    /// Constraint on the generated text; see [`Session::generate`](crate::Session::generate).
    pub constraint: Option<Constraint>,
    /// Fixed patch length for benchmarks, at least 1; without it the model decides where patches end.
    ///
    /// Byte `i` of the generation, counted from 0, ends a patch if a multiple of this number is above `i` and at most
    /// `i + 1`.
    pub bytes_per_patch: Option<f64>,
    /// Return the log-probability of each id ([`Generation::logprobs`]).
    ///
    /// The logits of each byte are then read back and the host chooses, which takes longer. Greedy text is the same;
    /// sampled text may differ where rounding decides, see [`Session::generate`](crate::Session::generate).
    pub logprobs: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_bytes: 256,
            sampling: SamplingOptions::default(),
            stops: Vec::new(),
            constraint: None,
            bytes_per_patch: None,
            logprobs: false,
        }
    }
}

impl GenerateOptions {
    /// Sets the maximum number of bytes to generate.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets how ids are chosen.
    #[must_use]
    pub fn sampling(mut self, sampling: SamplingOptions) -> Self {
        self.sampling = sampling;
        self
    }

    /// Adds a stop string.
    #[must_use]
    pub fn stop(mut self, stop: impl AsRef<[u8]>) -> Self {
        self.stops.push(stop.as_ref().to_vec());
        self
    }

    /// Sets the constraint that the text must match.
    #[must_use]
    pub fn constraint(mut self, constraint: Constraint) -> Self {
        self.constraint = Some(constraint);
        self
    }

    /// Sets a fixed patch length.
    #[must_use]
    pub fn bytes_per_patch(mut self, bytes: f64) -> Self {
        self.bytes_per_patch = Some(bytes);
        self
    }

    /// Sets whether the log-probability of each id is returned.
    #[must_use]
    pub fn logprobs(mut self, logprobs: bool) -> Self {
        self.logprobs = logprobs;
        self
    }

    /// Checks that every option is in its range.
    ///
    /// # Errors
    /// `InvalidArgument` that names the option, its range and its value.
    pub fn validate(&self) -> Result<()> {
        if self.max_bytes == 0 {
            return Err(Error::invalid("max_bytes: expected at least 1, found 0"));
        }
        self.sampling.validate()?;
        if let Some(bytes) = self.bytes_per_patch.filter(|bytes| !(bytes.is_finite() && *bytes >= 1.0)) {
            return Err(Error::invalid(format!(
                "bytes_per_patch: expected a finite number of at least 1, found {bytes}"
            )));
        }
        StopMatcher::new(self.stops.clone()).map(|_| ())
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The maximum number of bytes was reached.
    Budget,
    /// The model ended the text.
    End,
    /// The text contains a stop string.
    StopString,
    /// The text matches the constraint, and no byte may follow.
    Complete,
    /// The callback or the cancel token asked for it.
    Cancelled,
}

impl StopReason {
    /// Stable lower-case name of the reason.
    pub fn name(self) -> &'static str {
        match self {
            StopReason::Budget => "budget",
            StopReason::End => "end",
            StopReason::StopString => "stop-string",
            StopReason::Complete => "complete",
            StopReason::Cancelled => "cancelled",
        }
    }
}

/// A chunk of output, at most one patch; bytes that may start a stop string are held back.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Their ids; the id of a byte that ends a patch is fused (260 higher).
    pub ids: &'a [u16],
}

/// Natural log-probabilities of the ids of a generation, each under the model's own distribution over the 520 ids at
/// its position: without temperature, biases, penalty or constraint. Minus infinity for an id that the model rules out.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LogProbs {
    /// Of each id as chosen: of the byte and of whether a patch ends there.
    pub joint: Vec<f32>,
    /// Of each byte or end alone, plain and fused id summed.
    pub marginal: Vec<f32>,
}

impl LogProbs {
    /// Adds those of an id.
    pub(super) fn push(&mut self, logprobs: IdLogProbs, id: u16) {
        self.joint.push(logprobs.joint(ids::is_fused(id)) as f32);
        self.marginal.push(logprobs.marginal as f32);
    }
}

/// Result of a generation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// The text, without a stop string.
    pub bytes: Vec<u8>,
    /// The chosen ids, including those of a stop string, and a final 1 or 261 if the model ended the text.
    pub ids: Vec<u16>,
    /// Why the generation ended.
    pub stop: StopReason,
    /// Whether the whole text matches the constraint; `None` without one.
    pub matched: Option<bool>,
    /// Log-probabilities of the ids, if the options ask for them.
    ///
    /// Those of bytes that a constraint forced are the model's as well. If the generation was cancelled within them,
    /// the model had not decided whether the last byte ends a patch, and its id is plain.
    pub logprobs: Option<LogProbs>,
}

impl Generation {
    /// Number of patches that end in the generated bytes.
    pub fn patches(&self) -> usize {
        self.ids.iter().filter(|&&id| ids::is_fused(id)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setters_write_the_fields() {
        let sampling = SamplingOptions { seed: 7, ..SamplingOptions::default() };
        let options = GenerateOptions::default()
            .max_bytes(5)
            .sampling(sampling.clone())
            .stop("a")
            .stop(b"\xff")
            .bytes_per_patch(4.5)
            .logprobs(true);
        assert_eq!((options.max_bytes, options.bytes_per_patch, options.logprobs), (5, Some(4.5), true));
        assert_eq!((options.sampling, options.stops), (sampling, vec![b"a".to_vec(), b"\xff".to_vec()]));
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let refused = |options: GenerateOptions| options.validate().unwrap_err().message().to_owned();
        assert!(refused(GenerateOptions::default().max_bytes(0)).contains("max_bytes"));
        for bytes in [0.5, f64::INFINITY, f64::NAN] {
            assert!(refused(GenerateOptions::default().bytes_per_patch(bytes)).contains("bytes_per_patch"));
        }
        assert!(refused(GenerateOptions::default().stop("")).contains("stop string 0"));
    }
}
