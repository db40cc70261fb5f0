//! A device of wgpu.

use std::sync::Arc;

use bolmo_shaders::{KernelId, Variant};

use super::adapter::Found;
use super::errors::{caught, from_wgpu};
#[cfg(not(target_family = "wasm"))]
use super::kernel_cache::DiskCache;
use super::pipelines::Pipelines;
#[cfg(not(target_family = "wasm"))]
use super::poller::Poller;
use crate::device::adapter::AdapterInfo;
use crate::device::capabilities::Capabilities;
use crate::device::options::EngineOptions;
use crate::device::status::Status;
use crate::error::{Error, Result};

/// The device, its queue and what is created once for it.
#[derive(Debug)]
pub(in crate::device) struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) status: Arc<Status>,
    pub(super) pipelines: Pipelines,
    pub(in crate::device) offset_alignment: u64,
    #[cfg(not(target_family = "wasm"))]
    poller: Poller,
}

// SAFETY: its parts are `Send` and `Sync`, which `check_parts` has the compiler verify. The types of wgpu are nested so
// deeply that the compiler gives up on types that hold an engine otherwise.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

const _: () = {
    const fn check_parts<T: Send + Sync>() {}
    check_parts::<(wgpu::Device, wgpu::Queue, Arc<Status>)>();
    check_parts::<Pipelines>();
    #[cfg(not(target_family = "wasm"))]
    check_parts::<Poller>();
};

impl Gpu {
    /// Opens the adapter that was found, which `info` describes, for kernels that suit `capabilities`.
    pub(in crate::device) async fn open(
        found: Found,
        info: &AdapterInfo,
        capabilities: &Capabilities,
        options: &EngineOptions,
    ) -> Result<Self> {
        caught(Self::open_found(found, info, capabilities, options)).await?
    }

    async fn open_found(
        Found(adapter): Found,
        info: &AdapterInfo,
        capabilities: &Capabilities,
        options: &EngineOptions,
    ) -> Result<Self> {
        let mut limits = adapter.limits();
        limits.max_storage_buffer_binding_size = capabilities.max_binding_bytes;
        let caches_kernels =
            options.kernel_cache.is_some() && adapter.features().contains(wgpu::Features::PIPELINE_CACHE);
        let mut features = required_features(info, capabilities);
        features.set(wgpu::Features::PIPELINE_CACHE, caches_kernels);
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("bolmo"),
                required_features: features,
                required_limits: limits.clone(),
                experimental_features: experimental_features(capabilities),
                memory_hints: wgpu::MemoryHints::Performance,
                trace: wgpu::Trace::Off,
            })
            .await
            .map_err(|e| Error::unsupported(format!("adapter {} cannot be opened: {e}", info.name)))?;
        let status = watch(&device);
        let pipelines = Pipelines::new(&device, capabilities);
        #[cfg(not(target_family = "wasm"))]
        let pipelines = pipelines.with_disk(
            options
                .kernel_cache
                .as_deref()
                .filter(|_| caches_kernels)
                .map(|folder| DiskCache::open(&device, folder, info)),
        );
        Ok(Self {
            #[cfg(not(target_family = "wasm"))]
            poller: Poller::start(device.clone())?,
            pipelines,
            offset_alignment: u64::from(
                limits.min_storage_buffer_offset_alignment.max(limits.min_uniform_buffer_offset_alignment),
            ),
            device,
            queue,
            status,
        })
    }

    /// What the device reports.
    pub(in crate::device) fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Compiles a kernel unless it is compiled already.
    pub(in crate::device) fn compile(&self, kernel: KernelId, variant: Variant) {
        self.pipelines.get(kernel, variant);
    }

    /// Writes the compiled kernels to the kernel cache, if there is one.
    pub(in crate::device) fn save_kernels(&self) {
        self.pipelines.save();
    }

    /// Gives up the device.
    pub(in crate::device) fn destroy(&self) {
        self.device.destroy();
    }

    /// Waits briefly for the device to report a loss that another failure suggests.
    #[cfg(target_family = "wasm")]
    pub(super) async fn loss_in_sight(&self) {
        for _ in 0..8 {
            if self.status.found_lost().is_some() {
                return;
            }
            // A lost device completes the wait too, or drops it.
            let _ = self.idle().await;
        }
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
        let level = match reason {
            // Also when the last engine, model and session are gone.
            wgpu::DeviceLostReason::Destroyed => log::Level::Debug,
            _ => log::Level::Error,
        };
        lost.lose(&if message.is_empty() { format!("{reason:?}") } else { message }, level);
    });
    let errors = status.clone();
    device.on_uncaptured_error(Arc::new(move |error| errors.report(from_wgpu(error))));
    status
}
