//! Times of the heavy kernels at the sizes of Bolmo-1B.
//!
//! Method: a sample is one submission of eight dispatches and the wait for them; the time is divided by eight. The
//! control is `silu_mul` on 64 floats, which is all overhead. Times are wall time, so other programs must be idle.
//! Values are between 0.5 and 1, of either sign. The name of the adapter is printed first and is part of the name of
//! every benchmark.
//!
//! `BOLMO_ADAPTER` selects another adapter. `BOLMO_TILES=workgroup` times the products and attention that use workgroup
//! memory on an adapter with other tiles by default. Run with `cargo bench -p bolmo-benches --bench kernels`.

use std::time::Duration;

use bolmo_runtime::unstable::{KernelRunner, matmul_tile};
use bolmo_runtime::{AdapterChoice, Engine, EngineOptions, Tiles, WeightFormat, block_on};
use bolmo_shaders::params::{Attention, MatMul, MatVec, MlstmCell, Params, RmsNorm, Sample, SiluMul};
use bolmo_shaders::{Fusion, KernelId};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Dispatches per submission.
const TIMES: usize = 8;

/// Times kernels on an engine.
struct Bench<'a> {
    criterion: &'a mut Criterion,
    engine: &'a Engine,
}

impl Bench<'_> {
    /// Times a kernel on buffers of `sizes` bytes. `bytes` is the least that a dispatch reads.
    fn time<P: Params>(
        &mut self,
        what: (KernelId, WeightFormat, &str),
        params: P,
        sizes: &[usize],
        grid: [usize; 3],
        bytes: u64,
    ) {
        let contents: Vec<Vec<u8>> = sizes.iter().map(|&n| noise(n)).collect();
        self.time_on(what, params, &contents, grid, bytes);
    }

    /// Times a kernel on buffers with these contents.
    fn time_on<P: Params>(
        &mut self,
        (kernel, format, what): (KernelId, WeightFormat, &str),
        params: P,
        contents: &[Vec<u8>],
        grid: [usize; 3],
        bytes: u64,
    ) {
        let bindings: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        let mut runner = block_on(KernelRunner::new(self.engine, &bindings)).expect("buffers");
        let mut group = self.criterion.benchmark_group(self.engine.adapter().name.clone());
        group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
        group.throughput(Throughput::Bytes(bytes));
        let id = BenchmarkId::new(kernel.kernel().stem, format!("{} {what}", format.name()));
        // Every matrix of `matvec` here has at least 2048 rows.
        let tall = kernel == KernelId::MatVec && self.engine.capabilities().tall_rows <= 2048;
        let fusion = Fusion { tall, ..Fusion::default() };
        group.bench_function(id, |b| {
            b.iter_custom(|n| {
                let begun = std::time::Instant::now();
                for _ in 0..n {
                    block_on(runner.run(kernel, (format, fusion), &params, grid, TIMES)).expect("a run");
                }
                begun.elapsed() / TIMES as u32
            });
        });
        group.finish();
    }
}

/// Returns `bytes` bytes of floats between 0.5 and 1, of either sign. Read as pairs of f16 they are finite too, as
/// scales have to be.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (0x3f00_0000 | (state & 0x8000_0000) | ((state >> 9) & 0x007f_bfff)).to_le_bytes()
    };
    (0..bytes.div_ceil(4)).flat_map(next).take(bytes).collect()
}

/// `sizes`, followed by that of the scales in formats that have some.
fn with_scales(sizes: &[usize], scales: usize) -> Vec<usize> {
    let mut sizes = sizes.to_vec();
    sizes.extend((scales > 0).then_some(scales));
    sizes
}

fn control(bench: &mut Bench<'_>) {
    let what = (KernelId::SiluMul, WeightFormat::F32, "64 (control)");
    bench.time(what, SiluMul { rows: 1, dim4: 16 }, &[512, 256], [1, 1, 1], 512);
}

fn rms_norm(bench: &mut Bench<'_>) {
    let (rows, dim) = (1024, 2048);
    let params = RmsNorm {
        rows: rows as u32,
        groups: 1,
        dim4: dim as u32 / 4,
        x_stride4: dim as u32 / 4,
        y_stride4: dim as u32 / 4,
        eps: 1e-6,
        ..RmsNorm::default()
    };
    let sizes = [4 * dim, 4 * dim * rows, 4 * dim * rows];
    bench.time((KernelId::RmsNorm, WeightFormat::F32, "1024x2048"), params, &sizes, [1, rows, 1], sizes[1] as u64);
}

/// A square matrix and one row.
fn matvec(bench: &mut Bench<'_>, format: WeightFormat, size: usize) {
    let (n, k) = (size, size);
    let matrix = format.weight_bytes(n as u64, k as u64) as usize;
    let scales = format.scale_bytes(n as u64, k as u64) as usize;
    let params =
        MatVec { n: n as u32, k4: k as u32 / 4, x_stride4: k as u32 / 4, y_stride: n as u32, ..MatVec::default() };
    let sizes = with_scales(&[matrix, 4 * k, 16, 16, 4 * n], scales);
    let capabilities = bench.engine.capabilities();
    let fusion = Fusion { tall: n >= capabilities.tall_rows, ..Fusion::default() };
    let grid = [1, n / capabilities.matvec_rows(fusion), 1];
    bench.time((KernelId::MatVec, format, &format!("{n}x{k}")), params, &sizes, grid, matrix as u64);
}

