//! Rows of values as products read them: in vectors, in one order for each weight format.

use half::f16;

use super::vector::Vector;
use crate::sizes::QUANT_BLOCK;

/// Most rows of x that are multiplied without packing them.
pub(super) const MAX_DIRECT_ROWS: usize = 8;

/// A row of values that is read in pairs of vectors, in the order in which products add up.
pub(super) trait Source: Copy {
    /// What the values of a block of [`QUANT_BLOCK`] have in common.
    type Scale<V: Vector>: Copy;

    /// The scale of the block that begins with value `at`, a multiple of [`QUANT_BLOCK`].
    ///
    /// # Safety
    /// The row has the values of that block.
    unsafe fn scale<V: Vector>(self, at: usize) -> Self::Scale<V>;
    /// `2 LANES` values from value `at` on, a multiple of `2 LANES`, with the scale of their block.
    ///
    /// # Safety
    /// The row has these values.
    unsafe fn pair<V: Vector>(self, at: usize, scale: Self::Scale<V>) -> [V; 2];
    /// `count` values, at most `LANES`, from value `at` on, then zeros. Rows with scales consist of whole blocks, so
    /// they have no use for it.
    ///
    /// # Safety
    /// The row has these values.
    unsafe fn first<V: Vector>(self, at: usize, count: usize) -> V;
    /// Begins to load the block from value `at` on, which the row need not have.
    fn prefetch<V: Vector>(self, at: usize);
}

/// Prefetches the lines of the `bytes` bytes from `at` on.
#[inline(always)]
fn prefetch<V: Vector>(at: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(64) {
        V::prefetch(at.wrapping_add(64 * line));
    }
}

/// A matrix of weights in one format.
pub(super) trait Weights: Copy + Send + Sync {
    /// A row of weights.
    type Row: Source;
    /// A row of activations, in the order of the weights.
    type X: Source + From<*const f32>;
    /// Whether that order is not the natural one.
    const REORDERED: bool = false;
    /// Rows of x up to which converting weights for every four rows costs less than packing them.
    const DIRECT_ROWS: usize = MAX_DIRECT_ROWS;

    /// `count` weights from weight `at` of the matrix on, both multiples of [`QUANT_BLOCK`] if the format has scales.
    /// Weights outside of the matrix panic.
    fn row(self, at: usize, count: usize) -> Self::Row;
}

/// The rows of a matrix `[n, k]`: those of one tensor, or in turns those of two.
#[derive(Clone, Copy)]
pub(super) struct WeightRows<W> {
    pub(super) k: usize,
    /// If the rows alternate, the tensor of even rows and that of odd rows; else the same tensor twice.
    pub(super) tensors: [W; 2],
    pub(super) alternate: bool,
}

impl<W: Weights> WeightRows<W> {
    /// `count` weights of a row from column `begin` on, both multiples of [`QUANT_BLOCK`] if the format has scales.
    /// Rows outside of the matrix panic.
    #[inline(always)]
    pub(super) fn row(&self, row: usize, begin: usize, count: usize) -> W::Row {
        let (tensor, start) = self.place(row);
        tensor.row(start + begin, count)
    }

    /// The tensor that has a row, and the row's first weight there.
    #[inline(always)]
    pub(super) fn place(&self, row: usize) -> (W, usize) {
        let (tensor, row) = if self.alternate { (row % 2, row / 2) } else { (0, row) };
        (self.tensors[tensor], row * self.k)
    }

    /// The distance in weights from a row to the one that comes `rows` rows later, an even number.
    #[inline(always)]
    pub(super) fn distance(&self, rows: usize) -> usize {
        rows * self.k / if self.alternate { 2 } else { 1 }
    }
}

/// Values of f32 in their natural order.
#[derive(Clone, Copy)]
pub(super) struct Natural(*const f32);

impl From<*const f32> for Natural {
    fn from(start: *const f32) -> Self {
        Self(start)
    }
}

impl Source for Natural {
    type Scale<V: Vector> = ();

    #[inline(always)]
    unsafe fn scale<V: Vector>(self, _at: usize) {}

    #[inline(always)]
    unsafe fn pair<V: Vector>(self, at: usize, (): ()) -> [V; 2] {
        // SAFETY: the caller's.
        unsafe { [V::load(self.0.add(at)), V::load(self.0.add(at + V::LANES))] }
    }

    #[inline(always)]
    unsafe fn first<V: Vector>(self, at: usize, count: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_first(self.0.add(at), count) }
    }

    // Rows of f32 are long enough for the CPU's own prefetching.
    #[inline(always)]
    fn prefetch<V: Vector>(self, _at: usize) {}
}

/// Values of f32 in the order of q4.
#[derive(Clone, Copy)]
pub(super) struct ForQ4(*const f32);

impl From<*const f32> for ForQ4 {
    fn from(start: *const f32) -> Self {
        Self(start)
    }
}

impl Source for ForQ4 {
    type Scale<V: Vector> = ();

    #[inline(always)]
    unsafe fn scale<V: Vector>(self, _at: usize) {}

    #[inline(always)]
    unsafe fn pair<V: Vector>(self, at: usize, (): ()) -> [V; 2] {
        // SAFETY: the caller's.
        unsafe { V::load_for_q4(self.0.add(at)) }
    }

    #[inline(always)]
    unsafe fn first<V: Vector>(self, _at: usize, _count: usize) -> V {
        unreachable!("rows of q4 are whole blocks")
    }

