//! Opening an engine: the device, then the self test that decides whether its experimental kernels are used.

use std::sync::Arc;

use bolmo_shaders::Tiles;

use crate::device::engine::Engine;
use crate::device::gpu::Gpu;
use crate::device::options::EngineOptions;
use crate::device::self_test;
use crate::error::Result;

impl Engine {
    /// Opens the adapter that `options` falls on.
    ///
    /// # Errors
    /// `NotFound` if no adapter fits, `Unsupported` if it refuses the limits, `OutOfMemory`.
    pub async fn open(options: &EngineOptions) -> Result<Self> {
        Self::open_tested(options, self_test::run).await
    }

    /// As [`Self::open`]; where lanes work together on tiles in a way that `test` refuses, the device is opened again to use workgroup
    /// memory instead. A test that loses the device refuses too.
    pub(crate) async fn open_tested(
        options: &EngineOptions,
        test: impl AsyncFnOnce(&Engine) -> Result<()>,
    ) -> Result<Self> {
        let engine = Self { gpu: Arc::new(Gpu::open(options).await?) };
        // These need nothing that an adapter may get wrong.
        if matches!(engine.capabilities().tiles, Tiles::Workgroup | Tiles::OneLane) {
            return Ok(engine);
        }
        let Err(error) = test(&engine).await else { return Ok(engine) };
        log::warn!("{}: {:?} is not used: {error}", engine.adapter().name, engine.capabilities().tiles);
        let options = EngineOptions { tiles: Some(Tiles::Workgroup), ..options.clone() };
        Ok(Self { gpu: Arc::new(Gpu::open(&options).await?) })
    }
}

/// Opens an engine as [`Engine::open`] does, with another test of what is unusual about the way lanes work together on tiles: whatever it
/// refuses is not used.
///
/// # Errors
/// As [`Engine::open`].
pub async fn open_tested(options: &EngineOptions, test: impl AsyncFnOnce(&Engine) -> Result<()>) -> Result<Engine> {
    Engine::open_tested(options, test).await
}
