//! Programs without a dynamic loader, which cannot load graphics drivers.

/// Whether this program is linked statically. glibc's `dlopen` crashes in such a program unless the same glibc is
/// installed.
#[cfg(target_os = "linux")]
pub(super) fn is_static() -> bool {
    use std::ffi::c_void;

    /// Writes to `data`, a bool, whether the first object, which is the program itself, names a dynamic loader.
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> i32 {
        // SAFETY: `dl_iterate_phdr` passes a description that is valid during the call, with `dlpi_phnum` program
        // headers at `dlpi_phdr`, and the pointer that it was given, to a bool.
        unsafe {
            let info = &*info;
            let headers = match info.dlpi_phdr.is_null() {
                true => &[],
                false => std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)),
            };
            *data.cast::<bool>() = headers.iter().any(|header| header.p_type == libc::PT_INTERP);
        }
        // Not 0: look at no further object.
        1
    }

    let mut has_loader = true;
    // SAFETY: `look` has the declared type, and `has_loader` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut has_loader).cast()) };
    !has_loader
}

/// Elsewhere every program has a loader.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_static() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs that run tests of a library with drivers are not static on the systems where CI runs.
    #[test]
    fn this_program_has_a_loader_unless_it_was_built_without_one() {
        assert_eq!(is_static(), cfg!(target_feature = "crt-static") && cfg!(target_os = "linux"));
    }
}
