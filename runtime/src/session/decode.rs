//! Decoding on the device: the bytes of a patch in one submission, with one small readback after it.
//!
//! A submission takes the id that was chosen last through the model, with the global blocks if that id ends a patch.
//! Then it chooses and processes byte after byte. An id that ends the patch, the text or the generation halts the rest:
//! every kernel of a later byte checks a flag first and does nothing. While the device works, the host records the next
//! submission. Most submissions end with a patch, so the next one most likely begins with the global blocks.
//!
//! Several sequences may share a submission ([`super::batch`]). Each has a *slot*: one row of every product.

use bolmo_shaders::sizes::MLSTM_CELL_MAX_DV;

use crate::config::rope::cos_sin;
use crate::device::{Recorder, Slice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Inner;
use crate::sampling::device::{CONTROL_STRIDE, DeviceSampler, Ended, Flag, MAX_CHOICES};
use crate::sampling::host::Sampler;
use crate::session::device_decode::{DecodeStep, DeviceDecode, RecordedStep};
use crate::session::machine::Session;
use crate::stages::local_layer::{Over, SlotStates};
use crate::stages::ops::Context;
use crate::stages::{decoder, depool, embed, encoder, global, head, patches};
use crate::state::kv_cache::KvCache;
use crate::state::workspace::Workspace;
use crate::state::{PendingByte, State};
use crate::text::ids::{self, END_ID};

/// A sequence's part in a submission.
pub(super) struct Slot<'a> {
    pub(super) state: &'a State,
    pub(super) sampler: &'a DeviceSampler,
    /// The sequence's row of the control blocks.
    pub(super) control: &'a Slice,
    /// Whether the chosen id ends a patch.
    pub(super) ends_patch: bool,
    pub(super) flags: &'a [Flag],
}

impl Inner {
    /// The most bytes that one submission may decode; 0 if each byte's logits have to go to the host.
    pub(crate) fn max_decode_bytes(&self) -> usize {
        let capabilities = &self.device().capabilities;
        // Only these kernels can be halted.
        let halts = capabilities.matvec_max_rows > 0 && self.config.mlstm_value_dim() <= MLSTM_CELL_MAX_DV as usize;
        if !halts || capabilities.decode_steps == 0 {
            return 0;
        }
        let work = 2 * capabilities.prefill_products / self.weights_per_byte.max(1);
        usize::try_from(work).unwrap_or(MAX_CHOICES).clamp(1, capabilities.decode_steps.min(MAX_CHOICES))
    }
}

/// Records bytes of all slots, whose flags are the rows of `control`. Returns how many bytes a slot gets: as many as
/// there are flags for, or as go into one submission.
pub(super) fn record_bytes(
    cx: &mut Context<'_>,
    model: &Inner,
    trie: Option<&Slice>,
    control: &Slice,
    slots: &[Slot<'_>],
) -> Result<usize> {
    let weights = &model.weights;
    let encoders: Vec<_> =
        slots.iter().map(|slot| SlotStates { states: &slot.state.encoder, halt: slot.control }).collect();
    let decoders: Vec<_> =
        slots.iter().map(|slot| SlotStates { states: &slot.state.decoder, halt: slot.control }).collect();
    let bytes = slots.iter().map(|slot| slot.flags.len()).max().unwrap_or(0);
    for byte in 0..bytes {
        let room = cx.recorder.room();
        for (row, slot) in slots.iter().enumerate() {
            cx.recorder.guard(Some(slot.control));
            embed::embed(cx, weights, &slot.sampler.id, &slot.sampler.suffix, row, 1)?;
        }
        cx.recorder.guard(Some(control));
        encoder::encoder(cx, weights, Over::Slots(&encoders))?;
        if byte == 0 {
            cx.recorder.guard(None);
            run_patches(cx, model, slots)?;
            cx.recorder.guard(Some(control));
        }
        depool::depool_slots(cx, weights, slots.iter().map(|slot| (&slot.state.g, slot.control)))?;
        decoder::decoder(cx, weights, Over::Slots(&decoders))?;
        for (row, slot) in slots.iter().enumerate() {
            cx.recorder.guard(Some(slot.control));
            head::head_row(cx, weights, row, &slot.sampler.logits)?;
            // A slot that has fewer flags than others is halted by its last one.
            if let Some(&flag) = slot.flags.get(byte) {
                slot.sampler.choose(cx, slot.control, trie, flag)?;
            }
        }
        cx.recorder.guard(None);
        // The next byte takes no more room than this one, and a list is one submission.
        if cx.recorder.room() < room - cx.recorder.room() {
            return Ok(byte + 1);
        }
    }
    Ok(bytes)
}

/// Takes the patches that have ended through the global blocks.
fn run_patches(cx: &mut Context<'_>, model: &Inner, slots: &[Slot<'_>]) -> Result<()> {
    let ending: Vec<&Slot<'_>> = slots.iter().filter(|slot| slot.ends_patch).collect();
    if ending.is_empty() {
        return Ok(());
    }
    if slots.len() == 1 {
        patches::pooling_one_byte(cx, &model.weights)?;
    } else {
        patches::pooling(cx, &model.weights, ending.len())?;
    }
    let caches: Vec<(&KvCache, usize)> = ending.iter().map(|slot| (&slot.state.kv, 1)).collect();
    global::global(cx, &model.weights, &caches)?;
    for (patch, slot) in ending.iter().enumerate() {
        depool::normalize(cx, &model.weights, patch, 1, (&slot.state.g, 0))?;
    }
    Ok(())
}

