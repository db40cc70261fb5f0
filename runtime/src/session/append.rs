//! Operations that extend a session: `append`, `logits`, `push`.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::sampling::host;
use crate::session::machine::Session;
use crate::session::prefill::{Prefill, PrefillEnd};
use crate::session::tap::Tap;
use crate::state::PendingByte;
use crate::text::ids;
use crate::timer::Timer;

/// Receives the progress of a prefill: bytes done, bytes in all.
type OnProgress<'a> = dyn FnMut(usize, usize) + Send + 'a;

impl Session {
    /// Appends the id that begins a text.
    pub async fn append_bos(&mut self) -> Result<()> {
        let bos = self.model.config.special.bos;
        self.append_counted(&[bos], &mut |_, _| {}).await
    }

    /// Appends bytes of text, any bytes. Appending a text in pieces of any size is the same as appending it at once.
    ///
    /// # Errors
    /// `Cancelled`: the session then holds the bytes that were processed (see [`Self::ids`]) and can go on from there.
    pub async fn append(&mut self, text: &[u8]) -> Result<()> {
        self.append_with_progress(text, &mut |_, _| {}).await
    }

    /// As [`Self::append`]. `progress` is called with the bytes done and the bytes in all, before each submission and
    /// at the end.
    pub async fn append_with_progress(&mut self, text: &[u8], progress: &mut OnProgress<'_>) -> Result<()> {
        let ids = ids::encode(text, self.byte_offset()?);
        self.append_counted(&ids, progress).await
    }

    /// Appends plain ids: bytes as 4 .. 259, and the special ids 0 and 1.
    ///
    /// # Errors
    /// `InvalidArgument` for other ids; as for [`Self::append`].
    pub async fn append_ids(&mut self, ids: &[u32]) -> Result<()> {
        self.append_ids_with_progress(ids, &mut |_, _| {}).await
    }

    /// As [`Self::append_ids`], with the progress of [`Self::append_with_progress`].
    pub async fn append_ids_with_progress(&mut self, ids: &[u32], progress: &mut OnProgress<'_>) -> Result<()> {
        let ids = ids::validate_input_ids(ids)?;
        self.append_counted(&ids, progress).await
    }

    /// Appends plain ids whose boundaries are known: `ends[i]` says whether id `i` ends a patch, in place of the
    /// boundary predictor. That includes the last id, so no byte is undecided afterwards. The first position of a text
    /// always ends a patch.
    ///
    /// # Errors
    /// `InvalidArgument` if `ends` and `ids` differ in length; as for [`Self::append_ids`].
    pub async fn append_ids_with_ends(&mut self, ids: &[u32], ends: &[bool]) -> Result<()> {
        if ids.len() != ends.len() {
            return Err(Error::invalid(format!(
                "found {} patch ends for {} ids, expected one for each",
                ends.len(),
                ids.len()
            )));
        }
        let ids = ids::validate_input_ids(ids)?;
        let Some(&last) = ends.last() else { return Ok(()) };
        let _call = self.begin_call()?;
        let counts = self.progress();
        counts.begin(ids.len());
        self.check_suffixes(&ids)?;
        if self.state.pending == PendingByte::Undecided {
            // `ends` says nothing about a byte from before.
            self.logits(0.0).await?;
        }
        let mut operation = self.begin().await?;
        operation.before_decision = None;
        if operation.state.pending == PendingByte::Chosen {
            operation.feed_chosen().await?;
        }
        let prefill = Prefill { ids: &ids, given_ends: Some(ends), tap: None };
        let before = operation.state.ids.len();
        let end = operation.prefill(prefill, &mut |done, _| counts.advance(done)).await?;
        // If the prefill was cancelled, it ends at an earlier byte, whose boundary is known as well.
        let done = operation.state.ids.len() - before;
        // Without a permit the device is suspended: the byte stays undecided, as after `append`.
        if operation.state.pending == PendingByte::Undecided && operation.permit.is_some() {
            let given = if done == ids.len() { last } else { done > 0 && ends[done - 1] };
            let ends_patch = given || operation.state.ids.len() == 1;
            operation.decide_pending(ends_patch, None).await?;
        }
        operation.finish()?;
        match end {
            PrefillEnd::Complete => {
                counts.advance(ids.len());
                Ok(())
            }
            PrefillEnd::Cancelled(error) => Err(error),
        }
    }

    /// As [`Self::append`], as a part of a generation: what is reported as done stays that of the generation.
    /// `tap` receives the logits before each byte.
    pub(crate) async fn append_forced(&mut self, text: &[u8], tap: Option<&mut Tap<'_>>) -> Result<()> {
        let ids = ids::encode(text, self.byte_offset()?);
        self.append_plain(&ids, tap, &mut |_, _| {}).await
    }

