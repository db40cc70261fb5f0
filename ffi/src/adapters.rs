//! Adapters: the devices of this machine that could run a model, before any of them is opened.
//!
//! ```c
//! bolmo_adapters *adapters;
//! size_t count = 0;
//! if (bolmo_adapters_list("", 0, &adapters) == BOLMO_OK) {
//!     bolmo_adapters_count(adapters, &count);
//!     for (size_t i = 0; i < count; i++) {
//!         const char *name, *reason;
//!         bolmo_adapters_text(adapters, i, BOLMO_ADAPTER_NAME, &name, NULL);
//!         bolmo_adapters_text(adapters, i, BOLMO_ADAPTER_REASON, &reason, NULL);
//!         printf("%zu %s (%s)\n", i, name, reason);
//!     }
//!     bolmo_adapters_delete(adapters);
//! }
//! ```

use std::ffi::{CString, c_char, c_void};

use bolmo_runtime::{AdapterChoice, AdapterInfo, Error, ErrorKind, Result, adapters, block_on};

use crate::handle::{self, opaque};
use crate::input::{self, Out, invalid};
use crate::status::{bolmo_status, call};

/// The adapters of this machine at the time when the list was made.
pub struct bolmo_adapters {
    _opaque: [u8; 0],
}
opaque!(bolmo_adapters, Vec<Adapter>);

/// A text property of an adapter.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_adapter_text {
    /// Name.
    BOLMO_ADAPTER_NAME = 0,
    /// "discrete GPU", "integrated GPU", "virtual GPU", "software", "other" or "cpu".
    BOLMO_ADAPTER_KIND = 1,
    /// "vulkan", "metal", "dx12" or "cpu".
    BOLMO_ADAPTER_BACKEND = 2,
    /// Driver and version.
    BOLMO_ADAPTER_DRIVER = 3,
    /// Why the adapter would be used, or why not.
    BOLMO_ADAPTER_REASON = 4,
}

/// A numeric property of an adapter.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_adapter_number {
    /// 1 for the adapter that would be used, else 0.
    BOLMO_ADAPTER_CHOSEN = 0,
    /// 1 if the library can run on it, else 0.
    BOLMO_ADAPTER_USABLE = 1,
    /// 1 if it runs on the CPU, else 0.
    BOLMO_ADAPTER_SOFTWARE = 2,
    /// Largest binding, in bytes.
    BOLMO_ADAPTER_MAX_BINDING_BYTES = 3,
    /// Largest buffer, in bytes.
    BOLMO_ADAPTER_MAX_BUFFER_BYTES = 4,
    /// Workgroup memory, in bytes.
    BOLMO_ADAPTER_WORKGROUP_BYTES = 5,
    /// Lanes of the smallest subgroup; 0 if kernels cannot use subgroups.
    BOLMO_ADAPTER_MIN_SUBGROUP = 6,
    /// Lanes of the largest subgroup; 0 if kernels cannot use subgroups.
    BOLMO_ADAPTER_MAX_SUBGROUP = 7,
    /// 1 if shaders can compute in f16, else 0.
    BOLMO_ADAPTER_SHADER_F16 = 8,
}

/// Properties of an adapter: its texts in the order of `bolmo_adapter_text`, and everything else.
pub(crate) struct Adapter {
    texts: [CString; 5],
    info: AdapterInfo,
}

/// `text` with a NUL at the end.
pub(crate) fn with_nul(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Writes out a text that is owned by the object behind a handle.
pub(crate) fn hand_out(text: &CString, to: Out<*const c_char>, size: Option<Out<usize>>) {
    to.set(text.as_ptr());
    if let Some(size) = size {
        size.set(text.as_bytes().len());
    }
}

impl Adapter {
    pub(crate) fn new(info: AdapterInfo) -> Self {
        let texts = [&info.name, info.kind, &info.backend, &info.driver, &info.reason].map(with_nul);
        Self { texts, info }
    }

    pub(crate) fn text(&self, which: i32) -> Result<&CString> {
        let text = usize::try_from(which).ok().and_then(|which| self.texts.get(which));
        text.ok_or_else(|| invalid(format!("which: expected a bolmo_adapter_text (0 to 4), found {which}")))
    }

    pub(crate) fn number(&self, which: i32) -> Result<u64> {
        let info = &self.info;
        let subgroups = info.subgroup_sizes.unwrap_or((0, 0));
        Ok(match which {
            0 => info.chosen.into(),
            1 => info.unusable.is_none().into(),
            2 => info.has_host_memory().into(),
            3 => info.max_binding_bytes,
            4 => info.max_buffer_bytes,
            5 => info.workgroup_bytes.into(),
            6 => subgroups.0.into(),
            7 => subgroups.1.into(),
            8 => info.shader_f16.into(),
            other => return Err(invalid(format!("which: expected a bolmo_adapter_number (0 to 8), found {other}"))),
        })
    }
}

/// The adapter at `index`.
fn at(list: &[Adapter], index: usize) -> Result<&Adapter> {
    let missing = || {
        Error::new(
            ErrorKind::NotFound,
            format!("index: expected less than {}, the number of adapters, found {index}", list.len()),
        )
    };
    list.get(index).ok_or_else(missing)
}

/// Lists the adapters of this machine, and marks the one that `bolmo_engine_options_set_adapter` with the same choice
/// would use. An empty list is not a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_adapters_list(
    choice: *const c_void,
    choice_size: usize,
    list: *mut *mut bolmo_adapters,
) -> bolmo_status {
    call(|| {
        let list = trusted!(Out::new(list, "list"))?;
        let choice = AdapterChoice::parse(trusted!(input::text(choice, choice_size, "choice"))?);
        let found: Vec<_> = block_on(adapters(&choice)).into_iter().map(Adapter::new).collect();
        list.set(handle::insert(found)?);
        Ok(())
    })
}

/// Number of adapters in the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_adapters_count(list: *const bolmo_adapters, count: *mut usize) -> bolmo_status {
    call(|| {
        let count = trusted!(Out::new(count, "count"))?;
        count.set(handle::get(list)?.len());
        Ok(())
    })
}

/// Gets a text property (bolmo_adapter_text) of the adapter at `index`: UTF-8, with a NUL at the end. `size`, which may
/// be NULL, receives the size without the NUL. Valid until the list is deleted.
///
/// BOLMO_NOT_FOUND: the list has no such adapter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_adapters_text(
    list: *const bolmo_adapters,
    index: usize,
    which: i32,
    text: *mut *const c_char,
    size: *mut usize,
) -> bolmo_status {
    call(|| {
        let (text, size) = trusted!((Out::new(text, "text")?, Out::optional(size)?));
        hand_out(at(&handle::get(list)?, index)?.text(which)?, text, size);
        Ok(())
    })
}

/// Gets a numeric property (bolmo_adapter_number) of the adapter at `index`.
///
/// BOLMO_NOT_FOUND: the list has no such adapter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_adapters_number(
    list: *const bolmo_adapters,
    index: usize,
    which: i32,
    number: *mut u64,
) -> bolmo_status {
    call(|| {
        let number = trusted!(Out::new(number, "number"))?;
        number.set(at(&handle::get(list)?, index)?.number(which)?);
        Ok(())
    })
}

/// Deletes the list. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_adapters_delete(list: *mut bolmo_adapters) {
    handle::delete(list);
}
