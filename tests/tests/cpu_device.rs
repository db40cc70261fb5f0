//! The CPU device: results that don't depend on threads, cancelling within a submission, options and faults.

use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use bolmo_runtime::unstable::run_kernel;
use bolmo_runtime::{
    AdapterChoice, Engine, EngineOptions, ErrorKind, GenerateOptions, Model, Products, Session, WeightFormat, block_on,
};
use bolmo_shaders::params::{self, Params};
use bolmo_shaders::{Fusion, KernelId};
use bolmo_tests::{fixtures, load_on, session_with};

const KINDS: [(&str, &str); 2] = [("infer", "swa"), ("prenorm", "bwen")];

fn options() -> EngineOptions {
    EngineOptions::default().adapter(AdapterChoice::Cpu)
}

fn open(options: &EngineOptions) -> Engine {
    block_on(Engine::open(options)).expect("the CPU device")
}

fn model_on(engine: &Engine, (family, name): (&str, &str), format: WeightFormat) -> Model {
    load_on(engine, &fixtures().join(family).join("models").join(name), format)
}

/// Ids of `<bos>` and some text.
fn text(bytes: usize) -> Vec<u32> {
    let words = b"The river, said Mia, is 12 miles long. ";
    let ids = words.iter().cycle().enumerate().map(|(i, &byte)| 4 + u32::from(byte ^ u8::from(i % 57 == 9)));
    std::iter::once(1).chain(ids).take(bytes).collect()
}

/// The bits of the logits after a prompt, and what is generated after it.
fn outcome(model: &Model, ids: &[u32]) -> (Vec<u32>, Vec<u8>, Vec<u32>) {
    let mut session = session_with(model, ids);
    let bits = |session: &mut Session| -> Vec<u32> {
        let logits = block_on(session.logits(0.0)).expect("logits");
        logits.iter().map(|logit| logit.to_bits()).collect()
    };
    let first = bits(&mut session);
    let mut options = GenerateOptions::default();
    options.max_bytes = 40;
    let generation = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("bytes");
    (first, generation.bytes, bits(&mut session))
}

#[test]
fn results_have_the_same_bits_with_any_number_of_threads() {
    for kind in KINDS {
        for format in WeightFormat::ALL {
            let expected = outcome(&model_on(&open(&options().threads(1)), kind, format), &text(700));
            for threads in [2, 3, 8] {
                let engine = open(&options().threads(threads));
                let found = outcome(&model_on(&engine, kind, format), &text(700));
                assert!(found == expected, "{kind:?} in {}: other bits with {threads} threads", format.name());
            }
        }
    }
}

/// Products in integers have the same bits on any number of threads, and are near those in f32. Matrices in f32 and f16
/// don't have them.
#[test]
fn products_in_integers_are_close_and_have_the_same_bits() {
    let int8 = |threads| open(&options().threads(threads).products(Products::Int8));
    for kind in KINDS {
        for format in WeightFormat::ALL {
            let exact = model_on(&open(&options()), kind, format);
            let found = outcome(&model_on(&int8(1), kind, format), &text(300));
            assert!(found == outcome(&model_on(&int8(3), kind, format), &text(300)), "{kind:?} {}", format.name());
            let expected = outcome(&exact, &text(300));
            assert_eq!(found.0 == expected.0, !format.has_scales(), "{kind:?} {}", format.name());
            let values = |bits: &[u32]| bits.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>();
            let (found, expected) = (values(&found.0), values(&expected.0));
            let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 0.1 * largest, "{kind:?} {}: {apart} of {largest}", format.name());
        }
    }
}

#[test]
fn sessions_on_many_threads_share_a_model() {
    let model = model_on(&open(&options()), KINDS[0], WeightFormat::F32);
    let expected: Vec<_> = (0..8).map(|i| outcome(&model, &text(100 + 30 * i))).collect();
    thread::scope(|scope| {
        for (i, expected) in expected.iter().enumerate() {
            let model = &model;
            scope.spawn(move || assert!(outcome(model, &text(100 + 30 * i)) == *expected, "session {i}"));
        }
    });
}

#[test]
fn numbers_of_threads_are_checked() {
    for threads in [0, 257, usize::MAX] {
        let error = block_on(Engine::open(&options().threads(threads))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("threads: expected a number from 1 to 256"), "{error}");
    }
}

/// A prompt that is cancelled at any moment leaves a session that goes on as if only what it holds had been appended.
#[test]
fn a_cancelled_prompt_leaves_the_session_as_before_a_chunk() {
    let model = model_on(&open(&options().prefill_bytes(256)), KINDS[0], WeightFormat::F32);
    let ids = text(4000);
    let mut stopped = 0;
    for delay in (0..40).map(|i| Duration::from_micros(300 * i * i)) {
        let mut session = block_on(Session::new(&model)).expect("a session");
        let token = session.cancel_token();
        let canceller = thread::spawn(move || {
            thread::sleep(delay);
            token.cancel();
        });
        let result = block_on(session.append_ids(&ids));
        canceller.join().expect("the canceller");
        session.cancel_token().reset();
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            stopped += 1;
        }
        let held = session.ids().len();
        if held == 0 {
            continue;
        }
        let mut fresh = session_with(&model, &ids[..held]);
        assert_eq!(session.ids(), fresh.ids(), "boundaries after {delay:?}");
        let mut logits = || [&mut session, &mut fresh].map(|s| block_on(s.logits(0.0)).expect("logits").to_vec());
        let [found, expected] = logits();
        assert!(found == expected, "logits after {held} of {} ids, cancelled after {delay:?}", ids.len());
    }
    assert!(stopped > 0, "no prompt was cancelled in time");
}

