//! The device memory of a run, known in advance from a dry run that allocates nothing.

use bolmo_runtime::unstable::{available_memory, dry_run};
use bolmo_runtime::{Error, ErrorKind, Result};

use super::config::RunConfig;
use super::inputs::Inputs;
use super::learner::Learner;

const MIB: u64 = 1 << 20;

/// Memory plan of a run.
pub(super) struct MemoryPlan<'a> {
    pub(super) inputs: Inputs<'a>,
}

impl MemoryPlan<'_> {
    /// Computes the bytes of device memory that the run needs.
    ///
    /// # Errors
    /// `OutOfMemory` for more memory than there is, and `Unsupported` for a buffer larger than the adapter allows; both
    /// suggest a batch that fits. Other errors of opening the run.
    pub(super) async fn check(&self) -> Result<u64> {
        let limit = self.limit();
        let too_much = match self.bytes(self.inputs.config).await {
            Ok(bytes) if limit.is_none_or(|limit| bytes <= limit) => return Ok(bytes),
            Ok(bytes) => {
                let limit = limit.unwrap_or_default();
                // Rounded away from each other, so that the two numbers differ.
                let (needed, limit) = (bytes.div_ceil(MIB), limit / MIB);
                let message = format!("the run needs {needed} MiB of device memory, but the limit is {limit} MiB");
                Error::new(ErrorKind::OutOfMemory, message)
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => error,
            Err(error) => return Err(error),
        };
        Err(self.advise(too_much, limit).await)
    }

    /// Adds advice to an error of the actual allocation, with the memory that was `taken` as the limit.
    pub(super) async fn explain(&self, error: Error, taken: u64) -> Error {
        if error.kind() == ErrorKind::OutOfMemory { self.advise(error, Some(taken)).await } else { error }
    }

    /// Adds the batch size and one that fits to an error. An error that occurs with every batch stays as it is.
    async fn advise(&self, error: Error, limit: Option<u64>) -> Error {
        let batch = &self.inputs.config.batch;
        let fitting = match self.fitting(limit).await {
            Some(fitting) => fitting,
            None if error.kind() == ErrorKind::Unsupported => return error,
            None => "no batch would fit; use a smaller model".to_owned(),
        };
        let mut recomputed = self.inputs.config.clone();
        recomputed.batch.recompute = true;
        let fitting = match batch.recompute || !self.fits(&recomputed, limit).await {
            true => fitting,
            false => format!("{fitting}; the whole batch would fit with `batch.recompute` = true"),
        };
        let message = format!(
            "with a batch of {} rows of {} subwords, {}; {fitting}",
            batch.rows,
            batch.subwords,
            error.message()
        );
        Error::new(error.kind(), message)
    }

    /// Maximum of the run's device memory in bytes.
    fn limit(&self) -> Option<u64> {
        match self.inputs.config.device.memory_mib {
            Some(mib) => Some(mib.saturating_mul(MIB)),
            None if self.inputs.engine.adapter().has_host_memory() => available_memory(),
            None => None,
        }
    }

    /// Peak memory of a dry run with a configuration.
    async fn bytes(&self, config: &RunConfig) -> Result<u64> {
        let engine = dry_run(self.inputs.engine)?;
        let learner = Learner::open(Inputs { engine: &engine, config, ..self.inputs }).await?;
        let bytes = engine.memory().peak_bytes;
        drop(learner);
        Ok(bytes)
    }

    /// Whether a configuration fits.
    async fn fits(&self, config: &RunConfig, limit: Option<u64>) -> bool {
        self.bytes(config).await.is_ok_and(|bytes| limit.is_none_or(|limit| bytes <= limit))
    }

    /// Whether a batch of another size fits.
    async fn batch_fits(&self, rows: usize, subwords: usize, limit: Option<u64>) -> bool {
        let mut config = self.inputs.config.clone();
        config.batch.rows = rows;
        config.batch.subwords = subwords;
        self.fits(&config, limit).await
    }

    /// Describes a batch that fits: one with fewer rows, or one row with fewer subwords.
    async fn fitting(&self, limit: Option<u64>) -> Option<String> {
        let batch = &self.inputs.config.batch;
        // Invariant: `fits` rows fit or are 0, and `above` rows do not fit.
        let (mut fits, mut above) = (0, batch.rows);
        while above - fits > 1 {
            let rows = fits.midpoint(above);
            if self.batch_fits(rows, batch.subwords, limit).await { fits = rows } else { above = rows }
        }
        if fits > 0 {
            return Some(format!(
                "`batch.rows` = {fits} would fit; set `batch.accumulate` = {} for a step of about the same size",
                (batch.rows * batch.accumulate).div_ceil(fits)
            ));
        }
        // Other counts than multiples of 4 are refused for other reasons.
        let (mut fits, mut above) = (0, batch.subwords.div_ceil(4));
        while above - fits > 1 {
            let fours = fits.midpoint(above);
            if self.batch_fits(1, 4 * fours, limit).await { fits = fours } else { above = fours }
        }
        (fits > 0).then(|| format!("one row of `batch.subwords` = {} would fit", 4 * fits))
    }
}
