//! The C ABI returns what the Rust API returns, and what the reference implementation computed.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use bolmo::checkpoint::{bolmo_checkpoint_delete, bolmo_checkpoint_open};
use bolmo::engine::bolmo_engine_delete;
use bolmo::generate::{bolmo_generation_bytes, bolmo_generation_delete, bolmo_generation_ids, bolmo_session_generate};
use bolmo::model::*;
use bolmo::options::*;
use bolmo::session::*;
use bolmo::status::bolmo_last_error_message;
use bolmo::status::bolmo_status::{self, *};
use bolmo_runtime::{GenerateOptions, block_on};
use bolmo_tests::{fixtures, golden_models, load, session_with};

use crate::common::open_engine;

/// Calls a function of the ABI.
macro_rules! abi {
    ($call:expr) => {
        // SAFETY: every pointer in these tests points to a live object, and every length is true.
        unsafe { $call }
    };
}

fn ok(status: bolmo_status) {
    let message = abi!(CStr::from_ptr(bolmo_last_error_message()));
    assert_eq!(status, BOLMO_OK, "{message:?}");
}

/// Bytes and ids of a generation.
#[derive(Debug, Default, PartialEq)]
struct Made {
    bytes: Vec<u8>,
    ids: Vec<u16>,
}

/// Adds a piece to the `Made` behind `user_data`.
unsafe extern "C" fn collect(data: *const u8, size: usize, ids: *const u16, user_data: *mut c_void) -> i32 {
    // SAFETY: the pointer is the `Made` of the call below, which nothing else uses meanwhile.
    let made = unsafe { &mut *user_data.cast::<Made>() };
    made.bytes.extend_from_slice(abi!(std::slice::from_raw_parts(data, size)));
    made.ids.extend_from_slice(abi!(std::slice::from_raw_parts(ids, size)));
    0
}

/// Generates through the ABI. Also returns the id that was decided for the prompt's last byte.
fn through_the_abi(model: *const bolmo_model, prompt: &[u32], options: &GenerateOptions) -> (Made, u16) {
    let (mut session, mut c_options, mut generation) = (null_mut(), null_mut(), null_mut());
    ok(abi!(bolmo_session_create(model, &mut session)));
    ok(abi!(bolmo_session_append_ids(session, prompt.as_ptr(), prompt.len(), None, null_mut())));
    ok(abi!(bolmo_generate_options_create(&mut c_options)));
    ok(abi!(bolmo_generate_options_set_max_bytes(c_options, options.max_bytes)));
    ok(abi!(bolmo_generate_options_set_temperature(c_options, options.sampling.temperature)));
    ok(abi!(bolmo_generate_options_set_top_k(c_options, options.sampling.top_k)));
    ok(abi!(bolmo_generate_options_set_top_p(c_options, options.sampling.top_p)));
    ok(abi!(bolmo_generate_options_set_min_p(c_options, options.sampling.min_p)));
    ok(abi!(bolmo_generate_options_set_repetition_penalty(
        c_options,
        options.sampling.repetition_penalty,
        options.sampling.repetition_window
    )));
    for &(byte, bias) in &options.sampling.byte_bias {
        ok(abi!(bolmo_generate_options_set_byte_bias(c_options, byte, bias)));
    }
    ok(abi!(bolmo_generate_options_set_end_bias(c_options, options.sampling.end_bias)));
    ok(abi!(bolmo_generate_options_set_boundary_bias(c_options, options.sampling.boundary_bias)));
    ok(abi!(bolmo_generate_options_set_seed(c_options, options.sampling.seed)));
    for stop in &options.stops {
        ok(abi!(bolmo_generate_options_add_stop(c_options, stop.as_ptr().cast(), stop.len())));
    }
    let mut pieces = Made::default();
    let user_data = (&raw mut pieces).cast();
    ok(abi!(bolmo_session_generate(session, c_options, Some(collect), user_data, &mut generation)));
    let (mut data, mut ids, mut size, mut count) = (null(), null(), 0, 0);
    ok(abi!(bolmo_generation_bytes(generation, &mut data, &mut size)));
    ok(abi!(bolmo_generation_ids(generation, &mut ids, &mut count)));
    let bytes = abi!(std::slice::from_raw_parts(data, size)).to_vec();
    let made = Made { bytes, ids: abi!(std::slice::from_raw_parts(ids, count)).to_vec() };
    assert_eq!(pieces.bytes, made.bytes);
    assert_eq!(pieces.ids, made.ids[..pieces.ids.len()]);
    let (mut decided, mut one) = (0, 0);
    ok(abi!(bolmo_session_ids(session, prompt.len() - 1, &mut decided, 1, &mut one)));
    bolmo_generation_delete(generation);
    bolmo_generate_options_delete(c_options);
    bolmo_session_delete(session);
    (made, decided)
}

