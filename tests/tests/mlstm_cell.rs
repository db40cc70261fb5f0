//! The mLSTM kernels against the golden cells: the recurrent form and the chunkwise one, from empty and from given states, with
//! moderate, wide and closed gates; then the head norm and the soft cap.

use std::collections::BTreeMap;

use bolmo_runtime::testing::run_kernel;
use bolmo_runtime::{WeightFormat, block_on};
use bolmo_shaders::Fusion;
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{MlstmChunkOut, MlstmChunkScan, MlstmChunkState, MlstmGates, MlstmNorm, MlstmStep, Params};
use bolmo_shaders::table::{MLSTM_CHUNK, WORKGROUP};
use bolmo_tests::{engine, fixtures, largest_difference, read_tensors};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

const LENGTHS: [usize; 4] = [1, 5, 64, 200];
const STARTS: [&str; 2] = ["zero", "init"];
const RANGES: [&str; 3] = ["mid", "wide", "closed"];

/// Of the largest |h| and of the largest value of the final state, on moderate and closed gates. The chunkwise form adds up in
/// another order than the one that the files hold.
const RECURRENT: f64 = 1e-5;
const CHUNKWISE: f64 = 1e-4;
/// The same on wide gates, where the reference's own chunkwise form may be further off; then twice that.
const WIDE: f64 = 1e-4;

fn read(name: &str) -> Tensors {
    read_tensors(&fixtures().join("infer/mlstm").join(format!("{name}.safetensors")))
}

fn run<P: Params>(id: KernelId, params: &P, bindings: &[&[f32]], grid: [usize; 3]) -> Vec<Vec<f32>> {
    let bindings: Vec<&[u8]> = bindings.iter().map(|values| bytemuck::cast_slice(values)).collect();
    let out = block_on(run_kernel(engine(), id, (WeightFormat::F32, Fusion::default()), params, &bindings, grid))
        .expect("a dispatch");
    out.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Recurrent,
    Chunkwise,
}

/// A cell as the kernels see it.
struct Cell {
    rows: usize,
    heads: usize,
    dk: usize,
    dv: usize,
    /// `[rows, ...]` of q, k, v, i and f, one behind the other, heads side by side in each.
    x: Vec<f32>,
    /// `[heads, dk, dv + 1]`, n in the last column.
    c: Vec<f32>,
    /// `[heads]`
    m: Vec<f32>,
}

/// What a cell made: `h` by head and row as in the files, and its final state.
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

    /// Runs all rows, in two calls where `cut` isn't 0: that many rows, then the others from the state behind them.
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

        // The files hold pre-activations behind the cap.
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
                let normaliser = y[self.dv].abs().max((-f64::from(gates[4 * at + 2])).exp()) + 1e-6;
                let to = (head * self.rows + first + t) * self.dv;
                h[to..to + self.dv].iter_mut().zip(&y).for_each(|(h, y)| *h = (y / normaliser) as f32);
            }
        }
    }
}

/// The contents of all bindings of a kernel.
fn take<const N: usize>(bindings: Vec<Vec<f32>>) -> [Vec<f32>; N] {
    bindings.try_into().expect("a kernel's bindings")
}

/// How far the final state is from the one in the file, relative to the largest values there: C, n and m. C and n are compared
/// at the scale of the file's m, since only `exp(m) C` and `exp(m) n` mean anything.
fn state_differences(cell: &Cell, outcome: &Outcome, file: &Tensors) -> [f64; 3] {
    let (mut c, mut n) = (Vec::new(), Vec::new());
    for (row, values) in outcome.c.chunks_exact(cell.dv + 1).enumerate() {
        let head = row / cell.dk;
        let factor = (f64::from(outcome.m[head]) - file["m"].1[head]).exp();
        c.extend(values[..cell.dv].iter().map(|&value| (f64::from(value) * factor) as f32));
        n.push((f64::from(values[cell.dv]) * factor) as f32);
    }
    let relative = |name: &str, got: &[f32], floor: f64| {
        largest_difference(name, got, &file[name].1) / largest(&file[name].1).max(floor)
    };
    [relative("C", &c, 0.0), relative("n", &n, 0.0), relative("m", &outcome.m, 1.0)]
}

