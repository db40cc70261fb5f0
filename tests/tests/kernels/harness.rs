//! Helpers of the kernel tests: devices, noise, cases and comparisons.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::OnceLock;

use bolmo_runtime::unstable::run_kernel;
use bolmo_runtime::{Engine, Reduce, Tiles, WeightFormat, block_on};
use bolmo_shaders::cpu::Matrix;
use bolmo_shaders::params::Params;
use bolmo_shaders::quant::quantize;
use bolmo_shaders::sizes::QUANT_BLOCK;
use bolmo_shaders::{Fusion, KernelId};
use bolmo_tests::engine_options;
use half::f16;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestCaseResult, TestRng, TestRunner};

/// Cases drawn for each kernel, besides its edges.
const CASES: u32 = 48;
/// One, primes, and the sizes around every tile, team and workgroup.
pub const EDGES: [usize; 19] = [1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129];
/// The unit of the bounds: the distance from 1 to the next f32, twice the error of rounding to nearest.
pub const EPS: f64 = f32::EPSILON as f64;
/// The filler of inputs that a kernel must not read: a NaN, which spoils the result.
pub const UNREAD: f32 = f32::from_bits(0x7fc0_0bad);
/// The filler of outputs before a kernel writes them: another NaN.
pub const UNWRITTEN: f32 = f32::from_bits(0x7fc1_2345);

/// One device per reduction and tile variant of this adapter.
fn engines() -> &'static [Engine] {
    static ENGINES: OnceLock<Vec<Engine>> = OnceLock::new();
    ENGINES.get_or_init(|| {
        let mut engines: Vec<Engine> = Vec::new();
        let ways = Tiles::ALL.map(|tiles| (None, Some(tiles)));
        for (reduce, tiles) in [(None, None)]
            .into_iter()
            .chain(ways)
            .chain([Reduce::Subgroup, Reduce::Workgroup, Reduce::SingleLane].map(|reduce| (Some(reduce), None)))
        {
            let mut options = engine_options();
            (options.reduce, options.tiles) = (reduce, tiles);
            let engine = block_on(Engine::open(&options)).expect("an adapter");
            // Some variants coincide, as without subgroups.
            let ways = |engine: &Engine| (engine.capabilities().reduce, engine.capabilities().tiles);
            if engines.iter().all(|other| ways(other) != ways(&engine)) {
                eprintln!("adapter: {}, {:?}", engine.adapter().name, ways(&engine));
                engines.push(engine);
            }
        }
        engines
    })
}

/// A device whose `matvec` issues several loads ahead, as on GPUs.
pub fn streaming() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut options = engine_options();
        options.matvec_ahead = Some(true);
        block_on(Engine::open(&options)).expect("an adapter")
    })
}

/// Every variant of a kernel on this adapter. The CPU device has one form of each kernel.
pub fn forms(id: KernelId) -> Vec<(&'static Engine, WeightFormat)> {
    let kernel = id.kernel();
    let mut engines: Vec<&Engine> = engines().iter().collect();
    let mut seen = Vec::new();
    engines.retain(|engine| {
        let can = engine.capabilities();
        let lone = kernel.single_lane.then_some(can.reduce == Reduce::SingleLane);
        let way = (kernel.reduce.then_some(can.reduce), kernel.subgroup_text.map(|_| can.tiles), lone);
        let new = !seen.contains(&way);
        seen.push(way);
        new
    });
    let formats = if kernel.weights.is_some() { &WeightFormat::ALL[..] } else { &WeightFormat::ALL[..1] };
    engines.into_iter().flat_map(|engine| formats.iter().map(move |&format| (engine, format))).collect()
}

/// Runs a kernel on the device and returns the contents of its bindings.
pub fn run<P: Params>(
    (engine, format): (&Engine, WeightFormat),
    id: KernelId,
    params: &P,
    bindings: &[&[u8]],
    grid: [usize; 3],
) -> Result<Vec<Vec<f32>>, TestCaseError> {
    run_fused((engine, format, Fusion::default()), id, params, bindings, grid)
}

