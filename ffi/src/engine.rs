//! Engines: open devices, each for any number of models.
//!
//! ```c
//! bolmo_engine_options *options;
//! bolmo_engine *engine;
//! bolmo_engine_options_create(&options);
//! bolmo_engine_options_set_adapter(options, "cpu", strlen("cpu"));
//! bolmo_status status = bolmo_engine_create(options, &engine);
//! bolmo_engine_options_delete(options);
//! ```

use std::ffi::{c_char, c_void};
use std::sync::Mutex;

use bolmo_runtime::{AdapterChoice, Engine, EngineOptions, Products, block_on};

use crate::adapters::{Adapter, hand_out};
use crate::handle::{self, opaque};
use crate::input::{self, Out, invalid};
use crate::status::{bolmo_status, call};
use crate::text::lock;

/// Options for opening an engine.
pub struct bolmo_engine_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_engine_options, Mutex<EngineOptions>);

/// Arithmetic of products with matrices in q8 and q4, on the CPU device.
#[allow(dead_code)] // the header has it; functions take the number
#[repr(C)]
pub enum bolmo_products {
    /// Weights are converted to f32.
    BOLMO_PRODUCTS_F32,
    /// What is multiplied with the weights is rounded to 8 bits, in blocks of 32 values with a scale. This is faster,
    /// most of all for long prompts, and less exact.
    BOLMO_PRODUCTS_INT8,
}

/// An open device. Any number of threads may use it at once.
pub struct bolmo_engine {
    _opaque: [u8; 0],
}
opaque!(bolmo_engine, OpenEngine);

/// An engine and the properties of its adapter.
pub(crate) struct OpenEngine {
    pub(crate) engine: Engine,
    adapter: Adapter,
}

impl Drop for OpenEngine {
    fn drop(&mut self) {
        // Its models may still be in use, and have no way to resume it. A lost device stays lost.
        let _ = self.engine.resume();
    }
}

/// Creates options with the defaults: the best adapter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_options_create(options: *mut *mut bolmo_engine_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        options.set(handle::insert(Mutex::default())?);
        Ok(())
    })
}

/// Selects the adapter: a part of its name, driver or backend, its number in the list, "low-power", "cpu",
/// "software", or "auto".
/// "auto" and an empty choice prefer a discrete GPU, then an integrated one, then a virtual one, then the CPU.
/// "low-power" prefers an integrated GPU, then the CPU, then a virtual GPU, then a discrete one. "cpu" is the library's
/// own device, which needs no driver; "software" is a driver that emulates a GPU on the CPU, for tests.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_options_set_adapter(
    options: *mut bolmo_engine_options,
    choice: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let choice = trusted!(input::text(choice, size, "choice"))?;
        let object = handle::get(options)?;
        lock(&object, "bolmo_engine_options")?.adapter = AdapterChoice::parse(choice);
        Ok(())
    })
}

/// Limits bindings to `bytes` (at least 65536) where the adapter offers more; larger matrices are split. 0, the
/// default: the adapter's own limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_options_set_max_binding_bytes(
    options: *mut bolmo_engine_options,
    bytes: u64,
) -> bolmo_status {
    call(|| {
        if bytes != 0 && bytes < 1 << 16 {
            return Err(invalid(format!("bytes: expected 0 or at least 65536, found {bytes}")));
        }
        let object = handle::get(options)?;
        lock(&object, "bolmo_engine_options")?.max_binding_bytes = (bytes > 0).then_some(bytes);
        Ok(())
    })
}

/// Sets how many threads compute on the CPU device, 1 to 256. 0, the default: the environment variable BOLMO_THREADS,
/// else one for each physical core that the process may use. Engines share their threads, and results don't depend on
/// how many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_options_set_threads(
    options: *mut bolmo_engine_options,
    threads: usize,
) -> bolmo_status {
    call(|| {
        if threads > 256 {
            return Err(invalid(format!("threads: expected 0 to 256, found {threads}")));
        }
        let object = handle::get(options)?;
        lock(&object, "bolmo_engine_options")?.threads = (threads > 0).then_some(threads);
        Ok(())
    })
}

/// Sets the arithmetic of products with matrices in q8 and q4 (bolmo_products). The default is BOLMO_PRODUCTS_F32.
/// Opening an adapter other than the CPU device with BOLMO_PRODUCTS_INT8 fails with BOLMO_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_options_set_products(
    options: *mut bolmo_engine_options,
    products: i32,
) -> bolmo_status {
    call(|| {
        let products = match products {
            0 => Products::F32,
            1 => Products::Int8,
            other => return Err(invalid(format!("products: expected 0 or 1, found {other}"))),
        };
        let object = handle::get(options)?;
        lock(&object, "bolmo_engine_options")?.products = products;
        Ok(())
    })
}

/// Sets the size in bytes from which on the CPU device uses a tensor where the checkpoint's file is mapped, if it is
/// stored in the wanted format. 0, the default: the library decides. UINT64_MAX copies all tensors, for files that
/// other programs may write to while a model exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_options_set_in_place_bytes(
    options: *mut bolmo_engine_options,
    bytes: u64,
) -> bolmo_status {
    call(|| {
        let object = handle::get(options)?;
        lock(&object, "bolmo_engine_options")?.in_place_bytes = (bytes > 0).then_some(bytes);
        Ok(())
    })
}

