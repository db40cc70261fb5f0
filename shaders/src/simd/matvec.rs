use super::call::Call;
use super::memory::{Fault, Output};
use super::product::{Outputs, Product, Rows, Target, check_columns, extent, size, size4};
use super::rms_norm::Group;
use super::scratch::with_shared;
use crate::params;

/// `y = x Wᵀ + b` for few rows of x, or `y +=`; see the [CPU reference](crate::cpu::matvec).
pub(super) fn matvec(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MatVec = call.params()?;
    let (rows, n, k) = (size(call.grid[0]), size(p.n), size4(p.k4));
    if rows == 0 || n == 0 {
        return Ok(());
    }
    check_columns(call, k)?;
    let w = call.weight_rows(n, k)?;
    let (offset, stride) = (size4(p.x_offset4), size4(p.x_stride4));
    let x = Rows { values: call.read(1, extent(offset, stride, rows, k))?, offset, stride };
    let scale = if call.fusion.norm { call.read(3, k)? } else { &[] };
    let gated = call.fusion.gated;
    let target = Target::new(
        call,
        &Outputs {
            binding: 4,
            rows,
            n,
            offset: size(p.y_offset),
            stride: size(p.y_stride),
            add: p.add != 0,
            bias: p.bias != 0,
            gated,
        },
    )?;
    let live: Vec<usize> = (0..rows).filter(|&row| !call.halted(row)).collect();
    let n = if gated { n / 2 * 2 } else { n };
    let product = Product { call, w, n, columns: [0, k], x, live: &live, target: &target };
    if call.fusion.norm {
        with_normalized(call, &product, scale, p.eps);
    } else {
        product.compute();
    }
    Ok(())
}

