//! AdamW over arenas: decoupled weight decay, a learning rate for each group of parameters, and clipping by the global
//! norm of the gradients, which stays on the device (docs/model.md, "Training losses").

use std::sync::Arc;

use bolmo_runtime::unstable::{Device, Recorder, Slice};
use bolmo_runtime::{Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{Adamw, SumRows, SumSquares};
use bolmo_shaders::sizes::vec4_grid;

use crate::parameters::{Arena, Group, Trained};

/// Vectors of four values whose squares one workgroup adds up.
const PART4: usize = 16 * 1024;

/// Options of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamOptions {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay of everything but embeddings.
    pub decay: f64,
    /// Maximum of the global norm of the gradients; 0 disables clipping.
    pub clip: f64,
}

impl Default for AdamOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1, clip: 0.5 }
    }
}

impl AdamOptions {
    fn decay_of(&self, group: Group) -> f64 {
        if group == Group::Embeddings { 0.0 } else { self.decay }
    }

    /// Checks the ranges of all options.
    ///
    /// # Errors
    /// `InvalidArgument` that names the option.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::invalid(what));
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return refuse(format!("`{name}` must be at least 0 and less than 1, found {beta}"));
            }
        }
        for (name, value) in [("eps", self.eps), ("decay", self.decay), ("clip", self.clip)] {
            if !value.is_finite() || value < 0.0 {
                return refuse(format!("`{name}` must be finite and not negative, found {value}"));
            }
        }
        Ok(())
    }
}

/// Linear warm-up from 0, then linear decay to 0 at the last step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Total number of steps.
    pub steps: u64,
    /// Share of the steps that warm up.
    pub warmup: f64,
}

impl Schedule {
    /// Factor of the learning rate at a step; steps count from 1.
    pub fn factor(&self, step: u64) -> f64 {
        let warm = (self.warmup * self.steps as f64).round();
        let step = step as f64;
        if step < warm {
            return step / warm;
        }
        let left = self.steps as f64 - step;
        (left / (self.steps as f64 - warm).max(1.0)).clamp(0.0, 1.0)
    }
}

/// Buffers of the optimizer: the sum of squares of all gradients.
#[derive(Debug)]
pub(crate) struct Optimizer {
    squares: Slice,
    partial: Slice,
}

/// Operands of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OptimizerStep<'a> {
    pub(crate) options: &'a AdamOptions,
    /// Number of the step, from 1.
    pub(crate) step: u64,
    /// Factor applied to the gradients first.
    pub(crate) scale: f64,
}

impl Optimizer {
    pub(crate) async fn new(device: &Arc<Device>, arenas: &[Arena]) -> Result<Self> {
        let most = arenas.iter().map(|arena| parts(&arena.weights)).max().unwrap_or(1);
        Ok(Self {
            squares: device.allocate("sum of squares", 4).await?,
            partial: device.allocate("sums of squares", 4 * most as u64).await?,
        })
    }

    /// Records a step of all trained arenas, each at the learning rate of its group.
    ///
    /// Returns the slice that receives the sum of squares of the unscaled gradients. If that is not finite, the
    /// parameters stay unchanged.
    pub(crate) fn record(
        &self,
        recorder: &mut Recorder,
        arenas: &[Arena],
        rate: impl Fn(Group) -> f64,
        step: OptimizerStep<'_>,
    ) -> Result<&Slice> {
        let plain = WeightFormat::F32;
        recorder.clear(&self.squares);
        let trained = || arenas.iter().filter_map(|arena| arena.trained.as_ref().map(|trained| (arena, trained)));
        for (_, Trained { grads, .. }) in trained() {
            let count4 = grads.size() / 16;
            let parts = parts(grads);
            let params = SumSquares { count4: count4 as u32, per4: PART4 as u32 };
            recorder.dispatch(KernelId::SumSquares, plain, &params, &[grads, &self.partial], [parts, 1, 1])?;
            let rows = parts as u32;
            let params = SumRows { rows, columns: 1, x_offset: 0, x_stride: 1, per: rows, y_offset: 0, add: 1 };
            recorder.dispatch(KernelId::SumRows, plain, &params, &[&self.partial, &self.squares], [1, 1, 1])?;
        }
        let OptimizerStep { options, step, scale } = step;
        let bias = |beta: f64| (1.0 - beta.powi(i32::try_from(step).unwrap_or(i32::MAX))) as f32;
        for (arena, Trained { grads, moments: [m, v] }) in trained() {
            let count4 = arena.weights.size() / 16;
            let params = Adamw {
                count4: count4 as u32,
                lr: rate(arena.group) as f32,
                beta1: options.beta1 as f32,
                beta2: options.beta2 as f32,
                eps: options.eps as f32,
                decay: options.decay_of(arena.group) as f32,
                bias1: bias(options.beta1),
                bias2: bias(options.beta2),
                clip: options.clip as f32,
                scale: scale as f32,
            };
            let slices = [grads, &self.squares, &arena.weights, m, v];
            recorder.dispatch(KernelId::Adamw, plain, &params, &slices, vec4_grid(count4 as usize))?;
        }
        Ok(&self.squares)
    }
}

/// Factor of the gradients on their way back through f16 products, which keeps small ones from vanishing. The optimizer
/// divides by it.
///
/// In a mean over `rows` rows, the derivative by a row's logits is at most `1 / rows`. The factor raises that to about
/// 16, which leaves 12 powers of two above it and 28 below.
pub(crate) fn gradient_scale(half_products: bool, rows: usize) -> f32 {
    match half_products {
        // A power of two only changes exponents.
        true => (16.0 * rows.max(1) as f32).log2().floor().exp2(),
        false => 1.0,
    }
}

/// Number of parts in which the squares of an arena are added up.
fn parts(slice: &Slice) -> usize {
    (slice.size() as usize / 16).div_ceil(PART4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_rises_and_falls() {
        let schedule = Schedule { steps: 20, warmup: 0.1 };
        let factors: Vec<f64> = [1, 2, 11, 20].map(|step| schedule.factor(step)).to_vec();
        assert_eq!(factors, [0.5, 1.0, 0.5, 0.0]);
        let none = Schedule { steps: 4, warmup: 0.0 };
        assert_eq!(none.factor(1), 0.75);
        assert_eq!(none.factor(9), 0.0);
    }

    #[test]
    fn options_are_checked() {
        assert!(AdamOptions::default().check().is_ok());
        for bad in [
            AdamOptions { beta1: 1.0, ..AdamOptions::default() },
            AdamOptions { beta2: f64::NAN, ..AdamOptions::default() },
            AdamOptions { clip: -1.0, ..AdamOptions::default() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
