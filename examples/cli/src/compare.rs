//! `bolmo score --against`: the differences between two models on a text, such as the same weights in two formats.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use bolmo_runtime::files::exists_or_is_link;
use bolmo_runtime::{CancelToken, Error, ErrorKind, Model, Products, Score, block_on};
use serde_json::{Value, json};

use crate::args::Common;
use crate::input::Input;
use crate::interrupt::Interrupt;
use crate::load;
use crate::numbers;
use crate::output::{Outcome, count, write, write_json};
use crate::progress::Progress;

/// Runs the command: compares the model of the common options with `against`, which is a format or a folder.
pub fn run(common: &Common, input: &Input, against: &OsStr) -> Outcome {
    let formats = against.to_str().and_then(|text| numbers::formats(text).ok());
    if formats.is_none() && !Path::new(against).is_dir() {
        let name = against.display();
        let message = format!("--against {name}: neither a format (f32, f16, q8, q4) nor a folder");
        return Err(Error::new(ErrorKind::NotFound, message).into());
    }
    let interrupt = Interrupt::listen();
    let model = load::model(common, &|| interrupt.asked())?;
    let mut other = common.clone();
    match formats {
        Some(formats) => other.quantize = Some(formats),
        None => {
            // Folders that are compared usually have one vocabulary, and only the quantized one contains it.
            let has_vocabulary = |dir: &Path| exists_or_is_link(dir.join("tokenizer.json"));
            if other.subwords.is_none() && !has_vocabulary(against.as_ref()) {
                other.subwords = common.model.clone().filter(|dir| has_vocabulary(dir));
            }
            other.model = Some(against.into());
            other.quantize = None;
        }
    }
    // The reference is exact: what products in integers cost shows beside the same format.
    let exact = Common { products: Products::F32, ..common.clone() };
    let engine = match common.products {
        Products::F32 => model.engine().clone(),
        Products::Int8 => load::open_engine(&exact)?,
    };
    let reference = load::model_on(Some(&engine), &other, &|| interrupt.asked())
        .map_err(|e| e.context(format_args!("--against {}", against.display())))?;
    let cancel = CancelToken::default();
    interrupt.stops(cancel.clone());
    let mut progress = Progress::of_text("comparing", common);
    let mut update = |done: usize, total: usize| progress.update(done as u64, total as u64);
    let begun = Instant::now();
    let comparison = match input {
        Input::Text(text) => block_on(model.compare_text(&reference, text, &cancel, &mut update)),
        Input::Ids(ids) => block_on(model.compare_ids(&reference, ids, &cancel, &mut update)),
    }?;
    drop(progress);
    let (score, held) = (&comparison.score, &comparison.reference);
    let adapter = &model.engine().adapter().name;
    if common.json {
        let mut all = numbers(&model, score);
        all["reference"] = numbers(&reference, held);
        all["boundary_agreement"] = json!(comparison.boundary_agreement);
        all["greedy_agreement"] = json!(comparison.greedy_agreement);
        all["logit_difference_max"] = json!(comparison.logit_difference_max);
        all["logit_difference_mean"] = json!(comparison.logit_difference_mean);
        all["seconds"] = json!(begun.elapsed().as_secs_f64());
        all["adapter"] = json!(adapter);
        return write_json(&all);
    }
    let (a, b) = (model.formats().to_string(), reference.formats().to_string());
    let row = |name: &str, one: String, other: String| format!("{name:<24}{one:<16}{other}\n");
    let bits = |x: f64| format!("{x:.4}");
    let mut text = row("", a, format!("against {b}"));
    text += &row("bits per byte, joint", bits(score.bits_per_byte_joint()), bits(held.bits_per_byte_joint()));
    text += &row("bits per byte, folded", bits(score.bits_per_byte_marginal()), bits(held.bits_per_byte_marginal()));
    text += &row("bytes", count(score.bytes as u64), count(held.bytes as u64));
    text += &row("patches", count(score.patches as u64), count(held.patches as u64));
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    text += &row("same boundary decision", percent(comparison.boundary_agreement), String::new());
    text += &row("same most probable id", percent(comparison.greedy_agreement), String::new());
    text += &row("logits apart, mean", bits(comparison.logit_difference_mean), String::new());
    text += &row("logits apart, largest", bits(comparison.logit_difference_max), String::new());
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    write(&format!("{}\n", lines.join("\n")))
}

/// A score in the form of `score --json`, and the model's formats.
fn numbers(model: &Model, score: &Score) -> Value {
    json!({
        "formats": model.formats().to_string(),
        "bits_per_byte_joint": score.bits_per_byte_joint(),
        "bits_per_byte_folded": score.bits_per_byte_marginal(),
        "log_likelihood_joint": score.log_likelihood_joint,
        "log_likelihood_folded": score.log_likelihood_marginal,
        "bytes": score.bytes,
        "patches": score.patches,
        "bytes_per_patch": score.bytes_per_patch(),
    })
}
