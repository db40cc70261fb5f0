//! Generation: a loop of logits, choice and push, with stop strings, a constraint and a budget.

mod run;

use std::ops::ControlFlow;

use crate::constraint::Constraint;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::stages::bytes;
use crate::stages::sample::SamplingOptions;
use crate::stop::StopMatcher;
use run::Run;

/// How to generate.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// The most bytes to generate, at least 1.
    pub max_bytes: usize,
    /// How ids are chosen.
    pub sampling: SamplingOptions,
    /// Byte strings that end the generation; they are not part of the text.
    pub stops: Vec<Vec<u8>>,
    /// What the text has to be; see [`Session::generate`].
    pub constraint: Option<Constraint>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_bytes: 256, sampling: SamplingOptions::default(), stops: Vec::new(), constraint: None }
    }
}

impl GenerateOptions {
    /// Checks that every option is in its range.
    ///
    /// # Errors
    /// `InvalidArgument` that names the option, its range and its value.
    pub fn validate(&self) -> Result<()> {
        if self.max_bytes == 0 {
            return Err(Error::invalid("max_bytes is 0, expected at least 1"));
        }
        self.sampling.validate()?;
        StopMatcher::new(self.stops.clone()).map(|_| ())
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The budget of bytes is used up.
    Budget,
    /// The model ended the text.
    End,
    /// A stop string came up.
    StopString,
    /// The text matches the constraint, and no byte may follow.
    Complete,
    /// The caller asked for it, through the callback or the cancel token.
    Cancelled,
}

impl StopReason {
    /// The name that the command prints.
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

/// Bytes as they come, never bytes that may still turn out to begin a stop string.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Their ids, fused (260 added) where a byte ends a patch.
    pub ids: &'a [u16],
}

/// What was generated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generation {
    /// The text, without a stop string.
    pub bytes: Vec<u8>,
    /// The ids as they were chosen: those of a stop string included, and a final 1 or 261 if the model ended the text.
    pub ids: Vec<u16>,
    /// Why it ended.
    pub stop: StopReason,
    /// Whether the text as a whole matches the constraint; `None` without one.
    pub matched: Option<bool>,
}

impl Generation {
    /// Patches that the chosen bytes ended.
    pub fn patches(&self) -> usize {
        self.ids.iter().filter(|&&id| bytes::is_fused(id)).count()
    }
}

impl Session {
    /// Generates until something ends it. `on_piece` gets the text as it comes and may break off. The chosen bytes, those of a
    /// stop string included, become part of the session; the id that ends a text does not.
    ///
    /// With a constraint only bytes are chosen after which the text can still match within `max_bytes`, and the model may end the
    /// text only where it matches. So the text matches unless it was cancelled, cut at a stop string, or `max_bytes` is below
    /// [`Constraint::shortest`]. Bytes that the constraint leaves no choice about are appended as text, a whole run of them at
    /// once, and the model finds the patches in them as in a prompt. They use up no random numbers. If `on_piece` breaks off inside
    /// such a run, the session and the generation's ids keep all of it.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of range or a session without text; whatever the device reports. What was handed to
    /// `on_piece` before stays in the session.
    pub async fn generate(
        &mut self,
        options: &GenerateOptions,
        on_piece: &mut (dyn FnMut(Piece<'_>) -> ControlFlow<()> + Send),
    ) -> Result<Generation> {
        options.validate()?;
        let mut run = Run::new(self, options, on_piece)?;
        let stop = loop {
            if let Some(stop) = run.step(self).await? {
                break stop;
            }
        };
        Ok(run.finish(stop))
    }
}

/// Generates on several sessions at once. Rows come out as they would one by one; `options` holds one entry a session.
///
/// # Errors
/// `InvalidArgument` if the numbers differ. The sessions' own errors stay with them.
pub async fn generate_batch(sessions: &mut [Session], options: &[GenerateOptions]) -> Result<Vec<Result<Generation>>> {
    if sessions.len() != options.len() {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} sessions and {} sets of options, expected as many", sessions.len(), options.len()),
        ));
    }
    let runs = sessions
        .iter_mut()
        .zip(options)
        .map(|(session, options)| async move { session.generate(options, &mut |_| ControlFlow::Continue(())).await });
    Ok(futures_util::future::join_all(runs).await)
}
