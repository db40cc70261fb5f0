//! Self-tests of kernel variants on the device: variants that fail are not used, and nothing else changes.

use bolmo_runtime::unstable::{open_tested, run_kernel};
use bolmo_runtime::{Engine, Error, ErrorKind, Tiles, WeightFormat, block_on};
use bolmo_shaders::params::SiluMul;
use bolmo_shaders::{Fusion, KernelId};
use bolmo_tests::{engine, engine_options, fixtures, load_on, session_with};

const TEXT: &[u8] =
    b"def read(self, n):\n    return self.buffer[:n]\n\nclass Reader:\n    def __init__(self, stream):\n";

/// The logits after a text.
fn logits(engine: &Engine, format: WeightFormat) -> Vec<f32> {
    let model = load_on(engine, &fixtures().join("infer/models/nano_trained"), format);
    let ids: Vec<u32> = TEXT.iter().map(|&b| u32::from(b) + 4).collect();
    block_on(session_with(&model, &ids).logits(0.0)).expect("logits").to_vec()
}

#[test]
fn what_fails_its_self_test_is_not_used() {
    let expected = {
        let mut options = engine_options();
        options.tiles = Some(Tiles::Workgroup);
        logits(&block_on(Engine::open(&options)).expect("an adapter"), WeightFormat::F32)
    };
    let options = engine_options();
    let best = engine().capabilities().tiles;
    let passing = block_on(open_tested(&options, async |_| Ok(()))).expect("an adapter");
    assert_eq!(passing.capabilities().tiles, best);

    let mut tests = 0;
    let failing = open_tested(&options, async |_| {
        tests += 1;
        Err(Error::new(ErrorKind::Unsupported, "the product is off by 1"))
    });
    let failing = block_on(failing).expect("an adapter");
    assert_eq!(failing.capabilities().tiles, Tiles::Workgroup);
    assert_eq!(logits(&failing, WeightFormat::F32), expected);
    assert_eq!(tests, u32::from(best != Tiles::Workgroup), "plain WGSL needs no test");

    // A test that loses the device.
    let losing = open_tested(&options, async |engine: &Engine| {
        engine.destroy();
        let zeros = [0; 16];
        let params = SiluMul { rows: 1, dim4: 1 };
        let form = (WeightFormat::F32, Fusion::default());
        run_kernel(engine, KernelId::SiluMul, form, &params, &[&zeros, &zeros], [1, 1, 1]).await.map(drop)
    });
    let losing = block_on(losing).expect("an adapter");
    assert_eq!(losing.capabilities().tiles, Tiles::Workgroup);
    assert_eq!(logits(&losing, WeightFormat::F32), expected);
}

/// With cooperative matrices whole models stay within the rounding of f16, and f32 is unchanged; skipped on adapters
/// without them.
#[test]
fn models_through_cooperative_matrices_stay_within_f16_rounding() {
    let plain = {
        let mut options = engine_options();
        options.tiles = Some(Tiles::Workgroup);
        block_on(Engine::open(&options)).expect("an adapter")
    };
    let mut seen = Vec::new();
    for tiles in [Tiles::Cooperative8, Tiles::Cooperative16] {
        let mut options = engine_options();
        (options.tiles, options.matvec_max_rows) = (Some(tiles), Some(4));
        let engine = block_on(Engine::open(&options)).expect("an adapter");
        if engine.capabilities().tiles != tiles {
            println!("{}: no {tiles:?}", engine.adapter().name);
            // An unsupported variant falls back.
            assert_eq!(engine.capabilities().tiles, Tiles::Workgroup);
            continue;
        }
        seen.push(tiles);
        let mut reopened = engine_options();
        (reopened.tiles, reopened.matvec_max_rows) = (Some(Tiles::Workgroup), Some(4));
        let same = block_on(Engine::open(&reopened)).expect("an adapter");
        assert_eq!(logits(&engine, WeightFormat::F32), logits(&same, WeightFormat::F32), "{tiles:?} in f32");
        for format in [WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4] {
            let (found, expected) = (logits(&engine, format), logits(&plain, format));
            let largest = expected.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
            let worst = found.iter().zip(&expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
            println!("{tiles:?} {}: logits up to {largest}, off by {worst}", format.name());
            assert!(found.iter().all(|v| v.is_finite()) && worst <= 0.01 * largest, "{tiles:?} {}", format.name());
            assert_ne!(found, expected, "{tiles:?} {}: the product was another one", format.name());
        }
    }
    // `make test-cooperative` requires them.
    if let Some(asked) = engine_options().tiles.filter(|asked| asked.cooperative_side().is_some()) {
        assert!(seen.contains(&asked), "the adapter has no {asked:?}");
    }
}