    #[inline(always)]
    fn prefetch<V: Vector>(self, _at: usize) {}
}

/// Weights of f32.
#[derive(Clone, Copy)]
pub(super) struct F32<'a>(pub(super) &'a [f32]);

impl Weights for F32<'_> {
    type Row = Natural;
    type X = Natural;

    #[inline(always)]
    fn row(self, at: usize, count: usize) -> Natural {
        Natural(self.0[at..][..count].as_ptr())
    }
}

/// Weights of f16.
#[derive(Clone, Copy)]
pub(super) struct F16<'a>(pub(super) &'a [f16]);

/// A row of f16.
#[derive(Clone, Copy)]
pub(super) struct F16Row(*const f16);

impl Weights for F16<'_> {
    type Row = F16Row;
    type X = Natural;

    #[inline(always)]
    fn row(self, at: usize, count: usize) -> F16Row {
        F16Row(self.0[at..][..count].as_ptr())
    }
}

impl Source for F16Row {
    type Scale<V: Vector> = ();

    #[inline(always)]
    unsafe fn scale<V: Vector>(self, _at: usize) {}

    #[inline(always)]
    unsafe fn pair<V: Vector>(self, at: usize, (): ()) -> [V; 2] {
        // SAFETY: the caller's.
        unsafe { [V::load_f16(self.0.add(at)), V::load_f16(self.0.add(at + V::LANES))] }
    }

    #[inline(always)]
    unsafe fn first<V: Vector>(self, at: usize, count: usize) -> V {
        debug_assert!(count <= V::LANES);
        let mut values = [f16::ZERO; 16];
        // SAFETY: the caller's for the row; `values` has room for `count` values, and for the `LANES` that are loaded.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0.add(at), values.as_mut_ptr(), count);
            V::load_f16(values.as_ptr())
        }
    }

    #[inline(always)]
    fn prefetch<V: Vector>(self, at: usize) {
        prefetch::<V>(self.0.wrapping_add(at).cast(), 2 * QUANT_BLOCK);
    }
}

/// Weights of q8, and their scales.
#[derive(Clone, Copy)]
pub(super) struct Q8<'a>(pub(super) &'a [u8], pub(super) &'a [f16]);

/// A row of q8: its integers and its scales.
#[derive(Clone, Copy)]
pub(super) struct Q8Row(pub(super) *const u8, pub(super) *const f16);

impl Weights for Q8<'_> {
    type Row = Q8Row;
    type X = Natural;

    #[inline(always)]
    fn row(self, at: usize, count: usize) -> Q8Row {
        let scales = &self.1[at / QUANT_BLOCK..][..count / QUANT_BLOCK];
        Q8Row(self.0[at..][..count].as_ptr(), scales.as_ptr())
    }
}

impl Source for Q8Row {
    type Scale<V: Vector> = V;

    #[inline(always)]
    unsafe fn scale<V: Vector>(self, at: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::splat_f16(self.1.add(at / QUANT_BLOCK)) }
    }

    #[inline(always)]
    unsafe fn pair<V: Vector>(self, at: usize, scale: V) -> [V; 2] {
        // SAFETY: the caller's.
        let [a, b] = unsafe { [V::load_i8(self.0.add(at)), V::load_i8(self.0.add(at + V::LANES))] };
        [a.mul(scale), b.mul(scale)]
    }

    #[inline(always)]
    unsafe fn first<V: Vector>(self, _at: usize, _count: usize) -> V {
        unreachable!("rows of q8 are whole blocks")
    }

    #[inline(always)]
    fn prefetch<V: Vector>(self, at: usize) {
        prefetch::<V>(self.0.wrapping_add(at), QUANT_BLOCK);
    }
}

/// Weights of q4, and their scales.
#[derive(Clone, Copy)]
pub(super) struct Q4<'a>(pub(super) &'a [u8], pub(super) &'a [f16]);

/// A row of q4: its integers and its scales.
#[derive(Clone, Copy)]
pub(super) struct Q4Row(pub(super) *const u8, pub(super) *const f16);

impl Weights for Q4<'_> {
    type Row = Q4Row;
    type X = ForQ4;
    const REORDERED: bool = true;
    const DIRECT_ROWS: usize = 4;

    #[inline(always)]
    fn row(self, at: usize, count: usize) -> Q4Row {
        let scales = &self.1[at / QUANT_BLOCK..][..count / QUANT_BLOCK];
        Q4Row(self.0[at / 2..][..count / 2].as_ptr(), scales.as_ptr())
    }
}

impl Source for Q4Row {
    type Scale<V: Vector> = V;

    #[inline(always)]
    unsafe fn scale<V: Vector>(self, at: usize) -> V {
        // SAFETY: the caller's.
        unsafe { V::splat_f16(self.1.add(at / QUANT_BLOCK)) }
    }

    #[inline(always)]
    unsafe fn pair<V: Vector>(self, at: usize, scale: V) -> [V; 2] {
        // SAFETY: the caller's.
        unsafe { V::load_q4(self.0.add(at / 2), scale) }
    }

    #[inline(always)]
    unsafe fn first<V: Vector>(self, _at: usize, _count: usize) -> V {
        unreachable!("rows of q4 are whole blocks")
    }

    #[inline(always)]
    fn prefetch<V: Vector>(self, at: usize) {
        prefetch::<V>(self.0.wrapping_add(at / 2), QUANT_BLOCK / 2);
    }
}
