//! The device sampler: chooses the next id on the device (`docs/model.md`, "Decoding"). [`crate::sampling::host`] makes
//! the same choice on the host.

use bolmo_shaders::params::Sample;
use bolmo_shaders::sizes::SAMPLE_CONTROL;
use bolmo_shaders::{KernelId, WeightFormat};

use crate::device::{Device, Slice, buffer_bytes};
use crate::error::{Error, Result};
use crate::sampling::host::{CANDIDATES, Sampler};
use crate::stages::ops::Context;
use crate::text::ids::{IDS, is_fused, plain};
use crate::text::suffix_trie::SuffixTrie;

/// Largest number of choices in one submission.
pub(crate) const MAX_CHOICES: usize = 16;
/// Longest history that is kept on the device, in ids.
const MAX_RING: usize = 1 << 16;
/// Longest history that [`DeviceSampler::usual_bytes`] counts.
const USUAL_RING: usize = 2048;
/// Words of stop strings that it counts: one for each byte, two for each string, and one.
const USUAL_STOPS: usize = 512;
/// Word of `next` that holds the suffix id. Bindings must be aligned, hence the distance.
const SUFFIX_WORD: u64 = 64;
/// Words from one sequence's control block to the next, as in `guard.wgsl`.
pub(crate) const CONTROL_STRIDE: usize = 64;
const _: () = assert!(SAMPLE_CONTROL as usize + MAX_CHOICES <= CONTROL_STRIDE);

/// Whether a byte's plain or its fused id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    /// As the model chooses.
    Model,
    /// The fused id if true, the plain one if false: a fixed schedule of patch ends, for benches.
    Given(bool),
}

/// How the choices of a submission ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The last id is part of the text and has not gone through the model.
    Chosen,
    /// The last id ends the text, or no id could be chosen. The logits after the last byte are still in place.
    Logits,
}

/// Chooses ids on the device, for one generation: its buffers and parameters.
///
/// A choice also reads and writes a control block, [`CONTROL_STRIDE`] words: halt flag and counts, then the chosen ids,
/// `[SAMPLE_CONTROL + MAX_CHOICES]` u32. Its first word halts guarded dispatches. It belongs to the submission.
#[derive(Debug)]
pub(crate) struct DeviceSampler {
    /// Logits to choose from, `[520]` f32.
    pub(crate) logits: Slice,
    /// Plain ids, position i at i % ring: `[ring]` u32.
    history: Slice,
    /// The next plain id at word 0 and its suffix id at [`SUFFIX_WORD`], u32.
    next: Slice,
    /// The part of `next` with the id, `[1]`.
    pub(crate) id: Slice,
    /// The part of `next` with the suffix, `[1]`.
    pub(crate) suffix: Slice,
    /// `[257]` f32
    bias: Slice,
    /// `[MAX_CHOICES, 2]` f32
    random: Slice,
    stops: Slice,
    ring: usize,
    /// Number of ids of the session that `history` and `next` reflect.
    mirrored: Option<usize>,
    params: Sample,
}

