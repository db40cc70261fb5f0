//! The cases: inputs, all sides, and the check that they compute the same.

use std::sync::OnceLock;

use bolmo_runtime::{Engine, WeightFormat};
use serde_json::{Value, json};

use crate::timing::{self, Sample, Times};
use crate::{ours, peers};

/// Bytes of weights that a sample of `matvec` reads, more than caches hold.
const WEIGHT_BYTES: u64 = 1 << 28;
/// Rows of the result that are compared with a product in f64.
const CHECKED_ROWS: usize = 4;

/// A matrix, `[n, k]`.
pub struct Matrix {
    pub values: Vec<f32>,
    pub n: usize,
    pub k: usize,
}

/// One way to compute a case.
pub struct Side<'a> {
    pub form: &'static str,
    pub result: Vec<f32>,
    pub sample: Sample<'a>,
}

/// One product on all sides.
pub struct Case<'a> {
    name: String,
    /// Products per sample.
    products: usize,
    /// What `work` counts per second.
    unit: &'static str,
    /// Billions of operations or bytes per product.
    work: f64,
    w: &'a Matrix,
    x: &'a [f32],
    /// Largest error that rounding in this format explains.
    tolerance: f64,
    ours: Side<'a>,
    peers: Vec<(&'static str, Side<'a>)>,
    /// Our error, and the peers' in order. Known after the check.
    errors: Vec<f64>,
}

type Make = for<'a> fn(&'a Engine, usize) -> Result<Case<'a>, String>;

/// Makes every case. They are made one after the other, so that one set of weights is in memory.
pub const ALL: [Make; 5] = [
    matmul,
    |engine, _| matvec(engine, WeightFormat::F32),
    |engine, _| matvec(engine, WeightFormat::F16),
    |engine, _| matvec(engine, WeightFormat::Q8),
    |engine, _| matvec(engine, WeightFormat::Q4),
];

impl Case<'_> {
    /// Compares the results with a product in f64 and warms all sides up.
    pub fn check(&mut self) -> Result<(), String> {
        let rows = self.x.len() / self.w.k;
        let expected: Vec<f64> = (self.x.chunks_exact(self.w.k).take(CHECKED_ROWS))
            .flat_map(|x| self.w.values.chunks_exact(self.w.k).map(|w| dot(w, x)))
            .collect();
        let sides = std::iter::once(("ours", &mut self.ours)).chain(self.peers.iter_mut().map(|(n, s)| (*n, s)));
        for (name, side) in sides {
            let what = format!("{}, {name} ({})", self.name, side.form);
            if side.result.len() != rows * self.w.n {
                return Err(format!("{what}: expected {} values, found {}.", rows * self.w.n, side.result.len()));
            }
            let error = error(&side.result, &expected);
            // A NaN fails this comparison.
            let agrees = error <= self.tolerance;
            if !agrees {
                let most = self.tolerance;
                return Err(format!("{what}: the error must be at most {most:.0e}, found {error:.1e}. Fix it first."));
            }
            self.errors.push(error);
            (side.sample)()?;
        }
        Ok(())
    }

    /// Times all sides in turn and reports them, of every peer the fastest form.
    pub fn time(mut self, rounds: usize) -> Result<Value, String> {
        let mut samples = vec![Vec::new(); 1 + self.peers.len()];
        for _ in 0..rounds {
            let sides = std::iter::once(&mut self.ours).chain(self.peers.iter_mut().map(|(_, side)| side));
            for (samples, side) in samples.iter_mut().zip(sides) {
                samples.push(timing::time(&mut side.sample)?);
            }
        }
        let times: Vec<Times> = samples.iter().map(|samples| Times::of(samples, self.products)).collect();
        let report = |form: &str, i: usize| {
            let seconds = times[i].to_json();
            json!({ "form": form, "seconds": seconds, "rate": self.work / times[i].minimum, "error": self.errors[i] })
        };
        let ours = report(self.ours.form, 0);
        let mut fastest: Vec<(&str, usize)> = Vec::new();
        for (i, (name, _)) in self.peers.iter().enumerate() {
            match fastest.iter_mut().find(|(known, _)| known == name) {
                Some((_, best)) if times[i + 1].minimum < times[*best + 1].minimum => *best = i,
                Some(_) => {}
                None => fastest.push((name, i)),
            }
        }
        let peers: Vec<Value> = (fastest.iter())
            .map(|&(name, i)| {
                let mut peer = json!({ "peer": name, "ratio": times[i + 1].minimum / times[0].minimum });
                if let (Value::Object(peer), Value::Object(report)) = (&mut peer, report(self.peers[i].1.form, i + 1)) {
                    peer.extend(report);
                }
                peer
            })
            .collect();
        Ok(json!({ "case": self.name, "unit": self.unit, "products": self.products, "ours": ours, "peers": peers }))
    }
}

