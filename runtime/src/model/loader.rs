//! Loading of weights from a checkpoint to the device, a few MiB at a time, so that the host never holds the model.

use std::ops::Range;
use std::sync::Arc;

use bolmo_shaders::WeightFormat;
use bolmo_shaders::sizes::QUANT_BLOCK;
use xxhash_rust::xxh3::Xxh3;

use crate::allocate;
use crate::checkpoint::formats::Formats;
use crate::checkpoint::packed::{MIN_CHUNK, Packed, Unpacked};
use crate::checkpoint::{Checkpoint, Tensor, check_finite};
use crate::config::{BlockType, Config, QkNorm};
use crate::device::{Device, OddRows, Permit, Slice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::in_place::{Files, InPlace};
use crate::model::matrix_source::{MatrixSource, fetch_rows, hash_rows, interleave};
use crate::model::weights::{GlobalLayer, LocalLayer, Matrix, Mlp, Piece, Weights};
use crate::parallel::{both, fill_chunks};

/// Elements converted and uploaded at a time.
const STRIDE: usize = if cfg!(target_family = "wasm") { 1 << 19 } else { 2 << 20 };
/// Elements of a tensor that are checked in place at a time.
const CHECKED: usize = 32 << 20;
/// Uploaded bytes after which the loader waits for the device.
const IN_FLIGHT: u64 = 64 << 20;

/// Progress callback of a load: the bytes of the checkpoint loaded so far and their total. `false` stops the load.
pub type LoadProgress<'a> = dyn FnMut(u64, u64) -> bool + Send + 'a;

/// What a load results in.
pub(crate) struct Loaded {
    pub(crate) weights: Weights,
    /// Hash of names, formats and weights as kernels read them.
    pub(crate) fingerprint: u128,
    /// Files whose contents are used in place.
    pub(crate) files: Files,
    /// If some matrices do not suit their format.
    pub(crate) warning: Option<String>,
}

/// The state of a load.
pub(crate) struct Loader<'a> {
    device: &'a Arc<Device>,
    checkpoint: &'a Checkpoint,
    formats: Formats,
    /// Held while work is submitted.
    permit: Option<Permit>,
    progress: &'a mut LoadProgress<'a>,
    done: u64,
    total: u64,
    in_flight: u64,
    /// Matrices kept in a larger format than requested, because the length of their rows does not suit it.
    enlarged: Vec<String>,
    hash: Xxh3,
    /// Files whose contents the model uses in place.
    files: Files,
    /// Hash of the scales, separate from that of the weights: the number of rows uploaded at a time depends on the
    /// adapter, and the fingerprint must not.
    scales_hash: Xxh3,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(
        device: &'a Arc<Device>,
        checkpoint: &'a Checkpoint,
        formats: Formats,
        permit: Permit,
        progress: &'a mut LoadProgress<'a>,
    ) -> Self {
        let total = checkpoint.contents_bytes();
        Self {
            device,
            checkpoint,
            formats,
            permit: Some(permit),
            progress,
            done: 0,
            total,
            in_flight: 0,
            enlarged: Vec::new(),
            files: Files::default(),
            hash: Xxh3::new(),
            scales_hash: Xxh3::new(),
        }
    }

    /// Loads all weights.
    pub(crate) async fn load(mut self, config: &Config) -> Result<Loaded> {
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
        self.device.flush().await?;
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
                "{} matrices are kept in a larger format because their rows cannot be divided into whole blocks; \
                 the first is {first}",
                self.enlarged.len()
            )
        });
        self.hash.update(&self.scales_hash.digest128().to_le_bytes());
        Ok(Loaded { weights, fingerprint: self.hash.digest128(), files: self.files, warning })
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
        let gate_up = self.put(format, &MatrixSource::Interleaved([gate?, up?]), None).await?;
        Ok(Mlp { gate_up, down: self.put(format, &MatrixSource::Stacked(vec![down?]), None).await? })
    }

    async fn linear(&mut self, name: &str) -> Result<Matrix> {
        self.matrix(self.formats.local, &[&format!("{name}.weight")], &[Some(&format!("{name}.bias"))]).await
    }

    /// Loads the tensors `names`, stacked, in `format`. `biases` is empty or has one entry per tensor; the bias of an
    /// entry that is `None` is 0.
    async fn matrix(&mut self, format: WeightFormat, names: &[&str], biases: &[Option<&str>]) -> Result<Matrix> {
        let checkpoint = self.checkpoint;
        let tensors = names.iter().map(|name| checkpoint.tensor(name)).collect::<Result<Vec<_>>>()?;
        let bias = self.bias(&tensors, biases).await?;
        self.put(format, &MatrixSource::Stacked(tensors), bias.as_deref()).await
    }

    /// Puts a matrix onto the device: tensors that it can use in place as pieces of their own, and rows of all others
    /// as copies.
    async fn put(&mut self, wanted: WeightFormat, source: &MatrixSource<'_>, bias: Option<&[f32]>) -> Result<Matrix> {
        let (n, k) = source.shape()?;
        let format = wanted.fitting(k);
        if format != wanted {
            self.enlarged.push(source.name().to_owned());
        }
        source.hash_names(&mut self.hash);
        let in_place = |tensor: &Tensor<'_>| InPlace::new(self.device, self.checkpoint, tensor, format);
        let in_place: Vec<_> = source.tensors().iter().map(in_place).collect();
        let mut matrix = Matrix { n, k, format, pieces: Vec::new() };
        match source {
            MatrixSource::Interleaved(tensors) => match <[_; 2]>::try_from(in_place) {
                Ok([Some(even), Some(odd)]) => {
                    self.check_in_place(tensors).await?;
                    self.files.keep(&even);
                    self.files.keep(&odd);
                    let odd_rows = Some(OddRows { weights: odd.weights, scales: odd.scales });
                    let InPlace { weights, scales, .. } = even;
                    matrix.pieces.push(Piece { first_row: 0, rows: n, weights, scales, odd_rows, bias: None });
                }
                _ => self.copy(source, 0..n, bias, &mut matrix).await?,
            },
            MatrixSource::Stacked(tensors) => {
                let mut rows = 0..0;
                for (tensor, in_place) in tensors.iter().zip(in_place) {
                    let Some(in_place) = in_place else {
                        rows.end += tensor.shape[0];
                        continue;
                    };
                    self.copy(source, rows.clone(), bias, &mut matrix).await?;
                    self.check_in_place(std::slice::from_ref(tensor)).await?;
                    self.files.keep(&in_place);
                    let (first_row, count) = (rows.end, tensor.shape[0]);
                    // Of stacked tensors, only the gates have biases.
                    let own = bias.map(|bias| &bias[first_row..first_row + count]);
                    let bias = match own.filter(|own| own.iter().any(|&value| value != 0.0)) {
                        Some(own) => Some(self.bias_slice(tensor.name, own).await?),
                        None => None,
                    };
                    let InPlace { weights, scales, .. } = in_place;
                    matrix.pieces.push(Piece { first_row, rows: count, weights, scales, odd_rows: None, bias });
                    rows = first_row + count..first_row + count;
                }
                self.copy(source, rows, bias, &mut matrix).await?;
            }
        }
        Ok(matrix)
    }

    /// Hashes tensors that are used in place, row by row in turns, and checks that their weights or scales are finite,
    /// on two threads.
    async fn check_in_place(&mut self, tensors: &[Tensor<'_>]) -> Result<()> {
        let Some(first) = tensors.first() else { return Ok(()) };
        let [n, k] = [first.shape[0], first.shape[1]];
        let rows_at_once = (CHECKED / k.max(1)).max(1);
        for row in (0..n).step_by(rows_at_once) {
            let rows = row..n.min(row + rows_at_once);
            self.pause();
            let (hash, scales_hash) = (&mut self.hash, &mut self.scales_hash);
            let (checked, ()) = both(
                || tensors.iter().try_for_each(|tensor| tensor.check_rows(rows.clone())),
                || hash_rows(tensors, rows.clone(), hash, scales_hash),
            );
            checked?;
            self.go_on().await?;
            for tensor in tensors {
                self.advance(tensor, rows.len() * k).await?;
            }
        }
        Ok(())
    }

    /// The bias of some rows of a matrix on the device.
    async fn bias_slice(&mut self, name: &str, values: &[f32]) -> Result<Slice> {
        let slice = self.device.allocate(name, values.len() as u64 * 4).await?;
        self.device.write(&slice, 0, bytemuck::cast_slice(values))?;
        Ok(slice)
    }

    /// Converts rows of a matrix and uploads them, piece by piece.
    async fn copy(
        &mut self,
        source: &MatrixSource<'_>,
        rows: Range<usize>,
        bias: Option<&[f32]>,
        matrix: &mut Matrix,
    ) -> Result<()> {
        let (name, k, format) = (source.name(), matrix.k, matrix.format);
        let row_bytes = format.weight_bytes(2, k as u64);
        let limit = self.device.capabilities.max_binding_bytes.min(self.device.capabilities.max_buffer_bytes);
        // The number is even, because rows and scales are stored in pairs.
        let piece_rows = 2 * (limit / row_bytes.max(1)) as usize;
        if piece_rows == 0 {
            return Err(Error::unsupported(format!(
                "tensor {name}: two rows take {row_bytes} bytes, but the adapter {} allows bindings of at most {limit}",
                self.device.adapter.name
            )));
        }
        let mut pieces = Vec::new();
        for first_row in rows.clone().step_by(piece_rows) {
            let rows = piece_rows.min(rows.end - first_row);
            let weights = self.device.allocate(name, format.weight_bytes(rows as u64, k as u64)).await?;
            let scales = match format.scale_bytes(rows as u64, k as u64) {
                0 => None,
                bytes => Some(self.device.allocate(name, bytes).await?),
            };
            let bias = match bias {
                Some(values) => Some(self.bias_slice(name, &values[first_row..first_row + rows]).await?),
                None => None,
            };
            pieces.push(Piece { first_row, rows, weights, scales, odd_rows: None, bias });
        }
        let mut packed = Packed::default();
        let mut values = Vec::new();
        for piece in &pieces {
            let rows_at_once = (STRIDE / k).next_multiple_of(2);
            for row in (0..piece.rows).step_by(rows_at_once) {
                let rows = rows_at_once.min(piece.rows - row);
                let first = piece.first_row + row;
                if source.is_packed() {
                    packed.clear();
                    self.copy_packed(source, first, rows, &mut packed).await?;
                } else {
                    allocate::resize(&mut values, rows * k, name)?;
                    self.fill(source, first, k, &mut values).await?;
                    packed.pack(format, &values).map_err(|unpacked| match unpacked {
                        Unpacked::OutOfRange(at) => source.out_of_range(format, first, k, &values, at),
                        Unpacked::Memory(error) => error.context(name),
                    })?;
                }
                self.hash.update(&packed.weights);
                self.scales_hash.update(&packed.scales);
                // A word on the device holds two scales; only the last rows of a matrix can fill half a word.
                packed.scales.resize(packed.scales.len().next_multiple_of(4), 0);
                let offset = format.weight_bytes(row as u64, k as u64);
                self.device.write(&piece.weights, offset, &packed.weights)?;
                if let Some(scales) = &piece.scales {
                    self.device.write(scales, format.scale_bytes(row as u64, k as u64), &packed.scales)?;
                }
                self.sent((packed.weights.len() + packed.scales.len()) as u64).await?;
            }
        }
        matrix.pieces.extend(pieces);
        Ok(())
    }

    /// Reads the rows of a matrix of `k` columns from row `first` on.
    async fn fill(&mut self, source: &MatrixSource<'_>, first: usize, k: usize, values: &mut [f32]) -> Result<()> {
        match source {
            MatrixSource::Stacked(tensors) => {
                let last = first + values.len() / k;
                let mut above = 0;
                for tensor in tensors {
                    let (from, to) = (first.max(above), last.min(above + tensor.shape[0]));
                    if from < to {
                        let to_values = &mut values[(from - first) * k..(to - first) * k];
                        self.read(tensor, ((from - above) * k) as u64, to_values).await?;
                    }
                    above += tensor.shape[0];
                }
            }
            MatrixSource::Interleaved(tensors) => {
                let mut one = allocate::zeros(values.len() / 2, source.name())?;
                for (turn, tensor) in tensors.iter().enumerate() {
                    self.read(tensor, (first / 2 * k) as u64, &mut one).await?;
                    for (pair, row) in values.chunks_exact_mut(2 * k).zip(one.chunks_exact(k)) {
                        pair[turn * k..(turn + 1) * k].copy_from_slice(row);
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends `rows` rows of a matrix from row `first` on, as stored in the checkpoint.
    async fn copy_packed(
        &mut self,
        source: &MatrixSource<'_>,
        first: usize,
        rows: usize,
        packed: &mut Packed,
    ) -> Result<()> {
        let Packed { weights, scales } = packed;
        match source {
            MatrixSource::Stacked(tensors) => {
                let mut above = 0;
                for tensor in tensors {
                    let (from, to) = (first.max(above), (first + rows).min(above + tensor.shape[0]));
                    if from < to {
                        self.pause();
                        fetch_rows(tensor, from - above, to - from).await?;
                        tensor.read_rows(from - above, to - from, weights, scales)?;
                        self.go_on().await?;
                        self.advance(tensor, (to - from) * tensor.shape[1]).await?;
                    }
                    above += tensor.shape[0];
                }
            }
            MatrixSource::Interleaved(tensors) => {
                let k = tensors[0].shape[1];
                let mut both = [Packed::default(), Packed::default()];
                for (tensor, one) in tensors.iter().zip(&mut both) {
                    self.pause();
                    fetch_rows(tensor, first / 2, rows / 2).await?;
                    tensor.read_rows(first / 2, rows / 2, &mut one.weights, &mut one.scales)?;
                    self.go_on().await?;
                    self.advance(tensor, rows / 2 * k).await?;
                }
                let [one, other] = both;
                interleave(weights, &one.weights, &other.weights, one.weights.len() / (rows / 2).max(1));
                interleave(scales, &one.scales, &other.scales, k / QUANT_BLOCK * 2);
            }
        }
        Ok(())
    }

    /// Reads the concatenated biases of a matrix made of `tensors`.
    async fn bias(&mut self, tensors: &[Tensor<'_>], names: &[Option<&str>]) -> Result<Option<Vec<f32>>> {
        if names.is_empty() {
            return Ok(None);
        }
        let mut values = Vec::new();
        for (tensor, name) in tensors.iter().zip(names) {
            let at = values.len();
            allocate::resize(&mut values, at + tensor.shape[0], tensor.name)?;
            if let Some(name) = name {
                let bias = self.checkpoint.tensor(name)?;
                self.hash.update(name.as_bytes());
                self.read(&bias, 0, &mut values[at..]).await?;
                self.hash.update(bytemuck::cast_slice(&values[at..]));
            }
        }
        Ok(Some(values))
    }

    /// Loads the weight of a norm, in f32.
    async fn vector(&mut self, name: &str) -> Result<Slice> {
        let tensor = self.checkpoint.tensor(name)?;
        let mut values = allocate::zeros(tensor.shape[0], name)?;
        self.hash.update(name.as_bytes());
        self.read(&tensor, 0, &mut values).await?;
        self.hash.update(bytemuck::cast_slice(&values));
        let slice = self.device.allocate(name, values.len() as u64 * 4).await?;
        self.device.write(&slice, 0, bytemuck::cast_slice(&values))?;
        self.sent(values.len() as u64 * 4).await?;
        Ok(slice)
    }

    /// Reads elements, checks that they are finite, and reports progress.
    async fn read(&mut self, tensor: &Tensor<'_>, first: u64, out: &mut [f32]) -> Result<()> {
        self.pause();
        tensor.fetch(first, out.len() as u64).await?;
        let row = tensor.shape.last().copied().unwrap_or(1);
        fill_chunks(out, MIN_CHUNK, |at, part| {
            tensor.read_f32(first + at as u64, part)?;
            check_finite(tensor.name, first + at as u64, part, row)
        })?;
        self.go_on().await?;
        self.advance(tensor, out.len()).await
    }

    /// Gives the permit back until [`Self::go_on`]: the program's reader and listener may suspend the device.
    fn pause(&mut self) {
        self.permit = None;
    }

    /// Takes a permit again. Waits while the device is suspended.
    async fn go_on(&mut self) -> Result<()> {
        self.permit = Some(self.device.continue_work(&[]).await?);
        Ok(())
    }

    /// Reports progress by `elements` elements. Waits while the device is suspended, as the listener may do as well.
    async fn advance(&mut self, tensor: &Tensor<'_>, elements: usize) -> Result<()> {
        self.done += tensor.dtype.bytes(elements as u64);
        self.pause();
        if !(self.progress)(self.done.min(self.total), self.total) {
            return Err(Error::new(ErrorKind::Cancelled, "loading was cancelled"));
        }
        self.go_on().await
    }

    /// Counts uploaded bytes, and waits for the device now and then.
    async fn sent(&mut self, bytes: u64) -> Result<()> {
        self.in_flight += bytes;
        if self.in_flight >= IN_FLIGHT {
            self.in_flight = 0;
            self.device.flush().await?;
        }
        Ok(())
    }
}
