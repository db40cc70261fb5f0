//! Generating on several sessions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::null_mut;

use bolmo::batch::*;
use bolmo::text::{bolmo_utf8_create, bolmo_utf8_delete};
use jni_sys::{jlong, jvalue};

use crate::callback::Callback;
use crate::env::{Env, PiecesObject, Result, at, ids, size, slice};
use crate::generate::tell;
use crate::native::{check, make, number};
use crate::text;

/// The receiver of the pieces of several generations, and what assembles the text of each.
struct Batch {
    callback: Callback,
    assemblers: RefCell<HashMap<usize, jlong>>,
}

impl Batch {
    fn new(env: Env, receiver: PiecesObject) -> Self {
        Self { callback: Callback::new(env, receiver.0), assemblers: RefCell::default() }
    }

    fn user_data(&self) -> *mut c_void {
        (&raw const *self).cast_mut().cast()
    }

    /// Passes on a piece. Returns whether to continue.
    fn piece(&self, env: Env, index: usize, data: &[u8], ids: &[u16]) -> Result<bool> {
        let known = self.assemblers.borrow().get(&index).copied();
        let assembler = match known {
            Some(assembler) => assembler,
            None => {
                let assembler = make(|out| abi!(bolmo_utf8_create(out)))?;
                self.assemblers.borrow_mut().insert(index, assembler);
                assembler
            }
        };
        // SAFETY: this thread alone has the assembler.
        let text = unsafe { text::push(assembler, data) }?;
        tell(env, self.callback.object, index, (data, ids, text))
    }

    /// Passes on the rest of a character that was cut, and the end.
    fn end(&self, env: Env, index: usize) -> Result<bool> {
        let assembler = self.assemblers.borrow_mut().remove(&index);
        if let Some(assembler) = assembler {
            // SAFETY: this thread alone has the assembler.
            let told = unsafe { text::finish(assembler) }.and_then(|rest| {
                if rest.is_empty() { Ok(true) } else { tell(env, self.callback.object, index, (&[], &[], rest)) }
            });
            bolmo_utf8_delete(at(assembler));
            told?;
        }
        let none = jvalue { l: null_mut() };
        env.call_boolean(self.callback.object, ids()?.piece, &[jvalue { j: index as jlong }, none, none, none])
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for assembler in self.assemblers.take().into_values() {
            bolmo_utf8_delete(at(assembler));
        }
    }
}

unsafe extern "C" fn on_batch(
    index: usize,
    data: *const u8,
    size: usize,
    ids: *const u16,
    user_data: *mut c_void,
) -> i32 {
    // SAFETY: `user_data` is the `Batch` of the native method that is running on this thread; bytes and ids are valid
    // during the call.
    let (batch, bytes, ids) = unsafe { (&*user_data.cast::<Batch>(), slice(data, size), slice(ids, size)) };
    batch.callback.run(1, |env| {
        let go_on = if data.is_null() { batch.end(env, index) } else { batch.piece(env, index, bytes, ids) };
        Ok(i32::from(!go_on?))
    })
}

natives! {
    fn batchCreate(_env) -> jlong { make(|out| abi!(bolmo_batch_create(out))) }

    fn batchAdd(_env, batch: jlong, session: jlong, options: jlong) -> jlong {
        number(|out| abi!(bolmo_batch_add(at(batch), at(session), at(options), out)))
    }

    fn batchRun(env, batch: jlong, receiver: PiecesObject) {
        let pieces = Batch::new(env, receiver);
        pieces.callback.outcome(check(abi!(bolmo_batch_run(at(batch), Some(on_batch), pieces.user_data()))))
    }

    fn batchGeneration(_env, batch: jlong, index: jlong) -> jlong {
        let index = size(index, "index")?;
        make(|out| abi!(bolmo_batch_generation(at(batch), index, out)))
    }

    fn batchDelete(_env, batch: jlong) {
        bolmo_batch_delete(at(batch));
        Ok(())
    }
}
