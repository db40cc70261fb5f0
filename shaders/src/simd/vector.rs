//! Vectors of f32 lanes, the arithmetic that kernels are written in.

use half::f16;

/// A vector of [`Self::LANES`] f32 values.
///
/// Kernels are generic over the vector and compiled once for each instruction set. An implementation may use
/// instructions that the CPU lacks, so only [`InstructionSet::run`](super::InstructionSet::run), which has checked the
/// CPU, names a concrete vector.
pub(super) trait Vector: Copy {
    /// Number of values; a power of two from 4 to 16.
    const LANES: usize;
    /// Rows of x and rows of W in a tile of a product, at most 6 and 4. All its sums fit in registers.
    const TILE: [usize; 2];

    /// All lanes `v`.
    fn splat(v: f32) -> Self;
    /// `LANES` values from `from` on, at any alignment.
    ///
    /// # Safety
    /// `from` is valid for reads of `LANES` values.
    unsafe fn load(from: *const f32) -> Self;
    /// All lanes the value of one f16.
    ///
    /// # Safety
    /// `from` is valid for reads.
    unsafe fn splat_f16(from: *const f16) -> Self;
    /// Writes `LANES` values from `to` on, at any alignment.
    ///
    /// # Safety
    /// `to` is valid for writes of `LANES` values.
    unsafe fn store(self, to: *mut f32);
    /// `LANES` values of f16.
    ///
    /// # Safety
    /// `from` is valid for reads of `LANES` values.
    unsafe fn load_f16(from: *const f16) -> Self;
    /// `LANES` signed bytes as f32.
    ///
    /// # Safety
    /// `from` is valid for reads of `LANES` bytes.
    unsafe fn load_i8(from: *const u8) -> Self;
    /// `2 LANES` integers in the format q4 (`quant.rs`) from `LANES` bytes as f32, each times `scale`. They are in the
    /// order of [`Self::load_for_q4`].
    ///
    /// # Safety
    /// `from` is valid for reads of `LANES` bytes.
    unsafe fn load_q4(from: *const u8, scale: Self) -> [Self; 2];
    /// `2 LANES` values in the order in which [`Self::load_q4`] returns integers. That order is not the natural one:
    /// restoring it for activations, which many rows of weights share, is cheaper than for weights.
    ///
    /// # Safety
    /// `from` is valid for reads of `2 LANES` values.
    unsafe fn load_for_q4(from: *const f32) -> [Self; 2];

