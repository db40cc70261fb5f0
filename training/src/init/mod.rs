//! Initial weights: a random subword model, and a byte-level model made from a source model (docs/model.md, "Training
//! losses").

mod least_squares;

use bolmo_runtime::layout::{TensorSpec, expected_tensors};
use bolmo_runtime::unstable::Stream;
use bolmo_runtime::{Config, Engine, Error, Result};

use least_squares::least_squares;

use crate::checkpoint::source::SourceModel;
use crate::layers::Shape;
use crate::models::byte_level::{ByteLevel, EncoderInput, ModelOptions};
use crate::parameters::TensorSource;

/// Standard deviation of matrices and tables.
const DEVIATION: f64 = 0.02;
/// Bias of the input gates, which closes them at first.
const INPUT_GATE: f32 = -10.0;
/// Biases of the forget gates of the first and the last head.
const FORGET_GATES: (f32, f32) = (3.0, 6.0);
/// Shape of the random text on which pooled states are measured.
const SAMPLE_SHAPE: Shape = Shape { rows: 4, bytes: 512, patches: 32 };
/// Scale of byte embeddings, relative to subword embeddings, in a fitted start. The suffix embeddings already carry the
/// subwords' embeddings.
const FITTED_BYTE_SCALE: f64 = 0.1;

fn normal_values(seed: u64, name: &str, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Stream::new(seed, name).fill_bell(0, DEVIATION, &mut values);
    values
}

/// A random subword model: norms are 1, everything else is normal.
#[derive(Debug, Clone)]
pub struct RandomSubword {
    /// Configuration of a byte-level model with the same blocks.
    pub config: Config,
    /// Rows of the vocabulary.
    pub vocabulary: usize,
    /// Seed of the weights.
    pub seed: u64,
}

impl TensorSource for RandomSubword {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let d = self.config.hidden_size;
        match name {
            "model.embed_tokens.weight" | "lm_head.weight" => Ok(normal_values(self.seed, name, self.vocabulary * d)),
            "model.norm.weight" => Ok(vec![1.0; d]),
            _ => {
                let spec = spec(&self.config, name)?;
                let count = spec.element_count() as usize;
                Ok(if spec.shape.len() == 1 { vec![1.0; count] } else { normal_values(self.seed, name, count) })
            }
        }
    }
}

fn spec(config: &Config, name: &str) -> Result<TensorSpec> {
    let mut all = expected_tensors(config).into_iter();
    all.find(|spec| spec.name == name).ok_or_else(|| Error::not_found(format!("the model has no tensor {name}")))
}

/// How the projection of pooled states is fitted to the source's embeddings.
#[derive(Debug, Clone, Copy)]
pub enum PoolFit<'a> {
    /// Each output has the mean and the standard deviation of the embeddings' column.
    Exact,
    /// As in the reference, which scales the columns of the weight instead of the rows, so that the match is rough.
    Reference,
    /// Least squares between the patches of a text and the embeddings of their subwords, with small byte embeddings.
    /// The paper has no such start; the encoder needs to learn less with it.
    Subwords(&'a EncodedText),
}

/// A text as bytes, and the bytes that end a subword.
#[derive(Debug, Clone)]
pub struct EncodedText {
    /// Shape of a batch; the number of patch slots does not matter.
    pub shape: Shape,
    /// Plain byte ids of any number of batches.
    pub ids: Vec<u32>,
    /// Longest subword that ends at each byte.
    pub suffixes: Vec<u32>,
    /// Bytes that end a subword, with the subword.
    pub ends: Vec<(usize, u32)>,
}

/// A byte-level model made from its source. Blocks, final norm and suffix table are the source's, byte embeddings are
/// drawn with the moments of its embeddings, and the rest is new.
#[derive(Debug)]
pub struct Byteified<'a> {
    source: &'a SourceModel,
    config: Config,
    seed: u64,
    /// Mean and standard deviation of each column of the source's embeddings.
    columns: Vec<(f64, f64)>,
    /// Scale of byte embeddings.
    byte_scale: f64,
    /// Weight and bias of the projection of pooled states, once they are fitted.
    pool: Option<(Vec<f32>, Vec<f32>)>,
}

