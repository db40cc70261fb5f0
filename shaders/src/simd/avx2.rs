//! Vectors for x86-64 with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use half::f16;

use super::vector::Vector;

/// Eight lanes.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256);

impl From<__m256> for Avx2 {
    #[inline(always)]
    fn from(lanes: __m256) -> Self {
        Self(lanes)
    }
}

/// The sum of four lanes: first those at a distance of two, then the neighbors.
///
/// # Safety
/// The CPU has SSE3.
#[inline(always)]
pub(super) unsafe fn sum_of_four(four: __m128) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The [sum](sum_of_four) of each of four vectors, with the same bits.
///
/// # Safety
/// The CPU has SSE3.
#[inline(always)]
pub(super) unsafe fn sums_of_four([a, b, c, d]: [__m128; 4]) -> [f32; 4] {
    // SAFETY: the caller's.
    unsafe {
        let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
        let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
        let mut sums = [0.0; 4];
        let sum = _mm_add_ps(_mm_shuffle_ps::<0b10_00_10_00>(ab, cd), _mm_shuffle_ps::<0b11_01_11_01>(ab, cd));
        _mm_storeu_ps(sums.as_mut_ptr(), sum);
        sums
    }
}

// SAFETY of the blocks below: this type is only named by `InstructionSet::run`, which has checked that the CPU has
// AVX2, FMA and F16C. Where a block reads or writes memory, the caller ensures that this is valid.
impl Vector for Avx2 {
    const LANES: usize = 8;
    const TILE: [usize; 2] = [4, 3];

    #[inline(always)]
    fn splat(v: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(v) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const f16) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_cvtph_ps(_mm_set1_epi16(from.cast::<i16>().read())) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16) {
        // SAFETY: see above.
        unsafe {
            // Of a number and a NaN, these instructions return the second one.
            let above = _mm256_max_ps(_mm256_set1_ps(-65504.0), self.0);
            let clamped = _mm256_min_ps(_mm256_set1_ps(65504.0), above);
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(clamped));
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_q4(from: *const u8, scale: Self) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
            let low = _mm256_and_si256(bytes, _mm256_set1_epi32(15));
            let high = _mm256_srli_epi32::<4>(bytes);
            // Both products are exact, so one rounding at the end is none.
            let offset = _mm256_mul_ps(scale.0, _mm256_set1_ps(-8.0));
            [low, high].map(|integers| Self(_mm256_fmadd_ps(_mm256_cvtepi32_ps(integers), scale.0, offset)))
        }
    }

    #[inline(always)]
    unsafe fn load_for_q4(from: *const f32) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let (first, second) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)));
            // Bytes of a word have the low halves of values 0 to 3 and the high halves of values 4 to 7.
            [Self(_mm256_permute2f128_ps::<0x20>(first, second)), Self(_mm256_permute2f128_ps::<0x31>(first, second))]
        }
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const f32) -> [Self; 2] {
        // SAFETY: see above.
        unsafe {
            let (low, high) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)));
            // Pairs 0, 1, 4 and 5, and pairs 2, 3, 6 and 7.
            let a = _mm256_permute2f128_ps::<0x20>(low, high);
            let b = _mm256_permute2f128_ps::<0x31>(low, high);
            [Self(_mm256_shuffle_ps::<0x88>(a, b)), Self(_mm256_shuffle_ps::<0xdd>(a, b))]
        }
    }

    #[inline(always)]
    unsafe fn store_pairs([first, second]: [Self; 2], to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            let (a, b) = (_mm256_unpacklo_ps(first.0, second.0), _mm256_unpackhi_ps(first.0, second.0));
            _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(a, b));
            _mm256_storeu_ps(to.add(8), _mm256_permute2f128_ps::<0x31>(a, b));
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
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let n = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(n)))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe { sum_of_four(_mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0))) }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        // SAFETY: see above.
        unsafe {
            for columns in [0, 4] {
                // Four values of row i and of row i + 4, so that what follows stays within halves.
                let mut rows = [_mm256_setzero_ps(); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    let (low, high) = (from.add(i * stride + columns), from.add((i + 4) * stride + columns));
                    *row = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high));
                }
                let (a, c) = (_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[0], rows[1]));
                let (b, d) = (_mm256_unpacklo_ps(rows[2], rows[3]), _mm256_unpackhi_ps(rows[2], rows[3]));
                let to = to.add(8 * columns);
                _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(a, b));
                _mm256_storeu_ps(to.add(8), _mm256_shuffle_ps::<0xee>(a, b));
                _mm256_storeu_ps(to.add(16), _mm256_shuffle_ps::<0x44>(c, d));
                _mm256_storeu_ps(to.add(24), _mm256_shuffle_ps::<0xee>(c, d));
            }
        }
    }

    #[inline(always)]
    fn sums(four: [Self; 4]) -> [f32; 4] {
        // SAFETY: see above.
        unsafe {
            let mut halves = [_mm_setzero_ps(); 4];
            for (half, v) in halves.iter_mut().zip(four) {
                *half = _mm_add_ps(_mm256_castps256_ps128(v.0), _mm256_extractf128_ps::<1>(v.0));
            }
            sums_of_four(halves)
        }
    }
}
