//! The cases: inputs, both sides, and the check that they compute the same.

use bolmo_runtime::unstable::{KernelRunner, matmul_tile, run_kernel};
use bolmo_runtime::{Engine, WeightFormat, block_on};
use bolmo_shaders::params::{Attention, MatMul, MatVec, Params, RmsNorm, SiluMul};
use bolmo_shaders::{Fusion, KernelId};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};

type Side<'a> = Box<dyn FnMut(usize) -> Result<(), String> + 'a>;

/// One kernel on both sides.
pub struct Case<'a> {
    pub name: &'static str,
    /// Whether the case only shows the overhead.
    pub control: bool,
    /// Repetitions per sample.
    pub times: usize,
    /// Runs our kernel the given number of times.
    pub ours: Side<'a>,
    /// The forms in which burn can state the case, by name.
    pub theirs: Vec<(&'static str, Side<'a>)>,
    /// Our result, and burn's for each form.
    results: (Vec<f32>, Vec<Vec<f32>>),
    /// The largest difference, relative to the largest value. Known after the check.
    pub difference: f64,
}

impl Case<'_> {
    /// Compares the results, and warms both sides up.
    pub fn check(&mut self) -> Result<(), String> {
        let (ours, theirs) = &self.results;
        let largest = ours.iter().fold(0f32, |most, value| most.max(value.abs()));
        for result in theirs {
            if result.len() != ours.len() {
                return Err(format!("{}: burn returned {} values, expected {}", self.name, result.len(), ours.len()));
            }
            let off = ours.iter().zip(result).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            self.difference = self.difference.max(f64::from(off / largest));
        }
        // Sums of up to 4096 products in f32, in different orders. A NaN fails every comparison.
        let agrees = self.difference <= 1e-4 && largest > 0.0;
        if !agrees {
            return Err(format!("{}: results differ by {:.1e} of the largest value", self.name, self.difference));
        }
        for _ in 0..2 {
            (self.ours)(self.times)?;
            self.theirs.iter_mut().try_for_each(|(_, form)| form(self.times))?;
        }
        Ok(())
    }
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

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    tensor.into_data().to_vec::<f32>().map_err(|e| format!("burn's result: {e:?}"))
}

/// burn's side: runs the operation the given number of times, and waits for all of it.
fn theirs<'a, const D: usize>(device: &'a Device, once: impl Fn() -> Tensor<D> + 'a) -> Side<'a> {
    Box::new(move |times| {
        // Results are kept until all are done, so that none of the work can be skipped.
        let results: Vec<_> = (0..times).map(|_| once()).collect();
        device.sync().map_err(|e| format!("burn: {e:?}"))?;
        drop(results);
        Ok(())
    })
}

/// Our side: its result, and a function that repeats it.
fn ours<'a, P: Params>(
    engine: &'a Engine,
    kernel: KernelId,
    params: P,
    bindings: &[&[f32]],
    grid: [usize; 3],
    count: usize,
) -> Result<(Vec<f32>, Side<'a>), String> {
    let bindings: Vec<&[u8]> = bindings.iter().map(|values| bytemuck::cast_slice(values)).collect();
    let fusion = if kernel == KernelId::MatVec { matvec_form(engine, count) } else { Fusion::default() };
    let form = (WeightFormat::F32, fusion);
    let failed = |e: bolmo_runtime::Error| e.to_string();
    let out = block_on(run_kernel(engine, kernel, form, &params, &bindings, grid)).map_err(failed)?;
    let last = out.last().ok_or("no result")?;
    let result: Vec<f32> = bytemuck::pod_collect_to_vec(&last[..4 * count]);
    let mut repeated = block_on(KernelRunner::new(engine, &bindings)).map_err(failed)?;
    let side = move |times| block_on(repeated.run(kernel, form, &params, grid, times)).map_err(failed);
    Ok((result, Box::new(side)))
}

/// The variant that the stages use to multiply a matrix of `rows` rows with one row of x.
fn matvec_form(engine: &Engine, rows: usize) -> Fusion {
    Fusion { tall: rows >= engine.capabilities().tall_rows, ..Fusion::default() }
}