/// [`run`] in a fused variant.
pub fn run_fused<P: Params>(
    (engine, format, fusion): (&Engine, WeightFormat, Fusion),
    id: KernelId,
    params: &P,
    bindings: &[&[u8]],
    grid: [usize; 3],
) -> Result<Vec<Vec<f32>>, TestCaseError> {
    let bindings = block_on(run_kernel(engine, id, (format, fusion), params, bindings, grid))
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    Ok(bindings.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).collect())
}

/// An array as a binding.
pub fn bytes<T: bytemuck::Pod>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// The largest error so far as a share of its bound.
#[derive(Default)]
pub struct Worst(Cell<f64>);

impl Worst {
    /// Compares an output with the CPU reference's: value `i` within `bound(i)`, and untouched where the reference does
    /// not write.
    pub fn compare(&self, what: &str, found: &[f32], expected: &[f32], bound: impl Fn(usize) -> f64) -> TestCaseResult {
        prop_assert_eq!(found.len(), expected.len(), "{}: number of values", what);
        for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            if expected.to_bits() == UNWRITTEN.to_bits() {
                prop_assert!(found.to_bits() == expected.to_bits(), "{} {}: overwritten with {}", what, i, found);
                continue;
            }
            let (bound, error) = (bound(i), (f64::from(found) - f64::from(expected)).abs());
            // False for a NaN.
            prop_assert!(
                error <= bound,
                "{what} {i}: {found} on the device, {expected} on the CPU, off by {error:.1e}, at most {bound:.1e}"
            );
            if error > 0.0 {
                self.0.set(self.0.get().max(error / bound));
            }
        }
        Ok(())
    }
}

/// Runs `check` on all `edges` and then on cases drawn from `drawn`, the same in every run.
pub fn hold<S: Strategy>(
    id: KernelId,
    edges: impl IntoIterator<Item = S::Value>,
    drawn: S,
    check: impl Fn(&Worst, &S::Value) -> TestCaseResult,
) where
    S::Value: Debug,
{
    let worst = Worst::default();
    let mut count = CASES;
    for case in edges {
        count += 1;
        check(&worst, &case).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, rng).run(&drawn, |case| check(&worst, &case));
    outcome.unwrap_or_else(|error| panic!("{error}"));
    eprintln!("{}: {count} cases, the largest error is {:.3} of its bound", id.kernel().stem, worst.0.get());
}

/// Edges up to `max`.
pub fn edges(max: usize) -> impl Iterator<Item = usize> {
    EDGES.into_iter().filter(move |&edge| edge <= max)
}

/// A size up to `max`, an edge in about half of the cases.
pub fn size(max: usize) -> impl Strategy<Value = usize> {
    prop_oneof![1..=max, select(edges(max).collect::<Vec<_>>())]
}

/// Reproducible values.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A value below `below`.
    pub fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * below as u64) >> 32) as usize
    }

    /// A value from 0 to 1.
    pub fn unit(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 24) as f32
    }

    /// A value between -`size` and `size`.
    pub fn value(&mut self, size: f32) -> f32 {
        size * (2.0 * self.unit() - 1.0)
    }

    /// `count` values between -`size` and `size`.
    pub fn values(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.value(size)).collect()
    }

    /// Fills `width` values in each of `rows` rows.
    pub fn fill(&mut self, to: &mut [f32], rows: Rows, size: f32) {
        for row in 0..rows.rows {
            let first = rows.offset + row * rows.stride;
            to[first..first + rows.width].fill_with(|| self.value(size));
        }
    }

    /// An input with these rows and filler around them.
    pub fn rows(&mut self, rows: Rows, size: f32) -> Vec<f32> {
        let mut to = rows.array(UNREAD);
        self.fill(&mut to, rows, size);
        to
    }
}

/// The layout of rows in an array.
#[derive(Clone, Copy)]
pub struct Rows {
    pub rows: usize,
    pub width: usize,
    pub offset: usize,
    pub stride: usize,
}

impl Rows {
    /// Contiguous rows.
    pub fn dense(rows: usize, width: usize) -> Self {
        Self { rows, width, offset: 0, stride: width }
    }

