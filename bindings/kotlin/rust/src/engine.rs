//! Adapters and engines.

use bolmo::adapters::*;
use bolmo::engine::*;
use jni_sys::{jint, jlong};

use crate::env::{ByteArray, at, size};
use crate::native::{check, make, number, text};

natives! {
    fn adaptersList(env, choice: ByteArray) -> jlong {
        let choice = env.bytes(choice)?;
        make(|out| abi!(bolmo_adapters_list(choice.pointer().cast(), choice.len(), out)))
    }

    fn adaptersCount(_env, list: jlong) -> jlong { number(|out| abi!(bolmo_adapters_count(at(list), out))) }

    fn adaptersText(env, list: jlong, index: jlong, which: jint) -> ByteArray {
        let index = size(index, "index")?;
        text(env, |data, size| abi!(bolmo_adapters_text(at(list), index, which, data, size)))
    }

    fn adaptersNumber(_env, list: jlong, index: jlong, which: jint) -> jlong {
        let index = size(index, "index")?;
        wide(|out| abi!(bolmo_adapters_number(at(list), index, which, out)))
    }

    fn adaptersDelete(_env, list: jlong) {
        bolmo_adapters_delete(at(list));
        Ok(())
    }

    fn engineOptionsCreate(_env) -> jlong { make(|out| abi!(bolmo_engine_options_create(out))) }

    fn engineOptionsSetAdapter(env, options: jlong, choice: ByteArray) {
        let choice = env.bytes(choice)?;
        check(abi!(bolmo_engine_options_set_adapter(at(options), choice.pointer().cast(), choice.len())))
    }

    fn engineOptionsSetMaxBindingBytes(_env, options: jlong, bytes: jlong) {
        let bytes = size(bytes, "bytes")? as u64;
        check(abi!(bolmo_engine_options_set_max_binding_bytes(at(options), bytes)))
    }

    fn engineOptionsSetThreads(_env, options: jlong, threads: jlong) {
        check(abi!(bolmo_engine_options_set_threads(at(options), size(threads, "threads")?)))
    }

    fn engineOptionsSetProducts(_env, options: jlong, products: jint) {
        check(abi!(bolmo_engine_options_set_products(at(options), products)))
    }

    fn engineOptionsSetInPlaceBytes(_env, options: jlong, bytes: jlong) {
        let bytes = size(bytes, "bytes")? as u64;
        check(abi!(bolmo_engine_options_set_in_place_bytes(at(options), bytes)))
    }

    fn engineOptionsSetKernelCache(env, options: jlong, path: ByteArray) {
        let path = env.bytes(path)?;
        check(abi!(bolmo_engine_options_set_kernel_cache(at(options), path.pointer().cast(), path.len())))
    }

    fn engineOptionsDelete(_env, options: jlong) {
        bolmo_engine_options_delete(at(options));
        Ok(())
    }

    fn engineCreate(_env, options: jlong) -> jlong { make(|out| abi!(bolmo_engine_create(at(options), out))) }

    fn engineText(env, engine: jlong, which: jint) -> ByteArray {
        text(env, |data, size| abi!(bolmo_engine_text(at(engine), which, data, size)))
    }

    fn engineNumber(_env, engine: jlong, which: jint) -> jlong {
        wide(|out| abi!(bolmo_engine_number(at(engine), which, out)))
    }

    fn engineSuspend(_env, engine: jlong) { check(abi!(bolmo_engine_suspend(at(engine)))) }

    fn engineResume(_env, engine: jlong) { check(abi!(bolmo_engine_resume(at(engine)))) }

    fn engineTrim(_env, engine: jlong) -> jlong { number(|out| abi!(bolmo_engine_trim(at(engine), out))) }

    fn engineDestroyDevice(_env, engine: jlong) { check(abi!(bolmo_engine_destroy_device(at(engine)))) }

    fn engineDelete(_env, engine: jlong) {
        bolmo_engine_delete(at(engine));
        Ok(())
    }
}

/// A number of an adapter. Some drivers have limits above the range of a `long`.
fn wide(function: impl FnOnce(*mut u64) -> bolmo::status::bolmo_status) -> crate::env::Result<jlong> {
    Ok(crate::native::read(function)?.min(jlong::MAX as u64) as jlong)
}
