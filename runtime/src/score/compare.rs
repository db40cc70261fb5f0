//! Comparison of two models over one text, such as a quantized model with the original.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::score::{Score, Tally};
use crate::session::{Call, CancelToken, Session, Tap};
use crate::text::ids;

/// Number of ids that the models process by turns, which bounds the logits in memory.
const CHUNK: usize = 1024;

/// Result of a comparison. Each model predicts its own boundaries.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Comparison {
    /// Score of the compared model.
    pub score: Score,
    /// Score of the reference model.
    pub reference: Score,
    /// Fraction of positions where both models make the same boundary decision.
    pub boundary_agreement: f64,
    /// Fraction of predicted ids for which the most probable of the 520 ids is the same.
    pub greedy_agreement: f64,
    /// Largest absolute difference of two logits.
    pub logit_difference_max: f64,
    /// Mean absolute difference of all logits.
    pub logit_difference_mean: f64,
}

impl Model {
    /// Scores a text with this model and with `reference`, as [`Model::score_text`], and compares their logits.
    ///
    /// # Errors
    /// As [`Model::score_text`]; `InvalidArgument` for models whose special ids differ.
    pub async fn compare_text(
        &self,
        reference: &Model,
        text: &[u8],
        cancel: &CancelToken,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Comparison> {
        let ids = self.framed(text)?;
        if reference.framed(text)? != ids {
            return Err(Error::invalid(
                "the models can't be compared, because their special ids differ; use two models with the same ids",
            ));
        }
        self.compare(reference, &ids, 1..ids.len() - 1, cancel, progress).await
    }

    /// Like [`Model::compare_text`], for plain ids as in [`Model::score_ids`].
    ///
    /// # Errors
    /// As [`Model::score_ids`].
    pub async fn compare_ids(
        &self,
        reference: &Model,
        ids: &[u32],
        cancel: &CancelToken,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Comparison> {
        let ids = ids::validate_input_ids(ids)?;
        if ids.len() < 2 {
            return Err(Error::invalid(format!("ids: expected at least 2 to score, found {}", ids.len())));
        }
        self.compare(reference, &ids, 0..ids.len(), cancel, progress).await
    }

    /// Compares over the ids `reported`. If the last id is not among them, it is a lookahead.
    async fn compare(
        &self,
        reference: &Model,
        ids: &[u16],
        reported: Range<usize>,
        cancel: &CancelToken,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Comparison> {
        let (mut one, mut other) =
            (Side::new(self, ids.len(), cancel).await?, Side::new(reference, ids.len(), cancel).await?);
        let mut difference = Difference::default();
        let scored = reported.start.max(1)..reported.end;
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            progress(i * CHUNK, ids.len());
            one.process(ids, chunk).await?;
            other.process(ids, chunk).await?;
            difference.add(&mut one, &mut other, &scored)?;
        }
        if reported.end == ids.len() {
            one.process_last(ids).await?;
            other.process_last(ids).await?;
            difference.add(&mut one, &mut other, &scored)?;
        }
        progress(ids.len(), ids.len());
        let (score, reference) = (one.score(reported.clone()), other.score(reported));
        let equal = score.boundaries.iter().zip(&reference.boundaries).filter(|(a, b)| a == b).count();
        Ok(Comparison {
            boundary_agreement: equal as f64 / score.boundaries.len() as f64,
            greedy_agreement: difference.equal as f64 / difference.rows as f64,
            logit_difference_max: difference.largest,
            logit_difference_mean: difference.sum / difference.logits as f64,
            score,
            reference,
        })
    }
}

/// One of the two models and its progress.
struct Side {
    session: Session,
    _call: Call,
    tally: Tally,
    width: usize,
    /// Position of the first row of `logits`.
    first: usize,
    /// Logits that are not compared yet.
    logits: Vec<f32>,
}

impl Side {
    async fn new(model: &Model, ids: usize, cancel: &CancelToken) -> Result<Self> {
        let mut session = Session::new(model).await?;
        session.set_cancel_token(cancel.clone());
        let width = model.config().vocab_size;
        let call = session.begin_call()?;
        Ok(Self { session, _call: call, tally: Tally::new(ids)?, width, first: 0, logits: Vec::new() })
    }

    async fn process(&mut self, ids: &[u16], chunk: &[u16]) -> Result<()> {
        let Self { session, tally, width, logits, .. } = self;
        let mut take = |position: usize, rows: &[f32]| {
            tally.take(ids, position, rows, *width);
            logits.extend_from_slice(rows);
            Ok(())
        };
        let mut tap = Tap { logits: &mut take, dump: None };
        session.score_forward(chunk, None, &mut tap, &mut |_, _| {}).await
    }

    /// Processes the last id, which ends no patch.
    async fn process_last(&mut self, ids: &[u16]) -> Result<()> {
        let Self { session, tally, width, logits, .. } = self;
        let mut take = |position: usize, rows: &[f32]| {
            tally.take(ids, position, rows, *width);
            logits.extend_from_slice(rows);
            Ok(())
        };
        let mut tap = Tap { logits: &mut take, dump: None };
        session.score_last(false, &mut tap).await
    }

    fn score(&self, reported: Range<usize>) -> Score {
        let boundaries: Vec<bool> = self.session.ids().iter().map(|&id| ids::is_fused(id)).collect();
        self.tally.score(&boundaries, reported)
    }
}

/// Sums over the compared logits.
#[derive(Default)]
struct Difference {
    rows: usize,
    equal: usize,
    logits: usize,
    largest: f64,
    sum: f64,
}

impl Difference {
    /// Adds the logits that both sides hold, as far as they predict the ids `scored`, and clears them.
    fn add(&mut self, one: &mut Side, other: &mut Side, scored: &Range<usize>) -> Result<()> {
        if one.logits.len() != other.logits.len() || one.width != other.width {
            return Err(Error::internal("the two models returned logits of different positions"));
        }
        let width = one.width;
        for (i, (a, b)) in one.logits.chunks_exact(width).zip(other.logits.chunks_exact(width)).enumerate() {
            if !scored.contains(&(one.first + i + 1)) {
                continue;
            }
            self.rows += 1;
            self.equal += usize::from(argmax(a) == argmax(b));
            self.logits += width;
            for (a, b) in a.iter().zip(b) {
                let apart = (f64::from(*a) - f64::from(*b)).abs();
                self.largest = self.largest.max(apart);
                self.sum += apart;
            }
        }
        for side in [one, other] {
            side.first += side.logits.len() / width;
            side.logits.clear();
        }
        Ok(())
    }
}

/// Index of the first of the largest values, as in greedy decoding.
fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best }).0
}
