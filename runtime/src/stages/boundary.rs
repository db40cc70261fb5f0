//! Boundary predictor: which bytes of a prompt end a patch, by a cosine between each byte and the next one
//! (`docs/model.md`, "Boundary predictor").

use bolmo_shaders::params::Boundary;
use bolmo_shaders::{KernelId, WeightFormat};

use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::ops::{Context, Product, Rows};

/// Cosines between neighboring rows of `h`: `bytes` of them from row `first` on, which read `bytes + 1` rows.
pub fn boundary(cx: &mut Context<'_>, weights: &Weights, first: usize, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let projections = Rows::new(&ws.projections, 2 * d, 0);
    cx.linear(Product::new(&weights.boundary, Rows::new(&ws.h, d, first), projections, bytes + 1))?;
    let params = Boundary { rows: bytes as u32, dim4: (d / 4) as u32 };
    let slices = [&ws.projections, &ws.cosine];
    cx.recorder.dispatch(KernelId::Boundary, WeightFormat::F32, &params, &slices, [bytes, 1, 1])
}

/// Log-probability that a patch ends, from the cosine.
pub fn log_probability(cosine: f32) -> f32 {
    ((-f64::from(cosine.min(0.999))).ln_1p() - std::f64::consts::LN_2) as f32
}

/// Whether a patch ends: its probability is above one half, that is, the cosine is negative.
pub fn ends_patch(cosine: f32) -> bool {
    cosine < 0.0
}
