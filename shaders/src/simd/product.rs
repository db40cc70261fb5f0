//! `y = x Wᵀ`, the common part of `matvec` and `matmul`.
//!
//! One order of sums serves every number of rows: an output has one vector of sums, which goes through the columns
//! from the first to the last, a multiply-add per `LANES` columns; then its lanes are added up.

use std::marker::PhantomData;

use super::call::Call;
use super::direct::{self, Direct};
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::packed::{Packed, pack_tile};
use super::scratch::with_shared;
use super::silu_mul;
use super::vector::Vector;
use super::weights::{F16, F32, Q4, Q8, Weights};
use crate::cpu::Matrix;
use crate::sizes::QUANT_BLOCK;

/// Weights of a task of [`Direct`], about.
const TASK_WEIGHTS: usize = 1 << 16;

/// A field of a parameter block as a size.
pub(super) fn size(field: u32) -> usize {
    usize::try_from(field).unwrap_or(usize::MAX)
}

/// As [`size`], of a field that counts vectors of four values.
pub(super) fn size4(field: u32) -> usize {
    size(field).saturating_mul(4)
}

/// Values up to the end of the last of `rows` rows, 0 if there are no rows.
pub(super) fn extent(offset: usize, stride: usize, rows: usize, width: usize) -> usize {
    match rows.checked_sub(1) {
        Some(last) => last.saturating_mul(stride).saturating_add(offset).saturating_add(width),
        None => 0,
    }
}

/// Where share `i` of `parts` nearly equal ones begins.
#[inline(always)]
pub(super) fn share(count: usize, parts: usize, i: usize) -> usize {
    count / parts * i + (count % parts).min(i)
}

/// Rows of activations.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) offset: usize,
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    /// `count` values of a row, from column `begin` on.
    #[inline(always)]
    pub(super) fn row(&self, row: usize, begin: usize, count: usize) -> &'a [f32] {
        &self.values[self.offset + row * self.stride + begin..][..count]
    }
}

/// Where sums go, and what is done with them on the way.
pub(super) struct Target<'a> {
    y: Output<'a>,
    offset: usize,
    stride: usize,
    bias: Option<&'a [f32]>,
    add: bool,
    gated: bool,
}

/// The shape of y and the operations on sums.
pub(super) struct Outputs {
    pub(super) binding: usize,
    pub(super) rows: usize,
    pub(super) n: usize,
    pub(super) offset: usize,
    pub(super) stride: usize,
    pub(super) add: bool,
    pub(super) bias: bool,
    pub(super) gated: bool,
}

impl<'a> Target<'a> {
    /// Checks the bindings of y and of the bias.
    pub(super) fn new(call: &Call<'a>, outputs: &Outputs) -> Result<Self, Fault> {
        let &Outputs { binding, rows, n, offset, stride, add, bias, gated } = outputs;
        let width = if gated { n / 2 } else { n };
        if rows > 1 && stride < width {
            return Err(Fault::new(format!("rows of {width} outputs overlap: their stride is {stride}")));
        }
        let y = call.write(binding, extent(offset, stride, rows, width))?;
        // Without a bias, something else is bound there.
        let bias = if bias && !gated { Some(call.read(2, n)?) } else { None };
        Ok(Self { y, offset, stride, bias, add: add && !gated, gated })
    }

    /// Writes the outputs of the sums of rows `n0` and following of W. If they are gated, `n0` and their number are
    /// even. Tasks and threads must not write the same outputs at the same time.
    #[inline(always)]
    pub(super) fn write<V: Vector>(&self, row: usize, n0: usize, sums: &[f32]) {
        let (first, count) = if self.gated { (n0 / 2, sums.len() / 2) } else { (n0, sums.len()) };
        let at = self.offset + row * self.stride + first;
        // SAFETY: rows don't overlap, and no two tasks have the same outputs.
        let y = unsafe { self.y.slice(at..at + count) };
        if self.gated {
            return silu_mul::Row { gate_up: sums, h: y }.run::<V>();
        }
        match (self.bias.map(|bias| &bias[n0..n0 + count]), self.add) {
            (None, false) => y.copy_from_slice(sums),
            (None, true) => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
            (Some(bias), false) => y.iter_mut().zip(sums).zip(bias).for_each(|((y, sum), bias)| *y = sum + bias),
            (Some(bias), true) => y.iter_mut().zip(sums).zip(bias).for_each(|((y, sum), bias)| *y += sum + bias),
        }
    }
}

