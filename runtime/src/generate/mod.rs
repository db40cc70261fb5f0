//! Generation: a loop that chooses ids and appends them, with stop strings, a constraint and a maximum length.

mod batch;
mod generator;
mod options;

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::session::Session;
use generator::Generator;

pub use batch::{Ended, GenerationBatch};
pub use options::{GenerateOptions, Generation, LogProbs, Piece, StopReason};

impl Session {
    /// Generates until a [`StopReason`] applies.
    ///
    /// `on_piece` receives the text as it is produced and may break off. The chosen bytes become part of the session,
    /// including those of a stop string; the id that ends a text does not.
    ///
    /// The device chooses the bytes of a patch and returns them together, unless there is a constraint,
    /// log-probabilities are wanted or [`EngineOptions::decode_steps`](crate::EngineOptions::decode_steps) is 0: then
    /// the logits of each byte are read back and the host chooses. Both choose in the same way, except that the device
    /// computes random numbers and probabilities in f32.
    ///
    /// With a constraint, a byte is chosen only if the text can still match within `max_bytes` afterwards, and the
    /// model may end the text only where it matches. So the text matches unless the generation was cancelled, a stop
    /// string cut it, or `max_bytes` is below [`Constraint::shortest`](crate::Constraint::shortest). Where the
    /// constraint allows only one byte, that byte and all forced bytes after it are appended together, like a prompt:
    /// the model finds the patches, and no random numbers are used. If `on_piece` breaks off within forced bytes, the
    /// session and the returned ids keep all of them.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of range or an empty session; errors of the device. Bytes already passed to
    /// `on_piece` stay in the session.
    pub async fn generate(
        &mut self,
        options: &GenerateOptions,
        on_piece: &mut (dyn FnMut(Piece<'_>) -> ControlFlow<()> + Send),
    ) -> Result<Generation> {
        let mut generator = Generator::new(self, options.clone()).await?;
        let stop = loop {
            if let Some(stop) = generator.step(self, on_piece).await? {
                break stop;
            }
        };
        Ok(generator.finish(stop, on_piece))
    }
}

/// Generates on several sessions at once, with one entry of `options` for each session.
///
/// Each session generates the same text as it would alone. [`GenerationBatch`] also passes the text on as it is
/// produced, and takes further sessions meanwhile.
///
/// # Errors
/// `InvalidArgument` if the numbers of sessions and options differ. An error of one session is in its own result.
pub async fn generate_batch(sessions: &mut [Session], options: &[GenerateOptions]) -> Result<Vec<Result<Generation>>> {
    if sessions.len() != options.len() {
        return Err(Error::invalid(format!(
            "options: expected one entry for each of {} sessions, found {}",
            sessions.len(),
            options.len()
        )));
    }
    let mut batch = GenerationBatch::new();
    for (session, options) in sessions.iter_mut().zip(options) {
        batch.add(session, options.clone());
    }
    let mut results: Vec<Option<Result<Generation>>> = vec![None; options.len()];
    while !batch.is_empty() {
        for ended in batch.round(&mut |_, _| ControlFlow::Continue(())).await {
            results[ended.index] = Some(ended.generation);
        }
    }
    let lost = || Err(Error::internal("a generation of a batch has no outcome"));
    Ok(results.into_iter().map(|result| result.unwrap_or_else(lost)).collect())
}
