//! Recording of commands. Stages record dispatches and copies; this module alone submits them and reads results back.

use std::collections::HashMap;
use std::sync::Arc;

use bolmo_shaders::params::Params;
use bolmo_shaders::sizes::{GUARD_BINDING, SCALES_BINDING};
use bolmo_shaders::{Fusion, KernelId, Variant, WeightFormat};

use crate::device::gpu::Gpu;
use crate::device::memory::{Mapped, Slice};
use crate::device::pipelines::Pipeline;
#[cfg(not(target_family = "wasm"))]
use crate::device::stopwatch::{KernelTime, Stopwatch};
use crate::device::usage::Counters;
use crate::error::{Error, Result};

/// Distance between parameter blocks in bytes, the largest alignment that an adapter may require.
const BLOCK: u64 = 256;
/// Parameter blocks, and therefore dispatches, per submission.
const BLOCKS: u64 = 1024;

/// A recorded command.
#[derive(Debug)]
enum Command {
    Dispatch {
        pipeline: wgpu::ComputePipeline,
        bindings: wgpu::BindGroup,
        params: u32,
        grid: [u32; 3],
    },
    Copy {
        from: Slice,
        to: Slice,
    },
    Clear(Slice),
    #[cfg(not(target_family = "wasm"))]
    EndPass,
}

fn entry(binding: u32, slice: &Slice, size: u64) -> wgpu::BindGroupEntry<'_> {
    let buffer = wgpu::BufferBinding { buffer: &slice.buffer, offset: slice.offset, size: wgpu::BufferSize::new(size) };
    wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(buffer) }
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
}

impl From<WeightFormat> for Form<'_> {
    fn from(format: WeightFormat) -> Self {
        Self { format, fusion: Fusion::default(), scales: None }
    }
}

/// What a bind group depends on.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BindingsKey {
    kernel: KernelId,
    variant: Variant,
    /// The bindings of the table, then those with fixed numbers.
    slices: Vec<Slice>,
}

impl BindingsKey {
    /// The binding numbers of the slices.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        let row = self.kernel.kernel();
        let guard = row.guard.then_some(GUARD_BINDING);
        let scales = self.variant.weights.is_some_and(WeightFormat::has_scales).then_some(SCALES_BINDING);
        (1..=row.bindings.len() as u32).chain(guard).chain(scales)
    }
}

/// A command list that is ready to be submitted.
#[derive(Debug)]
pub(crate) struct Recorded {
    commands: wgpu::CommandBuffer,
    params: Vec<u8>,
    dispatches: u64,
}

/// A command list for one device. It keeps bind groups and buffers, so that recording similar lists again is cheap.
#[derive(Debug)]
pub struct Recorder {
    gpu: Arc<Gpu>,
    commands: Vec<Command>,
    /// Parameter blocks of the recorded dispatches, [`BLOCK`] bytes each.
    params: Vec<u8>,
    params_buffer: Slice,
    /// Bind groups, created once for each set of buffers.
    bind_groups: HashMap<BindingsKey, (Pipeline, wgpu::BindGroup)>,
    readable: Option<Slice>,
    /// One zero word.
    zero: Slice,
    /// Flags that guarded dispatches read. With `None` they read `zero`, which never halts them.
    guard: Option<Slice>,
    /// Bytes of parameters at which the list is submitted.
    max_params: u64,
    /// Work submitted so far.
    counters: Counters,
    /// Times of dispatches, while they are measured.
    #[cfg(not(target_family = "wasm"))]
    stopwatch: Option<Stopwatch>,
}

