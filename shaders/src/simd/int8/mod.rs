//! Products in integers, of matrices with scales.
//!
//! Activations are quantized too: 32 of them, a block, share an f32 scale. The integers of a block of weights and of
//! a block of activations are multiplied and added up exactly, in i32. An output goes through the blocks from the
//! first to the last: `y = fma(dot, weight scale * activation scale, y)`, beginning with 0. Every form computes just
//! that, so a row of a product has the same bits in all of them, and in all instruction sets that round once in a
//! multiply-add.

mod blocks;
mod direct;
mod dot;
#[cfg(target_arch = "x86_64")]
mod maddubs;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packed;
mod portable;
mod rows;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub(super) use dot::DotTask;
#[cfg(target_arch = "x86_64")]
pub(super) use maddubs::Maddubs;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::{NeonDot, NeonWide};
pub(super) use portable::PortableDot;
#[cfg(target_arch = "x86_64")]
pub(super) use vnni::Vnni512;

use blocks::with_blocks;
use direct::Direct;
use packed::Packed;
use rows::RowParts;

use super::product::{Product, share};
use super::weights::{Q4, Q4Row, Q8, Q8Row, WeightRows, Weights};
use crate::cpu::Matrix;
use crate::sizes::QUANT_BLOCK;

/// Rows of x up to which weights are not packed.
const FEW_ROWS: usize = 4;
/// Bytes of quantized activations at a time, about.
const PANEL_BYTES: usize = 1 << 22;

/// A format of weights with scales.
trait Quantized: Weights {
    /// Whether the format is q4.
    const Q4: bool;

    /// The integers of a row and its scales.
    fn parts(row: Self::Row) -> RowParts;
}

/// Bytes of a block of weights.
const fn block_bytes(q4: bool) -> usize {
    if q4 { QUANT_BLOCK / 2 } else { QUANT_BLOCK }
}

impl Quantized for Q8<'_> {
    const Q4: bool = false;

    #[inline(always)]
    fn parts(Q8Row(integers, scales): Q8Row) -> RowParts {
        RowParts { integers, scales }
    }
}

impl Quantized for Q4<'_> {
    const Q4: bool = true;

    #[inline(always)]
    fn parts(Q4Row(integers, scales): Q4Row) -> RowParts {
        RowParts { integers, scales }
    }
}

impl Product<'_> {
    /// Computes the product in integers. There are rows of x and of W, and columns are whole blocks.
    pub(super) fn compute_int8(&self) {
        let WeightRows { k, tensors, alternate } = self.w;
        match tensors {
            [Matrix::Q8(a, scales), Matrix::Q8(b, other)] => {
                self.quantized(WeightRows { k, tensors: [Q8(a, scales), Q8(b, other)], alternate });
            }
            [Matrix::Q4(a, scales), Matrix::Q4(b, other)] => {
                self.quantized(WeightRows { k, tensors: [Q4(a, scales), Q4(b, other)], alternate });
            }
            _ => unreachable!("the format has scales"),
        }
    }

    fn quantized<W: Quantized>(&self, w: WeightRows<W>) {
        let count = self.columns[1];
        let panels = self.live.len().div_ceil((PANEL_BYTES / count.max(1)).max(64));
        for i in 0..panels {
            let live = &self.live[share(self.live.len(), panels, i)..share(self.live.len(), panels, i + 1)];
            let part = Product { live, ..*self };
            with_blocks(&part, W::Q4, |x| {
                if live.len() > FEW_ROWS {
                    self.call.instructions.run_dot(Packed { product: &part, w, x });
                } else {
                    Direct { product: &part, w, x, rows: [0, self.n] }.compute();
                }
            });
        }
    }
}
