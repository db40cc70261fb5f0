//! One kernel on plain arrays, for tests and benches: what the runtime does with buffers, without a model around it.

use bolmo_shaders::params::Params;
use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use crate::device::engine::Engine;
use crate::device::memory::Slice;
use crate::device::recorder::{Form, Recorder};
use crate::error::Result;

/// Runs `kernel` once over `grid` workgroups and returns the contents of all its storage bindings behind it, in their order.
/// `bindings` are what they hold before, as bytes (a multiple of 4 each); a matrix' scales, if it has any, come last.
///
/// # Errors
/// Whatever the device reports; `Internal` if the number of bindings is not the kernel's.
pub async fn run_kernel<P: Params>(
    engine: &Engine,
    kernel: KernelId,
    (format, fusion): (WeightFormat, Fusion),
    params: &P,
    bindings: &[&[u8]],
    grid: [usize; 3],
) -> Result<Vec<Vec<u8>>> {
    let Repeated { mut recorder, slices } = Repeated::new(engine, bindings).await?;
    let (bound, scales) = slices.split_at(kernel.kernel().bindings.len().min(slices.len()));
    let form = Form { format, fusion, scales: scales.first() };
    recorder.dispatch(kernel, form, params, &bound.iter().collect::<Vec<_>>(), grid)?;
    let all = recorder.read(&slices).await?;
    let mut rest = all.as_slice();
    let mut out = Vec::new();
    for (slice, bytes) in slices.iter().zip(bindings) {
        let (here, behind) = rest.split_at(slice.size() as usize);
        out.push(here[..bytes.len()].to_vec());
        rest = behind;
    }
    Ok(out)
}

/// Rows of W and rows of x that one workgroup of `matmul` multiplies on this engine, where W is in `format`.
pub fn matmul_tile(engine: &Engine, format: WeightFormat) -> [usize; 2] {
    engine.gpu.matmul_tile(format)
}

/// A kernel and its buffers, to be dispatched again and again.
#[derive(Debug)]
pub struct Repeated {
    recorder: Recorder,
    slices: Vec<Slice>,
}

impl Repeated {
    /// Buffers that hold `bindings`, as for [`run_kernel`].
    pub async fn new(engine: &Engine, bindings: &[&[u8]]) -> Result<Self> {
        let recorder = Recorder::new(&engine.gpu).await?;
        let mut slices = Vec::new();
        for bytes in bindings {
            let slice = engine.gpu.allocate("a kernel's binding", bytes.len() as u64).await?;
            engine.gpu.write(&slice, 0, bytes)?;
            slices.push(slice);
        }
        Ok(Self { recorder, slices })
    }

    /// Dispatches the kernel `times` in a row and waits until all of it is done.
    pub async fn run<P: Params>(
        &mut self,
        kernel: KernelId,
        (format, fusion): (WeightFormat, Fusion),
        params: &P,
        grid: [usize; 3],
        times: usize,
    ) -> Result<()> {
        let (bound, scales) = self.slices.split_at(kernel.kernel().bindings.len().min(self.slices.len()));
        let form = Form { format, fusion, scales: scales.first() };
        let slices: Vec<&Slice> = bound.iter().collect();
        for _ in 0..times {
            self.recorder.dispatch(kernel, form, params, &slices, grid)?;
        }
        let Some(last) = bound.last() else { return Ok(()) };
        let some = last.part(0, last.size().min(16))?;
        self.recorder.read(&[some]).await.map(|_| ())
    }
}
