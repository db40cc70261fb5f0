//! How ids go through the model: first the encoder, then the boundaries, then everything after them.

use std::sync::Arc;

use bolmo_shaders::sizes::MLSTM_CHUNK;

use crate::config::rope::cos_sin;
use crate::device::{Recorder, Slice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Inner, PrefillBuffers};
use crate::session::machine::{Session, suffixes_after};
use crate::session::tap::Tap;
use crate::session::unread_logits::UnreadLogits;
use crate::stages::local_layer::Over;
use crate::stages::ops::Context;
use crate::stages::{boundary, decoder, depool, embed, encoder, global, head, patches};
use crate::state::workspace::Workspace;
use crate::state::{PendingByte, State};
use crate::text::ids;

/// Bytes of a prefill chunk below which a matrix product would waste most of its tiles.
const MIN_CHUNK_BYTES: u64 = 64;
/// Patches of a chunk below which the products of the global blocks would do so.
const MIN_CHUNK_PATCHES: u64 = 32;
/// The same for attention, where that takes longer: it reads keys and values once for this many queries.
const MIN_CHUNK_QUERIES: u64 = 16;

/// Input of a prefill.
pub(crate) struct Prefill<'a, 't> {
    /// Plain ids that follow what the session holds.
    pub(crate) ids: &'a [u16],
    /// Which of them end a patch, in place of the boundary predictor. The last one's is left for the next byte to
    /// decide.
    pub(crate) given_ends: Option<&'a [bool]>,
    /// Receives intermediate results.
    pub(crate) tap: Option<&'a mut Tap<'t>>,
}

/// How a prefill ended. In both cases the session is consistent.
pub(super) enum PrefillEnd {
    /// All ids were taken in; the last one is undecided.
    Complete,
    /// Stopped between chunks, with the logits before the last byte. The error says how far it got.
    Cancelled(Error),
}

/// A part of a prefill that is one submission.
struct Chunk<'a> {
    ids: &'a [u16],
    /// For the undecided byte before the chunk, if there is one, and for all ids of the chunk but the last.
    given_ends: Option<&'a [bool]>,
    /// Whether the logits before its last byte are read back.
    reads_logits: bool,
}

/// What a chunk that was stopped part-way returns to.
struct ChunkStart {
    /// Copy of the state's arena.
    arena: Slice,
    ids: usize,
    last_id: Option<u16>,
    pending: PendingByte,
    logits: Option<Arc<[f32]>>,
    patches: usize,
}

/// Rows whose boundaries are decided, to be taken through everything after the encoder.
struct PrefillStep<'a> {
    /// Row of the workspace's h that holds the first byte.
    first_row: usize,
    /// Position of the first byte in the sequence.
    position: usize,
    /// For each row, whether its byte ends a patch.
    ends: &'a [bool],
    /// Whether the logits after the last row are read back.
    reads_logits: bool,
}