impl<'a> Byteified<'a> {
    /// Creates a model whose pooled states resemble the source's embeddings.
    ///
    /// # Errors
    /// Errors of reading the source, and errors of the device.
    pub async fn new(engine: &Engine, source: &'a SourceModel, seed: u64, fit: PoolFit<'_>) -> Result<Self> {
        let config = source.config().clone();
        let d = config.hidden_size;
        let table = source.read("model.embed_tokens.weight")?;
        let rows = config.subword_vocab_size.min(source.vocabulary());
        let columns = moments(&table[..rows * d], d);
        let byte_scale = if matches!(fit, PoolFit::Subwords(_)) { FITTED_BYTE_SCALE } else { 1.0 };
        let mut this = Self { source, config, seed, columns, byte_scale, pool: None };
        this.pool = Some(match fit {
            PoolFit::Exact | PoolFit::Reference => {
                let ids = this.random_ids();
                // Any subword can end at any byte here.
                let suffixes: Vec<_> =
                    ids.iter().map(|&id| id % this.config.subword_vocab_size.max(1) as u32).collect();
                let h = this.encoded(engine, SAMPLE_SHAPE, &ids, &suffixes).await?;
                let weight = this.read("model.local_encoder.out_projection.weight")?;
                fit_pool(&h, &weight, &this.columns, matches!(fit, PoolFit::Reference))
            }
            PoolFit::Subwords(text) => {
                let h = this.encoded(engine, text.shape, &text.ids, &text.suffixes).await?;
                let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
                for &(byte, subword) in &text.ends {
                    let row = |of: &[f32], at: usize| of.get(at * d..(at + 1) * d).map(<[f32]>::to_vec);
                    // Subwords without a row in the table have no embedding to fit.
                    if let (Some(input), Some(output)) = (row(&h, byte), row(&table, subword as usize)) {
                        inputs.extend(input);
                        outputs.extend(output);
                    }
                }
                least_squares(&inputs, d, &outputs, d)
            }
        });
        Ok(this)
    }

    /// Random plain byte ids.
    fn random_ids(&self) -> Vec<u32> {
        let stream = Stream::new(self.seed, "random text");
        (0..SAMPLE_SHAPE.all_bytes() as u64)
            .map(|i| u32::from(self.config.byte_offset) + (stream.word(i) >> 56) as u32)
            .collect()
    }

    /// Normalized output of the encoder for whole batches of `shape`.
    async fn encoded(&self, engine: &Engine, shape: Shape, ids: &[u32], suffixes: &[u32]) -> Result<Vec<f32>> {
        let d = self.config.hidden_size;
        let device = bolmo_runtime::unstable::device(engine);
        // Without a backward pass, layers need not save activations.
        let options = ModelOptions { shape, half_products: false, recompute: true };
        let mut model = ByteLevel::new(device, &self.config, options, |_| false).await?;
        model.parameters.load(self).await?;
        let mut states = Vec::with_capacity(ids.len() * d);
        let count = shape.all_bytes();
        for (ids, suffixes) in ids.chunks_exact(count).zip(suffixes.chunks_exact(count)) {
            model.encode(EncoderInput { ids, suffixes }).await?.await?;
            let h = model.ws.h.part(4 * d as u64, 4 * (count * d) as u64)?;
            states.extend(model.recorder.read_f32(&[h]).await?);
        }
        Ok(states)
    }
}