impl DeviceSampler {
    /// A device sampler with the options of `sampler` and stop strings. `None` if these need a longer history than the
    /// device keeps. The buffers of `old` are reused if they are large enough.
    pub(crate) async fn new(
        device: &Device,
        old: Option<Self>,
        sampler: &Sampler,
        stops: &[Vec<u8>],
        trie: Option<&SuffixTrie>,
    ) -> Result<Option<Self>> {
        let options = sampler.options();
        let penalty = options.repetition_penalty - 1.0;
        let window = if penalty == 0.0 { 0 } else { options.repetition_window };
        let longest_stop = stops.iter().map(Vec::len).max().unwrap_or(0);
        let ring = window.max(longest_stop).max(trie.map_or(0, SuffixTrie::max_len)).saturating_add(MAX_CHOICES);
        if ring > MAX_RING {
            return Ok(None);
        }
        let ring = ring.next_power_of_two().max(256);
        let stops = stop_words(stops);
        let stop_bytes = 4 * stops.len() as u64;
        let mut made = match old.filter(|old| old.ring == ring && old.stops.size() >= stop_bytes) {
            Some(old) => old,
            None => {
                let make = async |words: usize| device.allocate("the device sampler", 4 * words as u64).await;
                let next = make(SUFFIX_WORD as usize + 1).await?;
                Self {
                    logits: make(IDS).await?,
                    history: make(ring).await?,
                    id: next.part(0, 4)?,
                    suffix: next.part(4 * SUFFIX_WORD, 4)?,
                    next,
                    bias: make(CANDIDATES).await?,
                    random: make(2 * MAX_CHOICES).await?,
                    stops: make(stops.len().next_power_of_two()).await?,
                    ring,
                    mirrored: None,
                    params: Sample::default(),
                }
            }
        };
        device.write(&made.bias, 0, bytemuck::cast_slice(&sampler.device_bias()))?;
        device.write(&made.stops, 0, bytemuck::cast_slice(&stops))?;
        made.mirrored = None;
        made.params = Sample {
            temperature: options.temperature,
            top_p: options.top_p,
            min_p: options.min_p,
            penalty,
            boundary_bias: options.boundary_bias,
            top_k: if options.top_k == 0 { CANDIDATES } else { options.top_k.min(CANDIDATES) } as u32,
            window: window as u32,
            flags: 0,
            nodes: trie.map_or(0, SuffixTrie::node_count) as u32,
            max_len: trie.map_or(0, SuffixTrie::max_len) as u32,
            ring: ring as u32,
        };
        Ok(Some(made))
    }

    /// Device memory of a sampler and of the control block's copies, in bytes, with a history of up to [`USUAL_RING`]
    /// ids and stop strings of up to [`USUAL_STOPS`] words.
    pub(crate) fn usual_bytes() -> u64 {
        let control = 2 * CONTROL_STRIDE;
        let parts = [IDS, USUAL_RING, SUFFIX_WORD as usize + 1, CANDIDATES, 2 * MAX_CHOICES, USUAL_STOPS];
        4 * control as u64 + parts.map(|words| buffer_bytes(4 * words as u64)).iter().sum::<u64>()
    }

    /// Prepares for choices after `ids`, the last of which has not gone through the model: `taken` of at most `budget`
    /// bytes are generated, and `random` has two numbers for each choice to come.
    pub(crate) fn begin(
        &mut self,
        device: &Device,
        control: &Slice,
        ids: &[u16],
        trie: Option<&SuffixTrie>,
        (taken, budget): (usize, usize),
        random: &[[f32; 2]],
    ) -> Result<()> {
        let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let words = [0, 0, word(taken), word(budget), word(ids.len()), 0, 0, 0];
        device.write(control, 0, bytemuck::cast_slice(&words))?;
        device.write(&self.random, 0, bytemuck::cast_slice(random))?;
        if self.mirrored == Some(ids.len()) {
            // The device has updated history and next id itself.
            return Ok(());
        }
        let Some((&last, before)) = ids.split_last() else {
            return Err(Error::internal("no id was chosen"));
        };
        let mut history = vec![0u32; self.ring];
        for (position, &id) in ids.iter().enumerate().skip(ids.len().saturating_sub(self.ring)) {
            history[position % self.ring] = plain(id).into();
        }
        device.write(&self.history, 0, bytemuck::cast_slice(&history))?;
        device.write(&self.id, 0, bytemuck::bytes_of(&u32::from(plain(last))))?;
        if let Some(trie) = trie {
            let suffix = trie.suffixes(&before[before.len().saturating_sub(trie.max_len())..], &[plain(last)])?;
            device.write(&self.suffix, 0, bytemuck::cast_slice(&suffix))?;
        }
        Ok(())
    }

