//! Parameters of a model in training: weights, gradients and moments in flat arenas on the device, so that the
//! optimizer is one kernel over a few buffers. The runtime's stages see the same memory as matrices and vectors.

pub(crate) mod optimizer;
pub(crate) mod snapshot;
pub(crate) mod weights;

use std::sync::Arc;

use bolmo_runtime::unstable::{Device, Matrix, Piece, Recorder, Slice};
use bolmo_runtime::{Error, Result, WeightFormat};

/// Bytes of weights in flight before the queue is flushed.
const FLUSH_BYTES: u64 = 64 << 20;

/// Parameters that share a learning rate and a weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Byte and suffix embeddings, or those of a subword model; no weight decay.
    Embeddings,
    /// The encoder's layers and norm, the boundary predictor and the projection of pooled states.
    Encoder,
    /// The decoder and the head; the final norm and the head of a subword model.
    Local,
    /// The global blocks.
    Global,
}

impl Group {
    /// Every group.
    pub const ALL: [Group; 4] = [Group::Embeddings, Group::Encoder, Group::Local, Group::Global];
}

/// Source of tensors by their names in checkpoints.
pub trait TensorSource {
    /// Reads all elements of a tensor, row by row.
    ///
    /// # Errors
    /// A tensor that does not exist or cannot be read.
    fn read(&self, name: &str) -> Result<Vec<f32>>;
}

/// Tensors of a checkpoint that make up a matrix on the device.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    /// Tensors stacked one above the other, each with its number of rows, and the bias of each, if it has one.
    Stacked(Vec<(String, usize)>, Vec<Option<String>>),
    /// Two tensors whose rows alternate.
    Interleaved([String; 2]),
}

/// A range of bytes in an arena.
#[derive(Debug, Clone, Copy)]
struct Location {
    arena: usize,
    offset: u64,
    size: u64,
}

impl Location {
    fn of(&self, arenas: &[Slice]) -> Result<Slice> {
        arenas[self.arena].part(self.offset, self.size)
    }
}

/// Some rows of a matrix, and the same rows of its bias.
#[derive(Debug, Clone)]
struct PieceLocation {
    first_row: usize,
    rows: usize,
    weights: Location,
    bias: Option<Location>,
}

/// A matrix or vector; a vector is a matrix of one row.
#[derive(Debug, Clone)]
struct ParameterBlock {
    source: Source,
    n: usize,
    k: usize,
    pieces: Vec<PieceLocation>,
}

/// Allocator of a model's weights, in the order of the requests.
pub(crate) trait Allocator {
    /// Allocates a vector.
    fn vector(&mut self, group: Group, name: String, len: usize) -> Result<Slice>;
    /// Allocates a matrix of stacked tensors, each with its number of rows, of `k` columns.
    fn stacked(
        &mut self,
        group: Group,
        parts: Vec<(String, usize)>,
        biases: Vec<Option<String>>,
        k: usize,
    ) -> Result<Matrix>;
    /// Allocates a matrix of two tensors of `rows` rows each, whose rows alternate.
    fn interleaved(&mut self, group: Group, names: [String; 2], rows: usize, k: usize) -> Result<Matrix>;

    /// Allocates a matrix of one tensor, without a bias.
    fn matrix(&mut self, group: Group, name: String, n: usize, k: usize) -> Result<Matrix> {
        self.stacked(group, vec![(name, n)], Vec::new(), k)
    }
}

/// Allocator that only plans locations.
struct Planner {
    limit: u64,
    alignment: u64,
    /// Placeholder for memory that is not allocated yet.
    placeholder: Slice,
    blocks: Vec<ParameterBlock>,
    /// Group and size of each arena.
    arenas: Vec<(Group, u64)>,
}

