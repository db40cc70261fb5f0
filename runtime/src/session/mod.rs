//! A session: one sequence on a model. Text goes in by pieces, ids come out one by one; [`crate::generate`] makes a loop of it.

mod batch;
mod decode;
mod prefill;
mod snapshot;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::{Counters, Recorder};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Inner, Model};
use crate::sampling::host;
use crate::state::workspace::Workspace;
use crate::state::{State, Tail};
use crate::text::ids;

pub(crate) use batch::Batch;
pub(crate) use decode::Round;
use decode::Rounds;
pub(crate) use prefill::{Dump, Tap};

/// Stops the work of a session from any thread.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the session to stop: what it does now, or else what it is asked to do next, ends at its next submission.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Takes back a request that nothing has followed yet.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether somebody asked; the question takes the request back.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// A state of a session to come back to. Holds device memory; belongs to the model, not to the session it was taken from.
#[derive(Debug)]
pub struct Checkpoint {
    model: Arc<Inner>,
    state: State,
}

impl Checkpoint {
    /// Ids that the sequence had.
    pub fn len(&self) -> usize {
        self.state.ids.len()
    }

    /// Whether the sequence was empty.
    pub fn is_empty(&self) -> bool {
        self.state.ids.is_empty()
    }
}

/// One sequence on a model.
///
/// ```no_run
/// # async fn demo(model: &bolmo_runtime::Model) -> bolmo_runtime::Result<()> {
/// let mut session = bolmo_runtime::Session::new(model).await?;
/// session.append_bos().await?;
/// session.append(b"Hello", &mut |_, _| {}).await?;
/// let logits = session.logits(0.0).await?; // of the next id
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Session {
    model: Arc<Inner>,
    state: State,
    /// For one byte at a time.
    workspace: Workspace,
    recorder: Recorder,
    /// The state before the flag of the prompt's last byte was decided, kept until a byte is chosen: a byte appended instead
    /// opens the decision again (SPEC 8).
    undecided: Option<State>,
    /// For choices on the device, once there were any.
    rounds: Option<Rounds>,
    cancel: CancelToken,
    /// An operation began and did not end: its future was dropped, or it failed half-way.
    torn: bool,
}

impl Session {
    /// A session without any text.
    pub async fn new(model: &Model) -> Result<Self> {
        let inner = model.inner.clone();
        let state = State::new(inner.gpu(), &inner.config).await?;
        Self::with_state(inner, state).await
    }

    async fn with_state(model: Arc<Inner>, state: State) -> Result<Self> {
        let workspace = Workspace::new(model.gpu(), &model.config, 1).await?;
        let recorder = Recorder::new(model.gpu()).await?;
        let cancel = CancelToken::default();
        Ok(Self { model, state, workspace, recorder, undecided: None, rounds: None, cancel, torn: false })
    }

    /// The model it runs on.
    pub fn model(&self) -> Model {
        Model { inner: self.model.clone() }
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
        self.state.arena.size() + self.state.kv.bytes()
    }

    /// What single steps of this session have sent to the device so far. Stretches of a prompt are in
    /// [`Engine::counters`](crate::Engine::counters) alone.
    pub fn counters(&self) -> Counters {
        self.recorder.counters()
    }

    /// What stops this session from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Lets `token` stop this session, instead of the one it has.
    pub fn set_cancel_token(&mut self, token: CancelToken) {
        self.cancel = token;
    }

    /// Appends the id that begins a text.
    pub async fn append_bos(&mut self) -> Result<()> {
        let bos = self.model.config.special.bos;
        self.append_plain(&[bos], &mut |_, _| {}).await
    }

    /// Appends bytes of text, any bytes. Pieces of any size come to the same as all at once. `progress` hears of bytes done and
    /// in all.
    ///
    /// # Errors
    /// `Cancelled`: the session then holds the bytes that were done (see [`Self::ids`]) and goes on from there.
    pub async fn append(&mut self, text: &[u8], progress: &mut (dyn FnMut(usize, usize) + Send)) -> Result<()> {
        let ids = ids::encode(text, self.byte_offset()?);
        self.append_plain(&ids, progress).await
    }

