//! What products `y = x Wᵀ` consist of: rows of x, where sums go, and the range of columns.
//!
//! One order of sums serves every number of rows: an output has one vector of sums, which goes through the columns
//! from the first to the last, a multiply-add per `LANES` columns; then its lanes are added up.

use super::call::Call;
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::silu_mul;
use super::vector::Vector;
use super::weights::WeightRows;
use crate::cpu::Matrix;
use crate::sizes::QUANT_BLOCK;

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

impl Target<'_> {
    /// Adds further sums to the outputs of rows `n0` and following of W, which are not gated.
    #[inline(always)]
    pub(super) fn add(&self, row: usize, n0: usize, sums: &[f32]) {
        let at = self.offset + row * self.stride + n0;
        // SAFETY: as in `write`.
        let y = unsafe { self.y.slice(at..at + sums.len()) };
        y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
    }
}

/// A sum over some columns of W and x.
pub(super) struct Product<'a> {
    pub(super) call: &'a Call<'a>,
    /// `[n, k]`
    pub(super) w: WeightRows<Matrix<'a>>,
    /// Rows of W, an even number if gated.
    pub(super) n: usize,
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
    /// Approximate multiply-adds.
    pub(super) fn cost(&self) -> usize {
        self.n.saturating_mul(self.columns[1]).saturating_mul(self.live.len())
    }
}
