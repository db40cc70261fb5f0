//! Dot products in plain Rust.

use super::super::portable::Portable;
use super::super::vector::Vector;
use super::block_bytes;
use super::dot::{Dot, MAX_LANES};
use crate::sizes::QUANT_BLOCK;

/// Eight lanes.
#[derive(Clone, Copy)]
pub(in crate::simd) struct PortableDot([i32; 8]);

impl Dot for PortableDot {
    type V = Portable;
    type Direct = Self;
    const TILE: [usize; 2] = [2, 1];
    const OFFSET: u8 = 0;
    type Weights = [i8; 32];

    #[inline(always)]
    fn splat(v: i32) -> Self {
        Self([v; 8])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    fn to_f32(self) -> Portable {
        let values = self.0.map(|v| v as f32);
        // SAFETY: there are eight values.
        unsafe { Portable::load(values.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load<const Q4: bool>(from: *const u8) -> [i8; 32] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[i8; 32]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add_products<const Q4: bool>(self, w: [i8; 32], x: *const i8) -> Self {
        // SAFETY: the caller's.
        let x = unsafe { x.cast::<[i8; 4]>().read_unaligned() }.map(i32::from);
        let product = |i: usize, j: usize| i32::from(w[4 * i + j]) * x[j];
        Self(std::array::from_fn(|i| self.0[i] + product(i, 0) + product(i, 1) + product(i, 2) + product(i, 3)))
    }

    #[inline(always)]
    unsafe fn blocks<const Q4: bool, const X: usize>(
        rows: &[*const u8; MAX_LANES],
        at: usize,
        x: [*const i8; X],
    ) -> [Self; X] {
        let mut sums = [Self([0; 8]); X];
        for (i, row) in rows[..8].iter().enumerate() {
            // SAFETY: the caller's.
            let from = unsafe { std::slice::from_raw_parts(row.add(at), block_bytes(Q4)) };
            let mut w = [0_i8; QUANT_BLOCK];
            for (i, &byte) in from.iter().enumerate() {
                if Q4 {
                    (w[i], w[QUANT_BLOCK / 2 + i]) = ((byte & 15) as i8, (byte >> 4) as i8);
                } else {
                    w[i] = byte as i8;
                }
            }
            for (sums, x) in sums.iter_mut().zip(x) {
                // SAFETY: the caller's.
                let x = unsafe { x.cast::<[i8; QUANT_BLOCK]>().read_unaligned() };
                sums.0[i] = w.iter().zip(x).map(|(&w, x)| i32::from(i16::from(w) * i16::from(x))).sum();
            }
        }
        sums
    }
}
