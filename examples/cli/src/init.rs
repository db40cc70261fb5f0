//! `bolmo init`: writes a checkpoint folder with random weights.

use std::time::Instant;

use bolmo_runtime::convert::random::{InitOptions, write_checkpoint};
use serde_json::json;

use crate::args::{Common, InitArgs};
use crate::interrupt::Interrupt;
use crate::output::{Outcome, count, size, write, write_json};
use crate::progress::Progress;

/// Runs the command.
pub fn run(common: &Common, args: &InitArgs) -> Outcome {
    // An interrupted run removes its unfinished folder.
    let interrupt = Interrupt::listen();
    let options = InitOptions { seed: args.seed, dtype: args.dtype, ..InitOptions::default() };
    let mut progress = Progress::of_weights("writing", common);
    let begun = Instant::now();
    let report = write_checkpoint(&args.out, args.preset, &options, &mut |done, total| {
        progress.update(done, total);
        !interrupt.asked()
    })?;
    drop(progress);
    if common.json {
        return write_json(&json!({
            "out": args.out.display().to_string(),
            "preset": args.preset.to_string(),
            "dtype": args.dtype.to_string().to_lowercase(),
            "seed": args.seed,
            "parameters": report.parameters,
            "weights_bytes": report.bytes,
            "shards": report.shards,
            "seconds": begun.elapsed().as_secs_f64(),
        }));
    }
    let files = if report.shards == 1 { "one file".to_owned() } else { format!("{} files", report.shards) };
    write(&format!(
        "{}: {}, {} parameters, {} of weights in {files}\n",
        args.out.display(),
        args.preset,
        count(report.parameters),
        size(report.bytes),
    ))
}
