//! Recording of commands. Stages record dispatches and copies; this module alone submits them and reads results back.

use std::sync::Arc;

use bolmo_shaders::params::Params;
use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use crate::allocate;
use crate::device::backend::{Backend, Device, buffer_bytes};
use crate::device::cpu;
use crate::device::dispatch::{Dispatch, MAX_DISPATCHES, OddRows};
use crate::device::interrupt::Interrupt;
use crate::device::memory::Slice;
use crate::device::process::OfProcess;
#[cfg(not(target_family = "wasm"))]
use crate::device::usage::KernelTime;
use crate::device::usage::{Counters, Held};
use crate::device::wgpu;
use crate::error::{Error, Result};

/// Smallest buffer for results, in bytes.
const MIN_READABLE_BYTES: u64 = 4096;

/// Most device memory that a list usually takes, in bytes: its flag, and on a GPU its parameters and its results.
pub(crate) fn list_bytes(on_gpu: bool) -> u64 {
    let gpu = if on_gpu { wgpu::PARAMS_BYTES + MIN_READABLE_BYTES } else { 0 };
    buffer_bytes(4) + gpu
}

/// The form in which a kernel is dispatched.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// Format of the kernel's matrix.
    pub format: WeightFormat,
    /// Operations fused into a product.
    pub fusion: Fusion,
    /// Scales of the matrix, in formats that have scales.
    pub scales: Option<&'a Slice>,
    /// Odd rows of the matrix, if they are apart from the even ones that are bound.
    pub odd_rows: Option<&'a OddRows>,
    /// Whether the sums of a product may be added up in any order. The CPU device is faster then; otherwise its sums
    /// have the same bits for any number of rows.
    pub any_order: bool,
}

impl From<WeightFormat> for Form<'_> {
    fn from(format: WeightFormat) -> Self {
        Self { format, fusion: Fusion::default(), scales: None, odd_rows: None, any_order: false }
    }
}

/// A command list that is ready to be submitted.
#[derive(Debug)]
pub(crate) struct Recorded(RecordedList);

#[derive(Debug)]
enum RecordedList {
    Gpu(OfProcess<wgpu::Recorded>),
    Cpu(cpu::Recorded),
}

/// The commands of a backend, with what it keeps from list to list.
#[derive(Debug)]
enum CommandList {
    Gpu(Box<OfProcess<wgpu::CommandList>>),
    Cpu(cpu::CommandList),
}

/// A result on its way to the host.
enum Readback {
    Gpu(wgpu::Mapped, Arc<OfProcess<wgpu::Gpu>>),
    Cpu(cpu::Reply),
}

impl Readback {
    async fn bytes(self) -> Result<Vec<u8>> {
        match self {
            Self::Gpu(mapped, gpu) => mapped.bytes(&gpu).await,
            Self::Cpu(reply) => reply.bytes().await,
        }
    }
}

/// Calls a method of the list of whichever backend.
macro_rules! on_list {
    ($list:expr, $commands:ident => $call:expr) => {
        match $list {
            CommandList::Gpu($commands) => $call,
            CommandList::Cpu($commands) => $call,
        }
    };
}

/// A command list for one device. It keeps what recording similar lists again needs, so that this is cheap.
#[derive(Debug)]
pub struct Recorder {
    device: Arc<Device>,
    list: CommandList,
    readable: Option<Slice>,
    /// One zero word.
    zero: Slice,
    /// Flags that guarded dispatches read. With `None` they read `zero`, which never halts them.
    guard: Option<Slice>,
    /// What the recorded commands still read, although nothing else does.
    held: Vec<Slice>,
    /// Counts the buffer of the parameters.
    _params: Option<Held>,
    /// Dispatches at which the list is submitted.
    max_dispatches: usize,
    /// Work submitted so far.
    counters: Counters,
}

