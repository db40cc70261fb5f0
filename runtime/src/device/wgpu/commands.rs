//! Command lists of wgpu.

use std::collections::HashMap;
use std::sync::Arc;

use bolmo_shaders::sizes::{GUARD_BINDING, MAX_GROUPS, SCALES_BINDING};
use bolmo_shaders::{KernelId, Variant, WeightFormat};

use super::gpu::Gpu;
use super::memory::{GpuBuffer, Mapped};
use super::pipelines::Pipeline;
#[cfg(not(target_family = "wasm"))]
use super::stopwatch::Stopwatch;
use crate::device::dispatch::{Dispatch, MAX_DISPATCHES};
use crate::device::memory::{Buffer, Slice, other_device};
use crate::device::process::OfProcess;
#[cfg(not(target_family = "wasm"))]
use crate::device::usage::KernelTime;
use crate::error::{Error, Result};

/// Distance between parameter blocks in bytes, the largest alignment that an adapter may require.
const BLOCK: u64 = 256;
/// Size of the buffer of a list's parameter blocks, in bytes.
pub(in crate::device) const PARAMS_BYTES: u64 = BLOCK * MAX_DISPATCHES as u64;

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

/// The buffer of a slice.
fn buffer(slice: &Slice) -> Result<&GpuBuffer> {
    match &slice.buffer {
        Buffer::Gpu(buffer) => Ok(buffer),
        _ => Err(other_device()),
    }
}

fn entry(binding: u32, slice: &Slice) -> Result<wgpu::BindGroupEntry<'_>> {
    let size = wgpu::BufferSize::new(slice.size);
    let buffer = wgpu::BufferBinding { buffer: buffer(slice)?, offset: slice.offset, size };
    Ok(wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(buffer) })
}