/// A square matrix and 512 rows.
fn matmul(bench: &mut Bench<'_>, format: WeightFormat) {
    let (n, k, rows) = (2048, 2048, 512);
    let matrix = format.weight_bytes(n as u64, k as u64) as usize;
    let scales = format.scale_bytes(n as u64, k as u64) as usize;
    let params = MatMul {
        rows: rows as u32,
        n: n as u32,
        k4: k as u32 / 4,
        x_stride4: k as u32 / 4,
        y_stride: n as u32,
        ..MatMul::default()
    };
    let sizes = with_scales(&[matrix, 4 * k * rows, 16, 4 * n * rows], scales);
    let [tile_columns, tile_rows] = matmul_tile(bench.engine, format);
    let grid = [n / tile_columns, rows / tile_rows, 1];
    bench.time((KernelId::MatMul, format, "512x2048x2048"), params, &sizes, grid, matrix as u64);
}

/// The last `count` of `keys` positions attend to all before them.
fn attention(bench: &mut Bench<'_>, count: usize, keys: usize, heads: usize, dim: usize) {
    let params = Attention {
        count: count as u32,
        heads: heads as u32,
        heads_per_kv: 1,
        dim4: dim as u32 / 4,
        query_first: (keys - count) as u32,
        keys: keys as u32,
        begin: 1,
        end: 1,
        scale: 0.1,
        ..Attention::default()
    };
    let cache = keys * 2 * heads * dim * 4;
    let sizes = [count * heads * dim * 4, cache, count * heads * 8, count * heads * dim * 4];
    let grid = bench.engine.capabilities().tiles.attention_grid(count, heads, 1);
    let what = format!("{count} queries, {keys} keys, {heads} heads of {dim}");
    bench.time((KernelId::Attention, WeightFormat::F32, &what), params, &sizes, grid, cache as u64);
}

fn mlstm_cell(bench: &mut Bench<'_>, heads: usize, dk: usize, dv: usize) {
    let d = heads * dv;
    let [q, k, v, o, i] = [0, d / 2, d, 2 * d, 3 * d].map(|at| at as u32);
    let params = MlstmCell {
        rows: 1,
        heads: heads as u32,
        dk: dk as u32,
        dv: dv as u32,
        stride: (3 * d + 2 * heads) as u32,
        q_offset: q,
        k_offset: k,
        v_offset: v,
        o_offset: o,
        i_offset: i,
        f_offset: i + heads as u32,
        cap: 15.0,
        scale: 0.1,
        eps: 1e-6,
    };
    let state = 4 * heads * dk * (dv + 1);
    let sizes = [4 * (3 * d + 2 * heads), state, 4 * heads, 4 * d, 4 * d];
    let what = format!("{heads} heads of {dk} and {dv}");
    bench.time((KernelId::MlstmCell, WeightFormat::F32, &what), params, &sizes, [heads, 1, 1], 2 * state as u64);
}

fn sample(bench: &mut Bench<'_>, what: &str, temperature: f32, penalty: f32) {
    let params = Sample {
        temperature,
        top_p: 1.0,
        penalty,
        top_k: 257,
        window: 64,
        // Only plain ids, so that no id halts the dispatches that follow.
        flags: 1,
        ring: 256,
        ..Sample::default()
    };
    let words = |words: &[u32]| bytemuck::cast_slice(words).to_vec();
    // The kernel counts the chosen ids; no run chooses this many.
    let mut control = vec![0u32; 1 << 22];
    control[3] = u32::MAX;
    control[4] = 64;
    let contents = [
        noise(4 * 520),
        noise(4 * 257),
        words(&vec![0x3f00_0000; 1 << 20]),
        words(&[0]),
        words(&[0]),
        words(&control),
        words(&[68; 256]),
        words(&[0; 65]),
    ];
    bench.time_on((KernelId::Sample, WeightFormat::F32, what), params, &contents, [1, 1, 1], 4 * 520);
}

fn main() {
    let mut options =
        EngineOptions::default().adapter(AdapterChoice::parse(&std::env::var("BOLMO_ADAPTER").unwrap_or_default()));
    options.tiles = std::env::var("BOLMO_TILES").ok().and_then(|name| Tiles::from_name(&name));
    let engine = block_on(Engine::open(&options)).expect("an adapter");
    let tiles = engine.capabilities().tiles;
    println!("adapter: {} ({}), tiles of a {tiles:?}", engine.adapter().name, engine.adapter().driver);
    let mut criterion = Criterion::default().configure_from_args();
    let mut bench = Bench { criterion: &mut criterion, engine: &engine };

    control(&mut bench);
    rms_norm(&mut bench);
    for format in WeightFormat::ALL {
        matvec(&mut bench, format, 2048);
        matmul(&mut bench, format);
        matvec(&mut bench, format, 4096);
    }
    // Decoding, a prefill chunk, and a whole prompt.
    for (count, keys, heads, dim) in [(1, 2048, 16, 128), (64, 2048, 16, 128), (1024, 1024, 16, 64)] {
        attention(&mut bench, count, keys, heads, dim);
    }
    // Bolmo-1B and a small model.
    for (heads, dk, dv) in [(16, 64, 128), (2, 16, 32)] {
        mlstm_cell(&mut bench, heads, dk, dv);
    }
    for (what, temperature, penalty) in [("greedy", 0.0, 0.0), ("drawn", 0.8, 0.0), ("drawn, with a penalty", 0.8, 0.2)]
    {
        sample(&mut bench, what, temperature, penalty);
    }
    criterion.final_summary();
}
