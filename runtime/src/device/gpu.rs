//! The device that models and sessions share.

use std::sync::Arc;

use bolmo_shaders::{Fusion, KernelId, Tiles, Variant, WeightFormat};

use crate::device::adapter;
use crate::device::adapter::AdapterInfo;
use crate::device::capabilities::Capabilities;
#[cfg(not(target_family = "wasm"))]
use crate::device::kernel_cache::DiskCache;
use crate::device::options::EngineOptions;
use crate::device::pipelines::Pipelines;
#[cfg(not(target_family = "wasm"))]
use crate::device::poller::Poller;
use crate::device::status::Status;
use crate::device::usage::Usage;
use crate::error::{Error, Result};

/// Smallest value of [`EngineOptions::max_binding_bytes`].
const LEAST_BINDING_BYTES: u64 = 1 << 16;

/// The device, its queue and what is created once for it.
#[derive(Debug)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) status: Arc<Status>,
    pub(super) pipelines: Pipelines,
    pub(super) usage: Arc<Usage>,
    pub(super) offset_alignment: u64,
    /// Stands in for every buffer of a dry run.
    #[cfg(not(target_family = "wasm"))]
    pub(super) placeholder: Option<wgpu::Buffer>,
    #[cfg(not(target_family = "wasm"))]
    poller: Poller,
    /// The adapter in use.
    pub adapter: AdapterInfo,
    /// The kernels and sizes of work chosen for the adapter.
    pub capabilities: Capabilities,
}

impl Gpu {
    /// Opens the adapter that `options` selects.
    pub(super) async fn open(options: &EngineOptions) -> Result<Self> {
        let (adapter, info) = adapter::request(&options.adapter).await?;
        if let Some(bytes) = options.max_binding_bytes.filter(|&bytes| bytes < LEAST_BINDING_BYTES) {
            return Err(Error::invalid(format!(
                "max_binding_bytes is {bytes}, expected at least {LEAST_BINDING_BYTES}"
            )));
        }
        let capabilities = Capabilities::decide(&info, options);
        let mut limits = adapter.limits();
        limits.max_storage_buffer_binding_size = capabilities.max_binding_bytes;
        let caches_kernels =
            options.kernel_cache.is_some() && adapter.features().contains(wgpu::Features::PIPELINE_CACHE);
        let mut features = required_features(&info, &capabilities);
        features.set(wgpu::Features::PIPELINE_CACHE, caches_kernels);
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("bolmo"),
                required_features: features,
                required_limits: limits.clone(),
                experimental_features: experimental_features(&capabilities),
                memory_hints: wgpu::MemoryHints::Performance,
                trace: wgpu::Trace::Off,
            })
            .await
            .map_err(|e| Error::unsupported(format!("adapter {} cannot be opened: {e}", info.name)))?;
        let status = watch(&device);
        let pipelines = Pipelines::new(&device, &capabilities);
        #[cfg(not(target_family = "wasm"))]
        let pipelines = pipelines.with_disk(
            options
                .kernel_cache
                .as_deref()
                .filter(|_| caches_kernels)
                .map(|folder| DiskCache::open(&device, folder, &info)),
        );
        Ok(Self {
            #[cfg(not(target_family = "wasm"))]
            placeholder: None,
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

    /// The same device for a dry run, which measures how much memory some work needs before any is allocated.
    /// Allocations are counted but not made, writes are discarded, and nothing can be computed.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn dry_run(&self) -> Result<Self> {
        let descriptor = wgpu::BufferDescriptor {
            label: Some("placeholder of a dry run"),
            size: 16,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        Ok(Self {
            placeholder: Some(self.device.create_buffer(&descriptor)),
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

    /// Whether this is a dry run.
    #[cfg(not(target_family = "wasm"))]
    pub fn is_dry_run(&self) -> bool {
        self.placeholder.is_some()
    }

    /// Compiles a kernel unless it is compiled already.
    pub(crate) fn compile(&self, kernel: KernelId, format: WeightFormat, fusion: Fusion) {
        self.pipelines.get(kernel, self.variant(kernel, format, fusion));
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
        self.pipelines.save();
    }

    /// Returns the failure that the device has reported, if any.
    pub fn check(&self) -> Result<()> {
        self.status.check()
    }

    /// Waits briefly for the device to report a loss that another failure suggests.
    #[cfg(target_family = "wasm")]
    pub(super) async fn loss_in_sight(&self) {
        for _ in 0..8 {
            if self.is_lost() {
                return;
            }
            // A lost device completes the wait too, or drops it.
            let _ = self.idle().await;
        }
    }

    /// Whether the device is lost.
    #[cfg(target_family = "wasm")]
    pub(crate) fn is_lost(&self) -> bool {
        self.status.found_lost().is_some()
    }

    /// Has the callbacks of `submission` invoked without blocking the caller.
    pub(super) fn attend(&self, submission: wgpu::SubmissionIndex) {
        #[cfg(not(target_family = "wasm"))]
        self.poller.attend(submission);
        #[cfg(target_family = "wasm")]
        let _ = submission; // the browser's event loop invokes them
    }
}

/// The features that the chosen kernels and the timing of dispatches need.
fn required_features(info: &AdapterInfo, capabilities: &Capabilities) -> wgpu::Features {
    let mut features = wgpu::Features::empty();
    features.set(wgpu::Features::SUBGROUP, capabilities.reduce.subgroups());
    features.set(
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16,
        capabilities.tiles.cooperative_side().is_some(),
    );
    features.set(wgpu::Features::TIMESTAMP_QUERY, cfg!(not(target_family = "wasm")) && info.timestamps);
    features
}

/// Accepts experimental features where the chosen kernels use cooperative matrices.
fn experimental_features(capabilities: &Capabilities) -> wgpu::ExperimentalFeatures {
    if capabilities.tiles.cooperative_side().is_none() {
        return wgpu::ExperimentalFeatures::disabled();
    }
    // SAFETY: the caller has to accept that the feature may be faulty. One kernel uses it, and that kernel is tested on
    // the device before anything relies on it (`device/self_test.rs`).
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// Records the errors and the loss of `device` from here on.
fn watch(device: &wgpu::Device) -> Arc<Status> {
    let status = Arc::new(Status::default());
    let lost = status.clone();
    device.set_device_lost_callback(move |reason, message| {
        lost.lose(if message.is_empty() { format!("{reason:?}") } else { message });
    });
    let errors = status.clone();
    device.on_uncaptured_error(Arc::new(move |error| errors.report(error)));
    status
}