/// A sum over some columns of W and x.
pub(super) struct Product<'a> {
    pub(super) call: &'a Call<'a>,
    /// `[n, k]`
    pub(super) w: Matrix<'a>,
    /// Rows of W, an even number if gated.
    pub(super) n: usize,
    pub(super) k: usize,
    /// First of the columns, and their number. Both are multiples of [`QUANT_BLOCK`] if the format has scales.
    pub(super) columns: [usize; 2],
    pub(super) x: Rows<'a>,
    /// The rows of x and y to compute.
    pub(super) live: &'a [usize],
    pub(super) target: &'a Target<'a>,
}

/// Checks that sums over `columns` columns are possible in the format of the matrix.
pub(super) fn check_columns(call: &Call<'_>, columns: usize) -> Result<(), Fault> {
    if call.format.has_scales() && !columns.is_multiple_of(QUANT_BLOCK) {
        return Err(Fault::new(format!("sums over {columns} columns cut a block of {QUANT_BLOCK} weights")));
    }
    Ok(())
}

impl Product<'_> {
    /// Computes the product.
    pub(super) fn compute(self) {
        if self.live.is_empty() || self.n == 0 {
            return;
        }
        self.call.instructions.run(self);
    }

    /// Approximate multiply-adds.
    pub(super) fn cost(&self) -> usize {
        self.n.saturating_mul(self.columns[1]).saturating_mul(self.live.len())
    }

    #[inline(always)]
    fn with_weights<V: Vector, W: Weights>(&self, w: W) {
        if self.live.len() > W::DIRECT_ROWS {
            return Packed::new::<V>(self, w).compute::<V>();
        }
        let [begin, count] = self.columns;
        let mut x = [&[] as &[f32]; direct::MAX_ROWS];
        for (x, row) in x.iter_mut().zip(self.live) {
            *x = self.x.row(*row, begin, count);
        }
        if !W::REORDERED {
            return self.direct(w, x);
        }
        // All tasks read x in another order, so it is restored once.
        with_shared(self.live.len() * count, |shared| {
            let mut reordered = [&[] as &[f32]; direct::MAX_ROWS];
            for ((to, values), x) in reordered.iter_mut().zip(shared.chunks_exact_mut(count.max(1))).zip(x) {
                self.call.instructions.run(Reorder::<W> { x, to: &mut *values, weights: PhantomData });
                *to = values;
            }
            self.direct(w, reordered);
        });
    }

    fn direct<W: Weights>(&self, w: W, x: [&[f32]; direct::MAX_ROWS]) {
        let [begin, count] = self.columns;
        // A multiple of four rows, so that only the last task has other tiles and pairs stay together.
        let rows = (TASK_WEIGHTS / count.max(1)).next_multiple_of(4).max(4);
        self.call.each(self.n.div_ceil(rows), self.cost(), |i| {
            let rows = [i * rows, ((i + 1) * rows).min(self.n)];
            let (live, target) = (self.live, self.target);
            self.call.instructions.run(Direct { w, k: self.k, begin, rows, x, live, target });
        });
    }
}

/// Copies a row of x in the order of weights that consist of whole blocks.
struct Reorder<'a, W> {
    x: &'a [f32],
    /// As long as `x`.
    to: &'a mut [f32],
    weights: PhantomData<W>,
}

impl<W: Weights> Task for Reorder<'_, W> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let count = self.x.len();
        // SAFETY: there is one row, and it has `count` values.
        unsafe { pack_tile::<V, _>(|_| W::X::from(self.x.as_ptr()), 1, [0, count], 0, self.to) };
    }
}

impl Task for Product<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        match self.w {
            Matrix::F32(w) => self.with_weights::<V, _>(F32(w)),
            Matrix::F16(w) => self.with_weights::<V, _>(F16(w)),
            Matrix::Q8(w, scales) => self.with_weights::<V, _>(Q8(w, scales)),
            Matrix::Q4(w, scales) => self.with_weights::<V, _>(Q4(w, scales)),
        }
    }
}
