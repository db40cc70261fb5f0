//! How ids go through the model: encoder first, then boundaries, then everything behind them.

use std::sync::Arc;

use crate::config::rope::cos_sin;
use crate::device::{Recorder, Slice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Inner;
use crate::session::Session;
use crate::stages::{Context, Over, boundary, decoder, depool, embed, encoder, global, head, patches};
use crate::state::workspace::Workspace;
use crate::state::{State, Tail};
use crate::text::ids;

/// Bytes of a stretch below which a matrix product would waste most of its tiles.
const SHORTEST_STRETCH: u64 = 64;
/// Patches of a stretch below which the products of the global blocks would do so.
const FEWEST_PATCHES: u64 = 32;
/// The same for attention, where that takes longer: it reads keys and values once for so many queries.
const FEWEST_QUERIES: u64 = 16;

/// What is to be kept of a forward pass, row by row and in order.
pub(crate) struct Tap<'a> {
    /// Is given the position of the first row and the logits of some rows, `[rows, 520]`.
    pub(crate) logits: &'a mut (dyn FnMut(usize, &[f32]) -> Result<()> + Send),
    /// Takes everything else, if it is there.
    pub(crate) dump: Option<&'a mut Dump>,
}

/// Everything that is computed on the way, in the order of positions or patches. `D` is the hidden size.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    /// `[n, D]`
    pub(crate) encoder_out: Vec<f32>,
    /// `[n]`, without the last position, which has no next byte
    pub(crate) cosine: Vec<f32>,
    /// `[p, D]`
    pub(crate) patch_embeddings: Vec<f32>,
    /// `[p, D]`
    pub(crate) global_out: Vec<f32>,
    /// `[n, D]`
    pub(crate) decoder_out: Vec<f32>,
    /// `[n, D]`
    pub(crate) final_hidden: Vec<f32>,
    /// `[n, 520]`
    pub(crate) logits: Vec<f32>,
}

