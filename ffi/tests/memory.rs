//! BOLMO_OUT_OF_MEMORY: a model of more than half a terabyte, of which only the header exists.

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

use bolmo::adapters::bolmo_adapter_number::BOLMO_ADAPTER_SOFTWARE;
use bolmo::checkpoint::*;
use bolmo::engine::*;
use bolmo::model::{bolmo_model_delete, bolmo_model_load};
use bolmo::status::bolmo_last_error_message;
use bolmo::status::bolmo_status::{self, *};
use bolmo_runtime::Config;
use bolmo_runtime::layout::expected_tensors;
use bolmo_tests::fixtures;
use serde_json::{Map, Value, json};

use crate::common::open_engine;

/// Calls a function of the ABI.
macro_rules! abi {
    ($call:expr) => {
        // SAFETY: every pointer in this test points to a live object, and every length is true.
        unsafe { $call }
    };
}

fn ok(status: bolmo_status) {
    assert_eq!(status, BOLMO_OK, "{:?}", abi!(CStr::from_ptr(bolmo_last_error_message())));
}

/// A golden model's configuration, enlarged.
fn config() -> Vec<u8> {
    let text = std::fs::read(fixtures().join("infer/models/nano_trained/config.json")).expect("config.json");
    let mut json: Value = serde_json::from_slice(&text).expect("JSON");
    let layers = 1024;
    json["num_hidden_layers"] = layers.into();
    json["layer_types"] = vec!["full_attention"; layers].into();
    json["intermediate_size"] = (1 << 20).into();
    json.to_string().into_bytes()
}

/// The start of a safetensors file with all tensors of the configuration, and the length of the whole file.
fn header(config: &Config) -> (Vec<u8>, u64) {
    let mut entries = Map::new();
    let mut end = 0;
    for tensor in expected_tensors(config) {
        let begin = end;
        end += 2 * tensor.element_count();
        let entry = json!({ "dtype": "BF16", "shape": tensor.shape, "data_offsets": [begin, end] });
        entries.insert(tensor.name, entry);
    }
    let text = Value::Object(entries).to_string();
    let file = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let size = file.len() as u64 + end;
    (file, size)
}

/// Reads the header; there is nothing after it.
unsafe extern "C" fn read_header(user_data: *mut c_void, offset: u64, out: *mut u8, size: usize) -> i64 {
    // SAFETY: the test passes its header as user data, which outlives the checkpoint.
    let header = unsafe { &*user_data.cast::<Vec<u8>>() };
    let Some(rest) = usize::try_from(offset).ok().and_then(|at| header.get(at..)).filter(|rest| !rest.is_empty())
    else {
        return -1;
    };
    let count = size.min(rest.len());
    // SAFETY: the library asks for `size` bytes at `out`, and `count` is at most that.
    unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), out, count) };
    count as i64
}

#[test]
fn a_model_that_cannot_fit_is_rejected_before_it_is_read() {
    let text = config();
    let (config, _) = Config::from_json(&text, "config.json").expect("a configuration");
    let (mut file, size) = header(&config);
    let tokenizer = std::fs::read(fixtures().join("infer/subword_tokenizer/tokenizer.json")).expect("a tokenizer");
    let (mut builder, mut checkpoint, mut model) = (null_mut(), null_mut(), null_mut());
    let (mut software, mut needed) = (0, 0);
    let engine = open_engine();
    ok(abi!(bolmo_checkpoint_builder_create(&mut builder)));
    ok(abi!(bolmo_checkpoint_builder_set_config(builder, text.as_ptr().cast(), text.len())));
    let (json, length) = (tokenizer.as_ptr().cast(), tokenizer.len());
    ok(abi!(bolmo_checkpoint_builder_set_tokenizer(builder, json, length, null_mut(), 0)));
    let (name, header) = (c"weights".as_ptr().cast(), (&raw mut file).cast());
    ok(abi!(bolmo_checkpoint_builder_add_reader(builder, name, 7, size, Some(read_header), None, header)));
    ok(abi!(bolmo_checkpoint_builder_open(builder, &mut checkpoint)));
    ok(abi!(bolmo_checkpoint_device_bytes(checkpoint, 0, &mut needed)));
    assert!(needed > 1 << 39, "{needed}");

    let status = abi!(bolmo_model_load(engine, checkpoint, null_mut(), &mut model));
    ok(abi!(bolmo_engine_number(engine, BOLMO_ADAPTER_SOFTWARE as i32, &mut software)));
    let message = abi!(CStr::from_ptr(bolmo_last_error_message())).to_str().expect("UTF-8");
    assert!(model.is_null());
    if software == 1 {
        // The memory of adapters on the CPU is known beforehand.
        assert_eq!(status, BOLMO_OUT_OF_MEMORY, "{message}");
        assert!(message.contains(&needed.to_string()), "{message}");
    } else {
        // The memory of other adapters is found out by trying, which fails at the first tensor here.
        assert!(status == BOLMO_IO || status == BOLMO_OUT_OF_MEMORY, "{status:?}: {message}");
    }
    bolmo_model_delete(model);
    bolmo_checkpoint_delete(checkpoint);
    bolmo_checkpoint_builder_delete(builder);
    bolmo_engine_delete(engine);
}
