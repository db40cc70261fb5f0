//! GPUs in builds without the feature `gpu`: types that have no values.

use std::convert::Infallible;
use std::sync::Arc;

use bolmo_shaders::{KernelId, Variant};
use futures_channel::oneshot;

use crate::device::adapter::{AdapterChoice, AdapterInfo};
use crate::device::capabilities::Capabilities;
use crate::device::dispatch::Dispatch;
use crate::device::memory::Slice;
use crate::device::options::EngineOptions;
use crate::device::process::OfProcess;
use crate::device::status::Status;
#[cfg(not(target_family = "wasm"))]
use crate::device::usage::KernelTime;
use crate::error::{Error, Result};

/// Bytes of the parameters of a list.
pub(super) const PARAMS_BYTES: u64 = 0;

/// An adapter that can be opened.
#[derive(Debug)]
pub(super) struct Found(Infallible);

/// A device.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) offset_alignment: u64,
    none: Infallible,
}

/// A buffer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GpuBuffer(Infallible);

/// A command list.
#[derive(Debug)]
pub(super) struct CommandList(Infallible);

/// A command list that is ready to be submitted.
#[derive(Debug)]
pub(super) struct Recorded(Infallible);

/// A readable buffer that is being mapped.
pub(super) struct Mapped(Infallible);

/// No adapter is looked for.
pub(super) async fn enumerate(_: &AdapterChoice) -> Vec<(Found, AdapterInfo)> {
    Vec::new()
}

/// Without adapters, nothing needs a driver.
pub(super) fn no_drivers() -> Option<Error> {
    None
}

impl Gpu {
    pub(super) async fn open(found: Found, _: &AdapterInfo, _: &Capabilities, _: &EngineOptions) -> Result<Self> {
        match found.0 {}
    }

    pub(super) fn status(&self) -> Arc<Status> {
        match self.none {}
    }

    pub(super) fn compile(&self, _: KernelId, _: Variant) {
        match self.none {}
    }

    pub(super) fn save_kernels(&self) {
        match self.none {}
    }

    pub(super) fn destroy(&self) {
        match self.none {}
    }

    pub(super) async fn allocate(&self, _: &str, _: u64) -> Result<GpuBuffer> {
        match self.none {}
    }

    pub(super) async fn allocate_readable(&self, _: u64) -> Result<GpuBuffer> {
        match self.none {}
    }

    pub(super) fn write(&self, _: &GpuBuffer, _: u64, _: &[u8]) {
        match self.none {}
    }

    pub(super) async fn idle(&self) -> std::result::Result<(), oneshot::Canceled> {
        match self.none {}
    }
}

#[cfg(target_family = "wasm")]
impl GpuBuffer {
    pub(super) fn destroy(&self) {
        match self.0 {}
    }
}

impl Mapped {
    pub(super) async fn bytes(self, _: &Gpu) -> Result<Vec<u8>> {
        match self.0 {}
    }
}

impl CommandList {
    pub(super) async fn new(gpu: &Arc<OfProcess<Gpu>>) -> Result<Self> {
        match gpu.none {}
    }

    pub(super) fn gpu(&self) -> &Arc<OfProcess<Gpu>> {
        match self.0 {}
    }

    pub(super) fn max_groups(&self) -> u32 {
        match self.0 {}
    }

    pub(super) fn dispatches(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn is_empty(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn forget_bindings(&mut self) {
        match self.0 {}
    }

    pub(super) fn dispatch(&mut self, _: Dispatch<'_>) -> Result<()> {
        match self.0 {}
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) fn submits_each(&self) -> bool {
        match self.0 {}
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) fn measure(&mut self, _: bool) -> Vec<(KernelId, KernelTime)> {
        match self.0 {}
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) fn end_pass(&mut self) {
        match self.0 {}
    }

    pub(super) fn copy(&mut self, _: &Slice, _: &Slice) -> Result<()> {
        match self.0 {}
    }

    pub(super) fn clear(&mut self, _: &Slice) {
        match self.0 {}
    }

    pub(super) fn submit(&mut self) -> Result<u64> {
        match self.0 {}
    }

    pub(super) fn read(&mut self, _: &[Slice], _: &Slice, _: u64) -> Result<(u64, Mapped)> {
        match self.0 {}
    }

    pub(super) fn finish(&mut self, _: &Slice, _: &Slice) -> Result<Recorded> {
        match self.0 {}
    }

    pub(super) fn submit_and_map(&mut self, _: Recorded, _: &Slice) -> Result<(u64, Mapped)> {
        match self.0 {}
    }

    pub(super) fn discard(&mut self) {
        match self.0 {}
    }
}
