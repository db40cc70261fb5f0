//! Kernels over rows: lookups, norms, products and the gated product.

use bolmo_runtime::Engine;
use bolmo_runtime::unstable::matmul_tile;
use bolmo_shaders::cpu::Matrix;
use bolmo_shaders::params::{Copy, GatherRows, MatMul, MatVec, RmsNorm, SiluMul};
use bolmo_shaders::sizes::{COPY_SLICE4, WORKGROUP};
use bolmo_shaders::{Fusion, KernelId, WeightFormat, cpu};
use half::f16;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestCaseError, TestCaseResult};

use super::harness::{
    EPS, Noise, Rows, Weights, Worst, bytes, edges, fitting4, forms, hold, magnitudes, run, run_fused, size, streaming,
};

#[derive(Debug, Clone)]
struct Gather {
    count: usize,
    dim4: usize,
    first_row: usize,
    rows: usize,
    y_row: usize,
    add: bool,
    seed: u64,
}

pub fn gather_rows() {
    let base = Gather { count: 6, dim4: 3, first_row: 2, rows: 4, y_row: 1, add: false, seed: 1 };
    let wide = edges(129).flat_map(|dim4| [false, true].map(|add| Gather { dim4, add, ..base.clone() }));
    let long = edges(129).map(|count| Gather { count, ..base.clone() });
    let tables = edges(65).map(|rows| Gather { rows, count: 40, first_row: 0, ..base.clone() });
    let drawn = (size(40), size(140), 0..9usize, size(40), 0..4usize, any::<bool>(), any::<u64>()).prop_map(
        |(count, dim4, first_row, rows, y_row, add, seed)| Gather { count, dim4, first_row, rows, y_row, add, seed },
    );
    hold(KernelId::GatherRows, wide.chain(long).chain(tables).collect::<Vec<_>>(), drawn, gather_rows_case);
}

fn gather_rows_case(worst: &Worst, case: &Gather) -> TestCaseResult {
    forms(KernelId::GatherRows).into_iter().try_for_each(|form| gather_rows_form(worst, case, form))
}

fn gather_rows_form(worst: &Worst, case: &Gather, form: (&Engine, WeightFormat)) -> TestCaseResult {
    let &Gather { count, dim4, first_row, rows, y_row, add, seed } = case;
    let dim4 = fitting4(form.1, dim4);
    let mut noise = Noise::new(seed);
    let p = GatherRows {
        count: count as u32,
        dim4: dim4 as u32,
        first_row: first_row as u32,
        rows: rows as u32,
        add: add.into(),
        y_row: y_row as u32,
    };
    let w = Weights::new(noise.rows(Rows::dense(rows, 4 * dim4), 1.0));
    // Some rows are in the pieces before and after this one, one as far away as possible.
    let mut index: Vec<u32> = (0..count).map(|_| noise.below(first_row + rows + 3) as u32).collect();
    index[noise.below(count)] = u32::MAX;
    index[noise.below(count)] = (first_row + rows - 1) as u32;
    let y_rows = Rows { offset: y_row * 4 * dim4, ..Rows::dense(count, 4 * dim4) };
    let mut y = y_rows.output();
    if add {
        noise.fill(&mut y, y_rows, 1.0);
    }
    // One row more than there is, which the kernel must leave out.
    let grid = [dim4.div_ceil(WORKGROUP as usize), count + 1, 1];
    let bindings = w.with_scales(form.1, &[w.bytes(form.1), bytes(&index), bytes(&y)]);
    let found = run(form, KernelId::GatherRows, &p, &bindings, grid)?;
    let mut expected = y.clone();
    cpu::gather_rows(&p, w.matrix(form.1), &index, &mut expected);
    // A copy or one sum, rounded alike by both; a device may fuse the product with a scale and the sum.
    let bound = if form.1.has_scales() { 2.0 * EPS } else { 0.0 };
    worst.compare("y", &found[2], &expected, |_| bound)
}

