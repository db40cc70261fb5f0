//! The public face of an opened device.

use std::sync::Arc;

use crate::device::adapter::AdapterInfo;
use crate::device::backend::Device;
use crate::device::capabilities::Capabilities;
use crate::device::usage::{Counters, DeviceMemory};
use crate::error::{Error, Result};

/// An open device. Cheap to clone; models and sessions keep it alive.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) device: Arc<Device>,
}

impl Engine {
    /// The adapter in use.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.device.adapter
    }

    /// The kernels and sizes of work chosen for the adapter.
    pub fn capabilities(&self) -> &Capabilities {
        &self.device.capabilities
    }

    /// Work submitted to the device so far by all models and sessions.
    pub fn counters(&self) -> Counters {
        self.device.usage.counters()
    }

    /// Memory held on the device by all models and sessions.
    pub fn memory(&self) -> DeviceMemory {
        self.device.usage.memory()
    }

    /// Waits until the device is lost and returns the reason. The future never completes if the engine is dropped
    /// first.
    pub async fn lost(&self) -> Error {
        let loss = self.device.status.loss();
        match loss.await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Suspends the engine, as before a mobile app goes to the background, where it must not use the GPU. When this
    /// returns, the device is idle, and nothing is submitted to it until [`Self::resume`].
    ///
    /// Calls in progress on other threads pause between two submissions and go on after [`Self::resume`]; cancelling
    /// ends them at once. Calls that begin meanwhile and need the device fail with
    /// [`ErrorKind::Suspended`](crate::ErrorKind::Suspended) and change nothing. A callback may suspend the engine: the
    /// call that it belongs to pauses when it returns. To suspend an engine again does nothing. If
    /// [`Self::resume`] is called before the device is idle, this returns.
    ///
    /// # Errors
    /// `DeviceLost`.
    pub async fn suspend(&self) -> Result<()> {
        self.device.suspend().await
    }

    /// Lets the engine work again. Does nothing if it is not suspended.
    ///
    /// # Errors
    /// `DeviceLost` if the device was lost meanwhile, which ends the paused calls as well.
    pub fn resume(&self) -> Result<()> {
        self.device.resume()
    }

    /// Whether the engine is suspended, or is being so.
    pub fn is_suspended(&self) -> bool {
        self.device.is_suspended()
    }

    /// Releases memory that can be made again, for programs that are told to use less, and returns the number of bytes
    /// by which [`Self::memory`] has shrunk. Nothing is submitted, so a suspended engine can be trimmed too.
    ///
    /// These are the buffers of prompts, most of what is released; suffix tables on the device; and the device
    /// samplers of sessions that are not in use. They are made again when they are needed, which takes some time, and
    /// results stay the same. What is in use is released when the call that uses it ends, and not counted. The
    /// weights, the states of sessions and compiled kernels are kept.
    ///
    /// # Errors
    /// `DeviceLost` in a process that was forked.
    pub fn trim(&self) -> Result<u64> {
        self.device.trim()
    }

    /// Destroys the device. Every later call on it, its models and its sessions fails with
    /// [`ErrorKind::DeviceLost`](crate::ErrorKind::DeviceLost), as after a loss reported by the driver.
    pub fn destroy(&self) {
        self.device.destroy();
    }
}
