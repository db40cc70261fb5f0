//! The limits of an adapter, measured with single kernels.
//!
//! Method: a sample times a submission and the wait for a few bytes of its result, with few and with many repetitions
//! of the work. The difference, divided by the number of additional repetitions, is the time of one repetition without
//! the cost of a submission. The number of repetitions is chosen so that the longer part takes about [`LONG`]. Results
//! are the median, minimum and maximum of several samples, after one that is discarded. Times are wall time, so other
//! work on the machine increases them.
//!
//! - **Copy**: `copy.wgsl` between two buffers far larger than the caches, counting bytes read and bytes written.
//! - **Read**: on the CPU device, sums over a range of memory of the same size by plain code on the device's threads.
//! - **Gap**: dispatches of one workgroup in one compute pass, each reading the output of the previous one.
//! - **Pass**: the additional time per dispatch if each has a compute pass of its own.
//! - **Submit**: an empty submission and the wait for it. **Readback**: a submission of one dispatch and the wait for 4
//!   KiB of its result.
//! - **Products**: matrices of 2048 by 2048 (1024 by 1024 on software adapters), multiplied as in the model's stages, a
//!   different one each time so that the weights come from memory: with one row of x, and with a whole prefill chunk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bolmo_shaders::params;
use bolmo_shaders::sizes::COPY_SLICE4;
use bolmo_shaders::{KernelId, WeightFormat};

use crate::config::Config;
use crate::config::preset::Preset;
use crate::device::{Device, Engine, Recorder, Slice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::weights::{Matrix, Piece};
use crate::stages::ops::{self, Context, Rows};
use crate::state::workspace::Workspace;

/// Target duration of the longer part of a sample.
const LONG: Duration = Duration::from_millis(50);
/// Dispatches per submission, somewhat below the recorder's limit.
const MAX_DISPATCHES: usize = 1000;
/// Rows and columns of the matrices.
const WIDTH: usize = 2048;
/// Rows and columns of the matrices on software adapters, which would take long with larger ones.
const SOFTWARE_WIDTH: usize = 1024;

/// Median and range of several measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub least: f64,
    /// The maximum.
    pub most: f64,
}

impl Spread {
    /// The spread of `samples`; all zeros if there are none.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(0.0);
        let median = (at(sorted.len().saturating_sub(1) / 2) + at(sorted.len() / 2)) / 2.0;
        Self { median, least: at(0), most: at(sorted.len().saturating_sub(1)) }
    }

    /// Converts seconds for `amount` units into units per second.
    pub fn rate(self, amount: f64) -> Self {
        let of = |seconds: f64| amount / seconds.max(1e-12);
        Self { median: of(self.median), least: of(self.most), most: of(self.least) }
    }
}

/// Rates of matrix products in one format.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ProductRate {
    /// Format of the matrices.
    pub format: WeightFormat,
    /// Rows and columns of each matrix.
    pub width: usize,
    /// Weights per second with one row of x.
    pub matvec_weights_per_second: Spread,
    /// Multiply-adds per second with the rows of a prefill chunk.
    pub matmul_products_per_second: Spread,
    /// Rows of that prefill chunk.
    pub matmul_rows: usize,
}

/// The limits of an adapter.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes read and written per second by a copying kernel.
    pub copy_bytes_per_second: Spread,
    /// Bytes per second that the threads of the CPU device read from memory; `None` on other devices.
    pub read_bytes_per_second: Option<Spread>,
    /// Size of each of the two buffers in bytes.
    pub copy_buffer_bytes: u64,
    /// Time from a dispatch to the next one, which needs its result.
    pub dispatch_gap_seconds: Spread,
    /// Additional time of a compute pass.
    pub pass_seconds: Spread,
    /// Time of an empty submission and the wait for it.
    pub submit_seconds: Spread,
    /// Time of a submission and the wait for a small result.
    pub readback_seconds: Spread,
    /// Rates of products, by format.
    pub products: Vec<ProductRate>,
}

