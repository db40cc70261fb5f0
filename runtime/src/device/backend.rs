//! The device that models and sessions share, on either backend.

use std::sync::Arc;

use bolmo_shaders::{Fusion, KernelId, Products, Tiles, Variant, WeightFormat};

use crate::device::adapter::AdapterInfo;
use crate::device::capabilities::Capabilities;
use crate::device::choose::{Chosen, request};
use crate::device::cpu::{self, Cpu};
use crate::device::kept::{Keepers, Kept};
use crate::device::memory::{Buffer, Slice, other_device};
use crate::device::options::EngineOptions;
use crate::device::process::OfProcess;
use crate::device::shared_bytes::SharedBytes;
use crate::device::status::Status;
use crate::device::usage::Usage;
use crate::device::wgpu::Gpu;
use crate::error::{Error, Result};

/// Smallest value of [`EngineOptions::max_binding_bytes`].
const LEAST_BINDING_BYTES: u64 = 1 << 16;

/// Bytes of the buffer that holds `size` bytes.
pub(crate) fn buffer_bytes(size: u64) -> u64 {
    size.max(16).next_multiple_of(16)
}

/// An open device and what is created once for it.
#[derive(Debug)]
pub struct Device {
    pub(super) backend: Backend,
    pub(super) status: Arc<Status>,
    pub(super) usage: Arc<Usage>,
    pub(super) keepers: Keepers,
    /// Whether allocations are counted but not made.
    #[cfg(not(target_family = "wasm"))]
    dry_run: bool,
    /// The adapter in use.
    pub adapter: AdapterInfo,
    /// The kernels and sizes of work chosen for the adapter.
    pub capabilities: Capabilities,
}

/// What computes.
#[derive(Debug, Clone)]
pub(super) enum Backend {
    /// A device of wgpu.
    Gpu(Arc<OfProcess<Gpu>>),
    /// The CPU device.
    Cpu(cpu::Shared),
}

impl Device {
    /// Opens the adapter that `options` selects.
    pub(super) async fn open(options: &EngineOptions) -> Result<Self> {
        if let Some(bytes) = options.max_binding_bytes.filter(|&bytes| bytes < LEAST_BINDING_BYTES) {
            return Err(Error::invalid(format!(
                "max_binding_bytes is {bytes}, expected at least {LEAST_BINDING_BYTES}"
            )));
        }
        cpu::check_threads(options)?;
        let (chosen, adapter) = request(&options.adapter).await?;
        if options.products == Products::Int8 && (cfg!(target_family = "wasm") || !adapter.is_cpu()) {
            return Err(Error::unsupported(format!(
                "products in integers are computed by the CPU device alone, outside of browsers, but the adapter is \
                 {}; choose the CPU device, or products in f32",
                adapter.name
            )));
        }
        let capabilities = Capabilities::decide(&adapter, options);
        let (backend, status) = match chosen {
            Chosen::Gpu(found) => {
                let gpu = Gpu::open(found, &adapter, &capabilities, options).await?;
                let status = gpu.status();
                (Backend::Gpu(Arc::new(OfProcess::new(gpu))), status)
            }
            Chosen::Cpu => {
                let cpu = Cpu::open(options)?;
                let status = cpu.status();
                (Backend::Cpu(cpu.shared()), status)
            }
        };
        Ok(Self {
            backend,
            status,
            usage: Arc::default(),
            keepers: Keepers::default(),
            #[cfg(not(target_family = "wasm"))]
            dry_run: false,
            adapter,
            capabilities,
        })
    }

