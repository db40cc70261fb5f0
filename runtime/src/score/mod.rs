//! Scoring: how probable a model finds a given text (SPEC 9), and everything that was computed on the way.

pub(crate) mod compare;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::sampling::host;
use crate::session::{CancelToken, Dump, Session, Tap};
use crate::stages::boundary;
use crate::text::ids;

/// What to score.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScoreOptions {
    /// Which ids end a patch, one flag an id, instead of the predictor.
    pub boundaries: Option<Vec<bool>>,
    /// Keep every tensor on the way; takes memory for about 600 floats and six times the hidden size an id.
    pub dump: bool,
    /// Stops the scoring from another thread.
    pub cancel: CancelToken,
}

/// How probable a text is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Score {
    /// Ids that were predicted: all but the first, and without a lookahead byte.
    pub bytes: usize,
    /// Natural log-probability of the ids with their flags.
    pub log_likelihood_joint: f64,
    /// Natural log-probability of the bytes, whatever their flags; it sees a little of each next byte.
    pub log_likelihood_folded: f64,
    /// Patches that were ended, the first position's included unless it was `<bos>` added in front of a text.
    pub patches: usize,
    /// Whether each id ends a patch.
    pub boundaries: Vec<bool>,
    /// Natural log-probability of each id with its flag, as many as there are boundaries; 0 for a first one that is not predicted.
    pub log_likelihoods: Vec<f64>,
    /// The tensors, if asked for.
    pub dump: Option<Tensors>,
}

impl Score {
    fn bits_per_byte(&self, log_likelihood: f64) -> f64 {
        -log_likelihood / std::f64::consts::LN_2 / self.bytes as f64
    }

    /// Bits a byte of the ids with their flags.
    pub fn bits_per_byte_joint(&self) -> f64 {
        self.bits_per_byte(self.log_likelihood_joint)
    }

    /// Bits a byte whatever the flags; not comparable with a subword model's.
    pub fn bits_per_byte_folded(&self) -> f64 {
        self.bits_per_byte(self.log_likelihood_folded)
    }

    /// Bytes a patch, or none if no patch was ended.
    pub fn bytes_per_patch(&self) -> Option<f64> {
        (self.patches > 0).then(|| self.bytes as f64 / self.patches as f64)
    }
}

/// The tensors of a teacher-forced forward pass over n ids and p patches; D is the hidden size.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Tensors {
    /// Plain ids, `[n]`.
    pub ids: Vec<u16>,
    /// Suffix ids, `[n]`, for a model with a suffix table.
    pub suffix_ids: Option<Vec<u32>>,
    /// Encoder output behind its norm, `[n, D]`.
    pub encoder_out: Vec<f32>,
    /// Log-probability of a boundary, `[n]`: 0 at the first position, -100000 at the last one, which has no next byte.
    pub boundary_logprobs: Vec<f32>,
    /// Whether each id ends a patch, `[n]`.
    pub boundary_mask: Vec<bool>,
    /// Input of the global model, `[p, D]`.
    pub patch_embeddings: Vec<f32>,
    /// Output of the global model, `[p, D]`.
    pub global_out: Vec<f32>,
    /// Decoder output before the final norm, `[n, D]`.
    pub decoder_out: Vec<f32>,
    /// Behind the final norm, `[n, D]`.
    pub final_hidden: Vec<f32>,
    /// `[n, 520]`
    pub logits: Vec<f32>,
}

/// Log-probability of a boundary where none can be: the last position has no next byte.
const NEVER: f32 = -100_000.0;

/// What the logits before an id say of it.
#[derive(Default, Clone, Copy)]
struct Predicted {
    plain: f64,
    fused: f64,
    folded: f64,
}

/// What the logits say of each id of a sequence, collected as they come.
pub(crate) struct Tally {
    predicted: Vec<Predicted>,
}

impl Tally {
    /// For so many ids.
    pub(crate) fn new(ids: usize) -> Self {
        Self { predicted: vec![Predicted::default(); ids] }
    }

