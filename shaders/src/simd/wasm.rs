//! Vectors for WebAssembly with `simd128`, which a module is compiled with: there is no detection while it runs.

use std::arch::wasm32::*;

use half::f16;

use super::vector::Vector;

/// Four lanes.
#[derive(Clone, Copy)]
pub(super) struct Simd128(v128);

// Where a block below reads or writes memory, the caller ensures that this is valid.
impl Vector for Simd128 {
    const LANES: usize = 4;
    // Engines have 16 registers on x86-64, and a product without a fused addition takes one more of them.
    const TILE: [usize; 2] = [4, 2];

    #[inline(always)]
    fn splat(v: f32) -> Self {
        Self(f32x4_splat(v))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { v128_load(from.cast()) })
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const f16) -> Self {
        // SAFETY: the caller's.
        wide(u32x4_splat(u32::from(unsafe { from.cast::<u16>().read() })))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { v128_store(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller's.
        wide(unsafe { u32x4_load_extend_u16x4(from.cast()) })
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let bytes = unsafe { v128_load32_zero(from.cast()) };
        Self(f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes))))
    }

    #[inline(always)]
    unsafe fn load_q4(from: *const u8, scale: Self) -> [Self; 2] {
        // SAFETY: the caller's.
        let bytes = unsafe { v128_load32_zero(from.cast()) };
        let bytes = u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(bytes));
        [v128_and(bytes, u32x4_splat(15)), u32x4_shr(bytes, 4)]
            .map(|integers| Self(f32x4_convert_i32x4(i32x4_sub(integers, i32x4_splat(8)))).mul(scale))
    }

    #[inline(always)]
    unsafe fn load_for_q4(from: *const f32) -> [Self; 2] {
        // SAFETY: the caller's. A word has the low halves of values 0 to 3 and the high halves of values 4 to 7.
        unsafe { [Self::load(from), Self::load(from.add(4))] }
    }

    #[inline(always)]
    fn sums([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // The order of `sum`, for four vectors at a time.
        let pairs = |a: v128, b: v128| f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(a, b), i32x4_shuffle::<2, 3, 6, 7>(a, b));
        let (ab, cd) = (pairs(a.0, b.0), pairs(c.0, d.0));
        let sums = f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(ab, cd), i32x4_shuffle::<1, 3, 5, 7>(ab, cd));
        [
            f32x4_extract_lane::<0>(sums),
            f32x4_extract_lane::<1>(sums),
            f32x4_extract_lane::<2>(sums),
            f32x4_extract_lane::<3>(sums),
        ]
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const f32) -> [Self; 2] {
        // SAFETY: the caller's.
        let [a, b] = unsafe { [v128_load(from.cast()), v128_load(from.add(4).cast())] };
        [Self(i32x4_shuffle::<0, 2, 4, 6>(a, b)), Self(i32x4_shuffle::<1, 3, 5, 7>(a, b))]
    }

    #[inline(always)]
    unsafe fn store_pairs([first, second]: [Self; 2], to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            v128_store(to.cast(), i32x4_shuffle::<0, 4, 1, 5>(first.0, second.0));
            v128_store(to.add(4).cast(), i32x4_shuffle::<2, 6, 3, 7>(first.0, second.0));
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(f32x4_add(self.0, other.0))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(f32x4_sub(self.0, other.0))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(f32x4_mul(self.0, other.0))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(f32x4_div(self.0, other.0))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // `simd128` has no instruction with one rounding.
        self.mul(factor).add(addend)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(f32x4_pmax(self.0, other.0))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(f32x4_pmin(self.0, other.0))
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(f32x4_sqrt(self.0))
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(f32x4_nearest(self.0))
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        // Adding 1.5 2^23 puts an integer into the lowest bits, which takes less than a conversion that saturates.
        let bits = f32x4_add(self.0, f32x4_splat(12_582_912.0 + 127.0));
        Self(i32x4_shl(bits, 23))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let pairs = f32x4_add(self.0, i32x4_shuffle::<2, 3, 2, 3>(self.0, self.0));
        f32x4_extract_lane::<0>(pairs) + f32x4_extract_lane::<1>(pairs)
    }
}

/// The values of four f16, without subnormal f32 numbers, which are slow. As `f16_to_f32` in `portable.rs`.
#[inline(always)]
fn wide(bits: v128) -> Simd128 {
    let sign = i32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
    let rest = i32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
    // Shifted into place, an exponent of f16 is 112 too small as one of f32.
    let normal = i32x4_add(rest, u32x4_splat(112 << 23));
    let smallest = u32x4_splat(113 << 23);
    let subnormal = f32x4_sub(i32x4_add(rest, smallest), smallest);
    let infinite = v128_or(rest, u32x4_splat(0x7f80_0000));
    let magnitude = v128_bitselect(subnormal, normal, i32x4_lt(rest, i32x4_splat(0x400 << 13)));
    let magnitude = v128_bitselect(infinite, magnitude, i32x4_gt(rest, i32x4_splat((0x7c00 << 13) - 1)));
    Simd128(v128_or(magnitude, sign))
}
