//! Dot products in plain Rust.

use super::super::portable::Portable;
use super::super::vector::Vector;
use super::dot::{BLOCK_WORDS, Dot, MAX_LANES};

/// Eight lanes.
#[derive(Clone, Copy)]
pub(in crate::simd) struct PortableDot([i32; 8]);

impl Dot for PortableDot {
    type V = Portable;
    const TILE: [usize; 2] = [2, 1];
    const OFFSET: u8 = 0;
    type Weights = [i8; 32];

    #[inline(always)]
    fn splat(v: i32) -> Self {
        Self([v; 8])
    }

    #[inline(always)]
    fn to_f32(self) -> Portable {
        let values = self.0.map(|v| v as f32);
        // SAFETY: there are eight values.
        unsafe { Portable::load(values.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> [i8; 32] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[i8; 32]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(weights: [i8; 32], to: *mut u8) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[i8; 32]>().write_unaligned(weights) }
    }

    #[inline(always)]
    unsafe fn block<const Q4: bool>(rows: &[*const u8; MAX_LANES], at: usize) -> [[i8; 32]; BLOCK_WORDS] {
        let mut words = [[0; 32]; BLOCK_WORDS];
        for (i, row) in rows[..8].iter().enumerate() {
            for j in 0..if Q4 { BLOCK_WORDS / 2 } else { BLOCK_WORDS } {
                // SAFETY: the caller's.
                let word = unsafe { row.add(at + 4 * j).cast::<[u8; 4]>().read_unaligned() };
                if Q4 {
                    words[j][4 * i..][..4].copy_from_slice(&word.map(|byte| (byte & 15) as i8));
                    words[BLOCK_WORDS / 2 + j][4 * i..][..4].copy_from_slice(&word.map(|byte| (byte >> 4) as i8));
                } else {
                    words[j][4 * i..][..4].copy_from_slice(&word.map(|byte| byte as i8));
                }
            }
        }
        words
    }

    #[inline(always)]
    unsafe fn add_products<const Q4: bool>(self, w: [i8; 32], x: *const i8) -> Self {
        // SAFETY: the caller's.
        let x = unsafe { x.cast::<[i8; 4]>().read_unaligned() }.map(i32::from);
        let product = |i: usize, j: usize| i32::from(w[4 * i + j]) * x[j];
        Self(std::array::from_fn(|i| self.0[i] + product(i, 0) + product(i, 1) + product(i, 2) + product(i, 3)))
    }
}
