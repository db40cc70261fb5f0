//! Products of many rows in integers: rows of W are packed so that lanes are rows.
//!
//! `LANES` rows of W, a panel, are `[block][word][row][4]` bytes and `[block][row]` scales. Rows past the end of W are
//! the last one again; their sums are dropped.

use super::super::product::{Product, share};
use super::super::scratch::with_scratch;
use super::super::vector::Vector;
use super::super::weights::WeightRows;
use super::blocks::Block;
use super::dot::{BLOCK_WORDS, Dot, DotTask, MAX_LANES};
use super::rows::{Next, RowParts, scales};
use super::{Quantized, block_bytes};
use crate::sizes::QUANT_BLOCK;

/// Bytes of W that a task packs: less than half of a second-level cache.
const TASK_BYTES: usize = 1 << 17;
/// Rows of W of a task at most.
const TASK_ROWS: usize = 96;
/// Tasks that are enough for any number of threads.
const TASKS: usize = 32;
/// Blocks of a row that are computed at a time. Those of a tile's rows of x, 15 KB, stay in the first-level cache.
const CHUNK: usize = 64;
/// Most rows of x in a tile.
const MAX_X: usize = 6;

/// A product.
pub(super) struct Packed<'a, W> {
    pub(super) product: &'a Product<'a>,
    pub(super) w: WeightRows<W>,
    /// The blocks of each live row.
    pub(super) x: &'a [Block],
}

impl<W: Quantized> DotTask for Packed<'_, W> {
    #[inline(always)]
    fn run<D: Dot>(self) {
        let Product { call, n, columns: [_, count], .. } = *self.product;
        let unit = D::TILE[1] * D::V::LANES;
        let most = (TASK_BYTES / count.max(1)).min(n / TASKS).min(TASK_ROWS);
        let rows = (most / unit * unit).max(unit);
        let blocks = (count / QUANT_BLOCK).next_multiple_of(D::V::LANES);
        let size = rows * (blocks * (BLOCK_WORDS + 1) + MAX_X);
        call.each(n.div_ceil(rows), self.product.cost(), |i| {
            with_scratch(size, |scratch| {
                let range = [i * rows, ((i + 1) * rows).min(n)];
                call.instructions.run_dot(Rows { packed: &self, range, size: rows, padded: blocks, scratch });
            });
        });
    }
}

/// Some rows of W with all rows of x.
struct Rows<'a, W> {
    packed: &'a Packed<'a, W>,
    /// First row of W, and one past the last row.
    range: [usize; 2],
    /// Rows that there is room for, a multiple of `LANES`.
    size: usize,
    /// Blocks of a row that there is room for, a multiple of `LANES`.
    padded: usize,
    scratch: &'a mut [f32],
}

impl<W: Quantized> DotTask for Rows<'_, W> {
    #[inline(always)]
    fn run<D: Dot>(self) {
        if W::Q4 {
            self.compute::<D, true>();
        } else {
            self.compute::<D, false>();
        }
    }
}

impl<W: Quantized> Rows<'_, W> {
    #[inline(always)]
    fn compute<D: Dot, const Q4: bool>(self) {
        let Self { packed: &Packed { product, w, x }, range: [first, end], size, padded, scratch } = self;
        let Product { columns: [begin, count], live, target, .. } = *product;
        let (blocks, lanes) = (count / QUANT_BLOCK, D::V::LANES);
        let (bytes, rest) = scratch.split_at_mut(size * padded * BLOCK_WORDS);
        let (scale, sums) = rest.split_at_mut(size * padded);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(bytes);
        let panels = (end - first).div_ceil(lanes);
        let panel_bytes = lanes * padded * QUANT_BLOCK;
        for panel in 0..panels {
            let n0 = first + panel * lanes;
            let row = |i: usize| W::parts(w.row((n0 + i).min(end - 1), begin, count));
            let rows: [RowParts; MAX_LANES] = std::array::from_fn(|i| row(i % lanes));
            let bytes = &mut bytes[panel * panel_bytes..][..panel_bytes];
            let scale = &mut scale[panel * lanes * padded..][..lanes * padded];
            let next = Next::new::<D::V, W>(&w, &rows);
            // SAFETY: the rows have `blocks` blocks, and there is room for `padded` ones.
            unsafe { pack::<D, Q4>(&rows, blocks, next, bytes, scale) };
        }
        let tiles = live.len().div_ceil(D::TILE[0]);
        for tile in 0..tiles {
            let [x0, x1] = [tile, tile + 1].map(|i| share(live.len(), tiles, i));
            let x = &x[x0 * blocks..x1 * blocks];
            sums[..size * (x1 - x0)].fill(0.0);
            for chunk in (0..blocks).step_by(CHUNK) {
                for panel in (0..panels).step_by(D::TILE[1]) {
                    let tile = Tile {
                        blocks: [chunk, blocks.min(chunk + CHUNK)],
                        x: x.as_ptr(),
                        x_stride: blocks,
                        w: bytes[panel * panel_bytes..].as_ptr(),
                        scales: scale[panel * lanes * padded..].as_ptr(),
                        padded,
                        sums: sums[panel * lanes..].as_mut_ptr(),
                        stride: size,
                    };
                    // SAFETY: there are that many rows of x and panels with that many blocks, and room for the sums
                    // of `size` rows for each row of x.
                    unsafe { tile.run::<D, Q4>(x1 - x0, D::TILE[1].min(panels - panel)) };
                }
            }
            for (row, sums) in live[x0..x1].iter().zip(sums.chunks_exact(size)) {
                target.write::<D::V>(*row, first, &sums[..end - first]);
            }
        }
    }
}

