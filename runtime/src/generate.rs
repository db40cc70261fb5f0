//! Generation: a loop of logits, choice and push, with stop strings and a budget.

use std::ops::ControlFlow;

use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::stages::bytes;
use crate::stages::sample::{Sampler, SamplingOptions};
use crate::stop::StopMatcher;

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
    /// stub
    pub constraint: Option<crate::Constraint>,
}

impl GenerateOptions {
    /// stub
    pub fn validate(&self) -> Result<()> {
        if self.max_bytes == 0 {
            return Err(Error::invalid("max_bytes is 0, expected at least 1"));
        }
        self.sampling.validate()?;
        StopMatcher::new(self.stops.clone()).map(|_| ())
    }
}
impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_bytes: 256, sampling: SamplingOptions::default(), stops: Vec::new(), constraint: None }
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
    /// The caller asked for it, through the callback or the cancel token.
    Cancelled,
    /// stub
    Complete,
}

impl StopReason {
    /// The name that the command prints.
    pub fn name(self) -> &'static str {
        match self {
            StopReason::Budget => "budget",
            StopReason::End => "end",
            StopReason::StopString => "stop-string",
            StopReason::Cancelled => "cancelled",
            StopReason::Complete => "complete",
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
    /// stub
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
    /// # Errors
    /// `InvalidArgument` for options out of range or a session without text; whatever the device reports. What was handed to
    /// `on_piece` before stays in the session.
    pub async fn generate(
        &mut self,
        options: &GenerateOptions,
        on_piece: &mut (dyn FnMut(Piece<'_>) -> ControlFlow<()> + Send),
    ) -> Result<Generation> {
        if options.max_bytes == 0 {
            return Err(Error::invalid("max_bytes is 0, expected at least 1"));
        }
        let mut sampler = Sampler::new(options.sampling.clone())?;
        let mut matcher = StopMatcher::new(options.stops.clone())?;
        let offset = self.byte_offset()?;
        let boundary_bias = options.sampling.boundary_bias;
        let cancel = self.cancel_token();
        let mut history: Vec<u16> = self.ids().iter().map(|&id| bytes::plain(id)).collect();
        let mut made = Generation { bytes: Vec::new(), ids: Vec::new(), stop: StopReason::Budget, matched: None };
        // Bytes handed out so far; ids of those held back follow.
        let mut released = 0;
        let mut hand_out = |made: &mut Generation, new: &[u8]| {
            let ids = &made.ids[released..released + new.len()];
            released += new.len();
            made.bytes.extend_from_slice(new);
            if new.is_empty() { ControlFlow::Continue(()) } else { on_piece(Piece { bytes: new, ids }) }
        };
        for _ in 0..options.max_bytes {
            if cancel.take() {
                made.stop = StopReason::Cancelled;
                break;
            }
            let logits = self.logits(boundary_bias).await?;
            let id = sampler.choose(&logits, &history, None)?;
            made.ids.push(id);
            let Some(byte) = bytes::id_to_byte(id, offset) else {
                made.stop = StopReason::End;
                break;
            };
            self.push(id).await?;
            history.push(bytes::plain(id));
            let held = matcher.push(byte);
            if hand_out(&mut made, &held.released).is_break() {
                made.stop = StopReason::Cancelled;
                break;
            }
            if held.matched.is_some() {
                made.stop = StopReason::StopString;
                break;
            }
        }
        // What was held back in vain belongs to the text, whatever ended it.
        let rest = if made.stop == StopReason::StopString { Vec::new() } else { matcher.flush() };
        let _ = hand_out(&mut made, &rest);
        Ok(made)
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
