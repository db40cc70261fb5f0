//! `bolmo quantize`: writes a checkpoint folder with quantized weights.

use std::time::Instant;

use bolmo_runtime::convert::quantize::{QuantizeOptions, QuantizeReport, write_quantized};
use serde_json::{Value, json};

use crate::args::{Common, QuantizeArgs};
use crate::interrupt::Interrupt;
use crate::load;
use crate::output::{Failure, Outcome, note, size, write, write_json};
use crate::progress::Progress;

/// Runs the command.
pub fn run(common: &Common, args: &QuantizeArgs) -> Outcome {
    let usage = |message: &str| Failure::Usage("quantize", message.to_owned());
    let formats = common
        .quantize
        .ok_or_else(|| usage("the format is missing: give --quantize f16, q8, q4 or, by part, q4,local=q8"))?;
    let common = &common.without_overrides();
    // An interrupted run removes its unfinished folder.
    let interrupt = Interrupt::listen();
    let checkpoint = load::checkpoint(common)?;
    let mut options = QuantizeOptions::default();
    options.others = load::companions(common)?;
    let has_tokenizer = options.others.iter().any(|(name, _)| name == "tokenizer.json");
    let lacks_subwords = checkpoint.config().add_expanded_embeddings && !has_tokenizer;
    let mut progress = Progress::of_weights("quantizing", common);
    let begun = Instant::now();
    let report = write_quantized(&checkpoint, &args.out, formats, &options, &mut |done, total| {
        progress.update(done, total);
        !interrupt.asked()
    })?;
    drop(progress);
    if !common.quiet {
        if lacks_subwords {
            let source = checkpoint.config().original_identifier.as_deref();
            let source = source.map(|id| format!(" (that of {id})")).unwrap_or_default();
            let message = format!("there is no tokenizer.json to copy{source}; the new folder will need --subwords");
            note("warning", &message);
        }
        if let Some(first) = report.enlarged.first() {
            let count = report.enlarged.len();
            note(
                "warning",
                &format!(
                    "{count} matrices are kept in a larger format because their rows are not a multiple of the \
                     block size; the first one is {first}"
                ),
            );
        }
    }
    let out = args.out.display().to_string();
    if common.json {
        return write_json(&json!({
            "out": out,
            "formats": formats.to_string(),
            "bytes_before": report.bytes_before(),
            "bytes_after": report.bytes_after(),
            "parts": parts(&report),
            "shards": report.shards,
            "enlarged": report.enlarged,
            "seconds": begun.elapsed().as_secs_f64(),
        }));
    }
    let files = if report.shards == 1 { "one file".to_owned() } else { format!("{} files", report.shards) };
    let mut text =
        format!("{out}: {formats}, {} of weights in {files}\n", change(report.bytes_before(), report.bytes_after()));
    for (part, before, after) in &report.parts {
        text.push_str(&format!("  {part:<20}{}\n", change(*before, *after)));
    }
    write(&text)
}

fn change(before: u64, after: u64) -> String {
    format!("{} instead of {}", size(after), size(before))
}

fn parts(report: &QuantizeReport) -> Value {
    let parts: serde_json::Map<String, Value> = report
        .parts
        .iter()
        .map(|(part, before, after)| (part.to_string(), json!({ "bytes_before": before, "bytes_after": after })))
        .collect();
    parts.into()
}
