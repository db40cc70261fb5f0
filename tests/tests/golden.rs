//! Every golden case of every golden model: tensors of a teacher-forced forward, and greedy generations.
//!
//! Tensors may be off by the roundings of the sums that lead to them, relative to their largest value ([`Roundings`]).
//! Suffix ids are exact; boundaries and generated ids are exact where rounding does not decide them.

use bolmo_runtime::{GenerateOptions, ScoreOptions, block_on};
use bolmo_tests::{Golden, Roundings, golden_models, largest_difference, load, read_tensors, session_with};

#[test]
fn golden_models_of_every_kind_are_there() {
    let found: Vec<String> = golden_models().into_iter().map(|g| g.name).collect();
    for kind in ["nano", "nano_bf16", "nano_f16", "nano_trained", "swa", "noexp", "bwen", "blama"] {
        assert!(found.iter().any(|f| f == kind), "no golden files of {kind} among {found:?}");
    }
}

fn texts(golden: &Golden) -> Vec<String> {
    let names = std::fs::read_dir(&golden.dir).expect("golden files").map(|e| e.unwrap().file_name());
    let mut texts: Vec<String> = names
        .filter_map(|n| n.to_str()?.strip_suffix(".safetensors").map(str::to_owned))
        .filter(|n| !n.ends_with(".layers") && n != "gen0_scores")
        .collect();
    texts.sort();
    assert!(!texts.is_empty(), "no golden texts in {}", golden.dir.display());
    texts
}

/// A tensor's name, its values here, those in the file if it has them, and the largest difference relative to the
/// largest value.
type Compared<'a> = (&'static str, &'a [f32], Option<&'a Vec<f64>>, f64);

#[test]
fn forward_passes_equal_the_reference() {
    for golden in golden_models() {
        let model = load(golden.family, &golden.name);
        let mut worst: Vec<(&str, f64)> = Vec::new();
        for text in texts(&golden) {
            let what = format!("{} {text}", golden.name);
            let want = read_tensors(&golden.dir.join(format!("{text}.safetensors")));
            let ids: Vec<u32> = want["input_ids"].1.iter().map(|&x| x as u32).collect();
            let mut options = ScoreOptions::default();
            options.dump = true;
            let got = block_on(model.score_ids(&ids, &options, &mut |_, _| {})).expect(&what).dump.expect("a dump");

            let roundings = Roundings::of(model.config(), ids.len());
            let exp = |x: f64| x.exp();
            let probability: Vec<f32> = got.boundary_logprobs.iter().map(|&x| exp(x.into()) as f32).collect();
            let wanted: Vec<f64> = want["boundary_logprobs"].1.iter().map(|&x| exp(x)).collect();
            let mask: Vec<f64> = got.boundary_mask.iter().map(|&b| f64::from(u8::from(b))).collect();
            let other = |&t: &usize| mask[t] != want["boundary_mask"].1[t];
            if let Some(t) = (0..ids.len()).find(other) {
                // The first boundary that differs: all that follows from it does too.
                let (p, bound) = (wanted[t], roundings.boundary());
                assert!((p - 0.5).abs() <= bound, "{what}: boundary {t} differs, at a probability of {p}");
                eprintln!("{what}: rounding decides boundary {t}");
                continue;
            }
            assert_eq!(want.contains_key("expanded_input_ids"), got.suffix_ids.is_some(), "{what}: suffix table");
            if let (Some(got), Some((_, want))) = (&got.suffix_ids, want.get("expanded_input_ids")) {
                let got: Vec<f64> = got.iter().map(|&s| s.into()).collect();
                assert_eq!(&got, want, "{what}: suffix ids");
            }
            let start = want.get("logits_start").map_or(0, |(_, v)| v[0] as usize);
            let logits = &got.logits[start * 520..];
            let compare: [Compared; 7] = [
                ("encoder_out", &got.encoder_out, want.get("encoder_out").map(|w| &w.1), roundings.encoder()),
                ("boundary probability", &probability, Some(&wanted), roundings.boundary()),
                (
                    "patch_embeddings",
                    &got.patch_embeddings,
                    want.get("patch_embeddings").map(|w| &w.1),
                    roundings.patches(),
                ),
                ("global_out", &got.global_out, want.get("after_global").map(|w| &w.1), roundings.global()),
                ("decoder_out", &got.decoder_out, want.get("decoder_out").map(|w| &w.1), roundings.decoder()),
                ("final_hidden", &got.final_hidden, want.get("final_hidden").map(|w| &w.1), roundings.decoder()),
                ("logits", logits, want.get("logits").map(|w| &w.1), roundings.logits()),
            ];
            for (name, got, want, tolerance) in compare {
                let Some(want) = want else { continue };
                let largest = want.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
                let difference = largest_difference(&format!("{what} {name}"), got, want) / largest;
                assert!(difference <= tolerance, "{what} {name}: off by {difference:.2e}, at most {tolerance:.1e}");
                match worst.iter_mut().find(|(n, _)| *n == name) {
                    Some((_, w)) => *w = w.max(difference / tolerance),
                    None => worst.push((name, difference / tolerance)),
                }
            }
        }
        let worst: Vec<String> = worst.iter().map(|(n, d)| format!("{n} {d:.3}")).collect();
        eprintln!("{}: largest differences as shares of their bounds: {}", golden.name, worst.join(", "));
    }
}