    /// Takes in logits of some rows, from that of `position` on.
    pub(crate) fn take(&mut self, ids: &[u16], position: usize, logits: &[f32], width: usize) {
        for (next, row) in (position + 1..).zip(logits.chunks_exact(width)) {
            if let (Some(&id), Some(slot)) = (ids.get(next), self.predicted.get_mut(next)) {
                let fused = id + ids::FUSED_OFFSET;
                *slot = Predicted {
                    plain: host::joint(row, id),
                    fused: host::joint(row, fused),
                    folded: host::marginal(row, id),
                };
            }
        }
    }

    /// The score of the ids `kept`, whose `boundaries` are among those of all ids.
    pub(crate) fn score(&self, boundaries: &[bool], kept: Range<usize>) -> Score {
        // The first id of an unframed sequence is not predicted.
        let scored = kept.start.max(1)..kept.end;
        let mut score = Score {
            bytes: scored.len(),
            log_likelihood_joint: 0.0,
            log_likelihood_folded: 0.0,
            patches: boundaries[kept.clone()].iter().filter(|&&b| b).count(),
            boundaries: boundaries[kept.clone()].to_vec(),
            log_likelihoods: vec![0.0; kept.len()],
            dump: None,
        };
        for i in scored {
            let predicted = self.predicted[i];
            let joint = if boundaries[i] { predicted.fused } else { predicted.plain };
            score.log_likelihoods[i - kept.start] = joint;
            score.log_likelihood_joint += joint;
            score.log_likelihood_folded += predicted.folded;
        }
        score
    }
}