/// Writes the rotary angles of a patch's position to row `row` of a workspace's tables.
pub(super) fn write_angles(model: &Inner, workspace: &Workspace, row: usize, position: usize) -> Result<()> {
    for (table, (inverse, factor)) in workspace.cos_sin.iter().zip(&model.rope) {
        let angles = cos_sin(position..position + 1, inverse, *factor);
        let bytes: &[u8] = bytemuck::cast_slice(&angles);
        model.device().write(table, (row * bytes.len()) as u64, bytes)?;
    }
    Ok(())
}

/// Applies the control block that was read back to the state, and returns the chosen ids. Fetches the logits if the
/// host needs them.
pub(super) async fn take_chosen(
    recorder: &mut Recorder,
    state: &mut State,
    sampler: &mut DeviceSampler,
    control: &[u8],
) -> Result<Vec<u16>> {
    let (chosen, ended) = sampler.chosen(control, state.ids.len())?;
    state.ids.extend(chosen.iter().filter(|&&id| ids::plain(id) != END_ID));
    match ended {
        Ended::Chosen => state.pending = PendingByte::Chosen,
        Ended::Logits => {
            let logits = sampler.logits.part(0, 4 * ids::IDS as u64)?;
            state.logits = Some(recorder.read_f32(&[logits]).await?.into());
            state.pending = PendingByte::None;
        }
    }
    Ok(chosen)
}

impl Session {
    /// Whether a decode step can follow: an id is chosen and has not gone through the model.
    pub(crate) fn has_chosen(&self) -> bool {
        self.state.pending == PendingByte::Chosen
    }

    /// The most bytes that one submission may decode.
    pub(crate) fn max_decode_bytes(&self) -> usize {
        self.model.max_decode_bytes()
    }

    /// Prepares decoding on the device for a generation. Returns false if the host has to choose each byte.
    pub(crate) async fn prepare_decode(&mut self, sampler: &Sampler, stops: &[Vec<u8>]) -> Result<bool> {
        // A session that cannot be used is refused here, before it takes part in a batch.
        let operation = self.begin().await?;
        let _permit = operation.permit.clone();
        operation.finish()?;
        if self.max_decode_bytes() == 0 {
            return Ok(false);
        }
        let model = self.model.clone();
        let device = model.device();
        let (old, blocks) =
            self.device_decode.take().map(|decode| (decode.sampler, (decode.control, decode.readable))).unzip();
        let (control, readable) = match blocks {
            Some(blocks) => blocks,
            None => {
                let size = 4 * CONTROL_STRIDE as u64;
                (device.allocate("the device sampler", size).await?, device.allocate_readable(size).await?)
            }
        };
        let old_logits = old.as_ref().map(|sampler| sampler.logits.clone());
        let Some(sampler) = DeviceSampler::new(device, old, sampler, stops, model.suffixes.as_ref()).await? else {
            return Ok(false);
        };
        if old_logits.is_some_and(|logits| logits != sampler.logits) {
            // Bind groups hold the buffers that are gone.
            self.recorder.forget_bindings();
        }
        let before = match self.model.stops_steps(1) {
            true => Some(device.allocate("the state of a session", self.state.arena.size()).await?),
            false => None,
        };
        self.device_decode.put(DeviceDecode { sampler, control, readable, before, ahead: None });
        Ok(true)
    }

