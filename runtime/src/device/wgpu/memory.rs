//! Buffers of wgpu: allocating, writing and reading back.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use futures_channel::oneshot;

use super::errors::from_wgpu;
use super::gpu::Gpu;
use crate::allocate;
use crate::device::process::OfProcess;
use crate::error::{Error, ErrorKind, Result};

/// A buffer. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::device) struct GpuBuffer(Arc<OfProcess<wgpu::Buffer>>);

// SAFETY: a buffer of wgpu is `Send` and `Sync`, which `check_buffer` has the compiler verify, and the wrapper adds
// nothing. The types of wgpu are nested so deeply that the compiler gives up on types that hold a buffer otherwise.
unsafe impl Send for GpuBuffer {}
// SAFETY: as above.
unsafe impl Sync for GpuBuffer {}

const _: () = {
    const fn check_buffer<T: Send + Sync>() {}
    check_buffer::<wgpu::Buffer>();
};

impl Deref for GpuBuffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.0
    }
}

impl PartialEq for GpuBuffer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for GpuBuffer {}

impl Hash for GpuBuffer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Gpu {
    /// Allocates a zeroed buffer of `size` bytes for kernels to read and write.
    pub(in crate::device) async fn allocate(&self, what: &str, size: u64) -> Result<GpuBuffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.create(what, size, usage).await
    }

    /// Allocates a buffer for parameter blocks.
    pub(super) async fn allocate_uniform(&self, size: u64) -> Result<GpuBuffer> {
        self.create("parameters", size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST).await
    }

    /// Allocates a buffer that the host can read.
    pub(in crate::device) async fn allocate_readable(&self, size: u64) -> Result<GpuBuffer> {
        self.create("a read-back", size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST).await
    }

    async fn create(&self, what: &str, size: u64, usage: wgpu::BufferUsages) -> Result<GpuBuffer> {
        self.status.check()?;
        // An error scope belongs to this thread and must be closed before the first await.
        let (buffer, memory, validation) = {
            let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
            let buffer = self.device.create_buffer(&descriptor);
            let memory = memory.pop();
            (buffer, memory, validation.pop())
        };
        let memory = memory.await;
        if let Some(error) = validation.await.or(memory) {
            self.status.check()?;
            return Err(from_wgpu(error).context(format!("allocating {size} bytes for {what}")));
        }
        Ok(GpuBuffer(Arc::new(OfProcess::new(buffer))))
    }

    /// Writes `bytes` to `to` at `offset`, in order with submissions.
    pub(in crate::device) fn write(&self, to: &GpuBuffer, offset: u64, bytes: &[u8]) {
        self.queue.write_buffer(to, offset, bytes);
    }

    /// Waits until all submitted work is done, without checking for failures.
    pub(in crate::device) async fn idle(&self) -> std::result::Result<(), oneshot::Canceled> {
        let submission = self.queue.submit([]);
        let (done, wait) = oneshot::channel();
        self.queue.on_submitted_work_done(move || {
            // Sending fails if the waiting future was dropped.
            let _ = done.send(());
        });
        self.attend(submission);
        wait.await
    }

    /// Begins to map the first `size` bytes of a readable buffer, which are valid once `submission` is done.
    pub(super) fn begin_map(&self, from: &GpuBuffer, size: u64, submission: wgpu::SubmissionIndex) -> Mapped {
        let (done, wait) = oneshot::channel();
        from.slice(0..size).map_async(wgpu::MapMode::Read, move |result| {
            // Sending fails if the waiting future was dropped.
            let _ = done.send(result);
        });
        self.attend(submission);
        Mapped { from: from.clone(), size, wait }
    }
}

/// A readable buffer that is being mapped.
pub(in crate::device) struct Mapped {
    from: GpuBuffer,
    size: u64,
    wait: oneshot::Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Mapped {
    /// Waits for the contents and returns them.
    pub(in crate::device) async fn bytes(self, gpu: &Gpu) -> Result<Vec<u8>> {
        // Nothing arrives in a process that was forked.
        gpu.status.check_process()?;
        let answer = self.wait.await;
        // A browser drops results before it reports that the device is lost.
        #[cfg(target_family = "wasm")]
        if !matches!(answer, Ok(Ok(()))) {
            gpu.loss_in_sight().await;
        }
        gpu.status.check()?;
        match answer {
            Ok(Ok(())) => {}
            _ => return Err(Error::new(ErrorKind::Internal, "a result could not be read back from the device")),
        }
        let view = self
            .from
            .slice(0..self.size)
            .get_mapped_range()
            .map_err(|e| Error::internal(format!("a result could not be read back from the device: {e}")))?;
        let mut bytes = Vec::new();
        let reserved = allocate::reserve(&mut bytes, view.len(), "results");
        if reserved.is_ok() {
            bytes.extend_from_slice(&view);
        }
        drop(view);
        self.from.unmap();
        reserved.map(|()| bytes)
    }
}
