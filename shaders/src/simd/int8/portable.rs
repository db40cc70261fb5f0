//! Dot products in plain Rust: in f32, which holds sums of a block exactly, and which compilers vectorize everywhere.

use super::super::portable::Portable;
use super::super::vector::Vector;
use super::dot::{BLOCK_WORDS, Dot, MAX_LANES};

/// Eight lanes.
#[derive(Clone, Copy)]
pub(in crate::simd) struct PortableDot(Portable);

impl Dot for PortableDot {
    type V = Portable;
    const TILE: [usize; 2] = [4, 1];
    const OFFSET: u8 = 0;
    /// A word of each row.
    type Weights = [u32; 8];

    #[inline(always)]
    fn splat(v: i32) -> Self {
        Self(Portable::splat(v as f32))
    }

    #[inline(always)]
    fn to_f32(self) -> Portable {
        self.0
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Weights {
        // SAFETY: the caller's.
        unsafe { from.cast::<Self::Weights>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(weights: Self::Weights, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe { to.cast::<Self::Weights>().write_unaligned(weights) }
    }

    #[inline(always)]
    unsafe fn block<const Q4: bool>(rows: &[*const u8; MAX_LANES], at: usize) -> [Self::Weights; BLOCK_WORDS] {
        let mut words = [[0; 8]; BLOCK_WORDS];
        for (j, words) in words.iter_mut().enumerate() {
            let word = if Q4 { j % (BLOCK_WORDS / 2) } else { j };
            let shift = if Q4 { j / (BLOCK_WORDS / 2) * 4 } else { 0 };
            for (to, row) in words.iter_mut().zip(rows) {
                // SAFETY: the caller's.
                let word = u32::from_le_bytes(unsafe { row.add(at + 4 * word).cast::<[u8; 4]>().read_unaligned() });
                *to = if Q4 { word >> shift & 0x0f0f_0f0f } else { word };
            }
        }
        words
    }

    #[inline(always)]
    unsafe fn add_products<const Q4: bool>(self, w: Self::Weights, x: *const i8) -> Self {
        // SAFETY: the caller's.
        let x = unsafe { x.cast::<[i8; 4]>().read_unaligned() };
        let mut sums = self.0;
        for (j, x) in x.into_iter().enumerate() {
            let integers = w.map(|word| ((word << (24 - 8 * j)) as i32 >> 24) as f32);
            // SAFETY: there are eight values.
            let integers = unsafe { Portable::load(integers.as_ptr()) };
            sums = integers.mul_add(Portable::splat(f32::from(x)), sums);
        }
        Self(sums)
    }
}
