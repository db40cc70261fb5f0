//! Decoding on the device: the bytes of a patch in one submission, with one small readback behind it.
//!
//! A submission takes the id that was chosen last through the model, with a step of the global blocks if it ends a patch, and then
//! chooses and takes in byte after byte. Choosing an id that ends the patch, the text or the generation halts what follows: every kernel
//! of a later step looks at a flag first and does nothing. While the device works, the host records the next submission: most end with a
//! patch, so the next one most likely begins with the global blocks.
//!
//! Several sequences may share a submission ([`crate::session::batch`]): each is a *lane*, one row of every product.

use bolmo_shaders::table::MLSTM_CELL_MAX_DV;

use crate::config::rope::cos_sin;
use crate::device::{Recorded, Recorder, Slice};
use crate::error::{Error, Result};
use crate::model::Inner;
use crate::sampling::device::{CONTROL_STRIDE, Choices, Ended, Flag, MAX_STEPS};
use crate::sampling::host::Sampler;
use crate::session::Session;
use crate::stages::{Context, LaneStates, Over, decoder, depool, embed, encoder, global, head, patches};
use crate::state::kv_cache::KvCache;
use crate::state::workspace::Workspace;
use crate::state::{State, Tail};
use crate::text::ids;
use crate::text::ids::END_ID;

/// What one submission has to do for a sequence.
pub(crate) struct Round<'a> {
    /// Bytes of the generation so far, and at most.
    pub(crate) bytes: (usize, usize),
    /// Draws the numbers for the choices.
    pub(crate) sampler: &'a Sampler,
    /// For each choice, at most [`MAX_STEPS`] of them, which twin is taken. There are as many for all lanes, or they end with a patch.
    pub(crate) flags: Vec<Flag>,
    /// The flags of the round behind this one if this one ends with a patch, which most do.
    pub(crate) flags_ahead: Vec<Flag>,
}

/// What rounds need besides the state.
#[derive(Debug)]
pub(super) struct Rounds {
    choices: Choices,
    /// The control block on the host's side.
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

/// A sequence's part in a submission.
pub(super) struct Lane<'a> {
    pub(super) state: &'a State,
    pub(super) choices: &'a Choices,
    /// Whether the chosen id ends a patch.
    pub(super) ends: bool,
    pub(super) flags: &'a [Flag],
}

impl Inner {
    /// How many bytes a submission may decode at most; 0 if each byte's logits have to go to the host.
    pub(crate) fn most_steps(&self) -> usize {
        let capabilities = &self.gpu().capabilities;
        // Only these kernels can be halted.
        let halts = capabilities.matvec_max_rows > 0 && self.config.mlstm_value_dim() <= MLSTM_CELL_MAX_DV as usize;
        if !halts || capabilities.decode_steps == 0 {
            return 0;
        }
        let work = 2 * capabilities.prefill_products / self.weights_per_byte.max(1);
        usize::try_from(work).unwrap_or(MAX_STEPS).clamp(1, capabilities.decode_steps.min(MAX_STEPS))
    }
}

