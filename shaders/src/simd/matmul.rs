use super::call::Call;
use super::memory::Fault;
use super::product::{Outputs, Product, Rows, Target, check_columns, extent, size, size4};
use crate::params;
use crate::sizes::QUANT_BLOCK;
use crate::variant::Products;

/// `y = x Wᵀ + b` for many rows of x, or `y +=`; see the [CPU reference](crate::cpu::matmul).
pub(super) fn matmul(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MatMul = call.params()?;
    let (rows, n, k) = (size(p.rows), size(p.n), size4(p.k4));
    let part = if p.part4 == 0 { k } else { size4(p.part4).min(k) };
    // A whole sum over no columns is 0, but there are no parts then.
    let parts = if p.part4 == 0 { 1 } else { k.div_ceil(part.max(1)) };
    if rows == 0 || n == 0 || parts == 0 {
        return Ok(());
    }
    check_columns(call, k)?;
    let cuts_blocks = check_columns(call, part).is_err();
    let w = call.weight_rows(n, k)?;
    let (offset, stride) = (size4(p.x_offset4), size4(p.x_stride4));
    let x = Rows { values: call.read(1, extent(offset, stride, rows, k))?, offset, stride };
    let target = |part: usize| {
        let offset = size(p.y_part).saturating_mul(part).saturating_add(size(p.y_offset));
        let (add, bias) = (p.add != 0, p.bias != 0);
        Target::new(call, &Outputs { binding: 3, rows, n, offset, stride: size(p.y_stride), add, bias, gated: false })
    };
    // The last part needs the most room. Nothing may be written before all checks.
    target(parts - 1)?;
    let live: Vec<usize> = (0..rows).filter(|&row| !call.halted(row)).collect();
    for i in 0..parts {
        let columns = [i * part, part.min(k - i * part)];
        let target = target(i)?;
        if !cuts_blocks {
            Product { call, w, n, columns, x, live: &live, target: &target }.compute();
            continue;
        }
        // Blocks of activations would be cut too.
        let call = &Call { products: Products::F32, ..*call };
        let masked = masked(x, rows, k, columns);
        let x = Rows { values: &masked, offset: 0, stride: k };
        let begin = columns[0] / QUANT_BLOCK * QUANT_BLOCK;
        let columns = [begin, (columns[0] + columns[1]).next_multiple_of(QUANT_BLOCK) - begin];
        Product { call, w, n, columns, x, live: &live, target: &target }.compute();
    }
    Ok(())
}

