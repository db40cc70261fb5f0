//! The public face of an opened device.

use std::sync::Arc;

use crate::device::adapter::AdapterInfo;
use crate::device::capabilities::Capabilities;
use crate::device::gpu::Gpu;
use crate::device::usage::{Counters, DeviceMemory};
use crate::error::Error;

/// An opened device. Cheap to clone; models and sessions keep it alive.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) gpu: Arc<Gpu>,
}

impl Engine {
    /// The adapter in use.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.gpu.adapter
    }

    /// What was decided for it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.gpu.capabilities
    }

    /// What was sent to the device so far, by every model and session on it.
    pub fn counters(&self) -> Counters {
        self.gpu.usage.counters()
    }

    /// The buffers on the device, those of every model and session on it.
    pub fn memory(&self) -> DeviceMemory {
        self.gpu.usage.memory()
    }

    /// Waits until the device is lost, and returns the reason. It never ends if the engine goes first.
    pub async fn lost(&self) -> Error {
        let loss = self.gpu.status.loss();
        match loss.await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives the device up: every later call on it, its models and sessions fails with
    /// [`ErrorKind::DeviceLost`], as if the driver had dropped it.
    pub fn destroy(&self) {
        self.gpu.device.destroy();
        self.gpu.status.lose("it was destroyed by the program".to_owned());
    }
}
