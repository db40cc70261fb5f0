//! The mLSTM kernels against the golden cells: the recurrent and the chunkwise form, from zero and from given states,
//! with moderate, wide and closed gates; then the head norm and the soft cap.
//!
//! A running error analysis in f64 says how far each value may be off ([`Bounds`]).

use std::collections::BTreeMap;

use bolmo_runtime::unstable::run_kernel;
use bolmo_runtime::{WeightFormat, block_on};
use bolmo_shaders::Fusion;
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{MlstmChunkOut, MlstmChunkScan, MlstmChunkState, MlstmGates, MlstmNorm, MlstmStep, Params};
use bolmo_shaders::sizes::{MLSTM_CHUNK, WORKGROUP};
use bolmo_tests::{engine, fixtures, largest_difference, read_tensors};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

const LENGTHS: [usize; 4] = [1, 5, 64, 200];
const STARTS: [&str; 2] = ["zero", "init"];
const RANGES: [&str; 3] = ["mid", "wide", "closed"];

const EPS: f64 = f32::EPSILON as f64;

fn read(name: &str) -> Tensors {
    read_tensors(&fixtures().join("infer/mlstm").join(format!("{name}.safetensors")))
}

fn run<P: Params>(id: KernelId, params: &P, bindings: &[&[f32]], grid: [usize; 3]) -> Vec<Vec<f32>> {
    let bindings: Vec<&[u8]> = bindings.iter().map(|values| bytemuck::cast_slice(values)).collect();
    let out = block_on(run_kernel(engine(), id, (WeightFormat::F32, Fusion::default()), params, &bindings, grid))
        .expect("a dispatch");
    out.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Recurrent,
    Chunkwise,
}

/// A cell as the kernels take it.
struct Cell {
    rows: usize,
    heads: usize,
    dk: usize,
    dv: usize,
    /// `[rows, ...]` of q, k, v, i and f in turn, heads side by side in each.
    x: Vec<f32>,
    /// `[heads, dk, dv + 1]`, n in the last column.
    c: Vec<f32>,
    /// `[heads]`
    m: Vec<f32>,
}

/// The outputs of a cell, by head and row as in the files, and its final state.
struct Outcome {
    h: Vec<f32>,
    c: Vec<f32>,
    m: Vec<f32>,
}

impl Cell {
    /// From q and k `[1, heads, rows, dk]`, v `[1, heads, rows, dv]`, i and f `[1, heads, rows]`.
    fn new(file: &Tensors) -> Self {
        let [heads, rows, dk] = [1, 2, 3].map(|axis| file["q"].0[axis]);
        let dv = file["v"].0[3];
        let mut x = Vec::new();
        for t in 0..rows {
            for (name, width) in [("q", dk), ("k", dk), ("v", dv), ("i", 1), ("f", 1)] {
                for head in 0..heads {
                    let first = (head * rows + t) * width;
                    x.extend(file[name].1[first..first + width].iter().map(|&value| value as f32));
                }
            }
        }
        let (mut c, mut m) = (vec![0.0; heads * dk * (dv + 1)], vec![0.0; heads]);
        if let (Some((_, c0)), Some((_, n0)), Some((_, m0))) = (file.get("C0"), file.get("n0"), file.get("m0")) {
            for (row, c) in c.chunks_exact_mut(dv + 1).enumerate() {
                c[..dv].iter_mut().zip(&c0[row * dv..]).for_each(|(c, &c0)| *c = c0 as f32);
                c[dv] = n0[row] as f32;
            }
            m.iter_mut().zip(m0).for_each(|(m, &m0)| *m = m0 as f32);
        }
        Self { rows, heads, dk, dv, x, c, m }
    }

    fn stride(&self) -> usize {
        self.heads * (2 * self.dk + self.dv + 2)
    }

    /// For each row, the sum of the absolute log forget gates of its chunk.
    fn running_sums(&self, head: usize) -> Vec<f64> {
        let offset = self.heads * (2 * self.dk + self.dv) + self.heads + head;
        let gate = |t: usize| f64::from(self.x[t * self.stride() + offset]);
        let lost = |t: usize| gate(t).max(0.0) - gate(t) + (-gate(t).abs()).exp().ln_1p();
        (0..self.rows)
            .map(|t| {
                let first = t - t % MLSTM_CHUNK as usize;
                (first..self.rows.min(first + MLSTM_CHUNK as usize)).map(lost).sum()
            })
            .collect()
    }