fn copy(encoder: &mut wgpu::CommandEncoder, from: &Slice, to: &Slice, at: u64) -> Result<()> {
    encoder.copy_buffer_to_buffer(buffer(from)?, from.offset, buffer(to)?, to.offset + at, from.size);
    Ok(())
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
pub(in crate::device) struct Recorded {
    commands: wgpu::CommandBuffer,
    params: Vec<u8>,
    dispatches: u64,
}

// SAFETY: its parts are `Send`, which `check_parts` has the compiler verify. The types of wgpu are nested so deeply
// that the compiler gives up on types that hold recorded commands otherwise.
unsafe impl Send for Recorded {}
// SAFETY: as above.
unsafe impl Send for CommandList {}

const _: () = {
    const fn check_parts<T: Send>() {}
    check_parts::<(wgpu::CommandBuffer, Vec<u8>)>();
    check_parts::<(Arc<OfProcess<Gpu>>, GpuBuffer)>();
    check_parts::<Vec<Command>>();
    check_parts::<HashMap<BindingsKey, (Pipeline, wgpu::BindGroup)>>();
    #[cfg(not(target_family = "wasm"))]
    check_parts::<Option<Stopwatch>>();
};

/// Commands, and the bind groups and buffers that are kept from list to list.
#[derive(Debug)]
pub(in crate::device) struct CommandList {
    gpu: Arc<OfProcess<Gpu>>,
    commands: Vec<Command>,
    /// Parameter blocks of the recorded dispatches, [`BLOCK`] bytes each.
    params: Vec<u8>,
    params_buffer: GpuBuffer,
    /// Bind groups, created once for each set of buffers.
    bind_groups: HashMap<BindingsKey, (Pipeline, wgpu::BindGroup)>,
    /// Times of dispatches, while they are measured.
    #[cfg(not(target_family = "wasm"))]
    stopwatch: Option<Stopwatch>,
}

impl CommandList {
    /// An empty list.
    pub(in crate::device) async fn new(gpu: &Arc<OfProcess<Gpu>>) -> Result<Self> {
        Ok(Self {
            gpu: gpu.clone(),
            commands: Vec::new(),
            params: Vec::new(),
            params_buffer: gpu.allocate_uniform(PARAMS_BYTES).await?,
            bind_groups: HashMap::new(),
            #[cfg(not(target_family = "wasm"))]
            stopwatch: None,
        })
    }

    /// The device of the list.
    pub(in crate::device) fn gpu(&self) -> &Arc<OfProcess<Gpu>> {
        &self.gpu
    }

    /// Workgroups in one dimension of a dispatch.
    pub(in crate::device) fn max_groups(&self) -> u32 {
        MAX_GROUPS
    }

    /// Dispatches recorded so far.
    pub(in crate::device) fn dispatches(&self) -> usize {
        self.params.len() / BLOCK as usize
    }

    /// Whether nothing is recorded.
    pub(in crate::device) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Drops the bind groups.
    pub(in crate::device) fn forget_bindings(&mut self) {
        self.bind_groups.clear();
    }

    /// Records a dispatch.
    pub(in crate::device) fn dispatch(&mut self, dispatch: Dispatch<'_>) -> Result<()> {
        let Dispatch { kernel, variant, params, slices, guard, scales, odd_rows, any_order, grid } = dispatch;
        // A shader has one order of sums.
        let _ = any_order;
        if odd_rows.is_some() {
            return Err(Error::internal("a matrix lies in two buffers, which shaders cannot read"));
        }
        let slices = slices.iter().copied().chain(guard).chain(scales).cloned().collect();
        let (pipeline, bindings) = self.bind_group(BindingsKey { kernel, variant, slices })?;
        let at = self.params.len();
        self.params.extend_from_slice(params);
        self.params.resize(at + BLOCK as usize, 0);
        self.commands.push(Command::Dispatch { pipeline, bindings, params: at as u32, grid });
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.recorded(kernel);
        }
        Ok(())
    }

    /// Whether each dispatch must be a submission of its own, to be timed.
    #[cfg(not(target_family = "wasm"))]
    pub(in crate::device) fn submits_each(&self) -> bool {
        self.stopwatch.as_ref().is_some_and(|stopwatch| !stopwatch.has_clock())
    }

    /// Begins or stops to measure dispatches, and returns the times measured before.
    #[cfg(not(target_family = "wasm"))]
    pub(in crate::device) fn measure(&mut self, on: bool) -> Vec<(KernelId, KernelTime)> {
        let new = on.then(|| Stopwatch::new(&self.gpu, 2 * MAX_DISPATCHES as u32));
        std::mem::replace(&mut self.stopwatch, new).map(Stopwatch::times).unwrap_or_default()
    }

    fn bind_group(&mut self, key: BindingsKey) -> Result<(wgpu::ComputePipeline, wgpu::BindGroup)> {
        let stem = key.kernel.kernel().stem;
        if let Some((pipeline, group)) = self.bind_groups.get(&key) {
            return Ok((pipeline.pipeline.clone(), group.clone()));
        }
        if key.numbers().count() != key.slices.len() {
            return Err(Error::internal(format!("{stem}: the scales of the matrix are missing")));
        }
        let pipeline = self.gpu.pipelines.get(key.kernel, key.variant);
        let params = wgpu::BufferBinding {
            buffer: &self.params_buffer,
            offset: 0,
            size: wgpu::BufferSize::new(key.kernel.kernel().params.size as u64),
        };
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(params) }];
        for (number, slice) in key.numbers().zip(&key.slices) {
            entries.push(entry(number, slice)?);
        }
        let group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(stem),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let both = (pipeline.pipeline.clone(), group.clone());
        self.bind_groups.insert(key, (pipeline, group));
        Ok(both)
    }

    /// Records a copy.
    pub(in crate::device) fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        self.commands.push(Command::Copy { from: from.clone(), to: to.clone() });
        Ok(())
    }

    /// Records filling a slice with zeros.
    pub(in crate::device) fn clear(&mut self, slice: &Slice) {
        self.commands.push(Command::Clear(slice.clone()));
    }

    /// Begins a new compute pass with the next dispatch.
    #[cfg(not(target_family = "wasm"))]
    pub(in crate::device) fn end_pass(&mut self) {
        self.commands.push(Command::EndPass);
    }

    /// Submits the list and returns its number of dispatches.
    pub(in crate::device) fn submit(&mut self) -> Result<u64> {
        self.submit_with(|_| Ok(())).map(|(dispatches, _)| dispatches)
    }

    /// Submits the list with a copy of `slices`, `size` bytes in total, to `readable`.
    pub(in crate::device) fn read(&mut self, slices: &[Slice], readable: &Slice, size: u64) -> Result<(u64, Mapped)> {
        let (dispatches, submission) = self.submit_with(|encoder| {
            let mut at = 0;
            for slice in slices {
                copy(encoder, slice, readable, at)?;
                at += slice.size;
            }
            Ok(())
        })?;
        Ok((dispatches, self.gpu.begin_map(buffer(readable)?, size, submission)))
    }

    /// Submits the list, with further commands from `last` at its end.
    fn submit_with(
        &mut self,
        last: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<()>,
    ) -> Result<(u64, wgpu::SubmissionIndex)> {
        #[cfg(not(target_family = "wasm"))]
        let begun = std::time::Instant::now();
        let recorded = self.finish_with(last)?;
        let dispatches = recorded.dispatches;
        let submission = self.submit_recorded(recorded);
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.submitted(&self.gpu, &submission, begun)?;
        }
        Ok((dispatches, submission))
    }

    /// Ends the list, to be submitted later, with a copy of `from` to the beginning of `readable`.
    pub(in crate::device) fn finish(&mut self, from: &Slice, readable: &Slice) -> Result<Recorded> {
        let finished = self.finish_with(|encoder| copy(encoder, from, readable, 0));
        // Lists submitted later are not measured.
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.discard();
        }
        finished
    }

    /// Submits a finished list.
    pub(in crate::device) fn submit_and_map(&mut self, recorded: Recorded, readable: &Slice) -> Result<(u64, Mapped)> {
        let dispatches = recorded.dispatches;
        let submission = self.submit_recorded(recorded);
        Ok((dispatches, self.gpu.begin_map(buffer(readable)?, readable.size, submission)))
    }

    fn submit_recorded(&mut self, recorded: Recorded) -> wgpu::SubmissionIndex {
        let Recorded { commands, params, .. } = recorded;
        if !params.is_empty() {
            self.gpu.queue.write_buffer(&self.params_buffer, 0, &params);
        }
        self.gpu.queue.submit([commands])
    }

    /// Encodes the list, with further commands from `last` at its end.
    fn finish_with(&mut self, last: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<()>) -> Result<Recorded> {
        let mut dispatches = 0;
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut commands = self.commands.iter().peekable();
        while let Some(command) = commands.peek() {
            match command {
                Command::Copy { from, to } => {
                    copy(&mut encoder, from, to, 0)?;
                    commands.next();
                }
                Command::Clear(slice) => {
                    encoder.clear_buffer(buffer(slice)?, slice.offset, Some(slice.size));
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
        last(&mut encoder)?;
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &self.stopwatch {
            stopwatch.resolve(&mut encoder, dispatches);
        }
        self.commands.clear();
        Ok(Recorded { commands: encoder.finish(), params: std::mem::take(&mut self.params), dispatches })
    }

    /// Drops the commands that are recorded but not submitted.
    pub(in crate::device) fn discard(&mut self) {
        self.commands.clear();
        self.params.clear();
        #[cfg(not(target_family = "wasm"))]
        if let Some(stopwatch) = &mut self.stopwatch {
            stopwatch.discard();
        }
    }
}
