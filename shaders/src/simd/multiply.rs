//! Computing a product, in the form that suits its number of rows.

use std::marker::PhantomData;

use super::direct::Direct;
use super::instruction_set::Task;
use super::packed::{Packed, pack_tile};
use super::product::Product;
use super::scratch::with_shared;
use super::transposed::{LEAST_ROWS, Transposed};
use super::vector::Vector;
use super::weights::{F16, F32, MAX_DIRECT_ROWS, Q4, Q8, WeightRows, Weights};
use crate::cpu::Matrix;
#[cfg(not(target_family = "wasm"))]
use crate::variant::Products;

/// Weights of a task of [`Direct`], about.
const TASK_WEIGHTS: usize = 1 << 16;

impl Product<'_> {
    /// Computes the product.
    pub(super) fn compute(self) {
        if self.live.is_empty() || self.n == 0 {
            return;
        }
        #[cfg(not(target_family = "wasm"))]
        if self.call.products == Products::Int8 && self.call.format.has_scales() {
            return self.compute_int8();
        }
        self.call.instructions.run(self);
    }

    #[inline(always)]
    fn with_weights<V: Vector, W: Weights>(&self, w: WeightRows<W>) {
        if self.live.len() > W::DIRECT_ROWS {
            return Packed::new::<V>(self, w).compute::<V>();
        }
        let [begin, count] = self.columns;
        let mut x = [&[] as &[f32]; MAX_DIRECT_ROWS];
        for (x, row) in x.iter_mut().zip(self.live) {
            *x = self.x.row(*row, begin, count);
        }
        if !W::REORDERED {
            return self.direct(w, x);
        }
        // All tasks read x in another order, so it is restored once.
        with_shared(self.live.len() * count, |shared| {
            let mut reordered = [&[] as &[f32]; MAX_DIRECT_ROWS];
            for ((to, values), x) in reordered.iter_mut().zip(shared.chunks_exact_mut(count.max(1))).zip(x) {
                self.call.instructions.run(Reorder::<W> { x, to: &mut *values, weights: PhantomData });
                *to = values;
            }
            self.direct(w, reordered);
        });
    }

    fn direct<W: Weights>(&self, w: WeightRows<W>, x: [&[f32]; MAX_DIRECT_ROWS]) {
        let [begin, count] = self.columns;
        // A multiple of four rows, so that only the last task has other tiles and pairs stay together.
        let rows = (TASK_WEIGHTS / count.max(1)).next_multiple_of(4).max(4);
        self.call.each(self.n.div_ceil(rows), self.cost(), |i| {
            let rows = [i * rows, ((i + 1) * rows).min(self.n)];
            let (live, target) = (self.live, self.target);
            self.call.instructions.run(Direct { w, begin, rows, x, live, target });
        });
    }
}

/// Copies a row of x in the order of weights that consist of whole blocks.
struct Reorder<'a, W> {
    x: &'a [f32],
    /// As long as `x`.
    to: &'a mut [f32],
    weights: PhantomData<W>,
}

impl<W: Weights> Task for Reorder<'_, W> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let count = self.x.len();
        // SAFETY: there is one row, and it has `count` values.
        unsafe { pack_tile::<V, _>(|_| W::X::from(self.x.as_ptr()), 1, [0, count], 0, self.to) };
    }
}

impl Task for Product<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let WeightRows { k, tensors, alternate } = self.w;
        match tensors {
            [Matrix::F32(a), Matrix::F32(b)] => {
                let w = WeightRows { k, tensors: [F32(a), F32(b)], alternate };
                if self.call.any_order && self.live.len() >= LEAST_ROWS {
                    return Transposed::new(&self, w).compute::<V>();
                }
                self.with_weights::<V, _>(w);
            }
            [Matrix::F16(a), Matrix::F16(b)] => {
                self.with_weights::<V, _>(WeightRows { k, tensors: [F16(a), F16(b)], alternate });
            }
            [Matrix::Q8(a, scales), Matrix::Q8(b, other)] => {
                self.with_weights::<V, _>(WeightRows { k, tensors: [Q8(a, scales), Q8(b, other)], alternate });
            }
            [Matrix::Q4(a, scales), Matrix::Q4(b, other)] => {
                self.with_weights::<V, _>(WeightRows { k, tensors: [Q4(a, scales), Q4(b, other)], alternate });
            }
            _ => unreachable!("both tensors are read in the format of the call"),
        }
    }
}