fn dot(w: &[f32], x: &[f32]) -> f64 {
    w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()
}

/// Root mean square of the difference, relative to that of `expected`.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    let off: f64 = found.iter().zip(expected).map(|(&found, expected)| (f64::from(found) - expected).powi(2)).sum();
    (off / expected.iter().map(|value| value.powi(2)).sum::<f64>()).sqrt()
}

/// Reproducible values between -1 and 1.
fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

type Inputs = OnceLock<(Matrix, Vec<f32>)>;

/// W and x, made once: they live as long as the process, since the sides borrow them.
fn inputs(cell: &'static Inputs, [rows, n, k]: [usize; 3]) -> (&'static Matrix, &'static [f32]) {
    let (w, x) = cell.get_or_init(|| (Matrix { values: noise(3, n * k), n, k }, noise(4, rows * k)));
    (w, x)
}

fn matmul(engine: &Engine, threads: usize) -> Result<Case<'_>, String> {
    static INPUTS: Inputs = OnceLock::new();
    let (rows, n, k, products) = (512, 2048, 2048, 4);
    let (w, x) = inputs(&INPUTS, [rows, n, k]);
    let mut peers = vec![("gemm", peers::gemm(w, x, threads, products))];
    peers.push(("candle", peers::candle_matmul(w, x, products)?));
    peers.extend(peers::burn_matmul(w, x, products)?.into_iter().map(|side| ("burn", side)));
    Ok(Case {
        name: format!("matmul {rows}x{n}x{k} f32"),
        products,
        unit: "GFLOP/s",
        work: 2e-9 * (rows * n * k) as f64,
        w,
        x,
        tolerance: 1e-5,
        ours: ours::matmul(engine, w, x, products)?,
        peers,
        errors: Vec::new(),
    })
}

fn matvec(engine: &Engine, format: WeightFormat) -> Result<Case<'_>, String> {
    static INPUTS: Inputs = OnceLock::new();
    let (n, k) = (4096, 4096);
    let (w, x) = inputs(&INPUTS, [1, n, k]);
    let bytes = format.weight_bytes(n as u64, k as u64) + format.scale_bytes(n as u64, k as u64);
    let products = WEIGHT_BYTES.div_ceil(bytes) as usize;
    let peers = peers::candle_matvec(format, w, x, products)?;
    Ok(Case {
        name: format!("matvec {n}x{k} {}", format.name()),
        products,
        unit: "GB/s",
        work: 1e-9 * bytes as f64,
        w,
        x,
        // Weights between -1 and 1 are at most half a step off, and candle rounds x too.
        tolerance: match format {
            WeightFormat::F32 => 1e-5,
            WeightFormat::F16 => 2e-3,
            WeightFormat::Q8 => 2e-2,
            WeightFormat::Q4 => 2e-1,
        },
        ours: ours::matvec(engine, format, w, x, products)?,
        peers: peers.into_iter().map(|side| ("candle", side)).collect(),
        errors: Vec::new(),
    })
}