impl Limits {
    /// Measures the engine's device with `runs` samples each, and products in each of `formats`. `progress` is called
    /// with the name of the next measurement, and stops the work by returning `false`.
    ///
    /// # Errors
    /// `Cancelled`; `OutOfMemory`; any error of the device.
    pub async fn measure(
        engine: &Engine,
        formats: &[WeightFormat],
        runs: usize,
        progress: &mut (dyn FnMut(&str) -> bool + Send),
    ) -> Result<Self> {
        let device = &engine.device;
        let software = device.adapter.is_software();
        // Larger than the caches, but not so large that software adapters take long.
        let large = (if software { 64 << 20 } else { 256 << 20 })
            .min(device.capabilities.max_binding_bytes)
            .min(device.capabilities.max_buffer_bytes);
        let mut bench = Bench { recorder: Recorder::new(device).await?, runs: runs.max(1) };
        let mut next = |what: &str| match progress(what) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Cancelled, "the measurement was stopped")),
        };

        next("submissions")?;
        let small = Pair::new(device, 4096).await?;
        let submit_seconds = bench.submits().await?;
        let readback_seconds = bench.readbacks(&small).await?;
        next("dispatches")?;
        let dispatch_gap_seconds = bench.gap(&small).await?;
        let pass_seconds = bench.passes(&small).await?;
        next("copying")?;
        let copy_bytes_per_second = bench.copies(&Pair::new(device, large).await?).await?;
        next("reading")?;
        let read_bytes_per_second = reads(device, large, runs.max(1))?;
        let mut products = Vec::new();
        for &format in formats {
            next(&format!("products in {}", format.name()))?;
            products.push(bench.products(device, format, large).await?);
        }
        Ok(Self {
            copy_bytes_per_second,
            read_bytes_per_second,
            copy_buffer_bytes: large,
            dispatch_gap_seconds,
            pass_seconds,
            submit_seconds,
            readback_seconds,
            products,
        })
    }

    /// The rates of a format, if it was measured.
    pub fn product(&self, format: WeightFormat) -> Option<&ProductRate> {
        self.products.iter().find(|rate| rate.format == format)
    }
}

/// Two buffers of the same size.
struct Pair {
    a: Slice,
    b: Slice,
}

impl Pair {
    async fn new(device: &Device, bytes: u64) -> Result<Self> {
        let (a, b) = (device.allocate("a copy", bytes).await?, device.allocate("a copy", bytes).await?);
        fill(device, &a, Pattern::F32).await?;
        Ok(Self { a, b })
    }

    fn copy(&self, recorder: &mut Recorder, back: bool) -> Result<()> {
        let (from, to) = if back { (&self.b, &self.a) } else { (&self.a, &self.b) };
        let count4 = from.size() / 16;
        let grid = [(count4 as usize).div_ceil(COPY_SLICE4 as usize), 1, 1];
        recorder.dispatch(KernelId::Copy, WeightFormat::F32, &params::Copy { count4: count4 as u32 }, &[from, to], grid)
    }
}

/// Takes the samples.
struct Bench {
    recorder: Recorder,
    runs: usize,
}

