//! The test that experimental kernels have to pass on the device before anything relies on them.

use bolmo_shaders::cpu::{self, Matrix};
use bolmo_shaders::params::MatMul;
use bolmo_shaders::{Fusion, KernelId, WeightFormat};
use half::f16;

use crate::device::engine::Engine;
use crate::device::kernel_runner::run_kernel;
use crate::error::{Error, Result};

/// Sizes that are no multiple of a tile, with several tiles in each direction and several steps along k.
const ROWS: usize = 75;
const COLUMNS: usize = 83;
const K: usize = 104;

/// Compares a product with cooperative matrices with the kernel's CPU reference. All other kernels are plain WGSL and
/// need no test.
///
/// # Errors
/// `Unsupported` if an output differs by more than rounding explains; any error of the device.
pub(super) async fn run(engine: &Engine) -> Result<()> {
    if engine.capabilities().tiles.cooperative_side().is_none() {
        return Ok(());
    }
    product(engine).await
}

/// Multiplies values between -1 and 1 that are exact in f16, so that only the sums are rounded.
async fn product(engine: &Engine) -> Result<()> {
    let value = |i: usize| f16::from_f32(((i * 7919) % 257) as f32 / 128.0 - 1.0);
    let w: Vec<f16> = (0..COLUMNS * K).map(|i| value(i + 3)).collect();
    let x: Vec<f32> = (0..ROWS * K).map(|i| value(5 * i + 1).to_f32()).collect();
    let b: Vec<f32> = (0..COLUMNS).map(|i| value(11 * i).to_f32()).collect();
    let params = MatMul {
        rows: ROWS as u32,
        n: COLUMNS as u32,
        k4: (K / 4) as u32,
        x_stride4: (K / 4) as u32,
        y_stride: COLUMNS as u32,
        bias: 1,
        ..Default::default()
    };
    let mut y = vec![0.0_f32; ROWS * COLUMNS];
    let [tile_columns, tile_rows] = engine.device.matmul_tile(WeightFormat::F16);
    let bindings: [&[u8]; 4] =
        [bytemuck::cast_slice(&w), bytemuck::cast_slice(&x), bytemuck::cast_slice(&b), bytemuck::cast_slice(&y)];
    let form = (WeightFormat::F16, Fusion::default());
    let grid = [COLUMNS.div_ceil(tile_columns), ROWS.div_ceil(tile_rows), 1];
    let outputs = run_kernel(engine, KernelId::MatMul, form, &params, &bindings, grid).await?;
    let found: Vec<f32> = outputs.last().map_or_else(Vec::new, |bytes| bytemuck::pod_collect_to_vec(bytes));
    cpu::matmul(&params, Matrix::F16(&w), &x, &b, &mut y);
    // A sum has about 105 terms and stays below 105; a missing or an extra term changes it by up to 1.
    let tolerance = 1e-3;
    let worst = found.iter().zip(&y).map(|(found, expected)| (found - expected).abs());
    // `f32::max` would ignore a NaN.
    let worst = worst.fold(0.0, |worst: f32, error| if error <= worst { worst } else { error });
    if found.len() == y.len() && worst <= tolerance {
        return Ok(());
    }
    Err(Error::unsupported(format!("its matrix product is off by {worst}, expected at most {tolerance}")))
}