impl Session {
    /// Takes ids in, chunk by chunk. The last one is left undecided. `progress` is called before each chunk; the caller
    /// calls it at the end, when the operation is over.
    pub(super) async fn prefill(
        &mut self,
        prefill: Prefill<'_, '_>,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<PrefillEnd> {
        let model = self.model.clone();
        let mut buffers = model.take_prefill_buffers().await?;
        let mut unread = 0;
        let end = self.prefill_chunks(&mut buffers, prefill, progress, &mut unread).await;
        match unread {
            0 => model.give_back(buffers),
            rows => self.unread_logits = Some(UnreadLogits { buffers, rows }),
        }
        end
    }

    /// Reads the logits that a prefill has left unread.
    pub(super) async fn read_unread_logits(&mut self) -> Result<()> {
        let Some(UnreadLogits { mut buffers, rows }) = self.unread_logits.take() else { return Ok(()) };
        self.read_last_logits(&mut buffers, rows).await?;
        self.model.give_back(buffers);
        Ok(())
    }

    async fn prefill_chunks(
        &mut self,
        buffers: &mut PrefillBuffers,
        Prefill { ids, given_ends, mut tap }: Prefill<'_, '_>,
        progress: &mut (dyn FnMut(usize, usize) + Send),
        unread: &mut usize,
    ) -> Result<PrefillEnd> {
        let mut done = 0;
        // Rows that the last chunk took through the whole model.
        let mut rows = 0;
        let interrupts = self.model.device().capabilities.interrupts;
        let interrupt = interrupts.then(|| self.cancel.interrupt());
        let spare = match &interrupt {
            None => None,
            Some(_) => Some(self.model.device().allocate("the state of a session", self.state.arena.size()).await?),
        };
        let stopped = |done: usize| {
            let message = format!("stopped after {done} of {} bytes", ids.len());
            Ok(PrefillEnd::Cancelled(Error::new(ErrorKind::Cancelled, message)))
        };
        while done < ids.len() {
            self.model.files.check_unchanged()?;
            // The listener may suspend the device, or wait for a thread that does so.
            self.permit = None;
            // Reported before the cancel request is read: the listener may answer with one.
            progress(done, ids.len());
            match self.model.device().continue_work(&[self.cancel.request()]).await {
                Ok(permit) => self.permit = Some(permit),
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    self.cancel.take();
                    // The device is suspended, so they are read by the next operation.
                    *unread = if interrupt.is_none() { rows } else { 0 };
                    return stopped(done);
                }
                Err(error) => return Err(error),
            }
            if self.cancel.take() {
                if interrupt.is_none() {
                    self.read_last_logits(buffers, rows).await?;
                }
                return stopped(done);
            }
            let PrefillBuffers { workspace, recorder, .. } = &mut *buffers;
            let range = done..ids.len().min(done + self.chunk_bytes(workspace.capacity));
            // The byte before the chunk is decided in it, the chunk's last byte is not.
            let given_ends = given_ends.map(|ends| &ends[range.start.saturating_sub(1)..range.end - 1]);
            // Where a chunk can be stopped, its last result tells whether it was.
            let reads_logits = interrupt.is_some() || range.end == ids.len();
            let chunk = Chunk { ids: &ids[range.clone()], given_ends, reads_logits };
            let start = spare.as_ref().map(|spare| self.begin_chunk(recorder, spare)).transpose()?;
            recorder.set_interrupt(interrupt.clone());
            let result = self.prefill_chunk(workspace, recorder, chunk, tap.as_deref_mut()).await;
            recorder.set_interrupt(None);
            match (result, start) {
                (Err(error), Some(start)) if error.kind() == ErrorKind::Cancelled => {
                    self.return_to(recorder, start)?;
                    self.cancel.take();
                    return stopped(done);
                }
                (result, _) => rows = result?,
            }
            self.state.kv.keep();
            done = range.end;
            self.show_progress();
        }
        Ok(PrefillEnd::Complete)
    }

    /// Copies what a chunk changes, the KV cache's rows apart: a chunk only adds to them.
    fn begin_chunk(&mut self, recorder: &mut Recorder, spare: &Slice) -> Result<ChunkStart> {
        recorder.copy(&self.state.arena, spare)?;
        self.state.kv.begin();
        Ok(ChunkStart {
            arena: spare.clone(),
            ids: self.state.ids.len(),
            last_id: self.state.ids.last().copied(),
            pending: self.state.pending,
            logits: self.state.logits.clone(),
            patches: self.state.kv.len(),
        })
    }

    /// Returns to the state before a chunk that was stopped part-way.
    fn return_to(&mut self, recorder: &mut Recorder, start: ChunkStart) -> Result<()> {
        recorder.discard();
        recorder.copy(&start.arena, &self.state.arena)?;
        recorder.submit()?;
        let state = &mut self.state;
        state.kv.take_back(start.patches);
        state.ids.truncate(start.ids);
        if let (Some(last), Some(id)) = (state.ids.last_mut(), start.last_id) {
            // The chunk may have decided that it ends a patch.
            *last = id;
        }
        state.pending = start.pending;
        state.logits = start.logits;
        Ok(())
    }

    /// Bytes of the next chunk: few enough that a submission ends soon, whatever the model and the context.
    ///
    /// The work of a byte follows from the bytes per patch so far. Nothing that is measured counts, so that repeated
    /// runs have the same chunks and with them the same bits.
    fn chunk_bytes(&self, capacity: usize) -> usize {
        let config = &self.model.config;
        let capabilities = &self.model.device().capabilities;
        // Patches per byte may double from here on, because texts change. At the start every byte may be a patch.
        let (patches, ids) = (self.state.kv.len() as u64, (self.state.ids.len() as u64).max(1));
        let ending = if patches == 0 { ids } else { ids.min(2 * patches) };
        let per_byte = |per_patch: u64| per_patch.saturating_mul(ending) / ids;
        let attention = (2 * config.num_hidden_layers * config.query_width()) as u64;
        let attention = attention.saturating_mul(capabilities.attention_cost).saturating_mul(patches);
        let weights = self.model.weights_per_row;
        let global = weights.saturating_sub(self.model.weights_per_byte);
        let work = self.model.weights_per_byte.saturating_add(per_byte(global.saturating_add(attention)));
        let bytes_of = |rows: u64| rows * ids / patches.max(1);
        let shortest = if per_byte(attention) > weights {
            bytes_of(MIN_CHUNK_QUERIES)
        } else {
            MIN_CHUNK_BYTES.max(bytes_of(MIN_CHUNK_PATCHES))
        };
        let bytes = capabilities.prefill_products / work.max(1);
        let bytes = usize::try_from(bytes.max(shortest)).unwrap_or(usize::MAX).min(capacity).max(1);
        // Chunks of the mLSTM begin with a chunk of the prompt; only the last one may be shorter.
        let step = MLSTM_CHUNK as usize;
        if bytes < step { bytes } else { bytes / step * step }
    }