/// Compares choices up to the first one whose recorded gap between the two best ids is at most `close`.
fn assert_same_choices(what: &str, got: &[u16], want: &[u16], gaps: Option<&[f64]>, close: f64) {
    let safe = gaps.and_then(|g| g.iter().position(|&gap| gap <= close)).unwrap_or(want.len());
    let n = safe.min(want.len());
    assert_eq!(&got[..n.min(got.len())], &want[..n], "{what}");
}

#[test]
fn greedy_generations_equal_the_reference() {
    let numbers = |v: &serde_json::Value| -> Vec<u16> {
        v.as_array().expect("ids").iter().map(|x| x.as_u64().expect("an id") as u16).collect()
    };
    let mut compared = 0;
    for golden in golden_models() {
        let Some(generate) = &golden.generate else { continue };
        let model = load(golden.family, &golden.name);
        let mut cases: Vec<&serde_json::Value> = generate["single"].as_array().expect("cases").iter().collect();
        cases.extend(generate.get("stops_by_eos").filter(|e| e.is_object()));
        for (i, case) in cases.iter().enumerate() {
            let what = format!("{} generation {i}", golden.name);
            let prompt: Vec<u32> = numbers(&case["prompt_ids"]).iter().map(|&id| id.into()).collect();
            let emitted = numbers(&case["emitted_exact"]);
            let gaps: Option<Vec<f64>> =
                case["gaps_exact"].as_array().map(|g| g.iter().map(|x| x.as_f64().expect("a gap")).collect());
            let mut session = session_with(&model, &prompt);
            let mut options = GenerateOptions::default();
            options.max_bytes = emitted.len() - 1;
            let made = block_on(session.generate(&options, &mut |_| std::ops::ControlFlow::Continue(()))).expect(&what);
            // The first id emitted is the decision on the prompt's last byte.
            let mut got = vec![session.ids()[prompt.len() - 1]];
            got.extend(&made.ids);
            let logits = block_on(session.logits(0.0)).expect("logits");
            let largest = logits.iter().fold(0.0f64, |largest, &logit| largest.max(f64::from(logit).abs()));
            // Each of the two logits may be off.
            let close = 2.0 * Roundings::of(model.config(), session.ids().len()).logits() * largest;
            assert_same_choices(&what, &got, &emitted, gaps.as_deref(), close);
            compared += 1;
        }
    }
    assert!(compared >= 10, "only {compared} generations were compared");
}
