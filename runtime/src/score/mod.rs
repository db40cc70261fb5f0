//! Scoring: the log-probability of a given text under a model (`docs/model.md`, "Scoring"), with all intermediate
//! tensors on request.

pub(crate) mod compare;

use std::ops::Range;

use crate::allocate;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::sampling::logprobs::IdLogProbs;
use crate::session::{CancelToken, Dump, Session, Tap};
use crate::stages::boundary;
use crate::text::ids;
use crate::timer::Timer;

/// Options of a scoring.
///
/// ```
/// use bolmo_runtime::ScoreOptions;
///
/// let options = ScoreOptions::default().boundaries(vec![true, false, true]).dump(true);
/// assert!(options.dump);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScoreOptions {
    /// Whether each id ends a patch, instead of the boundary predictor's decisions.
    pub boundaries: Option<Vec<bool>>,
    /// Return all intermediate tensors. They take about 600 floats plus six times the hidden size for each id.
    pub dump: bool,
    /// Cancels the scoring from another thread.
    pub cancel: CancelToken,
}

impl ScoreOptions {
    /// Sets which ids end a patch, one flag for each id.
    #[must_use]
    pub fn boundaries(mut self, boundaries: Vec<bool>) -> Self {
        self.boundaries = Some(boundaries);
        self
    }

    /// Sets whether all intermediate tensors are returned.
    #[must_use]
    pub fn dump(mut self, dump: bool) -> Self {
        self.dump = dump;
        self
    }

    /// Sets the token that cancels the scoring.
    #[must_use]
    pub fn cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }
}

/// Log-probability of a text, and its patches.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Score {
    /// Number of predicted ids: all but the first, and without a lookahead byte.
    pub bytes: usize,
    /// Joint log-likelihood in nats: of the bytes and of where patches end.
    pub log_likelihood_joint: f64,
    /// Marginal log-likelihood in nats: of the bytes alone, plain and fused ids summed. The patch ends before a byte
    /// depend on that byte, so this number sees a little of what it predicts.
    pub log_likelihood_marginal: f64,
    /// Number of patch ends, including the first position unless it is the `<bos>` added in front of a text.
    pub patches: usize,
    /// Whether each id ends a patch.
    pub boundaries: Vec<bool>,
    /// Joint log-likelihood of each id in nats, one for each of `boundaries`; 0 for a first id that is not predicted.
    pub log_likelihoods: Vec<f64>,
    /// Marginal log-likelihood of each id in nats, likewise.
    pub log_likelihoods_marginal: Vec<f64>,
    /// All intermediate tensors, if requested.
    pub dump: Option<Tensors>,
}

impl Score {
    fn bits_per_byte(&self, log_likelihood: f64) -> f64 {
        -log_likelihood / std::f64::consts::LN_2 / self.bytes as f64
    }

    /// Joint bits per byte.
    pub fn bits_per_byte_joint(&self) -> f64 {
        self.bits_per_byte(self.log_likelihood_joint)
    }

    /// Marginal bits per byte; not comparable with those of a subword model.
    pub fn bits_per_byte_marginal(&self) -> f64 {
        self.bits_per_byte(self.log_likelihood_marginal)
    }

    /// Bytes per patch; `None` if no patch ended.
    pub fn bytes_per_patch(&self) -> Option<f64> {
        (self.patches > 0).then(|| self.bytes as f64 / self.patches as f64)
    }
}

/// All tensors of a teacher-forced forward pass over n ids and p patches; D is the hidden size.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Tensors {
    /// Plain ids, `[n]`.
    pub ids: Vec<u16>,
    /// Suffix ids, `[n]`; `None` for a model without a suffix table.
    pub suffix_ids: Option<Vec<u32>>,
    /// Encoder output after its norm, `[n, D]`.
    pub encoder_out: Vec<f32>,
    /// Log-probability of a boundary, `[n]`: 0 at the first position, -100000 at the last one, which has no next byte
    /// to decide by.
    pub boundary_logprobs: Vec<f32>,
    /// Whether each id ends a patch, `[n]`.
    pub boundary_mask: Vec<bool>,
    /// Input of the global model, `[p, D]`.
    pub patch_embeddings: Vec<f32>,
    /// Output of the global model, `[p, D]`.
    pub global_out: Vec<f32>,
    /// Decoder output before the final norm, `[n, D]`.
    pub decoder_out: Vec<f32>,
    /// Decoder output after the final norm, `[n, D]`.
    pub final_hidden: Vec<f32>,
    /// Logits of all plain and fused ids, `[n, 520]`.
    pub logits: Vec<f32>,
}

