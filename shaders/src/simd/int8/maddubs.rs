//! Dot products for x86-64 with AVX2.
//!
//! Its instruction multiplies bytes without sign with bytes with sign and adds up pairs in 16 bits, saturating. A sum
//! of two products is at most 2 * 128 * 127, so nothing saturates if weights are without sign: in q8 their magnitudes,
//! with activations that have the signs of the weights.

use std::arch::x86_64::*;

use super::super::avx2::Avx2;
use super::super::vector::Vector;
use super::dot::{Dot, MAX_LANES};

/// Eight lanes.
#[derive(Clone, Copy)]
pub(in crate::simd) struct Maddubs(__m256i);

/// The sums of eight lanes of each of eight vectors.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn sums_of_eight([a, b, c, d, e, f, g, h]: [__m256i; 8]) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let pairs = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let fours = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        // A pair has lanes of a and b in turns, a four those of a, b, c and d.
        let first = fours(pairs(a, b), pairs(c, d));
        let second = fours(pairs(e, f), pairs(g, h));
        let (low, high) =
            (_mm256_permute2x128_si256::<0x20>(first, second), _mm256_permute2x128_si256::<0x31>(first, second));
        _mm256_add_epi32(low, high)
    }
}

/// The integers of a block of q4: first the low halves of bytes, then the high ones.
///
/// # Safety
/// The CPU has AVX2, and `from` is valid for reads of 16 bytes.
#[inline(always)]
pub(super) unsafe fn halves(from: *const u8) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let bytes = _mm_loadu_si128(from.cast());
        let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(bytes), _mm_srli_epi16::<4>(bytes));
        _mm256_and_si256(both, _mm256_set1_epi8(15))
    }
}

impl Maddubs {
    /// Products of weights and activations, four added up.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[inline(always)]
    unsafe fn products<const Q4: bool>([w, magnitudes]: [__m256i; 2], x: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe {
            let pairs =
                if Q4 { _mm256_maddubs_epi16(w, x) } else { _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(x, w)) };
            _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
        }
    }
}

// SAFETY of the blocks below: this type is only named by `InstructionSet::run_dot`, which has checked that the CPU has
// AVX2. Where a block reads memory, the caller ensures that this is valid.
impl Dot for Maddubs {
    type V = Avx2;
    type Direct = Self;
    const TILE: [usize; 2] = [4, 1];
    const OFFSET: u8 = 0;
    /// The integers, and their magnitudes.
    type Weights = [__m256i; 2];

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
    unsafe fn load<const Q4: bool>(from: *const u8) -> [__m256i; 2] {
        // SAFETY: see above.
        unsafe {
            let w = _mm256_loadu_si256(from.cast());
            [w, _mm256_abs_epi8(w)]
        }
    }

    #[inline(always)]
    unsafe fn add_products<const Q4: bool>(self, w: [__m256i; 2], x: *const i8) -> Self {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
            Self(_mm256_add_epi32(self.0, Self::products::<Q4>(w, x)))
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
            let mut sums = [[_mm256_setzero_si256(); 8]; X];
            for (i, row) in rows[..Avx2::LANES].iter().enumerate() {
                let w = if Q4 { halves(row.add(at)) } else { _mm256_loadu_si256(row.add(at).cast()) };
                for (sums, x) in sums.iter_mut().zip(x) {
                    let x = _mm256_loadu_si256(x.cast());
                    sums[i] = Self::products::<Q4>([w, _mm256_abs_epi8(w)], x);
                }
            }
            let mut all = [Self(_mm256_setzero_si256()); X];
            for (all, sums) in all.iter_mut().zip(sums) {
                all.0 = sums_of_eight(sums);
            }
            all
        }
    }
}
