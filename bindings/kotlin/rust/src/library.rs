//! Loading, versions, handles and the log.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::{Mutex, TryLockError};

use bolmo::generate::bolmo_stop_name;
use bolmo::library::{bolmo_abi_version, bolmo_handle_count, bolmo_set_log_callback, bolmo_version};
use bolmo::status::bolmo_status_name;
use jni_sys::{JNI_ERR, JNI_OK, JNI_VERSION_1_6, JNIEnv, JavaVM, jclass, jint, jlong, jobject, jvalue};

use crate::env::{self, ByteArray, Env, Failure, LogObject, Result, StringObject, ids, slice, with_env};
use crate::native::{Native, check, enter, register_all};
use crate::{batch, checkpoint, constraint, engine, generate, merge, model, score, session, text, training};

/// All native methods of `dev.bolmo.Native`.
fn all() -> Vec<Native> {
    [
        text::natives(),
        engine::natives(),
        checkpoint::natives(),
        model::natives(),
        session::natives(),
        constraint::natives(),
        generate::natives(),
        batch::natives(),
        score::natives(),
        merge::natives(),
        training::natives(),
        // The last one is `methodCount`: if it is there, all are.
        natives(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Called by the Java VM when it loads the library.
///
/// Classes of another version may lack a method or have it with other arguments. That is not reported here, where
/// there is no place for a message: the Kotlin side compares the versions next, and calls the method that was
/// registered last.
#[unsafe(no_mangle)]
pub extern "system" fn JNI_OnLoad(vm: *mut JavaVM, _reserved: *mut c_void) -> jint {
    let loaded = catch_unwind(AssertUnwindSafe(|| {
        let mut env: *mut c_void = null_mut();
        // SAFETY: the Java VM passes itself, and `env` can be written.
        if unsafe { ((**vm).v1_2.GetEnv)(vm, &mut env, JNI_VERSION_1_6) } != JNI_OK {
            return JNI_ERR;
        }
        // SAFETY: this is the current thread's environment.
        let env = unsafe { Env::new(env.cast()) };
        let registered = env::look_up(vm, env).and_then(|()| register_all(env, &all()));
        if registered.is_err() {
            env.take_exception();
        }
        JNI_VERSION_1_6
    }));
    loaded.unwrap_or(JNI_ERR)
}

/// `NativeLibrary.abiVersion()`: the ABI version of the library.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_bolmo_NativeLibrary_abiVersion(_env: *mut JNIEnv, _class: jclass) -> jint {
    bolmo_abi_version() as jint
}

/// `NativeLibrary.version()`: the version of the library.
///
/// # Safety
/// Only the Java VM calls this.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn Java_dev_bolmo_NativeLibrary_version(env: *mut JNIEnv, _class: jclass) -> jobject {
    enter(env, |env| env.string(&name(bolmo_version()).to_string_lossy()).map(StringObject)).0
}

/// A name that the library keeps forever.
fn name(text: *const c_char) -> &'static CStr {
    // SAFETY: the header says of these texts that they are never NULL, end with a NUL and are valid forever.
    unsafe { CStr::from_ptr(text) }
}

/// The receiver of log lines.
struct Log(env::Global);

/// The receiver that the library has. It is freed after the library has another one.
static LOG: Mutex<Option<Box<Log>>> = Mutex::new(None);

unsafe extern "C" fn on_log(level: i32, text: *const c_char, size: usize, user_data: *mut c_void) {
    // SAFETY: `user_data` is a `Log` that lives until the library has another callback; the text is valid during the
    // call.
    let (log, text) = unsafe { (&*user_data.cast::<Log>(), slice(text.cast::<u8>(), size)) };
    let line = |env: Env| {
        // Called in the middle of anything: what was pending stays pending.
        let pending = env.take_exception();
        let outcome = env.byte_array(text).and_then(|text| {
            let text = env.local(text.0);
            env.call_void(log.0.get(), ids()?.log, &[jvalue { i: level }, jvalue { l: text.1 }])
        });
        // Nobody is there to get an exception of a log callback; the Kotlin side has caught those of the program.
        drop(env.local(env.take_exception()));
        if !pending.is_null() {
            env.throw_again(pending);
        }
        outcome
    };
    let _ = catch_unwind(AssertUnwindSafe(|| with_env(line)));
}

fn set_log(env: Env, level: jint, log: LogObject) -> Result<()> {
    let next = if log.0.is_null() { None } else { Some(Box::new(Log(env::Global::new(env, log.0)?))) };
    let mut current = match LOG.try_lock() {
        Ok(current) => current,
        Err(TryLockError::Poisoned(current)) => current.into_inner(),
        // Setting a receiver waits for lines on their way to the last one, which may be what calls this.
        Err(TryLockError::WouldBlock) => return Err(Failure::Busy("another thread is setting the logger")),
    };
    let user_data = next.as_deref().map_or(null_mut(), |log| (&raw const *log).cast_mut().cast());
    let callback: bolmo::library::bolmo_log_callback = if next.is_some() { Some(on_log) } else { None };
    check(abi!(bolmo_set_log_callback(level, callback, user_data)))?;
    *current = next;
    Ok(())
}

natives! {
    fn handleCount(_env) -> jlong { Ok(bolmo_handle_count() as jlong) }

    fn statusName(env, status: jint) -> ByteArray { env.byte_array(name(bolmo_status_name(status)).to_bytes()) }

    fn stopName(env, stop: jint) -> ByteArray { env.byte_array(name(bolmo_stop_name(stop)).to_bytes()) }

    /// Sets the receiver of log lines, or none.
    fn setLog(env, level: jint, log: LogObject) { set_log(env, level, log) }

    /// Number of native methods. This one is registered last.
    fn methodCount(_env) -> jint { Ok(all().len() as jint) }
}
