//! What the tests of the C ABI share.

use std::ffi::CStr;
use std::ptr::null_mut;

use bolmo::engine::*;
use bolmo::status::bolmo_last_error_message;
use bolmo::status::bolmo_status::BOLMO_OK;

/// Opens an engine on the adapter that `BOLMO_ADAPTER` names, or on the best one.
pub fn open_engine() -> *mut bolmo_engine {
    let adapter = std::env::var("BOLMO_ADAPTER").unwrap_or_default();
    let (mut options, mut engine) = (null_mut(), null_mut());
    // SAFETY: every pointer points to a live object, and the length is that of the text.
    let opened = unsafe {
        [
            bolmo_engine_options_create(&mut options),
            bolmo_engine_options_set_adapter(options, adapter.as_ptr().cast(), adapter.len()),
            bolmo_engine_create(options, &mut engine),
        ]
    };
    // SAFETY: the message ends with a NUL and is valid until this thread's next failure.
    let message = unsafe { CStr::from_ptr(bolmo_last_error_message()) };
    assert_eq!(opened, [BOLMO_OK; 3], "{message:?}");
    bolmo_engine_options_delete(options);
    engine
}