impl Planner {
    fn place(&mut self, group: Group, floats: usize) -> Result<Location> {
        let size = 4 * floats as u64;
        let aligned = size.next_multiple_of(self.alignment);
        if aligned > self.limit {
            return Err(Error::unsupported(format!(
                "a piece of a tensor has {size} bytes, but the adapter's bindings hold at most {}; train a smaller \
                 model",
                self.limit
            )));
        }
        let open = self.arenas.iter().position(|&(of, used)| of == group && used + aligned <= self.limit);
        let arena = open.unwrap_or_else(|| {
            self.arenas.push((group, 0));
            self.arenas.len() - 1
        });
        let offset = self.arenas[arena].1;
        self.arenas[arena].1 += aligned;
        Ok(Location { arena, offset, size })
    }

    fn block(&mut self, group: Group, source: Source, n: usize, k: usize) -> Result<Matrix> {
        let bias = matches!(&source, Source::Stacked(_, biases) if !biases.is_empty());
        // A multiple of 4, as kernels of gradients read four columns at a time.
        let most = 4 * (self.limit / (16 * k as u64)).max(1) as usize;
        let mut pieces = Vec::new();
        for first_row in (0..n).step_by(most) {
            let rows = most.min(n - first_row);
            let weights = self.place(group, rows * k)?;
            let bias = if bias { Some(self.place(group, rows)?) } else { None };
            pieces.push(PieceLocation { first_row, rows, weights, bias });
        }
        self.blocks.push(ParameterBlock { source, n, k, pieces });
        let of = |piece: &PieceLocation| Piece {
            first_row: piece.first_row,
            rows: piece.rows,
            weights: self.placeholder.clone(),
            scales: None,
            odd_rows: None,
            bias: None,
        };
        let pieces = self.blocks.last().map(|block| block.pieces.iter().map(of).collect()).unwrap_or_default();
        Ok(Matrix { n, k, format: WeightFormat::F32, pieces })
    }
}

impl Allocator for Planner {
    fn vector(&mut self, group: Group, name: String, len: usize) -> Result<Slice> {
        self.block(group, Source::Stacked(vec![(name, 1)], Vec::new()), 1, len)?;
        Ok(self.placeholder.clone())
    }

    fn stacked(
        &mut self,
        group: Group,
        parts: Vec<(String, usize)>,
        biases: Vec<Option<String>>,
        k: usize,
    ) -> Result<Matrix> {
        let n = parts.iter().map(|(_, rows)| rows).sum();
        self.block(group, Source::Stacked(parts, biases), n, k)
    }

    fn interleaved(&mut self, group: Group, names: [String; 2], rows: usize, k: usize) -> Result<Matrix> {
        self.block(group, Source::Interleaved(names), 2 * rows, k)
    }
}

/// Allocator that returns the locations of a [`Planner`], in the same order, as parts of `arenas`.
struct Views<'a> {
    blocks: std::slice::Iter<'a, ParameterBlock>,
    arenas: &'a [Slice],
}

impl Views<'_> {
    fn next(&mut self) -> Result<Matrix> {
        let block = self.blocks.next().ok_or_else(|| Error::internal("a model has more weights than were planned"))?;
        let mut pieces = Vec::new();
        for piece in &block.pieces {
            pieces.push(Piece {
                first_row: piece.first_row,
                rows: piece.rows,
                weights: piece.weights.of(self.arenas)?,
                scales: None,
                odd_rows: None,
                bias: piece.bias.map(|location| location.of(self.arenas)).transpose()?,
            });
        }
        Ok(Matrix { n: block.n, k: block.k, format: WeightFormat::F32, pieces })
    }
}

impl Allocator for Views<'_> {
    fn vector(&mut self, _: Group, name: String, _: usize) -> Result<Slice> {
        let mut matrix = self.next()?;
        matrix.pieces.pop().map(|piece| piece.weights).ok_or_else(|| Error::internal(format!("{name} has no memory")))
    }

    fn stacked(&mut self, _: Group, _: Vec<(String, usize)>, _: Vec<Option<String>>, _: usize) -> Result<Matrix> {
        self.next()
    }

    fn interleaved(&mut self, _: Group, _: [String; 2], _: usize, _: usize) -> Result<Matrix> {
        self.next()
    }
}

