//! What `session_bytes` says is what sessions take: never less, and not much more.

use std::ops::ControlFlow;

use bolmo_runtime::{Engine, GenerateOptions, Model, Session, WeightFormat, block_on, session_bytes};
use bolmo_tests::{engine_options, fixtures, load_on};

/// Appends `count` bytes, each of which ends a patch, `at_once` at a time.
fn append_patches(session: &mut Session, count: usize, at_once: usize) {
    let ids: Vec<u32> = (0..count as u32).map(|i| 4 + i % 256).collect();
    for some in ids.chunks(at_once) {
        block_on(session.append_ids_with_ends(some, &vec![true; some.len()])).expect("ids");
    }
}

/// Generates `count` bytes, each of which ends a patch.
fn generate_patches(session: &mut Session, count: usize) {
    let mut options = GenerateOptions::default();
    options.max_bytes = count;
    options.bytes_per_patch = Some(1.0);
    options.sampling.end_bias = -1e30;
    let generation = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("bytes");
    assert_eq!(generation.bytes.len(), count);
}

/// Grows a session to about `patches` patches by all means, and no further.
fn grow(model: &Model, patches: usize, at_once: usize) -> Session {
    let mut session = block_on(Session::new(model)).expect("a session");
    block_on(session.append_bos()).expect("an id");
    let empty = block_on(session.checkpoint()).expect("a checkpoint");
    generate_patches(&mut session, patches.min(3));
    block_on(session.rewind(&empty)).expect("a rewind");
    drop(empty);
    // By generating, by appending, and with the last byte undecided while its logits are known.
    generate_patches(&mut session, patches / 4);
    let rest = patches - session.patches();
    append_patches(&mut session, rest.saturating_sub(4), at_once);
    block_on(session.append(b"x")).expect("a byte");
    block_on(session.logits(0.0)).expect("logits");
    block_on(session.append(b"yz")).expect("bytes");
    while session.patches() < patches {
        generate_patches(&mut session, 1);
        // Into the global blocks, which takes the next call.
        block_on(session.logits(0.0)).expect("logits");
    }
    // The model may have ended one patch more.
    assert!((patches..patches + 3).contains(&session.patches()), "{patches}: {}", session.patches());
    session
}

fn check(name: &str, windows: bool, sizes: &[usize]) {
    let engine = block_on(Engine::open(&engine_options())).expect("an adapter");
    let model = load_on(&engine, &fixtures().join("infer/models").join(name), WeightFormat::F32);
    // Rows that leave a window are freed after the chunk of a prompt in which they do.
    let at_once = if windows { model.engine().capabilities().prefill_bytes } else { 50 };
    let weights = engine.memory().current_bytes;
    // What prompts and generations share is allocated once.
    drop(grow(&model, 8, at_once));
    let base = engine.memory().current_bytes;
    assert!(base - weights <= model.work_bytes(), "{} of {} work bytes", base - weights, model.work_bytes());
    for &patches in sizes {
        let session = grow(&model, patches, at_once);
        let patches = session.patches();
        let bound = model.session_bytes(patches);
        assert!(bound <= session_bytes(model.config(), patches), "{name}, {patches} patches: the bound of any device");
        let memory = engine.memory();
        let (peak, held) = (memory.peak_bytes - base, memory.current_bytes - base);
        println!("{name}, {patches} patches: at most {bound}, peak {peak}, held {held}");
        assert!(session.device_bytes() < held && held <= peak);
        assert!(peak <= bound, "{name}, {patches} patches: {peak} bytes at one time, at most {bound} were expected");
        // The constant part is small beside keys and values of real models, whose bound is within 1.3 times the peak.
        let allowed = peak + 3 * peak / 10 + (128 << 10);
        assert!(bound <= allowed, "{name}, {patches} patches: {bound} is much more than {peak}");
        drop(session);
        assert_eq!(engine.memory().current_bytes, base, "{name}, {patches} patches: memory is left");
    }
}

#[test]
fn sessions_take_what_was_said_while_they_grow() {
    check("nano_trained", false, &[40, 64, 65, 200, 700, 1025, 1500]);
}

#[test]
fn sessions_with_windows_take_what_was_said_while_they_grow() {
    check("swa", true, &[40, 64, 65, 200, 700, 1500]);
}

#[test]
fn the_bound_grows_with_the_patches_and_never_overflows() {
    for preset in bolmo_runtime::Preset::ALL {
        let config = preset.config();
        let bounds = [0, 1, 64, 65, 1000, 30_000, 1 << 20, usize::MAX].map(|patches| session_bytes(&config, patches));
        assert!(bounds.is_sorted(), "{preset}: {bounds:?}");
        let rows = config.patch_bytes(config.num_hidden_layers) * 1000;
        // 1024 rows, and 512 that were replaced.
        assert!(bounds[4] >= rows + rows / 2, "{preset}: {bounds:?}");
    }
}