/// Weight `[D, D]` and bias `[D]` that give the pooled states `h` `[n, D]` the moments of `columns`. With `by_columns`,
/// only roughly: the columns of the weight are scaled instead of its rows.
fn fit_pool(h: &[f32], weight: &[f32], columns: &[(f64, f64)], by_columns: bool) -> (Vec<f32>, Vec<f32>) {
    let d = columns.len();
    let mut pooled = Vec::with_capacity(h.len());
    for row in h.chunks_exact(d) {
        for w in weight.chunks_exact(d) {
            pooled.push(row.iter().zip(w).map(|(&h, &w)| f64::from(h) * f64::from(w)).sum::<f64>() as f32);
        }
    }
    let found = moments(&pooled, d);
    let factors: Vec<f64> = columns.iter().zip(&found).map(|(wanted, found)| wanted.1 / found.1.max(1e-12)).collect();
    let of = |at: usize| if by_columns { factors[at % d] } else { factors[at / d] };
    let scaled = weight.iter().enumerate().map(|(at, &w)| (f64::from(w) * of(at)) as f32).collect();
    let bias =
        columns.iter().zip(&found).zip(&factors).map(|((wanted, found), factor)| (wanted.0 - found.0 * factor) as f32);
    (scaled, bias.collect())
}

/// Mean and standard deviation of each column.
fn moments(values: &[f32], columns: usize) -> Vec<(f64, f64)> {
    let rows = (values.len() / columns).max(1) as f64;
    let mut sums = vec![(0.0, 0.0); columns];
    for row in values.chunks_exact(columns) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            sum.0 += f64::from(value);
        }
    }
    for row in values.chunks_exact(columns) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            sum.1 += (f64::from(value) - sum.0 / rows).powi(2);
        }
    }
    // One less than the number of rows: the sample variance.
    sums.into_iter().map(|(sum, squares)| (sum / rows, (squares / (rows - 1.0).max(1.0)).sqrt())).collect()
}

impl TensorSource for Byteified<'_> {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let spec = spec(&self.config, name)?;
        let count = spec.element_count() as usize;
        let d = self.config.hidden_size;
        if name.starts_with("model.layers.") || name == "model.norm.weight" {
            return self.source.read(name);
        }
        if let (Some((weight, bias)), true) = (&self.pool, name.contains(".out_projection.")) {
            return Ok(if name.ends_with("bias") { bias.clone() } else { weight.clone() });
        }
        if name.ends_with("subword_embedding.weight") {
            let mut table = self.source.read("model.embed_tokens.weight")?;
            table.resize(count, 0.0);
            return Ok(table);
        }
        let drawn = || normal_values(self.seed, name, count);
        Ok(match () {
            () if name.ends_with("byte_embedding.weight") => {
                let drawn = drawn();
                let with = |(at, &value): (usize, &f32)| {
                    let (mean, deviation) = self.columns[at % d];
                    (self.byte_scale * (mean + f64::from(value) / DEVIATION * deviation)) as f32
                };
                drawn.iter().enumerate().map(with).collect()
            }
            () if name.contains("boundary_predictor_module") => {
                (0..count).map(|at| if at / d == at % d { 1.0 } else { 0.0 }).collect()
            }
            () if name.ends_with("igate_preact.bias") => vec![INPUT_GATE; count],
            () if name.ends_with("fgate_preact.bias") => {
                let (first, last) = FORGET_GATES;
                let step = (last - first) / count.saturating_sub(1).max(1) as f32;
                (0..count).map(|head| first + step * head as f32).collect()
            }
            () if name.ends_with("norm.weight") => vec![1.0; count],
            () if name.ends_with(".bias") => vec![0.0; count],
            () => drawn(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooled_states_have_the_requested_moments() {
        let d = 3;
        let h = normal_values(1, "h", 300 * d);
        let weight = normal_values(2, "weight", d * d);
        let columns = [(0.5, 2.0), (-1.0, 0.1), (0.0, 1.0)];
        let (weight, bias) = fit_pool(&h, &weight, &columns, false);
        let mut pooled = Vec::new();
        for row in h.chunks(d) {
            for (w, b) in weight.chunks(d).zip(&bias) {
                pooled.push(row.iter().zip(w).map(|(h, w)| h * w).sum::<f32>() + b);
            }
        }
        for ((mean, deviation), wanted) in moments(&pooled, d).into_iter().zip(columns) {
            assert!((mean - wanted.0).abs() < 1e-5 && (deviation / wanted.1 - 1.0).abs() < 1e-5);
        }
    }
}
