//! How long the heavy kernels take, at sizes of Bolmo-1B. `BOLMO_TILES=workgroup` times the forms of products and
//! attention that go through workgroup memory, where the adapter has others by default.
//!
//! Method: one sample is a submission of eight dispatches and the wait for them; the time is divided by eight. Control:
//! `silu_mul` on 64 floats, which is all overhead. Times are wall times, so other programs must be quiet, and values
//! are between 0.5 and 1 of either sign. The adapter's name is printed first and stands in every benchmark's name;
//! `BOLMO_ADAPTER` chooses another one. Run with `cargo bench -p bolmo-benches --bench kernels`.

use std::time::Duration;

use bolmo_runtime::testing::{Repeated, matmul_tile};
use bolmo_runtime::{AdapterChoice, Engine, EngineOptions, Tiles, WeightFormat, block_on};
use bolmo_shaders::params::{Attention, MatMul, MatVec, MlstmCell, Params, RmsNorm, Sample, SiluMul};
use bolmo_shaders::{Fusion, KernelId};
use criterion::{BenchmarkId, Criterion, Throughput};

const TIMES: usize = 8;

struct Bench<'a> {
    criterion: &'a mut Criterion,
    engine: &'a Engine,
}

impl Bench<'_> {
    /// Times `kernel` on buffers of `sizes` bytes; `bytes` is what a dispatch reads at least.
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

    /// The same on buffers with these contents.
    fn time_on<P: Params>(
        &mut self,
        (kernel, format, what): (KernelId, WeightFormat, &str),
        params: P,
        contents: &[Vec<u8>],
        grid: [usize; 3],
        bytes: u64,
    ) {
        let bindings: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
        let mut repeated = block_on(Repeated::new(self.engine, &bindings)).expect("buffers");
        let mut group = self.criterion.benchmark_group(self.engine.adapter().name.clone());
        group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
        group.throughput(Throughput::Bytes(bytes));
        let id = BenchmarkId::new(kernel.kernel().stem, format!("{} {what}", format.name()));
        // Every matrix here that is multiplied so has 2048 rows or more.
        let tall = kernel == KernelId::MatVec && self.engine.capabilities().tall_rows <= 2048;
        let fusion = Fusion { tall, ..Fusion::default() };
        group.bench_function(id, |b| {
            b.iter_custom(|n| {
                let begun = std::time::Instant::now();
                for _ in 0..n {
                    block_on(repeated.run(kernel, (format, fusion), &params, grid, TIMES)).expect("a run");
                }
                begun.elapsed() / TIMES as u32
            });
        });
        group.finish();
    }
}

/// `bytes` bytes that are floats between 0.5 and 1 of either sign. Read as two f16 each, they are finite too, as scales
/// have to be.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (0x3f00_0000 | (state & 0x8000_0000) | ((state >> 9) & 0x007f_bfff)).to_le_bytes()
    };
    (0..bytes.div_ceil(4)).flat_map(next).take(bytes).collect()
}

fn main() {
    let mut options = EngineOptions::default();
    options.tiles = std::env::var("BOLMO_TILES").ok().and_then(|name| Tiles::from_name(&name));
    options.adapter = AdapterChoice::parse(&std::env::var("BOLMO_ADAPTER").unwrap_or_default());
    let engine = block_on(Engine::open(&options)).expect("an adapter");
    let tiles = engine.capabilities().tiles;
    println!("adapter: {} ({}), tiles of a {tiles:?}", engine.adapter().name, engine.adapter().driver);
    let mut criterion = Criterion::default().configure_from_args();
    let mut bench = Bench { criterion: &mut criterion, engine: &engine };

    let control = (KernelId::SiluMul, WeightFormat::F32, "64 (control)");
    bench.time(control, SiluMul { rows: 1, dim4: 16 }, &[512, 256], [1, 1, 1], 512);

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

    let with = |mut sizes: Vec<usize>, scales: usize| {
        sizes.extend((scales > 0).then_some(scales));
        sizes
    };
    for (format, size) in WeightFormat::ALL.into_iter().flat_map(|format| [(format, 2048), (format, 4096)]) {
        let (n, k) = (size, size);
        let matrix = format.weight_bytes(n as u64, k as u64) as usize;
        // Behind the table's bindings; formats without scales have none.
        let scales = format.scale_bytes(n as u64, k as u64) as usize;
        let mut params = MatVec { n: n as u32, k4: k as u32 / 4, y_stride: n as u32, ..MatVec::default() };
        params.x_stride4 = k as u32 / 4;
        let sizes = with([matrix, 4 * k, 16, 16, 4 * n].to_vec(), scales);
        let fusion = Fusion { tall: n >= engine.capabilities().tall_rows, ..Fusion::default() };
        let grid = [1, n / engine.capabilities().matvec_rows(fusion), 1];
        bench.time((KernelId::MatVec, format, &format!("{n}x{k}")), params, &sizes, grid, matrix as u64);

        if size > 2048 {
            continue;
        }
        let rows = 512;
        let [tile_columns, tile_rows] = matmul_tile(&engine, format);
        let params = MatMul {
            rows: rows as u32,
            n: n as u32,
            k4: k as u32 / 4,
            x_stride4: k as u32 / 4,
            y_stride: n as u32,
            ..MatMul::default()
        };
        let sizes = with([matrix, 4 * k * rows, 16, 4 * n * rows].to_vec(), scales);
        let grid = [n / tile_columns, rows / tile_rows, 1];
        bench.time((KernelId::MatMul, format, "512x2048x2048"), params, &sizes, grid, matrix as u64);
    }

    // decoding, a stretch of a prompt, and a prompt as a whole
    for (count, heads, dim, keys) in [(1usize, 16, 128, 2048), (64, 16, 128, 2048), (1024, 16, 64, 1024)] {
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
        let grid = tiles.attention_grid(count, heads, 1);
        let what = format!("{count} queries, {keys} keys, {heads} heads of {dim}");
        bench.time((KernelId::Attention, WeightFormat::F32, &what), params, &sizes, grid, cache as u64);
    }
    // A cell of Bolmo-1B and one of a toy, and the choice of an id.
    for (heads, dk, dv) in [(16, 64, 128), (2, 16, 32)] {
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
    for (what, temperature, penalty) in [("greedy", 0.0, 0.0), ("drawn", 0.8, 0.0), ("drawn, with a penalty", 0.8, 0.2)]
    {
        let params = Sample {
            temperature,
            top_p: 1.0,
            penalty,
            top_k: 257,
            window: 64,
            // The plain twin, so that no choice halts those behind it.
            flags: 1,
            ring: 256,
            ..Sample::default()
        };
        let words = |words: &[u32]| bytemuck::cast_slice(words).to_vec();
        // What is chosen is counted; no run makes so many choices.
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
    criterion.final_summary();
}
