//! How long the dispatches of each kernel take.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bolmo_shaders::KernelId;

use crate::device::gpu::Gpu;
use crate::error::{Error, Result};

/// What the dispatches of a kernel took together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelTime {
    /// How many there were.
    pub dispatches: u64,
    /// How long the device took for them; where it has no clock, with what handing over each of them and waiting for it costs.
    pub time: Duration,
}

/// Measures the dispatches of a recorder, submission by submission.
#[derive(Debug)]
pub(super) struct Stopwatch {
    times: HashMap<KernelId, KernelTime>,
    /// Of the dispatches that are recorded and not submitted, in order.
    recorded: Vec<KernelId>,
    clock: Option<Clock>,
}

/// A device's own clock: each dispatch is a pass with a time at its beginning and one at its end.
#[derive(Debug)]
struct Clock {
    times: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
    /// Nanoseconds of a tick.
    period: f64,
}

impl Stopwatch {
    /// For submissions of up to half of `times` dispatches.
    pub(super) fn new(gpu: &Gpu, times: u32) -> Self {
        let device = &gpu.device;
        let buffer = |label, usage| {
            let size = u64::from(times) * u64::from(wgpu::QUERY_SIZE);
            device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
        };
        let clock = device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Clock {
            times: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("times of dispatches"),
                ty: wgpu::QueryType::Timestamp,
                count: times,
            }),
            resolved: buffer("ticks", wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer("ticks to read", wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            period: f64::from(gpu.queue.get_timestamp_period()),
        });
        Self { times: HashMap::new(), recorded: Vec::new(), clock }
    }

    /// Whether the device has a clock; if not, every dispatch must be submitted by itself.
    pub(super) fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// Notes a dispatch.
    pub(super) fn recorded(&mut self, kernel: KernelId) {
        self.recorded.push(kernel);
    }

    /// Forgets what was noted since the last submission.
    pub(super) fn discard(&mut self) {
        self.recorded.clear();
    }

    /// The times that the pass of dispatch number `index` of a submission writes, if it is to be one of its own.
    pub(super) fn writes(&self, index: u64) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let begin = 2 * index as u32;
        self.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
            query_set: &clock.times,
            beginning_of_pass_write_index: Some(begin),
            end_of_pass_write_index: Some(begin + 1),
        })
    }

    /// Behind all dispatches of a submission: takes their times to where they can be read.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, dispatches: u64) {
        if let Some(clock) = self.clock.as_ref().filter(|_| dispatches > 0) {
            encoder.resolve_query_set(&clock.times, 0..2 * dispatches as u32, &clock.resolved, 0);
            let bytes = 2 * dispatches * u64::from(wgpu::QUERY_SIZE);
            encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.readable, 0, bytes);
        }
    }

    /// Waits for a submission that was begun at `begun`, and adds up what its dispatches took.
    pub(super) fn submitted(&mut self, gpu: &Gpu, submission: &wgpu::SubmissionIndex, begun: Instant) -> Result<()> {
        let recorded = std::mem::take(&mut self.recorded);
        let wait = || {
            let wait = wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: None };
            let done = gpu.device.poll(wait).map(|_| ());
            done.map_err(|error| Error::internal(format!("waiting for a dispatch: {error}")))
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
        // What it reports is found out by looking at what is mapped.
        ticks.map_async(wgpu::MapMode::Read, |_| ());
        wait()?;
        gpu.check()?;
        let read: Vec<u64> = {
            let mapped = ticks.get_mapped_range();
            let mapped = mapped.map_err(|error| Error::internal(format!("times of dispatches: {error}")))?;
            bytemuck::pod_collect_to_vec(&mapped)
        };
        clock.readable.unmap();
        for (kernel, times) in recorded.into_iter().zip(read.chunks_exact(2)) {
            // Clocks of different parts of a device may differ by a little.
            let ticks = times[1].saturating_sub(times[0]);
            add(kernel, Duration::from_nanos((ticks as f64 * clock.period) as u64));
        }
        Ok(())
    }

    /// What was measured, the longest first.
    pub(super) fn times(self) -> Vec<(KernelId, KernelTime)> {
        let mut times: Vec<_> = self.times.into_iter().collect();
        times.sort_by_key(|(_, time)| std::cmp::Reverse(time.time));
        times
    }
}