/// Rows of `k` values with those of x in some columns and zeros elsewhere, for sums that cut blocks of weights. Only
/// weights in training would be summed in parts, and those have no blocks, so this need not be fast.
fn masked(x: Rows<'_>, rows: usize, k: usize, [begin, count]: [usize; 2]) -> Vec<f32> {
    let mut masked = vec![0.0; rows * k];
    for (row, masked) in masked.chunks_exact_mut(k.max(1)).enumerate() {
        masked[begin..begin + count].copy_from_slice(x.row(row, begin, count));
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::InstructionSet;
    use crate::simd::testing::{Run, Table, Threads, cases, words};
    use crate::{KernelId, WeightFormat};

    fn parts(p: &params::MatMul) -> u32 {
        if p.part4 == 0 { 1 } else { p.k4.div_ceil(p.part4) }
    }

    /// A run with noise in all bindings, and the expected y.
    fn run(format: WeightFormat, p: &params::MatMul) -> (Run, Vec<f32>) {
        let table = Table::new(format, 1, (p.n * 4 * p.k4) as usize);
        let x = noise(2, 4 * extent(size(p.x_offset4), size(p.x_stride4), size(p.rows), size(p.k4)), 1.0);
        // Without a bias, the binding has something else.
        let b = noise(3, if p.bias != 0 { size(p.n) } else { 1 }, 1.0);
        let offset = p.y_offset + (parts(p) - 1) * p.y_part;
        let y = noise(4, extent(size(offset), size(p.y_stride), size(p.rows), size(p.n)), 1.0);
        let mut expected = y.clone();
        cpu::matmul(p, table.matrix(), &x, &b, &mut expected);
        let bindings = vec![table.weights(), words(&x), words(&b), words(&y)];
        let mut run = Run::new(KernelId::MatMul, p, bindings, [p.n.div_ceil(64), p.rows.div_ceil(64), parts(p)]);
        (run.format, run.scales) = (format, table.scales());
        (run, expected)
    }

    fn check(format: WeightFormat, p: &params::MatMul) {
        let (run, expected) = run(format, p);
        run.all(|found| assert_close(found.f32(3), &expected, 2e-6));
        let run = Run { any_order: true, ..run };
        run.all(|found| assert_close(found.f32(3), &expected, 2e-6));
    }

    #[test]
    fn matches_the_reference() {
        for format in WeightFormat::ALL {
            for (i, k4) in if format.has_scales() { [8, 16, 24, 72] } else { [1, 3, 10, 67] }.into_iter().enumerate() {
                for (j, rows) in [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 26].into_iter().enumerate() {
                    let n = [1, 2, 3, 5, 8, 12, 31, 64, 101][(4 * i + j) % 9];
                    let (flag, other) = ((i + j) as u32 % 2, (i + j) as u32 / 2 % 2);
                    let p = params::MatMul {
                        rows,
                        n,
                        k4,
                        x_offset4: other,
                        x_stride4: k4 + flag,
                        y_offset: 3 * flag,
                        y_stride: n + 5 * other,
                        add: other,
                        bias: flag,
                        ..Default::default()
                    };
                    check(format, &p);
                }
            }
        }
    }

    #[test]
    fn parts_match_the_reference() {
        for format in WeightFormat::ALL {
            for (rows, part4) in cases([(3, 8), (9, 8), (9, 32), (2, 24), (17, 24)]) {
                let (n, k4) = (19, 72);
                let p = params::MatMul {
                    rows,
                    n,
                    k4,
                    x_stride4: k4,
                    y_offset: 2,
                    y_stride: n + 1,
                    part4,
                    y_part: (n + 1) * rows + 3,
                    add: rows % 2,
                    ..Default::default()
                };
                check(format, &p);
                if !format.has_scales() {
                    check(format, &params::MatMul { part4: part4 + 3, k4: k4 - 1, ..p });
                }
            }
        }
    }

    /// Rows so long that a block of W is packed in several segments.
    #[test]
    fn long_sums_match_the_reference() {
        for (format, k4) in cases([(WeightFormat::F32, 4099), (WeightFormat::Q4, 4096)]) {
            let p = params::MatMul { rows: 6, n: 13, k4, x_stride4: k4, y_stride: 13, ..Default::default() };
            check(format, &p);
        }
    }

    /// Sums that are added up in any order, of several chunks and segments.
    #[test]
    fn sums_in_any_order_match_the_reference() {
        for (rows, n, k4) in cases([(16, 1, 1), (17, 33, 3), (100, 70, 65), (49, 8200, 130), (130, 31, 1100)]) {
            for flag in [0, 1] {
                let (y_stride, add, bias) = (n + flag, flag, flag);
                let p = params::MatMul { rows, n, k4, x_stride4: k4 + flag, y_stride, add, bias, ..Default::default() };
                check(WeightFormat::F32, &p);
            }
        }
    }

    #[test]
    fn wide_matrices_match_the_reference() {
        for rows in cases([3, 7]) {
            let (n, k4) = (2500, 9);
            let p = params::MatMul { rows, n, k4, x_stride4: k4, y_stride: n, ..Default::default() };
            check(WeightFormat::F16, &p);
        }
    }

    /// A row's outputs have the same bits alone and among any number of rows, in both kernels.
    #[test]
    fn rows_have_the_same_bits_in_any_company() {
        let int8 = |format: &WeightFormat| format.has_scales().then_some((*format, Products::Int8));
        let all = WeightFormat::ALL.into_iter().map(|format| (format, Products::F32));
        for (format, products) in all.chain(WeightFormat::ALL.iter().filter_map(int8)) {
            for k4 in if format.has_scales() { [8, 40, 2056] } else { [7, 41, 2051] } {
                let (rows, n) = (23, 22);
                let all =
                    params::MatMul { rows, n, k4, x_stride4: k4, y_stride: n, bias: 1, add: 1, ..Default::default() };
                let (mut run, _) = run(format, &all);
                run.products = products;
                for instructions in InstructionSet::available() {
                    run.kernel = KernelId::MatMul;
                    run.params = bytemuck::bytes_of(&all).to_vec();
                    let y = run.bindings[3].clone();
                    let expected = run.once(instructions, &Threads(1)).expect("a valid call");
                    for (first, count) in
                        cases([(0, 1), (5, 1), (3, 2), (7, 3), (1, 4), (2, 5), (9, 6), (0, 11), (6, 17)])
                    {
                        let (x_offset4, y_offset) = (first * k4, first * n);
                        let some = params::MatMul { rows: count, x_offset4, y_offset, ..all };
                        let same = params::MatVec {
                            n,
                            k4,
                            x_offset4,
                            x_stride4: k4,
                            y_offset,
                            y_stride: n,
                            add: 1,
                            bias: 1,
                            ..Default::default()
                        };
                        let written = y_offset as usize..(y_offset + count * n) as usize;
                        let check = |kernel, params: &[u8], bindings: Vec<Vec<u32>>, grid| {
                            let scales = run.scales.clone();
                            let params = params.to_vec();
                            let fusion = run.fusion;
                            let (odd_rows, any_order, guard) = (None, false, None);
                            let again = Run {
                                kernel,
                                format,
                                fusion,
                                products,
                                params,
                                bindings,
                                scales,
                                odd_rows,
                                any_order,
                                guard,
                                grid,
                            };
                            let found = again.once(instructions, &Threads(2)).expect("a valid call");
                            let found = found.u32(again.bindings.len() - 1);
                            let name = instructions.name();
                            assert!(
                                found[written.clone()] == expected.u32(3)[written.clone()],
                                "{name} {format:?} {products:?} {kernel:?}: {count} of {rows} rows differ, k4 {k4}"
                            );
                            assert_eq!(found[..written.start], y[..written.start]);
                            assert_eq!(found[written.end..], y[written.end..]);
                        };
                        check(KernelId::MatMul, bytemuck::bytes_of(&some), run.bindings.clone(), [1, 1, 1]);
                        let mut bindings = run.bindings.clone();
                        bindings.insert(3, vec![0]);
                        check(KernelId::MatVec, bytemuck::bytes_of(&same), bindings, [count, 1, 1]);
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::MatMul { rows: 2, n: 3, k4: 8, x_stride4: 8, y_stride: 3, bias: 1, ..Default::default() };
        let (mut run, _) = run(WeightFormat::F32, &p);
        let mut fault = |p: &params::MatMul| {
            run.params = bytemuck::bytes_of(p).to_vec();
            run.fault()
        };
        assert_eq!(fault(&p), None);
        for p in [
            params::MatMul { rows: 3, ..p },
            params::MatMul { n: 4, ..p },
            params::MatMul { k4: 9, ..p },
            params::MatMul { x_offset4: 1, ..p },
            params::MatMul { x_stride4: 9, ..p },
            params::MatMul { y_offset: 1, ..p },
            params::MatMul { y_stride: 4, ..p },
            params::MatMul { part4: 4, y_part: 1, ..p },
            // Rows of y that overlap.
            params::MatMul { y_stride: 2, ..p },
            params::MatMul { rows: u32::MAX, x_stride4: u32::MAX, y_stride: u32::MAX, ..p },
            params::MatMul { n: u32::MAX, k4: u32::MAX, ..p },
        ] {
            assert!(fault(&p).is_some(), "{p:?}");
        }
    }

    #[test]
    fn parts_may_cut_blocks_of_weights() {
        for format in WeightFormat::ALL {
            for part4 in [1, 4, 7, 9, 15] {
                let k4 = 16;
                let (rows, n) = (3, 5);
                let p = params::MatMul {
                    rows,
                    n,
                    k4,
                    x_stride4: k4 + 1,
                    y_stride: n,
                    part4,
                    y_part: rows * n,
                    ..Default::default()
                };
                check(format, &p);
            }
        }
    }
}