    /// An array for the rows and one more.
    pub fn array(self, padding: f32) -> Vec<f32> {
        vec![padding; (self.offset + (self.rows + 1) * self.stride).next_multiple_of(4)]
    }

    /// An output before it is written.
    pub fn output(self) -> Vec<f32> {
        self.array(UNWRITTEN)
    }
}

/// Absolute values: the CPU reference over them gives the sums that bounds are relative to.
pub fn magnitudes(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| value.abs()).collect()
}

/// The largest absolute value but for padding.
pub fn largest(values: &[f32]) -> f64 {
    values.iter().filter(|value| !value.is_nan()).fold(0.0, |largest, value| largest.max(f64::from(value.abs())))
}

/// A matrix in every format.
pub struct Weights {
    f32: Vec<f32>,
    f16: Vec<f16>,
    q8: (Vec<u8>, Vec<f16>),
    q4: (Vec<u8>, Vec<f16>),
}

/// Quantized values of all complete blocks; padding stays a NaN.
fn packed(format: WeightFormat, values: &[f32]) -> (Vec<u8>, Vec<f16>) {
    let (mut weights, mut scales) = (Vec::new(), Vec::new());
    for block in values.chunks_exact(QUANT_BLOCK) {
        let numbers: Vec<f32> = block.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
        quantize(format, &numbers, &mut weights, &mut scales).expect("values in range");
        if block.iter().any(|v| v.is_nan()) {
            scales.pop();
            scales.push(f16::NAN);
        }
    }
    if scales.len() % 2 == 1 {
        scales.push(f16::NAN);
    }
    // Bindings must not be empty.
    weights.resize(weights.len().max(16), 0);
    scales.resize(scales.len().max(2), f16::NAN);
    (weights, scales)
}

impl Weights {
    pub fn new(values: Vec<f32>) -> Self {
        Self {
            f16: values.iter().map(|&value| f16::from_f32(value)).collect(),
            q8: packed(WeightFormat::Q8, &values),
            q4: packed(WeightFormat::Q4, &values),
            f32: values,
        }
    }

    pub fn matrix(&self, format: WeightFormat) -> Matrix<'_> {
        match format {
            WeightFormat::F32 => Matrix::F32(&self.f32),
            WeightFormat::F16 => Matrix::F16(&self.f16),
            WeightFormat::Q8 => Matrix::Q8(&self.q8.0, &self.q8.1),
            WeightFormat::Q4 => Matrix::Q4(&self.q4.0, &self.q4.1),
        }
    }

    pub fn bytes(&self, format: WeightFormat) -> &[u8] {
        match format {
            WeightFormat::F32 => bytes(&self.f32),
            WeightFormat::F16 => bytes(&self.f16),
            WeightFormat::Q8 => &self.q8.0,
            WeightFormat::Q4 => &self.q4.0,
        }
    }

    /// `bindings`, followed by the scales if the format has them.
    pub fn with_scales<'a>(&'a self, format: WeightFormat, bindings: &[&'a [u8]]) -> Vec<&'a [u8]> {
        let scales = match format {
            WeightFormat::F32 | WeightFormat::F16 => None,
            WeightFormat::Q8 => Some(bytes(&self.q8.1)),
            WeightFormat::Q4 => Some(bytes(&self.q4.1)),
        };
        bindings.iter().copied().chain(scales).collect()
    }

    /// The absolute values of the matrix in this format.
    pub fn magnitudes(&self, format: WeightFormat) -> Vec<f32> {
        (0..self.f32.len())
            .map(|i| if self.f32[i].is_nan() { UNREAD } else { self.matrix(format).get(i).abs() })
            .collect()
    }
}

/// The smallest width in fours, at least `k4`, that the format can store.
pub fn fitting4(format: WeightFormat, k4: usize) -> usize {
    match format {
        WeightFormat::F32 => k4,
        WeightFormat::F16 => k4.next_multiple_of(2),
        WeightFormat::Q8 | WeightFormat::Q4 => k4.next_multiple_of(QUANT_BLOCK / 4),
    }
}
