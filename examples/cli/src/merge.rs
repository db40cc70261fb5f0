//! `bolmo merge`: adds a subword model's post-training to a Bolmo model.

use std::time::Instant;

use bolmo_runtime::convert::merge::{Fate, Merge, MergedTensor, write_merged};

use crate::args::{Common, MergeArgs};
use crate::interrupt::Interrupt;
use crate::output::{Failure, Outcome, note, size, write, write_json};
use crate::progress::Progress;

/// Runs the command.
pub fn run(common: &Common, args: &MergeArgs) -> Outcome {
    let common_options = [
        ("--model", common.model.is_some(), "give the Bolmo model with --bolmo"),
        ("--subwords", common.subwords.is_some(), "the new folder gets the tokenizer of --bolmo"),
        ("--quantize", common.quantize.is_some(), "quantize the new folder afterwards"),
        ("--rope-theta", common.rope_theta.is_some(), "it is not stored; give it when you use the new folder"),
        ("--rope-scaling", common.rope_scaling.is_some(), "it is not stored; give it when you use the new folder"),
    ];
    if let Some((name, _, instead)) = common_options.iter().find(|(_, given, _)| *given) {
        return Err(Failure::Usage("merge", format!("{name} has no effect here: {instead}")));
    }
    // An interrupted run removes its unfinished folder.
    let interrupt = Interrupt::listen();
    let mut merge = Merge::new(&args.bolmo, &args.base, &args.post_trained);
    merge.alpha = args.alpha;
    merge.embeddings = args.embeddings;
    let mut progress = Progress::of_weights("merging", common);
    let begun = Instant::now();
    let report = write_merged(&merge, &args.out, &mut |done, total| {
        progress.update(done, total);
        !interrupt.asked()
    })?;
    drop(progress);
    let out = args.out.display().to_string();
    if common.json {
        let mut json = report.to_json();
        json["out"] = out.into();
        json["seconds"] = begun.elapsed().as_secs_f64().into();
        return write_json(&json);
    }
    if !common.quiet {
        report.tensors.iter().for_each(tell);
    }
    let files = if report.files == 1 { "one file".to_owned() } else { format!("{} files", report.files) };
    write(&format!(
        "{out}: {} of {} tensors moved by {} of the difference, {} in {files}\n",
        report.moved(),
        report.tensors.len(),
        report.alpha,
        size(report.bytes),
    ))
}

/// Prints a line about one tensor.
fn tell(tensor: &MergedTensor) {
    let what = format!("{} {:?} {}", tensor.name, tensor.shape, tensor.dtype.to_string().to_lowercase());
    match &tensor.fate {
        Fate::Moved { largest, rms } => note("moved", &format!("{what}: by {largest:.3e} at most, {rms:.3e} rms")),
        Fate::Kept(why) => note("kept", &format!("{what}: {why}")),
        // A case that a newer library has added.
        other => note("other", &format!("{what}: {other:?}")),
    }
}
