//! How native methods are declared, and what all of them share.

use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bolmo::status::bolmo_status;
use jni_sys::{JNIEnv, JNINativeMethod, jlong};

use crate::env::{ByteArray, Env, Failure, Java, Result, at, register, slice};

/// A native method of `dev.bolmo.Native`.
pub(crate) struct Native {
    pub(crate) name: &'static str,
    pub(crate) signature: String,
    pub(crate) function: *mut c_void,
}

/// The signature of a method.
pub(crate) fn signature(arguments: &[&str], result: &str) -> String {
    format!("({}){result}", arguments.concat())
}

/// Declares native methods. Each body has the type `Result` of the declared type. `natives()` lists them.
macro_rules! natives {
    ($($(#[$doc:meta])* fn $name:ident($env:ident $(, $argument:ident: $type:ty)*) $(-> $result:ty)? $body:block)*) => {
        $(
            $(#[$doc])*
            #[allow(non_snake_case)]
            extern "system" fn $name(
                env: *mut jni_sys::JNIEnv,
                _class: jni_sys::jclass,
                $($argument: $type),*
            ) -> natives!(@result $($result)?) {
                $crate::native::enter(env, |$env: $crate::env::Env| -> $crate::env::Result<_> { $body })
            }
        )*

        /// The native methods of this file.
        pub(crate) fn natives() -> Vec<$crate::native::Native> {
            use $crate::env::Java;
            vec![$($crate::native::Native {
                name: stringify!($name),
                signature: $crate::native::signature(
                    &[$(<$type as Java>::SIGNATURE),*],
                    <natives!(@result $($result)?) as Java>::SIGNATURE,
                ),
                function: $name as *mut std::ffi::c_void,
            }),*]
        }
    };
    (@result) => { () };
    (@result $result:ty) => { $result };
}

/// Calls a function of the C ABI.
macro_rules! abi {
    ($call:expr) => {{
        // SAFETY: pointers are handles, which the library checks, or point to live objects of this crate with the
        // lengths passed beside them. Callbacks have the declared types, and what they use outlives the call.
        unsafe { $call }
    }};
}

/// Runs the body of a native method. Failures and panics become Java exceptions.
pub(crate) fn enter<T: Java>(env: *mut JNIEnv, work: impl FnOnce(Env) -> Result<T>) -> T {
    // SAFETY: the Java VM passes the current thread's environment.
    let env = unsafe { Env::new(env) };
    let outcome = catch_unwind(AssertUnwindSafe(|| work(env)));
    let failure = match outcome {
        Ok(Ok(value)) => return value,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Bug("a native method panicked; please report this"),
    };
    let _ = catch_unwind(AssertUnwindSafe(|| env.throw(failure)));
    T::NONE
}

/// Registers native methods of `dev.bolmo.Native`, and returns how many there are.
pub(crate) fn register_all(env: Env, methods: &[Native]) -> Result<usize> {
    let texts: Vec<(CString, CString)> = methods
        .iter()
        .map(|method| Ok((CString::new(method.name)?, CString::new(method.signature.as_str())?)))
        .collect::<std::result::Result<_, std::ffi::NulError>>()
        .map_err(|_| Failure::Bug("a native method's name has a NUL"))?;
    let entries: Vec<JNINativeMethod> = methods
        .iter()
        .zip(&texts)
        .map(|(method, (name, signature))| JNINativeMethod {
            name: name.as_ptr().cast_mut(),
            signature: signature.as_ptr().cast_mut(),
            fnPtr: method.function,
        })
        .collect();
    register(env, crate::env::native_class()?, &entries)?;
    Ok(entries.len())
}

/// Fails unless the status is BOLMO_OK.
pub(crate) fn check(status: bolmo_status) -> Result<()> {
    if status == bolmo_status::BOLMO_OK { Ok(()) } else { Err(Failure::Status(status)) }
}

/// Reads a value that a function writes through a pointer.
pub(crate) fn read<T: Default>(function: impl FnOnce(*mut T) -> bolmo_status) -> Result<T> {
    let mut value = T::default();
    check(function(&mut value)).map(|()| value)
}

/// Reads a size or a 64-bit number as Java has it; the largest `long` stands for what is above.
pub(crate) fn number<T: Default + TryInto<jlong>>(function: impl FnOnce(*mut T) -> bolmo_status) -> Result<jlong> {
    let value = read(function)?;
    Ok(value.try_into().unwrap_or(jlong::MAX))
}

/// Creates a handle that a function writes through a pointer.
pub(crate) fn make<T>(function: impl FnOnce(*mut *mut T) -> bolmo_status) -> Result<jlong> {
    let mut handle = std::ptr::null_mut();
    check(function(&mut handle)).map(|()| handle.addr() as jlong)
}

/// Reads items that belong to a handle.
///
/// # Safety
/// The items stay valid while the result is used.
pub(crate) unsafe fn items<'a, T>(function: impl FnOnce(*mut *const T, *mut usize) -> bolmo_status) -> Result<&'a [T]> {
    let (mut data, mut size) = (std::ptr::null(), 0);
    check(function(&mut data, &mut size))?;
    // SAFETY: the library returns a valid range; the caller promises the rest.
    Ok(unsafe { slice(data, size) })
}

/// Copies bytes or text that belongs to a handle to Java.
pub(crate) fn text<T>(env: Env, function: impl FnOnce(*mut *const T, *mut usize) -> bolmo_status) -> Result<ByteArray> {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: Kotlin deletes the handle after this native method only.
    let text = unsafe { items(function) }?;
    // SAFETY: `c_char` and `u8` have the same layout.
    env.byte_array(unsafe { slice(text.as_ptr().cast(), text.len()) })
}

/// Copies and deletes bytes that the library allocated.
pub(crate) fn take_bytes(
    env: Env,
    function: impl FnOnce(*mut *mut bolmo::text::bolmo_bytes) -> bolmo_status,
) -> Result<ByteArray> {
    let handle = make(function)?;
    let array = text(env, |data, size| abi!(bolmo::text::bolmo_bytes_get(at(handle), data, size)));
    bolmo::text::bolmo_bytes_delete(at(handle));
    array
}
