//! Time per kernel.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bolmo_shaders::KernelId;

use super::gpu::Gpu;
use crate::device::usage::KernelTime;
use crate::error::{Error, Result};

/// Measures the dispatches of a recorder, submission by submission.
#[derive(Debug)]
pub(super) struct Stopwatch {
    times: HashMap<KernelId, KernelTime>,
    /// Kernels of the dispatches that are recorded but not submitted, in order.
    recorded: Vec<KernelId>,
    clock: Option<Clock>,
}

/// Timestamps of the device. Each dispatch is a compute pass with one at its beginning and one at its end.
#[derive(Debug)]
struct Clock {
    times: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
    /// Nanoseconds per tick.
    period: f64,
}

impl Stopwatch {
    /// A stopwatch for submissions of at most `times / 2` dispatches.
    pub(super) fn new(gpu: &Gpu, times: u32) -> Self {
        let device = &gpu.device;
        let buffer = |label, usage| {
            let size = u64::from(times) * u64::from(wgpu::QUERY_SIZE);
            device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
        };
        let clock = device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Clock {
            times: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: times,
            }),
            resolved: buffer("ticks", wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer("ticks to read", wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            period: f64::from(gpu.queue.get_timestamp_period()),
        });
        Self { times: HashMap::new(), recorded: Vec::new(), clock }
    }

    /// Whether the device has timestamps. If not, every dispatch must be a submission of its own.
    pub(super) fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// Adds a recorded dispatch.
    pub(super) fn recorded(&mut self, kernel: KernelId) {
        self.recorded.push(kernel);
    }

    /// Drops the dispatches recorded since the last submission.
    pub(super) fn discard(&mut self) {
        self.recorded.clear();
    }

    /// Timestamps that dispatch `index` of a submission writes. With timestamps each dispatch needs a pass of its own.
    pub(super) fn writes(&self, index: u64) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let begin = 2 * index as u32;
        self.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
            query_set: &clock.times,
            beginning_of_pass_write_index: Some(begin),
            end_of_pass_write_index: Some(begin + 1),
        })
    }

    /// Records, after all dispatches of a submission, the copy of their timestamps to a buffer that the host can read.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, dispatches: u64) {
        if let Some(clock) = self.clock.as_ref().filter(|_| dispatches > 0) {
            encoder.resolve_query_set(&clock.times, 0..2 * dispatches as u32, &clock.resolved, 0);
            let bytes = 2 * dispatches * u64::from(wgpu::QUERY_SIZE);
            encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.readable, 0, bytes);
        }
    }

    /// Waits for a submission that began at `begun` and adds the times of its dispatches.
    pub(super) fn submitted(&mut self, gpu: &Gpu, submission: &wgpu::SubmissionIndex, begun: Instant) -> Result<()> {
        let recorded = std::mem::take(&mut self.recorded);
        let wait = || {
            let wait = wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: None };
            let done = gpu.device.poll(wait).map(|_| ());
            done.map_err(|error| Error::internal(format!("waiting for a dispatch failed: {error}")))
        };
        let mut add = |kernel, time| {
            let sum = self.times.entry(kernel).or_default();
            sum.dispatches += 1;
            sum.time += time;
        };
        let Some(clock) = self.clock.as_ref().filter(|_| !recorded.is_empty()) else {
            wait()?;
            recorded.into_iter().for_each(|kernel| add(kernel, begun.elapsed()));
            return Ok(());
        };
        let bytes = 2 * recorded.len() as u64 * u64::from(wgpu::QUERY_SIZE);
        let ticks = clock.readable.slice(..bytes);
        // A failure shows when the range is mapped below.
        ticks.map_async(wgpu::MapMode::Read, |_| ());
        wait()?;
        gpu.status.check()?;
        let read: Vec<u64> = {
            let mapped = ticks.get_mapped_range();
            let mapped = mapped
                .map_err(|error| Error::internal(format!("the times of dispatches could not be read back: {error}")))?;
            bytemuck::pod_collect_to_vec(&mapped)
        };
        clock.readable.unmap();
        for (kernel, times) in recorded.into_iter().zip(read.chunks_exact(2)) {
            // The clocks of different parts of a device may differ slightly.
            let ticks = times[1].saturating_sub(times[0]);
            add(kernel, Duration::from_nanos((ticks as f64 * clock.period) as u64));
        }
        Ok(())
    }

    /// The times measured so far, longest first.
    pub(super) fn times(self) -> Vec<(KernelId, KernelTime)> {
        let mut times: Vec<_> = self.times.into_iter().collect();
        times.sort_by_key(|(_, time)| std::cmp::Reverse(time.time));
        times
    }
}
