//! Training kernels that move and sum: transposes, sums over rows, the gradient of a lookup, distances, and the
//! optimizer's step.

use bolmo_shaders::params::{
    Adamw, GatherRowsGrad, RoundF16, RowDistance, RowDistanceGrad, SumRows, SumSquares, Transpose,
};
use bolmo_shaders::sizes::{TRANSPOSE_TILE, WORKGROUP, vec4_grid};
use bolmo_shaders::{KernelId, cpu};
use half::f16;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

use super::harness::{EPS, Noise, Rows, UNREAD, Worst, bytes, edges, forms, hold, magnitudes, run, size};

const LANES: usize = WORKGROUP as usize;

#[derive(Debug, Clone)]
struct Turned {
    rows: usize,
    columns: usize,
    offsets: [usize; 2],
    gaps: [usize; 2],
    seed: u64,
}

pub fn transpose() {
    let base = Turned { rows: 5, columns: 7, offsets: [1, 2], gaps: [3, 0], seed: 1 };
    let all = edges(129).flat_map(|size| {
        let [long, wide] = [(size, 6), (6, size)];
        [long, wide, (size, size)].map(|(rows, columns)| Turned { rows, columns, ..base.clone() })
    });
    let drawn = (size(140), size(140), [0..9usize, 0..9], [0..9usize, 0..9], any::<u64>())
        .prop_map(|(rows, columns, offsets, gaps, seed)| Turned { rows, columns, offsets, gaps, seed });
    hold(KernelId::Transpose, all.collect::<Vec<_>>(), drawn, transpose_case);
}

