//! The CPU device in builds for browsers with the feature `gpu`, which don't have it: types that have no values.

use std::convert::Infallible;
use std::sync::Arc;

use futures_channel::oneshot;

use crate::device::adapter::AdapterInfo;
use crate::device::dispatch::Dispatch;
use crate::device::interrupt::Interrupt;
use crate::device::memory::Slice;
use crate::device::options::EngineOptions;
use crate::device::shared_bytes::SharedBytes;
use crate::device::status::Status;
use crate::error::{Error, Result};

/// The CPU device of an engine.
#[derive(Debug, Clone)]
pub(super) struct Cpu(Infallible);

/// The device, as whoever uses it holds it. Not a pointer, so that the compiler sees that there is none.
pub(super) type Shared = Cpu;

/// A buffer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HostBuffer(Infallible);

/// A command list.
#[derive(Debug)]
pub(super) struct CommandList(Infallible);

/// A command list that is ready to be submitted.
#[derive(Debug)]
pub(super) struct Recorded(Infallible);

/// A result on its way to the host.
pub(super) struct Reply(Infallible);

/// There is no such device.
pub(super) fn describe(_: usize) -> Option<AdapterInfo> {
    None
}

/// There are no threads to ask for.
pub(super) fn check_threads(_: &EngineOptions) -> Result<()> {
    Ok(())
}

impl Cpu {
    pub(super) fn open(_: &EngineOptions) -> Result<Self> {
        Err(Error::unsupported("this build has no CPU device; build it without the feature `gpu`"))
    }

    pub(super) fn shared(self) -> Shared {
        self
    }

    pub(super) fn threads(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn status(&self) -> Arc<Status> {
        match self.0 {}
    }

    pub(super) fn allocate(&self, _: &str, _: u64) -> Result<HostBuffer> {
        match self.0 {}
    }

    pub(super) fn share(&self, _: &SharedBytes, _: u64, _: u64) -> Option<HostBuffer> {
        match self.0 {}
    }

    pub(super) fn write(&self, _: &HostBuffer, _: u64, _: &[u8]) -> Result<()> {
        match self.0 {}
    }

    pub(super) async fn idle(&self) -> std::result::Result<(), oneshot::Canceled> {
        match self.0 {}
    }
}

impl Reply {
    pub(super) async fn bytes(self) -> Result<Vec<u8>> {
        match self.0 {}
    }
}

impl CommandList {
    pub(super) fn new(cpu: &Shared) -> Self {
        match cpu.0 {}
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

    pub(super) fn set_interrupt(&mut self, _: Option<Interrupt>) {
        match self.0 {}
    }

    pub(super) fn dispatch(&mut self, _: Dispatch<'_>) -> Result<()> {
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

    pub(super) fn read(&mut self, _: &[Slice]) -> Result<(u64, Reply)> {
        match self.0 {}
    }

    pub(super) fn finish(&mut self, _: &Slice) -> Result<Recorded> {
        match self.0 {}
    }

    pub(super) fn submit_recorded(&mut self, _: Recorded) -> Result<(u64, Reply)> {
        match self.0 {}
    }

    pub(super) fn discard(&mut self) {
        match self.0 {}
    }
}
