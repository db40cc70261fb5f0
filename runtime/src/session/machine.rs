//! The session itself, and the guard that every operation on it holds.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::device::{Counters, Kept, Permit, Recorder};
use crate::error::{Error, Result};
use crate::model::{Inner, Model};
use crate::session::calls::{Call, Calls};
use crate::session::cancel::CancelToken;
use crate::session::device_decode::DeviceDecode;
use crate::session::progress::Progress;
use crate::session::unread_logits::UnreadLogits;
use crate::state::State;
use crate::state::workspace::Workspace;

/// One sequence on a model.
///
/// ```no_run
/// # async fn demo(model: &bolmo_runtime::Model) -> bolmo_runtime::Result<()> {
/// let mut session = bolmo_runtime::Session::new(model).await?;
/// session.append_bos().await?;
/// session.append(b"Hello").await?;
/// let logits = session.logits(0.0).await?; // of the next id
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Session {
    pub(super) model: Arc<Inner>,
    pub(super) state: State,
    /// Activations of a single byte.
    pub(super) workspace: Workspace,
    pub(super) recorder: Recorder,
    /// The state before it was decided whether the prompt's last byte ends a patch. Kept until a byte is chosen,
    /// because appending text instead reopens the decision (`docs/model.md`, "Decoding").
    pub(super) before_decision: Option<State>,
    /// Resources for decoding on the device, once it was used.
    pub(super) device_decode: Kept<DeviceDecode>,
    /// The logits after the last id, where a prefill was cancelled while the device was suspended.
    pub(super) unread_logits: Option<UnreadLogits>,
    pub(super) cancel: CancelToken,
    progress: Progress,
    /// [`KvCache::replaced`](crate::state::kv_cache::KvCache::replaced) when the recorder's bind groups were valid.
    bound: u64,
    pub(super) calls: Calls,
    /// Held by the operation in progress while it may submit work.
    pub(super) permit: Option<Permit>,
    /// How often memory had been released when this session last looked.
    trims: u64,
    /// Set when an operation did not finish: it failed part-way, or its future was dropped.
    poisoned: bool,
    /// Whether the text has been reported to be longer than those that the model was trained with.
    reported_length: bool,
}

/// Exclusive use of a session for one operation. Dropping it without [`finish`](Self::finish) poisons the session.
#[must_use]
pub(super) struct Operation<'a> {
    session: &'a mut Session,
    finished: bool,
}

impl Operation<'_> {
    /// Ends the operation with the session in a consistent state.
    ///
    /// # Errors
    /// `BadCheckpoint` if a mapped file has changed since the operation began: its results may be wrong.
    pub(super) fn finish(mut self) -> Result<()> {
        self.session.model.files.check_unchanged()?;
        self.finished = true;
        self.session.show_progress();
        if !self.session.reported_length
            && let Some(warning) = self.session.model.config.beyond_context(self.session.patches())
        {
            self.session.reported_length = true;
            log::warn!("{warning}");
        }
        Ok(())
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.session.permit = None;
        if !self.finished {
            self.session.poisoned = true;
            self.session.show_progress();
        }
    }
}

impl Deref for Operation<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

impl DerefMut for Operation<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.session
    }
}

impl Session {
    /// A session without any text.
    pub async fn new(model: &Model) -> Result<Self> {
        let inner = model.inner.clone();
        let _permit = inner.device().begin_work()?;
        let state = State::new(inner.device(), &inner.config).await?;
        Self::with_state(inner, state).await
    }

    pub(super) async fn with_state(model: Arc<Inner>, state: State) -> Result<Self> {
        let workspace = Workspace::new(model.device(), &model.config, 1).await?;
        let recorder = Recorder::new(model.device()).await?;
        let progress = Progress::default();
        progress.show(&state);
        log::debug!("session created: {} ids, {} bytes", state.ids.len(), state.device_bytes());
        let calls = Calls::default();
        let in_use = {
            let calls = calls.clone();
            move || calls.in_progress()
        };
        Ok(Self {
            device_decode: model.device().keep(in_use),
            trims: model.device().trims(),
            model,
            bound: state.kv.replaced(),
            progress,
            state,
            workspace,
            recorder,
            before_decision: None,
            unread_logits: None,
            cancel: CancelToken::default(),
            calls,
            permit: None,
            poisoned: false,
            reported_length: false,
        })
    }

    /// Begins a call that consists of several operations. They wait if the device is suspended meanwhile.
    ///
    /// # Errors
    /// `Suspended`.
    pub(crate) fn begin_call(&self) -> Result<Call> {
        self.calls.begin(self.model.device())
    }