    /// Reads the logits after the last of `rows` rows that a chunk has left in `ws`. Without rows the present ones are
    /// right.
    async fn read_last_logits(&mut self, buffers: &mut PrefillBuffers, rows: usize) -> Result<()> {
        if let Some(row) = rows.checked_sub(1) {
            let model = self.model.clone();
            let PrefillBuffers { workspace, recorder, .. } = buffers;
            let cx = Context { recorder, config: &model.config, workspace };
            let mut forward = Forward { cx, model: &model, state: &mut self.state, tap: None };
            forward.state.logits = Some(forward.logits_of_row(row).await?);
        }
        Ok(())
    }

    /// Takes a chunk in. Returns how many rows went through the whole model: all but the one that is now undecided.
    async fn prefill_chunk(
        &mut self,
        ws: &Workspace,
        recorder: &mut Recorder,
        chunk: Chunk<'_>,
        tap: Option<&mut Tap<'_>>,
    ) -> Result<usize> {
        let model = self.model.clone();
        let new = chunk.ids;
        let suffixes = self.suffixes(new)?;
        let row = 4 * model.config.hidden_size as u64;
        let has_undecided = self.state.pending == PendingByte::Undecided;
        // Rows of h to decide: the undecided byte from before, if there is one, and all new ones but the last.
        let first_row = usize::from(!has_undecided);
        let decided = new.len() - first_row;
        let position = self.state.ids.len() - usize::from(has_undecided);

        let cx = Context { recorder, config: &model.config, workspace: ws };
        let mut forward = Forward { cx, model: &model, state: &mut self.state, tap };
        if has_undecided {
            forward.cx.recorder.copy(&forward.state.h, &ws.h.part(0, row)?)?;
        }
        forward.encode(new, &suffixes)?;
        forward.cx.recorder.copy(&ws.h.part(new.len() as u64 * row, row)?, &forward.state.h)?;
        let mut ends = forward.boundaries(first_row, decided).await?;
        if let Some(given) = chunk.given_ends {
            ends.copy_from_slice(given);
        }
        if let (0, [end, ..]) = (position, ends.as_mut_slice()) {
            // The first position always ends a patch.
            *end = true;
        }
        let state = &mut *forward.state;
        state.ids.extend_from_slice(new);
        state.pending = PendingByte::Undecided;
        for (id, _) in state.ids[position..].iter_mut().zip(&ends).filter(|(_, end)| **end) {
            *id += ids::FUSED_OFFSET;
        }
        forward.run(PrefillStep { first_row, position, ends: &ends, reads_logits: chunk.reads_logits }).await?;
        Ok(decided)
    }

    /// Takes the chosen id through the whole model.
    pub(super) async fn feed_chosen(&mut self) -> Result<()> {
        let model = self.model.clone();
        let Some((&id, before)) = self.state.ids.split_last() else {
            return Err(Error::internal("no id was chosen"));
        };
        let plain = [ids::plain(id)];
        let suffixes = suffixes_after(&model, before, &plain)?;
        let position = before.len();
        let cx = Context { recorder: &mut self.recorder, config: &model.config, workspace: &self.workspace };
        let mut forward = Forward { cx, model: &model, state: &mut self.state, tap: None };
        forward.encode(&plain, &suffixes)?;
        let ends = [ids::is_fused(id)];
        forward.run(PrefillStep { first_row: 1, position, ends: &ends, reads_logits: true }).await?;
        self.state.pending = PendingByte::None;
        Ok(())
    }