/// Records steps of all lanes, whose flags are the rows of `control`. Returns how many: as many as there are flags for, or as go into
/// one submission.
pub(super) fn record_steps(
    cx: &mut Context<'_>,
    model: &Inner,
    trie: Option<&Slice>,
    control: &Slice,
    lanes: &[Lane<'_>],
) -> Result<usize> {
    let weights = &model.weights;
    let halt = |lane: &Lane<'_>| lane.choices.control.clone();
    let halts: Vec<Slice> = lanes.iter().map(halt).collect();
    let states = || lanes.iter().zip(&halts);
    let encoders: Vec<_> = states().map(|(lane, halt)| LaneStates { states: &lane.state.encoder, halt }).collect();
    let decoders: Vec<_> = states().map(|(lane, halt)| LaneStates { states: &lane.state.decoder, halt }).collect();
    let steps = lanes.iter().map(|lane| lane.flags.len()).max().unwrap_or(0);
    for step in 0..steps {
        let room = cx.recorder.room();
        for (row, lane) in lanes.iter().enumerate() {
            cx.recorder.guard(Some(&lane.choices.control));
            embed::embed(cx, weights, &lane.choices.id, &lane.choices.suffix, row, 1)?;
        }
        cx.recorder.guard(Some(control));
        encoder::encoder(cx, weights, Over::Lanes(&encoders))?;
        if step == 0 {
            cx.recorder.guard(None);
            end_patches(cx, model, lanes)?;
            cx.recorder.guard(Some(control));
        }
        depool::depool_lanes(cx, weights, lanes.iter().map(|lane| (&lane.state.g, &lane.choices.control)))?;
        decoder::decoder(cx, weights, Over::Lanes(&decoders))?;
        for (row, lane) in lanes.iter().enumerate() {
            cx.recorder.guard(Some(&lane.choices.control));
            head::head_row(cx, weights, row, &lane.choices.logits)?;
            // A lane that has fewer flags than others is halted by its last one.
            if let Some(&flag) = lane.flags.get(step) {
                lane.choices.choose(cx, trie, flag)?;
            }
        }
        cx.recorder.guard(None);
        // The next step takes no more than this one, and a list is one submission.
        if cx.recorder.room() < room - cx.recorder.room() {
            return Ok(step + 1);
        }
    }
    Ok(steps)
}

/// A step of the global blocks for the lanes whose byte ends a patch.
fn end_patches(cx: &mut Context<'_>, model: &Inner, lanes: &[Lane<'_>]) -> Result<()> {
    let ending: Vec<&Lane<'_>> = lanes.iter().filter(|lane| lane.ends).collect();
    if ending.is_empty() {
        return Ok(());
    }
    if lanes.len() == 1 {
        patches::pool_one(cx, &model.weights)?;
    } else {
        patches::pool(cx, &model.weights, ending.len())?;
    }
    let caches: Vec<(&KvCache, usize)> = ending.iter().map(|lane| (&lane.state.kv, 1)).collect();
    global::global(cx, &model.weights, &caches)?;
    for (patch, lane) in ending.iter().enumerate() {
        depool::normalise(cx, &model.weights, patch, 1, (&lane.state.g, 0))?;
    }
    Ok(())
}

/// Writes the angles of a patch's position to row `row` of a workspace's tables.
pub(super) fn write_angles(model: &Inner, workspace: &Workspace, row: usize, position: usize) -> Result<()> {
    for (table, (inverse, factor)) in workspace.cos_sin.iter().zip(&model.rope) {
        let angles = cos_sin(position..position + 1, inverse, *factor);
        let bytes: &[u8] = bytemuck::cast_slice(&angles);
        model.gpu().write(table, (row * bytes.len()) as u64, bytes)?;
    }
    Ok(())
}

/// Takes account of what was chosen, by the control block that was read back, and returns the ids. Logits that have to go to the host are
/// fetched.
pub(super) async fn take_chosen(
    recorder: &mut Recorder,
    state: &mut State,
    choices: &mut Choices,
    control: &[u8],
) -> Result<Vec<u16>> {
    let (ids, ended) = choices.chosen(control, state.ids.len())?;
    state.ids.extend(ids.iter().filter(|&&id| ids::plain(id) != END_ID));
    match ended {
        Ended::Chosen => state.tail = Tail::Chosen,
        Ended::Logits => {
            let logits = choices.logits.part(0, 4 * ids::IDS as u64)?;
            state.logits = Some(recorder.read_f32(&[logits]).await?.into());
            state.tail = Tail::Done;
        }
    }
    Ok(ids)
}

impl Session {
    /// Whether a round can follow: an id was chosen and went through nothing yet.
    pub(crate) fn has_chosen(&self) -> bool {
        self.state.tail == Tail::Chosen
    }

