//! Callbacks of the C ABI that call Java.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use bolmo::model::bolmo_progress_callback;
use jni_sys::{jlong, jobject, jthrowable, jvalue};

use crate::env::{Env, Failure, Result, ids, slice};

/// An object of Java that a native method calls back, on its own thread.
pub(crate) struct Callback {
    pub(crate) env: Env,
    pub(crate) object: jobject,
    /// The exception that left the callback. It waits here until the function of the C ABI has returned.
    thrown: Cell<jthrowable>,
}

impl Callback {
    /// A callback to `object`, an argument of the native method.
    pub(crate) fn new(env: Env, object: jobject) -> Self {
        Self { env, object, thrown: Cell::new(null_mut()) }
    }

    /// What the functions of the C ABI pass back to the callback.
    pub(crate) fn user_data(&self) -> *mut c_void {
        (&raw const *self).cast_mut().cast()
    }

    /// Runs the body of a callback. `stop` is returned if it fails, and ever after.
    pub(crate) fn run<T>(&self, stop: T, work: impl FnOnce(Env) -> Result<T>) -> T {
        if !self.thrown.get().is_null() {
            return stop;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| work(self.env)));
        let failure = match outcome {
            Ok(Ok(value)) => return value,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Bug("a callback panicked; please report this"),
        };
        let _ = catch_unwind(AssertUnwindSafe(|| self.env.throw(failure)));
        self.thrown.set(self.env.take_exception());
        stop
    }

    /// The outcome of the function that called back: an exception of the callback comes first.
    pub(crate) fn outcome<T>(&self, outcome: Result<T>) -> Result<T> {
        self.outcome_or(outcome, drop)
    }

    /// As above, for a function that makes a handle. It may succeed although the callback has thrown: `delete` frees
    /// what nobody gets then.
    pub(crate) fn outcome_or<T>(&self, outcome: Result<T>, delete: impl FnOnce(T)) -> Result<T> {
        let thrown = self.thrown.replace(null_mut());
        if thrown.is_null() {
            return outcome;
        }
        if let Ok(made) = outcome {
            delete(made);
        }
        self.env.throw_again(thrown);
        Err(Failure::Pending)
    }

    /// The function for progress; NULL for `null`.
    pub(crate) fn progress(&self) -> bolmo_progress_callback {
        if self.object.is_null() { None } else { Some(on_progress) }
    }
}

unsafe extern "C" fn on_progress(done: u64, total: u64, user_data: *mut c_void) -> i32 {
    // SAFETY: `user_data` is the `Callback` of the native method that is running on this thread.
    let callback = unsafe { &*user_data.cast::<Callback>() };
    callback.run(1, |env| {
        let arguments = [jvalue { j: done as jlong }, jvalue { j: total as jlong }];
        Ok(i32::from(!env.call_boolean(callback.object, ids()?.progress, &arguments)?))
    })
}

/// Receives the metrics of a training step.
pub(crate) unsafe extern "C" fn on_metrics(metrics: *const c_char, size: usize, user_data: *mut c_void) -> i32 {
    // SAFETY: as in `on_progress`; the text is valid during the call.
    let (callback, metrics) = unsafe { (&*user_data.cast::<Callback>(), slice(metrics.cast::<u8>(), size)) };
    callback.run(1, |env| {
        let text = env.local(env.byte_array(metrics)?.0);
        Ok(i32::from(!env.call_boolean(callback.object, ids()?.metrics, &[jvalue { l: text.1 }])?))
    })
}
