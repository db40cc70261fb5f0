//! Dot products for aarch64, with the instructions for dot products of bytes or without them.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::neon::Neon;
use super::super::vector::Vector;
use super::dot::{Dot, MAX_LANES};

/// Four lanes, for CPUs with `sdot`.
#[derive(Clone, Copy)]
pub(in crate::simd) struct NeonDot(int32x4_t);

/// Four lanes, for all CPUs.
#[derive(Clone, Copy)]
pub(in crate::simd) struct NeonWide(int32x4_t);

/// Adds products of bytes to `sums`, four to each lane.
///
/// # Safety
/// The CPU has the instructions for dot products.
#[inline(always)]
unsafe fn dot(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's. The intrinsic is unstable.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// As [`dot`], for CPUs without these instructions. The sum of two products is at most 2 * 128 * 127, which 16 bits
/// hold.
#[inline(always)]
fn wide(sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: every aarch64 CPU that Rust's targets support has NEON.
    unsafe {
        let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
        let high = vmull_high_s8(w, x);
        vpadalq_s16(sums, vpaddq_s16(low, high))
    }
}

/// The integers of a block of weights.
///
/// # Safety
/// `from` is valid for reads of a block.
#[inline(always)]
unsafe fn block<const Q4: bool>(from: *const u8) -> [int8x16_t; 2] {
    // SAFETY: the caller's.
    unsafe {
        if Q4 {
            let bytes = vld1q_u8(from);
            let low = vandq_u8(bytes, vdupq_n_u8(15));
            return [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes))];
        }
        [vld1q_s8(from.cast()), vld1q_s8(from.add(16).cast())]
    }
}

macro_rules! implement {
    ($name:ident, $dot:path) => {
        // SAFETY of the blocks below: this type is only named by `InstructionSet::run_dot`, which has checked the CPU.
        // Where a block reads memory, the caller ensures that this is valid.
        impl Dot for $name {
            type V = Neon;
            type Direct = Self;
            // Twelve sums of integers and of f32 each, three vectors of W and one of x in 32 registers.
            const TILE: [usize; 2] = [4, 3];
            const OFFSET: u8 = 0;
            type Weights = int8x16_t;

            #[inline(always)]
            fn splat(v: i32) -> Self {
                // SAFETY: see above.
                Self(unsafe { vdupq_n_s32(v) })
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { vaddq_s32(self.0, other.0) })
            }

            #[inline(always)]
            fn to_f32(self) -> Neon {
                // SAFETY: see above.
                Neon::from(unsafe { vcvtq_f32_s32(self.0) })
            }

            #[inline(always)]
            unsafe fn load<const Q4: bool>(from: *const u8) -> int8x16_t {
                // SAFETY: see above.
                unsafe { vld1q_s8(from.cast()) }
            }

            #[inline(always)]
            #[allow(unused_unsafe)] // one of the two forms is safe
            unsafe fn add_products<const Q4: bool>(self, w: int8x16_t, x: *const i8) -> Self {
                // SAFETY: see above.
                unsafe {
                    let x = vreinterpretq_s8_s32(vdupq_n_s32(x.cast::<i32>().read_unaligned()));
                    Self($dot(self.0, w, x))
                }
            }

            #[inline(always)]
            unsafe fn blocks<const Q4: bool, const X: usize>(
                rows: &[*const u8; MAX_LANES],
                at: usize,
                x: [*const i8; X],
            ) -> [Self; X] {
                // SAFETY: see above.
                unsafe {
                    let zero = vdupq_n_s32(0);
                    let mut sums = [[zero; 4]; X];
                    for (i, row) in rows[..Neon::LANES].iter().enumerate() {
                        let w = block::<Q4>(row.add(at));
                        for (sums, x) in sums.iter_mut().zip(x) {
                            let half = $dot(zero, w[0], vld1q_s8(x));
                            sums[i] = $dot(half, w[1], vld1q_s8(x.add(16)));
                        }
                    }
                    let mut all = [Self(zero); X];
                    for (all, [a, b, c, d]) in all.iter_mut().zip(sums) {
                        all.0 = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
                    }
                    all
                }
            }
        }
    };
}

implement!(NeonDot, dot);
implement!(NeonWide, wide);
