//! Decoding on the device: the bytes of a patch in one submission, with one small readback behind it.
//!
//! A submission takes the id that was chosen last through the model, with a step of the global blocks if it ends a patch, and then
//! chooses and takes in byte after byte. Choosing an id that ends the patch, the text or the generation halts what follows: every kernel
//! of a later step looks at a flag first and does nothing.

use bolmo_shaders::table::MLSTM_CELL_MAX_DV;

use super::Session;
use crate::error::{Error, Result};
use crate::gpu::Slice;
use crate::rope::cos_sin;
use crate::stages::bytes::{self, END_ID};
use crate::stages::choose::{Choices, Ended, Flag, MAX_STEPS};
use crate::stages::sample::Sampler;
use crate::stages::{Context, decoder, depool, embed, encoder, global, head, patches};
use crate::state::Tail;

/// What one submission has to do.
pub(crate) struct Round<'a> {
    /// Bytes of the generation so far, and at most.
    pub(crate) bytes: (usize, usize),
    /// Two numbers for each choice, or none if none are drawn.
    pub(crate) random: &'a [[f32; 2]],
    /// For each choice, at most [`MAX_STEPS`] of them, which twin is taken.
    pub(crate) flags: &'a [Flag],
}

impl Session {
    /// How many bytes a submission may decode at most; 0 if each byte's logits have to go to the host.
    pub(crate) fn most_steps(&self) -> usize {
        let capabilities = &self.model.gpu().capabilities;
        // Only these kernels can be halted.
        let halts = capabilities.few_rows > 0 && self.model.config.mlstm_value_dim() <= MLSTM_CELL_MAX_DV as usize;
        if !halts || capabilities.decode_steps == 0 {
            return 0;
        }
        let work = 2 * capabilities.prefill_products / self.model.weights_per_byte.max(1);
        usize::try_from(work).unwrap_or(MAX_STEPS).clamp(1, capabilities.decode_steps.min(MAX_STEPS))
    }

    /// Whether a round can follow: an id was chosen and went through nothing yet.
    pub(crate) fn has_chosen(&self) -> bool {
        self.state.tail == Tail::Chosen
    }

    /// Gets ready for the rounds of a generation. False if it has to go step by step.
    pub(crate) async fn prepare_rounds(&mut self, sampler: &Sampler, stops: &[Vec<u8>]) -> Result<bool> {
        if self.most_steps() == 0 {
            return Ok(false);
        }
        let model = self.model.clone();
        let before = self.choices.take();
        let kept = before.as_ref().map(|choices| choices.control.clone());
        self.choices = Choices::new(model.gpu(), before, sampler, stops, model.suffixes.as_ref()).await?;
        if self.choices.as_ref().map(|choices| &choices.control) != kept.as_ref() {
            self.recorder.forget_bindings();
        }
        Ok(self.choices.is_some())
    }

    /// Takes the chosen id through the model and chooses the next ones: up to the end of the patch, of the text or of the generation, but
    /// no more than `round.flags` are given for. The last one is left chosen; an id that ends the text is returned and not kept.
    /// Without any id, the logits allow none.
    pub(crate) async fn round(&mut self, round: &Round<'_>) -> Result<Vec<u16>> {
        self.begin()?;
        let model = self.model.clone();
        let gpu = model.gpu().clone();
        let trie = model.suffix_table().await?;
        let state = &mut self.state;
        let (Some(choices), Some(&last), false) = (&mut self.choices, state.ids.last(), round.flags.is_empty()) else {
            return Err(Error::internal("a round without a choice"));
        };
        let recorder = &mut self.recorder;
        choices.begin(&gpu, &state.ids, model.suffixes.as_ref(), round.bytes, round.random)?;
        let ends = bytes::is_fused(last);
        if ends {
            state.kv.reserve(&gpu, recorder, 1).await?;
            let position = state.kv.len();
            for (table, (inverse, factor)) in self.workspace.cos_sin.iter().zip(&model.rope) {
                gpu.write(table, 0, bytemuck::cast_slice(&cos_sin(position..position + 1, inverse, *factor)))?;
            }
        }

        let mut cx = Context { recorder, config: &model.config, workspace: &self.workspace };
        let weights = &model.weights;
        for (step, &flag) in round.flags.iter().enumerate() {
            if step == 1 {
                cx.recorder.guard(Some(&choices.control));
            }
            embed::embed(&mut cx, weights, &choices.id, &choices.suffix, 1)?;
            encoder::encoder(&mut cx, weights, &state.encoder, 1)?;
            if step == 0 && ends {
                patches::pool_one(&mut cx, weights)?;
                global::global(&mut cx, weights, &state.kv, 1)?;
                depool::normalise(&mut cx, weights, 1, (&state.g, 0))?;
            }
            depool::depool_one(&mut cx, weights, &state.g)?;
            decoder::decoder(&mut cx, weights, &state.decoder, 1)?;
            head::head(&mut cx, weights, 0, 1, &self.workspace.logits)?;
            choices.choose(&mut cx, trie.as_ref(), flag)?;
        }
        cx.recorder.guard(None);
        let control = cx.recorder.read(&[choices.result(round.flags.len())?]).await?;
        if ends && state.kv.advance(1) {
            cx.recorder.forget_bindings();
        }

        let (ids, ended) = choices.chosen(&control, state.ids.len())?;
        state.ids.extend(ids.iter().filter(|&&id| bytes::plain(id) != END_ID));
        match ended {
            Ended::Chosen => state.tail = Tail::Chosen,
            Ended::Logits => {
                let logits: Slice = self.workspace.logits.part(0, 4 * bytes::IDS as u64)?;
                state.logits = Some(self.recorder.read_f32(&[logits]).await?.into());
                state.tail = Tail::Done;
            }
        }
        self.end();
        Ok(ids)
    }
}
