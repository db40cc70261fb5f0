//! `bolmo score`: the probability of a text.

use std::path::Path;
use std::time::Instant;

use bolmo_runtime::stages::bytes;
use bolmo_runtime::{Error, ErrorKind, Model, Result, Score, ScoreOptions, block_on};
use serde_json::json;

use crate::args::{Common, ScoreArgs, ScoreInput};
use crate::compare;
use crate::files;
use crate::interrupt::Interrupt;
use crate::load;
use crate::output::{Failure, Outcome, count, write, write_json};
use crate::progress::Progress;
use crate::tensors;

/// What to score.
pub enum Input {
    /// Bytes, framed by `<bos>` and a newline.
    Text(Vec<u8>),
    /// Ids as they are.
    Ids(Vec<u32>),
}

/// Runs the command.
pub fn run(common: &Common, args: &ScoreArgs) -> Outcome {
    let input = read(&args.input)?;
    let mut options = ScoreOptions::default();
    options.dump = args.dump.is_some();
    if let Some(path) = &args.boundaries {
        options.boundaries = Some(read_boundaries(path, &input)?);
    }
    if let Some(path) = &args.dump {
        files::check_target(path)?;
    }
    if let Some(against) = &args.against {
        return compare::run(common, &input, against);
    }
    let interrupt = Interrupt::listen();
    let model = load::model(common, &|| interrupt.asked())?;
    interrupt.stops(options.cancel.clone());
    let begun = Instant::now();
    let score = compute(common, &model, &input, &options)?;
    let seconds = begun.elapsed().as_secs_f64();
    if let (Some(path), Some(all)) = (&args.dump, &score.dump) {
        tensors::write(path, all, model.config().hidden_size)?;
    }
    print(common, &score, seconds, &model.engine().adapter().name)
}

fn read(input: &ScoreInput) -> Outcome<Input> {
    let text = match (&input.text, &input.file, &input.ids) {
        (Some(text), ..) => text.as_encoded_bytes().to_vec(),
        (None, Some(path), _) => load::read_input(path)?,
        (None, None, Some(path)) => return Ok(Input::Ids(read_ids(path)?)),
        (None, None, None) => Vec::new(),
    };
    if text.is_empty() {
        let name = input.file.as_ref().map_or("--text".to_owned(), |path| path.display().to_string());
        return Err(Failure::Work(invalid(format!("{name}: there is nothing to score; give at least one byte"))));
    }
    Ok(Input::Text(text))
}

fn read_ids(path: &Path) -> Result<Vec<u32>> {
    let name = path.display();
    let ids: Vec<u32> = serde_json::from_slice(&load::read_input(path)?)
        .map_err(|e| invalid(format!("{name}: expected a JSON array of ids, which are 0, 1 and 4 to 259: {e}")))?;
    bytes::validate_input_ids(&ids).map_err(|e| e.context(&name))?;
    if ids.len() < 2 {
        return Err(invalid(format!("{name}: expected at least 2 ids, found {}", ids.len())));
    }
    Ok(ids)
}

fn read_boundaries(path: &Path, input: &Input) -> Result<Vec<bool>> {
    let name = path.display();
    let numbers: Vec<u8> = serde_json::from_slice(&load::read_input(path)?)
        .map_err(|e| invalid(format!("{name}: expected a JSON array of 0 and 1: {e}")))?;
    if let Some((position, number)) = numbers.iter().enumerate().find(|(_, number)| **number > 1) {
        return Err(invalid(format!("{name}: expected 0 or 1 at position {position}, found {number}")));
    }
    let (expected, what) = match input {
        Input::Text(text) => (text.len(), "bytes"),
        Input::Ids(ids) => (ids.len(), "ids"),
    };
    if numbers.len() != expected {
        return Err(invalid(format!(
            "{name}: expected one number for each of the {expected} {what}, found {}",
            numbers.len()
        )));
    }
    if matches!(input, Input::Ids(_)) && numbers.first() == Some(&0) {
        return Err(invalid(format!("{name}: expected 1 at position 0, where a patch always ends, found 0")));
    }
    Ok(numbers.iter().map(|&number| number == 1).collect())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
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
    let (joint, folded) = (score.bits_per_byte_joint(), score.bits_per_byte_folded());
    if common.json {
        return write_json(&json!({
            "bits_per_byte_joint": joint,
            "bits_per_byte_folded": folded,
            "log_likelihood_joint": score.log_likelihood_joint,
            "log_likelihood_folded": score.log_likelihood_folded,
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