impl Session {
    /// Takes in plain ids that follow what the session holds, and leaves the last one waiting. `given` says which of them end a
    /// patch, instead of the predictor; the last one's is kept for later.
    pub(super) async fn prefill(
        &mut self,
        ids: &[u16],
        given: Option<&[bool]>,
        mut tap: Option<&mut Tap<'_>>,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<()> {
        let model = self.model.clone();
        let mut resources = model.take_workspace().await?;
        let (workspace, recorder) = &mut resources;
        let mut done = 0;
        // Rows that the last stretch took through the whole model.
        let mut rows = 0;
        let mut result = Ok(());
        while done < ids.len() {
            // Before the question: what is told of the progress may be answered by a request to stop.
            progress(done, ids.len());
            if self.cancel.take() {
                result = self.last_logits(workspace, recorder, rows).await;
                // Between stretches the session is whole, with the logits before its last byte.
                self.torn = result.is_err();
                let message = format!("stopped after {done} of {} bytes", ids.len());
                result = result.and(Err(Error::new(ErrorKind::Cancelled, message)));
                break;
            }
            let stretch = done..ids.len().min(done + self.stretch_bytes(workspace.capacity));
            let last = stretch.end == ids.len();
            // The waiting byte before the stretch is decided in it, the stretch's last byte is not.
            let given = given.map(|g| &g[stretch.start.saturating_sub(1)..stretch.end - 1]);
            match self.stretch(workspace, recorder, &ids[stretch.clone()], given, last, tap.as_deref_mut()).await {
                Ok(through) => rows = through,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            done = stretch.end;
        }
        model.give_back(resources);
        result?;
        progress(ids.len(), ids.len());
        Ok(())
    }

    /// How many bytes to take in at once: few enough that a submission ends soon, whatever the model and the context.
    fn stretch_bytes(&self, capacity: usize) -> usize {
        let config = &self.model.config;
        let capabilities = &self.model.gpu().capabilities;
        // A byte is as much of a patch as it was so far, or twice that: texts change. At first every byte may be one.
        let (patches, ids) = (self.state.kv.len() as u64, self.state.ids.len() as u64);
        let attention = (2 * config.num_hidden_layers * config.query_width()) as u64;
        let attention = attention.saturating_mul(capabilities.attention_cost).saturating_mul(patches);
        let attention = attention.saturating_mul(ids.min(2 * patches)) / ids.max(1);
        let weights = self.model.weights_per_row;
        let bytes_of = |rows: u64| rows * ids / patches.max(1);
        let shortest =
            if attention > weights { bytes_of(FEWEST_QUERIES) } else { SHORTEST_STRETCH.max(bytes_of(FEWEST_PATCHES)) };
        let bytes = capabilities.prefill_products / weights.saturating_add(attention).max(1);
        usize::try_from(bytes.max(shortest)).unwrap_or(usize::MAX).min(capacity).max(1)
    }

    /// Gets the logits behind the last of `rows` rows that a stretch has left in `ws`; without rows those that there are are right.
    async fn last_logits(&mut self, ws: &Workspace, recorder: &mut Recorder, rows: usize) -> Result<()> {
        if let Some(row) = rows.checked_sub(1) {
            let model = self.model.clone();
            let cx = &mut Context { recorder, config: &model.config, workspace: ws };
            self.state.logits = Some(logits_of_row(cx, &model, row).await?);
        }
        Ok(())
    }

    /// Takes a stretch in, and returns how many rows went through the whole model: all but the one that now waits.
    async fn stretch(
        &mut self,
        ws: &Workspace,
        recorder: &mut Recorder,
        ids: &[u16],
        given: Option<&[bool]>,
        last: bool,
        mut tap: Option<&mut Tap<'_>>,
    ) -> Result<usize> {
        let model = self.model.clone();
        let suffixes = self.suffixes(ids)?;
        let state = &mut self.state;
        let row = 4 * model.config.hidden_size as u64;
        let waiting = state.tail == Tail::Waiting;
        // Rows of h to decide on: the byte that waited, if there is one, and all new ones but the last.
        let first = usize::from(!waiting);
        let decided = ids.len() - first;
        let position = state.ids.len() - usize::from(waiting);

        if waiting {
            recorder.copy(&state.h, &ws.h.part(0, row)?)?;
        }
        let mut cx = Context { recorder, config: &model.config, workspace: ws };
        encode(&mut cx, &model, state, ids, &suffixes)?;
        cx.recorder.copy(&ws.h.part(ids.len() as u64 * row, row)?, &state.h)?;
        let mut ends = vec![false; decided];
        if decided > 0 {
            boundary::boundary(&mut cx, &model.weights, first, decided)?;
            let cosine = ws.cosine.part(0, 4 * decided as u64)?;
            let cosines = cx.recorder.read_f32(&[cosine]).await?;
            ends = cosines.iter().map(|&c| boundary::ends_patch(c)).collect();
            if let Some(Tap { dump: Some(dump), .. }) = &mut tap {
                let rows = ws.h.part(first as u64 * row, decided as u64 * row)?;
                dump.encoder_out.extend(cx.recorder.read_f32(&[rows]).await?);
                dump.cosine.extend(cosines);
            }
        } else {
            cx.recorder.submit()?;
        }
        if let Some(given) = given {
            ends.copy_from_slice(given);
        }
        if let (0, [end, ..]) = (position, ends.as_mut_slice()) {
            // The first position always ends a patch.
            *end = true;
        }
        state.ids.extend_from_slice(ids);
        state.tail = Tail::Waiting;
        for (id, _) in state.ids[position..].iter_mut().zip(&ends).filter(|(_, end)| **end) {
            *id += ids::FUSED_OFFSET;
        }
        commit(&mut cx, &model, state, first, &ends, last, position, tap).await?;
        Ok(decided)
    }

    /// Takes the chosen id through the whole model.
    pub(super) async fn feed_chosen(&mut self) -> Result<()> {
        let model = self.model.clone();
        let Some((&id, before)) = self.state.ids.split_last() else {
            return Err(Error::internal("no id was chosen"));
        };
        let plain = [ids::plain(id)];
        let suffixes = match &model.suffixes {
            None => Vec::new(),
            Some(trie) => trie.suffixes(&before[before.len().saturating_sub(trie.max_len())..], &plain)?,
        };
        let position = before.len();
        let mut cx = Context { recorder: &mut self.recorder, config: &model.config, workspace: &self.workspace };
        encode(&mut cx, &model, &self.state, &plain, &suffixes)?;
        let ends = [ids::is_fused(id)];
        commit(&mut cx, &model, &mut self.state, 1, &ends, true, position, None).await?;
        self.state.tail = Tail::Done;
        Ok(())
    }

    /// Takes the waiting byte through everything behind the encoder.
    pub(super) async fn commit_waiting(&mut self, ends: bool) -> Result<()> {
        self.commit_waiting_with(ends, None).await
    }

    pub(crate) async fn commit_waiting_with(&mut self, ends: bool, mut tap: Option<&mut Tap<'_>>) -> Result<()> {
        let model = self.model.clone();
        let Some(position) = self.state.ids.len().checked_sub(1) else {
            return Err(Error::internal("no byte is waiting"));
        };
        let ws = &self.workspace;
        self.recorder.copy(&self.state.h, &ws.h.part(0, 4 * model.config.hidden_size as u64)?)?;
        if let Some(Tap { dump: Some(dump), .. }) = &mut tap {
            dump.encoder_out.extend(self.recorder.read_f32(std::slice::from_ref(&self.state.h)).await?);
        }
        if ends {
            self.state.ids[position] += ids::FUSED_OFFSET;
        }
        let mut cx = Context { recorder: &mut self.recorder, config: &model.config, workspace: ws };
        commit(&mut cx, &model, &mut self.state, 0, &[ends], true, position, tap).await?;
        self.state.tail = Tail::Done;
        Ok(())
    }
}

/// Embeds and encodes `ids` into rows 1 .. of the workspace's `h`.
fn encode(cx: &mut Context<'_>, model: &Inner, state: &State, ids: &[u16], suffixes: &[u32]) -> Result<()> {
    let ws = cx.workspace;
    let gpu = cx.recorder.gpu().clone();
    let ids: Vec<u32> = ids.iter().map(|&id| id.into()).collect();
    gpu.write(&ws.ids, 0, bytemuck::cast_slice(&ids))?;
    gpu.write(&ws.suffix_ids, 0, bytemuck::cast_slice(suffixes))?;
    embed::embed(cx, &model.weights, &ws.ids, &ws.suffix_ids, 0, ids.len())?;
    encoder::encoder(cx, &model.weights, Over::Sequence(&state.encoder, ids.len()))
}

/// Everything behind the encoder for the rows `first ..` of h, `ends` saying which of them end a patch. `position` is that of the
/// first row. With `last` the logits behind the last row are read back; a tap gets those of all rows.
#[allow(clippy::too_many_arguments)] // the parts of one step, none of which makes sense without the others
async fn commit(
    cx: &mut Context<'_>,
    model: &Inner,
    state: &mut State,
    first: usize,
    ends: &[bool],
    last: bool,
    position: usize,
    mut tap: Option<&mut Tap<'_>>,
) -> Result<()> {
    let count = ends.len();
    if count == 0 {
        return Ok(());
    }
    let ws = cx.workspace;
    let gpu = cx.recorder.gpu().clone();
    let row = 4 * model.config.hidden_size as u64;
    let rows = |slice: &Slice, count: usize| slice.part(0, count as u64 * row);

    let end_rows: Vec<u32> = (first as u32..).zip(ends).filter(|(_, e)| **e).map(|(row, _)| row).collect();
    let new_patches = end_rows.len();
    cx.recorder.copy(&state.g, &ws.g.part(0, row)?)?;
    if new_patches > 0 {
        state.kv.reserve(&gpu, cx.recorder, new_patches).await?;
        gpu.write(&ws.ends, 0, bytemuck::cast_slice(&end_rows))?;
        let positions = state.kv.len()..state.kv.len() + new_patches;
        for (table, (inverse, factor)) in ws.cos_sin.iter().zip(&model.rope) {
            gpu.write(table, 0, bytemuck::cast_slice(&cos_sin(positions.clone(), inverse, *factor)))?;
        }
        patches::pool(cx, &model.weights, new_patches)?;
        if let Some(Tap { dump: Some(dump), .. }) = &mut tap {
            dump.patch_embeddings.extend(cx.recorder.read_f32(&[rows(&ws.patches, new_patches)?]).await?);
        }
        global::global(cx, &model.weights, &[(&state.kv, new_patches)])?;
        if let Some(Tap { dump: Some(dump), .. }) = &mut tap {
            dump.global_out.extend(cx.recorder.read_f32(&[rows(&ws.patches, new_patches)?]).await?);
        }
        depool::normalise(cx, &model.weights, 0, new_patches, (&ws.g, 1))?;
        cx.recorder.copy(&ws.g.part(new_patches as u64 * row, row)?, &state.g)?;
        if state.kv.advance(new_patches) {
            cx.recorder.forget_bindings();
        }
    }
    let mut seen = 0;
    let patch_of: Vec<u32> = ends
        .iter()
        .map(|&end| {
            seen += u32::from(end);
            seen
        })
        .collect();
    gpu.write(&ws.patch_of, 0, bytemuck::cast_slice(&patch_of))?;
    depool::depool(cx, &model.weights, first, count)?;
    decoder::decoder(cx, &model.weights, Over::Sequence(&state.decoder, count))?;

    let width = model.config.vocab_size;
    if let Some(tap) = tap {
        head::head(cx, &model.weights, 0, count, &ws.logits)?;
        let logits = cx.recorder.read_f32(&[ws.logits.part(0, 4 * (count * width) as u64)?]).await?;
        (tap.logits)(position, &logits)?;
        if let Some(dump) = &mut tap.dump {
            dump.decoder_out.extend(cx.recorder.read_f32(&[rows(&ws.x, count)?]).await?);
            dump.final_hidden.extend(cx.recorder.read_f32(&[rows(&ws.final_hidden, count)?]).await?);
            dump.logits.extend_from_slice(&logits);
        }
        state.logits = Some(logits[(count - 1) * width..].into());
    } else if last {
        state.logits = Some(logits_of_row(cx, model, count - 1).await?);
    } else {
        cx.recorder.submit()?;
    }
    Ok(())
}

/// The logits behind a row of the workspace's `x`.
async fn logits_of_row(cx: &mut Context<'_>, model: &Inner, row: usize) -> Result<Arc<[f32]>> {
    let logits = &cx.workspace.logits;
    head::head_row(cx, &model.weights, row, logits)?;
    Ok(cx.recorder.read_f32(&[logits.part(0, 4 * model.config.vocab_size as u64)?]).await?.into())
}

impl Session {
    /// Takes a whole sequence through a fresh session for scoring; its last id is left waiting.
    pub(crate) async fn score_forward(
        &mut self,
        ids: &[u16],
        given: Option<&[bool]>,
        tap: &mut Tap<'_>,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<()> {
        self.check_suffixes(ids)?;
        self.prefill(ids, given, Some(tap), progress).await
    }
}
