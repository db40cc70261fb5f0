//! `bolmo score`: the probability of a text.

use std::time::Instant;

use bolmo_runtime::files::check_file;
use bolmo_runtime::{BYTE_VOCABULARY, Model, Result, Score, ScoreOptions, block_on};
use serde_json::json;

use crate::args::{Common, ScoreArgs};
use crate::compare;
use crate::input::Input;
use crate::interrupt::Interrupt;
use crate::load;
use crate::output::{Outcome, count, write, write_json};
use crate::progress::Progress;
use crate::tensors;

/// Runs the command.
pub fn run(common: &Common, args: &ScoreArgs) -> Outcome {
    let input = Input::read(&args.input)?;
    let mut options = ScoreOptions::default();
    options.dump = args.dump.is_some();
    if let Some(path) = &args.boundaries {
        options.boundaries = Some(input.read_boundaries(path)?);
    }
    if let Some(path) = &args.dump {
        check_file(path, 0)?;
    }
    if let Some(against) = &args.against {
        return compare::run(common, &input, against);
    }
    let interrupt = Interrupt::listen();
    let model = load::model(common, &|| interrupt.asked())?;
    if let Some(path) = &args.dump {
        // The states of bytes and the logits. Those of patches come on top, and their number is not known yet.
        let numbers = input.len() * (3 * model.config().hidden_size + BYTE_VOCABULARY);
        check_file(path, 4 * numbers as u64)?;
    }
    interrupt.stops(options.cancel.clone());
    let begun = Instant::now();
    let score = compute(common, &model, &input, &options)?;
    let seconds = begun.elapsed().as_secs_f64();
    load::note_length(common, &model, score.patches);
    if let (Some(path), Some(all)) = (&args.dump, &score.dump) {
        tensors::write(path, all, model.config().hidden_size)?;
    }
    print(common, &score, seconds, &model.engine().adapter().name)
}

fn compute(common: &Common, model: &Model, input: &Input, options: &ScoreOptions) -> Result<Score> {
    let mut progress = Progress::of_text("scoring", common);
    let mut update = |done: usize, total: usize| progress.update(done as u64, total as u64);
    match input {
        Input::Text(text) => block_on(model.score_text(text, options, &mut update)),
        Input::Ids(ids) => block_on(model.score_ids(ids, options, &mut update)),
    }
}

fn print(common: &Common, score: &Score, seconds: f64, adapter: &str) -> Outcome {
    let (joint, folded) = (score.bits_per_byte_joint(), score.bits_per_byte_marginal());
    if common.json {
        return write_json(&json!({
            "bits_per_byte_joint": joint,
            "bits_per_byte_folded": folded,
            "log_likelihood_joint": score.log_likelihood_joint,
            "log_likelihood_folded": score.log_likelihood_marginal,
            "bytes": score.bytes,
            "patches": score.patches,
            "bytes_per_patch": score.bytes_per_patch(),
            "seconds": seconds,
            "adapter": adapter,
        }));
    }
    let per_patch = score.bytes_per_patch().map_or("no patch ended".to_owned(), |x| format!("{x:.3}"));
    write(&format!(
        "bits per byte, joint    {joint:.4}\n\
         bits per byte, folded   {folded:.4}\n\
         bytes                   {}\n\
         patches                 {}\n\
         bytes per patch         {per_patch}\n",
        count(score.bytes as u64),
        count(score.patches as u64),
    ))
}
