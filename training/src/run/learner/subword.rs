//! The learner of a subword model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bolmo_runtime::{Config, Error, Result};
use serde_json::{Value, json};

use crate::checkpoint::export::{self, StoredType};
use crate::checkpoint::source::{LocalSizes, SourceModel};
use crate::data::SubwordTokenizer;
use crate::init::RandomSubword;
use crate::loss::NO_LABEL;
use crate::models::subword::SubwordModel;
use crate::run::config::NewModel;
use crate::run::inputs::Inputs;

/// Multiple that the vocabulary of a new model is padded to, which suits matrix products.
const VOCABULARY_MULTIPLE: usize = 64;

/// A subword model in training.
pub(in crate::run) struct SubwordLearner {
    pub(super) model: SubwordModel,
    tokenizer: SubwordTokenizer,
    tokenizer_folder: PathBuf,
    /// Rows of the vocabulary, and whether the head is the embedding.
    size: (usize, bool),
    /// Subwords of a row.
    tokens: usize,
    /// Ids of a batch.
    per_batch: usize,
    export: StoredType,
    /// About the configuration of the model that the run begins with.
    pub(super) warnings: Vec<String>,
}

impl SubwordLearner {
    pub(super) async fn open(inputs: Inputs<'_>) -> Result<Self> {
        let Inputs { engine, config, .. } = inputs;
        let tokenizer = inputs.tokenizer()?;
        let options = config.subword_options(config.optimizer.rate);
        let mut warnings = Vec::new();
        let (model, size) = match &config.model.new {
            Some(new) => {
                let vocabulary = tokenizer.vocabulary().len().next_multiple_of(VOCABULARY_MULTIPLE);
                let source = RandomSubword { config: new_config(new, vocabulary)?, vocabulary, seed: config.seed };
                let size = (vocabulary, false);
                (SubwordModel::new(engine, &source.config, size, options, &source, true).await?, size)
            }
            None => {
                let source = SourceModel::open(inputs.source()?, LocalSizes::BLOCKS_ONLY, None)
                    .map_err(|e| e.context("`model.source`"))?;
                warnings.extend_from_slice(source.warnings());
                let size = (source.vocabulary(), source.tied());
                (SubwordModel::new(engine, source.config(), size, options, &source, true).await?, size)
            }
        };
        if tokenizer.vocabulary().len() > size.0 {
            return Err(Error::invalid(format!(
                "the tokenizer has {} subwords, but the model has only {}; name the model's own tokenizer with \
                 `data.tokenizer`",
                tokenizer.vocabulary().len(),
                size.0
            )));
        }
        Ok(Self {
            model,
            tokenizer,
            tokenizer_folder: inputs.tokenizer_folder(),
            size,
            tokens: options.tokens,
            per_batch: options.rows * options.tokens,
            export: config.model.export.into(),
            warnings,
        })
    }

    /// Inputs and labels of rows: the inputs begin with the end of text, and every subword is a label.
    fn shifted(&self, ids: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let (mut input, mut labels) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for row in ids.chunks(self.tokens) {
            input.push(self.tokenizer.eos());
            input.extend(&row[..row.len() - 1]);
            labels.extend(row.iter().map(|&id| if id == self.tokenizer.pad() { NO_LABEL } else { id }));
        }
        (input, labels)
    }

    /// Number of bytes of the labels.
    fn bytes(&self, labels: &[u32]) -> u64 {
        let vocabulary = self.tokenizer.vocabulary();
        labels.iter().filter_map(|&id| vocabulary.sequence(id)).map(|bytes| bytes.len() as u64).sum()
    }

    pub(super) async fn step(&mut self, ids: &[u32]) -> Result<Value> {
        let batches: Vec<_> = ids.chunks(self.per_batch).map(|ids| self.shifted(ids)).collect();
        let given: Vec<_> = batches.iter().map(|(input, labels)| (input.as_slice(), labels.as_slice())).collect();
        let report = self.model.step(&given).await?;
        let bytes: u64 = batches.iter().map(|(_, labels)| self.bytes(labels)).sum();
        let nats = report.loss * report.labels as f64;
        Ok(json!({
            "loss": report.loss,
            "bits_per_byte": nats / std::f64::consts::LN_2 / bytes.max(1) as f64,
            "gradient_norm": report.gradient_norm,
            "learning_rate": report.rate,
            "bytes": bytes,
            "skipped": u8::from(report.skipped),
        }))
    }

    pub(super) async fn evaluate(&mut self, ids: &[u32]) -> Result<Value> {
        let (mut nats, mut count, mut bytes) = (0.0, 0, 0);
        for ids in ids.chunks(self.per_batch) {
            let (input, labels) = self.shifted(ids);
            let (sum, labeled) = self.model.evaluate(&input, &labels).await?;
            nats += sum;
            count += labeled;
            bytes += self.bytes(&labels);
        }
        Ok(json!({
            "loss": nats / count.max(1) as f64,
            "bits_per_byte": nats / std::f64::consts::LN_2 / bytes.max(1) as f64,
            "bytes": bytes,
        }))
    }

    pub(super) async fn export(&mut self, dir: &Path) -> Result<()> {
        let mut tensors = HashMap::new();
        let mut collect = |name: &str, values: Vec<f32>| {
            tensors.insert(name.to_owned(), values);
            Ok(())
        };
        self.model.each_weight(&mut collect).await?;
        let tokenizer = (self.tokenizer_folder.as_path(), self.tokenizer.eos(), self.tokenizer.pad());
        export::subword(dir, self.model.config(), self.size, &tensors, self.export, tokenizer)
    }
}

/// Configuration of a byte-level model with the blocks of a new subword model, which are those of OLMo 2.
fn new_config(new: &NewModel, vocabulary: usize) -> Result<Config> {
    let json = json!({
        "model_type": "olmo2",
        "hidden_size": new.hidden_size,
        "num_hidden_layers": new.layers,
        "num_attention_heads": new.heads,
        "intermediate_size": new.intermediate_size,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "vocab_size": vocabulary,
    });
    SourceModel::config_of(&json, "`model.new`", LocalSizes::BLOCKS_ONLY, vocabulary)
}