impl Bench {
    /// Submits the list and returns the seconds until its result is read back.
    async fn time(&mut self, result: &Slice) -> Result<f64> {
        let begun = Instant::now();
        self.recorder.read(&[result.part(0, result.size().min(4096))?]).await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Seconds of the work that `record` records: `dispatches` dispatches, the last of which writes `result`.
    async fn repeated(
        &mut self,
        dispatches: usize,
        result: &Slice,
        record: impl Fn(&mut Recorder) -> Result<()>,
    ) -> Result<Spread> {
        // The first iteration compiles the kernel.
        let mut once = f64::INFINITY;
        for _ in 0..2 {
            record(&mut self.recorder)?;
            once = once.min(self.time(result).await?);
        }
        let room = (MAX_DISPATCHES / dispatches.max(1)).saturating_sub(1).max(1);
        let more = ((LONG.as_secs_f64() / once).ceil() as usize).clamp(1, 1024).min(room);
        let mut samples = Vec::new();
        for _ in 0..=self.runs {
            record(&mut self.recorder)?;
            let short = self.time(result).await?;
            for _ in 0..=more {
                record(&mut self.recorder)?;
            }
            let long = self.time(result).await?;
            // Other work on the machine can make the shorter part the slower one.
            samples.push(((long - short) / more as f64).max(0.0));
        }
        Ok(Spread::of(&samples[1..]))
    }

    async fn submits(&mut self) -> Result<Spread> {
        let mut samples = Vec::new();
        for _ in 0..=self.runs {
            let begun = Instant::now();
            for _ in 0..32 {
                self.recorder.device().flush().await?;
            }
            samples.push(begun.elapsed().as_secs_f64() / 32.0);
        }
        Ok(Spread::of(&samples[1..]))
    }

    async fn readbacks(&mut self, pair: &Pair) -> Result<Spread> {
        let mut samples = Vec::new();
        for _ in 0..=self.runs {
            let begun = Instant::now();
            for _ in 0..32 {
                pair.copy(&mut self.recorder, false)?;
                self.time(&pair.b).await?;
            }
            samples.push(begun.elapsed().as_secs_f64() / 32.0);
        }
        Ok(Spread::of(&samples[1..]))
    }

    /// Time per dispatch in a chain of dispatches that depend on each other.
    async fn gap(&mut self, pair: &Pair) -> Result<Spread> {
        const EACH: usize = 64;
        let record = |recorder: &mut Recorder| (0..EACH).try_for_each(|i| pair.copy(recorder, i % 2 == 1));
        let spread = self.repeated(EACH, &pair.a, record).await?;
        Ok(scaled(spread, 1.0 / EACH as f64))
    }

    async fn passes(&mut self, pair: &Pair) -> Result<Spread> {
        const EACH: usize = 512;
        let mut samples = Vec::new();
        for _ in 0..=self.runs {
            let mut times = [0.0; 2];
            for (own_pass, time) in [false, true].into_iter().zip(&mut times) {
                for i in 0..EACH {
                    pair.copy(&mut self.recorder, i % 2 == 1)?;
                    if own_pass {
                        self.recorder.end_pass();
                    }
                }
                *time = self.time(&pair.a).await?;
            }
            samples.push(((times[1] - times[0]) / (EACH - 1) as f64).max(0.0));
        }
        Ok(Spread::of(&samples[1..]))
    }

    async fn copies(&mut self, pair: &Pair) -> Result<Spread> {
        let seconds = self.repeated(1, &pair.b, |recorder| pair.copy(recorder, false)).await?;
        Ok(seconds.rate(2.0 * pair.a.size() as f64))
    }

    /// Measures products with matrices of `large` bytes in total.
    async fn products(&mut self, device: &Arc<Device>, format: WeightFormat, large: u64) -> Result<ProductRate> {
        let width = if device.adapter.is_software() { SOFTWARE_WIDTH } else { WIDTH };
        let (n, k) = (width, width);
        let each = format.weight_bytes(n as u64, k as u64) + format.scale_bytes(n as u64, k as u64);
        let mut products = Vec::new();
        for _ in 1..(large / each).max(2) {
            products.push(Product::new(device, format, width, 1).await?);
        }
        // The last one is multiplied with many rows too.
        products.push(Product::new(device, format, width, device.capabilities.prefill_bytes).await?);
        // The products of the stages require a model's context, but do not use it.
        let config = Preset::Nano.config();
        let workspace = Workspace::new(device, &config, 1).await?;
        let Some(last) = products.last() else { return Err(Error::internal("there is no product to measure")) };
        let weights = (n * k) as f64;

        let all = |recorder: &mut Recorder| {
            products.iter().try_for_each(|product| product.record(recorder, &config, &workspace, 1))
        };
        let seconds = self.repeated(products.len(), &last.y, all).await?;
        let matvec = seconds.rate(weights * products.len() as f64);

        let rows = device.capabilities.prefill_bytes;
        let one = |recorder: &mut Recorder| last.record(recorder, &config, &workspace, rows);
        let seconds = self.repeated(1, &last.y, one).await?;
        Ok(ProductRate {
            format,
            width,
            matvec_weights_per_second: matvec,
            matmul_products_per_second: seconds.rate(weights * rows as f64),
            matmul_rows: rows,
        })
    }
}

/// The rate at which the CPU device's threads read memory.
#[cfg(not(target_family = "wasm"))]
fn reads(device: &Device, bytes: u64, runs: usize) -> Result<Option<Spread>> {
    let Some(threads) = device.threads() else { return Ok(None) };
    let seconds = super::memory::read_seconds(threads, bytes as usize, runs)?;
    Ok(Some(Spread::of(&seconds).rate(bytes as f64)))
}

/// Browsers have no CPU device.
#[cfg(target_family = "wasm")]
fn reads(_device: &Device, _bytes: u64, _runs: usize) -> Result<Option<Spread>> {
    Ok(None)
}

fn scaled(spread: Spread, factor: f64) -> Spread {
    Spread { median: spread.median * factor, least: spread.least * factor, most: spread.most * factor }
}

/// A matrix, and rows to multiply it with.
struct Product {
    w: Matrix,
    x: Slice,
    y: Slice,
}

impl Product {
    async fn new(device: &Device, format: WeightFormat, width: usize, rows: usize) -> Result<Self> {
        let (n, k) = (width, width);
        let weights = device.allocate("a matrix", format.weight_bytes(n as u64, k as u64)).await?;
        fill(device, &weights, Pattern::of(format)).await?;
        let mut scales = None;
        if format.has_scales() {
            let slice = device.allocate("scales", format.scale_bytes(n as u64, k as u64)).await?;
            fill(device, &slice, Pattern::F16).await?;
            scales = Some(slice);
        }
        let x = device.allocate("rows", (4 * rows * k) as u64).await?;
        fill(device, &x, Pattern::F32).await?;
        let y = device.allocate("rows", (4 * rows * n) as u64).await?;
        let piece = Piece { first_row: 0, rows: n, weights, scales, odd_rows: None, bias: None };
        Ok(Self { w: Matrix { n, k, format, pieces: vec![piece] }, x, y })
    }

