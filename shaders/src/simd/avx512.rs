//! Vectors for x86-64 with AVX-512: its foundation, and the instructions for bytes, words, doublewords and halves.

use std::arch::x86_64::*;

use half::f16;

use super::avx2::{sum_of_four, sums_of_four};
use super::vector::Vector;

/// Sixteen lanes.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

impl From<__m512> for Avx512 {
    #[inline(always)]
    fn from(lanes: __m512) -> Self {
        Self(lanes)
    }
}

impl Avx512 {
    /// Lanes `i`, `i + 4`, `i + 8` and `i + 12` added up: first those at a distance of eight, then of four.
    #[inline(always)]
    fn quarters(self) -> __m128 {
        // SAFETY: see below.
        unsafe {
            let halves = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves))
        }
    }
}

/// The mask of the first `count` lanes, at most 16.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1_u32 << count) - 1) as __mmask16
}

// SAFETY of the blocks below: this type is only named by `InstructionSet::run`, which has checked that the CPU has what
// `run_avx512` enables. Where a block reads or writes memory, the caller ensures that this is valid.
impl Vector for Avx512 {
    const LANES: usize = 16;
    // 24 sums, four vectors of W and one of x in 32 registers.
    const TILE: [usize; 2] = [6, 4];

    #[inline(always)]
    fn splat(v: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(v) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const f16) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(from.cast::<i16>().read())) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16) {
        // SAFETY: see above.
        unsafe {
            // Of a number and a NaN, these instructions return the second one.
            let above = _mm512_max_ps(_mm512_set1_ps(-65504.0), self.0);
            let clamped = _mm512_min_ps(_mm512_set1_ps(65504.0), above);
            let values = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(clamped);
            _mm256_storeu_si256(to.cast(), values);
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_q4(from: *const u8, scale: Self) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let integers =
                _mm512_setr_ps(-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0);
            // A permutation looks sixteen values up by the lowest four bits of each lane.
            let values = _mm512_mul_ps(integers, scale.0);
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm512_srli_epi32::<4>(bytes);
            [Self(_mm512_permutexvar_ps(bytes, values)), Self(_mm512_permutexvar_ps(high, values))]
        }
    }

    #[inline(always)]
    unsafe fn load_for_q4(from: *const f32) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let (first, second) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
            // Bytes of a word have the low halves of values 0 to 3 and the high halves of values 4 to 7.
            [Self(_mm512_shuffle_f32x4::<0x88>(first, second)), Self(_mm512_shuffle_f32x4::<0xdd>(first, second))]
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const f32) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            [Self(_mm512_permutex2var_ps(low, even, high)), Self(_mm512_permutex2var_ps(low, odd, high))]
        }
    }

    #[inline(always)]
    unsafe fn store_pairs([first, second]: [Self; 2], to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            _mm512_storeu_ps(to, _mm512_permutex2var_ps(first.0, low, second.0));
            _mm512_storeu_ps(to.add(16), _mm512_permutex2var_ps(first.0, high, second.0));
        }
    }

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a prefetch doesn't access memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let n = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(n)))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe { sum_of_four(self.quarters()) }
    }

    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        let [a, b, c, d] = four;
        // SAFETY: see above.
        unsafe { sums_of_four([a.quarters(), b.quarters(), c.quarters(), d.quarters()]) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: the lanes that the mask leaves out are not read.
        Self(unsafe { _mm512_maskz_loadu_ps(first(count), from) })
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: the lanes that the mask leaves out are not written.
        unsafe { _mm512_mask_storeu_ps(to, first(count), self.0) }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            for columns in [0, 4, 8, 12] {
                // Four values of the rows i, i + 4, i + 8 and i + 12, so that what follows stays within quarters.
                let mut rows = [_mm512_setzero_ps(); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    let from = from.add(i * stride + columns);
                    *row = _mm512_castps128_ps512(_mm_loadu_ps(from));
                    *row = _mm512_insertf32x4::<1>(*row, _mm_loadu_ps(from.add(4 * stride)));
                    *row = _mm512_insertf32x4::<2>(*row, _mm_loadu_ps(from.add(8 * stride)));
                    *row = _mm512_insertf32x4::<3>(*row, _mm_loadu_ps(from.add(12 * stride)));
                }
                let (a, c) = (_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[0], rows[1]));
                let (b, d) = (_mm512_unpacklo_ps(rows[2], rows[3]), _mm512_unpackhi_ps(rows[2], rows[3]));
                let to = to.add(16 * columns);
                _mm512_storeu_ps(to, _mm512_shuffle_ps::<0x44>(a, b));
                _mm512_storeu_ps(to.add(16), _mm512_shuffle_ps::<0xee>(a, b));
                _mm512_storeu_ps(to.add(32), _mm512_shuffle_ps::<0x44>(c, d));
                _mm512_storeu_ps(to.add(48), _mm512_shuffle_ps::<0xee>(c, d));
            }
        }
    }
}