/// Computes the product with normalized rows of x. `scale` is `[k]`.
fn with_normalized(call: &Call<'_>, product: &Product<'_>, scale: &[f32], eps: f32) {
    let &Product { w, n, columns, x, live, target, .. } = product;
    let k = w.k;
    let rows = live.last().map_or(0, |last| last + 1);
    with_shared(rows * k, |values| {
        let normalized = Output::from(&mut *values);
        call.each(live.len(), 4 * live.len() * k, |i| {
            let row = live[i];
            // SAFETY: every task has a row of its own.
            let y = unsafe { normalized.slice(row * k..(row + 1) * k) };
            call.instructions.run(Group { scale, x: x.row(row, 0, k), y, eps, add: false });
        });
        let x = Rows { values, offset: 0, stride: k };
        Product { call, w, n, columns, x, live, target }.compute();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Products;
    use crate::cpu;
    use crate::cpu::MatVecInputs;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::InstructionSet;
    use crate::simd::testing::{Run, Table, Threads, cases, words};
    use crate::variant::Fusion;
    use crate::{KernelId, WeightFormat};

    fn check(format: WeightFormat, fusion: Fusion, rows: u32, p: &params::MatVec, halted: &[usize]) {
        let k = size4(p.k4);
        let table = Table::new(format, 1, size(p.n) * k);
        let x = noise(2, extent(size4(p.x_offset4), size4(p.x_stride4), size(rows), k), 1.0);
        // Placeholders are smaller than what they stand for.
        let b = noise(3, if p.bias != 0 { size(p.n) } else { 1 }, 1.0);
        let scale = noise(4, if fusion.norm { k } else { 1 }, 1.0);
        let width = if fusion.gated { p.n / 2 } else { p.n };
        let y = noise(5, extent(size(p.y_offset), size(p.y_stride), size(rows), size(width)), 1.0);
        let mut expected = y.clone();
        let inputs = MatVecInputs { w: table.matrix(), x: &x, b: &b, scale: &scale };
        cpu::matvec(p, fusion, rows, inputs, &mut expected);
        for row in halted {
            let at = size(p.y_offset) + row * size(p.y_stride);
            let outputs = at..at + size(width);
            expected[outputs.clone()].copy_from_slice(&y[outputs]);
        }
        let bindings = vec![table.weights(), words(&x), words(&b), words(&scale), words(&y)];
        let mut run = Run::new(KernelId::MatVec, p, bindings, [rows, p.n.div_ceil(32), 1]);
        (run.format, run.scales, run.fusion) = (format, table.scales(), fusion);
        if !halted.is_empty() {
            let mut flags = vec![0; 64 * rows as usize];
            halted.iter().for_each(|row| flags[64 * row] = 1);
            run.guard = Some(flags);
        }
        run.all(|found| assert_close(found.f32(4), &expected, 4e-6));
    }

    #[test]
    fn matches_the_reference() {
        for format in WeightFormat::ALL {
            for (i, k4) in if format.has_scales() { [8, 16, 56] } else { [1, 6, 35] }.into_iter().enumerate() {
                for (j, fusion) in Fusion::ALL.into_iter().enumerate() {
                    for (l, rows) in [1, 2, 3, 4, 5, 8, 11].into_iter().enumerate() {
                        let n = [2, 4, 6, 10, 34, 64, 98][(i + 2 * j + 3 * l) % 7] - (!fusion.gated as usize & l);
                        let n = n.max(1) as u32;
                        let (flag, other) = ((i + j + l) as u32 % 2, (i + j + l) as u32 / 2 % 2);
                        let p = params::MatVec {
                            n,
                            k4,
                            x_offset4: other,
                            x_stride4: k4 + flag,
                            y_offset: flag,
                            y_stride: n + 3 * other,
                            add: other,
                            bias: flag,
                            eps: 1e-3,
                        };
                        check(format, fusion, rows, &p, &[]);
                    }
                }
            }
        }
    }

    #[test]
    fn halted_rows_are_skipped() {
        for fusion in Fusion::ALL {
            let p =
                params::MatVec { n: 38, k4: 24, x_stride4: 24, y_stride: 38, add: 1, eps: 1e-3, ..Default::default() };
            for (rows, halted) in [(1, &[0][..]), (3, &[1]), (6, &[0, 5]), (9, &[2]), (9, &[0, 1, 2, 4, 5, 6, 7])] {
                check(WeightFormat::Q8, fusion, rows, &p, halted);
            }
        }
    }

    #[test]
    fn many_tasks_match_the_reference() {
        for format in WeightFormat::ALL {
            let (n, k4) = (1602, 32);
            let p = params::MatVec { n, k4, x_stride4: k4, y_stride: n, bias: 1, ..Default::default() };
            for (rows, gated) in cases([(1, false), (2, true), (7, true)]) {
                check(format, Fusion { gated, ..Fusion::default() }, rows, &p, &[]);
            }
        }
    }

    /// Every other row of `n` rows of bytes, the even and the odd ones.
    fn alternate(bytes: &[u8], n: usize) -> [Vec<u8>; 2] {
        let rows = || bytes.chunks_exact(bytes.len() / n);
        [0, 1].map(|first| rows().skip(first).step_by(2).flatten().copied().collect())
    }

    /// A matrix whose rows lie in turns in two tensors gives the bits of the matrix in one tensor, in both products.
    #[test]
    fn odd_rows_may_be_apart() {
        let int8 = |format: &WeightFormat| format.has_scales().then_some((*format, Products::Int8));
        let all = WeightFormat::ALL.into_iter().map(|format| (format, Products::F32));
        for (format, products) in all.chain(WeightFormat::ALL.iter().filter_map(int8)) {
            for (rows, n) in cases([(1, 6), (1, 7), (3, 38), (8, 98), (9, 98), (30, 51)]) {
                let k4 = 24;
                let table = Table::new(format, 1, (n * 4 * k4) as usize);
                let (x, y) = (noise(2, (rows * 4 * k4) as usize, 1.0), vec![0.0; (rows * n) as usize]);
                let [even, odd] = alternate(&table.matrix_bytes(), n as usize);
                let scales = table.scale_bytes().map(|scales| alternate(&scales, n as usize));
                let vec = params::MatVec { n, k4, x_stride4: k4, y_stride: n, ..Default::default() };
                let mul = params::MatMul { rows, n, k4, x_stride4: k4, y_stride: n, ..Default::default() };
                for gated in [false, true] {
                    let of = |kernel, w: &[u8], scales: Option<&Vec<u8>>| {
                        let mut bindings = vec![words(w), words(&x), vec![0], words(&y)];
                        let params = match kernel {
                            KernelId::MatVec => {
                                bindings.insert(3, vec![0]);
                                bytemuck::bytes_of(&vec).to_vec()
                            }
                            _ => bytemuck::bytes_of(&mul).to_vec(),
                        };
                        let mut run = Run::new(kernel, &vec, bindings, [rows, 1, 1]);
                        (run.format, run.params, run.scales) = (format, params, scales.map(|scales| words(scales)));
                        run.products = products;
                        run.fusion.gated = gated && kernel == KernelId::MatVec;
                        run
                    };
                    for kernel in [KernelId::MatVec, KernelId::MatMul] {
                        let together = of(kernel, &table.matrix_bytes(), table.scale_bytes().as_ref());
                        let mut apart = of(kernel, &even, scales.as_ref().map(|[even, _]| even));
                        apart.odd_rows = Some((words(&odd), scales.as_ref().map(|[_, odd]| words(odd))));
                        for instructions in InstructionSet::available() {
                            let [found, expected] = [&apart, &together].map(|run| {
                                let found = run.once(instructions, &Threads(2)).expect("a valid call");
                                found.u32(run.bindings.len() - 1).to_vec()
                            });
                            assert!(found == expected, "{} {format:?} {kernel:?} {rows} {n}", instructions.name());
                        }
                        apart.odd_rows = Some((vec![0], None));
                        assert!(apart.fault().is_some());
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::MatVec { n: 2, k4: 8, x_stride4: 8, y_stride: 2, ..Default::default() };
        let bindings = vec![vec![0; 64], vec![0; 64], vec![0; 1], vec![0; 1], vec![0; 4]];
        let mut run = Run::new(KernelId::MatVec, &p, bindings, [2, 1, 1]);
        assert_eq!(run.fault(), None);
        run.grid[0] = 3;
        assert!(run.fault().is_some());
        run.grid[0] = 2;
        run.fusion.norm = true;
        assert!(run.fault().is_some());
        run.fusion.norm = false;
        for p in [
            params::MatVec { n: 3, ..p },
            params::MatVec { k4: 9, ..p },
            params::MatVec { bias: 1, ..p },
            params::MatVec { x_offset4: 1, ..p },
            params::MatVec { y_offset: 1, ..p },
            params::MatVec { y_stride: 1, ..p },
            params::MatVec { n: u32::MAX, k4: u32::MAX, ..p },
        ] {
            run.params = bytemuck::bytes_of(&p).to_vec();
            assert!(run.fault().is_some(), "{p:?}");
        }
        // No scales are bound.
        (run.params, run.format) = (bytemuck::bytes_of(&p).to_vec(), WeightFormat::Q8);
        assert!(run.fault().is_some());
    }
}