    /// Appends plain ids: bytes as 4 .. 259, and the special ids 0 and 1.
    pub async fn append_ids(&mut self, ids: &[u32], progress: &mut (dyn FnMut(usize, usize) + Send)) -> Result<()> {
        let ids = ids::validate_input_ids(ids)?;
        self.append_plain(&ids, progress).await
    }

    /// Appends plain ids whose patch ends are known: `ends[i]` says whether id `i` ends a patch, instead of the predictor. Also for the
    /// last id, so nothing about them is open afterwards. The first position of a text always ends a patch, whatever `ends` says.
    ///
    /// # Errors
    /// `InvalidArgument` if `ends` is not as long as `ids`; as for [`Self::append`].
    pub async fn append_ids_with_ends(
        &mut self,
        ids: &[u32],
        ends: &[bool],
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<()> {
        if ids.len() != ends.len() {
            return Err(Error::invalid(format!("{} patch ends for {} ids, expected one each", ends.len(), ids.len())));
        }
        let ids = ids::validate_input_ids(ids)?;
        let Some(&last) = ends.last() else { return Ok(()) };
        self.check_suffixes(&ids)?;
        if self.state.tail == Tail::Waiting {
            // A byte from before waits for this text, but nothing in `ends` speaks of it.
            self.logits(0.0).await?;
        }
        self.undecided = None;
        self.begin()?;
        if self.state.tail == Tail::Chosen {
            self.feed_chosen().await?;
        }
        self.prefill(&ids, Some(ends), None, progress).await?;
        self.commit_waiting(last || self.state.ids.len() == 1).await?;
        self.end();
        Ok(())
    }

    async fn append_plain(&mut self, ids: &[u16], progress: &mut (dyn FnMut(usize, usize) + Send)) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.begin()?;
        // What would fail half-way fails here, with nothing done.
        self.check_suffixes(ids).inspect_err(|_| self.torn = false)?;
        if let Some(before) = self.undecided.take() {
            self.state = before;
            self.recorder.forget_bindings();
        }
        if self.state.tail == Tail::Chosen {
            self.feed_chosen().await?;
        }
        self.prefill(ids, None, None, progress).await?;
        self.end();
        Ok(())
    }

    /// The 520 logits of the next id.
    ///
    /// Behind a prompt this first decides whether the prompt's last byte ends a patch: its plain and its fused id compete, the
    /// fused one with `boundary_bias` added (SPEC 8.1).
    ///
    /// # Errors
    /// `InvalidArgument` if there is no text yet.
    pub async fn logits(&mut self, boundary_bias: f32) -> Result<Arc<[f32]>> {
        self.begin()?;
        match self.state.tail {
            Tail::Done => {}
            Tail::Chosen => self.feed_chosen().await?,
            Tail::Waiting => self.decide_waiting(boundary_bias).await?,
        }
        self.end();
        let logits = self.state.logits.clone();
        logits.ok_or_else(|| Error::invalid("the session is empty: append <bos> or text before asking for logits"))
    }

    async fn decide_waiting(&mut self, boundary_bias: f32) -> Result<()> {
        let ends = match (self.state.ids.as_slice(), &self.state.logits) {
            // The first position always ends a patch.
            ([_], _) => true,
            ([.., last], Some(logits)) => host::force(logits, *last, boundary_bias),
            _ => return Err(Error::internal("a waiting byte without logits before it")),
        };
        let before = self.state.fork(&self.model.config, &mut self.recorder).await?;
        self.commit_waiting(ends).await?;
        self.undecided = Some(before);
        Ok(())
    }

