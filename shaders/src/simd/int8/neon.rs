//! Dot products for aarch64, with the instructions for dot products of bytes or without them.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::neon::Neon;
use super::dot::{BLOCK_WORDS, Dot, MAX_LANES};

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

/// Four words from `at` bytes behind each pointer: vector `i` has word `i` of four rows.
///
/// # Safety
/// The words are valid for reads.
#[inline(always)]
unsafe fn words(rows: &[*const u8; MAX_LANES], at: usize) -> [int8x16_t; 4] {
    // SAFETY: the caller's.
    unsafe {
        let mut four = [vdupq_n_s32(0); 4];
        for (four, row) in four.iter_mut().zip(rows) {
            *four = vreinterpretq_s32_u8(vld1q_u8(row.add(at)));
        }
        let (a, b) = (vzip1q_s32(four[0], four[2]), vzip1q_s32(four[1], four[3]));
        let (c, d) = (vzip2q_s32(four[0], four[2]), vzip2q_s32(four[1], four[3]));
        [
            vreinterpretq_s8_s32(vzip1q_s32(a, b)),
            vreinterpretq_s8_s32(vzip2q_s32(a, b)),
            vreinterpretq_s8_s32(vzip1q_s32(c, d)),
            vreinterpretq_s8_s32(vzip2q_s32(c, d)),
        ]
    }
}

macro_rules! implement {
    ($name:ident, $dot:path) => {
        // SAFETY of the blocks below: this type is only named by `InstructionSet::run_dot`, which has checked the CPU.
        // Where a block reads memory, the caller ensures that this is valid.
        impl Dot for $name {
            type V = Neon;
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
            fn to_f32(self) -> Neon {
                // SAFETY: see above.
                Neon::from(unsafe { vcvtq_f32_s32(self.0) })
            }

            #[inline(always)]
            unsafe fn load(from: *const u8) -> int8x16_t {
                // SAFETY: see above.
                unsafe { vld1q_s8(from.cast()) }
            }

            #[inline(always)]
            unsafe fn store(weights: int8x16_t, to: *mut u8) {
                // SAFETY: see above.
                unsafe { vst1q_s8(to.cast(), weights) }
            }

            #[inline(always)]
            unsafe fn block<const Q4: bool>(rows: &[*const u8; MAX_LANES], at: usize) -> [int8x16_t; BLOCK_WORDS] {
                // SAFETY: see above.
                unsafe {
                    let (mut first, mut second) = (words(rows, at), [vdupq_n_s8(0); 4]);
                    if Q4 {
                        for (first, second) in first.iter_mut().zip(&mut second) {
                            *second = vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(*first)));
                            *first = vandq_s8(*first, vdupq_n_s8(15));
                        }
                    } else {
                        second = words(rows, at + 16);
                    }
                    let ([a, b, c, d], [e, f, g, h]) = (first, second);
                    [a, b, c, d, e, f, g, h]
                }
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
        }
    };
}

implement!(NeonDot, dot);
implement!(NeonWide, wide);