    /// Decides the undecided byte and takes it through everything after the encoder.
    pub(super) async fn decide_pending(&mut self, ends_patch: bool, mut tap: Option<&mut Tap<'_>>) -> Result<()> {
        let model = self.model.clone();
        let Some(position) = self.state.ids.len().checked_sub(1) else {
            return Err(Error::internal("no byte is undecided"));
        };
        let ws = &self.workspace;
        self.recorder.copy(&self.state.h, &ws.h.part(0, 4 * model.config.hidden_size as u64)?)?;
        if let Some(Tap { dump: Some(dump), .. }) = &mut tap {
            dump.encoder_out.extend(self.recorder.read_f32(std::slice::from_ref(&self.state.h)).await?);
        }
        if ends_patch {
            self.state.ids[position] += ids::FUSED_OFFSET;
        }
        let cx = Context { recorder: &mut self.recorder, config: &model.config, workspace: ws };
        let mut forward = Forward { cx, model: &model, state: &mut self.state, tap };
        forward.run(PrefillStep { first_row: 0, position, ends: &[ends_patch], reads_logits: true }).await?;
        self.state.pending = PendingByte::None;
        Ok(())
    }

    /// Takes a whole sequence through a fresh session for scoring; its last id is left undecided.
    pub(crate) async fn score_forward(
        &mut self,
        ids: &[u16],
        given_ends: Option<&[bool]>,
        tap: &mut Tap<'_>,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<()> {
        self.check_suffixes(ids)?;
        let mut operation = self.begin().await?;
        let end = operation.prefill(Prefill { ids, given_ends, tap: Some(tap) }, progress).await?;
        operation.finish()?;
        match end {
            PrefillEnd::Complete => {
                progress(ids.len(), ids.len());
                Ok(())
            }
            PrefillEnd::Cancelled(error) => Err(error),
        }
    }

    /// Takes the last id of a sequence through the whole model for scoring.
    pub(crate) async fn score_last(&mut self, ends_patch: bool, tap: &mut Tap<'_>) -> Result<()> {
        let mut operation = self.begin().await?;
        operation.decide_pending(ends_patch, Some(tap)).await?;
        operation.finish()?;
        Ok(())
    }
}

/// The forward pass of one sequence over the rows of a workspace.
struct Forward<'a, 't> {
    cx: Context<'a>,
    model: &'a Inner,
    state: &'a mut State,
    tap: Option<&'a mut Tap<'t>>,
}

impl Forward<'_, '_> {
    /// Embeds and encodes ids into rows 1 .. of the workspace's `h`.
    fn encode(&mut self, ids: &[u16], suffixes: &[u32]) -> Result<()> {
        let (model, ws) = (self.model, self.cx.workspace);
        let device = model.device();
        let ids: Vec<u32> = ids.iter().map(|&id| id.into()).collect();
        device.write(&ws.ids, 0, bytemuck::cast_slice(&ids))?;
        device.write(&ws.suffix_ids, 0, bytemuck::cast_slice(suffixes))?;
        embed::embed(&mut self.cx, &model.weights, &ws.ids, &ws.suffix_ids, 0, ids.len())?;
        encoder::encoder(&mut self.cx, &model.weights, Over::Sequence(&self.state.encoder, ids.len()))
    }

    /// Which of `count` rows of `h`, from `first_row` on, end a patch, by the boundary predictor.
    async fn boundaries(&mut self, first_row: usize, count: usize) -> Result<Vec<bool>> {
        if count == 0 {
            self.cx.recorder.submit()?;
            return Ok(Vec::new());
        }
        let ws = self.cx.workspace;
        boundary::boundary(&mut self.cx, &self.model.weights, first_row, count)?;
        let cosines = self.cx.recorder.read_f32(&[ws.cosine.part(0, 4 * count as u64)?]).await?;
        let ends = cosines.iter().map(|&cosine| boundary::ends_patch(cosine)).collect();
        if let Some(Tap { dump: Some(dump), .. }) = &mut self.tap {
            let row = 4 * self.model.config.hidden_size as u64;
            let rows = ws.h.part(first_row as u64 * row, count as u64 * row)?;
            dump.encoder_out.extend(self.cx.recorder.read_f32(&[rows]).await?);
            dump.cosine.extend(cosines);
        }
        Ok(ends)
    }