/// Parameters of one group in one flat buffer, with their gradients and moments. Each tensor starts at a multiple of
/// the device's alignment; the gaps are zero.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) group: Group,
    pub(crate) weights: Slice,
    /// Absent if the group is not trained.
    pub(crate) trained: Option<Trained>,
}

/// Gradients and moments of trained weights.
#[derive(Debug)]
pub(crate) struct Trained {
    pub(crate) grads: Slice,
    /// First and second moment.
    pub(crate) moments: [Slice; 2],
}

/// Parameters in arenas. `W` is the view of the runtime's stages on them.
#[derive(Debug)]
pub(crate) struct Parameters<W> {
    device: Arc<Device>,
    blocks: Vec<ParameterBlock>,
    pub(crate) arenas: Vec<Arena>,
    pub(crate) weights: W,
    /// The gradients in the same form. A frozen group has none: its views alias the weights and must not be written.
    pub(crate) grads: W,
}

impl<W> Parameters<W> {
    /// Plans and allocates the parameters that `build` requests. Groups for kind `trained` is true get gradients and
    /// moments.
    pub(crate) async fn new(
        device: &Arc<Device>,
        trained: impl Fn(Group) -> bool,
        build: impl Fn(&mut dyn Allocator) -> Result<W>,
    ) -> Result<Self> {
        let placeholder = device.allocate("placeholder", 16).await?;
        let limit = device.capabilities.max_binding_bytes.min(device.capabilities.max_buffer_bytes);
        let alignment = device.align(1);
        let limit = limit / alignment * alignment;
        let mut planner =
            Planner { limit, alignment, placeholder: placeholder.clone(), blocks: Vec::new(), arenas: Vec::new() };
        build(&mut planner)?;
        let Planner { blocks, arenas: sizes, .. } = planner;
        let mut arenas = Vec::new();
        for (group, size) in sizes {
            let weights = device.allocate("weights", size).await?;
            let trained = if trained(group) {
                let grads = device.allocate("gradients", size).await?;
                let moments = [device.allocate("moments", size).await?, device.allocate("moments", size).await?];
                Some(Trained { grads, moments })
            } else {
                None
            };
            arenas.push(Arena { group, weights, trained });
        }
        let view = |slices: Vec<Slice>| {
            let mut views = Views { blocks: blocks.iter(), arenas: &slices };
            build(&mut views)
        };
        let weights = view(arenas.iter().map(|arena| arena.weights.clone()).collect())?;
        // Weights of frozen groups stand in for their gradients, so that locations match.
        let grads = view(
            arenas
                .iter()
                .map(|arena| arena.trained.as_ref().map_or(&arena.weights, |trained| &trained.grads).clone())
                .collect(),
        )?;
        Ok(Self { device: device.clone(), blocks, arenas, weights, grads })
    }

    /// Loads the weights from a checkpoint, tensor by tensor.
    pub(crate) async fn load(&self, source: &dyn TensorSource) -> Result<()> {
        // A dry run counts memory and has no values to load.
        if self.device.is_dry_run() {
            return Ok(());
        }
        let arenas: Vec<Slice> = self.arenas.iter().map(|arena| arena.weights.clone()).collect();
        let mut in_flight = 0;
        for block in &self.blocks {
            let (values, bias) = block.gather(source)?;
            for piece in &block.pieces {
                let range = piece.first_row * block.k..(piece.first_row + piece.rows) * block.k;
                self.device.write(&piece.weights.of(&arenas)?, 0, bytemuck::cast_slice(&values[range]))?;
                if let Some(location) = piece.bias {
                    let range = piece.first_row..piece.first_row + piece.rows;
                    self.device.write(&location.of(&arenas)?, 0, bytemuck::cast_slice(&bias[range]))?;
                }
                in_flight += piece.weights.size;
                if in_flight > FLUSH_BYTES {
                    in_flight = 0;
                    self.device.flush().await?;
                }
            }
        }
        self.device.flush().await
    }

