//! Quantizing activations.

use super::super::memory::Output;
use super::super::product::Product;
use super::super::scratch::with_shared;
use super::super::vector::Vector;
use super::dot::{BLOCK_WORDS, Dot, DotTask};
use crate::sizes::QUANT_BLOCK;

/// Blocks that a task quantizes.
const TASK_BLOCKS: usize = 64;
/// A block whose values are all smaller counts as zeros: its scale or the reciprocal could be out of range.
const SMALLEST: f32 = 1.0 / (1u128 << 100) as f32;

/// [`QUANT_BLOCK`] activations.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Block {
    /// NaN if one of the values is infinite or NaN.
    pub(super) scale: f32,
    /// What the sum of products begins with, because integers of weights are too large by a fixed number.
    pub(super) start: i32,
    /// -127 to 127. For q4, words of four with even numbers come first, then those with odd numbers.
    pub(super) values: [i8; QUANT_BLOCK],
}

/// f32 values that a block takes up.
const BLOCK_VALUES: usize = size_of::<Block>() / size_of::<f32>();

/// Calls `f` with the blocks of the live rows of x, row after row.
pub(super) fn with_blocks(product: &Product<'_>, q4: bool, f: impl FnOnce(&[Block])) {
    let Product { call, x, live, columns: [begin, count], .. } = *product;
    let blocks = count / QUANT_BLOCK;
    with_shared(live.len() * blocks * BLOCK_VALUES, |shared| {
        let shared: &mut [Block] = bytemuck::cast_slice_mut(shared);
        let parts = blocks.div_ceil(TASK_BLOCKS);
        let all = Output::from(&mut *shared);
        call.each(live.len() * parts, 4 * live.len() * count, |i| {
            let (row, first) = (i / parts, i % parts * TASK_BLOCKS);
            let end = (first + TASK_BLOCKS).min(blocks);
            // SAFETY: every task has blocks of its own.
            let to = unsafe { all.slice(row * blocks + first..row * blocks + end) };
            let x = x.row(live[row], begin + first * QUANT_BLOCK, (end - first) * QUANT_BLOCK);
            call.instructions.run_dot(Quantize { x, to, q4 });
        });
        f(shared);
    });
}

/// Quantizes consecutive blocks.
struct Quantize<'a> {
    x: &'a [f32],
    to: &'a mut [Block],
    q4: bool,
}

impl DotTask for Quantize<'_> {
    #[inline(always)]
    fn run<D: Dot>(self) {
        let offset = i32::from(if self.q4 { 8 } else { D::OFFSET });
        for (x, to) in self.x.chunks_exact(QUANT_BLOCK).zip(self.to) {
            quantize::<D::V>(x, to, self.q4);
            to.start = -offset * to.values.iter().map(|&v| i32::from(v)).sum::<i32>();
        }
    }
}

/// Computes the integers and the scale of a block.
#[inline(always)]
fn quantize<V: Vector>(x: &[f32], to: &mut Block, q4: bool) {
    assert_eq!(x.len(), QUANT_BLOCK);
    let zero = V::splat(0.0);
    let (mut largest, mut zeros) = (zero, zero);
    for i in (0..QUANT_BLOCK).step_by(V::LANES) {
        // SAFETY: a block is a number of whole vectors.
        let v = unsafe { V::load(x.as_ptr().add(i)) };
        largest = largest.max(v).max(zero.sub(v));
        // Infinity and NaN times zero are NaN.
        zeros = v.mul_add(zero, zeros);
    }
    let mut lanes = [0.0_f32; 16];
    // SAFETY: there is room for `LANES` values.
    unsafe { largest.store(lanes.as_mut_ptr()) };
    let most = lanes[..V::LANES].iter().fold(0.0_f32, |most, &v| if v > most { v } else { most });
    if zeros.sum().is_nan() || most < SMALLEST {
        (to.scale, to.values) = (zeros.sum(), [0; QUANT_BLOCK]);
        return;
    }
    to.scale = most / 127.0;
    let factor = V::splat(127.0 / most);
    let mut rounded = [0.0_f32; QUANT_BLOCK];
    for i in (0..QUANT_BLOCK).step_by(V::LANES) {
        // SAFETY: as above.
        unsafe { V::load(x.as_ptr().add(i)).mul(factor).round().store(rounded.as_mut_ptr().add(i)) };
    }
    let values = rounded.map(|v| v as i32 as i8);
    if q4 {
        for (i, word) in to.values.chunks_exact_mut(4).enumerate() {
            let from = i % (BLOCK_WORDS / 2) * 2 + i / (BLOCK_WORDS / 2);
            word.copy_from_slice(&values[4 * from..][..4]);
        }
    } else {
        to.values = values;
    }
}