    fn record(&self, recorder: &mut Recorder, config: &Config, workspace: &Workspace, rows: usize) -> Result<()> {
        let mut cx = Context { recorder, config, workspace };
        let (x, y) = (Rows::new(&self.x, self.w.k, 0), Rows::new(&self.y, self.w.n, 0));
        cx.linear(ops::Product::new(&self.w, x, y, rows))
    }
}

/// Contents of buffers: values that processors multiply at normal speed, unlike NaNs, subnormals and zeros.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    /// Values from 1 to 2.
    F32,
    /// Pairs of values from 1 to 2.
    F16,
    /// Random bytes.
    Bytes,
}

impl Pattern {
    fn of(format: WeightFormat) -> Self {
        match format {
            WeightFormat::F32 => Pattern::F32,
            WeightFormat::F16 => Pattern::F16,
            WeightFormat::Q8 | WeightFormat::Q4 => Pattern::Bytes,
        }
    }

    fn word(self, noise: u32) -> u32 {
        match self {
            Pattern::F32 => 0x3f80_0000 | noise & 0x007f_ffff,
            Pattern::F16 => 0x3c00_3c00 | noise & 0x03ff_03ff,
            Pattern::Bytes => noise,
        }
    }
}

/// Fills a buffer, one MiB at a time.
async fn fill(device: &Device, slice: &Slice, pattern: Pattern) -> Result<()> {
    let mut noise = 0x9e37_79b9u32;
    let words: Vec<u32> = (0..1 << 18)
        .map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            pattern.word(noise)
        })
        .collect();
    let bytes: &[u8] = bytemuck::cast_slice(&words);
    let mut at = 0;
    while at < slice.size() {
        let part = (slice.size() - at).min(bytes.len() as u64);
        device.write(slice, at, &bytes[..part as usize])?;
        at += part;
        device.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_median_minimum_and_maximum_and_inverts_to_a_rate() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!((spread.median, spread.least, spread.most), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0]).median, 2.5);
        let rate = spread.rate(6.0);
        assert_eq!((rate.median, rate.least, rate.most), (3.0, 2.0, 6.0));
        assert_eq!(Spread::of(&[]).median, 0.0);
    }

    #[test]
    fn patterns_are_normal_numbers() {
        for noise in [0, 1, 0x8000_0000, u32::MAX, 0x1234_5678] {
            assert!((1.0..2.0).contains(&f32::from_bits(Pattern::F32.word(noise))));
            let word = Pattern::F16.word(noise);
            for bits in [word as u16, (word >> 16) as u16] {
                assert!((1.0..2.0).contains(&half::f16::from_bits(bits).to_f32()));
            }
        }
    }
}