#[test]
fn generations_equal_those_of_the_rust_api_and_the_reference() {
    let numbers = |v: &serde_json::Value| -> Vec<u16> {
        v.as_array().expect("ids").iter().map(|x| x.as_u64().expect("an id") as u16).collect()
    };
    let engine = open_engine();
    let vocabulary = fixtures().join("infer/subword_tokenizer");
    let vocabulary = vocabulary.to_str().expect("UTF-8");
    let mut compared = 0;
    for golden in golden_models() {
        let Some(generate) = &golden.generate else { continue };
        let rust_model = load(golden.family, &golden.name);
        let folder = fixtures().join(golden.family).join("models").join(&golden.name);
        let folder = folder.to_str().expect("UTF-8");
        let (mut checkpoint, mut loading, mut model) = (null_mut(), null_mut(), null_mut());
        ok(abi!(bolmo_checkpoint_open(folder.as_ptr().cast(), folder.len(), &mut checkpoint)));
        ok(abi!(bolmo_load_options_create(&mut loading)));
        ok(abi!(bolmo_load_options_set_tokenizer_path(loading, vocabulary.as_ptr().cast(), vocabulary.len())));
        ok(abi!(bolmo_model_load(engine, checkpoint, loading, &mut model)));
        let mut fingerprint = [0; 16];
        ok(abi!(bolmo_model_fingerprint(model, fingerprint.as_mut_ptr())));
        assert_eq!(fingerprint, rust_model.fingerprint().to_le_bytes(), "{}", golden.name);

        let mut cases: Vec<&serde_json::Value> = generate["single"].as_array().expect("cases").iter().collect();
        cases.extend(generate.get("stops_by_eos").filter(|e| e.is_object()));
        for (i, case) in cases.iter().enumerate() {
            let what = format!("{} generation {i}", golden.name);
            let prompt: Vec<u32> = numbers(&case["prompt_ids"]).iter().map(|&id| id.into()).collect();
            let emitted = numbers(&case["emitted_exact"]);
            let mut options = GenerateOptions::default();
            options.max_bytes = emitted.len() - 1;
            let (made, decided) = through_the_abi(model, &prompt, &options);
            // The reference's ids, up to the first step that is too close to call.
            let gaps = case["gaps_exact"].as_array();
            let safe = gaps.and_then(|g| g.iter().position(|gap| gap.as_f64().expect("a gap") < 1e-3));
            let got: Vec<u16> = std::iter::once(decided).chain(made.ids.iter().copied()).collect();
            let n = safe.unwrap_or(emitted.len()).min(emitted.len());
            assert_eq!(got[..n.min(got.len())], emitted[..n], "{what}: the reference's ids");

            let mut drawn = GenerateOptions::default();
            drawn.max_bytes = 40;
            drawn.sampling.temperature = 0.8;
            drawn.sampling.top_k = 40;
            drawn.sampling.top_p = 0.95;
            drawn.sampling.min_p = 0.01;
            drawn.sampling.repetition_penalty = 1.2;
            drawn.sampling.repetition_window = 20;
            drawn.sampling.byte_bias = vec![(b'e', -0.5), (b' ', 0.25)];
            drawn.sampling.end_bias = -3.0;
            drawn.sampling.boundary_bias = 0.5;
            drawn.sampling.seed = 0x1234_5678_9abc_def0 + i as u64;
            drawn.stops = vec![b"the".to_vec(), b"\n\n".to_vec()];
            for (options, name) in [(options, "greedy"), (drawn, "drawn")] {
                let mut session = session_with(&rust_model, &prompt);
                let made_in_rust =
                    block_on(session.generate(&options, &mut |_| std::ops::ControlFlow::Continue(()))).expect(&what);
                let (made, decided) = through_the_abi(model, &prompt, &options);
                assert_eq!(made, Made { bytes: made_in_rust.bytes, ids: made_in_rust.ids }, "{what}: {name}");
                assert_eq!(decided, session.ids()[prompt.len() - 1], "{what}: {name}");
            }
            compared += 1;
        }
        bolmo_model_delete(model);
        bolmo_load_options_delete(loading);
        bolmo_checkpoint_delete(checkpoint);
    }
    bolmo_engine_delete(engine);
    assert!(compared >= 10, "only {compared} generations were compared");
}

/// The golden generations of the trained model as c/test_generate.c reads them. For each one: the numbers of prompt
/// ids, of emitted ids and of reliable ids, then the ids.
#[test]
fn the_table_of_the_c_tests_is_up_to_date() {
    let mut table = String::new();
    for golden in golden_models().iter().filter(|golden| golden.name == "nano_trained") {
        let generate = golden.generate.as_ref().expect("generations");
        for case in generate["single"].as_array().expect("cases") {
            let list = |key: &str| case[key].as_array().expect("ids").clone();
            let (prompt, emitted, gaps) = (list("prompt_ids"), list("emitted_exact"), list("gaps_exact"));
            let safe = gaps.iter().position(|gap| gap.as_f64().expect("a gap") < 1e-3).unwrap_or(emitted.len());
            table += &format!("{} {} {}\n", prompt.len(), emitted.len(), safe.min(emitted.len()));
            for ids in [prompt, emitted] {
                table += &(ids.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(" ") + "\n");
            }
        }
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/generations.txt");
    if std::env::var_os("BOLMO_UPDATE").is_some() {
        std::fs::write(&path, &table).expect("generations.txt");
    }
    let found = std::fs::read_to_string(&path).expect("generations.txt");
    assert!(found == table, "tests/c/generations.txt is not what meta.json says: run this test with BOLMO_UPDATE=1");
}