impl Model {
    /// Scores plain ids as they are: nothing is added, and the last one never ends a patch, since it has no next byte.
    ///
    /// # Errors
    /// `InvalidArgument` for fewer than two ids, ids 2, 3 or above 259, or boundaries of another length; `Cancelled`.
    pub async fn score_ids(
        &self,
        ids: &[u32],
        options: &ScoreOptions,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Score> {
        let ids = ids::validate_input_ids(ids)?;
        self.score(&ids, false, options, progress).await
    }

    /// Scores a text: `<bos>` goes before it and one newline after it as lookahead, neither of which is counted or dumped.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty text, or boundaries of another length than the text; `Cancelled`.
    pub async fn score_text(
        &self,
        text: &[u8],
        options: &ScoreOptions,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Score> {
        self.score(&self.framed(text)?, true, options, progress).await
    }

    /// A text with `<bos>` before it and a newline after it.
    pub(crate) fn framed(&self, text: &[u8]) -> Result<Vec<u16>> {
        if text.is_empty() {
            return Err(Error::invalid("the text to score is empty"));
        }
        let offset = u8::try_from(self.config().byte_offset).unwrap_or(ids::BYTE_OFFSET);
        let mut ids = vec![self.config().special.bos];
        ids.extend(ids::encode(text, offset));
        ids.push(ids::byte_to_id(b'\n', offset));
        Ok(ids)
    }

    /// `framed`: the first id is `<bos>` and the last one a lookahead, both to be left out.
    async fn score(
        &self,
        ids: &[u16],
        framed: bool,
        options: &ScoreOptions,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Score> {
        if ids.len() < 2 {
            return Err(Error::invalid(format!("{} ids to score, expected at least 2", ids.len())));
        }
        let given = self.given_boundaries(ids.len(), framed, options)?;
        let mut session = Session::new(self).await?;
        session.set_cancel_token(options.cancel.clone());
        let suffix_ids = match &self.inner.suffixes {
            Some(trie) if options.dump => Some(trie.suffixes(&[], ids)?),
            _ => None,
        };

        let mut tally = Tally::new(ids.len());
        let mut dump = options.dump.then(Dump::default);
        let width = self.config().vocab_size;
        let mut take = |position: usize, logits: &[f32]| {
            tally.take(ids, position, logits, width);
            Ok(())
        };
        let mut tap = Tap { logits: &mut take, dump: dump.as_mut() };
        session.score_forward(ids, given.as_deref(), &mut tap, progress).await?;
        if !framed {
            let ends = given.as_ref().and_then(|g| g.last().copied()).unwrap_or(false);
            session.decide_pending(ends, Some(&mut tap)).await?;
        }

        let boundaries: Vec<bool> = session.ids().iter().map(|&id| ids::is_fused(id)).collect();
        // Frames are left out.
        let kept = if framed { 1..ids.len() - 1 } else { 0..ids.len() };
        let mut score = tally.score(&boundaries, kept.clone());
        if let Some(dump) = dump {
            score.dump = Some(self.tensors(ids, suffix_ids, &boundaries, dump, kept));
        }
        Ok(score)
    }

    /// One flag for each of `n` ids, from those that the options give.
    fn given_boundaries(&self, n: usize, framed: bool, options: &ScoreOptions) -> Result<Option<Vec<bool>>> {
        let Some(given) = &options.boundaries else {
            return Ok(None);
        };
        let expected = if framed { n - 2 } else { n };
        if given.len() != expected {
            return Err(Error::invalid(format!("{} boundaries for {expected} ids, expected one each", given.len())));
        }
        if !framed {
            return match given.first() {
                Some(true) => Ok(Some(given.clone())),
                _ => Err(Error::invalid("boundary 0 is 0, expected 1: the first position always ends a patch")),
            };
        }
        let mut all = vec![true];
        all.extend(given);
        all.push(false);
        Ok(Some(all))
    }

    /// What a dump holds of the positions `kept`.
    fn tensors(
        &self,
        ids: &[u16],
        suffix_ids: Option<Vec<u32>>,
        boundaries: &[bool],
        dump: Dump,
        kept: Range<usize>,
    ) -> Tensors {
        let d = self.config().hidden_size;
        let rows = |all: &[f32], width: usize| all[kept.start * width..kept.end * width].to_vec();
        let mut logprobs: Vec<f32> = dump.cosine.iter().map(|&c| boundary::log_probability(c)).collect();
        logprobs.resize(ids.len(), NEVER);
        logprobs[0] = 0.0;
        // Patches that a left-out first position ended.
        let skipped = boundaries[..kept.start].iter().filter(|&&b| b).count();
        Tensors {
            ids: ids[kept.clone()].to_vec(),
            suffix_ids: suffix_ids.map(|s| s[kept.clone()].to_vec()),
            encoder_out: rows(&dump.encoder_out, d),
            boundary_logprobs: rows(&logprobs, 1),
            boundary_mask: boundaries[kept.clone()].to_vec(),
            patch_embeddings: dump.patch_embeddings[skipped * d..].to_vec(),
            global_out: dump.global_out[skipped * d..].to_vec(),
            decoder_out: rows(&dump.decoder_out, d),
            final_hidden: rows(&dump.final_hidden, d),
            logits: rows(&dump.logits, self.config().vocab_size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that leave no doubt about one id.
    fn row(id: u16) -> Vec<f32> {
        (0..520).map(|other| if other == id { 0.0 } else { -1e4 }).collect()
    }

    #[test]
    fn each_id_is_told_apart() {
        let ids = [1, 70, 71, 72];
        let mut tally = Tally::new(ids.len());
        // Foreseen without its flag, with it, and not at all.
        let logits = [row(70), row(71 + ids::FUSED_OFFSET), row(99)].concat();
        tally.take(&ids, 0, &logits, 520);
        let score = tally.score(&[true, false, true, false], 0..4);
        assert_eq!(score.log_likelihoods, [0.0, 0.0, 0.0, -1e4]);
        assert_eq!((score.bytes, score.patches, score.log_likelihood_joint), (3, 2, -1e4));
        // Without the frame.
        let score = tally.score(&[true, true, false, false], 1..3);
        assert_eq!(score.log_likelihoods, [-1e4, -1e4]);
        assert_eq!(score.log_likelihood_joint, -2e4);
    }
}
