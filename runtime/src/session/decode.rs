//! Decoding on the device: the bytes of a patch in one submission, with one small readback behind it.
//!
//! A submission takes the id that was chosen last through the model, with a step of the global blocks if it ends a patch, and then
//! chooses and takes in byte after byte. Choosing an id that ends the patch, the text or the generation halts what follows: every kernel
//! of a later step looks at a flag first and does nothing. While the device works, the host records the next submission: most end with a
//! patch, so the next one most likely begins with the global blocks.

use bolmo_shaders::table::{MLSTM_CELL_MAX_DV, SAMPLE_CONTROL};

use super::Session;
use crate::error::{Error, Result};
use crate::gpu::{Recorded, Slice};
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
    /// Draws the numbers for the choices.
    pub(crate) sampler: &'a Sampler,
    /// For each choice, at most [`MAX_STEPS`] of them, which twin is taken.
    pub(crate) flags: &'a [Flag],
    /// The flags of the round behind this one if this one ends with a patch, which most do.
    pub(crate) flags_ahead: &'a [Flag],
}

/// What rounds need besides the state.
#[derive(Debug)]
pub(super) struct Rounds {
    choices: Choices,
    /// `[SAMPLE_CONTROL + MAX_STEPS]` u32 on the host's side.
    readable: Slice,
    /// The next round, recorded ahead.
    ahead: Option<Ahead>,
}

/// A round that is recorded and not submitted.
#[derive(Debug)]
struct Ahead {
    list: Recorded,
    /// For each choice that it makes.
    flags: Vec<Flag>,
    /// Whether it begins with the global blocks.
    ends: bool,
    /// The patches that there are before it.
    patches: usize,
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
        let (old, readable) = self.rounds.take().map(|rounds| (rounds.choices, rounds.readable)).unzip();
        let old_control = old.as_ref().map(|choices| choices.control.clone());
        let Some(choices) = Choices::new(model.gpu(), old, sampler, stops, model.suffixes.as_ref()).await? else {
            return Ok(false);
        };
        if old_control.is_some_and(|control| control != choices.control) {
            // Bind groups hold the buffers that are gone.
            self.recorder.forget_bindings();
        }
        let readable = match readable {
            Some(readable) => readable,
            None => model.gpu().allocate_readable(4 * (u64::from(SAMPLE_CONTROL) + MAX_STEPS as u64)).await?,
        };
        self.rounds = Some(Rounds { choices, readable, ahead: None });
        Ok(true)
    }

    /// Takes the chosen id through the model and chooses the next ones: up to the end of the patch, of the text or of the generation, but
    /// no more than the recorded steps. The last one is left chosen; an id that ends the text is returned and not kept. Without any id,
    /// the logits allow none.
    pub(crate) async fn round(&mut self, round: &Round<'_>) -> Result<Vec<u16>> {
        self.begin()?;
        let model = self.model.clone();
        let trie = model.suffix_table().await?;
        let (Some(mut rounds), Some(&last)) = (self.rounds.take(), self.state.ids.last()) else {
            return Err(Error::internal("a round without a choice"));
        };
        let ends = bytes::is_fused(last);
        let patches = self.state.kv.len();
        // Steps may be more or fewer than wanted now, if it is the model that ends them.
        let modelled = |flags: &[Flag]| flags.iter().all(|&flag| flag == Flag::Model);
        let fits = |ahead: &Ahead| {
            (ahead.ends, ahead.patches) == (ends, patches)
                && (ahead.flags == round.flags || modelled(&ahead.flags) && modelled(round.flags))
        };
        let ahead = match rounds.ahead.take().filter(fits) {
            Some(ahead) => ahead,
            None => self.record(&rounds, trie.as_ref(), ends, round.flags).await?,
        };

        let gpu = model.gpu();
        let random = round.sampler.upcoming(ahead.flags.len());
        rounds.choices.begin(gpu, &self.state.ids, model.suffixes.as_ref(), round.bytes, &random)?;
        if ends {
            for (table, (inverse, factor)) in self.workspace.cos_sin.iter().zip(&model.rope) {
                gpu.write(table, 0, bytemuck::cast_slice(&cos_sin(patches..patches + 1, inverse, *factor)))?;
            }
        }
        let size = rounds.choices.result(ahead.flags.len())?.size();
        let result = self.recorder.submit_and_map(ahead.list, &rounds.readable, size)?;
        if ends && self.state.kv.advance(1) {
            self.recorder.forget_bindings();
        }
        if !round.flags_ahead.is_empty() {
            rounds.ahead = Some(self.record(&rounds, trie.as_ref(), true, round.flags_ahead).await?);
        }
        let control = result.await?;

        let state = &mut self.state;
        let (ids, ended) = rounds.choices.chosen(&control, state.ids.len())?;
        state.ids.extend(ids.iter().filter(|&&id| bytes::plain(id) != END_ID));
        match ended {
            Ended::Chosen => state.tail = Tail::Chosen,
            Ended::Logits => {
                let logits: Slice = self.workspace.logits.part(0, 4 * bytes::IDS as u64)?;
                state.logits = Some(self.recorder.read_f32(&[logits]).await?.into());
                state.tail = Tail::Done;
            }
        }
        self.rounds = Some(rounds);
        self.end();
        Ok(ids)
    }

    /// Records a round behind the patches that there are, with the global blocks first if `ends`.
    async fn record(&mut self, rounds: &Rounds, trie: Option<&Slice>, ends: bool, flags: &[Flag]) -> Result<Ahead> {
        let model = self.model.clone();
        let state = &mut self.state;
        if ends {
            state.kv.reserve(model.gpu(), &mut self.recorder, 1).await?;
            // What that has recorded, copies of shared segments, is not part of a list that may never be submitted.
            self.recorder.submit_if_any()?;
        }
        let choices = &rounds.choices;
        let mut cx = Context { recorder: &mut self.recorder, config: &model.config, workspace: &self.workspace };
        let weights = &model.weights;
        let mut recorded = 0;
        for &flag in flags {
            let room = cx.recorder.room();
            if recorded == 1 {
                cx.recorder.guard(Some(&choices.control));
            }
            embed::embed(&mut cx, weights, &choices.id, &choices.suffix, 1)?;
            encoder::encoder(&mut cx, weights, &state.encoder, 1)?;
            if recorded == 0 && ends {
                patches::pool_one(&mut cx, weights)?;
                global::global(&mut cx, weights, &state.kv, 1)?;
                depool::normalise(&mut cx, weights, 1, (&state.g, 0))?;
            }
            depool::depool_one(&mut cx, weights, &state.g)?;
            decoder::decoder(&mut cx, weights, &state.decoder, 1)?;
            head::head_row(&mut cx, weights, 0, &self.workspace.logits)?;
            choices.choose(&mut cx, trie, flag)?;
            recorded += 1;
            // The next step takes no more than this one, and a list is one submission.
            if cx.recorder.room() < room - cx.recorder.room() {
                break;
            }
        }
        cx.recorder.guard(None);
        let flags = flags[..recorded].to_vec();
        let list = cx.recorder.finish(&choices.result(recorded)?, &rounds.readable)?;
        Ok(Ahead { list, flags, ends, patches: state.kv.len() })
    }
}
