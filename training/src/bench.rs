//! Measurements of training steps and their kernels, for `bolmo bench --train`.

use std::time::Instant;

use bolmo_runtime::unstable::KernelTime;
use bolmo_runtime::{Config, Engine, Result};
use bolmo_shaders::KernelId;

use crate::layers::Shape;
use crate::loss::{IGNORED, LossOptions, Targets};
use crate::parameters::TensorSource;
use crate::parameters::optimizer::{AdamOptions, Schedule};
use crate::step::Examples;
use crate::trainer::{Trainer, TrainerOptions};

/// Steps of stage 2 on a synthetic batch. The learning rate is 0: a step does all its work without changing the model.
pub struct StepBench {
    trainer: Trainer,
    batch: SyntheticBatch,
}

impl StepBench {
    /// Loads a model from `weights` for batches of `shape`. With `half_products`, products read f16 factors.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub async fn new(
        engine: &Engine,
        config: &Config,
        weights: &dyn TensorSource,
        shape: Shape,
        half_products: bool,
    ) -> Result<Self> {
        let options = TrainerOptions {
            shape,
            losses: LossOptions::stage2(),
            adam: AdamOptions::default(),
            schedule: Schedule { steps: 1, warmup: 0.0 },
            half_products,
            recompute: false,
            local_rate: 0.0,
            encoder_rate: 0.0,
            global_rate: 0.0,
        };
        let trainer = Trainer::new(engine, config, options, weights, None).await?;
        Ok(Self { trainer, batch: SyntheticBatch::new(config, shape) })
    }

    /// The smallest shape for `rows` examples of at least `bytes` bytes with patches of `bytes_per_patch` bytes.
    pub fn shape(rows: usize, bytes: usize, bytes_per_patch: f64) -> Shape {
        let bytes = bytes.next_multiple_of(64);
        let patches = ((bytes as f64 / bytes_per_patch).ceil() as usize).next_multiple_of(64).min(bytes);
        Shape { rows, bytes, patches }
    }

    /// Makes a step and returns its duration in seconds.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub async fn step(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.trainer.step(&[self.batch.examples()]).await?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Makes a step that measures each dispatch, and returns the time of each kernel, longest first.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub async fn kernels(&mut self) -> Result<Vec<(KernelId, KernelTime)>> {
        self.trainer.recorder().measure_dispatches(true);
        let result = self.trainer.step(&[self.batch.examples()]).await;
        let times = self.trainer.recorder().measure_dispatches(false);
        result.map(|_| times)
    }
}

/// A batch of arbitrary ids.
struct SyntheticBatch {
    shape: Shape,
    ids: Vec<u32>,
    suffixes: Vec<u32>,
    subwords: Vec<u32>,
    labels: Vec<i32>,
    truth: Vec<bool>,
    patch_lens: Vec<u32>,
    patch_of: Vec<u32>,
}

impl SyntheticBatch {
    fn new(config: &Config, shape: Shape) -> Self {
        let (count, patches) = (shape.all_bytes(), shape.all_patches());
        // Multipliers that are coprime to the moduli reach all ids.
        let offset = u32::from(config.byte_offset);
        let ids: Vec<u32> = (0..count as u32).map(|i| offset + i * 7 % 256).collect();
        let suffixes = (0..count as u32).map(|i| i * 21 % config.subword_vocab_size.max(1) as u32).collect();
        let label = |i: usize| if (i + 1).is_multiple_of(shape.bytes) { IGNORED } else { ids[i + 1] as i32 };
        Self {
            shape,
            suffixes,
            subwords: vec![0; patches],
            labels: (0..count).map(label).collect(),
            truth: (0..count).map(|i| i % 4 == 0).collect(),
            patch_lens: vec![4; patches],
            patch_of: vec![0; count],
            ids,
        }
    }

    fn examples(&self) -> Examples<'_> {
        Examples {
            ids: &self.ids,
            suffixes: &self.suffixes,
            subwords: &self.subwords,
            targets: Targets {
                shape: self.shape,
                labels: &self.labels,
                truth: &self.truth,
                patch_lens: &self.patch_lens,
                patch_of: &self.patch_of,
            },
        }
    }
}