    /// Writes `LANES` values of f16: the nearest ones, the largest ones for values out of range, NaN for NaN.
    ///
    /// # Safety
    /// `to` is valid for writes of `LANES` values.
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16) {
        let (mut values, largest) = ([0.0_f32; 16], f32::from(f16::MAX));
        // SAFETY: `values` has room for `LANES` values; the caller's for `to`.
        unsafe {
            self.store(values.as_mut_ptr());
            for (i, value) in values[..Self::LANES].iter().enumerate() {
                to.add(i).write(f16::from_f32(value.clamp(-largest, largest)));
            }
        }
    }

    /// The [sums](Self::sum) of four vectors, with the same bits.
    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = four;
        [a.sum(), b.sum(), c.sum(), d.sum()]
    }

    /// Begins to load the cache line at this address, which need not be valid.
    #[inline(always)]
    fn prefetch(_at: *const u8) {}

    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// `self - other`
    fn sub(self, other: Self) -> Self;
    /// `self * other`
    fn mul(self, other: Self) -> Self;
    /// `self / other`
    fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, with one rounding where the instruction set has it.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The larger one in each lane; unspecified where one of them is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller one in each lane; unspecified where one of them is NaN.
    fn min(self, other: Self) -> Self;
    /// The square root, rounded correctly; NaN for negative values and NaN.
    #[inline(always)]
    fn sqrt(self) -> Self {
        let mut values = [0.0_f32; 16];
        // SAFETY: `values` has room for `LANES` values.
        unsafe {
            self.store(values.as_mut_ptr());
            for value in &mut values[..Self::LANES] {
                *value = value.sqrt();
            }
            Self::load(values.as_ptr())
        }
    }

    /// The nearest integer, for values between -2^22 and 2^22.
    fn round(self) -> Self;
    /// `2^self` for integers from -126 to 127.
    fn exp2_of_integer(self) -> Self;
    /// The sum of all lanes, in an order that depends on the type only.
    fn sum(self) -> f32;

    /// The first `count` values from `from` on, then zeros.
    ///
    /// # Safety
    /// `from` is valid for reads of `count` values, at most `LANES`.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        if count == Self::LANES {
            // SAFETY: the caller's.
            return unsafe { Self::load(from) };
        }
        let mut values = [0.0; 16];
        debug_assert!(count <= Self::LANES);
        // SAFETY: the caller's for `from`; `values` has room for `count` values, and for the `LANES` that are loaded.
        unsafe {
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), count);
            Self::load(values.as_ptr())
        }
    }

    /// Writes the first `count` lanes from `to` on.
    ///
    /// # Safety
    /// `to` is valid for writes of `count` values, at most `LANES`.
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        if count == Self::LANES {
            // SAFETY: the caller's.
            return unsafe { self.store(to) };
        }
        let mut values = [0.0; 16];
        debug_assert!(count <= Self::LANES);
        // SAFETY: `values` has room for `LANES` values; the caller's for `to`.
        unsafe {
            self.store(values.as_mut_ptr());
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, count);
        }
    }

    /// `e^self`, with a relative error below 2e-7. Values below -87.3 give 0 or the smallest normal number, values
    /// above 88.3 give a number close to the largest one. NaN gives an unspecified value.
    #[inline(always)]
    fn exp(self) -> Self {
        // e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2. ln 2 in two parts keeps r exact.
        let x = self.max(Self::splat(-87.336_54)).min(Self::splat(88.376_26));
        let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(Self::splat(-0.693_359_4), x);
        let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
        // Minimax polynomial of (e^r - 1 - r) / r^2 (Cephes, expf).
        let mut p = Self::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            p = p.mul_add(r, Self::splat(c));
        }
        let e = p.mul_add(r.mul(r), r.add(Self::splat(1.0)));
        e.mul(n.exp2_of_integer())
    }

    /// Writes the transpose of `LANES` rows of `LANES` values, `stride` apart, to consecutive values from `to` on.
    ///
    /// # Safety
    /// The rows are valid for reads, `to` for writes of `LANES^2` values.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller's.
                unsafe { *to.add(j * Self::LANES + i) = *from.add(i * stride + j) };
            }
        }
    }

    /// The first and the second values of `LANES` pairs.
    ///
    /// # Safety
    /// `from` is valid for reads of `2 LANES` values.
    #[inline(always)]
    unsafe fn load_pairs(from: *const f32) -> [Self; 2] {
        let (mut first, mut second) = ([0.0; 16], [0.0; 16]);
        for (i, (first, second)) in first.iter_mut().zip(&mut second).enumerate().take(Self::LANES) {
            // SAFETY: the caller's.
            (*first, *second) = unsafe { (*from.add(2 * i), *from.add(2 * i + 1)) };
        }
        // SAFETY: there are at least `LANES` values.
        unsafe { [Self::load(first.as_ptr()), Self::load(second.as_ptr())] }
    }

    /// Writes `LANES` pairs, as [`Self::load_pairs`] reads them.
    ///
    /// # Safety
    /// `to` is valid for writes of `2 LANES` values.
    #[inline(always)]
    unsafe fn store_pairs([first, second]: [Self; 2], to: *mut f32) {
        let mut values = ([0.0; 16], [0.0; 16]);
        // SAFETY: there is room for `LANES` values.
        unsafe {
            first.store(values.0.as_mut_ptr());
            second.store(values.1.as_mut_ptr());
        }
        for (i, (first, second)) in values.0.into_iter().zip(values.1).enumerate().take(Self::LANES) {
            // SAFETY: the caller's.
            unsafe { (*to.add(2 * i), *to.add(2 * i + 1)) = (first, second) };
        }
    }

    /// `1 / (1 + e^-self)`
    #[inline(always)]
    fn sigmoid(self) -> Self {
        let one = Self::splat(1.0);
        one.div(one.add(Self::splat(0.0).sub(self).exp()))
    }

    /// `1 / (1 + e^-self)` and `1 / (1 + e^self)`, which add up to 1, both without cancellation.
    #[inline(always)]
    fn sigmoids(self) -> [Self; 2] {
        let e = Self::splat(0.0).sub(self).exp();
        let one = Self::splat(1.0);
        let sigmoid = one.div(one.add(e));
        [sigmoid, e.mul(sigmoid)]
    }
}
