use half::f16;

use crate::Products;
use crate::cpu::noise::{assert_close, noise};
use crate::quant;
use crate::simd::InstructionSet;
use crate::simd::testing::{Run, Table, Threads, cases, words};
use crate::sizes::QUANT_BLOCK;
use crate::variant::Fusion;
use crate::{KernelId, WeightFormat, params};

const FORMATS: [WeightFormat; 2] = [WeightFormat::Q8, WeightFormat::Q4];

/// The integers and the scale of a block of activations.
fn quantized(x: &[f32]) -> (Vec<i32>, f32) {
    let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    if x.iter().any(|x| !x.is_finite()) {
        (vec![0; x.len()], f32::NAN)
    } else if most < 2.0f32.powi(-100) {
        (vec![0; x.len()], 0.0)
    } else {
        (x.iter().map(|x| (x * (127.0 / most)).round_ties_even() as i32).collect(), most / 127.0)
    }
}

/// A matrix of `k` columns.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    format: WeightFormat,
    k: usize,
    integers: &'a [u8],
    scales: &'a [f16],
}

impl Matrix<'_> {
    fn of(table: &Table, k: usize) -> Matrix<'_> {
        match table {
            Table::Q8(integers, scales) => Matrix { format: WeightFormat::Q8, k, integers, scales },
            Table::Q4(integers, scales) => Matrix { format: WeightFormat::Q4, k, integers, scales },
            _ => unreachable!("the format has no scales"),
        }
    }

    /// The definition of a product of row `row` of the matrix, from block `first` on, with x.
    fn product(self, row: usize, first: usize, x: &[f32], fused: bool) -> f32 {
        let ones = vec![f16::ONE; self.scales.len()];
        let mut y = 0.0f32;
        for (i, x) in x.chunks(QUANT_BLOCK).enumerate() {
            let at = row * self.k + (first + i) * QUANT_BLOCK;
            let (x, x_scale) = quantized(x);
            let weight = |j| quant::weight(self.format, self.integers, &ones, at + j) as i32;
            let dot = x.iter().enumerate().map(|(j, x)| x * weight(j)).sum::<i32>() as f32;
            let scale = self.scales[at / QUANT_BLOCK].to_f32() * x_scale;
            y = if fused { dot.mul_add(scale, y) } else { dot * scale + y };
        }
        y
    }
}

/// Runs a product in every instruction set, on one to three threads, and checks for the bits of the expected y, which
/// depends on whether a multiply-add rounds once.
fn check(run: &Run, y: usize, expected: impl Fn(bool) -> Vec<f32>) {
    for instructions in InstructionSet::available() {
        let expected = expected(instructions.name() != "portable");
        for threads in 1..=3 {
            let found = run.once(instructions, &Threads(threads)).expect("a valid call");
            for (i, (found, expected)) in found.f32(y).iter().zip(&expected).enumerate() {
                assert!(
                    found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                    "{} {:?} {:?}: output {i} is {found} instead of {expected}",
                    instructions.name(),
                    run.kernel,
                    run.format
                );
            }
        }
    }
}

/// `y = x Wᵀ` by matmul with whole rows.
fn matmul(table: &Table, x: &[f32], [rows, n, k]: [usize; 3]) -> Run {
    let [rows, n, k4] = [rows, n, k / 4].map(|size| size as u32);
    let p = params::MatMul { rows, n, k4, x_stride4: k4, y_stride: n, ..Default::default() };
    let bindings = vec![table.weights(), words(x), vec![0], vec![0; (rows * n) as usize]];
    let mut run = Run::new(KernelId::MatMul, &p, bindings, [1, 1, 1]);
    run.format = if matches!(table, Table::Q4(..)) { WeightFormat::Q4 } else { WeightFormat::Q8 };
    (run.scales, run.products) = (table.scales(), Products::Int8);
    run
}

fn check_matmul(table: &Table, x: &[f32], [rows, n, k]: [usize; 3]) {
    check(&matmul(table, x, [rows, n, k]), 3, |fused| {
        let output = |i: usize| Matrix::of(table, k).product(i % n, 0, &x[i / n * k..][..k], fused);
        (0..rows * n).map(output).collect()
    });
}

#[test]
fn products_match_their_definition() {
    for format in FORMATS {
        for (i, k) in cases([32, 64, 0, 96, 480, 512, 544, 2048]).enumerate() {
            for (j, rows) in cases([1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 18, 30]).enumerate() {
                let n = [1, 2, 7, 8, 15, 16, 17, 33, 49, 100][(5 * i + 3 * j) % 10];
                let table = Table::new(format, 1, n * k);
                check_matmul(&table, &noise(2, rows * k, 1.0), [rows, n, k]);
            }
        }
    }
}

