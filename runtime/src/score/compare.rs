//! How far one model is from another over the same text: what a format of weights costs in quality.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::score::{Score, Tally};
use crate::session::{CancelToken, Session, Tap};
use crate::text::ids;

/// Ids that both models take in by turns, so that logits of few positions are kept at a time.
const PIECE: usize = 1024;

/// Two models over one text, each with the boundaries that it predicts itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Comparison {
    /// The score of the model that was asked about.
    pub score: Score,
    /// The score of the model that it is held against.
    pub reference: Score,
    /// Share of positions where both predictors decide alike whether a patch ends.
    pub boundary_agreement: f64,
    /// Share of predicted ids where the most probable one of the 520 is the same.
    pub greedy_agreement: f64,
    /// Largest difference of two logits.
    pub logit_difference_max: f64,
    /// Mean of the differences of all logits.
    pub logit_difference_mean: f64,
}

impl Model {
    /// Scores a text as [`Model::score_text`] does, and the same with `reference`, and says how the two differ.
    ///
    /// # Errors
    /// As [`Model::score_text`]; `InvalidArgument` for models of other ids.
    pub async fn compare_text(
        &self,
        reference: &Model,
        text: &[u8],
        cancel: &CancelToken,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Comparison> {
        let ids = self.framed(text)?;
        if reference.framed(text)? != ids {
            return Err(Error::invalid("the models can't be compared: they have other special ids"));
        }
        self.compare(reference, &ids, 1..ids.len() - 1, cancel, progress).await
    }

    /// As [`Model::compare_text`], of plain ids as [`Model::score_ids`] takes them.
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
            return Err(Error::invalid(format!("{} ids to score, expected at least 2", ids.len())));
        }
        self.compare(reference, &ids, 0..ids.len(), cancel, progress).await
    }

    /// Compares over the ids `kept`; a last id that is not among them is a lookahead.
    async fn compare(
        &self,
        reference: &Model,
        ids: &[u16],
        kept: Range<usize>,
        cancel: &CancelToken,
        progress: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Comparison> {
        let (mut one, mut other) =
            (Side::new(self, ids.len(), cancel).await?, Side::new(reference, ids.len(), cancel).await?);
        let mut difference = Difference::default();
        let scored = kept.start.max(1)..kept.end;
        for (i, piece) in ids.chunks(PIECE).enumerate() {
            progress(i * PIECE, ids.len());
            one.take_in(ids, piece).await?;
            other.take_in(ids, piece).await?;
            difference.add(&mut one, &mut other, &scored)?;
        }
        if kept.end == ids.len() {
            one.end(ids).await?;
            other.end(ids).await?;
            difference.add(&mut one, &mut other, &scored)?;
        }
        progress(ids.len(), ids.len());
        let (score, reference) = (one.score(kept.clone()), other.score(kept));
        let alike = score.boundaries.iter().zip(&reference.boundaries).filter(|(a, b)| a == b).count();
        Ok(Comparison {
            boundary_agreement: alike as f64 / score.boundaries.len() as f64,
            greedy_agreement: difference.alike as f64 / difference.rows as f64,
            logit_difference_max: difference.largest,
            logit_difference_mean: difference.sum / difference.logits as f64,
            score,
            reference,
        })
    }
}

/// One of the two models at work.
struct Side {
    session: Session,
    tally: Tally,
    width: usize,
    /// Position of the first of the logits that are not compared yet.
    first: usize,
    logits: Vec<f32>,
}

impl Side {
    async fn new(model: &Model, ids: usize, cancel: &CancelToken) -> Result<Self> {
        let mut session = Session::new(model).await?;
        session.set_cancel_token(cancel.clone());
        let width = model.config().vocab_size;
        Ok(Self { session, tally: Tally::new(ids), width, first: 0, logits: Vec::new() })
    }

    async fn take_in(&mut self, ids: &[u16], piece: &[u16]) -> Result<()> {
        let Self { session, tally, width, logits, .. } = self;
        let mut take = |position: usize, rows: &[f32]| {
            tally.take(ids, position, rows, *width);
            logits.extend_from_slice(rows);
            Ok(())
        };
        let mut tap = Tap { logits: &mut take, dump: None };
        session.score_forward(piece, None, &mut tap, &mut |_, _| {}).await
    }

    /// Takes in the last id, which ends no patch.
    async fn end(&mut self, ids: &[u16]) -> Result<()> {
        let Self { session, tally, width, logits, .. } = self;
        let mut take = |position: usize, rows: &[f32]| {
            tally.take(ids, position, rows, *width);
            logits.extend_from_slice(rows);
            Ok(())
        };
        let mut tap = Tap { logits: &mut take, dump: None };
        session.decide_pending(false, Some(&mut tap)).await
    }

    fn score(&self, kept: Range<usize>) -> Score {
        let boundaries: Vec<bool> = self.session.ids().iter().map(|&id| ids::is_fused(id)).collect();
        self.tally.score(&boundaries, kept)
    }
}

/// Differences of logits so far.
#[derive(Default)]
struct Difference {
    rows: usize,
    alike: usize,
    logits: usize,
    largest: f64,
    sum: f64,
}

impl Difference {
    /// Takes in what both sides have, of the rows before the ids `scored`, and clears it.
    fn add(&mut self, one: &mut Side, other: &mut Side, scored: &Range<usize>) -> Result<()> {
        if one.logits.len() != other.logits.len() || one.width != other.width {
            return Err(Error::internal("the two models gave logits of other positions"));
        }
        let width = one.width;
        for (i, (a, b)) in one.logits.chunks_exact(width).zip(other.logits.chunks_exact(width)).enumerate() {
            if !scored.contains(&(one.first + i + 1)) {
                continue;
            }
            self.rows += 1;
            self.alike += usize::from(argmax(a) == argmax(b));
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

/// The first of the largest, as greedy decoding takes it.
fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best }).0
}
