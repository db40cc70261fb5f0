//! Engines: a device, opened once, for any number of models.
//!
//! ```c
//! bolmo_engine_options *options;
//! bolmo_engine *engine;
//! bolmo_engine_options_create(&options);
//! bolmo_engine_options_set_adapter(options, "software", strlen("software"));
//! bolmo_status status = bolmo_engine_create(options, &engine);
//! bolmo_engine_options_delete(options);
//! ```

use std::ffi::{c_char, c_void};
use std::sync::Mutex;

use bolmo_runtime::{AdapterChoice, Engine, EngineOptions, block_on};

use crate::adapters::{Adapter, hand_out};
use crate::handle::{self, opaque};
use crate::input::{self, Out, invalid};
use crate::status::{bolmo_status, call};
use crate::text::lock;

/// How to open an engine.
pub struct bolmo_engine_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_engine_options, Mutex<EngineOptions>);

/// An opened device. Any number of threads may use it at once.
pub struct bolmo_engine {
    _opaque: [u8; 0],
}
opaque!(bolmo_engine, OpenEngine);

/// An engine and what is told of its adapter.
pub(crate) struct OpenEngine {
    pub(crate) engine: Engine,
    adapter: Adapter,
}

/// Options with everything as it is unless set: the best adapter there is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_options_create(options: *mut *mut bolmo_engine_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        options.set(handle::insert(Mutex::default())?);
        Ok(())
    })
}

/// Which adapter to use: a part of its name, driver or backend, its number in the list, "software", or "auto" (as is nothing): a
/// discrete GPU, else an integrated one, else a virtual one, else software.
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

/// Asks the device for bindings of at most `bytes` (at least 65536), where the adapter offers more; larger matrices are cut. 0, as
/// unless set: what the adapter offers.
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

/// Deletes the options. NULL and handles that were deleted are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_engine_options_delete(options: *mut bolmo_engine_options) {
    handle::delete(options);
}

/// Opens a device. `options` may be NULL; they are read during the call only.
///
/// BOLMO_NOT_FOUND: no adapter fits; the message lists those there are. BOLMO_UNSUPPORTED: the adapter cannot be opened.
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

/// A text (bolmo_adapter_text) about the engine's adapter: UTF-8, with a NUL at the end. `size`, which may be NULL, gets its bytes
/// without the NUL. Valid until the engine is deleted.
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

/// A number (bolmo_adapter_number) about the engine's adapter.
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

/// Gives the device up at once, and all its memory, whatever still uses it: every later call that needs it, with the engine, its models
/// and sessions, returns BOLMO_DEVICE_LOST, as after a loss. The handles are still to be deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_engine_destroy_device(engine: *mut bolmo_engine) -> bolmo_status {
    call(|| {
        handle::get(engine)?.engine.destroy();
        Ok(())
    })
}

/// Deletes the engine's handle; the device is closed when its last model is gone too. NULL and handles that were deleted are left
/// alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_engine_delete(engine: *mut bolmo_engine) {
    handle::delete(engine);
}