    /// After a step that was stopped part-way: what the device has updated itself is written again before the next one.
    pub(crate) fn forget(&mut self) {
        self.mirrored = None;
    }

    /// Records a choice from the logits. `trie` is the suffix trie on the device.
    pub(crate) fn choose(&self, cx: &mut Context<'_>, control: &Slice, trie: Option<&Slice>, flag: Flag) -> Result<()> {
        let flags = match flag {
            Flag::Model => 0,
            Flag::Given(ends) => 1 + u32::from(ends),
        };
        let params = Sample { flags, ..self.params };
        // Without a trie its binding holds something that is not read.
        let trie = trie.unwrap_or(&self.stops);
        let slices = [&self.logits, &self.bias, &self.random, &self.stops, trie, control, &self.history, &self.next];
        cx.recorder.dispatch(KernelId::Sample, WeightFormat::F32, &params, &slices, [1, 1, 1])
    }

    /// The chosen ids, from the contents of the control block after the submission. The sequence had `before` ids.
    pub(crate) fn chosen(&mut self, control: &[u8], before: usize) -> Result<(Vec<u16>, Ended)> {
        let control: Vec<u32> = bytemuck::pod_collect_to_vec(control);
        let ids: Option<Vec<u16>> =
            control.get(1).zip(control.get(SAMPLE_CONTROL as usize..)).and_then(|(&count, ids)| {
                let ids = ids.get(..count as usize)?;
                ids.iter().map(|&id| u16::try_from(id).ok().filter(|&id| usize::from(id) < IDS)).collect()
            });
        let fault = control.get(5).copied();
        let (Some(ids), Some(0 | 1)) = (ids, fault) else {
            return Err(Error::internal("device returned an invalid id"));
        };
        let at_end = fault == Some(1) || ids.last().is_some_and(|&id| plain(id) == crate::text::ids::END_ID);
        self.mirrored = (!at_end).then_some(before + ids.len());
        Ok((ids, if at_end { Ended::Logits } else { Ended::Chosen }))
    }
}

/// Stop strings as the kernel reads them: their number, offset and length of each, then their bytes.
fn stop_words(stops: &[Vec<u8>]) -> Vec<u32> {
    let mut words = vec![stops.len() as u32];
    let mut at = 1 + 2 * stops.len();
    for stop in stops {
        words.extend([at as u32, stop.len() as u32]);
        at += stop.len();
    }
    words.extend(stops.iter().flatten().map(|&byte| u32::from(byte)));
    words
}

/// Fixed schedule of patch ends: whether byte `i` (from 0) ends a patch, so that n bytes end ⌊n / `bytes_per_patch`⌋
/// patches.
pub fn ends_patch(i: usize, bytes_per_patch: f64) -> bool {
    let patches = |bytes: usize| (bytes as f64 / bytes_per_patch).floor();
    patches(i + 1) > patches(i)
}

/// The plain or fused form of `id` that `flag` asks for.
pub(crate) fn flagged(id: u16, flag: Flag) -> u16 {
    match flag {
        Flag::Model => id,
        Flag::Given(ends) if is_fused(id) == ends => id,
        Flag::Given(true) => id + crate::text::ids::FUSED_OFFSET,
        Flag::Given(false) => plain(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_strings_are_found_at_their_offsets() {
        assert_eq!(stop_words(&[]), [0]);
        let words = stop_words(&[b"ab".to_vec(), b"c".to_vec()]);
        assert_eq!(words, [2, 5, 2, 7, 1, 97, 98, 99]);
    }

    #[test]
    fn given_flags_change_only_the_fused_form() {
        assert_eq!([flagged(70, Flag::Given(true)), flagged(330, Flag::Given(false))], [330, 70]);
        assert_eq!([flagged(70, Flag::Given(false)), flagged(330, Flag::Given(true))], [70, 330]);
        assert_eq!(flagged(330, Flag::Model), 330);
    }
}
