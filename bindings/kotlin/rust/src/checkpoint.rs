//! Checkpoints, from folders, memory and readers.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bolmo::checkpoint::*;
use jni_sys::{jint, jlong, jvalue};

use crate::env::{ByteArray, ByteBuffer, Failure, Global, ReaderObject, at, ids, size, with_env};
use crate::native::{check, make, number, take_bytes, text};

/// Most bytes that are read at once. A reader that has more is called again.
const CHUNK: usize = 1 << 20;

/// Reads through an object of Java, on the thread that loads or opens.
unsafe extern "C" fn on_read(user_data: *mut c_void, offset: u64, out: *mut u8, size: usize) -> i64 {
    // SAFETY: `user_data` is the `Global` of `checkpointBuilderAddReader`, which lives until `on_release`. The library
    // passes room for `size` bytes.
    let (reader, out) = unsafe { (&*user_data.cast::<Global>(), std::slice::from_raw_parts_mut(out, size.min(CHUNK))) };
    let read = || {
        with_env(|env| {
            let outcome = env.byte_array(&vec![0; out.len()]).and_then(|array| {
                let local = env.local(array.0);
                let arguments = [jvalue { j: offset as jlong }, jvalue { l: local.1 }];
                let count = env.call_int(reader.get(), ids()?.read, &arguments)?;
                if let Ok(count) = usize::try_from(count) {
                    let to = out.get_mut(..count).ok_or(Failure::Bug("a reader returned too many bytes"))?;
                    env.copy(array, to)?;
                }
                Ok(i64::from(count))
            });
            // The Kotlin side has kept the reader's own exceptions; what is left are those without memory.
            drop(env.local(env.take_exception()));
            outcome
        })
    };
    catch_unwind(AssertUnwindSafe(read)).ok().and_then(Result::ok).unwrap_or(-1)
}

/// Frees the object of `checkpointBuilderAddReader` and `checkpointBuilderAddBuffer`.
unsafe extern "C" fn on_release(user_data: *mut c_void) {
    // SAFETY: the pointer was made by `Box::into_raw`, and the library calls this once.
    let object = unsafe { Box::from_raw(user_data.cast::<Global>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(object)));
}

/// Passes an object to a function that calls `on_release` later, unless it fails.
fn lend(object: Global, function: impl FnOnce(*mut c_void) -> bolmo::status::bolmo_status) -> crate::env::Result<()> {
    let user_data = Box::into_raw(Box::new(object)).cast();
    let outcome = check(function(user_data));
    if outcome.is_err() {
        // SAFETY: after a failure the library doesn't have the pointer.
        unsafe { on_release(user_data) };
    }
    outcome
}

natives! {
    fn checkpointOpen(env, path: ByteArray) -> jlong {
        let path = env.bytes(path)?;
        make(|out| abi!(bolmo_checkpoint_open(path.pointer().cast(), path.len(), out)))
    }

    fn checkpointBuilderCreate(_env) -> jlong { make(|out| abi!(bolmo_checkpoint_builder_create(out))) }

    fn checkpointBuilderSetConfig(env, builder: jlong, json: ByteArray) {
        let json = env.bytes(json)?;
        check(abi!(bolmo_checkpoint_builder_set_config(at(builder), json.pointer().cast(), json.len())))
    }

    fn checkpointBuilderSetTokenizer(env, builder: jlong, json: ByteArray, config: ByteArray) {
        let (json, config) = (env.bytes(json)?, env.bytes(config)?);
        check(abi!(bolmo_checkpoint_builder_set_tokenizer(
            at(builder),
            json.pointer().cast(),
            json.len(),
            config.pointer().cast(),
            config.len()
        )))
    }

    /// Adds a file in an array, which is copied.
    fn checkpointBuilderAddBytes(env, builder: jlong, name: ByteArray, data: ByteArray) {
        let (name, data) = (env.bytes(name)?, env.bytes(data)?);
        check(abi!(bolmo_checkpoint_builder_add_memory(
            at(builder),
            name.pointer().cast(),
            name.len(),
            data.pointer().cast(),
            data.len(),
            None,
            std::ptr::null_mut()
        )))
    }

    /// Adds a file in a direct buffer, which is used in place.
    fn checkpointBuilderAddBuffer(env, builder: jlong, name: ByteArray, buffer: ByteBuffer) {
        let name = env.bytes(name)?;
        let (data, size) = env.direct(buffer)?;
        lend(Global::new(env, buffer.0)?, |user_data| {
            abi!(bolmo_checkpoint_builder_add_memory(
                at(builder),
                name.pointer().cast(),
                name.len(),
                data.cast(),
                size,
                Some(on_release),
                user_data
            ))
        })
    }

    fn checkpointBuilderAddReader(env, builder: jlong, name: ByteArray, bytes: jlong, reader: ReaderObject) {
        let (name, bytes) = (env.bytes(name)?, size(bytes, "size")? as u64);
        lend(Global::new(env, reader.0)?, |user_data| {
            abi!(bolmo_checkpoint_builder_add_reader(
                at(builder),
                name.pointer().cast(),
                name.len(),
                bytes,
                Some(on_read),
                Some(on_release),
                user_data
            ))
        })
    }

    fn checkpointBuilderOpen(_env, builder: jlong) -> jlong {
        make(|out| abi!(bolmo_checkpoint_builder_open(at(builder), out)))
    }

    fn checkpointBuilderDelete(_env, builder: jlong) {
        bolmo_checkpoint_builder_delete(at(builder));
        Ok(())
    }

    fn checkpointNumber(_env, checkpoint: jlong, which: jint) -> jlong {
        number(|out| abi!(bolmo_checkpoint_number(at(checkpoint), which, out)))
    }

    fn checkpointDeviceBytes(_env, checkpoint: jlong, format: jint) -> jlong {
        number(|out| abi!(bolmo_checkpoint_device_bytes(at(checkpoint), format, out)))
    }

    fn checkpointMappedBytes(_env, checkpoint: jlong, engine: jlong, format: jint) -> jlong {
        number(|out| abi!(bolmo_checkpoint_mapped_bytes(at(checkpoint), at(engine), format, out)))
    }

    fn checkpointSessionBytes(_env, checkpoint: jlong, patches: jlong) -> jlong {
        let patches = size(patches, "patches")?;
        number(|out| abi!(bolmo_checkpoint_session_bytes(at(checkpoint), patches, out)))
    }

    fn checkpointTokenizerSource(env, checkpoint: jlong) -> ByteArray {
        text(env, |data, size| abi!(bolmo_checkpoint_tokenizer_source(at(checkpoint), data, size)))
    }

    fn checkpointWarningCount(_env, checkpoint: jlong) -> jlong {
        number(|out| abi!(bolmo_checkpoint_warning_count(at(checkpoint), out)))
    }

    fn checkpointWarning(env, checkpoint: jlong, index: jlong) -> ByteArray {
        let index = size(index, "index")?;
        text(env, |data, size| abi!(bolmo_checkpoint_warning(at(checkpoint), index, data, size)))
    }

    fn checkpointConfigJson(env, checkpoint: jlong) -> ByteArray {
        take_bytes(env, |out| abi!(bolmo_checkpoint_config_json(at(checkpoint), out)))
    }

    fn checkpointDelete(_env, checkpoint: jlong) {
        bolmo_checkpoint_delete(at(checkpoint));
        Ok(())
    }
}