#[derive(Debug, Clone)]
struct Norm {
    rows: usize,
    groups: usize,
    dim4: usize,
    offsets4: [usize; 2],
    gaps4: [usize; 2],
    add: bool,
    eps: f32,
    size: f32,
    seed: u64,
}

pub fn rms_norm() {
    let base = Norm {
        rows: 2,
        groups: 2,
        dim4: 5,
        offsets4: [1, 2],
        gaps4: [3, 1],
        add: false,
        eps: 1e-6,
        size: 1.0,
        seed: 2,
    };
    let dims = edges(129).flat_map(|dim4| [false, true].map(|add| Norm { dim4, add, ..base.clone() }));
    let rows = edges(65).map(|rows| Norm { rows, ..base.clone() });
    let groups = edges(65).map(|groups| Norm { groups, ..base.clone() });
    let widest = [255, 256, 257, 1024].map(|dim4| Norm { dim4, groups: 1, ..base.clone() });
    let zeros = [Norm { size: 0.0, ..base.clone() }];
    let drawn = (
        (size(9), size(9), size(140)),
        ([0..3usize, 0..3], [0..3usize, 0..3]),
        any::<bool>(),
        select(vec![1e-6f32, 1e-5, 0.5]),
        select(vec![1e-3f32, 1.0, 1e3]),
        any::<u64>(),
    )
        .prop_map(|((rows, groups, dim4), (offsets4, gaps4), add, eps, size, seed)| Norm {
            rows,
            groups,
            dim4,
            offsets4,
            gaps4,
            add,
            eps,
            size,
            seed,
        });
    let edges = dims.chain(rows).chain(groups).chain(widest).chain(zeros);
    hold(KernelId::RmsNorm, edges.collect::<Vec<_>>(), drawn, rms_norm_case);
}

