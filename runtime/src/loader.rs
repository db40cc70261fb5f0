//! From a checkpoint to weights on the device, a few MiB at a time, so that the host never holds the model.

use std::sync::Arc;

use bolmo_shaders::WeightFormat;
use bolmo_shaders::quant::{OutOfRange, quantise};
use bolmo_shaders::table::QUANT_BLOCK;
use half::f16;
use half::slice::HalfFloatSliceExt;
use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::{Checkpoint, Tensor, check_finite};
use crate::config::{BlockType, Config, QkNorm};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Formats;
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
    formats: Formats,
    progress: &'a mut LoadProgress<'a>,
    done: u64,
    total: u64,
    in_flight: u64,
    /// Matrices that are kept in a larger format than was asked for, since their rows don't fit it.
    enlarged: Vec<String>,
    hash: Xxh3,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(
        gpu: &'a Arc<Gpu>,
        checkpoint: &'a Checkpoint,
        formats: Formats,
        progress: &'a mut LoadProgress<'a>,
    ) -> Self {
        let total = checkpoint.contents_bytes();
        Self {
            gpu,
            checkpoint,
            formats,
            progress,
            done: 0,
            total,
            in_flight: 0,
            enlarged: Vec::new(),
            hash: Xxh3::new(),
        }
    }

    /// Loads everything. Also returns a hash of names, formats and values, and a warning if some matrices don't fit their format.
    pub(crate) async fn load(mut self, config: &Config) -> Result<(Weights, u128, Option<String>)> {
        self.hash.update(config.to_json().to_string().as_bytes());
        self.hash.update(self.formats.to_string().as_bytes());
        let encoder = "model.local_encoder";
        let decoder = "model.local_decoder";
        let Formats { local, embeddings, .. } = self.formats;
        let byte_embedding = self.matrix(embeddings, &[&format!("{encoder}.byte_embedding.weight")], &[]).await?;
        let suffix_embedding = match config.add_expanded_embeddings {
            true => Some(self.matrix(embeddings, &[&format!("{encoder}.subword_embedding.weight")], &[]).await?),
            false => None,
        };
        let encoder_layers = self.local_layers(encoder, config.num_local_encoder_layers).await?;
        let post_encoder_norm = self.vector(&format!("{encoder}.post_last_block_norm.weight")).await?;
        let predictor = format!("{encoder}.boundary_predictor_module");
        let boundary = self
            .matrix(
                local,
                &[&format!("{predictor}.q_proj_layer.weight"), &format!("{predictor}.k_proj_layer.weight")],
                &[],
            )
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
        let head = self.matrix(local, &["lm_head.weight"], &[]).await?;
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
        let warning = self.enlarged.first().map(|first| {
            format!(
                "{} matrices are kept in a larger format: their rows are no multiple of a block; the first is {first}",
                self.enlarged.len()
            )
        });
        Ok((weights, self.hash.digest128(), warning))
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
                    .matrix(
                        self.formats.local,
                        &weights.each_ref().map(String::as_str),
                        &biases.each_ref().map(Option::as_deref),
                    )
                    .await?,
                head_norm: self.vector(&named("multihead_norm.weight")).await?,
                out: self.matrix(self.formats.local, &[&named("out_proj.weight")], &[]).await?,
                pre_feedforward_norm: self.vector(&format!("{layer}.pre_feedforward_layernorm.weight")).await?,
                mlp: self.mlp(self.formats.local, &layer).await?,
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
            qkv: self.matrix(self.formats.global, &qkv.each_ref().map(String::as_str), &[]).await?,
            q_norm,
            k_norm,
            out: self.matrix(self.formats.global, &[&format!("{attention}.o_proj.weight")], &[]).await?,
            feedforward_norm: self.vector(&format!("{layer}.{feedforward_norm}.weight")).await?,
            mlp: self.mlp(self.formats.global, layer).await?,
        })
    }

    async fn mlp(&mut self, format: WeightFormat, layer: &str) -> Result<Mlp> {
        let named = |part: &str| format!("{layer}.mlp.{part}_proj.weight");
        let [gate, up, down] = ["gate", "up", "down"].map(|part| self.checkpoint.tensor(&named(part)));
        let gate_up = self.put(format, &Rows::ByTurns([gate?, up?]), None).await?;
        Ok(Mlp { gate_up, down: self.put(format, &Rows::Stacked(vec![down?]), None).await? })
    }

    async fn linear(&mut self, name: &str) -> Result<Matrix> {
        self.matrix(self.formats.local, &[&format!("{name}.weight")], &[Some(&format!("{name}.bias"))]).await
    }

    /// The tensors `names` one above the other, in `format`. `biases` go with them, or are left out altogether; where one is
    /// `None` the bias is 0.
    async fn matrix(&mut self, format: WeightFormat, names: &[&str], biases: &[Option<&str>]) -> Result<Matrix> {
        let checkpoint = self.checkpoint;
        let tensors = names.iter().map(|name| checkpoint.tensor(name)).collect::<Result<Vec<_>>>()?;
        let bias = self.bias(&tensors, biases)?;
        self.put(format, &Rows::Stacked(tensors), bias.as_deref()).await
    }

    /// Converts a matrix and sends it, piece by piece.
    async fn put(&mut self, wanted: WeightFormat, source: &Rows<'_>, bias: Option<&[f32]>) -> Result<Matrix> {
        let (n, k) = source.shape()?;
        let name = source.name();
        let format = wanted.fitting(k);
        if format != wanted {
            self.enlarged.push(name.to_owned());
        }
        let row_bytes = format.weight_bytes(2, k as u64);
        let limit = self.gpu.capabilities.max_binding_bytes.min(self.gpu.capabilities.max_buffer_bytes);
        // An even number: pairs of rows belong together, and so do pairs of scales.
        let piece_rows = 2 * (limit / row_bytes.max(1)) as usize;
        if piece_rows == 0 {
            return Err(Error::unsupported(format!(
                "tensor {name}: two rows take {row_bytes} bytes, the adapter {} allows bindings of {limit}",
                self.gpu.adapter.name
            )));
        }
        source.hash_names(&mut self.hash);
        let mut pieces = Vec::new();
        for first_row in (0..n).step_by(piece_rows) {
            let rows = piece_rows.min(n - first_row);
            let weights = self.gpu.allocate(name, format.weight_bytes(rows as u64, k as u64)).await?;
            let scales = match format.scale_bytes(rows as u64, k as u64) {
                0 => None,
                bytes => Some(self.gpu.allocate(name, bytes).await?),
            };
            let bias = match bias {
                Some(values) => {
                    let slice = self.gpu.allocate(name, rows as u64 * 4).await?;
                    self.gpu.write(&slice, 0, bytemuck::cast_slice(&values[first_row..first_row + rows]))?;
                    Some(slice)
                }
                None => None,
            };
            pieces.push(Piece { first_row, rows, weights, scales, bias });
        }
        let mut packed = Packed::default();
        let mut values = Vec::new();
        for piece in &pieces {
            let rows_at_once = (STRIDE / k).next_multiple_of(2);
            for row in (0..piece.rows).step_by(rows_at_once) {
                let rows = rows_at_once.min(piece.rows - row);
                values.resize(rows * k, 0.0);
                self.fill(source, piece.first_row + row, k, &mut values)?;
                self.hash.update(bytemuck::cast_slice(&values));
                packed
                    .pack(format, &values)
                    .map_err(|at| source.out_of_range(format, piece.first_row + row, k, &values, at))?;
                let offset = format.weight_bytes(row as u64, k as u64);
                self.gpu.write(&piece.weights, offset, &packed.weights)?;
                if let Some(scales) = &piece.scales {
                    self.gpu.write(scales, format.scale_bytes(row as u64, k as u64), &packed.scales)?;
                }
                self.sent((packed.weights.len() + packed.scales.len()) as u64).await?;
            }
        }
        Ok(Matrix { n, k, format, pieces })
    }

    /// Reads rows `first ..` of a matrix of `k` columns.
    fn fill(&mut self, source: &Rows<'_>, first: usize, k: usize, values: &mut [f32]) -> Result<()> {
        match source {
            Rows::Stacked(tensors) => {
                let last = first + values.len() / k;
                let mut above = 0;
                for tensor in tensors {
                    let (from, to) = (first.max(above), last.min(above + tensor.shape[0]));
                    if from < to {
                        let to_values = &mut values[(from - first) * k..(to - first) * k];
                        self.read(tensor, ((from - above) * k) as u64, to_values)?;
                    }
                    above += tensor.shape[0];
                }
            }
            Rows::ByTurns(tensors) => {
                let mut one = vec![0.0; values.len() / 2];
                for (turn, tensor) in tensors.iter().enumerate() {
                    self.read(tensor, (first / 2 * k) as u64, &mut one)?;
                    for (pair, row) in values.chunks_exact_mut(2 * k).zip(one.chunks_exact(k)) {
                        pair[turn * k..(turn + 1) * k].copy_from_slice(row);
                    }
                }
            }
        }
        Ok(())
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
                self.hash.update(name.as_bytes());
                self.read(&bias, 0, &mut values[at..])?;
                self.hash.update(bytemuck::cast_slice(&values[at..]));
            }
        }
        Ok(Some(values))
    }

    /// A norm's weight, kept as f32.
    async fn vector(&mut self, name: &str) -> Result<Slice> {
        let tensor = self.checkpoint.tensor(name)?;
        let mut values = vec![0.0; tensor.shape[0]];
        self.hash.update(name.as_bytes());
        self.read(&tensor, 0, &mut values)?;
        self.hash.update(bytemuck::cast_slice(&values));
        let slice = self.gpu.allocate(name, values.len() as u64 * 4).await?;
        self.gpu.write(&slice, 0, bytemuck::cast_slice(&values))?;
        self.sent(values.len() as u64 * 4).await?;
        Ok(slice)
    }

    /// Reads, checks and reports progress.
    fn read(&mut self, tensor: &Tensor<'_>, first: u64, out: &mut [f32]) -> Result<()> {
        tensor.read_f32(first, out)?;
        check_finite(tensor.name, first, out, tensor.shape.last().copied().unwrap_or(1))?;
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

/// Where the rows of a matrix come from.
enum Rows<'a> {
    /// Tensors one above the other.
    Stacked(Vec<Tensor<'a>>),
    /// A row of the one, a row of the other.
    ByTurns([Tensor<'a>; 2]),
}

impl<'a> Rows<'a> {
    fn tensors(&self) -> &[Tensor<'a>] {
        match self {
            Rows::Stacked(tensors) => tensors,
            Rows::ByTurns(tensors) => tensors,
        }
    }

    /// Rows and columns.
    fn shape(&self) -> Result<(usize, usize)> {
        let first = self.tensors().first().ok_or_else(|| Error::internal("a matrix without tensors"))?;
        Ok((self.tensors().iter().map(|t| t.shape[0]).sum(), first.shape[1]))
    }

    fn name(&self) -> &'a str {
        self.tensors().first().map_or("", |tensor| tensor.name)
    }

    fn hash_names(&self, hash: &mut Xxh3) {
        self.tensors().iter().for_each(|tensor| hash.update(tensor.name.as_bytes()));
    }

    /// The tensor that has row `row` of the matrix, and which row of the tensor that is.
    fn place(&self, row: usize) -> (&'a str, usize) {
        match self {
            Rows::ByTurns(tensors) => (tensors[row % 2].name, row / 2),
            Rows::Stacked(tensors) => {
                let mut row = row;
                for tensor in tensors {
                    if row < tensor.shape[0] {
                        return (tensor.name, row);
                    }
                    row -= tensor.shape[0];
                }
                (self.name(), row)
            }
        }
    }

    /// What is wrong with element `at` of `values`, which begin at row `first_row`.
    fn out_of_range(&self, format: WeightFormat, first_row: usize, k: usize, values: &[f32], at: usize) -> Error {
        let (name, row) = self.place(first_row + at / k);
        let what = if format == WeightFormat::F16 { "is" } else { "is in a block whose scale is" };
        Error::unsupported(format!(
            "tensor {name}: {} at row {row}, column {} {what} beyond the range of f16; load it with f32 weights",
            values[at],
            at % k
        ))
    }
}

/// Rows as they go to the device.
#[derive(Default)]
struct Packed {
    weights: Vec<u8>,
    scales: Vec<u8>,
}

impl Packed {
    /// Packs `values`; an error is the place of one that is out of range.
    fn pack(&mut self, format: WeightFormat, values: &[f32]) -> std::result::Result<(), usize> {
        self.weights.clear();
        self.scales.clear();
        match format {
            WeightFormat::F32 => self.weights.extend_from_slice(bytemuck::cast_slice(values)),
            WeightFormat::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                if let Some(at) = halves.iter().position(|h| !h.is_finite()) {
                    return Err(at);
                }
                self.weights.extend_from_slice(bytemuck::cast_slice(&halves));
            }
            WeightFormat::Q8 | WeightFormat::Q4 => {
                let mut scales = Vec::with_capacity(values.len() / QUANT_BLOCK + 1);
                quantise(format, values, &mut self.weights, &mut scales).map_err(|OutOfRange(at)| {
                    let block = &values[at..at + QUANT_BLOCK];
                    let largest = |&(_, a): &(usize, &f32), &(_, b): &(usize, &f32)| a.abs().total_cmp(&b.abs());
                    at + block.iter().enumerate().max_by(largest).map_or(0, |(i, _)| i)
                })?;
                if scales.len() % 2 == 1 {
                    scales.push(f16::ZERO);
                }
                self.scales.extend_from_slice(bytemuck::cast_slice(&scales));
            }
        }
        Ok(())
    }
}
