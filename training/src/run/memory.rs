//! How much device memory a run takes, known before any is taken: everything is allocated once for show.

use std::path::Path;

use bolmo_runtime::internals::{available_memory, rehearsal};
use bolmo_runtime::{Engine, Error, ErrorKind, Result};

use super::config::{Kind, RunConfig};
use super::learner::Learner;
use crate::data::Rows;

const MIB: u64 = 1 << 20;

/// A run that is thought through before it begins.
pub(super) struct Plan<'a> {
    pub(super) engine: &'a Engine,
    pub(super) kind: Kind,
    pub(super) config: &'a RunConfig,
    pub(super) tokenizer_path: &'a Path,
    pub(super) rows: &'a Rows,
}

impl Plan<'_> {
    /// Bytes of device memory that the run takes.
    ///
    /// # Errors
    /// `OutOfMemory` if it is more than there is, `Unsupported` if a buffer is larger than the adapter allows; both say what would fit. Whatever
    /// opening the run reports besides.
    pub(super) async fn check(&self) -> Result<u64> {
        let limit = self.limit();
        let too_much = match self.bytes(self.config).await {
            Ok(bytes) if limit.is_none_or(|limit| bytes <= limit) => return Ok(bytes),
            Ok(bytes) => {
                let limit = limit.unwrap_or_default();
                let message =
                    format!("the run takes {} MiB of device memory, it may take {}", bytes / MIB, limit / MIB);
                Error::new(ErrorKind::OutOfMemory, message)
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => error,
            Err(error) => return Err(error),
        };
        Err(self.advise(too_much, limit).await)
    }

    /// What went wrong when memory was taken in earnest, with what would have fitted into what there was.
    pub(super) async fn explain(&self, error: Error, taken: u64) -> Error {
        if error.kind() == ErrorKind::OutOfMemory { self.advise(error, Some(taken)).await } else { error }
    }

    /// The error with the batch that led to it, and one that would not. What is unsupported with any batch has nothing to do with the batch.
    async fn advise(&self, error: Error, limit: Option<u64>) -> Error {
        let batch = &self.config.batch;
        let fitting = match self.fitting(limit).await {
            Some(fitting) => fitting,
            None if error.kind() == ErrorKind::Unsupported => return error,
            None => "no batch would fit: take a smaller model".to_owned(),
        };
        let mut layers_again = self.config.clone();
        layers_again.batch.recompute = true;
        let fitting = match batch.recompute || !self.fits(&layers_again, limit).await {
            true => fitting,
            false => format!("{fitting}; and so would all of it with `batch.recompute` = true"),
        };
        let message =
            format!("a batch of {} rows of {} subwords: {}; {fitting}", batch.rows, batch.subwords, error.message());
        Error::new(error.kind(), message)
    }

    /// Bytes at most.
    fn limit(&self) -> Option<u64> {
        match self.config.device.memory_mib {
            Some(mib) => Some(mib.saturating_mul(MIB)),
            None if self.engine.adapter().is_software() => available_memory(),
            None => None,
        }
    }

    async fn bytes(&self, config: &RunConfig) -> Result<u64> {
        let engine = rehearsal(self.engine)?;
        let learner = Learner::open(&engine, self.kind, config, self.tokenizer_path, self.rows).await?;
        let bytes = engine.memory().peak_bytes;
        drop(learner);
        Ok(bytes)
    }

    async fn fits(&self, config: &RunConfig, limit: Option<u64>) -> bool {
        self.bytes(config).await.is_ok_and(|bytes| limit.is_none_or(|limit| bytes <= limit))
    }

    /// Whether a batch of other sizes would fit.
    async fn batch_fits(&self, rows: usize, subwords: usize, limit: Option<u64>) -> bool {
        let mut config = self.config.clone();
        config.batch.rows = rows;
        config.batch.subwords = subwords;
        self.fits(&config, limit).await
    }

    /// What would fit: fewer rows, or if even one is too much, fewer subwords in it.
    async fn fitting(&self, limit: Option<u64>) -> Option<String> {
        let batch = &self.config.batch;
        // `fits` does, or is 0; `above` does not.
        let (mut fits, mut above) = (0, batch.rows);
        while above - fits > 1 {
            let rows = fits.midpoint(above);
            if self.batch_fits(rows, batch.subwords, limit).await { fits = rows } else { above = rows }
        }
        if fits > 0 {
            return Some(format!(
                "`batch.rows` = {fits} would fit, with `batch.accumulate` = {} for about the same step",
                (batch.rows * batch.accumulate).div_ceil(fits)
            ));
        }
        // Rows are made of fours of subwords, or else counts are refused for other reasons.
        let (mut fits, mut above) = (0, batch.subwords.div_ceil(4));
        while above - fits > 1 {
            let fours = fits.midpoint(above);
            if self.batch_fits(1, 4 * fours, limit).await { fits = fours } else { above = fours }
        }
        (fits > 0).then(|| format!("one row of `batch.subwords` = {} would fit", 4 * fits))
    }
}