    /// Chooses the next id, fused (260 added) where its byte ends a patch. It goes through the model with the next call that
    /// needs its logits.
    ///
    /// # Errors
    /// `InvalidArgument` for ids that are never chosen (0, 2, 3 and their twins, 520 and above).
    pub async fn push(&mut self, id: u16) -> Result<()> {
        let plain = ids::plain(id);
        if usize::from(id) >= ids::IDS || matches!(plain, ids::PAD_ID | ids::UNUSED_EOS_ID | ids::BPE_END_ID) {
            return Err(Error::invalid(format!("id {id} cannot be chosen: expected 1, 4..=259, or one of them + 260")));
        }
        if self.state.tail != Tail::Done || self.state.ids.is_empty() {
            self.logits(0.0).await?;
        }
        self.check_suffixes(&[plain])?;
        self.undecided = None;
        self.state.ids.push(id);
        self.state.tail = Tail::Chosen;
        Ok(())
    }

    /// A state to come back to with [`Self::rewind`].
    pub async fn checkpoint(&mut self) -> Result<Checkpoint> {
        self.begin()?;
        let state = self.fork().await?;
        self.end();
        Ok(Checkpoint { model: self.model.clone(), state })
    }

    /// Goes back (or over) to the state of `checkpoint`, as if nothing had happened since.
    ///
    /// # Errors
    /// `InvalidArgument` if it belongs to another model.
    pub async fn rewind(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        if !Arc::ptr_eq(&self.model, &checkpoint.model) {
            return Err(Error::invalid("the checkpoint was taken on another model"));
        }
        let state = checkpoint.state.fork(&self.model.config, &mut self.recorder).await?;
        self.replace(state);
        Ok(())
    }

    /// Another session with the same text, which goes its own way from here.
    pub async fn try_clone(&mut self) -> Result<Session> {
        self.begin()?;
        let state = self.fork().await?;
        self.end();
        Self::with_state(self.model.clone(), state).await
    }

    /// A copy of the state; an open decision stays open in it.
    async fn fork(&mut self) -> Result<State> {
        self.undecided.as_ref().unwrap_or(&self.state).fork(&self.model.config, &mut self.recorder).await
    }

    fn replace(&mut self, state: State) {
        self.state = state;
        self.undecided = None;
        self.torn = false;
        self.recorder.discard();
        // Bind groups hold the buffers of the state that is gone.
        self.recorder.forget_bindings();
    }

    /// Suffix ids of `new`, which follow what the session holds; empty for a model without a suffix table.
    fn suffixes(&self, new: &[u16]) -> Result<Vec<u32>> {
        match &self.model.suffixes {
            None => Ok(Vec::new()),
            Some(trie) => {
                let ids = &self.state.ids;
                trie.suffixes(&ids[ids.len().saturating_sub(trie.max_len())..], new)
            }
        }
    }

    /// Whether every one of `new` will have a suffix. Bytes always do, which the vocabulary was held to; the others match only
    /// themselves.
    pub(crate) fn check_suffixes(&self, new: &[u16]) -> Result<()> {
        let Some(trie) = &self.model.suffixes else { return Ok(()) };
        let lacks = |id: &u16| *id < self.model.config.byte_offset && trie.longest_match(&[*id]).is_none();
        match new.iter().position(lacks) {
            None => Ok(()),
            // The look-up itself says what is wrong.
            Some(position) => trie.suffixes(&[], &new[..=position]).map(|_| ()),
        }
    }

    pub(crate) fn byte_offset(&self) -> Result<u8> {
        u8::try_from(self.model.config.byte_offset)
            .map_err(|_| Error::internal("the config's byte offset was not checked"))
    }

    fn begin(&mut self) -> Result<()> {
        // A lost device leaves every session torn, and is the better reason.
        self.model.gpu().check()?;
        if self.torn {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "an operation on this session was abandoned half-way: rewind it to a checkpoint or make a new one",
            ));
        }
        self.torn = true;
        Ok(())
    }

    fn end(&mut self) {
        self.torn = false;
    }
}