impl Recorder {
    /// Creates an empty list.
    pub async fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        Ok(Self {
            gpu: gpu.clone(),
            commands: Vec::new(),
            params: Vec::new(),
            params_buffer: gpu.allocate_uniform(BLOCK * BLOCKS).await?,
            bind_groups: HashMap::new(),
            readable: None,
            zero: gpu.allocate("a flag", 4).await?,
            guard: None,
            max_params: BLOCK * BLOCKS,
            counters: Counters::default(),
            #[cfg(not(target_family = "wasm"))]
            stopwatch: None,
        })
    }

    /// Submits the list whenever it has `dispatches` dispatches, so that the device works while the host records.
    /// Callers must then write what a dispatch reads before they record it.
    pub fn submit_every(&mut self, dispatches: usize) {
        self.max_params = BLOCK * (dispatches as u64).clamp(1, BLOCKS);
    }

    /// The device of the list.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
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

    /// One zero word of device memory.
    pub(crate) fn zero(&self) -> &Slice {
        &self.zero
    }

    /// Drops the bind groups, which keep their buffers alive.
    pub fn forget_bindings(&mut self) {
        self.bind_groups.clear();
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
        let Form { format, fusion, scales } = form.into();
        debug_assert_eq!(row.params, P::LAYOUT, "{}: parameters of another kernel", row.stem);
        if slices.len() != row.bindings.len() {
            return Err(Error::internal(format!(
                "{}: found {} bindings, expected {}",
                row.stem,
                slices.len(),
                row.bindings.len()
            )));
        }
        let limit = u16::MAX as usize;
        if grid.iter().any(|&n| n > limit) {
            return Err(Error::unsupported(format!(
                "{}: a grid of {grid:?} workgroups is too large, expected at most {limit} per dimension",
                row.stem
            )));
        }
        if self.params.len() as u64 >= self.max_params {
            self.submit()?;
        }
        let variant = self.gpu.variant(kernel, format, fusion);
        let scales = scales.filter(|_| variant.weights.is_some_and(WeightFormat::has_scales));
        let guard = row.guard.then(|| self.guard.as_ref().unwrap_or(&self.zero));
        let slices = slices.iter().copied().chain(guard).chain(scales).cloned().collect();
        let (pipeline, bindings) = self.bind_group(BindingsKey { kernel, variant, slices })?;
        let at = self.params.len();
        self.params.extend_from_slice(bytemuck::bytes_of(params));
        self.params.resize(at + BLOCK as usize, 0);
        self.commands.push(Command::Dispatch { pipeline, bindings, params: at as u32, grid: grid.map(|n| n as u32) });
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.recorded(kernel);
            if !stopwatch.has_clock() {
                self.submit()?;
            }
        }
        Ok(())
    }

    /// Begins (`on`) or stops to measure the time of each dispatch, and returns the times measured before, longest
    /// first. Without timestamps on the device, each dispatch is submitted and awaited separately.
    #[cfg(not(target_family = "wasm"))]
    pub fn measure_dispatches(&mut self, on: bool) -> Vec<(KernelId, KernelTime)> {
        let new = on.then(|| Stopwatch::new(&self.gpu, 2 * BLOCKS as u32));
        std::mem::replace(&mut self.stopwatch, new).map(Stopwatch::times).unwrap_or_default()
    }

    fn bind_group(&mut self, key: BindingsKey) -> Result<(wgpu::ComputePipeline, wgpu::BindGroup)> {
        if key.numbers().count() != key.slices.len() {
            return Err(Error::internal(format!("{}: the scales of the matrix are missing", key.kernel.kernel().stem)));
        }
        let gpu = &self.gpu;
        let params = &self.params_buffer;
        let (pipeline, group) = self.bind_groups.entry(key).or_insert_with_key(|key| {
            let pipeline = gpu.pipelines.get(key.kernel, key.variant);
            let mut entries = vec![entry(0, params, key.kernel.kernel().params.size as u64)];
            entries.extend(key.numbers().zip(&key.slices).map(|(i, s)| entry(i, s, s.size)));
            let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(key.kernel.kernel().stem),
                layout: &pipeline.layout,
                entries: &entries,
            });
            (pipeline, group)
        });
        Ok((pipeline.pipeline.clone(), group.clone()))
    }

    /// Records a copy of `from` to the beginning of `to`. Both begin at multiples of 4 bytes, in different buffers.
    pub fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        if from.size > to.size {
            return Err(Error::internal(format!("{} bytes cannot be copied into {} bytes", from.size, to.size)));
        }
        if from.size > 0 {
            self.commands.push(Command::Copy { from: from.clone(), to: to.clone() });
        }
        Ok(())
    }

    /// Records filling `slice` with zeros.
    pub fn clear(&mut self, slice: &Slice) {
        self.commands.push(Command::Clear(slice.clone()));
    }

    /// Begins a new compute pass with the next dispatch, to measure the cost of a pass.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn end_pass(&mut self) {
        self.commands.push(Command::EndPass);
    }

    /// Submits the list.
    pub fn submit(&mut self) -> Result<()> {
        self.submit_with(|_| ()).map(|_| ())
    }

    /// Submits the list unless it is empty.
    pub fn submit_if_any(&mut self) -> Result<()> {
        if self.commands.is_empty() { Ok(()) } else { self.submit() }
    }

    /// Submits the list, with further commands from `last` at its end.
    fn submit_with(&mut self, last: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<wgpu::SubmissionIndex> {
        #[cfg(not(target_family = "wasm"))]
        let begun = std::time::Instant::now();
        let recorded = self.finish_with(last)?;
        let submission = self.submit_recorded(recorded)?;
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.submitted(&self.gpu, &submission, begun)?;
        }
        Ok(submission)
    }

    /// Number of dispatches that still fit into the submission.
    pub(crate) fn room(&self) -> usize {
        (BLOCKS as usize).saturating_sub(self.params.len() / BLOCK as usize)
    }

    /// Ends the list, to be submitted later, with a copy of `from` to the beginning of `readable`.
    pub(crate) fn finish(&mut self, from: &Slice, readable: &Slice) -> Result<Recorded> {
        if from.size > readable.size {
            return Err(Error::internal(format!(
                "{} bytes cannot be read back into {} bytes",
                from.size, readable.size
            )));
        }
        let finished = self.finish_with(|encoder| {
            encoder.copy_buffer_to_buffer(&from.buffer, from.offset, &readable.buffer, readable.offset, from.size);
        });
        // Lists submitted later are not measured.
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.discard();
        }
        finished
    }

    fn submit_recorded(&mut self, recorded: Recorded) -> Result<wgpu::SubmissionIndex> {
        let Recorded { commands, params, dispatches } = recorded;
        self.gpu.check()?;
        if !params.is_empty() {
            self.gpu.queue.write_buffer(&self.params_buffer.buffer, 0, &params);
        }
        let submission = self.gpu.queue.submit([commands]);
        self.count(Counters { dispatches, submits: 1, readbacks: 0 });
        self.gpu.check()?;
        Ok(submission)
    }

    /// Submits a finished list. The future returns the contents of `readable` afterwards.
    pub(crate) fn submit_and_map(
        &mut self,
        recorded: Recorded,
        readable: &Slice,
    ) -> Result<impl Future<Output = Result<Vec<u8>>> + use<>> {
        let submission = self.submit_recorded(recorded)?;
        self.count(Counters { readbacks: 1, ..Counters::default() });
        let mapped = self.gpu.begin_map(readable, readable.size, submission);
        let gpu = self.gpu.clone();
        Ok(async move { mapped.bytes(&gpu).await })
    }

    /// Encodes the list, with further commands from `last` at its end.
    fn finish_with(&mut self, last: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<Recorded> {
        self.gpu.check()?;
        let mut dispatches = 0;
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut commands = self.commands.iter().peekable();
        while let Some(command) = commands.peek() {
            match command {
                Command::Copy { from, to } => {
                    encoder.copy_buffer_to_buffer(&from.buffer, from.offset, &to.buffer, to.offset, from.size);
                    commands.next();
                }
                Command::Clear(slice) => {
                    encoder.clear_buffer(&slice.buffer, slice.offset, Some(slice.size));
                    commands.next();
                }
                #[cfg(not(target_family = "wasm"))]
                Command::EndPass => {
                    commands.next();
                }
                Command::Dispatch { .. } => {
                    #[cfg(not(target_family = "wasm"))]
                    let timestamp_writes = self.stopwatch.as_ref().and_then(|stopwatch| stopwatch.writes(dispatches));
                    #[cfg(target_family = "wasm")]
                    let timestamp_writes = None;
                    let own_pass = timestamp_writes.is_some();
                    let mut pass =
                        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
                    while let Some(Command::Dispatch { pipeline, bindings, params, grid: [x, y, z] }) =
                        commands.next_if(|c| matches!(c, Command::Dispatch { .. }))
                    {
                        pass.set_pipeline(pipeline);
                        pass.set_bind_group(0, bindings, &[*params]);
                        pass.dispatch_workgroups(*x, *y, *z);
                        dispatches += 1;
                        if own_pass {
                            break;
                        }
                    }
                }
            }
        }
        last(&mut encoder);
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &self.stopwatch {
            stopwatch.resolve(&mut encoder, dispatches);
        }
        self.commands.clear();
        Ok(Recorded { commands: encoder.finish(), params: std::mem::take(&mut self.params), dispatches })
    }

    fn count(&mut self, new: Counters) {
        self.counters.dispatches += new.dispatches;
        self.counters.submits += new.submits;
        self.counters.readbacks += new.readbacks;
        self.gpu.usage.add(new);
    }

    /// Submits the list and returns the contents of `slices` afterwards, concatenated.
    pub async fn read(&mut self, slices: &[Slice]) -> Result<Vec<u8>> {
        let size: u64 = slices.iter().map(|s| s.size).sum();
        if self.readable.as_ref().is_none_or(|r| r.size < size) {
            self.readable = Some(self.gpu.allocate_readable(size.next_power_of_two().max(4096)).await?);
        }
        let Some(readable) = self.readable.take() else {
            return Err(Error::internal("there is no buffer to read back into"));
        };
        // If the wait fails or is dropped, the buffer may stay mapped, so it is reused only after success.
        let mapped = self.begin_read(slices, &readable, size)?;
        let bytes = mapped.bytes(&self.gpu).await?;
        self.readable = Some(readable);
        Ok(bytes)
    }

    /// Submits the list with a copy of `slices`, `size` bytes in total, to `readable`.
    fn begin_read(&mut self, slices: &[Slice], readable: &Slice, size: u64) -> Result<Mapped> {
        let submission = self.submit_with(|encoder| {
            let mut at = 0;
            for s in slices {
                encoder.copy_buffer_to_buffer(&s.buffer, s.offset, &readable.buffer, at, s.size);
                at += s.size;
            }
        })?;
        self.count(Counters { readbacks: 1, ..Counters::default() });
        Ok(self.gpu.begin_map(readable, size, submission))
    }

    /// Same as [`Self::read`], for slices of f32.
    pub async fn read_f32(&mut self, slices: &[Slice]) -> Result<Vec<f32>> {
        let bytes = self.read(slices).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Submits the list. The future returns the contents of `slices` afterwards, concatenated. More commands can be
    /// recorded and submitted before it is awaited.
    pub async fn begin_read_f32(&mut self, slices: &[Slice]) -> Result<impl Future<Output = Result<Vec<f32>>> + use<>> {
        let size: u64 = slices.iter().map(|s| s.size).sum();
        let readable = self.gpu.allocate_readable(size).await?;
        let mapped = self.begin_read(slices, &readable, size)?;
        let gpu = self.gpu.clone();
        Ok(async move { mapped.bytes(&gpu).await.map(|bytes| bytemuck::pod_collect_to_vec(&bytes)) })
    }

    /// Drops the commands that are recorded but not submitted.
    pub fn discard(&mut self) {
        self.commands.clear();
        self.params.clear();
        self.guard = None;
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.discard();
        }
    }
}
