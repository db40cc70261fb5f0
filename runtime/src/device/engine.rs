//! The public face of an opened device.

use std::sync::Arc;

use crate::device::adapter::AdapterInfo;
use crate::device::backend::Device;
use crate::device::capabilities::Capabilities;
use crate::device::usage::{Counters, DeviceMemory};
use crate::error::Error;

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

    /// Destroys the device. Every later call on it, its models and its sessions fails with
    /// [`ErrorKind::DeviceLost`](crate::ErrorKind::DeviceLost), as after a loss reported by the driver.
    pub fn destroy(&self) {
        self.device.destroy();
    }
}