    /// Runs all rows, in two calls unless `cut` is 0: that many rows, then the others from the state after them.
    fn run(&self, form: Form, cut: usize) -> Outcome {
        let (mut c, mut m) = (self.c.clone(), self.m.clone());
        let mut h = vec![f32::NAN; self.heads * self.rows * self.dv];
        for (first, end) in [(0, cut), (cut, self.rows)] {
            if first < end {
                self.run_rows(form, first, end, &mut c, &mut m, &mut h);
            }
        }
        Outcome { h, c, m }
    }

    fn run_rows(&self, form: Form, first: usize, end: usize, c: &mut Vec<f32>, m: &mut Vec<f32>, h: &mut [f32]) {
        let (heads_wide, count, columns) = (self.heads, end - first, self.dv + 1);
        let x = &self.x[first * self.stride()..end * self.stride()];
        let [rows, heads, dk, dv, stride] =
            [count, heads_wide, self.dk, self.dv, self.stride()].map(|size| size as u32);
        let [q_offset, k_offset, v_offset] = [0, heads * dk, 2 * heads * dk];
        let i_offset = v_offset + heads * dv;
        let f_offset = i_offset + heads;
        let scale = 1.0 / (self.dk as f32).sqrt();
        let chunk = MLSTM_CHUNK;
        let groups = |lanes: usize| lanes.div_ceil(WORKGROUP as usize);

        // The files hold pre-activations after the cap.
        let p = MlstmGates { rows, heads, stride, i_offset, f_offset, chunk, cap: 0.0, period: rows };
        let gates = vec![f32::NAN; count * heads_wide * 4];
        let [_, new_m, gates] = take(run(KernelId::MlstmGates, &p, &[x, m, &gates], [heads_wide, 1, 1]));
        *m = new_m;

        let y = vec![f32::NAN; count * heads_wide * columns];
        let y = match form {
            Form::Recurrent => {
                let p = MlstmStep { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
                let grid = [groups(columns), heads_wide, 1];
                let [_, _, new_c, y] = take(run(KernelId::MlstmStep, &p, &[x, &gates, c, &y], grid));
                *c = new_c;
                y
            }
            Form::Chunkwise => {
                let (size, chunks) = (self.dk * columns, count.div_ceil(chunk as usize));
                let states = vec![f32::NAN; chunks * heads_wide * size];
                let p = MlstmChunkState { rows, heads, dk, dv, stride, k_offset, v_offset, chunk };
                let grid = [groups(self.dk.div_ceil(4) * columns), heads_wide, chunks];
                let [_, _, states] = take(run(KernelId::MlstmChunkState, &p, &[x, &gates, &states], grid));

                let p = MlstmChunkScan { rows, heads, size: size as u32, chunk, period: rows };
                let grid = [groups(size), heads_wide, 1];
                let [_, new_c, states] = take(run(KernelId::MlstmChunkScan, &p, &[&gates, c, &states], grid));
                *c = new_c;

                let p = MlstmChunkOut { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
                let grid = engine().capabilities().tiles.chunk_out_grid(count, heads_wide, self.dv);
                let [_, _, _, y] = take(run(KernelId::MlstmChunkOut, &p, &[x, &gates, &states, &y], grid));
                y
            }
        };
        for t in 0..count {
            for head in 0..heads_wide {
                let at = t * heads_wide + head;
                let y: Vec<f64> = y[at * columns..(at + 1) * columns].iter().map(|&y| y.into()).collect();
                let normalizer = y[self.dv].abs().max((-f64::from(gates[4 * at + 2])).exp()) + 1e-6;
                let to = (head * self.rows + first + t) * self.dv;
                h[to..to + self.dv].iter_mut().zip(&y).for_each(|(h, y)| *h = (y / normalizer) as f32);
            }
        }
    }
}

/// The contents of all bindings of a kernel.
fn take<const N: usize>(bindings: Vec<Vec<f32>>) -> [Vec<f32>; N] {
    bindings.try_into().expect("a kernel's bindings")
}

/// How far the outputs and the final state of a cell may be off.
struct Bounds {
    /// By head and row, as in the files.
    h: Vec<f64>,
    c: Vec<f64>,
    n: Vec<f64>,
    m: f64,
}

impl Bounds {
    /// Runs the recurrent form in f64, and beside each value its error: every operation carries on the errors of what
    /// it takes and adds its own rounding. The chunkwise form adds up the same terms with weights whose exponents are
    /// differences of running sums over a chunk, which are rounded at the size of the sums.
    fn new(cell: &Cell, form: Form) -> Self {
        let &Cell { rows, heads, dk, dv, .. } = cell;
        let stride = cell.stride();
        let mut all = Self { h: vec![0.0; heads * rows * dv], c: Vec::new(), n: Vec::new(), m: 0.0 };
        for head in 0..heads {
            let first = head * dk * (dv + 1);
            let mut c: Vec<f64> = cell.c[first..first + dk * (dv + 1)].iter().map(|&c| c.into()).collect();
            let mut errors = vec![0.0; c.len()];
            let mut m = f64::from(cell.m[head]);
            let running = cell.running_sums(head);
            for t in 0..rows {
                let x = |offset: usize, i: usize| f64::from(cell.x[t * stride + offset + i]);
                let i_gate = x(heads * (2 * dk + dv), head);
                let f_gate = x(heads * (2 * dk + dv) + heads, head);
                let lf = f_gate.min(0.0) - (-f_gate.abs()).exp().ln_1p();
                let next = (lf + m).max(i_gate);
                let reach = lf.abs() + m.abs() + next.abs() + i_gate.abs();
                let running = if form == Form::Chunkwise { running[t] } else { 0.0 };
                // A device's exp(x) may be off by 3 + 2 |x| units; then the exponent's own rounding.
                let weight_error = |x: f64| (4.0 + 2.0 * x.abs() + 4.0 * reach + 2.0 * running) * EPS;
                let (f, i) = ((lf + m - next).exp(), (i_gate - next).exp());
                let (f_error, i_error) = (weight_error(lf + m - next), weight_error(i_gate - next));
                for (at, (c, error)) in c.iter_mut().zip(&mut errors).enumerate() {
                    let (row, column) = (at / (dv + 1), at % (dv + 1));
                    let v = if column < dv { x(2 * heads * dk, head * dv + column) } else { 1.0 };
                    let kept = f * *c;
                    let added = i * x(heads * dk, head * dk + row) * v;
                    *error = f * *error + kept.abs() * f_error + added.abs() * (i_error + EPS);
                    *c = kept + added;
                    *error += EPS * c.abs();
                }
                m = next;
                all.m = all.m.max((t as f64 + 2.0) * EPS * (reach + 4.0));
                let scale = 1.0 / (dk as f64).sqrt();
                let sums: Vec<[f64; 2]> = (0..=dv)
                    .map(|column| {
                        let terms = (0..dk).map(|row| {
                            let (q, at) = (scale * x(0, head * dk + row), row * (dv + 1) + column);
                            let magnitude = (q * c[at]).abs();
                            [q * c[at], q.abs() * errors[at] + (dk as f64 / 2.0 + 4.0) * EPS * magnitude]
                        });
                        terms.fold([0.0; 2], |[sum, error], term| [sum + term[0], error + term[1]])
                    })
                    .collect();
                let [n, n_error] = sums[dv];
                let below = n.abs().max((-m).exp());
                let below_error = n_error + below * weight_error(m);
                for (column, [y, error]) in sums[..dv].iter().enumerate() {
                    let h = y / (below + 1e-6);
                    let error = (error + h.abs() * below_error) / (below + 1e-6);
                    all.h[(head * rows + t) * dv + column] = error + 4.0 * EPS * h.abs();
                }
            }
            for errors in errors.chunks_exact(dv + 1) {
                all.c.extend(&errors[..dv]);
                all.n.push(errors[dv]);
            }
        }
        all
    }

    /// The largest error of a value as a share of its bound.
    fn share(what: &str, found: &[f32], expected: &[f64], bounds: &[f64]) -> f64 {
        assert!(found.len() == expected.len() && found.len() == bounds.len(), "{what}: number of values");
        let mut worst: f64 = 0.0;
        for (i, ((&found, &expected), &bound)) in found.iter().zip(expected).zip(bounds).enumerate() {
            let error = (f64::from(found) - expected).abs();
            // The files hold what f64 gave in f32.
            let bound = bound + EPS * expected.abs() + f64::from(f32::MIN_POSITIVE);
            assert!(
                error <= bound,
                "{what} {i}: {found}, expected {expected}, off by {error:.1e}, at most {bound:.1e}"
            );
            worst = worst.max(error / bound);
        }
        worst
    }

    /// Shares of h, C, n and m. C and n are compared at the scale of the file's m, since only `exp(m) C` and `exp(m) n`
    /// count.
    fn shares(&self, what: &str, cell: &Cell, outcome: &Outcome, file: &Tensors) -> [f64; 4] {
        let (mut c, mut n) = (Vec::new(), Vec::new());
        for (row, values) in outcome.c.chunks_exact(cell.dv + 1).enumerate() {
            let head = row / cell.dk;
            let factor = (f64::from(outcome.m[head]) - file["m"].1[head]).exp();
            c.extend(values[..cell.dv].iter().map(|&value| (f64::from(value) * factor) as f32));
            n.push((f64::from(values[cell.dv]) * factor) as f32);
        }
        // The file's state is the reference's in f32: both are off, and the factor is off by what m is.
        let twice = |bounds: &[f64], values: &[f64]| -> Vec<f64> {
            bounds.iter().zip(values).map(|(bound, value)| 2.0 * (bound + self.m * value.abs())).collect()
        };
        [
            Self::share(&format!("{what}: h"), &outcome.h, &file["h_f64"].1, &self.h),
            Self::share(&format!("{what}: C"), &c, &file["C"].1, &twice(&self.c, &file["C"].1)),
            Self::share(&format!("{what}: n"), &n, &file["n"].1, &twice(&self.n, &file["n"].1)),
            Self::share(&format!("{what}: m"), &outcome.m, &file["m"].1, &vec![2.0 * self.m; cell.heads]),
        ]
    }
}

#[test]
fn golden_cells_are_computed_in_both_forms_and_in_pieces() {
    // By form and range of gates.
    let mut worst: BTreeMap<(String, &str), [f64; 4]> = BTreeMap::new();
    // Each of these 24 files has to be there.
    for length in LENGTHS {
        for start in STARTS {
            for range in RANGES {
                let name = format!("S{length}_{start}_{range}");
                let file = read(&name);
                assert_eq!(file["q"].0[2], length, "{name}: rows");
                assert_eq!(file.contains_key("C0"), start == "init", "{name}: initial state");
                let cell = Cell::new(&file);
                for form in [Form::Recurrent, Form::Chunkwise] {
                    let bounds = Bounds::new(&cell, form);
                    for cut in [0, length / 3] {
                        let what = format!("{name}, {form:?}, cut at {cut}");
                        let shares = bounds.shares(&what, &cell, &cell.run(form, cut), &file);
                        let worst = worst.entry((format!("{form:?}"), range)).or_default();
                        worst.iter_mut().zip(shares).for_each(|(worst, share)| *worst = worst.max(share));
                    }
                }
            }
        }
    }
    for ((form, range), [h, c, n, m]) in worst {
        eprintln!("{form}, {range} gates: shares of the bounds: h {h:.3}, final C {c:.3}, n {n:.3}, m {m:.3}");
    }
}

/// Both forms give the same for any split of the sequence (docs/model.md, "Local layer (mLSTM)").
#[test]
fn forms_and_splits_agree() {
    for range in ["mid", "closed"] {
        let cell = Cell::new(&read(&format!("S200_init_{range}")));
        let [recurrent, chunkwise] = [Form::Recurrent, Form::Chunkwise].map(|form| Bounds::new(&cell, form).h);
        // Cut or not, the recurrent form rounds alike. The other one and that are both off.
        let both: Vec<f64> = recurrent.iter().zip(&chunkwise).map(|(a, b)| a + b).collect();
        let whole: Vec<f64> = cell.run(Form::Recurrent, 0).h.iter().map(|&h| h.into()).collect();
        for cut in [1, 63, 64, 65, 128, 199] {
            let recurrent = cell.run(Form::Recurrent, cut).h;
            assert!(recurrent.iter().zip(&whole).all(|(&a, &b)| f64::from(a) == b), "{range}, cut at {cut}");
            Bounds::share(&format!("{range}, cut at {cut}"), &cell.run(Form::Chunkwise, cut).h, &whole, &both);
        }
    }
}

#[test]
fn head_norms_equal_the_reference() {
    let file = read("norm_softcap");
    let [rows, heads, dv] = [1, 2, 3].map(|axis| file["x"].0[axis]);
    // With q · n = 1 and m = 0 the normalizer is 1 + 1e-6, a factor that the norm takes out again; an output gate of 40
    // is open.
    let y: Vec<f32> =
        file["x"].1.chunks_exact(dv).flat_map(|x| x.iter().copied().chain([1.0])).map(|y| y as f32).collect();
    let gates = vec![0.0; rows * heads * 4];
    let x = vec![40.0; rows * heads * dv];
    let scale: Vec<f32> = file["weight"].1.iter().map(|&w| w as f32).collect();
    let p = MlstmNorm {
        rows: rows as u32,
        heads: heads as u32,
        dv: dv as u32,
        x_stride: (heads * dv) as u32,
        o_offset: 0,
        eps: 1e-6,
    };
    let out = vec![f32::NAN; rows * heads * dv];
    let out = run(KernelId::MlstmNorm, &p, &[&y, &gates, &x, &scale, &out], [heads, rows, 1]);
    let difference = largest_difference("head norm", &out[4], &file["y"].1);
    eprintln!("head norm: off by {difference:.1e}");
    // The mean and the deviation are sums over the head, here and in the reference; a deviation and a mean more than a
    // head's values make up for 16 units each.
    let largest = file["y"].1.iter().fold(0.0f64, |largest, y| largest.max(y.abs()));
    let bound = 2.0 * (dv as f64 + 16.0) * EPS * largest;
    assert!(difference <= bound, "off by {difference:.1e}, at most {bound:.1e}");
}

#[test]
fn both_gates_have_the_soft_cap() {
    let file = read("norm_softcap");
    let heads = file["softcap_x"].1.len();
    // One head per value. From a state as low as this, m' is the input gate's pre-activation after the cap.
    let mut x: Vec<f32> = file["softcap_x"].1.iter().map(|&x| x as f32).collect();
    x.resize(2 * heads, 0.0);
    let p = MlstmGates {
        rows: 1,
        heads: heads as u32,
        stride: 2 * heads as u32,
        i_offset: 0,
        f_offset: heads as u32,
        chunk: MLSTM_CHUNK,
        cap: 15.0,
        period: 1,
    };
    let gates = vec![f32::NAN; 4 * heads];
    let m = vec![-1e6; heads];
    let grid = [heads, 1, 1];
    let out = run(KernelId::MlstmGates, &p, &[&x, &m, &gates], grid);
    let difference = largest_difference("soft cap", &out[1], &file["softcap15_y"].1);
    eprintln!("soft cap: off by {difference:.1e}");
    // Two units in the last place of 15 on each side.
    assert!(difference <= 4e-6, "off by {difference:.1e}");

    // The forget gate has the same cap: from a state of 0 and with closed input gates, m' is its log-sigmoid.
    x.rotate_left(heads);
    x[..heads].fill(-1e6);
    let out = run(KernelId::MlstmGates, &p, &[&x, &vec![0.0; heads], &gates], grid);
    let capped = &file["softcap15_y"].1;
    let expected: Vec<f64> = capped.iter().map(|&z| (z.min(0.0) - (-z.abs()).exp().ln_1p()).max(-15.0)).collect();
    let difference = largest_difference("soft cap of the forget gate", &out[1], &expected);
    assert!(difference <= 4e-6, "forget gate off by {difference:.1e}");
}