    /// Calls `each` with the name and elements of every tensor, as in checkpoints.
    pub(crate) async fn each_tensor(
        &self,
        recorder: &mut Recorder,
        kind: TensorKind,
        each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let of = |arena: &Arena| match (kind, &arena.trained) {
            (TensorKind::Weights, _) => Some(arena.weights.clone()),
            (TensorKind::Gradients, Some(trained)) => Some(trained.grads.clone()),
            (TensorKind::Gradients, None) => None,
        };
        let arenas: Vec<Option<Slice>> = self.arenas.iter().map(of).collect();
        for block in &self.blocks {
            let (mut values, mut bias) = (Vec::new(), Vec::new());
            for piece in &block.pieces {
                let slice_of = |location: Location| match &arenas[location.arena] {
                    Some(arena) => arena.part(location.offset, location.size).map(Some),
                    None => Ok(None),
                };
                let Some(weights) = slice_of(piece.weights)? else { break };
                values.extend(recorder.read_f32(&[weights]).await?);
                if let Some(slice) = piece.bias.map(slice_of).transpose()?.flatten() {
                    bias.extend(recorder.read_f32(&[slice]).await?);
                }
            }
            if values.len() == block.n * block.k {
                block.scatter(&values, &bias, each)?;
            }
        }
        Ok(())
    }
}

/// Buffers of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorKind {
    Weights,
    Gradients,
}

impl ParameterBlock {
    /// Assembles the block's rows and biases from the tensors of a checkpoint.
    fn gather(&self, source: &dyn TensorSource) -> Result<(Vec<f32>, Vec<f32>)> {
        let read = |name: &str, count: usize| {
            let values = source.read(name)?;
            if values.len() != count {
                return Err(Error::bad_checkpoint(format!(
                    "tensor {name} has {} elements, expected {count}",
                    values.len()
                )));
            }
            Ok(values)
        };
        match &self.source {
            Source::Stacked(parts, biases) => {
                let (mut values, mut bias) = (Vec::with_capacity(self.n * self.k), Vec::new());
                for (name, rows) in parts {
                    values.extend(read(name, rows * self.k)?);
                }
                for ((_, rows), name) in parts.iter().zip(biases) {
                    match name {
                        Some(name) => bias.extend(read(name, *rows)?),
                        None => bias.resize(bias.len() + rows, 0.0),
                    }
                }
                Ok((values, bias))
            }
            Source::Interleaved([a, b]) => {
                let (a, b) = (read(a, self.n / 2 * self.k)?, read(b, self.n / 2 * self.k)?);
                let pairs = a.chunks_exact(self.k).zip(b.chunks_exact(self.k));
                Ok((pairs.flat_map(|(a, b)| a.iter().chain(b).copied()).collect(), Vec::new()))
            }
        }
    }

    /// Splits the block's rows and biases into the tensors of a checkpoint.
    fn scatter(&self, values: &[f32], bias: &[f32], each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        match &self.source {
            Source::Stacked(parts, biases) => {
                let mut row = 0;
                for (i, (name, rows)) in parts.iter().enumerate() {
                    each(name, values[row * self.k..(row + rows) * self.k].to_vec())?;
                    if let Some(Some(name)) = biases.get(i) {
                        each(name, bias[row..row + rows].to_vec())?;
                    }
                    row += rows;
                }
                Ok(())
            }
            Source::Interleaved(names) => {
                for (first, name) in names.iter().enumerate() {
                    let rows = values.chunks_exact(self.k).skip(first).step_by(2);
                    each(name, rows.flatten().copied().collect())?;
                }
                Ok(())
            }
        }
    }
}
