//! `bolmo info`: describes a checkpoint. It uses no adapter, so it works on any machine.

use std::collections::BTreeMap;
use std::fmt::Write;

use bolmo_runtime::ids::END_ID;
use bolmo_runtime::layout::{Part, parameters_by_part};
use bolmo_runtime::{BlockType, LayerType, QkNorm, RopeScaling};
use bolmo_runtime::{
    Capabilities, Checkpoint, Config, Formats, Vocabulary, WeightFormat, device_bytes, session_bytes, work_bytes,
};
use serde_json::{Value, json};

use crate::args::Common;
use crate::load;
use crate::output::{Outcome, count, one_line, size, write, write_json};

/// Patches of a text of a few pages.
const LONG_TEXT: usize = 1024;

/// Runs the command.
pub fn run(common: &Common) -> Outcome {
    let checkpoint = load::checkpoint(common)?;
    let facts = Facts::of(common, &checkpoint)?;
    if common.json { write_json(&facts.to_json()) } else { write(&facts.to_text()) }
}

/// The facts to print.
struct Facts<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    parts: Vec<(Part, u64)>,
    /// Number of tensors and bytes of each type in the files.
    dtypes: BTreeMap<String, (usize, u64)>,
    vocabulary: Subwords,
    warnings: Vec<String>,
}

/// State of the suffix table's vocabulary.
enum Subwords {
    /// The model has no suffix table.
    NotNeeded,
    /// The model has a suffix table, but no tokenizer.json was found.
    Missing,
    /// The vocabulary belongs to the table.
    Fits(Vocabulary),
    /// The reason why the vocabulary cannot be used.
    Unusable(String),
}