    /// How many bytes a submission may decode at most.
    pub(crate) fn most_steps(&self) -> usize {
        self.model.most_steps()
    }

    /// Gets ready for the rounds of a generation. False if it has to go step by step.
    pub(crate) async fn prepare_rounds(&mut self, sampler: &Sampler, stops: &[Vec<u8>]) -> Result<bool> {
        if self.most_steps() == 0 {
            return Ok(false);
        }
        let model = self.model.clone();
        let gpu = model.gpu();
        let (old, readable) = self.rounds.take().map(|rounds| (rounds.choices, rounds.readable)).unzip();
        let (control, readable) = match (&old, readable) {
            (Some(old), Some(readable)) => (old.control.clone(), readable),
            _ => {
                let size = 4 * CONTROL_STRIDE as u64;
                (gpu.allocate("the choice of ids", size).await?, gpu.allocate_readable(size).await?)
            }
        };
        let old_logits = old.as_ref().map(|choices| choices.logits.clone());
        let Some(choices) = Choices::new(gpu, &control, old, sampler, stops, model.suffixes.as_ref()).await? else {
            return Ok(false);
        };
        if old_logits.is_some_and(|logits| logits != choices.logits) {
            // Bind groups hold the buffers that are gone.
            self.recorder.forget_bindings();
        }
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
        let ends = ids::is_fused(last);
        let patches = self.state.kv.len();
        // Steps may be more or fewer than wanted now, if it is the model that ends them.
        let modelled = |flags: &[Flag]| flags.iter().all(|&flag| flag == Flag::Model);
        let fits = |ahead: &Ahead| {
            (ahead.ends, ahead.patches) == (ends, patches)
                && (ahead.flags == round.flags || modelled(&ahead.flags) && modelled(&round.flags))
        };
        let ahead = match rounds.ahead.take().filter(fits) {
            Some(ahead) => ahead,
            None => self.record(&rounds, trie.as_ref(), ends, &round.flags).await?,
        };

        let random = round.sampler.upcoming(ahead.flags.len());
        rounds.choices.begin(model.gpu(), &self.state.ids, model.suffixes.as_ref(), round.bytes, &random)?;
        if ends {
            write_angles(&model, &self.workspace, 0, patches)?;
        }
        let result = self.recorder.submit_and_map(ahead.list, &rounds.readable)?;
        if ends && self.state.kv.advance(1) {
            self.recorder.forget_bindings();
        }
        if !round.flags_ahead.is_empty() {
            rounds.ahead = Some(self.record(&rounds, trie.as_ref(), true, &round.flags_ahead).await?);
        }
        let control = result.await?;
        let ids = take_chosen(&mut self.recorder, &mut self.state, &mut rounds.choices, &control).await?;
        self.rounds = Some(rounds);
        self.end();
        Ok(ids)
    }

    /// Records a round behind the patches that there are, with the global blocks first if `ends`.
    async fn record(&mut self, rounds: &Rounds, trie: Option<&Slice>, ends: bool, flags: &[Flag]) -> Result<Ahead> {
        let model = self.model.clone();
        let patches = self.state.kv.len();
        if ends {
            self.state.kv.reserve(model.gpu(), &mut self.recorder, 1).await?;
            // What that has recorded, copies of shared segments, is not part of a list that may never be submitted.
            self.recorder.submit_if_any()?;
        }
        let choices = &rounds.choices;
        let mut cx = Context { recorder: &mut self.recorder, config: &model.config, workspace: &self.workspace };
        let lane = Lane { state: &self.state, choices, ends, flags };
        let recorded = record_steps(&mut cx, &model, trie, &choices.control, &[lane])?;
        let list = self.recorder.finish(&choices.control, &rounds.readable)?;
        Ok(Ahead { list, flags: flags[..recorded].to_vec(), ends, patches })
    }
}