#[test]
fn many_tasks_match_their_definition() {
    for format in FORMATS {
        for (rows, n, k) in cases([(1, 1603, 128), (7, 1603, 128), (70, 33, 65_536), (2, 20, 65_536)]) {
            let table = Table::new(format, 1, n * k);
            check_matmul(&table, &noise(2, rows * k, 1.0), [rows, n, k]);
        }
    }
}

/// Values at the ends of their ranges, whose sums are the largest ones.
#[test]
fn extreme_values_match_their_definition() {
    let k = 64;
    for (q8, q4) in [(0x80, 0x00), (0x7f, 0xff), (0x81, 0x88), (0, 0x0f)] {
        for x in [3.0, -3.0, 0.0, 1e-31, 1e-38, f32::MIN_POSITIVE / 8.0, f32::MAX, f32::INFINITY, f32::NAN] {
            for (rows, n) in [(1, 9), (9, 19)] {
                let scales = vec![f16::from_f32(0.5); n * k / QUANT_BLOCK];
                let mut values = vec![x; rows * k];
                if x.is_finite() {
                    values.iter_mut().skip(1).step_by(3).for_each(|x| *x = -*x);
                } else {
                    // One value in the second block of the first row.
                    values = noise(3, rows * k, 1.0);
                    values[37] = x;
                }
                check_matmul(&Table::Q8(vec![q8; n * k], scales.clone()), &values, [rows, n, k]);
                check_matmul(&Table::Q4(vec![q4; n * k / 2], scales), &values, [rows, n, k]);
            }
        }
    }
}

#[test]
fn not_a_number_stays_in_its_row() {
    for format in FORMATS {
        for rows in [1, 3, 9] {
            let (n, k) = (5, 96);
            let table = Table::new(format, 1, n * k);
            let mut x = noise(2, rows * k, 1.0);
            x[40] = f32::NEG_INFINITY;
            matmul(&table, &x, [rows, n, k]).all(|found| {
                let (first, rest) = found.f32(3).split_at(n);
                assert!(first.iter().all(|y| y.is_nan()) && rest.iter().all(|y| y.is_finite()));
            });
        }
    }
}

/// Results are close to those in f32.
#[test]
fn errors_are_small() {
    let (n, k) = (40, 2048);
    for format in FORMATS {
        for rows in [1, 20] {
            let table = Table::new(format, 1, n * k);
            let x = noise(2, rows * k, 1.0);
            let mut run = matmul(&table, &x, [rows, n, k]);
            for instructions in InstructionSet::available() {
                run.products = Products::F32;
                let expected = run.once(instructions, &Threads(1)).expect("a valid call");
                run.products = Products::Int8;
                let found = run.once(instructions, &Threads(1)).expect("a valid call");
                let squares = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>();
                let (found, expected) = (found.f32(3), expected.f32(3));
                let errors: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
                let error = (squares(&errors) / squares(expected)).sqrt();
                assert!(error > 1e-5 && error < 1e-2, "{error}");
            }
        }
    }
}

/// Parts of sums, with offsets, a bias and `y +=`. Parts that cut blocks are computed in f32.
#[test]
fn parts_match_their_definition() {
    let (rows, n, k) = (9, 19, 288);
    for format in FORMATS {
        let table = Table::new(format, 1, n * k);
        for rows in [2, rows] {
            for part in [288, 96, 32, 64, 100] {
                let (x_stride, y_stride) = (k + 4, n + 1);
                let (x, b) = (noise(2, 8 + rows * x_stride, 1.0), noise(3, n, 1.0));
                let parts = k.div_ceil(part);
                let y = noise(4, 3 + parts * rows * y_stride, 1.0);
                let size = |size: usize| size as u32;
                let p = params::MatMul {
                    rows: size(rows),
                    n: size(n),
                    k4: size(k / 4),
                    x_offset4: 2,
                    x_stride4: size(x_stride / 4),
                    y_offset: 3,
                    y_stride: size(y_stride),
                    part4: size(part / 4),
                    y_part: size(rows * y_stride),
                    add: 1,
                    bias: 1,
                };
                let bindings = vec![table.weights(), words(&x), words(&b), words(&y)];
                let mut run = Run::new(KernelId::MatMul, &p, bindings, [1, 1, parts as u32]);
                (run.format, run.scales, run.products) = (format, table.scales(), Products::Int8);
                if part % QUANT_BLOCK != 0 {
                    let found = run.once(InstructionSet::best(), &Threads(2)).expect("a valid call");
                    run.products = Products::F32;
                    let expected = run.once(InstructionSet::best(), &Threads(2)).expect("a valid call");
                    assert!(found.u32(3) == expected.u32(3));
                    continue;
                }
                check(&run, 3, |fused| {
                    let mut y = y.clone();
                    for i in 0..parts {
                        for row in 0..rows {
                            let x = &x[8 + row * x_stride + i * part..][..part.min(k - i * part)];
                            for j in 0..n {
                                let sum = Matrix::of(&table, k).product(j, i * part / QUANT_BLOCK, x, fused);
                                y[3 + (i * rows + row) * y_stride + j] += sum + b[j];
                            }
                        }
                    }
                    y
                });
            }
        }
    }
}