/// Every case, the control first.
pub fn all<'a>(engine: &'a Engine, device: &'a Device) -> Result<Vec<Case<'a>>, String> {
    Ok(vec![
        control(engine, device)?,
        matvec(engine, device)?,
        matmul(engine, device)?,
        rms_norm(engine, device)?,
        causal_attention(engine, device)?,
    ])
}

fn control<'a>(engine: &'a Engine, device: &'a Device) -> Result<Case<'a>, String> {
    let dim = 64;
    let [gate, up] = [1, 2].map(|seed| noise(seed, dim));
    let pairs: Vec<f32> = gate.iter().zip(&up).flat_map(|(&gate, &up)| [gate, up]).collect();
    let params = SiluMul { rows: 1, dim4: dim as u32 / 4 };
    let (result, side) = ours(engine, KernelId::SiluMul, params, &[&pairs, &vec![0.0; dim]], [1, 1, 1], dim)?;
    let [gate, up] = [gate, up].map(|values| tensor(&values, [1, dim], device));
    let once = move || activation::silu(gate.clone()) * up.clone();
    let found = values(once())?;
    Ok(Case {
        name: "silu(a) b, 64 (control)",
        control: true,
        times: 16,
        ours: side,
        theirs: vec![("operations, fused", theirs(device, once))],
        results: (result, vec![found]),
        difference: 0.0,
    })
}

fn matvec<'a>(engine: &'a Engine, device: &'a Device) -> Result<Case<'a>, String> {
    let (n, k) = (4096, 4096);
    let (w, x) = (noise(3, n * k), noise(4, k));
    let params =
        MatVec { n: n as u32, k4: k as u32 / 4, x_stride4: k as u32 / 4, y_stride: n as u32, ..MatVec::default() };
    let fusion = matvec_form(engine, n);
    let grid = [1, n.div_ceil(engine.capabilities().matvec_rows(fusion)), 1];
    let none = [0.0; 4];
    let bindings: [&[f32]; 5] = [&w, &x, &none, &none, &vec![0.0; n]];
    let (result, side) = ours(engine, KernelId::MatVec, params, &bindings, grid, n)?;
    let (forms, found) = products(&w, &x, [1, n, k], device)?;
    Ok(Case {
        name: "matvec 4096x4096",
        control: false,
        times: 8,
        ours: side,
        theirs: forms,
        results: (result, found),
        difference: 0.0,
    })
}

fn matmul<'a>(engine: &'a Engine, device: &'a Device) -> Result<Case<'a>, String> {
    let (rows, n, k) = (512, 2048, 2048);
    let (w, x) = (noise(5, n * k), noise(6, rows * k));
    let params = MatMul {
        rows: rows as u32,
        n: n as u32,
        k4: k as u32 / 4,
        x_stride4: k as u32 / 4,
        y_stride: n as u32,
        ..MatMul::default()
    };
    let [tile_columns, tile_rows] = matmul_tile(engine, WeightFormat::F32);
    let grid = [n.div_ceil(tile_columns), rows.div_ceil(tile_rows), 1];
    let bindings: [&[f32]; 4] = [&w, &x, &[0.0; 4], &vec![0.0; rows * n]];
    let (result, side) = ours(engine, KernelId::MatMul, params, &bindings, grid, rows * n)?;
    let (forms, found) = products(&w, &x, [rows, n, k], device)?;
    Ok(Case {
        name: "matmul 512x2048x2048",
        control: false,
        times: 2,
        ours: side,
        theirs: forms,
        results: (result, found),
        difference: 0.0,
    })
}

type Forms<'a> = (Vec<(&'static str, Side<'a>)>, Vec<Vec<f32>>);