fn rms_norm_case(worst: &Worst, case: &Norm) -> TestCaseResult {
    let &Norm { rows, groups, dim4, offsets4, gaps4, add, eps, size, seed } = case;
    let mut noise = Noise::new(seed);
    let strides4 = gaps4.map(|gap| groups * dim4 + gap);
    let [x_rows, y_rows] =
        [0, 1].map(|i| Rows { rows, width: 4 * groups * dim4, offset: 4 * offsets4[i], stride: 4 * strides4[i] });
    let p = RmsNorm {
        rows: rows as u32,
        groups: groups as u32,
        dim4: dim4 as u32,
        x_offset4: offsets4[0] as u32,
        x_stride4: strides4[0] as u32,
        y_offset4: offsets4[1] as u32,
        y_stride4: strides4[1] as u32,
        add: add.into(),
        eps,
    };
    let scale = noise.rows(Rows::dense(1, 4 * dim4), 2.0);
    let x = noise.rows(x_rows, size);
    let mut y = y_rows.output();
    if add {
        noise.fill(&mut y, y_rows, 1.0);
    }
    let mut expected = y.clone();
    cpu::rms_norm(&p, &scale, &x, &mut expected);
    let mut sums = magnitudes(&y);
    cpu::rms_norm(&p, &magnitudes(&scale), &magnitudes(&x), &mut sums);
    for form in forms(KernelId::RmsNorm) {
        let found = run(form, KernelId::RmsNorm, &p, &[bytes(&scale), bytes(&x), bytes(&y)], [groups, rows, 1])?;
        // Squares add up over dim / 256 values a lane and 16 steps from lane to lane; root, quotient and products are a
        // few units more.
        let roundings = dim4 as f64 / 64.0 + 24.0;
        worst.compare("y", &found[2], &expected, |i| roundings * EPS * f64::from(sums[i]))?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Linear {
    rows: usize,
    n: usize,
    k4: usize,
    x_offset4: usize,
    x_gap4: usize,
    y_offset: usize,
    y_gap: usize,
    add: bool,
    bias: bool,
    seed: u64,
}

const LINEAR: Linear =
    Linear { rows: 3, n: 5, k4: 3, x_offset4: 1, x_gap4: 2, y_offset: 3, y_gap: 4, add: false, bias: false, seed: 3 };

impl Linear {
    /// Every edge up to the maxima in one size, the others small, with every choice of add and bias in turn.
    fn edges(max_rows: usize, max_n: usize, max_k4: usize) -> Vec<Self> {
        let rows = edges(max_rows).map(|rows| Self { rows, ..LINEAR });
        let columns = edges(max_n).map(|n| Self { n, ..LINEAR });
        let depths = edges(max_k4).map(|k4| Self { k4, ..LINEAR });
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        let all = rows.chain(columns).chain(depths).zip(flags.into_iter().cycle());
        all.map(|(case, (add, bias))| Self { add, bias, ..case }).collect()
    }

    fn drawn(max_rows: usize, max_n: usize, max_k4: usize) -> impl Strategy<Value = Self> {
        let sizes = (size(max_rows), size(max_n), size(max_k4));
        let places = (0..3usize, 0..3usize, 0..9usize, 0..9usize);
        (sizes, places, any::<[bool; 2]>(), any::<u64>()).prop_map(
            |((rows, n, k4), (x_offset4, x_gap4, y_offset, y_gap), [add, bias], seed)| Self {
                rows,
                n,
                k4,
                x_offset4,
                x_gap4,
                y_offset,
                y_gap,
                add,
                bias,
                seed,
            },
        )
    }
}

/// A case in one format, and by `matmul` or else by `matvec` in a fused variant.
struct Product {
    rows: usize,
    n: usize,
    fusion: Option<Fusion>,
    p: MatVec,
    w: Weights,
    x: Vec<f32>,
    b: Vec<f32>,
    scale: Vec<f32>,
    y: Vec<f32>,
}

impl Product {
    fn new(case: &Linear, format: WeightFormat, fusion: Option<Fusion>) -> Self {
        let &Linear { rows, n, k4, x_offset4, x_gap4, y_offset, y_gap, add, bias, seed } = case;
        let mut noise = Noise::new(seed);
        let k4 = fitting4(format, k4);
        let Fusion { norm, gated, .. } = fusion.unwrap_or_default();
        // Pairs of rows; nothing is added to their products.
        let (n, add, bias) = if gated { (n.next_multiple_of(2), false, false) } else { (n, add, bias) };
        let outputs = if gated { n / 2 } else { n };
        let x_rows = Rows { rows, width: 4 * k4, offset: 4 * x_offset4, stride: 4 * (k4 + x_gap4) };
        let y_rows = Rows { rows, width: outputs, offset: y_offset, stride: outputs + y_gap };
        let p = MatVec {
            n: n as u32,
            k4: k4 as u32,
            x_offset4: x_offset4 as u32,
            x_stride4: (k4 + x_gap4) as u32,
            y_offset: y_offset as u32,
            y_stride: (outputs + y_gap) as u32,
            add: add.into(),
            bias: bias.into(),
            eps: 1e-5,
        };
        let w = Weights::new(noise.rows(Rows::dense(n, 4 * k4), 1.0));
        let x = noise.rows(x_rows, 1.0);
        let b = noise.rows(Rows::dense(if bias { n } else { 0 }, 1), 1.0);
        let scale = noise.rows(Rows::dense(if norm { 1 } else { 0 }, 4 * k4), 2.0);
        let mut y = y_rows.output();
        if add {
            noise.fill(&mut y, y_rows, 1.0);
        }
        Self { rows, n, fusion, p, w, x, b, scale, y }
    }

    /// The output on the device.
    fn run(&self, form: (&Engine, WeightFormat)) -> Result<Vec<f32>, TestCaseError> {
        let Self { w, x, b, scale, y, .. } = self;
        let mut found = match self.fusion {
            None => {
                let &MatVec { n, k4, x_offset4, x_stride4, y_offset, y_stride, add, bias, .. } = &self.p;
                let (rows, part4, y_part) = (self.rows as u32, 0, 0);
                let p = MatMul { rows, n, k4, x_offset4, x_stride4, y_offset, y_stride, add, bias, part4, y_part };
                let bindings = w.with_scales(form.1, &[w.bytes(form.1), bytes(x), bytes(b), bytes(y)]);
                let [tile_columns, tile_rows] = matmul_tile(form.0, form.1);
                let grid = [self.n.div_ceil(tile_columns), self.rows.div_ceil(tile_rows), 1];
                run(form, KernelId::MatMul, &p, &bindings, grid)?
            }
            Some(fusion) => {
                let bindings = [w.bytes(form.1), bytes(x), bytes(b), bytes(scale), bytes(y)];
                let groups = self.n.div_ceil(form.0.capabilities().matvec_rows(fusion));
                let bindings = w.with_scales(form.1, &bindings);
                run_fused((form.0, form.1, fusion), KernelId::MatVec, &self.p, &bindings, [self.rows, groups, 1])?
            }
        };
        if form.1.has_scales() {
            found.pop();
        }
        Ok(found.pop().expect("an output"))
    }

    /// The sums of absolute values that a product adds up, by row of W.
    fn sums(&self, format: WeightFormat, p: &MatVec, y: &mut [f32]) {
        let weights = self.w.magnitudes(format);
        let fusion = Fusion { gated: false, ..self.fusion.unwrap_or_default() };
        let [x, b, scale] = [&self.x, &self.b, &self.scale].map(|values| magnitudes(values));
        let inputs = cpu::MatVecInputs { w: Matrix::F32(&weights), x: &x, b: &b, scale: &scale };
        cpu::matvec(p, fusion, self.rows as u32, inputs, y);
    }
}

/// Checks the product by `matmul`, or else by `matvec` in a fused variant.
fn linear_form(worst: &Worst, case: &Linear, form: (&Engine, WeightFormat), fusion: Option<Fusion>) -> TestCaseResult {
    let mut product = Product::new(case, form.1, fusion);
    let found = product.run(form)?;
    // Cooperative matrices are of f16: what goes in is rounded, what comes out is the product of that.
    let rounds =
        fusion.is_none() && form.1 != WeightFormat::F32 && form.0.capabilities().tiles.cooperative_side().is_some();
    let narrow = |v: f32| if rounds && !v.is_nan() { f16::from_f32(v).to_f32() } else { v };
    product.x.iter_mut().for_each(|x| *x = narrow(*x));
    let Product { p, w, x, b, scale, y, .. } = &product;
    let (rows, n, k4) = (product.rows, product.n, p.k4 as usize);
    let narrowed: Vec<f32> =
        if rounds { (0..n * 4 * k4).map(|i| narrow(w.matrix(form.1).get(i))).collect() } else { vec![] };
    let matrix = if rounds { Matrix::F32(&narrowed) } else { w.matrix(form.1) };
    let fusion = fusion.unwrap_or_default();
    let mut expected = y.clone();
    cpu::matvec(p, fusion, rows as u32, cpu::MatVecInputs { w: matrix, x, b, scale }, &mut expected);
    // Four sums, or more, run side by side over k; to put them together, bias and old value take a dozen steps. A
    // product too many or too few is about 1 / k of the sum, 30 times the bound and more for these k. q4 subtracts its
    // offset again.
    let roundings =
        k4 as f64 + if fusion.norm { 24.0 } else { 12.0 } + if form.1 == WeightFormat::Q4 { 64.0 } else { 0.0 };
    if !fusion.gated {
        let mut sums = magnitudes(y);
        product.sums(form.1, p, &mut sums);
        return worst.compare("y", &found, &expected, |i| roundings * EPS * f64::from(sums[i]));
    }
    let wide = MatVec { y_offset: 0, y_stride: n as u32, ..*p };
    let (mut sums, mut values) = (vec![0.0; rows * n], vec![0.0; rows * n]);
    product.sums(form.1, &wide, &mut sums);
    let products = Fusion { gated: false, ..fusion };
    let inputs = cpu::MatVecInputs { w: w.matrix(form.1), x, b, scale };
    cpu::matvec(&wide, products, rows as u32, inputs, &mut values);
    let (y_offset, y_stride) = (p.y_offset as usize, p.y_stride as usize);
    worst.compare("y", &found, &expected, |i| {
        let (row, j) = ((i - y_offset) / y_stride, (i - y_offset) % y_stride);
        let at = row * n + 2 * j;
        let [gate, up] = [at, at + 1].map(|at| f64::from(values[at]));
        let [gate_error, up_error] = [at, at + 1].map(|at| roundings * EPS * f64::from(sums[at]));
        // silu is nowhere steeper than 1.1, and its exp may be off by 3 + 2 |x| units
        let silu = gate / (1.0 + (-gate).exp());
        1.1 * gate_error * (up.abs() + up_error)
            + silu.abs() * up_error
            + (8.0 + 2.0 * gate.abs()) * EPS * (silu * up).abs()
            + 1e-30
    })
}

/// The product by `matmul` as sums over `part4` fours of columns each.
fn in_parts(worst: &Worst, case: &Linear, form: (&Engine, WeightFormat)) -> TestCaseResult {
    let mut noise = Noise::new(case.seed);
    let (rows, n, k4) = (case.rows, case.n, fitting4(form.1, case.k4));
    let part4 = 1 + case.seed as usize % k4;
    let parts = k4.div_ceil(part4);
    let p = MatMul {
        rows: rows as u32,
        n: n as u32,
        k4: k4 as u32,
        x_stride4: k4 as u32,
        y_offset: case.y_offset as u32,
        y_stride: n as u32,
        part4: part4 as u32,
        y_part: (rows * n) as u32,
        ..Default::default()
    };
    // Numbers of f16, which no variant rounds.
    let mut rounded = |rows| noise.rows(rows, 1.0).into_iter().map(|v| f16::from_f32(v).to_f32()).collect::<Vec<f32>>();
    let w = Weights::new(rounded(Rows::dense(n, 4 * k4)));
    let x = rounded(Rows::dense(rows, 4 * k4));
    let y = Rows { offset: case.y_offset, ..Rows::dense(parts * rows, n) }.output();
    let bindings = w.with_scales(form.1, &[w.bytes(form.1), bytes(&x), bytes(&[0.0_f32]), bytes(&y)]);
    let [tile_columns, tile_rows] = matmul_tile(form.0, form.1);
    let found =
        run(form, KernelId::MatMul, &p, &bindings, [n.div_ceil(tile_columns), rows.div_ceil(tile_rows), parts])?;
    let (mut expected, mut sums) = (y.clone(), y);
    cpu::matmul(&p, w.matrix(form.1), &x, &[], &mut expected);
    cpu::matmul(&p, Matrix::F32(&magnitudes(&w.magnitudes(form.1))), &magnitudes(&x), &[], &mut sums);
    let narrow = form.1 != WeightFormat::F32 && form.0.capabilities().tiles.cooperative_side().is_some();
    // Weights that are quantized are rounded once more where matrices are of f16.
    let rounding = if narrow { 2.0_f64.powi(-11) } else { 0.0 };
    let roundings = part4 as f64 + if form.1 == WeightFormat::Q4 { 76.0 } else { 12.0 };
    worst.compare("y", &found[3], &expected, |i| (roundings * EPS + rounding) * f64::from(sums[i]))
}

pub fn matvec() {
    let mut all = Linear::edges(9, 129, 129);
    all.extend([128, 256].map(|k4| Linear { k4, n: 17, ..LINEAR }));
    hold(KernelId::MatVec, all, Linear::drawn(5, 140, 140), |worst, case| {
        let ahead = WeightFormat::ALL.map(|format| (streaming(), format));
        forms(KernelId::MatVec).into_iter().chain(ahead).enumerate().try_for_each(|(i, form)| {
            // Every variant in every case, in some fusion.
            let fusion = Fusion::ALL[(i + case.seed as usize + case.n + case.k4) % Fusion::ALL.len()];
            linear_form(worst, case, form, Some(fusion))?;
            linear_form(worst, case, form, Some(Fusion { tall: true, ..Fusion::default() }))
        })
    });
}

pub fn matmul() {
    let mut all = Linear::edges(129, 129, 65);
    // both sizes around the tile at once
    all.extend([63, 64, 65].map(|rows| Linear { rows, n: 128 - rows, k4: 4, ..LINEAR }));
    all.extend([63, 64, 65].map(|n| Linear { rows: n, n, k4: 5, add: true, bias: true, ..LINEAR }));
    hold(KernelId::MatMul, all, Linear::drawn(140, 140, 20), |worst, case| {
        forms(KernelId::MatMul).into_iter().try_for_each(|form| {
            linear_form(worst, case, form, None)?;
            in_parts(worst, case, form)
        })
    });
}

#[derive(Debug, Clone)]
struct Gated {
    rows: usize,
    dim4: usize,
    size: f32,
    seed: u64,
}

pub fn silu_mul() {
    let all = edges(129).flat_map(|size| {
        [Gated { rows: size, dim4: 2, size: 8.0, seed: 4 }, Gated { rows: 3, dim4: size, size: 8.0, seed: 5 }]
    });
    let drawn = (size(20), size(140), select(vec![0.1f32, 2.0, 20.0, 200.0]), any::<u64>())
        .prop_map(|(rows, dim4, size, seed)| Gated { rows, dim4, size, seed });
    hold(KernelId::SiluMul, all.collect::<Vec<_>>(), drawn, silu_mul_case);
}

fn silu_mul_case(worst: &Worst, case: &Gated) -> TestCaseResult {
    let &Gated { rows, dim4, size, seed } = case;
    let mut noise = Noise::new(seed);
    let p = SiluMul { rows: rows as u32, dim4: dim4 as u32 };
    let gate_up = noise.rows(Rows::dense(rows, 8 * dim4), size);
    let h = Rows::dense(rows, 4 * dim4).output();
    let mut expected = h.clone();
    cpu::silu_mul(&p, &gate_up, &mut expected);
    // One row more than there is, which the kernel must leave out.
    let grid = [dim4.div_ceil(WORKGROUP as usize), rows + 1, 1];
    for form in forms(KernelId::SiluMul) {
        let found = run(form, KernelId::SiluMul, &p, &[bytes(&gate_up), bytes(&h)], grid)?;
        // A device's exp(x) may be off by 3 + 2 |x| units. Where it overflows, at gates below -88, the result is below
        // 1e-33.
        worst.compare("h", &found[1], &expected, |i| {
            let gate = gate_up[2 * i];
            (8.0 + 2.0 * f64::from(gate.abs())) * EPS * f64::from(expected[i].abs()) + 1e-33
        })?;
    }
    Ok(())
}

pub fn copy() {
    let block = COPY_SLICE4 as usize;
    let all = edges(129).chain([block - 1, block, block + 1, 3 * block]).map(|count4| (count4, 3));
    let drawn = (1..4 * block, any::<u64>());
    hold(KernelId::Copy, all.collect::<Vec<_>>(), drawn, |worst, &(count4, seed)| {
        let p = Copy { count4: count4 as u32 };
        let shape = Rows::dense(1, 4 * count4);
        let x = Noise::new(seed).rows(shape, 8.0);
        let y = shape.output();
        let mut expected = y.clone();
        cpu::copy(&p, &x, &mut expected);
        // One workgroup more than there is work for.
        let grid = [count4.div_ceil(block) + 1, 1, 1];
        for form in forms(KernelId::Copy) {
            let found = run(form, KernelId::Copy, &p, &[bytes(&x), bytes(&y)], grid)?;
            worst.compare("y", &found[1], &expected, |_| 0.0)?;
        }
        Ok(())
    });
}
