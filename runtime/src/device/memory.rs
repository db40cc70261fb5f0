//! Device memory: allocating, writing and reading back buffers.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures_channel::oneshot;

use crate::device::gpu::Gpu;
use crate::device::status::from_wgpu;
use crate::device::usage::Held;
use crate::error::{Error, ErrorKind, Result};

/// A range of a buffer, as bound by a kernel. Cheap to clone; keeps the buffer alive.
#[derive(Debug, Clone)]
pub struct Slice {
    pub(super) buffer: wgpu::Buffer,
    /// In bytes.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) size: u64,
    /// Shared by all slices of the buffer.
    owner: Arc<Owner>,
}

/// What is released with the last slice of a buffer.
#[derive(Debug)]
struct Owner {
    /// Counts the buffer as held memory.
    _held: Held,
    #[cfg(target_family = "wasm")]
    buffer: wgpu::Buffer,
}

#[cfg(target_family = "wasm")]
impl Drop for Owner {
    /// Frees the memory. Browsers would free it when the JavaScript object is garbage-collected, which may take minutes
    /// because the collector does not know how much memory is behind it. Commands already submitted can still use it.
    fn drop(&mut self) {
        self.buffer.destroy();
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        (&self.buffer, self.offset, self.size) == (&other.buffer, other.offset, other.size)
    }
}

impl Eq for Slice {}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.buffer, self.offset, self.size).hash(state);
    }
}

impl Slice {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The `count` rows from `row` on, of `width` floats each. From row 0 on it is the whole slice, so that bindings
    /// are shared between counts.
    pub fn rows(&self, row: usize, count: usize, width: usize) -> Result<Slice> {
        match row {
            0 => Ok(self.clone()),
            _ => self.part(4 * (row * width) as u64, 4 * (count * width) as u64),
        }
    }

    /// A part of the slice, in bytes. For a binding, `offset` must be a multiple of [`Gpu::align`]'s alignment.
    pub fn part(&self, offset: u64, size: u64) -> Result<Slice> {
        if offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(Error::internal(format!(
                "bytes {offset} to {offset} + {size} are outside of a device buffer of {} bytes",
                self.size
            )));
        }
        Ok(Slice { buffer: self.buffer.clone(), offset: self.offset + offset, size, owner: self.owner.clone() })
    }
}

impl Gpu {
    /// Rounds `size` up to an offset at which the next part of a shared buffer may begin.
    pub fn align(&self, size: u64) -> u64 {
        size.next_multiple_of(self.offset_alignment.max(256))
    }

    /// Allocates a zeroed buffer of `size` bytes for kernels to read and write.
    ///
    /// # Errors
    /// `OutOfMemory`; `Unsupported` above the adapter's limits. The messages name `what`.
    pub async fn allocate(&self, what: &str, size: u64) -> Result<Slice> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let size = size.max(16).next_multiple_of(16);
        let limit = self.capabilities.max_buffer_bytes.min(self.capabilities.max_binding_bytes);
        if size > limit {
            return Err(Error::unsupported(format!(
                "{what} needs a buffer of {size} bytes, but the adapter {} allows at most {limit}",
                self.adapter.name
            )));
        }
        self.create(what, size, usage).await
    }

    /// Allocates a buffer for parameter blocks.
    pub(super) async fn allocate_uniform(&self, size: u64) -> Result<Slice> {
        self.create("parameters", size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST).await
    }

    /// Allocates a buffer that the host can read.
    pub(crate) async fn allocate_readable(&self, size: u64) -> Result<Slice> {
        self.create("a read-back", size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST).await
    }

    async fn create(&self, what: &str, size: u64, usage: wgpu::BufferUsages) -> Result<Slice> {
        self.check()?;
        #[cfg(not(target_family = "wasm"))]
        if let Some(buffer) = &self.placeholder {
            let owner = Owner { _held: self.usage.hold(size) };
            return Ok(Slice { buffer: buffer.clone(), offset: 0, size, owner: Arc::new(owner) });
        }
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
            self.check()?;
            return Err(from_wgpu(error).context(format!("allocating {size} bytes for {what}")));
        }
        let owner = Owner {
            _held: self.usage.hold(size),
            #[cfg(target_family = "wasm")]
            buffer: buffer.clone(),
        };
        Ok(Slice { buffer, offset: 0, size, owner: Arc::new(owner) })
    }

    /// Writes `bytes` to `to` at `offset`, in order with submissions. `offset` and the length are multiples of 4.
    pub fn write(&self, to: &Slice, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > to.size) || !bytes.len().is_multiple_of(4) {
            return Err(Error::internal(format!(
                "{} bytes cannot be written at byte {offset} of a device buffer of {} bytes",
                bytes.len(),
                to.size
            )));
        }
        #[cfg(not(target_family = "wasm"))]
        if self.placeholder.is_some() {
            return Ok(());
        }
        self.queue.write_buffer(&to.buffer, to.offset + offset, bytes);
        Ok(())
    }

    /// Submits pending writes and waits for the device, which frees their staging copies.
    pub async fn flush(&self) -> Result<()> {
        self.check()?;
        let answer = self.idle().await;
        self.check()?;
        answer.map_err(|_| Error::internal("the device dropped a wait without completing it"))
    }

    /// Waits until all submitted work is done, without checking for failures.
    pub(crate) async fn idle(&self) -> std::result::Result<(), oneshot::Canceled> {
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
    pub(super) fn begin_map(&self, from: &Slice, size: u64, submission: wgpu::SubmissionIndex) -> Mapped {
        let (done, wait) = oneshot::channel();
        from.buffer.slice(0..size).map_async(wgpu::MapMode::Read, move |result| {
            // Sending fails if the waiting future was dropped.
            let _ = done.send(result);
        });
        self.attend(submission);
        Mapped { from: from.clone(), size, wait }
    }
}

/// A readable buffer that is being mapped.
pub(super) struct Mapped {
    from: Slice,
    size: u64,
    wait: oneshot::Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Mapped {
    /// Waits for the contents and returns them.
    pub(super) async fn bytes(self, gpu: &Gpu) -> Result<Vec<u8>> {
        let answer = self.wait.await;
        // A browser drops results before it reports that the device is lost.
        #[cfg(target_family = "wasm")]
        if !matches!(answer, Ok(Ok(()))) {
            gpu.loss_in_sight().await;
        }
        gpu.check()?;
        match answer {
            Ok(Ok(())) => {}
            _ => return Err(Error::new(ErrorKind::Internal, "a result could not be read back from the device")),
        }
        let view = self
            .from
            .buffer
            .slice(0..self.size)
            .get_mapped_range()
            .map_err(|e| Error::internal(format!("a result could not be read back from the device: {e}")))?;
        let bytes = view.to_vec();
        drop(view);
        self.from.buffer.unmap();
        Ok(bytes)
    }
}
