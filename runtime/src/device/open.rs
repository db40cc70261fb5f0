//! Opening an engine: the device, then the self test that decides whether experimental kernels are used on it.

use std::sync::Arc;

use bolmo_shaders::Tiles;

use crate::device::adapter::AdapterInfo;
use crate::device::backend::Device;
use crate::device::engine::Engine;
use crate::device::options::EngineOptions;
use crate::device::self_test;
use crate::error::Result;
use crate::timer::Timer;

impl Engine {
    /// Opens the adapter that `options` selects.
    ///
    /// The engine, its models and their sessions belong to the process that opened the engine. In a fork of it, what
    /// needs the device fails with `DeviceLost`, and dropping them leaks what they hold on the device. A fork may open
    /// the CPU device itself; whether a graphics driver can be used after a fork depends on the driver.
    ///
    /// # Errors
    /// `NotFound` if no adapter matches, `Unsupported` if the adapter cannot be opened with the required limits,
    /// `InvalidArgument` for an option that is out of range, `OutOfMemory`, `Io` if no thread can be started.
    ///
    /// Graphics drivers may crash with little address space, as under `ulimit -v`. On Linux, none is loaded if less
    /// than 1536 MiB plus 64 MiB per core (at most 32 cores) is left: `OutOfMemory` for an adapter that needs one, else
    /// the CPU device is used.
    pub async fn open(options: &EngineOptions) -> Result<Self> {
        let timer = Timer::start();
        let engine = open_tested(options, self_test::run).await?;
        let AdapterInfo { name, kind, backend, driver, .. } = engine.adapter();
        let threads = engine.device.threads().map(|threads| format!("{threads} threads, ")).unwrap_or_default();
        log::info!("engine opened: {name} ({kind}, {backend}, {driver}), {threads}{timer}");
        log::debug!("{name}: {:?}", engine.capabilities());
        Ok(engine)
    }
}

/// Opens an engine like [`Engine::open`], with `test` in place of the self test.
///
/// `test` runs only if the tiles chosen for the adapter are experimental. If it fails, or loses the device, the device
/// is opened again with [`Tiles::Workgroup`].
///
/// # Errors
/// The same as [`Engine::open`].
pub async fn open_tested(options: &EngineOptions, test: impl AsyncFnOnce(&Engine) -> Result<()>) -> Result<Engine> {
    let engine = Engine { device: Arc::new(Device::open(options).await?) };
    // These tiles need no feature that an adapter may implement incorrectly.
    if matches!(engine.capabilities().tiles, Tiles::Workgroup | Tiles::SingleLane) {
        return Ok(engine);
    }
    let Err(error) = test(&engine).await else { return Ok(engine) };
    log::warn!("{}: {:?} tiles are not used: {error}", engine.adapter().name, engine.capabilities().tiles);
    let options = options.clone().tiles(Tiles::Workgroup);
    Ok(Engine { device: Arc::new(Device::open(&options).await?) })
}
