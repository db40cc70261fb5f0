//! Dot products for x86-64 with AVX2.
//!
//! Its instruction multiplies bytes without sign with bytes with sign and adds up pairs in 16 bits, saturating. A sum
//! of two products is at most 2 * 128 * 127, so nothing saturates if weights are without sign: in q8 their magnitudes,
//! with activations that have the signs of the weights.

use std::arch::x86_64::*;

use super::super::avx2::Avx2;
use super::dot::{BLOCK_WORDS, Dot, MAX_LANES};

/// Eight lanes.
#[derive(Clone, Copy)]
pub(in crate::simd) struct Maddubs(__m256i);

/// Four words from `at` bytes behind each pointer: vector `i` has word `i` of eight rows.
///
/// # Safety
/// The CPU has AVX2, and the words are valid for reads.
#[inline(always)]
unsafe fn words(rows: &[*const u8; MAX_LANES], at: usize) -> [__m256i; 4] {
    // SAFETY: the caller's.
    unsafe {
        // The rows i and i + 4, so that what follows stays within halves.
        let mut twos = [_mm256_setzero_si256(); 4];
        for (i, two) in twos.iter_mut().enumerate() {
            *two = _mm256_castsi128_si256(_mm_loadu_si128(rows[i].add(at).cast()));
            *two = _mm256_inserti128_si256::<1>(*two, _mm_loadu_si128(rows[i + 4].add(at).cast()));
        }
        let (a, c) = (_mm256_unpacklo_epi32(twos[0], twos[1]), _mm256_unpackhi_epi32(twos[0], twos[1]));
        let (b, d) = (_mm256_unpacklo_epi32(twos[2], twos[3]), _mm256_unpackhi_epi32(twos[2], twos[3]));
        [
            _mm256_unpacklo_epi64(a, b),
            _mm256_unpackhi_epi64(a, b),
            _mm256_unpacklo_epi64(c, d),
            _mm256_unpackhi_epi64(c, d),
        ]
    }
}

// SAFETY of the blocks below: this type is only named by `InstructionSet::run_dot`, which has checked that the CPU has
// AVX2. Where a block reads memory, the caller ensures that this is valid.
impl Dot for Maddubs {
    type V = Avx2;
    const TILE: [usize; 2] = [4, 1];
    const OFFSET: u8 = 0;
    type Weights = __m256i;

    #[inline(always)]
    fn splat(v: i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_epi32(v) })
    }

    #[inline(always)]
    fn to_f32(self) -> Avx2 {
        // SAFETY: see above.
        unsafe { Avx2::from(_mm256_cvtepi32_ps(self.0)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(weights: __m256i, to: *mut u8) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.cast(), weights) }
    }

    #[inline(always)]
    unsafe fn block<const Q4: bool>(rows: &[*const u8; MAX_LANES], at: usize) -> [__m256i; BLOCK_WORDS] {
        // SAFETY: see above.
        unsafe {
            let (mut first, mut second) = (words(rows, at), [_mm256_setzero_si256(); 4]);
            if Q4 {
                let mask = _mm256_set1_epi8(15);
                for (first, second) in first.iter_mut().zip(&mut second) {
                    *second = _mm256_and_si256(_mm256_srli_epi32::<4>(*first), mask);
                    *first = _mm256_and_si256(*first, mask);
                }
            } else {
                second = words(rows, at + 16);
            }
            let ([a, b, c, d], [e, f, g, h]) = (first, second);
            [a, b, c, d, e, f, g, h]
        }
    }

    #[inline(always)]
    unsafe fn add_products<const Q4: bool>(self, w: __m256i, x: *const i8) -> Self {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
            let pairs = if Q4 {
                _mm256_maddubs_epi16(w, x)
            } else {
                _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
            };
            Self(_mm256_add_epi32(self.0, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))))
        }
    }
}