impl<'a> Facts<'a> {
    fn of(common: &Common, checkpoint: &'a Checkpoint) -> Outcome<Self> {
        let config = checkpoint.config();
        let mut warnings = checkpoint.warnings().to_vec();
        let mut dtypes = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            let (tensors, bytes) = dtypes.entry(tensor.dtype.to_string()).or_insert((0, 0));
            *tensors += 1;
            *bytes += tensor.byte_count();
        }
        let vocabulary = if config.add_expanded_embeddings {
            match load::vocabulary(common) {
                Ok(None) => Subwords::Missing,
                Ok(Some(vocabulary)) => match vocabulary.check_rows(config.subword_vocab_size) {
                    Ok(warning) => {
                        warnings.extend(warning);
                        warnings.extend(vocabulary.warning().map(str::to_owned));
                        warnings.extend(lacks_end(&vocabulary));
                        Subwords::Fits(vocabulary)
                    }
                    Err(error) => Subwords::Unusable(error.message().to_owned()),
                },
                // A file named on the command line must be readable; a bad file in the folder is one of the folder's
                // facts.
                Err(error) if common.subwords.is_some() => return Err(error.into()),
                Err(error) => Subwords::Unusable(error.message().to_owned()),
            }
        } else {
            Subwords::NotNeeded
        };
        Ok(Self { checkpoint, config, parts: parameters_by_part(config), dtypes, vocabulary, warnings })
    }

    fn parameters(&self) -> u64 {
        self.parts.iter().map(|(_, count)| count).sum()
    }

    /// The formats in which the model can be loaded, with all parts alike. A quantized folder loads in its own formats
    /// only.
    fn formats(&self) -> Vec<Formats> {
        match self.checkpoint.formats() {
            Some(formats) => vec![formats],
            None => WeightFormat::ALL.map(Formats::from).to_vec(),
        }
    }

    fn sliding_layers(&self) -> usize {
        self.config.layer_types.iter().filter(|kind| **kind == LayerType::Sliding).count()
    }

    fn block(&self) -> &'static str {
        match self.config.block_type {
            BlockType::ReorderedNorm => "reordered_norm",
            BlockType::PreNorm => "pre_norm",
        }
    }

    fn qk_norm(&self) -> &'static str {
        match self.config.qk_norm {
            QkNorm::None => "none",
            QkNorm::Whole => "whole projection",
            QkNorm::PerHead => "per head",
        }
    }

    fn to_json(&self) -> Value {
        let c = self.config;
        let (layers, sliding) = (c.num_hidden_layers, self.sliding_layers());
        let parts: serde_json::Map<String, Value> =
            self.parts.iter().map(|(part, count)| (part.to_string(), json!(count))).collect();
        let dtypes: serde_json::Map<String, Value> = self
            .dtypes
            .iter()
            .map(|(name, (tensors, bytes))| (name.clone(), json!({ "tensors": tensors, "bytes": bytes })))
            .collect();
        let memory: serde_json::Map<String, Value> =
            self.formats().into_iter().map(|formats| (formats.to_string(), json!(device_bytes(c, formats)))).collect();
        let mapped = |formats: Formats| (formats.to_string(), json!(self.checkpoint.mapped_bytes(formats)));
        let mapped: serde_json::Map<String, Value> = self.formats().into_iter().map(mapped).collect();
        let vocabulary = match &self.vocabulary {
            Subwords::NotNeeded => json!({ "status": "not needed" }),
            Subwords::Missing => json!({ "status": "missing", "needed": c.original_identifier }),
            Subwords::Fits(v) => {
                json!({ "status": "fits", "subwords": v.len(), "eos": v.eos(), "bos": v.bos(), "pad": v.pad() })
            }
            Subwords::Unusable(why) => json!({ "status": "unusable", "reason": why }),
        };
        json!({
            "model": self.checkpoint.origin(),
            "parameters": self.parameters(),
            "parameters_by_part": parts,
            "dtypes": dtypes,
            "quantized": self.checkpoint.formats().map(|formats| formats.to_string()),
            "memory_bytes": memory,
            "mapped_bytes_on_cpu": mapped,
            "work_bytes": {
                "software": work_bytes(c, Capabilities::SOFTWARE_PREFILL_BYTES),
                "gpu": work_bytes(c, Capabilities::GPU_PREFILL_BYTES),
            },
            "session_bytes_at_most": { "patches": LONG_TEXT, "bytes": session_bytes(c, LONG_TEXT) },
            "state_bytes_per_session": self.config.state_bytes(),
            "kv_bytes_per_patch": self.config.patch_bytes(layers),
            "kv_bytes_per_patch_beyond_window": self.config.patch_bytes(layers - sliding),
            "block_type": self.block(),
            "qk_norm": self.qk_norm(),
            "full_attention_layers": layers - sliding,
            "sliding_attention_layers": sliding,
            "sliding_window": (sliding > 0).then_some(c.sliding_window),
            "rope_theta": c.rope_theta,
            "rope_scaling": c.rope_scaling.to_string(),
            "suffix_table_rows": c.add_expanded_embeddings.then_some(c.subword_vocab_size),
            "vocabulary": vocabulary,
            "config": c.to_json(),
            "warnings": self.warnings,
        })
    }

    fn to_text(&self) -> String {
        let c = self.config;
        let mut text = format!("{}\n", one_line(self.checkpoint.origin()));
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<22}{value}");
        };
        line("parameters", count(self.parameters()));
        for (part, parameters) in &self.parts {
            line(&format!("  {part}"), count(*parameters));
        }
        for (dtype, (tensors, bytes)) in &self.dtypes {
            line("stored", format!("{tensors} tensors of {dtype}, {}", size(*bytes)));
        }
        for formats in self.formats() {
            let how = if self.checkpoint.formats().is_some() { "as it was quantized:" } else { "with --quantize" };
            let all = device_bytes(c, formats);
            let on_cpu = match self.checkpoint.mapped_bytes(formats) {
                0 => String::new(),
                mapped => format!("; on the CPU device {}, the rest is used in the file", size(all - mapped)),
            };
            line("memory", format!("{} {how} {formats}{on_cpu}", size(all)));
        }
        let [gpu, software] = [Capabilities::GPU_PREFILL_BYTES, Capabilities::SOFTWARE_PREFILL_BYTES]
            .map(|bytes| size(work_bytes(c, bytes)));
        line("memory for prompts", format!("{gpu}; {software} on software adapters"));
        let most = size(session_bytes(c, LONG_TEXT));
        let growth = self.growth();
        let state = size(c.state_bytes());
        line("memory per session", format!("{state} plus {growth}; at most {most} for {LONG_TEXT} patches"));
        line("hidden size", count(c.hidden_size as u64));
        line(
            "global blocks",
            format!(
                "{}, {}, {} query heads and {} key/value heads of {}, feed-forward {}, q/k norm: {}",
                c.num_hidden_layers,
                self.block(),
                c.num_attention_heads,
                c.num_key_value_heads,
                c.head_dim,
                count(c.intermediate_size as u64),
                self.qk_norm()
            ),
        );
        line("attention", self.attention());
        line("rotary base", format!("{}, scaling: {}", c.rope_theta, scaling(&c.rope_scaling)));
        if (c.sliding_rope_theta, c.sliding_rope_scaling) != (None, RopeScaling::None) {
            let theta = c.sliding_rope_theta.unwrap_or(c.rope_theta);
            line("  of sliding layers", format!("{theta}, scaling: {}", scaling(&c.sliding_rope_scaling)));
        }
        line(
            "local layers",
            format!(
                "{} before and {} after the global blocks, {} heads, feed-forward {}",
                c.num_local_encoder_layers,
                c.num_local_decoder_layers,
                c.num_local_heads,
                count(c.local_intermediate_size as u64)
            ),
        );
        line("suffix table", self.table());
        for warning in &self.warnings {
            line("warning", one_line(warning));
        }
        text
    }

    /// Memory that each patch adds to a session.
    fn growth(&self) -> String {
        let (layers, sliding) = (self.config.num_hidden_layers, self.sliding_layers());
        let all = size(self.config.patch_bytes(layers));
        if sliding == 0 {
            return format!("{all} per patch");
        }
        let later = size(self.config.patch_bytes(layers - sliding));
        format!("{all} per patch ({later} beyond the window)")
    }

    fn attention(&self) -> String {
        let (layers, sliding) = (self.config.num_hidden_layers, self.sliding_layers());
        match sliding {
            0 => format!("{layers} full layers"),
            _ => format!(
                "{} full layers, {sliding} layers with a window of {} patches",
                layers - sliding,
                count(self.config.sliding_window as u64)
            ),
        }
    }

    fn table(&self) -> String {
        let rows = count(self.config.subword_vocab_size as u64);
        match &self.vocabulary {
            Subwords::NotNeeded => "none".to_owned(),
            Subwords::Missing => {
                let source = self.config.original_identifier.as_deref().unwrap_or("the source model");
                let source = one_line(source);
                format!(
                    "{rows} rows; needs the tokenizer.json of {source}: pass --subwords FILE, or copy it to the folder"
                )
            }
            Subwords::Fits(vocabulary) => format!("{rows} rows, for {} subwords", count(vocabulary.len() as u64)),
            Subwords::Unusable(why) => format!("{rows} rows; the vocabulary cannot be used: {}", one_line(why)),
        }
    }
}

/// A text begins with the id that also ends one, so a subword must stand for that id.
fn lacks_end(vocabulary: &Vocabulary) -> Option<String> {
    let has_end = vocabulary.iter().any(|(_, sequence)| sequence == [END_ID]);
    let message = "no subword stands for <bos>, so no text can begin; use the source model's tokenizer_config.json, \
                   whose eos_token must be in the tokenizer.json";
    (!has_end).then(|| message.to_owned())
}

fn scaling(scaling: &RopeScaling) -> String {
    match scaling {
        RopeScaling::None => "none".to_owned(),
        RopeScaling::Linear { factor } => format!("linear, factor {factor}"),
        RopeScaling::Llama3 { factor, .. } => format!("llama3, factor {factor}"),
        RopeScaling::Yarn { factor, attention_factor, .. } => {
            format!("YaRN, factor {factor}, attention factor {attention_factor}")
        }
    }
}
