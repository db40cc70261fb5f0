//! Overhead of the C ABI over the Rust API.
//!
//! Method: criterion times calls that do no work on the device. Generations of 64 bytes by the demo model go through
//! the Rust API and through the ABI alternately within one run, in alternating order; medians are compared. Control:
//! the medians of the two halves of the Rust API's own generations show the difference between two medians of the same
//! thing. The adapter's name is printed; `BOLMO_ADAPTER` chooses another one. Run with `cargo bench -p bolmo-benches
//! --bench overhead`; on a software adapter LP_NUM_THREADS=0 gives steadier results.

use std::ffi::c_void;
use std::hint::black_box;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use bolmo::checkpoint::{bolmo_checkpoint, bolmo_checkpoint_delete, bolmo_checkpoint_open};
use bolmo::engine::*;
use bolmo::generate::{bolmo_generation_delete, bolmo_session_generate};
use bolmo::model::{bolmo_model, bolmo_model_delete, bolmo_model_load};
use bolmo::options::*;
use bolmo::sampler::bolmo_session_logits;
use bolmo::session::*;
use bolmo::status::bolmo_status::{self, BOLMO_OK};
use bolmo_runtime::{
    AdapterChoice, Checkpoint, Engine, EngineOptions, GenerateOptions, LoadOptions, Model, Session, SessionCheckpoint,
    Vocabulary, block_on,
};
use criterion::Criterion;

const BYTES: usize = 64;
const PROMPT: &str = "class Reader:";
/// A bias that rules out the end of the text, so that both generate equally many bytes.
const NO_END: f32 = -1e6;
/// Number of pairs of generations.
const PAIRS: usize = 60;

/// Calls a function of the ABI.
macro_rules! abi {
    ($call:expr) => {
        // SAFETY: every pointer in this bench points to a live object, and every length is true.
        unsafe { $call }
    };
}

fn ok(status: bolmo_status) {
    assert_eq!(status, BOLMO_OK);
}

unsafe extern "C" fn count(_: *const u8, size: usize, _: *const u16, user_data: *mut c_void) -> i32 {
    // SAFETY: the pointer is the counter of the call below.
    unsafe { *user_data.cast::<usize>() += size };
    0
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo-model");
    let adapter = std::env::var("BOLMO_ADAPTER").unwrap_or_default();
    let mut rust = RustSide::open(&folder, &adapter);
    let c = CSide::open(&folder, &adapter);
    compare(|| rust.generate(), || c.generate());
    time_calls(&c);
    c.delete();
}

/// A prompt in a session of the Rust API.
struct RustSide {
    session: Session,
    start: SessionCheckpoint,
    options: GenerateOptions,
}

impl RustSide {
    fn open(folder: &Path, adapter: &str) -> Self {
        let mut engine_options = EngineOptions::default();
        engine_options.adapter = AdapterChoice::parse(adapter);
        let engine = block_on(Engine::open(&engine_options)).expect("an adapter");
        println!("adapter: {} ({})", engine.adapter().name, engine.adapter().driver);
        let checkpoint = Checkpoint::open(folder).expect("the demo model");
        let mut load = LoadOptions::default();
        load.vocabulary = Some(Vocabulary::open(folder.join("tokenizer.json")).expect("its vocabulary"));
        let model = block_on(Model::load(&engine, &checkpoint, load)).expect("the demo model");
        let mut session = block_on(Session::new(&model)).expect("a session");
        block_on(session.append_bos()).expect("the first id");
        block_on(session.append(PROMPT.as_bytes())).expect("text");
        let start = block_on(session.checkpoint()).expect("a checkpoint");
        let mut options = GenerateOptions::default();
        options.max_bytes = BYTES;
        options.sampling.end_bias = NO_END;
        Self { session, start, options }
    }

    fn generate(&mut self) -> Duration {
        block_on(self.session.rewind(&self.start)).expect("a rewind");
        let mut seen = 0;
        let began = Instant::now();
        let made = block_on(self.session.generate(&self.options, &mut |piece| {
            seen += piece.bytes.len();
            std::ops::ControlFlow::Continue(())
        }));
        let took = began.elapsed();
        assert_eq!((made.expect("a generation").bytes.len(), seen), (BYTES, BYTES));
        took
    }
}

/// The same prompt in a session of the C ABI.
struct CSide {
    engine_options: *mut bolmo_engine_options,
    engine: *mut bolmo_engine,
    checkpoint: *mut bolmo_checkpoint,
    model: *mut bolmo_model,
    session: *mut bolmo_session,
    start: *mut bolmo_session_checkpoint,
    options: *mut bolmo_generate_options,
}