/// Packs a panel.
///
/// # Safety
/// The first `LANES` rows have `blocks` blocks.
#[inline(always)]
unsafe fn pack<D: Dot, const Q4: bool>(
    rows: &[RowParts; MAX_LANES],
    blocks: usize,
    next: Next,
    bytes: &mut [u8],
    scale: &mut [f32],
) {
    let lanes = D::V::LANES;
    let padded = blocks.next_multiple_of(lanes);
    assert!(bytes.len() >= lanes * padded * QUANT_BLOCK && scale.len() >= lanes * padded);
    let integers = rows.map(|row| row.integers);
    for block in 0..blocks {
        let at = block * block_bytes(Q4);
        next.prefetch::<D::V>(block, Q4);
        // SAFETY: the rows have this block, and there is room for it.
        unsafe {
            let words = D::block::<Q4>(&integers, at);
            for (word, weights) in words.into_iter().enumerate() {
                D::store(weights, bytes.as_mut_ptr().add((block * BLOCK_WORDS + word) * 4 * lanes));
            }
        }
    }
    for block in (0..blocks).step_by(lanes) {
        // SAFETY: the rows have the blocks, and there is room for `padded` ones.
        unsafe { scales::<D::V>(rows, block, lanes.min(blocks - block), scale.as_mut_ptr().add(block * lanes)) };
    }
}

/// A tile of outputs.
struct Tile {
    /// First of the blocks to add, and one past the last.
    blocks: [usize; 2],
    x: *const Block,
    /// Blocks from one row of x to the next.
    x_stride: usize,
    /// Panel after panel.
    w: *const u8,
    scales: *const f32,
    /// Blocks of a row that panels have room for.
    padded: usize,
    /// `[row of x][panel][LANES]`
    sums: *mut f32,
    /// From one row of x to the next in `sums`.
    stride: usize,
}

impl Tile {
    /// # Safety
    /// The pointers are valid for `rows` rows of x and `panels` panels of W, neither 0 nor more than `D::TILE`.
    #[inline(always)]
    unsafe fn run<D: Dot, const Q4: bool>(self, rows: usize, panels: usize) {
        macro_rules! tiles {
            ($($x:literal: $($n:literal)*;)*) => {
                match (rows, panels) {
                    // SAFETY: the caller's.
                    $($(($x, $n) if $x <= D::TILE[0] && $n <= D::TILE[1] => unsafe { self.tile::<D, Q4, $x, $n>() },)*)*
                    _ => unreachable!("a tile of {rows} rows and {panels} panels"),
                }
            };
        }
        tiles!(1: 1 2 3; 2: 1 2 3; 3: 1 2 3; 4: 1 2 3; 5: 1 2 3; 6: 1 2 3;);
    }

    /// # Safety
    /// As for `run`.
    #[inline(always)]
    unsafe fn tile<D: Dot, const Q4: bool, const X: usize, const N: usize>(self) {
        let Self { blocks: [first, end], x, x_stride, w, scales, padded, sums: to, stride } = self;
        let lanes = D::V::LANES;
        let mut sums = [[D::V::splat(0.0); N]; X];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's.
                *sum = unsafe { D::V::load(to.add(i * stride + n * lanes)) };
            }
        }
        for block in first..end {
            // SAFETY: the caller's for this block of all rows.
            unsafe {
                let mut dots = [[D::splat(0); N]; X];
                for (i, dots) in dots.iter_mut().enumerate() {
                    *dots = [D::splat((*x.add(i * x_stride + block)).start); N];
                }
                for word in 0..BLOCK_WORDS {
                    let at = (block * BLOCK_WORDS + word) * 4 * lanes;
                    let mut weights = [D::load(w.add(at)); N];
                    for (n, weights) in weights.iter_mut().enumerate().skip(1) {
                        *weights = D::load(w.add(n * lanes * padded * QUANT_BLOCK + at));
                    }
                    for (i, dots) in dots.iter_mut().enumerate() {
                        let values = (&raw const (*x.add(i * x_stride + block)).values).cast::<i8>().add(4 * word);
                        for (dot, weights) in dots.iter_mut().zip(weights) {
                            *dot = dot.add_products::<Q4>(weights, values);
                        }
                    }
                }
                for n in 0..N {
                    let scale = D::V::load(scales.add((n * padded + block) * lanes));
                    for (i, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                        let both = scale.mul(D::V::splat((*x.add(i * x_stride + block)).scale));
                        sums[n] = dots[n].to_f32().mul_add(both, sums[n]);
                    }
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                // SAFETY: the caller's.
                unsafe { sum.store(to.add(i * stride + n * lanes)) };
            }
        }
    }
}
