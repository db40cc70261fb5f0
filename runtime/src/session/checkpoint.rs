//! States to return to: checkpoints, rewinding, clones.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::Inner;
use crate::session::machine::Session;
use crate::state::State;

/// A state of a session to return to. Holds device memory; belongs to the model, not to the session it was taken from.
#[derive(Debug)]
pub struct Checkpoint {
    model: Arc<Inner>,
    state: State,
}

impl Checkpoint {
    /// Number of ids that the sequence had.
    pub fn len(&self) -> usize {
        self.state.ids.len()
    }

    /// Whether the sequence was empty.
    pub fn is_empty(&self) -> bool {
        self.state.ids.is_empty()
    }
}

impl Session {
    /// A state to return to with [`Self::rewind`].
    pub async fn checkpoint(&mut self) -> Result<Checkpoint> {
        let mut operation = self.begin().await?;
        let state = operation.fork().await;
        let model = operation.model.clone();
        // A copy that fails leaves the session as it was.
        operation.finish()?;
        Ok(Checkpoint { model, state: state? })
    }

    /// Returns to the state of `checkpoint`, as if nothing had happened since. Also makes a session usable again after
    /// an operation that did not finish.
    ///
    /// # Errors
    /// `InvalidArgument` if the checkpoint belongs to another model.
    pub async fn rewind(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        if !Arc::ptr_eq(&self.model, &checkpoint.model) {
            return Err(Error::invalid(
                "the checkpoint was taken on another model; rewind needs one of this session's model",
            ));
        }
        let _permit = self.work_permit().await?;
        // Commands of an operation that did not finish must not be submitted with the copy.
        self.recorder.discard();
        let state = checkpoint.state.fork(&self.model.config, &mut self.recorder).await?;
        self.replace(state);
        log::debug!("session rewound to {} ids", self.ids().len());
        Ok(())
    }

    /// Another session with the same text, independent from here on.
    pub async fn try_clone(&mut self) -> Result<Session> {
        let mut operation = self.begin().await?;
        let state = operation.fork().await;
        let model = operation.model.clone();
        operation.finish()?;
        Self::with_state(model, state?).await
    }

    /// A copy of the state. A boundary decision that is still open stays open in it.
    async fn fork(&mut self) -> Result<State> {
        let state = self.before_decision.as_ref().unwrap_or(&self.state);
        let copy = state.fork(&self.model.config, &mut self.recorder).await;
        if copy.is_err() {
            self.recorder.discard();
        }
        copy
    }

    /// A copy of the state as it is, decided or not.
    pub(super) async fn fork_present(&mut self) -> Result<State> {
        let copy = self.state.fork(&self.model.config, &mut self.recorder).await;
        if copy.is_err() {
            self.recorder.discard();
        }
        copy
    }
}