impl CSide {
    fn open(folder: &Path, adapter: &str) -> Self {
        let mut c = Self {
            engine_options: null_mut(),
            engine: null_mut(),
            checkpoint: null_mut(),
            model: null_mut(),
            session: null_mut(),
            start: null_mut(),
            options: null_mut(),
        };
        let path = folder.to_str().expect("UTF-8");
        ok(abi!(bolmo_engine_options_create(&mut c.engine_options)));
        ok(abi!(bolmo_engine_options_set_adapter(c.engine_options, adapter.as_ptr().cast(), adapter.len())));
        ok(abi!(bolmo_engine_create(c.engine_options, &mut c.engine)));
        ok(abi!(bolmo_checkpoint_open(path.as_ptr().cast(), path.len(), &mut c.checkpoint)));
        ok(abi!(bolmo_model_load(c.engine, c.checkpoint, null(), &mut c.model)));
        ok(abi!(bolmo_session_create(c.model, &mut c.session)));
        ok(abi!(bolmo_session_append_bos(c.session)));
        ok(abi!(bolmo_session_append(c.session, PROMPT.as_ptr().cast(), PROMPT.len(), None, null_mut())));
        ok(abi!(bolmo_session_checkpoint_create(c.session, &mut c.start)));
        ok(abi!(bolmo_generate_options_create(&mut c.options)));
        ok(abi!(bolmo_generate_options_set_max_bytes(c.options, BYTES)));
        ok(abi!(bolmo_generate_options_set_end_bias(c.options, NO_END)));
        c
    }

    fn generate(&self) -> Duration {
        ok(abi!(bolmo_session_rewind(self.session, self.start)));
        let (mut seen, mut made) = (0usize, null_mut());
        let user_data = (&raw mut seen).cast();
        let began = Instant::now();
        ok(abi!(bolmo_session_generate(self.session, self.options, Some(count), user_data, &mut made)));
        let took = began.elapsed();
        bolmo_generation_delete(made);
        assert_eq!(seen, BYTES);
        took
    }

    fn delete(self) {
        bolmo_generate_options_delete(self.options);
        bolmo_session_checkpoint_delete(self.start);
        bolmo_session_delete(self.session);
        bolmo_model_delete(self.model);
        bolmo_checkpoint_delete(self.checkpoint);
        bolmo_engine_delete(self.engine);
        bolmo_engine_options_delete(self.engine_options);
    }
}

/// Times calls that do no work on the device.
fn time_calls(c: &CSide) {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("call");
    group.sample_size(50).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    let mut length = 0;
    group.bench_function("bolmo_session_length", |b| {
        b.iter(|| ok(abi!(bolmo_session_length(black_box(c.session), &mut length))));
    });
    let mut logits = vec![0f32; 520];
    group.bench_function("bolmo_session_logits", |b| {
        b.iter(|| ok(abi!(bolmo_session_logits(black_box(c.session), 0.0, logits.as_mut_ptr(), logits.len()))));
    });
    group.bench_function("bolmo_generate_options_set_seed", |b| {
        b.iter(|| ok(abi!(bolmo_generate_options_set_seed(black_box(c.options), 1))));
    });
    group.finish();
}

/// Times both alternately and prints their medians.
fn compare(mut in_rust: impl FnMut() -> Duration, mut through_abi: impl FnMut() -> Duration) {
    for _ in 0..3 {
        in_rust();
        through_abi();
    }
    let (mut rust, mut abi) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        if pair % 2 == 0 {
            rust.push(in_rust());
            abi.push(through_abi());
        } else {
            abi.push(through_abi());
            rust.push(in_rust());
        }
    }
    // Neighboring runs meet the same noise, so their ratio says more than two medians do.
    let mut ratios: Vec<f64> = abi.iter().zip(&rust).map(|(a, r)| a.as_secs_f64() / r.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let control = median(&mut rust.iter().copied().step_by(2).collect::<Vec<_>>())
        / median(&mut rust.iter().copied().skip(1).step_by(2).collect::<Vec<_>>());
    let (rust, abi) = (median(&mut rust), median(&mut abi));
    let per = |t: f64| t / BYTES as f64;
    println!("{BYTES} bytes, medians of {PAIRS}: Rust {:.1} us a byte, ABI {:.1} us a byte", per(rust), per(abi));
    println!(
        "ratio of medians {:.4}, median of ratios {:.4}, control {control:.4}",
        abi / rust,
        ratios[ratios.len() / 2]
    );
}