    /// As [`Self::append_plain`]. Other threads see how much is done.
    async fn append_counted(&mut self, ids: &[u16], progress: &mut OnProgress<'_>) -> Result<()> {
        let (counts, timer) = (self.progress(), Timer::start());
        counts.begin(ids.len());
        let before = (self.ids().len(), self.patches());
        let result = self
            .append_plain(ids, None, &mut |done, total| {
                counts.advance(done);
                progress(done, total);
            })
            .await;
        let (bytes, patches) = (self.ids().len().saturating_sub(before.0), self.patches().saturating_sub(before.1));
        log::debug!("appended {bytes} of {} ids, {patches} patches, {timer}", ids.len());
        result
    }

    async fn append_plain(
        &mut self,
        ids: &[u16],
        mut tap: Option<&mut Tap<'_>>,
        progress: &mut OnProgress<'_>,
    ) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut operation = self.begin().await?;
        // Checked first, so that a refusal leaves the session as it was.
        if let Err(error) = operation.check_suffixes(ids) {
            operation.finish()?;
            return Err(error);
        }
        if let Some(before) = operation.before_decision.take() {
            operation.state = before;
            operation.recorder.forget_bindings();
        }
        if operation.state.pending == PendingByte::Chosen {
            operation.feed_chosen().await?;
        }
        if let (Some(tap), PendingByte::None, Some(logits), Some(last)) =
            (&mut tap, operation.state.pending, &operation.state.logits, operation.state.ids.len().checked_sub(1))
        {
            // The prefill has no row for a byte that has gone through the model.
            (tap.logits)(last, logits)?;
        }
        let end = operation.prefill(Prefill { ids, given_ends: None, tap }, progress).await?;
        operation.finish()?;
        match end {
            PrefillEnd::Complete => {
                progress(ids.len(), ids.len());
                Ok(())
            }
            PrefillEnd::Cancelled(error) => Err(error),
        }
    }

    /// The 520 logits of the next id.
    ///
    /// After a prompt this first decides whether the prompt's last byte ends a patch: its plain and its fused id
    /// compete, the fused one with `boundary_bias` added (`docs/model.md`, "Decoding").
    ///
    /// # Errors
    /// `InvalidArgument` if the session is empty.
    pub async fn logits(&mut self, boundary_bias: f32) -> Result<Arc<[f32]>> {
        let mut operation = self.begin().await?;
        match operation.state.pending {
            PendingByte::None => {}
            PendingByte::Chosen => operation.feed_chosen().await?,
            PendingByte::Undecided => {
                let before = match operation.fork_present().await {
                    Ok(before) => before,
                    Err(error) => {
                        operation.finish()?;
                        return Err(error);
                    }
                };
                let ends_patch = operation.boundary_by_logits(boundary_bias)?;
                operation.decide_pending(ends_patch, None).await?;
                operation.before_decision = Some(before);
            }
        }
        let logits = operation.state.logits.clone();
        operation.finish()?;
        logits.ok_or_else(|| Error::invalid("the session is empty; append <bos> or text before asking for logits"))
    }

    /// Whether the undecided byte ends a patch, by the logits before it.
    fn boundary_by_logits(&self, boundary_bias: f32) -> Result<bool> {
        match (self.state.ids.as_slice(), &self.state.logits) {
            // The first position always ends a patch.
            ([_], _) => Ok(true),
            ([.., last], Some(logits)) => Ok(host::force(logits, *last, boundary_bias)),
            _ => Err(Error::internal("an undecided byte without logits before it")),
        }
    }

    /// Chooses the next id, fused (260 added) where its byte ends a patch. It goes through the model with the next call
    /// that needs its logits.
    ///
    /// # Errors
    /// `InvalidArgument` for ids that are never chosen: 0, 2 and 3, the same fused, and 520 and above.
    pub async fn push(&mut self, id: u16) -> Result<()> {
        let plain = ids::plain(id);
        if usize::from(id) >= ids::IDS || matches!(plain, ids::PAD_ID | ids::UNUSED_EOS_ID | ids::BPE_END_ID) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("id {id} cannot be chosen; expected 1, 4..=259, or one of them + 260"),
            ));
        }
        let _call = self.begin_call()?;
        if self.state.pending != PendingByte::None || self.state.ids.is_empty() {
            self.logits(0.0).await?;
        }
        // Nothing is submitted, so this doesn't wait while the device is suspended.
        let mut operation = self.begin_with(None)?;
        if let Err(error) = operation.check_suffixes(&[plain]) {
            operation.finish()?;
            return Err(error);
        }
        operation.before_decision = None;
        operation.state.ids.push(id);
        operation.state.pending = PendingByte::Chosen;
        operation.finish()?;
        Ok(())
    }
}