fn transpose_case(worst: &Worst, case: &Turned) -> TestCaseResult {
    let &Turned { rows, columns, offsets, gaps, seed } = case;
    let x_rows = Rows { rows, width: columns, offset: offsets[0], stride: columns + gaps[0] };
    let y_rows = Rows { rows: columns, width: rows, offset: offsets[1], stride: rows + gaps[1] };
    let p = Transpose {
        rows: rows as u32,
        columns: columns as u32,
        x_offset: x_rows.offset as u32,
        x_stride: x_rows.stride as u32,
        y_offset: y_rows.offset as u32,
        y_stride: y_rows.stride as u32,
    };
    let x = Noise::new(seed).rows(x_rows, 1.0);
    let y = y_rows.output();
    let mut expected = y.clone();
    cpu::transpose(&p, &x, &mut expected);
    // One tile more than there is work for, both ways.
    let [across, down] = [columns, rows].map(|size| size.div_ceil(TRANSPOSE_TILE as usize) + 1);
    for form in forms(KernelId::Transpose) {
        let found = run(form, KernelId::Transpose, &p, &[bytes(&x), bytes(&y)], [across, down, 1])?;
        worst.compare("y", &found[1], &expected, |_| 0.0)?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Summed {
    rows: usize,
    columns: usize,
    per: usize,
    x_offset: usize,
    x_gap: usize,
    y_offset: usize,
    add: bool,
    seed: u64,
}

pub fn sum_rows() {
    let base = Summed { rows: 10, columns: 5, per: 4, x_offset: 1, x_gap: 2, y_offset: 3, add: false, seed: 2 };
    let all = edges(129).flat_map(|size| {
        let long = Summed { rows: size, add: true, ..base.clone() };
        let whole = Summed { rows: 129, per: size, ..base.clone() };
        [long, whole, Summed { columns: size, ..base.clone() }]
    });
    let drawn = ((size(140), size(140), size(140)), (0..9usize, 0..9usize, 0..9usize), any::<bool>(), any::<u64>())
        .prop_map(|((rows, columns, per), (x_offset, x_gap, y_offset), add, seed)| Summed {
            rows,
            columns,
            per,
            x_offset,
            x_gap,
            y_offset,
            add,
            seed,
        });
    hold(KernelId::SumRows, all.collect::<Vec<_>>(), drawn, sum_rows_case);
}

fn sum_rows_case(worst: &Worst, case: &Summed) -> TestCaseResult {
    let &Summed { rows, columns, per, x_offset, x_gap, y_offset, add, seed } = case;
    let mut noise = Noise::new(seed);
    let sums = rows.div_ceil(per);
    let y_rows = Rows { offset: y_offset, ..Rows::dense(sums, columns) };
    let p = SumRows {
        rows: rows as u32,
        columns: columns as u32,
        x_offset: x_offset as u32,
        x_stride: (columns + x_gap) as u32,
        per: per as u32,
        y_offset: y_offset as u32,
        add: add.into(),
    };
    let x = noise.rows(Rows { rows, width: columns, offset: x_offset, stride: columns + x_gap }, 1.0);
    let mut y = y_rows.output();
    if add {
        noise.fill(&mut y, y_rows, 1.0);
    }
    let mut expected = y.clone();
    cpu::sum_rows(&p, &x, &mut expected);
    let mut absolute = magnitudes(&y);
    cpu::sum_rows(&p, &magnitudes(&x), &mut absolute);
    // One sum more than there is.
    let grid = [columns.div_ceil(LANES), sums + 1, 1];
    for form in forms(KernelId::SumRows) {
        let found = run(form, KernelId::SumRows, &p, &[bytes(&x), bytes(&y)], grid)?;
        let roundings = (per.min(rows) + 2) as f64;
        worst.compare("y", &found[1], &expected, |i| roundings * EPS * f64::from(absolute[i]))?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Picked {
    positions: usize,
    dim4: usize,
    first_row: usize,
    rows: usize,
    add: bool,
    seed: u64,
}

pub fn gather_rows_grad() {
    let base = Picked { positions: 20, dim4: 3, first_row: 2, rows: 4, add: false, seed: 3 };
    let all = edges(129).flat_map(|size| {
        let wide = Picked { dim4: size, ..base.clone() };
        [wide, Picked { positions: size, add: true, ..base.clone() }, Picked { rows: size, ..base.clone() }]
    });
    let drawn = (size(140), size(140), 0..9usize, size(40), any::<bool>(), any::<u64>()).prop_map(
        |(positions, dim4, first_row, rows, add, seed)| Picked { positions, dim4, first_row, rows, add, seed },
    );
    hold(KernelId::GatherRowsGrad, all.collect::<Vec<_>>(), drawn, gather_rows_grad_case);
}

fn gather_rows_grad_case(worst: &Worst, case: &Picked) -> TestCaseResult {
    let &Picked { positions, dim4, first_row, rows, add, seed } = case;
    let mut noise = Noise::new(seed);
    let dim = 4 * dim4;
    let end = first_row + rows;
    // Rows of the table by position: some in the pieces before and behind this one, one as far away as can be.
    let mut picks: Vec<usize> = (0..positions).map(|_| noise.below(end + 3)).collect();
    picks[noise.below(positions)] = u32::MAX as usize;
    picks[noise.below(positions)] = end - 1;
    let mut dy = noise.rows(Rows::dense(positions, dim), 1.0);
    let mut order: Vec<u32> = (0..positions as u32).collect();
    order.sort_by_key(|&position| picks[position as usize]);
    let mut segments: Vec<[u32; 4]> = Vec::new();
    for (at, &position) in order.iter().enumerate() {
        let row = picks[position as usize];
        if !(first_row..end).contains(&row) {
            // Its row is in another piece.
            dy[position as usize * dim..][..dim].fill(UNREAD);
        }
        match segments.last_mut() {
            Some(last) if last[0] as usize == row => last[2] += 1,
            _ => segments.push([row as u32, at as u32, 1, 0]),
        }
    }
    let p = GatherRowsGrad {
        segments: segments.len() as u32,
        dim4: dim4 as u32,
        first_row: first_row as u32,
        rows: rows as u32,
        add: add.into(),
    };
    let dw_rows = Rows::dense(rows, dim);
    let mut dw = dw_rows.output();
    if add {
        noise.fill(&mut dw, dw_rows, 1.0);
    }
    let mut expected = dw.clone();
    cpu::gather_rows_grad(&p, &dy, &order, &segments, &mut expected);
    let mut absolute = magnitudes(&dw);
    cpu::gather_rows_grad(&p, &magnitudes(&dy), &order, &segments, &mut absolute);
    // One segment more than there is, which the kernel must leave out.
    let grid = [dim4.div_ceil(LANES), segments.len() + 1, 1];
    segments.push([first_row as u32, 0, 1, 0]);
    for form in forms(KernelId::GatherRowsGrad) {
        let bindings = [bytes(&dy), bytes(&order), bytes(&segments), bytes(&dw)];
        let found = run(form, KernelId::GatherRowsGrad, &p, &bindings, grid)?;
        worst.compare("dw", &found[3], &expected, |i| (positions + 2) as f64 * EPS * f64::from(absolute[i]))?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Apart {
    rows: usize,
    dim4: usize,
    /// Of x, y and dx.
    offsets4: [usize; 3],
    gaps4: [usize; 3],
    size: f32,
    add: bool,
    seed: u64,
}

const APART: Apart = Apart { rows: 4, dim4: 3, offsets4: [1, 0, 2], gaps4: [0, 2, 1], size: 1.0, add: false, seed: 5 };

impl Apart {
    fn edges() -> Vec<Self> {
        let all = edges(129).flat_map(|size| [Self { rows: size, ..APART }, Self { dim4: size, add: true, ..APART }]);
        all.chain([255, 257, 1024].map(|dim4| Self { dim4, ..APART })).collect()
    }

    fn drawn() -> impl Strategy<Value = Self> {
        let small = || [0..4usize, 0..4, 0..4];
        let sizes = select(vec![1e-6f32, 1.0, 1e3]);
        (size(20), size(140), small(), small(), sizes, any::<bool>(), any::<u64>()).prop_map(
            |(rows, dim4, offsets4, gaps4, size, add, seed)| Self { rows, dim4, offsets4, gaps4, size, add, seed },
        )
    }

    /// Where the rows of x, y and dx are, in fours.
    fn strides4(&self) -> [usize; 3] {
        self.gaps4.map(|gap| self.dim4 + gap)
    }

    fn rows(&self, which: usize) -> Rows {
        let [offset, stride] = [self.offsets4[which], self.strides4()[which]].map(|size| 4 * size);
        Rows { rows: self.rows, width: 4 * self.dim4, offset, stride }
    }

    /// x and y, some rows of which are in one place.
    fn inputs(&self, noise: &mut Noise) -> [Vec<f32>; 2] {
        let [x_rows, y_rows] = [0, 1].map(|which| self.rows(which));
        let (x, mut y) = (noise.rows(x_rows, self.size), noise.rows(y_rows, self.size));
        for row in (2..self.rows).step_by(3) {
            let to = y_rows.offset + row * y_rows.stride;
            let from = x_rows.offset + row * x_rows.stride;
            y[to..to + y_rows.width].copy_from_slice(&x[from..from + x_rows.width]);
        }
        [x, y]
    }

    fn params(&self) -> RowDistance {
        let [x_stride4, y_stride4, _] = self.strides4().map(|v| v as u32);
        let [x_offset4, y_offset4, _] = self.offsets4.map(|v| v as u32);
        let [rows, dim4] = [self.rows, self.dim4].map(|v| v as u32);
        RowDistance { rows, dim4, x_offset4, x_stride4, y_offset4, y_stride4 }
    }
}

pub fn row_distance() {
    hold(KernelId::RowDistance, Apart::edges(), Apart::drawn(), |worst, case| {
        let [x, y] = case.inputs(&mut Noise::new(case.seed));
        let p = case.params();
        let out = Rows::dense(case.rows, 1).output();
        let mut expected = out.clone();
        cpu::row_distance(&p, &x, &y, &mut expected);
        for form in forms(KernelId::RowDistance) {
            let found = run(form, KernelId::RowDistance, &p, &[bytes(&x), bytes(&y), bytes(&out)], [case.rows, 1, 1])?;
            // Differences are rounded once. A workgroup of one lane adds all of them up; the root halves that.
            let roundings = case.dim4 as f64 / 2.0 + 8.0;
            worst.compare("out", &found[2], &expected, |i| roundings * EPS * f64::from(expected[i]))?;
        }
        Ok(())
    });
}

pub fn row_distance_grad() {
    hold(KernelId::RowDistanceGrad, Apart::edges(), Apart::drawn(), |worst, case| {
        let mut noise = Noise::new(case.seed);
        let [x, y] = case.inputs(&mut noise);
        let RowDistance { rows, dim4, x_offset4, x_stride4, y_offset4, y_stride4 } = case.params();
        let mut distance = Rows::dense(case.rows, 1).array(UNREAD);
        cpu::row_distance(&case.params(), &x, &y, &mut distance);
        let weight = noise.rows(Rows::dense(case.rows, 1), 2.0);
        let p = RowDistanceGrad {
            rows,
            dim4,
            x_offset4,
            x_stride4,
            y_offset4,
            y_stride4,
            dx_offset4: case.offsets4[2] as u32,
            dx_stride4: case.strides4()[2] as u32,
            add: case.add.into(),
        };
        let mut dx = case.rows(2).output();
        if case.add {
            noise.fill(&mut dx, case.rows(2), 1.0);
        }
        let mut expected = dx.clone();
        cpu::row_distance_grad(&p, &x, &y, &distance, &weight, &mut expected);
        // One row more than there is.
        let grid = [case.dim4.div_ceil(LANES), case.rows + 1, 1];
        let bindings = [bytes(&x), bytes(&y), bytes(&distance), bytes(&weight), bytes(&dx)];
        for form in forms(KernelId::RowDistanceGrad) {
            let found = run(form, KernelId::RowDistanceGrad, &p, &bindings, grid)?;
            // A difference, a quotient that may be off by two and a half units, a product, and a sum with what was
            // there.
            worst.compare("dx", &found[4], &expected, |i| {
                let old = if case.add { f64::from(dx[i]) } else { 0.0 };
                EPS * (6.0 * (f64::from(expected[i]) - old).abs() + 2.0 * old.abs())
            })?;
        }
        Ok(())
    });
}

pub fn sum_squares() {
    let all = edges(129).flat_map(|size| [(size, 7, 6), (300, size, 7)]).chain([(5000, 4096, 8), (3, 4096, 9)]);
    let drawn = (1..2000usize, size(600), any::<u64>());
    hold(KernelId::SumSquares, all.collect::<Vec<_>>(), drawn, |worst, &(count4, per4, seed)| {
        let p = SumSquares { count4: count4 as u32, per4: per4 as u32 };
        let stretches = count4.div_ceil(per4);
        let mut x = vec![UNREAD; 4 * (count4 + 1)];
        Noise::new(seed).fill(&mut x, Rows::dense(1, 4 * count4), 8.0);
        let out = Rows::dense(stretches, 1).output();
        let mut expected = out.clone();
        cpu::sum_squares(&p, &x, &mut expected);
        for form in forms(KernelId::SumSquares) {
            let found = run(form, KernelId::SumSquares, &p, &[bytes(&x), bytes(&out)], [stretches, 1, 1])?;
            // A workgroup of one lane adds up all of a stretch.
            let roundings = per4.min(count4) as f64 + 16.0;
            worst.compare("out", &found[1], &expected, |i| roundings * EPS * f64::from(expected[i]))?;
        }
        Ok(())
    });
}

pub fn round_f16() {
    // The second row of the grid begins behind 65535 workgroups of 64 fours.
    let all = edges(129).map(|count4| (count4, 3)).chain([(65535 * 64 + 3, 4)]);
    let drawn = (1..2000usize, any::<u64>());
    hold(KernelId::RoundF16, all.collect::<Vec<_>>(), drawn, |worst, &(count4, seed)| {
        let p = RoundF16 { count4: count4 as u32 };
        let mut x = vec![UNREAD; 4 * (count4 + 1)];
        Noise::new(seed).fill(&mut x, Rows::dense(1, 4 * count4), 8.0);
        // Of every size that f16 has, and some beyond.
        for (i, x) in x[..4 * count4].iter_mut().enumerate() {
            *x *= [1.0, 1e-3, 1e-7, 1e4][i % 4];
        }
        // Values after the last four must stay.
        let untouched = f16::from_f32(7.0);
        let mut y = vec![untouched; 4 * (count4 + 1)];
        let mut expected = y.clone();
        cpu::round_f16(&p, &x, &mut expected);
        let expected: Vec<f32> = expected.iter().map(|&v| v.into()).collect();
        for form in forms(KernelId::RoundF16) {
            let found = run(form, KernelId::RoundF16, &p, &[bytes(&x), bytes(&y)], vec4_grid(count4))?;
            y.copy_from_slice(bytemuck::cast_slice(&found[1]));
            let found: Vec<f32> = y.iter().map(|&v| v.into()).collect();
            // The other neighbor at most: adapters choose how they round.
            worst.compare("y", &found, &expected, |i| (f64::from(expected[i]).abs() / 1024.0).max(6e-8))?;
            y.fill(untouched);
        }
        Ok(())
    });
}

#[derive(Debug, Clone)]
struct Step {
    count4: usize,
    /// The number of the optimizer's step.
    t: i32,
    size: f32,
    scale: f32,
    clip: f32,
    decay: f32,
    /// In place of the squares' sum.
    squares: Option<f32>,
    seed: u64,
}

pub fn adamw() {
    let base = Step { count4: 5, t: 3, size: 1.0, scale: 0.25, clip: 0.5, decay: 0.1, squares: None, seed: 10 };
    let counts = edges(129).map(|count4| Step { count4, ..base.clone() });
    // Far enough to tell a row of the grid from a lane.
    let long = [70_000].map(|count4| Step { count4, ..base.clone() });
    let times = [1, 2, 1000, 100_000].map(|t| Step { t, clip: 0.0, ..base.clone() });
    let faults = [f32::INFINITY, f32::NAN, -f32::NAN, f32::NEG_INFINITY];
    let skipped = faults.map(|squares| Step { squares: Some(squares), ..base.clone() });
    let extreme = [0.0, f32::MAX].map(|squares| Step { squares: Some(squares), ..base.clone() });
    let drawn = (
        (size(300), prop_oneof![1..10i32, 1..10_000]),
        select(vec![1e-12f32, 1e-3, 1.0, 1e3]),
        select(vec![1.0f32, 0.125, 1.0 / 65536.0]),
        select(vec![0.0f32, 1e-3, 1.0, 1e6]),
        select(vec![0.0f32, 0.01, 1.0]),
        any::<u64>(),
    )
        .prop_map(|((count4, t), size, scale, clip, decay, seed)| Step {
            count4,
            t,
            size,
            scale,
            clip,
            decay,
            squares: None,
            seed,
        });
    let all = counts.chain(long).chain(times).chain(skipped).chain(extreme);
    hold(KernelId::Adamw, all.collect::<Vec<_>>(), drawn, adamw_case);
}

fn adamw_case(worst: &Worst, case: &Step) -> TestCaseResult {
    let &Step { count4, t, size, scale, clip, decay, squares, seed } = case;
    let mut noise = Noise::new(seed);
    let [beta1, beta2] = [0.9f32, 0.999];
    let p = Adamw {
        count4: count4 as u32,
        lr: 0.01,
        beta1,
        beta2,
        eps: 1e-8,
        decay,
        bias1: 1.0 - beta1.powi(t),
        bias2: 1.0 - beta2.powi(t),
        clip,
        scale,
    };
    let shape = Rows::dense(1, 4 * count4);
    let grad = noise.rows(shape, size);
    let sum: f64 = grad[..4 * count4].iter().map(|&g| f64::from(g).powi(2)).sum();
    let squares = [squares.unwrap_or(sum as f32)];
    let [mut w, mut m, mut v] = [shape.output(), shape.output(), shape.output()];
    noise.fill(&mut w, shape, 1.0);
    // As if the gradients so far had been like this one.
    noise.fill(&mut m, shape, 0.5 * size * scale);
    noise.fill(&mut v, shape, 0.25 * (size * scale).powi(2));
    v.iter_mut().filter(|v| !v.is_nan()).for_each(|v| *v = v.abs());
    let [mut w_expected, mut m_expected, mut v_expected] = [w.clone(), m.clone(), v.clone()];
    cpu::adamw(&p, &grad, &squares, &mut w_expected, &mut m_expected, &mut v_expected);
    // One workgroup more than there is work for, and a row of the grid that has none.
    let [across, down, _] = vec4_grid(count4);
    let grid = [across + 1, down + 1, 1];
    let bindings = [bytes(&grad), bytes(&squares), bytes(&w), bytes(&m), bytes(&v)];
    for form in forms(KernelId::Adamw) {
        let found = run(form, KernelId::Adamw, &p, &bindings, grid)?;
        if !squares[0].is_finite() {
            for (found, before) in found[2..].iter().zip([&w, &m, &v]) {
                prop_assert!(bytes(found) == bytes(before), "a step that is skipped changes something");
            }
            continue;
        }
        // The scaled gradient is off by a dozen units: a root, a quotient and products.
        let norm = f64::from(scale) * f64::from(squares[0]).sqrt();
        let clipped = if clip > 0.0 { (f64::from(clip) / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let g = |i: usize| f64::from(scale) * clipped * f64::from(grad[i]).abs();
        let m_error = |i: usize| EPS * (2.0 * f64::from(m[i]).abs() + 4.0 * g(i)) + 1e-37;
        worst.compare("m", &found[3], &m_expected, m_error)?;
        worst.compare("v", &found[4], &v_expected, |i| 32.0 * EPS * f64::from(v_expected[i]) + 1e-37)?;
        worst.compare("w", &found[2], &w_expected, |i| {
            let [bias1, bias2, eps, lr] = [p.bias1, p.bias2, p.eps, p.lr].map(f64::from);
            let below = (f64::from(v_expected[i]) / bias2).sqrt() + eps;
            let step = f64::from(m_expected[i]).abs() / bias1 / below;
            let step_error = m_error(i) / bias1 / below + 32.0 * EPS * step;
            lr * (step_error + 4.0 * EPS * f64::from(decay * w[i].abs()))
                + 2.0 * EPS * (f64::from(w[i].abs()) + lr * step)
        })?;
    }
    Ok(())
}