#[test]
fn cells() {
    // by form and range of gates: h, C, n, m
    let mut worst: BTreeMap<(String, &str), [f64; 4]> = BTreeMap::new();
    // S, start and range: 24 files, each of which must be there
    for length in LENGTHS {
        for start in STARTS {
            for range in RANGES {
                let name = format!("S{length}_{start}_{range}");
                let file = read(&name);
                assert_eq!(file["q"].0[2], length, "{name}: rows");
                assert_eq!(file.contains_key("C0"), start == "init", "{name}: initial state");
                let cell = Cell::new(&file);
                let size = largest(&file["h_f64"].1);
                for form in [Form::Recurrent, Form::Chunkwise] {
                    let tolerance = match (range, form) {
                        ("wide", _) => {
                            let recorded: Vec<f32> = file["h_chunk"].1.iter().map(|&h| h as f32).collect();
                            WIDE.max(2.0 * largest_difference(&name, &recorded, &file["h_f64"].1) / size)
                        }
                        (_, Form::Recurrent) => RECURRENT,
                        (_, Form::Chunkwise) => CHUNKWISE,
                    };
                    for cut in [0, length / 3] {
                        let what = format!("{name}, {form:?}, cut at {cut}");
                        let outcome = cell.run(form, cut);
                        let difference = largest_difference(&what, &outcome.h, &file["h_f64"].1) / size;
                        let [c, n, m] = state_differences(&cell, &outcome, &file);
                        let worst = worst.entry((format!("{form:?}"), range)).or_default();
                        for (worst, new) in worst.iter_mut().zip([difference, c, n, m]) {
                            *worst = worst.max(new);
                        }
                        assert!(difference <= tolerance, "{what}: h off by {difference:.1e}, at most {tolerance:.1e}");
                        for (which, difference) in [("C", c), ("n", n), ("m", m)] {
                            assert!(
                                difference <= tolerance,
                                "{what}: {which} off by {difference:.1e}, at most {tolerance:.1e}"
                            );
                        }
                    }
                }
            }
        }
    }
    for ((form, range), [h, c, n, m]) in worst {
        eprintln!("{form}, {range} gates: h off by {h:.1e} of the largest, final C {c:.1e}, n {n:.1e}, m {m:.1e}");
    }
}

/// Both forms give the same, for any split of the sequence (SPEC 4): within rounding, where the gates are moderate.
#[test]
fn forms_and_splits_agree() {
    for range in ["mid", "closed"] {
        let file = read(&format!("S200_init_{range}"));
        let cell = Cell::new(&file);
        let size = largest(&file["h_f64"].1);
        let whole: Vec<f64> = cell.run(Form::Recurrent, 0).h.iter().map(|&h| h.into()).collect();
        for cut in [1, 63, 64, 65, 128, 199] {
            for form in [Form::Recurrent, Form::Chunkwise] {
                let difference = largest_difference(range, &cell.run(form, cut).h, &whole) / size;
                // Cut or not, the recurrent form rounds alike.
                let tolerance = if form == Form::Recurrent { 0.0 } else { CHUNKWISE };
                assert!(difference <= tolerance, "{range}, {form:?}, cut at {cut}: off by {difference:.1e}");
            }
        }
    }
}

#[test]
fn head_norm() {
    let file = read("norm_softcap");
    let [rows, heads, dv] = [1, 2, 3].map(|axis| file["x"].0[axis]);
    // q · n = 1 and m = 0 make a normaliser of 1 + 1e-6, a factor that the norm takes out again; an output gate of 40 is open.
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
    // Values up to 2.5, from a mean and a root over 16 values in f32 on either side.
    assert!(difference <= 4e-6, "off by {difference:.1e}");
}

#[test]
fn soft_cap() {
    let file = read("norm_softcap");
    let heads = file["softcap_x"].1.len();
    // A head for each value. From a state as low as this m' is the input gate's pre-activation, behind the cap.
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
    // Two units in the last place of 15 for each side.
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