    /// Takes rows of `h` through everything after the encoder: patches that end there through the global blocks, then
    /// all rows through the decoder.
    async fn run(&mut self, step: PrefillStep<'_>) -> Result<()> {
        let (ends, count) = (step.ends, step.ends.len());
        if count == 0 {
            return Ok(());
        }
        let (model, ws) = (self.model, self.cx.workspace);
        let row = 4 * model.config.hidden_size as u64;
        self.cx.recorder.copy(&self.state.g, &ws.g.part(0, row)?)?;
        let end_rows: Vec<u32> =
            (step.first_row as u32..).zip(ends).filter(|(_, end)| **end).map(|(row, _)| row).collect();
        if !end_rows.is_empty() {
            self.run_patches(&end_rows).await?;
        }
        let patch_of: Vec<u32> = ends
            .iter()
            .scan(0, |patches, &end| {
                *patches += u32::from(end);
                Some(*patches)
            })
            .collect();
        model.device().write(&ws.patch_of, 0, bytemuck::cast_slice(&patch_of))?;
        depool::depool(&mut self.cx, &model.weights, step.first_row, count)?;
        decoder::decoder(&mut self.cx, &model.weights, Over::Sequence(&self.state.decoder, count))?;
        self.finish_rows(&step).await
    }

    /// Takes the patches that end at `end_rows` of `h` through the global blocks.
    async fn run_patches(&mut self, end_rows: &[u32]) -> Result<()> {
        let (model, ws, count) = (self.model, self.cx.workspace, end_rows.len());
        let device = model.device();
        let row = 4 * model.config.hidden_size as u64;
        self.state.kv.reserve(device, self.cx.recorder, count).await?;
        device.write(&ws.ends, 0, bytemuck::cast_slice(end_rows))?;
        let positions = self.state.kv.len()..self.state.kv.len() + count;
        for (table, (inverse, factor)) in ws.cos_sin.iter().zip(&model.rope) {
            device.write(table, 0, bytemuck::cast_slice(&cos_sin(positions.clone(), inverse, *factor)))?;
        }
        patches::pooling(&mut self.cx, &model.weights, count)?;
        if let Some(Tap { dump: Some(dump), .. }) = &mut self.tap {
            let rows = ws.patches.part(0, count as u64 * row)?;
            dump.patch_embeddings.extend(self.cx.recorder.read_f32(&[rows]).await?);
        }
        global::global(&mut self.cx, &model.weights, &[(&self.state.kv, count)])?;
        if let Some(Tap { dump: Some(dump), .. }) = &mut self.tap {
            let rows = ws.patches.part(0, count as u64 * row)?;
            dump.global_out.extend(self.cx.recorder.read_f32(&[rows]).await?);
        }
        depool::normalize(&mut self.cx, &model.weights, 0, count, (&ws.g, 1))?;
        self.cx.recorder.copy(&ws.g.part(count as u64 * row, row)?, &self.state.g)?;
        if self.state.kv.advance(count) {
            self.cx.recorder.forget_bindings();
        }
        Ok(())
    }

    /// Submits, and reads back the logits that the caller needs of the rows in `x`.
    async fn finish_rows(&mut self, step: &PrefillStep<'_>) -> Result<()> {
        let (model, ws, count) = (self.model, self.cx.workspace, step.ends.len());
        if self.tap.is_none() {
            if step.reads_logits {
                self.state.logits = Some(self.logits_of_row(count - 1).await?);
            } else {
                self.cx.recorder.submit()?;
            }
            return Ok(());
        }
        head::head(&mut self.cx, &model.weights, 0, count, &ws.logits)?;
        let width = model.config.vocab_size;
        let logits = self.cx.recorder.read_f32(&[ws.logits.part(0, 4 * (count * width) as u64)?]).await?;
        if let Some(tap) = &mut self.tap {
            (tap.logits)(step.position, &logits)?;
            if let Some(dump) = &mut tap.dump {
                let row = 4 * model.config.hidden_size as u64;
                let rows = |slice: &Slice| slice.part(0, count as u64 * row);
                dump.decoder_out.extend(self.cx.recorder.read_f32(&[rows(&ws.x)?]).await?);
                dump.final_hidden.extend(self.cx.recorder.read_f32(&[rows(&ws.final_hidden)?]).await?);
                dump.logits.extend_from_slice(&logits);
            }
        }
        // Computed as without a tap, so that what is chosen by them is the same to the bit.
        self.state.logits = match step.reads_logits {
            true => Some(self.logits_of_row(count - 1).await?),
            false => Some(logits[(count - 1) * width..].into()),
        };
        Ok(())
    }

    /// The logits after a row of the workspace's `x`.
    async fn logits_of_row(&mut self, row: usize) -> Result<Arc<[f32]>> {
        let logits = &self.cx.workspace.logits;
        head::head_row(&mut self.cx, &self.model.weights, row, logits)?;
        let bytes = 4 * self.model.config.vocab_size as u64;
        Ok(self.cx.recorder.read_f32(&[logits.part(0, bytes)?]).await?.into())
    }
}