/// Sets the folder that caches compiled kernels, so that models load faster from the second time on, where the driver
/// supports it. It is created when it is needed, and its files may be deleted at any time. A `size` of 0, the default:
/// nothing is written. Paths are as in bolmo_checkpoint_open. The CPU device compiles nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_options_set_kernel_cache(
    options: *mut bolmo_engine_options,
    path: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let folder = match trusted!(input::bytes(path, size, "path"))? {
            [] => None,
            _ => Some(trusted!(input::path(path, size, "path"))?),
        };
        let object = handle::get(options)?;
        lock(&object, "bolmo_engine_options")?.kernel_cache = folder;
        Ok(())
    })
}

/// Deletes the options. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_engine_options_delete(options: *mut bolmo_engine_options) {
    handle::delete(options);
}

/// Opens a device. `options` may be NULL; they are read during the call only.
///
/// BOLMO_NOT_FOUND: no adapter matches; the message lists the adapters found. BOLMO_UNSUPPORTED: the adapter cannot be
/// opened. BOLMO_OUT_OF_MEMORY: there is too little memory, or too little address space for graphics drivers (see the
/// first page). BOLMO_IO: no thread can be started. The engine belongs to this process: forks of it cannot use it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_create(
    options: *const bolmo_engine_options,
    engine: *mut *mut bolmo_engine,
) -> bolmo_status {
    call(|| {
        let engine = trusted!(Out::new(engine, "engine"))?;
        let options = match handle::get_optional(options)? {
            Some(object) => lock(&object, "bolmo_engine_options")?.clone(),
            None => EngineOptions::default(),
        };
        let opened = block_on(Engine::open(&options))?;
        let adapter = Adapter::new(opened.adapter().clone());
        engine.set(handle::insert(OpenEngine { engine: opened, adapter })?);
        Ok(())
    })
}

/// Gets a text property (bolmo_adapter_text) of the engine's adapter: UTF-8, with a NUL at the end. `size`, which may
/// be NULL, receives the size without the NUL. Valid until the engine is deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_text(
    engine: *const bolmo_engine,
    which: i32,
    text: *mut *const c_char,
    size: *mut usize,
) -> bolmo_status {
    call(|| {
        let (text, size) = trusted!((Out::new(text, "text")?, Out::optional(size)?));
        hand_out(handle::get(engine)?.adapter.text(which)?, text, size);
        Ok(())
    })
}

/// Gets a numeric property (bolmo_adapter_number) of the engine's adapter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_number(
    engine: *const bolmo_engine,
    which: i32,
    number: *mut u64,
) -> bolmo_status {
    call(|| {
        let number = trusted!(Out::new(number, "number"))?;
        number.set(handle::get(engine)?.adapter.number(which)?);
        Ok(())
    })
}

/// Suspends the engine, as before a mobile app goes to the background (see the first page). When this returns, the
/// device is idle, and nothing is submitted to it until bolmo_engine_resume. Calls in progress on other threads pause,
/// and go on after bolmo_engine_resume. bolmo_session_cancel ends those of a session at once; a load, a score and a
/// training step that pause end with bolmo_engine_destroy_device only. A batch pauses as a whole. Calls that begin
/// meanwhile and need the device return BOLMO_SUSPENDED. Waits for the submissions in progress, each of which is
/// bounded. Suspending twice is the same as once. May be called in callbacks: the call that the callback belongs to
/// pauses when it returns. If bolmo_engine_resume is called meanwhile, this returns.
///
/// BOLMO_DEVICE_LOST: the device is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_suspend(engine: *mut bolmo_engine) -> bolmo_status {
    call(|| block_on(handle::get(engine)?.engine.suspend()))
}

/// Resumes a suspended engine. Does nothing if it is not suspended.
///
/// BOLMO_DEVICE_LOST: the device was lost meanwhile, and paused calls end with the same status. Create the engine and
/// load the model again; sessions can be restored from snapshots.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_resume(engine: *mut bolmo_engine) -> bolmo_status {
    call(|| handle::get(engine)?.engine.resume())
}

/// Releases memory that can be made again, for when the system runs short of it. `released`, which may be NULL,
/// receives the number of bytes by which the device's memory has shrunk. These are the buffers of prompts, which are
/// most of it, suffix tables, and what idle sessions need to generate; they are made again when they are needed, and
/// results stay the same. What is in use is released when the call that uses it ends, and is not counted. Weights,
/// sessions' texts and compiled kernels are kept. A suspended engine may be trimmed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_trim(engine: *mut bolmo_engine, released: *mut u64) -> bolmo_status {
    call(|| {
        let released = trusted!(Out::optional(released))?;
        let bytes = handle::get(engine)?.engine.trim()?;
        if let Some(released) = released {
            released.set(bytes);
        }
        Ok(())
    })
}

/// Releases the device and all its memory at once, even if it is in use: every later call that needs the device, with
/// the engine, its models or their sessions, returns BOLMO_DEVICE_LOST. The handles must still be deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_destroy_device(engine: *mut bolmo_engine) -> bolmo_status {
    call(|| {
        handle::get(engine)?.engine.destroy();
        Ok(())
    })
}

/// Deletes the engine's handle. The device is closed when its last model is gone too; a suspended one is resumed, since
/// nothing else could resume it. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_engine_delete(engine: *mut bolmo_engine) {
    handle::delete(engine);
}
