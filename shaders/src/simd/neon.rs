//! Vectors for aarch64, where NEON is always present.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::vector::Vector;

/// Four lanes.
#[derive(Clone, Copy)]
pub(super) struct Neon(float32x4_t);

impl From<float32x4_t> for Neon {
    #[inline(always)]
    fn from(lanes: float32x4_t) -> Self {
        Self(lanes)
    }
}

// SAFETY of the blocks below: every aarch64 CPU that Rust's targets support has NEON. Where a block reads or writes
// memory, the caller ensures that this is valid.
impl Vector for Neon {
    const LANES: usize = 4;
    const TILE: [usize; 2] = [6, 4];

    #[inline(always)]
    fn splat(v: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdupq_n_f32(v) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const f16) -> Self {
        // SAFETY: four copies of the value are valid for reads.
        unsafe { Self::load_f16([from.read(); 4].as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: see above. The conversion is part of the base instruction set; only its intrinsic is unstable.
        unsafe {
            let bits = vld1_u16(from.cast());
            let mut wide: float32x4_t;
            asm!("fcvtl {wide:v}.4s, {bits:v}.4h", wide = out(vreg) wide, bits = in(vreg) bits,
                options(pure, nomem, nostack, preserves_flags));
            Self(wide)
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16) {
        // SAFETY: see above, and `load_f16` for the conversion. NaN stays NaN in a minimum and a maximum.
        unsafe {
            let above = vmaxq_f32(vdupq_n_f32(-65504.0), self.0);
            let clamped = vminq_f32(vdupq_n_f32(65504.0), above);
            let mut bits: uint16x4_t;
            asm!("fcvtn {bits:v}.4h, {clamped:v}.4s", bits = out(vreg) bits, clamped = in(vreg) clamped,
                options(pure, nomem, nostack, preserves_flags));
            vst1_u16(to.cast(), bits);
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        // SAFETY: see above.
        unsafe {
            let word = vreinterpret_s8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            Self(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(word)))))
        }
    }

    #[inline(always)]
    unsafe fn load_q4(from: *const u8, scale: Self) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let word = vreinterpret_u8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            let bytes = vmovl_u16(vget_low_u16(vmovl_u8(word)));
            let integers = [vandq_u32(bytes, vdupq_n_u32(15)), vshrq_n_u32::<4>(bytes)];
            // Both products are exact, so one rounding at the end is none.
            let offset = vmulq_n_f32(scale.0, -8.0);
            integers.map(|integers| Self(vfmaq_f32(offset, vcvtq_f32_u32(integers), scale.0)))
        }
    }

    #[inline(always)]
    unsafe fn load_for_q4(from: *const f32) -> [Self; 2] {
        // SAFETY: see above. A word has the low halves of values 0 to 3 and the high halves of values 4 to 7.
        unsafe { [Self(vld1q_f32(from)), Self(vld1q_f32(from.add(4)))] }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const f32) -> [Self; 2] {
        // SAFETY: see above.
        let float32x4x2_t(first, second) = unsafe { vld2q_f32(from) };
        [Self(first), Self(second)]
    }

    #[inline(always)]
    unsafe fn store_pairs([first, second]: [Self; 2], to: *mut f32) {
        // SAFETY: see above.
        unsafe { vst2q_f32(to, float32x4x2_t(first.0, second.0)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdivq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vfmaq_f32(addend.0, self.0, factor.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vmaxq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vminq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vsqrtq_f32(self.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vrndnq_f32(self.0) })
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let n = vaddq_s32(vcvtq_s32_f32(self.0), vdupq_n_s32(127));
            Self(vreinterpretq_f32_s32(vshlq_n_s32::<23>(n)))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe { vaddvq_f32(self.0) }
    }
}
