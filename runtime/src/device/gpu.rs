//! The device: opened once, shared by models and sessions, and watched for loss and errors.

use std::sync::Arc;

use bolmo_shaders::{Fusion, KernelId, Tiles, Variant, WeightFormat};

use crate::device::adapter;
use crate::device::adapter::AdapterInfo;
use crate::device::capabilities::Capabilities;
use crate::device::options::EngineOptions;
use crate::device::pipelines::Pipelines;
#[cfg(not(target_family = "wasm"))]
use crate::device::poller::Poller;
use crate::device::status::Status;
use crate::device::usage::Usage;
use crate::error::{Error, Result};

/// The device, its queue and everything made once for it.
#[derive(Debug)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) status: Arc<Status>,
    pub(super) pipelines: Pipelines,
    pub(super) usage: Arc<Usage>,
    pub(super) offset_alignment: u64,
    /// What stands for every buffer where nothing is allocated in earnest.
    #[cfg(not(target_family = "wasm"))]
    pub(super) stand_in: Option<wgpu::Buffer>,
    #[cfg(not(target_family = "wasm"))]
    poller: Poller,
    /// The adapter in use.
    pub adapter: AdapterInfo,
    /// What was decided for it.
    pub capabilities: Capabilities,
}

impl Gpu {
    pub(super) async fn open(options: &EngineOptions) -> Result<Self> {
        let (adapter, info) = adapter::request(&options.adapter).await?;
        if let Some(bytes) = options.max_binding_bytes
            && bytes < 1 << 16
        {
            return Err(Error::invalid(format!("max_binding_bytes is {bytes}, expected at least 65536")));
        }
        let capabilities = Capabilities::decide(&info, options);
        let mut limits = adapter.limits();
        limits.max_storage_buffer_binding_size = capabilities.max_binding_bytes;
        let mut features = wgpu::Features::empty();
        if capabilities.reduce.subgroups() {
            features |= wgpu::Features::SUBGROUP;
        }
        let cooperates = capabilities.tiles.cooperative_side().is_some();
        let mut experimental = wgpu::ExperimentalFeatures::disabled();
        if cooperates {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
            // SAFETY: what is asked of the caller is to accept that the feature may have faults. It is used by one kernel, which is tested
            // on the device before anything relies on it (`gpu/self_test.rs`).
            experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let keeps_kernels =
            options.kernel_cache.is_some() && adapter.features().contains(wgpu::Features::PIPELINE_CACHE);
        if keeps_kernels {
            features |= wgpu::Features::PIPELINE_CACHE;
        }
        // What measures dispatches.
        if cfg!(not(target_family = "wasm")) && info.timestamps {
            features |= wgpu::Features::TIMESTAMP_QUERY;
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("bolmo"),
                required_features: features,
                required_limits: limits.clone(),
                experimental_features: experimental,
                memory_hints: wgpu::MemoryHints::Performance,
                trace: wgpu::Trace::Off,
            })
            .await
            .map_err(|e| Error::unsupported(format!("adapter {} cannot be opened: {e}", info.name)))?;
        let status = Arc::new(Status::default());
        let lost = status.clone();
        device.set_device_lost_callback(move |reason, message| {
            lost.lose(if message.is_empty() { format!("{reason:?}") } else { message });
        });
        let errors = status.clone();
        device.on_uncaptured_error(Arc::new(move |error| errors.report(error)));
        let pipelines = Pipelines::new(&device, &capabilities);
        #[cfg(not(target_family = "wasm"))]
        let pipelines = pipelines.with_disk(
            options
                .kernel_cache
                .as_deref()
                .filter(|_| keeps_kernels)
                .map(|folder| crate::device::kernel_cache::DiskCache::open(&device, folder, &info)),
        );
        Ok(Self {
            #[cfg(not(target_family = "wasm"))]
            stand_in: None,
            #[cfg(not(target_family = "wasm"))]
            poller: Poller::start(device.clone())?,
            pipelines,
            usage: Arc::default(),
            offset_alignment: u64::from(
                limits.min_storage_buffer_offset_alignment.max(limits.min_uniform_buffer_offset_alignment),
            ),
            device,
            queue,
            status,
            adapter: info,
            capabilities,
        })
    }

    /// The same device for a rehearsal: what is allocated there only counts, and what is written there goes nowhere. It tells how much
    /// memory something takes before any is taken; nothing can be computed with what it hands out.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn rehearsal(&self) -> Result<Self> {
        let descriptor = wgpu::BufferDescriptor {
            label: Some("a stand-in"),
            size: 16,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        Ok(Self {
            stand_in: Some(self.device.create_buffer(&descriptor)),
            poller: Poller::start(self.device.clone())?,
            pipelines: Pipelines::new(&self.device, &self.capabilities),
            usage: Arc::default(),
            offset_alignment: self.offset_alignment,
            device: self.device.clone(),
            queue: self.queue.clone(),
            status: self.status.clone(),
            adapter: self.adapter.clone(),
            capabilities: self.capabilities.clone(),
        })
    }

    /// Whether it is a rehearsal.
    #[cfg(not(target_family = "wasm"))]
    pub fn is_rehearsal(&self) -> bool {
        self.stand_in.is_some()
    }

    /// Compiles a kernel, unless it already is.
    pub(crate) fn compile(&self, kernel: KernelId, format: WeightFormat, fusion: Fusion) {
        self.pipelines.get(kernel, self.variant(kernel, format, fusion));
    }

    /// The variant of a kernel for this adapter.
    pub(super) fn variant(&self, kernel: KernelId, format: WeightFormat, fusion: Fusion) -> Variant {
        kernel.kernel().variant(format, self.capabilities.reduce, fusion, self.capabilities.tiles)
    }

    /// Rows of W and rows of x that one workgroup of `matmul` multiplies, where W is in `format`.
    pub fn matmul_tile(&self, format: WeightFormat) -> [usize; 2] {
        self.variant(KernelId::MatMul, format, Fusion::default()).tiles.unwrap_or(Tiles::Workgroup).matmul()
    }

    /// Keeps what was compiled for the next start, if there is a place for it.
    pub(crate) fn save_kernels(&self) {
        self.pipelines.save();
    }

    /// The failure that the device has reported, if any.
    pub fn check(&self) -> Result<()> {
        self.status.check()
    }

    /// Waits for a loss that something else has given away, as long as the device takes for nothing, a few times over.
    #[cfg(target_family = "wasm")]
    pub(super) async fn loss_in_sight(&self) {
        for _ in 0..8 {
            if self.is_lost() {
                return;
            }
            // A lost device answers too, or drops the wait.
            let _ = self.idle().await;
        }
    }

    /// Whether the device is lost.
    #[cfg(target_family = "wasm")]
    pub(super) fn is_lost(&self) -> bool {
        self.status.found_lost().is_some()
    }

    /// Sees to it that the callbacks of `submission` are called without anyone blocking for them.
    pub(super) fn attend(&self, submission: wgpu::SubmissionIndex) {
        #[cfg(not(target_family = "wasm"))]
        self.poller.attend(submission);
        #[cfg(target_family = "wasm")]
        let _ = submission; // the browser's event loop does it
    }
}
