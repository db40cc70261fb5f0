//! Dot products for x86-64 with AVX-512 and its instructions for neural networks (VNNI), which multiply four bytes
//! without sign with four bytes with sign and add them up in 32 bits. Weights are the ones without sign: 128 is added
//! to those of q8.

use std::arch::x86_64::*;

use super::super::avx2::Avx2;
use super::super::avx512::Avx512;
use super::super::vector::Vector;
use super::dot::{Dot, MAX_LANES};
use super::maddubs::{halves, sums_of_eight};

/// Sixteen lanes.
#[derive(Clone, Copy)]
pub(in crate::simd) struct Vnni512(__m512i);

/// Eight lanes, for weights that are not packed: a block of a row is one vector.
#[derive(Clone, Copy)]
pub(in crate::simd) struct Vnni256(__m256i);

// SAFETY of the blocks below: this type is only named by `InstructionSet::run_dot`, which has checked that the CPU has
// what `run_vnni` enables. Where a block reads memory, the caller ensures that this is valid.
impl Dot for Vnni512 {
    type V = Avx512;
    type Direct = Vnni256;
    // Twelve sums of integers and of f32 each, two vectors of W and one of x in 32 registers.
    const TILE: [usize; 2] = [6, 2];
    const OFFSET: u8 = 128;
    type Weights = __m512i;

    #[inline(always)]
    fn splat(v: i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_epi32(v) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn to_f32(self) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512::from(_mm512_cvtepi32_ps(self.0)) }
    }

    #[inline(always)]
    unsafe fn load<const Q4: bool>(from: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add_products<const Q4: bool>(self, w: __m512i, x: *const i8) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, w, _mm512_set1_epi32(x.cast::<i32>().read_unaligned())) })
    }

    unsafe fn blocks<const Q4: bool, const X: usize>(
        _rows: &[*const u8; MAX_LANES],
        _at: usize,
        _x: [*const i8; X],
    ) -> [Self; X] {
        unreachable!("weights that are not packed are read by another form")
    }
}

// SAFETY of the blocks below: as above.
impl Dot for Vnni256 {
    type V = Avx2;
    type Direct = Self;
    const TILE: [usize; 2] = [6, 2];
    const OFFSET: u8 = 128;
    type Weights = __m256i;

    #[inline(always)]
    fn splat(v: i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_epi32(v) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn to_f32(self) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2::from(_mm256_cvtepi32_ps(self.0)) }
    }

    #[inline(always)]
    unsafe fn load<const Q4: bool>(from: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add_products<const Q4: bool>(self, w: __m256i, x: *const i8) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_dpbusd_epi32(self.0, w, _mm256_set1_epi32(x.cast::<i32>().read_unaligned())) })
    }

    #[inline(always)]
    unsafe fn blocks<const Q4: bool, const X: usize>(
        rows: &[*const u8; MAX_LANES],
        at: usize,
        x: [*const i8; X],
    ) -> [Self; X] {
        // SAFETY: see above.
        unsafe {
            let zero = _mm256_setzero_si256();
            let mut sums = [[zero; 8]; X];
            for (i, row) in rows[..Avx2::LANES].iter().enumerate() {
                let w = if Q4 {
                    halves(row.add(at))
                } else {
                    _mm256_xor_si256(_mm256_loadu_si256(row.add(at).cast()), _mm256_set1_epi8(-128))
                };
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[i] = _mm256_dpbusd_epi32(zero, w, _mm256_loadu_si256(x.cast()));
                }
            }
            let mut all = [Self(zero); X];
            for (all, sums) in all.iter_mut().zip(sums) {
                all.0 = sums_of_eight(sums);
            }
            all
        }
    }
}
