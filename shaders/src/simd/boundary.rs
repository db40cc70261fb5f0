use super::call::{Call, product};
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// The cosine between q of a byte and k of the next byte; see the [CPU reference](crate::cpu::boundary).
pub(super) fn boundary(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::Boundary = call.params()?;
    let (rows, dim) = (p.rows as usize, product(&[4, p.dim4 as usize]));
    if rows == 0 {
        return Ok(());
    }
    let x = call.read(0, product(&[rows.saturating_add(1), 2, dim]))?;
    let cosine = call.write(1, rows)?;
    call.each(rows, product(&[3, rows, dim]), |row| {
        if call.halted(row) {
            return;
        }
        let (q, k) = (2 * row * dim, (2 * row + 3) * dim);
        // SAFETY: every task has a row of its own.
        let cosine = unsafe { cosine.slice(row..row + 1) };
        call.instructions.run(Cosine { q: &x[q..q + dim], k: &x[k..k + dim], cosine: &mut cosine[0] });
    });
    Ok(())
}

/// The cosine between q and k, `[dim]`.
struct Cosine<'a> {
    q: &'a [f32],
    k: &'a [f32],
    cosine: &'a mut f32,
}

impl Task for Cosine<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let [product, squares @ ..] = dot_products::<V>(self.q, self.k);
        let lengths = squares.map(|squares| squares.sqrt().max(1e-12));
        *self.cosine = product / (lengths[0] * lengths[1]);
    }
}

/// The dot products of q and k, of q with itself and of k with itself, both `[dim]`.
#[inline(always)]
pub(super) fn dot_products<V: Vector>(q: &[f32], k: &[f32]) -> [f32; 3] {
    let zero = V::splat(0.0);
    let (mut products, mut q_squares, mut k_squares) = (zero, zero, zero);
    for (q, k) in q.chunks(V::LANES).zip(k.chunks(V::LANES)) {
        let lanes = q.len().min(k.len());
        // SAFETY: both chunks have at least `lanes` values.
        let (q, k) = unsafe { (V::load_first(q.as_ptr(), lanes), V::load_first(k.as_ptr(), lanes)) };
        products = q.mul_add(k, products);
        q_squares = q.mul_add(q, q_squares);
        k_squares = k.mul_add(k, k_squares);
    }
    [products.sum(), q_squares.sum(), k_squares.sum()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::InstructionSet;
    use crate::simd::testing::{Run, Threads, cases, words};

    fn run(p: &params::Boundary, x: &[f32], cosine: &[f32]) -> Run {
        Run::new(KernelId::Boundary, p, vec![words(x), words(cosine)], [p.rows, 1, 1])
    }

    #[test]
    fn matches_the_reference() {
        for (rows, dim4) in cases([(1, 1), (2, 2), (5, 3), (9, 16), (40, 33), (70, 256)]) {
            let p = params::Boundary { rows, dim4 };
            let mut x = noise(1, (rows as usize + 1) * 8 * dim4 as usize, 2.0);
            // The first byte has a q of zeros.
            x[..4 * dim4 as usize].fill(0.0);
            let mut expected = vec![5.0; rows as usize + 1];
            cpu::boundary(&p, &x, &mut expected);
            run(&p, &x, &vec![5.0; rows as usize + 1]).all(|found| assert_close(found.f32(1), &expected, 2e-6));
        }
    }

    #[test]
    fn halted_rows_are_skipped() {
        let p = params::Boundary { rows: 3, dim4: 2 };
        let mut run = run(&p, &noise(1, 64, 1.0), &[5.0; 3]);
        let mut guard = vec![0; 129];
        guard[64] = 1;
        run.guard = Some(guard);
        run.all(|found| {
            assert!(found.f32(1)[0] <= 1.0 && found.f32(1)[2] <= 1.0);
            assert_eq!(found.f32(1)[1], 5.0);
        });
    }

    #[test]
    fn short_bindings_are_refused() {
        let p = params::Boundary { rows: 3, dim4: 2 };
        for (x, cosine) in cases([(63, 3), (64, 2)]) {
            let run = run(&p, &vec![1.0; x], &vec![0.0; cosine]);
            assert!(run.once(InstructionSet::best(), &Threads(1)).is_err());
        }
        let run = run(&params::Boundary { rows: u32::MAX, dim4: u32::MAX }, &[1.0; 64], &[0.0; 3]);
        assert!(run.once(InstructionSet::best(), &Threads(1)).is_err());
    }
}