    /// The same device for a dry run, which measures how much memory some work needs before any is allocated.
    /// Allocations are counted but not made, writes are discarded, and nothing can be computed.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn dry_run(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            status: self.status.clone(),
            usage: Arc::default(),
            keepers: Keepers::default(),
            dry_run: true,
            adapter: self.adapter.clone(),
            capabilities: self.capabilities.clone(),
        }
    }

    /// Whether this is a dry run.
    #[cfg(not(target_family = "wasm"))]
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Compiles a kernel unless it is compiled already.
    pub(crate) fn compile(&self, kernel: KernelId, format: WeightFormat, fusion: Fusion) {
        if self.status.check_process().is_err() {
            return;
        }
        match &self.backend {
            Backend::Gpu(gpu) => gpu.compile(kernel, self.variant(kernel, format, fusion)),
            Backend::Cpu(_) => {}
        }
    }

    /// The variant of a kernel for this adapter.
    pub(super) fn variant(&self, kernel: KernelId, format: WeightFormat, fusion: Fusion) -> Variant {
        kernel.kernel().variant(format, self.capabilities.reduce, fusion, self.capabilities.tiles)
    }

    /// Rows of W and rows of x that one workgroup of `matmul` multiplies, with W in `format`.
    pub fn matmul_tile(&self, format: WeightFormat) -> [usize; 2] {
        self.variant(KernelId::MatMul, format, Fusion::default()).tiles.unwrap_or(Tiles::Workgroup).matmul()
    }

    /// Writes the compiled kernels to the kernel cache, if there is one.
    pub(crate) fn save_kernels(&self) {
        if self.status.check_process().is_err() {
            return;
        }
        match &self.backend {
            Backend::Gpu(gpu) => gpu.save_kernels(),
            Backend::Cpu(_) => {}
        }
    }

    /// Threads that compute, if this is the CPU device.
    pub fn threads(&self) -> Option<usize> {
        match &self.backend {
            Backend::Gpu(_) => None,
            Backend::Cpu(cpu) => Some(cpu.threads()),
        }
    }

    /// Returns the failure that the device has reported, if any.
    pub fn check(&self) -> Result<()> {
        self.status.check()
    }

    /// Gives up the device. A fork of the process leaves it to the parent.
    pub(super) fn destroy(&self) {
        if self.status.check_process().is_err() {
            return;
        }
        match &self.backend {
            Backend::Gpu(gpu) => gpu.destroy(),
            Backend::Cpu(_) => {}
        }
        self.status.lose("it was destroyed by the program", log::Level::Info);
    }

    /// Rounds `size` up to an offset at which the next part of a shared buffer may begin.
    pub fn align(&self, size: u64) -> u64 {
        let required = match &self.backend {
            Backend::Gpu(gpu) => gpu.offset_alignment,
            Backend::Cpu(_) => 1,
        };
        size.next_multiple_of(required.max(256))
    }

    /// Allocates a zeroed buffer of `size` bytes for kernels to read and write.
    ///
    /// # Errors
    /// `OutOfMemory`; `Unsupported` above the adapter's limits. The messages name `what`.
    pub async fn allocate(&self, what: &str, size: u64) -> Result<Slice> {
        let size = self.buffer_size(what, size)?;
        self.check()?;
        #[cfg(not(target_family = "wasm"))]
        if self.dry_run {
            return Ok(Slice::whole(Buffer::Absent, size, self.usage.hold(size)));
        }
        let buffer = match &self.backend {
            Backend::Gpu(gpu) => Buffer::Gpu(gpu.allocate(what, size).await?),
            Backend::Cpu(cpu) => Buffer::Cpu(cpu.allocate(what, size)?),
        };
        Ok(Slice::whole(buffer, size, self.usage.hold(size)))
    }

    /// The `bytes` bytes from `offset` on as memory that kernels read where it is. `None` if the device has memory of
    /// its own, or if the bytes do not begin at a word. They don't count as memory that the device holds.
    pub(crate) fn share(&self, memory: &SharedBytes, offset: u64, bytes: u64) -> Option<Slice> {
        match &self.backend {
            Backend::Gpu(_) => None,
            Backend::Cpu(cpu) => {
                let buffer = Buffer::Cpu(cpu.share(memory, offset, bytes)?);
                Some(Slice::whole(buffer, bytes, self.usage.hold(0)))
            }
        }
    }

    /// The size of the buffer that holds `size` bytes of `what`.
    ///
    /// # Errors
    /// `Unsupported` if the adapter has no such large buffers.
    pub(crate) fn buffer_size(&self, what: &str, size: u64) -> Result<u64> {
        let size = buffer_bytes(size);
        let limit = self.capabilities.max_buffer_bytes.min(self.capabilities.max_binding_bytes);
        if size > limit {
            return Err(Error::unsupported(format!(
                "{what} needs a buffer of {size} bytes, but the adapter {} allows at most {limit}",
                self.adapter.name
            )));
        }
        Ok(size)
    }

    /// Allocates a buffer that the host can read.
    pub(crate) async fn allocate_readable(&self, size: u64) -> Result<Slice> {
        self.check()?;
        #[cfg(not(target_family = "wasm"))]
        if self.dry_run {
            return Ok(Slice::whole(Buffer::Absent, size, self.usage.hold(size)));
        }
        match &self.backend {
            Backend::Gpu(gpu) => {
                let buffer = Buffer::Gpu(gpu.allocate_readable(size).await?);
                Ok(Slice::whole(buffer, size, self.usage.hold(size)))
            }
            Backend::Cpu(_) => Ok(Slice::whole(Buffer::Absent, size, self.usage.hold(0))),
        }
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
        let _permit = self.submission()?;
        match (&self.backend, &to.buffer) {
            (Backend::Gpu(gpu), Buffer::Gpu(buffer)) => {
                gpu.write(buffer, to.offset + offset, bytes);
                Ok(())
            }
            (Backend::Cpu(cpu), Buffer::Cpu(buffer)) => cpu.write(buffer, to.offset + offset, bytes),
            (_, Buffer::Absent) => Ok(()),
            _ => Err(other_device()),
        }
    }

    /// Waits until all submitted work is done, without checking for failures.
    pub(crate) async fn idle(&self) -> std::result::Result<(), futures_channel::oneshot::Canceled> {
        match &self.backend {
            Backend::Gpu(gpu) => gpu.idle().await,
            Backend::Cpu(cpu) => cpu.idle().await,
        }
    }

    /// Submits pending writes and waits for the device, which frees their staging copies.
    pub async fn flush(&self) -> Result<()> {
        self.check()?;
        let _permit = self.submission()?;
        let answer = self.idle().await;
        self.check()?;
        answer.map_err(|_| Error::internal("the device dropped a wait without completing it"))
    }

    /// Memory that is kept for reuse until [`Self::trim`]. Values are not released while `in_use` returns true.
    pub(crate) fn keep<T: Send + 'static>(&self, in_use: impl Fn() -> bool + Send + Sync + 'static) -> Kept<T> {
        Kept::new(&self.keepers, in_use)
    }

    /// How often memory was released. Who uses what was made before the last time drops it instead of keeping it.
    pub(crate) fn trims(&self) -> u64 {
        self.keepers.trims()
    }

    /// Releases memory that can be made again, and returns how many bytes fewer are held on the device.
    pub(super) fn trim(&self) -> Result<u64> {
        self.status.check_process()?;
        let before = self.usage.memory().current_bytes;
        self.keepers.release();
        Ok(before.saturating_sub(self.usage.memory().current_bytes))
    }
}