impl Recorder {
    /// Creates an empty list.
    pub async fn new(device: &Arc<Device>) -> Result<Self> {
        let list = match &device.backend {
            Backend::Gpu(gpu) => CommandList::Gpu(Box::new(OfProcess::new(wgpu::CommandList::new(gpu).await?))),
            Backend::Cpu(cpu) => CommandList::Cpu(cpu::CommandList::new(cpu)),
        };
        let params = matches!(list, CommandList::Gpu(_)).then(|| device.usage.hold(wgpu::PARAMS_BYTES));
        Ok(Self {
            device: device.clone(),
            list,
            readable: None,
            zero: device.allocate("a flag", 4).await?,
            guard: None,
            held: Vec::new(),
            _params: params,
            max_dispatches: MAX_DISPATCHES,
            counters: Counters::default(),
        })
    }

    /// Submits the list whenever it has `dispatches` dispatches, so that the device works while the host records.
    /// Callers must then write what a dispatch reads before they record it.
    pub fn submit_every(&mut self, dispatches: usize) {
        self.max_dispatches = dispatches.clamp(1, MAX_DISPATCHES);
    }

    /// The device of the list.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Work submitted so far.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Sets the flags of the guarded dispatches that follow: rows whose word of `flags` is not 0 do nothing
    /// (`guard.wgsl`). With `None` all rows are computed. Returns the previous flags.
    pub(crate) fn guard(&mut self, flags: Option<&Slice>) -> Option<Slice> {
        std::mem::replace(&mut self.guard, flags.cloned())
    }

    /// Sets what stops the submissions that follow, on devices that can stop within one
    /// ([`Capabilities::interrupts`](crate::Capabilities::interrupts)).
    pub(crate) fn set_interrupt(&mut self, interrupt: Option<Interrupt>) {
        match &mut self.list {
            CommandList::Gpu(_) => drop(interrupt),
            CommandList::Cpu(list) => list.set_interrupt(interrupt),
        }
    }

    /// One zero word of device memory.
    pub(crate) fn zero(&self) -> &Slice {
        &self.zero
    }

    /// Drops what recording and reading back make again: bind groups, and the buffer of results.
    pub(crate) fn release(&mut self) {
        self.forget_bindings();
        self.readable = None;
    }

    /// Drops bind groups, which keep their buffers alive.
    pub fn forget_bindings(&mut self) {
        on_list!(&mut self.list, list => list.forget_bindings());
    }

