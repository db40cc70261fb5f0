//! Single kernels on plain arrays, without a model around them, for tests and benches.

use bolmo_shaders::params::Params;
use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use crate::device::engine::Engine;
use crate::device::memory::Slice;
use crate::device::recorder::{Form, Recorder};
use crate::error::Result;

/// Runs `kernel` once over `grid` workgroups and returns the contents of its storage bindings afterwards, in order.
///
/// `bindings` holds their initial contents as bytes, a multiple of 4 each. The scales of a matrix, if it has any, come
/// last.
///
/// # Errors
/// Any error of the device; `Internal` if the number of bindings does not match the kernel.
pub async fn run_kernel<P: Params>(
    engine: &Engine,
    kernel: KernelId,
    (format, fusion): (WeightFormat, Fusion),
    params: &P,
    bindings: &[&[u8]],
    grid: [usize; 3],
) -> Result<Vec<Vec<u8>>> {
    let mut runner = KernelRunner::new(engine, bindings).await?;
    runner.dispatch(kernel, (format, fusion), params, grid, 1)?;
    let all = runner.recorder.read(&runner.slices).await?;
    let mut rest = all.as_slice();
    let mut out = Vec::new();
    for (slice, bytes) in runner.slices.iter().zip(bindings) {
        let (contents, remaining) = rest.split_at(slice.size() as usize);
        out.push(contents[..bytes.len()].to_vec());
        rest = remaining;
    }
    Ok(out)
}

/// Rows of W and rows of x that one workgroup of `matmul` multiplies on this engine, with W in `format`.
pub fn matmul_tile(engine: &Engine, format: WeightFormat) -> [usize; 2] {
    engine.device.matmul_tile(format)
}

/// The buffers of a kernel, for running it repeatedly.
#[derive(Debug)]
pub struct KernelRunner {
    recorder: Recorder,
    slices: Vec<Slice>,
}

impl KernelRunner {
    /// Creates buffers that hold `bindings`, which are those of [`run_kernel`].
    pub async fn new(engine: &Engine, bindings: &[&[u8]]) -> Result<Self> {
        let recorder = Recorder::new(&engine.device).await?;
        let mut slices = Vec::new();
        for bytes in bindings {
            let slice = engine.device.allocate("a kernel's binding", bytes.len() as u64).await?;
            engine.device.write(&slice, 0, bytes)?;
            slices.push(slice);
        }
        Ok(Self { recorder, slices })
    }

    /// Dispatches the kernel `times` times in one submission and waits until all dispatches are done.
    pub async fn run<P: Params>(
        &mut self,
        kernel: KernelId,
        (format, fusion): (WeightFormat, Fusion),
        params: &P,
        grid: [usize; 3],
        times: usize,
    ) -> Result<()> {
        self.dispatch(kernel, (format, fusion), params, grid, times)?;
        let bound = kernel.kernel().bindings.len();
        let Some(last) = self.slices.iter().take(bound).next_back() else { return Ok(()) };
        let result = last.part(0, last.size().min(16))?;
        self.recorder.read(&[result]).await.map(|_| ())
    }

    /// Records the kernel `times` times.
    fn dispatch<P: Params>(
        &mut self,
        kernel: KernelId,
        (format, fusion): (WeightFormat, Fusion),
        params: &P,
        grid: [usize; 3],
        times: usize,
    ) -> Result<()> {
        let (bound, scales) = self.slices.split_at(kernel.kernel().bindings.len().min(self.slices.len()));
        let form = Form { format, fusion, scales: scales.first(), ..format.into() };
        let slices: Vec<&Slice> = bound.iter().collect();
        (0..times).try_for_each(|_| self.recorder.dispatch(kernel, form, params, &slices, grid))
    }
}
