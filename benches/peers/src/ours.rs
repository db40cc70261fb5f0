//! Our side: single kernels on an engine.

use bolmo_runtime::unstable::{KernelRunner, matmul_tile, run_kernel};
use bolmo_runtime::{Engine, Error, WeightFormat, block_on};
use bolmo_shaders::params::{MatMul, MatVec, Params};
use bolmo_shaders::{Fusion, KernelId, quant};
use futures_util::future::try_join_all;
use half::f16;

use crate::cases::{Matrix, Side};

/// A product with all that a dispatch needs.
struct Dispatch<P> {
    kernel: KernelId,
    form: (WeightFormat, Fusion),
    params: P,
    grid: [usize; 3],
}

/// `x Wᵀ` of several rows, `times` times per sample.
pub fn matmul<'a>(engine: &'a Engine, w: &Matrix, x: &[f32], times: usize) -> Result<Side<'a>, String> {
    let (n, k, rows) = (w.n, w.k, x.len() / w.k);
    let params = MatMul {
        rows: rows as u32,
        n: n as u32,
        k4: k as u32 / 4,
        x_stride4: k as u32 / 4,
        y_stride: n as u32,
        ..MatMul::default()
    };
    let [tile_columns, tile_rows] = matmul_tile(engine, WeightFormat::F32);
    let dispatch = Dispatch {
        kernel: KernelId::MatMul,
        form: (WeightFormat::F32, Fusion::default()),
        params,
        grid: [n.div_ceil(tile_columns), rows.div_ceil(tile_rows), 1],
    };
    let y = vec![0.0f32; rows * n];
    let bindings = [bytes(&w.values), bytes(x), bytes(&[0.0; 4]), bytes(&y)];
    side(engine, dispatch, &bindings, 3, [1, times])
}

/// One row of x by `copies` copies of W in `format`, one after the other.
pub fn matvec<'a>(
    engine: &'a Engine,
    format: WeightFormat,
    w: &Matrix,
    x: &[f32],
    copies: usize,
) -> Result<Side<'a>, String> {
    let (n, k) = (w.n, w.k);
    let params =
        MatVec { n: n as u32, k4: k as u32 / 4, x_stride4: k as u32 / 4, y_stride: n as u32, ..MatVec::default() };
    let fusion = Fusion { tall: n >= engine.capabilities().tall_rows, ..Fusion::default() };
    let dispatch = Dispatch {
        kernel: KernelId::MatVec,
        form: (format, fusion),
        params,
        grid: [1, n.div_ceil(engine.capabilities().matvec_rows(fusion)), 1],
    };
    let (weights, scales) = stored(format, &w.values)?;
    let y = vec![0.0f32; n];
    let none = [0.0; 4];
    let mut bindings = vec![weights.as_slice(), bytes(x), bytes(&none), bytes(&none), bytes(&y)];
    if format.has_scales() {
        bindings.push(&scales);
    }
    side(engine, dispatch, &bindings, 4, [copies, 1])
}

/// `values` in `format`: weights, and scales if the format has some.
fn stored(format: WeightFormat, values: &[f32]) -> Result<(Vec<u8>, Vec<u8>), String> {
    match format {
        WeightFormat::F32 => Ok((bytes(values).to_vec(), Vec::new())),
        WeightFormat::F16 => {
            let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
            Ok((bytemuck::cast_slice(&halves).to_vec(), Vec::new()))
        }
        WeightFormat::Q8 | WeightFormat::Q4 => {
            let (mut weights, mut scales) = (Vec::new(), Vec::new());
            quant::quantize(format, values, &mut weights, &mut scales)
                .map_err(|e| format!("Weight {} has no scale in f16. Use smaller weights.", e.0))?;
            Ok((weights, bytemuck::cast_slice(&scales).to_vec()))
        }
    }
}

fn bytes(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Computes the product once for its result, which is binding `result`, and makes a sample of it: `times` dispatches
/// on each of `copies` copies of the bindings. All are submitted before the first is waited for.
fn side<'a, P: Params + 'a>(
    engine: &'a Engine,
    dispatch: Dispatch<P>,
    bindings: &[&[u8]],
    result: usize,
    [copies, times]: [usize; 2],
) -> Result<Side<'a>, String> {
    let failed = |e: Error| format!("Our side failed: {e}");
    let Dispatch { kernel, form, params, grid } = dispatch;
    let out = block_on(run_kernel(engine, kernel, form, &params, bindings, grid)).map_err(failed)?;
    let found = bytemuck::pod_collect_to_vec(out.get(result).ok_or("Our side has no result. Report this.")?);
    let mut runners = Vec::new();
    for _ in 0..copies {
        runners.push(block_on(KernelRunner::new(engine, bindings)).map_err(failed)?);
    }
    let sample = move || {
        let all = runners.iter_mut().map(|runner| runner.run(kernel, form, &params, grid, times));
        block_on(try_join_all(all)).map(|_| ()).map_err(failed)
    };
    Ok(Side { form: form.0.name(), result: found, sample: Box::new(sample) })
}
