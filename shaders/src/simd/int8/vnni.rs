//! Dot products for x86-64 with AVX-512 and its instructions for neural networks (VNNI), which multiply four bytes
//! without sign with four bytes with sign and add them up in 32 bits. Weights are the ones without sign: 128 is added
//! to those of q8.

use std::arch::x86_64::*;

use super::super::avx512::Avx512;
use super::dot::{BLOCK_WORDS, Dot, MAX_LANES};

/// Sixteen lanes.
#[derive(Clone, Copy)]
pub(in crate::simd) struct Vnni512(__m512i);

/// Four words from `at` bytes behind each pointer: vector `i` has word `i` of all rows.
///
/// # Safety
/// The CPU has AVX-512, and the words are valid for reads.
#[inline(always)]
unsafe fn words(rows: &[*const u8; MAX_LANES], at: usize) -> [__m512i; 4] {
    // SAFETY: the caller's.
    unsafe {
        // The rows i, i + 4, i + 8 and i + 12, so that what follows stays within quarters.
        let mut fours = [_mm512_setzero_si512(); 4];
        for (i, four) in fours.iter_mut().enumerate() {
            *four = _mm512_castsi128_si512(_mm_loadu_si128(rows[i].add(at).cast()));
            *four = _mm512_inserti32x4::<1>(*four, _mm_loadu_si128(rows[i + 4].add(at).cast()));
            *four = _mm512_inserti32x4::<2>(*four, _mm_loadu_si128(rows[i + 8].add(at).cast()));
            *four = _mm512_inserti32x4::<3>(*four, _mm_loadu_si128(rows[i + 12].add(at).cast()));
        }
        let (a, c) = (_mm512_unpacklo_epi32(fours[0], fours[1]), _mm512_unpackhi_epi32(fours[0], fours[1]));
        let (b, d) = (_mm512_unpacklo_epi32(fours[2], fours[3]), _mm512_unpackhi_epi32(fours[2], fours[3]));
        [
            _mm512_unpacklo_epi64(a, b),
            _mm512_unpackhi_epi64(a, b),
            _mm512_unpacklo_epi64(c, d),
            _mm512_unpackhi_epi64(c, d),
        ]
    }
}

// SAFETY of the blocks below: this type is only named by `InstructionSet::run_dot`, which has checked that the CPU has
// what `run_vnni` enables. Where a block reads memory, the caller ensures that this is valid.
impl Dot for Vnni512 {
    type V = Avx512;
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
    fn to_f32(self) -> Avx512 {
        // SAFETY: see above.
        unsafe { Avx512::from(_mm512_cvtepi32_ps(self.0)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(weights: __m512i, to: *mut u8) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_si512(to.cast(), weights) }
    }

    #[inline(always)]
    unsafe fn block<const Q4: bool>(rows: &[*const u8; MAX_LANES], at: usize) -> [__m512i; BLOCK_WORDS] {
        // SAFETY: see above.
        unsafe {
            let (first, mut weights) = (words(rows, at), [_mm512_setzero_si512(); BLOCK_WORDS]);
            let second = if Q4 { first } else { words(rows, at + 16) };
            for i in 0..4 {
                if Q4 {
                    let mask = _mm512_set1_epi8(15);
                    weights[i] = _mm512_and_si512(first[i], mask);
                    weights[4 + i] = _mm512_and_si512(_mm512_srli_epi32::<4>(second[i]), mask);
                } else {
                    let signs = _mm512_set1_epi8(-128);
                    weights[i] = _mm512_xor_si512(first[i], signs);
                    weights[4 + i] = _mm512_xor_si512(second[i], signs);
                }
            }
            weights
        }
    }

    #[inline(always)]
    unsafe fn add_products<const Q4: bool>(self, w: __m512i, x: *const i8) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, w, _mm512_set1_epi32(x.cast::<i32>().read_unaligned())) })
    }
}