#[test]
fn a_kernel_refuses_bindings_that_are_too_small() {
    let engine = open(&options());
    let p = params::RmsNorm {
        rows: 4,
        groups: 1,
        dim4: 8,
        x_offset4: 0,
        x_stride4: 8,
        y_offset4: 0,
        y_stride4: 8,
        add: 0,
        eps: 1e-6,
    };
    let run = |p: &params::RmsNorm, scale: usize, x: usize, y: usize| {
        let bindings = [scale, x, y].map(|floats| vec![0_u8; 4 * floats]);
        let bindings: Vec<&[u8]> = bindings.iter().map(Vec::as_slice).collect();
        let form = (WeightFormat::F32, Fusion::default());
        block_on(run_kernel(&engine, KernelId::RmsNorm, form, p, &bindings, [1, p.rows as usize, 1]))
    };
    assert_eq!(<params::RmsNorm as Params>::LAYOUT, KernelId::RmsNorm.kernel().params);
    run(&p, 32, 128, 128).expect("bindings that are large enough");
    for (what, sizes) in [("scale", [28, 128, 128]), ("x", [32, 124, 128]), ("y", [32, 128, 124])] {
        let error = run(&p, sizes[0], sizes[1], sizes[2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains(&format!("rms_norm: {what} has")), "{error}");
    }
    let huge = params::RmsNorm { rows: u32::MAX, x_stride4: u32::MAX, y_stride4: u32::MAX, ..p };
    assert_eq!(run(&huge, 32, 128, 128).unwrap_err().kind(), ErrorKind::Internal);
    // The device still works.
    run(&p, 32, 128, 128).expect("the same call");
}

/// Subnormal numbers count as zeros, as on GPUs.
#[test]
fn subnormal_numbers_are_flushed() {
    let p = params::MatVec { n: 1, k4: 1, x_stride4: 1, y_stride: 1, ..Default::default() };
    let (w, x) = ([1e30_f32; 4], [1e-40_f32; 4]);
    let bindings: [&[u8]; 5] = [
        bytemuck::cast_slice(&w),
        bytemuck::cast_slice(&x),
        bytemuck::cast_slice(&[0_f32; 4]),
        bytemuck::cast_slice(&[0_f32; 4]),
        bytemuck::cast_slice(&[1_f32; 4]),
    ];
    let form = (WeightFormat::F32, Fusion::default());
    let found = block_on(run_kernel(&open(&options()), KernelId::MatVec, form, &p, &bindings, [1, 1, 1]));
    let found = found.expect("a product");
    assert_eq!(bytemuck::pod_read_unaligned::<f32>(&found[4][..4]), 0.0);
}

/// A host may call from threads with little stack.
#[test]
fn small_stacks_suffice() {
    let model = model_on(&open(&options()), KINDS[0], WeightFormat::F32);
    let expected = outcome(&model, &text(300));
    // Frames are several times as large without optimization.
    let thread = thread::Builder::new().stack_size(if cfg!(debug_assertions) { 512 } else { 64 } << 10);
    let found = thread.spawn(move || outcome(&model, &text(300))).expect("a thread").join().expect("an outcome");
    assert!(found == expected);
}

/// Threads of the device don't run the host's signal handlers.
#[cfg(target_os = "linux")]
#[test]
fn threads_of_the_device_block_signals() {
    let _engine = open(&options().threads(2));
    let mut seen = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("threads") {
        let Ok(status) = std::fs::read_to_string(task.expect("a thread").path().join("status")) else { continue };
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if value("Name:").is_some_and(|name| name.starts_with("bolmo-cpu")) {
            let blocked = value("SigBlk:").and_then(|mask| u64::from_str_radix(mask, 16).ok()).expect("a mask");
            // SIGTERM, SIGINT and SIGPROF.
            let [term, int, prof] = [15, 2, 27].map(|signal| blocked >> (signal - 1) & 1);
            assert_eq!([term, int, prof], [1; 3], "{blocked:x}");
            seen += 1;
        }
    }
    assert!(seen >= 2, "threads of the device: {seen}");
}

/// In a process that was forked there are no threads to compute on, which must be an error and not a wait without end.
#[cfg(unix)]
#[test]
fn a_forked_process_gets_an_error() {
    let model = model_on(&open(&options().threads(2)), KINDS[0], WeightFormat::F32);
    let mut session = session_with(&model, &text(100));
    // SAFETY: the child calls nothing that other threads of this program may have locked, and runs no exit handlers.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let kinds = [1, 2].map(|_| block_on(session.append(b"more")).err().map(|error| error.kind()));
        let lost = kinds == [Some(ErrorKind::DeviceLost); 2];
        // SAFETY: ends the child.
        unsafe { libc::_exit(if lost { 0 } else { 1 }) };
    }
    assert!(child > 0, "fork failed");
    let mut status = 0;
    for _ in 0..600 {
        // SAFETY: `status` is written before it is read.
        if unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child {
            assert_eq!(status, 0, "status of the child");
            // The parent's device still works.
            block_on(session.append(b"more")).expect("the parent goes on");
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    // SAFETY: ends the child that hangs.
    unsafe { libc::kill(child, libc::SIGKILL) };
    panic!("the forked process hangs");
}