    /// A permit for an operation.
    pub(super) async fn work_permit(&self) -> Result<Permit> {
        self.model.files.check_unchanged()?;
        self.calls.permit(self.model.device(), &self.cancel).await
    }

    /// Begins an operation.
    ///
    /// # Errors
    /// The device is lost or suspended, or an earlier operation did not finish. `Cancelled` while a call in progress
    /// waits for a suspended device.
    pub(super) async fn begin(&mut self) -> Result<Operation<'_>> {
        let permit = self.work_permit().await?;
        let mut operation = self.begin_with(Some(permit))?;
        operation.read_unread_logits().await?;
        Ok(operation)
    }

    /// Begins an operation with a permit, or one that submits no work without it.
    ///
    /// # Errors
    /// The device is lost, or an earlier operation did not finish.
    pub(super) fn begin_with(&mut self, permit: Option<Permit>) -> Result<Operation<'_>> {
        let device = self.model.device();
        // A lost device poisons every session, and is the better reason.
        device.check()?;
        if self.bound != self.state.kv.replaced() {
            // Another list had segments replaced, which the bind groups of this one would keep.
            self.bound = self.state.kv.replaced();
            self.recorder.forget_bindings();
        }
        if self.poisoned {
            return Err(Error::invalid(
                "an earlier operation on this session failed or was abandoned before it finished; rewind the session \
                 to a checkpoint or create a new one",
            ));
        }
        let trims = device.trims();
        if trims != self.trims {
            self.trims = trims;
            self.recorder.release();
        }
        self.permit = permit;
        Ok(Operation { session: self, finished: false })
    }

    /// Replaces the whole state. A poisoned session becomes usable again.
    pub(super) fn replace(&mut self, state: State) {
        self.state = state;
        self.before_decision = None;
        self.unread_logits = None;
        self.poisoned = false;
        self.recorder.discard();
        // Bind groups hold the buffers of the state that is gone.
        self.recorder.forget_bindings();
        self.show_progress();
    }

    /// What other threads may read of the session while it works.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Makes the present counts visible to other threads.
    pub(super) fn show_progress(&self) {
        self.progress.show(&self.state);
    }

    /// The model that the session runs on.
    pub fn model(&self) -> Model {
        Model { inner: self.model.clone() }
    }

    /// Whether the other session runs on the same model.
    pub(crate) fn shares_model(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.model, &other.model)
    }

    /// Every id so far, `<bos>` included; fused (260 added) where the byte is known to end a patch.
    pub fn ids(&self) -> &[u16] {
        &self.state.ids
    }

    /// Patches that have gone through the global model.
    pub fn patches(&self) -> usize {
        self.state.kv.len()
    }

    /// Bytes of device memory that the sequence holds, shared ones included.
    pub fn device_bytes(&self) -> u64 {
        self.state.device_bytes()
    }

    /// Work that single-byte steps of this session have submitted so far. Prefill is counted in
    /// [`Engine::counters`](crate::Engine::counters) alone.
    pub fn counters(&self) -> Counters {
        self.recorder.counters()
    }

    /// A token that stops this session from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Makes `token` stop this session, in place of its current token.
    pub fn set_cancel_token(&mut self, token: CancelToken) {
        self.cancel = token;
    }

    /// Suffix ids of `new`, which follow what the session holds; empty for a model without a suffix table.
    pub(super) fn suffixes(&self, new: &[u16]) -> Result<Vec<u32>> {
        suffixes_after(&self.model, &self.state.ids, new)
    }

    /// Checks that every one of `new` will have a suffix. Bytes always do, which was checked with the vocabulary;
    /// special ids match only themselves.
    pub(crate) fn check_suffixes(&self, new: &[u16]) -> Result<()> {
        let Some(trie) = &self.model.suffixes else { return Ok(()) };
        let lacks = |id: &u16| *id < self.model.config.byte_offset && trie.longest_match(&[*id]).is_none();
        match new.iter().position(lacks) {
            None => Ok(()),
            // The look-up has the message.
            Some(position) => trie.suffixes(&[], &new[..=position]).map(|_| ()),
        }
    }

    pub(crate) fn byte_offset(&self) -> Result<u8> {
        u8::try_from(self.model.config.byte_offset)
            .map_err(|_| Error::internal("the config's byte offset was not checked"))
    }
}

/// Suffix ids of `new` after `before`; empty for a model without a suffix table.
pub(super) fn suffixes_after(model: &Inner, before: &[u16], new: &[u16]) -> Result<Vec<u32>> {
    match &model.suffixes {
        None => Ok(Vec::new()),
        Some(trie) => trie.suffixes(&before[before.len().saturating_sub(trie.max_len())..], new),
    }
}