/// A run of matvec.
fn matvec(table: &Table, p: &params::MatVec, x: &[f32], scale: &[f32], fusion: Fusion, rows: usize) -> Run {
    let y = noise(5, rows * p.y_stride as usize, 1.0);
    let b = noise(3, p.n as usize, 1.0);
    let bindings = vec![table.weights(), words(x), words(&b), words(scale), words(&y)];
    let mut run = Run::new(KernelId::MatVec, p, bindings, [rows as u32, 1, 1]);
    run.format = if matches!(table, Table::Q4(..)) { WeightFormat::Q4 } else { WeightFormat::Q8 };
    (run.scales, run.fusion, run.products) = (table.scales(), fusion, Products::Int8);
    run
}

#[test]
fn matvec_skips_halted_rows() {
    let (n, k) = (37, 160);
    for format in FORMATS {
        let table = Table::new(format, 1, n * k);
        for (rows, halted) in [(1, &[][..]), (3, &[1]), (6, &[0, 5]), (9, &[2]), (9, &[0, 1, 2, 4, 5, 6, 7])] {
            let (n4, k4) = (n as u32, k as u32 / 4);
            let p = params::MatVec {
                n: n4,
                k4,
                x_stride4: k4,
                y_stride: n4,
                add: 1,
                bias: 1,
                eps: 0.0,
                ..Default::default()
            };
            let x = noise(2, rows * k, 1.0);
            let mut run = matvec(&table, &p, &x, &[0.0], Fusion::default(), rows);
            let mut flags = vec![0; 64 * rows];
            halted.iter().for_each(|row: &usize| flags[64 * row] = 1);
            run.guard = Some(flags);
            let (y, b) = (noise(5, rows * n, 1.0), noise(3, n, 1.0));
            check(&run, 4, |fused| {
                let mut y = y.clone();
                for row in (0..rows).filter(|row| !halted.contains(row)) {
                    for j in 0..n {
                        let sum = Matrix::of(&table, k).product(j, 0, &x[row * k..][..k], fused);
                        y[row * n + j] += sum + b[j];
                    }
                }
                y
            });
        }
    }
}

#[test]
fn outputs_may_be_gated() {
    let (n, k) = (98, 96);
    for format in FORMATS {
        let table = Table::new(format, 1, n * k);
        for rows in [1, 2, 5, 12] {
            let (n4, k4) = (n as u32, k as u32 / 4);
            let p = params::MatVec { n: n4, k4, x_stride4: k4, y_stride: n4 / 2, ..Default::default() };
            let x = noise(2, rows * k, 1.0);
            let run = matvec(&table, &p, &x, &[0.0], Fusion { gated: true, ..Fusion::default() }, rows);
            let sum = |row: usize, j: usize| Matrix::of(&table, k).product(j, 0, &x[row * k..][..k], true);
            let gated = |i: usize| {
                let [gate, up] = [0, 1].map(|odd| sum(i / (n / 2), i % (n / 2) * 2 + odd));
                gate / (1.0 + (-gate).exp()) * up
            };
            let expected: Vec<f32> = (0..rows * n / 2).map(gated).collect();
            run.all(|found| assert_close(found.f32(4), &expected, 4e-6));
        }
    }
}

/// With normalization fused, the product has the bits of two kernels.
#[test]
fn rows_may_be_normalized() {
    let (n, k) = (34, 128);
    for format in FORMATS {
        let table = Table::new(format, 1, n * k);
        for rows in [1, 3, 8, 11] {
            let (n4, k4, eps) = (n as u32, k as u32 / 4, 1e-3);
            let (x, scale) = (noise(2, rows * k, 1.0), noise(4, k, 1.0));
            let norm = params::RmsNorm {
                rows: rows as u32,
                groups: 1,
                dim4: k4,
                x_stride4: k4,
                y_stride4: k4,
                eps,
                ..Default::default()
            };
            let bindings = vec![words(&scale), words(&x), vec![0; rows * k]];
            let norm = Run::new(KernelId::RmsNorm, &norm, bindings, [1, 1, 1]);
            let p = params::MatVec { n: n4, k4, x_stride4: k4, y_stride: n4, eps, ..Default::default() };
            let fused = matvec(&table, &p, &x, &scale, Fusion { norm: true, ..Fusion::default() }, rows);
            for instructions in InstructionSet::available() {
                let x = norm.once(instructions, &Threads(1)).expect("a valid call");
                let apart = matvec(&table, &p, x.f32(2), &[0.0], Fusion::default(), rows);
                let [expected, found] = [&apart, &fused].map(|run| {
                    let found = run.once(instructions, &Threads(2)).expect("a valid call");
                    found.u32(4).to_vec()
                });
                assert!(found == expected, "{} {format:?} {rows}", instructions.name());
            }
        }
    }
}