    /// Records a dispatch of `kernel` over `grid` workgroups. `slices` are its storage bindings in the order of the
    /// kernel table. An empty grid records nothing.
    pub fn dispatch<'a, P: Params>(
        &mut self,
        kernel: KernelId,
        form: impl Into<Form<'a>>,
        params: &P,
        slices: &[&Slice],
        grid: [usize; 3],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let row = kernel.kernel();
        let Form { format, fusion, scales, odd_rows, any_order } = form.into();
        debug_assert_eq!(row.params, P::LAYOUT, "{}: parameters of another kernel", row.stem);
        if slices.len() != row.bindings.len() {
            return Err(Error::internal(format!(
                "{}: found {} bindings, expected {}",
                row.stem,
                slices.len(),
                row.bindings.len()
            )));
        }
        let grid32 = grid.map(u32::try_from);
        let limit = on_list!(&self.list, list => list.max_groups());
        let [Ok(x), Ok(y), Ok(z)] = grid32 else { return Err(too_large(row.stem, grid, limit)) };
        if [x, y, z].iter().any(|&n| n > limit) {
            return Err(too_large(row.stem, grid, limit));
        }
        if on_list!(&self.list, list => list.dispatches()) >= self.max_dispatches {
            self.submit()?;
        }
        let variant = self.device.variant(kernel, format, fusion);
        let dispatch = Dispatch {
            kernel,
            variant,
            params: bytemuck::bytes_of(params),
            slices,
            guard: row.guard.then(|| self.guard.as_ref().unwrap_or(&self.zero)),
            scales: scales.filter(|_| variant.weights.is_some_and(WeightFormat::has_scales)),
            odd_rows,
            any_order,
            grid: [x, y, z],
        };
        on_list!(&mut self.list, list => list.dispatch(dispatch))?;
        #[cfg(not(target_family = "wasm"))]
        if on_list!(&self.list, list => list.submits_each()) {
            self.submit()?;
        }
        Ok(())
    }

    /// Begins (`on`) or stops to measure the time of each dispatch, and returns the times measured before, longest
    /// first. On a GPU without timestamps, each dispatch is submitted and awaited separately.
    #[cfg(not(target_family = "wasm"))]
    pub fn measure_dispatches(&mut self, on: bool) -> Vec<(KernelId, KernelTime)> {
        on_list!(&mut self.list, list => list.measure(on))
    }

    /// Records a copy of `from` to the beginning of `to`. Both begin at multiples of 4 bytes, in different buffers.
    pub fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        if from.size > to.size {
            return Err(Error::internal(format!("{} bytes cannot be copied into {} bytes", from.size, to.size)));
        }
        if from.size > 0 {
            on_list!(&mut self.list, list => list.copy(from, to))?;
        }
        Ok(())
    }

    /// Counts `slice` as held until the list is submitted.
    pub(crate) fn hold(&mut self, slice: &Slice) {
        self.held.push(slice.clone());
    }

    /// Frees the buffer for results, after one that was larger than usual.
    pub(crate) fn forget_readable(&mut self) {
        self.readable = None;
    }

    /// Records filling `slice` with zeros.
    pub fn clear(&mut self, slice: &Slice) {
        on_list!(&mut self.list, list => list.clear(slice));
    }

    /// Begins a new compute pass with the next dispatch, to measure the cost of a pass.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn end_pass(&mut self) {
        on_list!(&mut self.list, list => list.end_pass());
    }

    /// Submits the list.
    pub fn submit(&mut self) -> Result<()> {
        self.device.check()?;
        let _permit = self.device.submission()?;
        let dispatches = on_list!(&mut self.list, list => list.submit())?;
        self.submitted(dispatches, 0)
    }

    /// Submits the list unless it is empty.
    pub fn submit_if_any(&mut self) -> Result<()> {
        if on_list!(&self.list, list => list.is_empty()) { Ok(()) } else { self.submit() }
    }

    /// Number of dispatches that still fit into the submission.
    pub(crate) fn room(&self) -> usize {
        MAX_DISPATCHES.saturating_sub(on_list!(&self.list, list => list.dispatches()))
    }

    /// Ends the list, to be submitted later, with a copy of `from` to the beginning of `readable`.
    pub(crate) fn finish(&mut self, from: &Slice, readable: &Slice) -> Result<Recorded> {
        if from.size > readable.size {
            return Err(Error::internal(format!(
                "{} bytes cannot be read back into {} bytes",
                from.size, readable.size
            )));
        }
        self.device.check()?;
        self.held.clear();
        let list = match &mut self.list {
            CommandList::Gpu(list) => list.finish(from, readable).map(OfProcess::new).map(RecordedList::Gpu),
            CommandList::Cpu(list) => list.finish(from).map(RecordedList::Cpu),
        };
        list.map(Recorded)
    }

    /// Submits a finished list. The future returns the contents of `readable` afterwards.
    pub(crate) fn submit_and_map(
        &mut self,
        Recorded(recorded): Recorded,
        readable: &Slice,
    ) -> Result<impl Future<Output = Result<Vec<u8>>> + use<>> {
        self.device.check()?;
        let _permit = self.device.submission()?;
        let (dispatches, readback) = match (&mut self.list, recorded) {
            (CommandList::Gpu(list), RecordedList::Gpu(recorded)) => {
                let (dispatches, mapped) = list.submit_and_map(recorded.into_inner(), readable)?;
                (dispatches, Readback::Gpu(mapped, list.gpu().clone()))
            }
            (CommandList::Cpu(list), RecordedList::Cpu(recorded)) => {
                let (dispatches, reply) = list.submit_recorded(recorded)?;
                (dispatches, Readback::Cpu(reply))
            }
            _ => return Err(Error::internal("a list was recorded for another device")),
        };
        self.submitted(dispatches, 1)?;
        Ok(readback.bytes())
    }

    fn submitted(&mut self, dispatches: u64, readbacks: u64) -> Result<()> {
        self.held.clear();
        let new = Counters { dispatches, submits: 1, readbacks };
        self.counters = self.counters + new;
        log::trace!("submitted {dispatches} dispatches, {readbacks} results");
        self.device.usage.add(new);
        self.device.check()
    }

    /// Submits the list and returns the contents of `slices` afterwards, concatenated.
    pub async fn read(&mut self, slices: &[Slice]) -> Result<Vec<u8>> {
        let size: u64 = slices.iter().map(|s| s.size).sum();
        if self.readable.as_ref().is_none_or(|r| r.size < size) {
            self.readable =
                Some(self.device.allocate_readable(size.next_power_of_two().max(MIN_READABLE_BYTES)).await?);
        }
        let Some(readable) = self.readable.take() else {
            return Err(Error::internal("there is no buffer to read back into"));
        };
        // If the wait fails or is dropped, the buffer may stay mapped, so it is reused only after success.
        let bytes = self.begin_read(slices, &readable, size)?.bytes().await?;
        self.readable = Some(readable);
        Ok(bytes)
    }

    /// Submits the list with a copy of `slices`, `size` bytes in total, to `readable`.
    fn begin_read(&mut self, slices: &[Slice], readable: &Slice, size: u64) -> Result<Readback> {
        self.device.check()?;
        let _permit = self.device.submission()?;
        let (dispatches, readback) = match &mut self.list {
            CommandList::Gpu(list) => {
                let (dispatches, mapped) = list.read(slices, readable, size)?;
                (dispatches, Readback::Gpu(mapped, list.gpu().clone()))
            }
            CommandList::Cpu(list) => {
                let (dispatches, reply) = list.read(slices)?;
                (dispatches, Readback::Cpu(reply))
            }
        };
        self.submitted(dispatches, 1)?;
        Ok(readback)
    }

    /// Same as [`Self::read`], for slices of f32.
    pub async fn read_f32(&mut self, slices: &[Slice]) -> Result<Vec<f32>> {
        let bytes = self.read(slices).await?;
        floats(&bytes)
    }

    /// Submits the list. The future returns the contents of `slices` afterwards, concatenated. More commands can be
    /// recorded and submitted before it is awaited.
    pub async fn begin_read_f32(&mut self, slices: &[Slice]) -> Result<impl Future<Output = Result<Vec<f32>>> + use<>> {
        let size: u64 = slices.iter().map(|s| s.size).sum();
        let readable = self.device.allocate_readable(size).await?;
        let readback = self.begin_read(slices, &readable, size)?;
        Ok(async move { floats(&readback.bytes().await?) })
    }

    /// Drops the commands that are recorded but not submitted.
    pub fn discard(&mut self) {
        on_list!(&mut self.list, list => list.discard());
        self.held.clear();
        self.guard = None;
    }
}

/// The f32 in `bytes`.
fn floats(bytes: &[u8]) -> Result<Vec<f32>> {
    let mut floats = allocate::zeros(bytes.len() / 4, "results")?;
    bytemuck::cast_slice_mut::<f32, u8>(&mut floats).copy_from_slice(bytes);
    Ok(floats)
}

fn too_large(stem: &str, grid: [usize; 3], limit: u32) -> Error {
    Error::unsupported(format!(
        "{stem}: a grid of {grid:?} workgroups is too large, expected at most {limit} per dimension"
    ))
}