    /// Takes the chosen id through the model and chooses the next ones: up to the end of the patch, of the text or of
    /// the generation, but no more than the step has flags for. The last one is left pending; an id that ends the text
    /// is returned and not kept. Returns no id if the logits allow none.
    ///
    /// # Errors
    /// `Cancelled` on a device that can stop within a step: the session is as it was before.
    pub(crate) async fn decode_step(&mut self, step: &DecodeStep<'_>) -> Result<Vec<u16>> {
        let mut operation = self.begin().await?;
        let result = operation.run_decode_step(step).await;
        // A step that was stopped has left the session as it was.
        if result.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Cancelled) {
            operation.finish()?;
        }
        result
    }

    async fn run_decode_step(&mut self, step: &DecodeStep<'_>) -> Result<Vec<u16>> {
        let model = self.model.clone();
        let trie = model.suffix_table().await?;
        let (Some(mut decode), Some(&last)) = (self.device_decode.take(), self.state.ids.last()) else {
            return Err(Error::internal("a decode step without a chosen id"));
        };
        let ends_patch = ids::is_fused(last);
        let patches = self.state.kv.len();
        // There may be more or fewer flags than wanted now, if the model decides on the boundaries.
        let from_model = |flags: &[Flag]| flags.iter().all(|&flag| flag == Flag::Model);
        let fits = |ahead: &RecordedStep| {
            (ahead.ends_patch, ahead.patches) == (ends_patch, patches)
                && (ahead.flags == step.flags || from_model(&ahead.flags) && from_model(&step.flags))
        };
        let recorded = match decode.ahead.take().filter(fits) {
            Some(recorded) => recorded,
            None => self.record(&decode, trie.as_ref(), ends_patch, &step.flags).await?,
        };

        let random = step.sampler.upcoming(recorded.flags.len());
        let (ids, suffixes) = (&self.state.ids, model.suffixes.as_ref());
        decode.sampler.begin(model.device(), &decode.control, ids, suffixes, step.bytes, &random)?;
        if ends_patch {
            write_angles(&model, &self.workspace, 0, patches)?;
        }
        if let Some(before) = &decode.before {
            self.recorder.copy(&self.state.arena, before)?;
            self.recorder.submit()?;
            self.recorder.set_interrupt(Some(self.cancel.interrupt()));
        }
        let result = self.recorder.submit_and_map(recorded.list, &decode.readable);
        self.recorder.set_interrupt(None);
        let result = result?;
        self.state.kv.begin();
        if ends_patch && self.state.kv.advance(1) {
            self.recorder.forget_bindings();
        }
        if model.device().capabilities.records_ahead && !step.flags_ahead.is_empty() {
            decode.ahead = Some(self.record(&decode, trie.as_ref(), true, &step.flags_ahead).await?);
        }
        let control = match (result.await, &decode.before) {
            (Err(error), Some(before)) if error.kind() == ErrorKind::Cancelled => {
                self.recorder.copy(before, &self.state.arena)?;
                self.recorder.submit()?;
                self.state.kv.take_back(patches);
                decode.sampler.forget();
                self.device_decode.put(decode);
                return Err(error);
            }
            (control, _) => control?,
        };
        self.state.kv.keep();
        let chosen = take_chosen(&mut self.recorder, &mut self.state, &mut decode.sampler, &control).await?;
        self.device_decode.put(decode);
        Ok(chosen)
    }

    /// Records a step after the present patches, with the global blocks first if the chosen id ends a patch.
    async fn record(
        &mut self,
        decode: &DeviceDecode,
        trie: Option<&Slice>,
        ends_patch: bool,
        flags: &[Flag],
    ) -> Result<RecordedStep> {
        let model = self.model.clone();
        let patches = self.state.kv.len();
        if ends_patch {
            self.state.kv.reserve(model.device(), &mut self.recorder, 1).await?;
            // Copies of shared segments must not be part of a list that may never be submitted.
            self.recorder.submit_if_any()?;
        }
        let DeviceDecode { sampler, control, readable, .. } = decode;
        let mut cx = Context { recorder: &mut self.recorder, config: &model.config, workspace: &self.workspace };
        let slot = Slot { state: &self.state, sampler, control, ends_patch, flags };
        let bytes = record_bytes(&mut cx, &model, trie, control, &[slot])?;
        let list = self.recorder.finish(control, readable)?;
        Ok(RecordedStep { list, flags: flags[..bytes].to_vec(), ends_patch, patches })
    }
}