/// x Wᵀ by burn: with the weights in the order of its linear layers, `[k, n]`, and in ours, `[n, k]`, transposed when
/// used.
fn products<'a>(w: &[f32], x: &[f32], [rows, n, k]: [usize; 3], device: &'a Device) -> Result<Forms<'a>, String> {
    let x = tensor(x, [rows, k], device);
    let mut transposed = vec![0.0; n * k];
    for (row, values) in w.chunks_exact(k).enumerate() {
        for (column, value) in values.iter().enumerate() {
            transposed[column * n + row] = *value;
        }
    }
    let (by_column, by_row) = (tensor(&transposed, [k, n], device), tensor(w, [n, k], device));
    let x_too = x.clone();
    let plain = move || x.clone().matmul(by_column.clone());
    let turned = move || x_too.clone().matmul(by_row.clone().transpose());
    let found = vec![values(plain())?, values(turned())?];
    Ok((vec![("weights [k, n]", theirs(device, plain)), ("weights [n, k]", theirs(device, turned))], found))
}

fn rms_norm<'a>(engine: &'a Engine, device: &'a Device) -> Result<Case<'a>, String> {
    let (rows, dim) = (1024, 2048);
    let eps = 1e-5f32;
    let (scale, x) = (noise(7, dim), noise(8, rows * dim));
    let params = RmsNorm {
        rows: rows as u32,
        groups: 1,
        dim4: dim as u32 / 4,
        x_stride4: dim as u32 / 4,
        y_stride4: dim as u32 / 4,
        eps,
        ..RmsNorm::default()
    };
    let bindings: [&[f32]; 3] = [&scale, &x, &vec![0.0; rows * dim]];
    let (result, side) = ours(engine, KernelId::RmsNorm, params, &bindings, [1, rows, 1], rows * dim)?;
    // The computation of burn_nn's RmsNorm.
    let (scale, x) = (tensor(&scale, [1, dim], device), tensor(&x, [rows, dim], device));
    let once = move || {
        let rms = (x.clone().square().mean_dim(1) + eps).sqrt();
        (x.clone() / rms) * scale.clone()
    };
    let found = values(once())?;
    Ok(Case {
        name: "RMSNorm 1024x2048",
        control: false,
        times: 8,
        ours: side,
        theirs: vec![("operations, fused", theirs(device, once))],
        results: (result, vec![found]),
        difference: 0.0,
    })
}

fn causal_attention<'a>(engine: &'a Engine, device: &'a Device) -> Result<Case<'a>, String> {
    let (count, heads, dim) = (1024, 16, 64);
    let width = heads * dim;
    let [q, k, v] = [9, 10, 11].map(|seed| noise(seed, count * width));
    let kv: Vec<f32> = k.chunks(width).zip(v.chunks(width)).flat_map(|(k, v)| [k, v].concat()).collect();
    let params = Attention {
        count: count as u32,
        heads: heads as u32,
        heads_per_kv: 1,
        dim4: dim as u32 / 4,
        keys: count as u32,
        begin: 1,
        end: 1,
        scale: 1.0 / (dim as f32).sqrt(),
        ..Attention::default()
    };
    let grid = engine.capabilities().tiles.attention_grid(count, heads, 1);
    let bindings: [&[f32]; 4] = [&q, &kv, &vec![0.0; 2 * count * heads], &vec![0.0; count * width]];
    let (result, side) = ours(engine, KernelId::Attention, params, &bindings, grid, count * width)?;
    // burn expects heads first and gets them so; its result is transposed for the check only.
    let [q, k, v] = [q, k, v].map(|values| {
        let by_position: Tensor<4> = tensor(&values, [1, count, heads, dim], device);
        let turned = self::values(by_position.swap_dims(1, 2))?;
        Ok::<_, String>(tensor(&turned, [1, heads, count, dim], device))
    });
    let (q, k, v) = (q?, k?, v?);
    let once = move || {
        let options = AttentionModuleOptions { is_causal: true, ..AttentionModuleOptions::default() };
        attention(q.clone(), k.clone(), v.clone(), None, None, options)
    };
    let found = values(once().swap_dims(1, 2))?;
    Ok(Case {
        name: "causal attention 1024, 16 heads of 64",
        control: false,
        times: 2,
        ours: side,
        theirs: vec![("module::attention", theirs(device, once))],
        results: (result, vec![found]),
        difference: 0.0,
    })
}