/// Log-probability of a boundary at the last position, which has no next byte to decide by.
const NO_BOUNDARY: f32 = -100_000.0;

/// Log-probabilities of the ids of a sequence, collected while the logits are computed.
pub(crate) struct Tally {
    log_probs: Vec<IdLogProbs>,
}

impl Tally {
    /// An empty tally for a number of ids.
    pub(crate) fn new(ids: usize) -> Result<Self> {
        Ok(Self { log_probs: allocate::zeros(ids, "the score of a text")? })
    }

    /// Adds rows of logits, the first of which is at `position`.
    pub(crate) fn take(&mut self, ids: &[u16], position: usize, logits: &[f32], width: usize) {
        for (next, row) in (position + 1..).zip(logits.chunks_exact(width)) {
            if let (Some(&id), Some(entry)) = (ids.get(next), self.log_probs.get_mut(next)) {
                *entry = IdLogProbs::new(row, id);
            }
        }
    }

    /// The score of the ids in `reported`; `boundaries` has a flag for every id of the sequence.
    pub(crate) fn score(&self, boundaries: &[bool], reported: Range<usize>) -> Score {
        // Nothing predicts the first id of a sequence.
        let scored = reported.start.max(1)..reported.end;
        let mut score = Score {
            bytes: scored.len(),
            log_likelihood_joint: 0.0,
            log_likelihood_marginal: 0.0,
            patches: boundaries[reported.clone()].iter().filter(|&&b| b).count(),
            boundaries: boundaries[reported.clone()].to_vec(),
            log_likelihoods: vec![0.0; reported.len()],
            log_likelihoods_marginal: vec![0.0; reported.len()],
            dump: None,
        };
        for i in scored {
            let log_probs = self.log_probs[i];
            let joint = log_probs.joint(boundaries[i]);
            score.log_likelihoods[i - reported.start] = joint;
            score.log_likelihoods_marginal[i - reported.start] = log_probs.marginal;
            score.log_likelihood_joint += joint;
            score.log_likelihood_marginal += log_probs.marginal;
        }
        score
    }
}

impl Model {
    /// Scores plain ids without adding any. The last id never ends a patch, because it has no next byte.
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

    /// Scores a text between an added `<bos>` and an added newline, the lookahead. The score and its tensors leave out
    /// both.
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

    /// The ids of a text between `<bos>` and a newline.
    pub(crate) fn framed(&self, text: &[u8]) -> Result<Vec<u16>> {
        if text.is_empty() {
            return Err(Error::invalid("the text to score is empty; pass at least one byte"));
        }
        let offset = u8::try_from(self.config().byte_offset).unwrap_or(ids::BYTE_OFFSET);
        let mut ids = vec![self.config().special.bos];
        ids.extend(ids::encode(text, offset));
        ids.push(ids::byte_to_id(b'\n', offset));
        Ok(ids)
    }

    /// Scores ids. In a `framed` sequence the first id is `<bos>` and the last one the lookahead; the score leaves out
    /// both.
    async fn score(
        &self,
        ids: &[u16],
        framed: bool,
        options: &ScoreOptions,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Score> {
        if ids.len() < 2 {
            return Err(Error::invalid(format!("ids: expected at least 2 to score, found {}", ids.len())));
        }
        let timer = Timer::start();
        let given = self.given_boundaries(ids.len(), framed, options)?;
        let mut session = Session::new(self).await?;
        session.set_cancel_token(options.cancel.clone());
        let _call = session.begin_call()?;
        let suffix_ids = match &self.inner.suffixes {
            Some(trie) if options.dump => Some(trie.suffixes(&[], ids)?),
            _ => None,
        };

        let mut tally = Tally::new(ids.len())?;
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
            session.score_last(ends, &mut tap).await?;
        }

        let boundaries: Vec<bool> = session.ids().iter().map(|&id| ids::is_fused(id)).collect();
        let reported = if framed { 1..ids.len() - 1 } else { 0..ids.len() };
        let mut score = tally.score(&boundaries, reported.clone());
        log::info!("scored {} bytes, {} patches, {timer}", score.bytes, score.patches);
        if let Some(dump) = dump {
            score.dump = Some(self.tensors(ids, suffix_ids, &boundaries, dump, reported));
        }
        Ok(score)
    }

