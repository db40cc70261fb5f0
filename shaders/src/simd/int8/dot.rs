//! Dot products of bytes, the arithmetic that products in integers are written in.

use super::super::vector::Vector;
use crate::sizes::QUANT_BLOCK;

/// Most rows of W in a [`Dot`].
pub(super) const MAX_LANES: usize = 16;
/// Words of four integers in a block.
pub(super) const BLOCK_WORDS: usize = QUANT_BLOCK / 4;

/// A vector of i32 sums, one for each of as many rows of W as [`Self::V`] has lanes.
///
/// Integers of weights in q4 are 8 too large here, 0 to 15, and those in q8 are [`Self::OFFSET`] too large; the sums
/// of activations make up for that. Activations are -127 to 127.
///
/// As for [`Vector`], only `InstructionSet` names the implementations, after it has checked the CPU.
pub(in crate::simd) trait Dot: Copy {
    /// f32 values with the same lanes.
    type V: Vector;
    /// Rows of x, at most 6, and vectors of rows of W, at most 3, in a tile.
    const TILE: [usize; 2];
    /// What is added to integers of q8 by [`Self::block`]: 128 if bytes of weights have no sign.
    const OFFSET: u8;
    /// Four integers of every row of W.
    type Weights: Copy;

    /// All lanes `v`.
    fn splat(v: i32) -> Self;
    /// The sums as f32.
    fn to_f32(self) -> Self::V;

    /// `4 LANES` bytes: four integers of each row.
    ///
    /// # Safety
    /// `from` is valid for reads of these bytes.
    unsafe fn load(from: *const u8) -> Self::Weights;
    /// Writes what [`Self::load`] reads.
    ///
    /// # Safety
    /// `to` is valid for writes of `4 LANES` bytes.
    unsafe fn store(weights: Self::Weights, to: *mut u8);
    /// The integers of a block of `LANES` rows, which begins `at` bytes behind each of the first `LANES` pointers, in
    /// the order of [`Block::values`](super::blocks::Block::values).
    ///
    /// # Safety
    /// The blocks are valid for reads.
    unsafe fn block<const Q4: bool>(rows: &[*const u8; MAX_LANES], at: usize) -> [Self::Weights; BLOCK_WORDS];
    /// Adds the product of four integers of every row with four activations.
    ///
    /// # Safety
    /// `x` is valid for reads of four bytes.
    unsafe fn add_products<const Q4: bool>(self, w: Self::Weights, x: *const i8) -> Self;
}

/// As `Task`, for work with integers.
pub(in crate::simd) trait DotTask {
    /// Does the work.
    fn run<D: Dot>(self);
}
