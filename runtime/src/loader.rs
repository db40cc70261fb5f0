//! From a checkpoint to weights on the device, a few MiB at a time, so that the host never holds the model.

use std::sync::Arc;

use bolmo_shaders::WeightFormat;
use half::f16;
use half::slice::HalfFloatSliceExt;
use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::{Checkpoint, Tensor, check_finite};
use crate::config::{BlockType, Config, QkNorm};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Gpu, Slice};
use crate::weights::{GlobalLayer, LocalLayer, Matrix, Mlp, Piece, Weights};

/// Elements that are converted and sent at a time.
const STRIDE: usize = 2 << 20;
/// Bytes sent before the loader waits for the device to take them.
const IN_FLIGHT: u64 = 64 << 20;

/// Told how many bytes of the checkpoint are loaded, of how many; answers whether to go on.
pub type LoadProgress<'a> = dyn FnMut(u64, u64) -> bool + Send + 'a;

pub(crate) struct Loader<'a> {
    gpu: &'a Arc<Gpu>,
    checkpoint: &'a Checkpoint,
    format: WeightFormat,
    progress: &'a mut LoadProgress<'a>,
    done: u64,
    total: u64,
    in_flight: u64,
    values: Vec<f32>,
    halves: Vec<f16>,
    hash: Xxh3,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(
        gpu: &'a Arc<Gpu>,
        checkpoint: &'a Checkpoint,
        format: WeightFormat,
        progress: &'a mut LoadProgress<'a>,
    ) -> Self {
        let total = checkpoint.contents_bytes();
        Self {
            gpu,
            checkpoint,
            format,
            progress,
            done: 0,
            total,
            in_flight: 0,
            values: Vec::new(),
            halves: Vec::new(),
            hash: Xxh3::new(),
        }
    }

    /// Loads everything. Also returns a hash of names, shapes and values as they are on the device.
    pub(crate) async fn load(mut self, config: &Config) -> Result<(Weights, u128)> {
        self.hash.update(config.to_json().to_string().as_bytes());
        self.hash.update(self.format.name().as_bytes());
        let encoder = "model.local_encoder";
        let decoder = "model.local_decoder";
        let byte_embedding = self.matrix(&[&format!("{encoder}.byte_embedding.weight")], &[]).await?;
        let suffix_embedding = match config.add_expanded_embeddings {
            true => Some(self.matrix(&[&format!("{encoder}.subword_embedding.weight")], &[]).await?),
            false => None,
        };
        let encoder_layers = self.local_layers(encoder, config.num_local_encoder_layers).await?;
        let post_encoder_norm = self.vector(&format!("{encoder}.post_last_block_norm.weight")).await?;
        let predictor = format!("{encoder}.boundary_predictor_module");
        let boundary = self
            .matrix(&[&format!("{predictor}.q_proj_layer.weight"), &format!("{predictor}.k_proj_layer.weight")], &[])
            .await?;
        let pool_projection = self.linear(&format!("{encoder}.out_projection")).await?;
        let mut global = Vec::new();
        for i in 0..config.num_hidden_layers {
            global.push(self.global_layer(config, &format!("model.layers.{i}")).await?);
        }
        let initial_norm = self.vector(&format!("{decoder}.initial_norm.weight")).await?;
        let depool_projection = self.linear(&format!("{decoder}.in_projection")).await?;
        let decoder_layers = self.local_layers(decoder, config.num_local_decoder_layers).await?;
        let final_norm = self.vector("model.norm.weight").await?;
        let head = self.matrix(&["lm_head.weight"], &[]).await?;
        self.gpu.flush().await?;
        let weights = Weights {
            byte_embedding,
            suffix_embedding,
            encoder: encoder_layers,
            post_encoder_norm,
            boundary,
            pool_projection,
            global,
            initial_norm,
            depool_projection,
            decoder: decoder_layers,
            final_norm,
            head,
        };
        Ok((weights, self.hash.digest128()))
    }

    async fn local_layers(&mut self, side: &str, count: usize) -> Result<Vec<LocalLayer>> {
        let mut layers = Vec::new();
        for i in 0..count {
            let layer = format!("{side}.layers.{i}");
            let named = |part: &str| format!("{layer}.xlstm.{part}");
            let weights = ["q", "k", "v", "ogate_preact", "igate_preact", "fgate_preact"].map(|p| named(p) + ".weight");
            let biases = [None, None, None, None, Some(named("igate_preact.bias")), Some(named("fgate_preact.bias"))];
            layers.push(LocalLayer {
                pre_xlstm_norm: self.vector(&format!("{layer}.pre_xlstm_layernorm.weight")).await?,
                projections: self
                    .matrix(&weights.each_ref().map(String::as_str), &biases.each_ref().map(Option::as_deref))
                    .await?,
                head_norm: self.vector(&named("multihead_norm.weight")).await?,
                out: self.matrix(&[&named("out_proj.weight")], &[]).await?,
                pre_feedforward_norm: self.vector(&format!("{layer}.pre_feedforward_layernorm.weight")).await?,
                mlp: self.mlp(&layer).await?,
            });
        }
        Ok(layers)
    }

    async fn global_layer(&mut self, config: &Config, layer: &str) -> Result<GlobalLayer> {
        let (attention_norm, feedforward_norm) = match config.block_type {
            BlockType::ReorderedNorm => ("post_attention_layernorm", "post_feedforward_layernorm"),
            BlockType::PreNorm => ("input_layernorm", "post_attention_layernorm"),
        };
        let attention = format!("{layer}.self_attn");
        let qkv = ["q", "k", "v"].map(|p| format!("{attention}.{p}_proj.weight"));
        let (q_norm, k_norm) = match config.qk_norm {
            QkNorm::None => (None, None),
            QkNorm::Whole | QkNorm::PerHead => (
                Some(self.vector(&format!("{attention}.q_norm.weight")).await?),
                Some(self.vector(&format!("{attention}.k_norm.weight")).await?),
            ),
        };
        Ok(GlobalLayer {
            attention_norm: self.vector(&format!("{layer}.{attention_norm}.weight")).await?,
            qkv: self.matrix(&qkv.each_ref().map(String::as_str), &[]).await?,
            q_norm,
            k_norm,
            out: self.matrix(&[&format!("{attention}.o_proj.weight")], &[]).await?,
            feedforward_norm: self.vector(&format!("{layer}.{feedforward_norm}.weight")).await?,
            mlp: self.mlp(layer).await?,
        })
    }

    async fn mlp(&mut self, layer: &str) -> Result<Mlp> {
        let named = |part: &str| format!("{layer}.mlp.{part}_proj.weight");
        Ok(Mlp {
            gate_up: self.matrix(&[&named("gate"), &named("up")], &[]).await?,
            down: self.matrix(&[&named("down")], &[]).await?,
        })
    }

    async fn linear(&mut self, name: &str) -> Result<Matrix> {
        self.matrix(&[&format!("{name}.weight")], &[Some(&format!("{name}.bias"))]).await
    }

    /// The tensors `names` one above the other, in the model's format. `biases` go with them, or are left out altogether;
    /// where one is `None` the bias is 0.
    async fn matrix(&mut self, names: &[&str], biases: &[Option<&str>]) -> Result<Matrix> {
        let checkpoint = self.checkpoint;
        let tensors = names.iter().map(|name| checkpoint.tensor(name)).collect::<Result<Vec<_>>>()?;
        let (n, k) = match tensors.as_slice() {
            [first, ..] => (tensors.iter().map(|t| t.shape[0]).sum(), first.shape[1]),
            [] => return Err(Error::internal("a matrix without tensors")),
        };
        let bias = self.bias(&tensors, biases)?;
        let row_bytes = k as u64 * self.format.bytes();
        let limit = self.gpu.capabilities.max_binding_bytes.min(self.gpu.capabilities.max_buffer_bytes);
        let piece_rows = (limit / row_bytes.max(1)) as usize;
        if piece_rows == 0 {
            return Err(Error::unsupported(format!(
                "tensor {}: a row takes {row_bytes} bytes, the adapter {} allows bindings of {limit}",
                names[0], self.gpu.adapter.name
            )));
        }
        let mut pieces = Vec::new();
        for first_row in (0..n).step_by(piece_rows) {
            let rows = piece_rows.min(n - first_row);
            let weights = self.gpu.allocate(names[0], rows as u64 * row_bytes).await?;
            let bias = match &bias {
                Some(values) => {
                    let slice = self.gpu.allocate(names[0], rows as u64 * 4).await?;
                    self.gpu.write(&slice, 0, bytemuck::cast_slice(&values[first_row..first_row + rows]))?;
                    Some(slice)
                }
                None => None,
            };
            pieces.push(Piece { first_row, rows, weights, bias });
        }
        let mut first_row = 0;
        for tensor in &tensors {
            self.rows(tensor, first_row, &pieces, k).await?;
            first_row += tensor.shape[0];
        }
        Ok(Matrix { n, k, format: self.format, pieces })
    }

    /// The biases of a matrix made of `tensors`, one behind the other.
    fn bias(&mut self, tensors: &[Tensor<'_>], names: &[Option<&str>]) -> Result<Option<Vec<f32>>> {
        if names.is_empty() {
            return Ok(None);
        }
        let mut values = Vec::new();
        for (tensor, name) in tensors.iter().zip(names) {
            let at = values.len();
            values.resize(at + tensor.shape[0], 0.0);
            if let Some(name) = name {
                let bias = self.checkpoint.tensor(name)?;
                self.read(&bias, 0, &mut values[at..])?;
            }
        }
        Ok(Some(values))
    }

    /// Converts a tensor and sends it to where its rows are, `first_row` being the row of the matrix that its first row is.
    async fn rows(&mut self, tensor: &Tensor<'_>, first_row: usize, pieces: &[Piece], k: usize) -> Result<()> {
        let rows_at_once = (STRIDE / k).max(1);
        let last_row = first_row + tensor.shape[0];
        for piece in pieces {
            let from = first_row.max(piece.first_row);
            let to = last_row.min(piece.first_row + piece.rows);
            let mut row = from;
            while row < to {
                let rows = rows_at_once.min(to - row);
                let mut values = std::mem::take(&mut self.values);
                values.resize(rows * k, 0.0);
                self.read(tensor, ((row - first_row) * k) as u64, &mut values)?;
                let offset = ((row - piece.first_row) * k) as u64 * self.format.bytes();
                match self.format {
                    WeightFormat::F32 => self.gpu.write(&piece.weights, offset, bytemuck::cast_slice(&values))?,
                    WeightFormat::F16 => {
                        self.halves.resize(values.len(), f16::ZERO);
                        self.halves.convert_from_f32_slice(&values);
                        if let Some(at) = self.halves.iter().position(|h| !h.is_finite()) {
                            return Err(Error::unsupported(format!(
                                "tensor {}: {} at row {}, column {} is beyond the range of f16; load it with f32 weights",
                                tensor.name,
                                values[at],
                                row - first_row + at / k,
                                at % k
                            )));
                        }
                        self.gpu.write(&piece.weights, offset, bytemuck::cast_slice(&self.halves))?;
                    }
                }
                let sent = values.len() as u64 * self.format.bytes();
                self.values = values;
                row += rows;
                self.sent(sent).await?;
            }
        }
        Ok(())
    }

    /// A norm's weight, kept as f32.
    async fn vector(&mut self, name: &str) -> Result<Slice> {
        let tensor = self.checkpoint.tensor(name)?;
        let mut values = vec![0.0; tensor.shape[0]];
        self.read(&tensor, 0, &mut values)?;
        let slice = self.gpu.allocate(name, values.len() as u64 * 4).await?;
        self.gpu.write(&slice, 0, bytemuck::cast_slice(&values))?;
        self.sent(values.len() as u64 * 4).await?;
        Ok(slice)
    }

    /// Reads, checks, hashes and reports progress.
    fn read(&mut self, tensor: &Tensor<'_>, first: u64, out: &mut [f32]) -> Result<()> {
        tensor.read_f32(first, out)?;
        check_finite(tensor.name, first, out, tensor.shape.last().copied().unwrap_or(1))?;
        if first == 0 {
            self.hash.update(tensor.name.as_bytes());
        }
        self.hash.update(bytemuck::cast_slice(out));
        self.done += out.len() as u64 * tensor.dtype.size() as u64;
        if !(self.progress)(self.done.min(self.total), self.total) {
            return Err(Error::new(ErrorKind::Cancelled, "loading was cancelled"));
        }
        Ok(())
    }

    async fn sent(&mut self, bytes: u64) -> Result<()> {
        self.in_flight += bytes;
        if self.in_flight >= IN_FLIGHT {
            self.in_flight = 0;
            self.gpu.flush().await?;
        }
        Ok(())
    }
}