    /// The boundaries that the options set, completed to one flag for each of `n` ids.
    fn given_boundaries(&self, n: usize, framed: bool, options: &ScoreOptions) -> Result<Option<Vec<bool>>> {
        let Some(given) = &options.boundaries else {
            return Ok(None);
        };
        let expected = if framed { n - 2 } else { n };
        if given.len() != expected {
            let found = given.len();
            return Err(Error::invalid(format!("{found} boundaries for {expected} ids, expected one for each id")));
        }
        if !framed {
            return match given.first() {
                Some(true) => Ok(Some(given.clone())),
                _ => Err(Error::invalid("boundary 0 is false, expected true: the first position always ends a patch")),
            };
        }
        let mut all = vec![true];
        all.extend(given);
        all.push(false);
        Ok(Some(all))
    }

    /// The tensors of a dump at the positions `reported`.
    fn tensors(
        &self,
        ids: &[u16],
        suffix_ids: Option<Vec<u32>>,
        boundaries: &[bool],
        dump: Dump,
        reported: Range<usize>,
    ) -> Tensors {
        let d = self.config().hidden_size;
        let rows = |all: &[f32], width: usize| all[reported.start * width..reported.end * width].to_vec();
        let mut logprobs: Vec<f32> = dump.cosine.iter().map(|&c| boundary::log_probability(c)).collect();
        logprobs.resize(ids.len(), NO_BOUNDARY);
        logprobs[0] = 0.0;
        // Patches that end before the first reported position.
        let skipped = boundaries[..reported.start].iter().filter(|&&b| b).count();
        Tensors {
            ids: ids[reported.clone()].to_vec(),
            suffix_ids: suffix_ids.map(|s| s[reported.clone()].to_vec()),
            encoder_out: rows(&dump.encoder_out, d),
            boundary_logprobs: rows(&logprobs, 1),
            boundary_mask: boundaries[reported.clone()].to_vec(),
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

    /// Logits that give one id a probability of 1.
    fn row(id: u16) -> Vec<f32> {
        (0..520).map(|other| if other == id { 0.0 } else { -1e4 }).collect()
    }

    #[test]
    fn plain_and_fused_ids_have_their_own_likelihoods() {
        let ids = [1, 70, 71, 72];
        let mut tally = Tally::new(ids.len()).expect("some bytes");
        // The second id is predicted plain, the third one fused, the fourth one not at all.
        let logits = [row(70), row(71 + ids::FUSED_OFFSET), row(99)].concat();
        tally.take(&ids, 0, &logits, 520);
        let score = tally.score(&[true, false, true, false], 0..4);
        assert_eq!(score.log_likelihoods, [0.0, 0.0, 0.0, -1e4]);
        // The plain and the fused id of the last byte are both improbable.
        assert_eq!(score.log_likelihoods_marginal, [0.0, 0.0, 0.0, -1e4 + std::f64::consts::LN_2]);
        assert_eq!((score.bytes, score.patches, score.log_likelihood_joint), (3, 2, -1e4));
        // The same without the first and the last id.
        let score = tally.score(&[true, true, false, false], 1..3);
        assert_eq!(score.log_likelihoods, [-1e4, -1e4]);
        assert_eq!(score.log_likelihoods_marginal, [0.0, 0.0]);
        assert_eq!((score.log_likelihood_joint, score.log_likelihood_marginal), (-2e4, 0.0));
    }
}
