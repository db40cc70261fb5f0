//! Vectors in plain Rust, for CPUs without a form of their own. The compiler vectorizes them where it can.

use half::f16;

use super::vector::Vector;

/// Eight lanes.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Portable {
    const LANES: usize = 8;
    const TILE: [usize; 2] = [2, 2];

    #[inline(always)]
    fn splat(v: f32) -> Self {
        Self([v; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const f16) -> Self {
        // SAFETY: the caller's.
        Self::splat(f16_to_f32(unsafe { from.cast::<u16>().read() }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller's.
        let values = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        Self(values.map(f16_to_f32))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let values = unsafe { from.cast::<[i8; 8]>().read_unaligned() };
        Self(values.map(f32::from))
    }

    #[inline(always)]
    unsafe fn load_q4(from: *const u8, scale: Self) -> [Self; 2] {
        // SAFETY: the caller's.
        let bytes = unsafe { from.cast::<[u8; 8]>().read_unaligned() };
        let integers = [bytes.map(|byte| byte & 15), bytes.map(|byte| byte >> 4)];
        integers.map(|integers| Self(integers.map(|integer| f32::from(integer as i8 - 8))).mul(scale))
    }

    #[inline(always)]
    unsafe fn load_for_q4(from: *const f32) -> [Self; 2] {
        // SAFETY: the caller's.
        let x = unsafe { from.cast::<[f32; 16]>().read_unaligned() };
        // A word of weights has four low and four high halves.
        [0, 4].map(|half| Self(std::array::from_fn(|i| x[i / 4 * 8 + half + i % 4])))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Without an instruction for it, one rounding would cost a call of a library function.
        self.mul(factor).add(addend)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // Adding 1.5 2^23 leaves no bits for a fraction.
        let shift = Self::splat(12_582_912.0);
        self.add(shift).sub(shift)
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        Self(self.0.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// The value of an f16, without branches and without subnormal f32 numbers, which may be flushed to zero.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
    // Shifted into place, an exponent of f16 is 112 too small as one of f32.
    let normal = rest + (112 << 23);
    let smallest = 113 << 23;
    let subnormal = (f32::from_bits(rest + smallest) - f32::from_bits(smallest)).to_bits();
    let magnitude = if rest < 0x400 << 13 {
        subnormal
    } else if rest >= 0x7c00 << 13 {
        rest | 0x7f80_0000
    } else {
        normal
    };
    f32::from_bits(magnitude | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_has_its_value() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (f16_to_f32(bits), f16::from_bits(bits).to_f32());
            assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{bits:#x}");
        }
    }
}
