//! A model's parameters for training: every weight, its gradient and its moments in flat arenas on the device, so that the optimiser is
//! one kernel over a few buffers, and the weights as the runtime's stages take them.

pub(crate) mod optimizer;
pub mod snapshot;
pub(crate) mod weights;

use std::sync::Arc;

use bolmo_runtime::internals::{Gpu, Matrix, Piece, Recorder, Slice};
use bolmo_runtime::{Error, Result, WeightFormat};

/// Parameters that share a learning rate and a weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Byte and suffix embeddings, or those of a subword model; no weight decay.
    Embeddings,
    /// The encoder's layers and norm, the boundary predictor and the projection of pooled states.
    Encoder,
    /// The decoder and the head, and what a subword model has beside its embeddings and blocks.
    Local,
    /// The global blocks.
    Global,
}

impl Group {
    /// Every group.
    pub const ALL: [Group; 4] = [Group::Embeddings, Group::Encoder, Group::Local, Group::Global];
}

/// Whoever has the values of tensors by their names in checkpoints.
pub trait TensorSource {
    /// All elements of the tensor, row by row.
    ///
    /// # Errors
    /// Whatever stands in the way of reading them.
    fn read(&self, name: &str) -> Result<Vec<f32>>;
}

/// What the rows of a matrix on the device are in a checkpoint.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    /// Tensors one above the other, each with its rows, and the biases of those that have one.
    Stacked(Vec<(String, usize)>, Vec<Option<String>>),
    /// A row of the one, a row of the other.
    ByTurns([String; 2]),
}

/// Where some floats lie: which arena, and the first byte and the number of bytes in it.
#[derive(Debug, Clone, Copy)]
struct Place {
    arena: usize,
    offset: u64,
    size: u64,
}

impl Place {
    fn of(&self, arenas: &[Slice]) -> Result<Slice> {
        arenas[self.arena].part(self.offset, self.size)
    }
}

/// Some rows of a matrix, and the same rows of its bias.
#[derive(Debug, Clone)]
struct PiecePlace {
    first_row: usize,
    rows: usize,
    weights: Place,
    bias: Option<Place>,
}

/// One matrix or vector; a vector is a matrix of one row.
#[derive(Debug, Clone)]
struct Block {
    source: Source,
    n: usize,
    k: usize,
    pieces: Vec<PiecePlace>,
}

/// Hands out memory for the weights of a model, in the order in which they are asked for.
pub(crate) trait Memory {
    /// A vector.
    fn vector(&mut self, group: Group, name: String, len: usize) -> Result<Slice>;
    /// Tensors one above the other, with so many rows of `k` columns each.
    fn stacked(
        &mut self,
        group: Group,
        parts: Vec<(String, usize)>,
        biases: Vec<Option<String>>,
        k: usize,
    ) -> Result<Matrix>;
    /// The rows of two tensors of `rows` rows by turns.
    fn by_turns(&mut self, group: Group, names: [String; 2], rows: usize, k: usize) -> Result<Matrix>;

    /// A matrix without a bias that is one tensor.
    fn matrix(&mut self, group: Group, name: String, n: usize, k: usize) -> Result<Matrix> {
        self.stacked(group, vec![(name, n)], Vec::new(), k)
    }
}

/// Decides where everything lies.
struct Planner {
    limit: u64,
    alignment: u64,
    /// Stands for memory that is not there yet.
    nothing: Slice,
    blocks: Vec<Block>,
    /// Group and bytes.
    arenas: Vec<(Group, u64)>,
}

impl Planner {
    fn place(&mut self, group: Group, floats: usize) -> Result<Place> {
        let size = 4 * floats as u64;
        let aligned = size.next_multiple_of(self.alignment);
        if aligned > self.limit {
            return Err(Error::unsupported(format!(
                "a tensor's piece of {size} bytes does not fit a binding of {} bytes",
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
        Ok(Place { arena, offset, size })
    }

    fn block(&mut self, group: Group, source: Source, n: usize, k: usize) -> Result<Matrix> {
        let bias = matches!(&source, Source::Stacked(_, biases) if !biases.is_empty());
        // A multiple of four: products of gradients take columns by fours.
        let most = 4 * (self.limit / (16 * k as u64)).max(1) as usize;
        let mut pieces = Vec::new();
        for first_row in (0..n).step_by(most) {
            let rows = most.min(n - first_row);
            let weights = self.place(group, rows * k)?;
            let bias = if bias { Some(self.place(group, rows)?) } else { None };
            pieces.push(PiecePlace { first_row, rows, weights, bias });
        }
        self.blocks.push(Block { source, n, k, pieces });
        let of = |piece: &PiecePlace| Piece {
            first_row: piece.first_row,
            rows: piece.rows,
            weights: self.nothing.clone(),
            scales: None,
            bias: None,
        };
        let pieces = self.blocks.last().map(|block| block.pieces.iter().map(of).collect()).unwrap_or_default();
        Ok(Matrix { n, k, format: WeightFormat::F32, pieces })
    }
}

impl Memory for Planner {
    fn vector(&mut self, group: Group, name: String, len: usize) -> Result<Slice> {
        self.block(group, Source::Stacked(vec![(name, 1)], Vec::new()), 1, len)?;
        Ok(self.nothing.clone())
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

    fn by_turns(&mut self, group: Group, names: [String; 2], rows: usize, k: usize) -> Result<Matrix> {
        self.block(group, Source::ByTurns(names), 2 * rows, k)
    }
}

/// Gives out what a [`Planner`] has planned, in the same order, within `arenas`.
struct Within<'a> {
    blocks: std::slice::Iter<'a, Block>,
    arenas: &'a [Slice],
}

impl Within<'_> {
    fn next(&mut self) -> Result<Matrix> {
        let block = self.blocks.next().ok_or_else(|| Error::internal("more weights than were planned"))?;
        let mut pieces = Vec::new();
        for piece in &block.pieces {
            pieces.push(Piece {
                first_row: piece.first_row,
                rows: piece.rows,
                weights: piece.weights.of(self.arenas)?,
                scales: None,
                bias: piece.bias.map(|place| place.of(self.arenas)).transpose()?,
            });
        }
        Ok(Matrix { n: block.n, k: block.k, format: WeightFormat::F32, pieces })
    }
}

impl Memory for Within<'_> {
    fn vector(&mut self, _: Group, name: String, _: usize) -> Result<Slice> {
        let mut matrix = self.next()?;
        matrix.pieces.pop().map(|piece| piece.weights).ok_or_else(|| Error::internal(format!("{name} without memory")))
    }

    fn stacked(&mut self, _: Group, _: Vec<(String, usize)>, _: Vec<Option<String>>, _: usize) -> Result<Matrix> {
        self.next()
    }

    fn by_turns(&mut self, _: Group, _: [String; 2], _: usize, _: usize) -> Result<Matrix> {
        self.next()
    }
}

/// Some parameters of one group in one buffer, with all that the optimiser keeps for them; flat, each tensor at a multiple of the
/// device's alignment, with zeros between.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) group: Group,
    pub(crate) weights: Slice,
    /// Absent if the group is not trained.
    pub(crate) trained: Option<Trained>,
}

/// What there is for each weight that is trained.
#[derive(Debug)]
pub(crate) struct Trained {
    pub(crate) grads: Slice,
    /// First and second moment.
    pub(crate) moments: [Slice; 2],
}

/// Parameters in arenas. `W` is how the stages see them.
#[derive(Debug)]
pub(crate) struct Parameters<W> {
    gpu: Arc<Gpu>,
    blocks: Vec<Block>,
    pub(crate) arenas: Vec<Arena>,
    pub(crate) weights: W,
    /// The gradients in the same form; those of groups that are not trained have no memory and must not be used.
    pub(crate) grads: W,
}

impl<W> Parameters<W> {
    /// Plans and allocates the parameters that `build` asks for; gradients and moments for the groups that `trained` says.
    pub(crate) async fn new(
        gpu: &Arc<Gpu>,
        trained: impl Fn(Group) -> bool,
        build: impl Fn(&mut dyn Memory) -> Result<W>,
    ) -> Result<Self> {
        let nothing = gpu.allocate("nothing", 16).await?;
        let limit = gpu.capabilities.max_binding_bytes.min(gpu.capabilities.max_buffer_bytes);
        let alignment = gpu.align(1);
        let limit = limit / alignment * alignment;
        let mut planner =
            Planner { limit, alignment, nothing: nothing.clone(), blocks: Vec::new(), arenas: Vec::new() };
        build(&mut planner)?;
        let Planner { blocks, arenas: sizes, .. } = planner;
        let mut arenas = Vec::new();
        for (group, size) in sizes {
            let weights = gpu.allocate("weights", size).await?;
            let trained = if trained(group) {
                let grads = gpu.allocate("gradients", size).await?;
                let moments = [gpu.allocate("moments", size).await?, gpu.allocate("moments", size).await?];
                Some(Trained { grads, moments })
            } else {
                None
            };
            arenas.push(Arena { group, weights, trained });
        }
        let view = |slices: Vec<Slice>| {
            let mut within = Within { blocks: blocks.iter(), arenas: &slices };
            build(&mut within)
        };
        let weights = view(arenas.iter().map(|arena| arena.weights.clone()).collect())?;
        // What is not trained stands for its gradient, so that places fit; nobody may write there.
        let grads = view(
            arenas
                .iter()
                .map(|arena| arena.trained.as_ref().map_or(&arena.weights, |trained| &trained.grads).clone())
                .collect(),
        )?;
        Ok(Self { gpu: gpu.clone(), blocks, arenas, weights, grads })
    }

    /// Fills the weights from a checkpoint, tensor by tensor.
    pub(crate) async fn load(&self, source: &dyn TensorSource) -> Result<()> {
        if self.gpu.is_rehearsal() {
            return Ok(());
        }
        let arenas: Vec<Slice> = self.arenas.iter().map(|arena| arena.weights.clone()).collect();
        let mut in_flight = 0;
        for block in &self.blocks {
            let (values, bias) = block.gather(source)?;
            for piece in &block.pieces {
                let range = piece.first_row * block.k..(piece.first_row + piece.rows) * block.k;
                self.gpu.write(&piece.weights.of(&arenas)?, 0, bytemuck::cast_slice(&values[range]))?;
                if let Some(place) = piece.bias {
                    let range = piece.first_row..piece.first_row + piece.rows;
                    self.gpu.write(&place.of(&arenas)?, 0, bytemuck::cast_slice(&bias[range]))?;
                }
                in_flight += piece.weights.size;
                if in_flight > 64 << 20 {
                    in_flight = 0;
                    self.gpu.flush().await?;
                }
            }
        }
        self.gpu.flush().await
    }

    /// Gives each tensor's name and elements, as in checkpoints, one after the other.
    pub(crate) async fn each_tensor(
        &self,
        recorder: &mut Recorder,
        which: Which,
        each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>,
    ) -> Result<()> {
        let of = |arena: &Arena| match (which, &arena.trained) {
            (Which::Weights, _) => Some(arena.weights.clone()),
            (Which::Gradients, Some(trained)) => Some(trained.grads.clone()),
            (Which::Gradients, None) => None,
        };
        let arenas: Vec<Option<Slice>> = self.arenas.iter().map(of).collect();
        for block in &self.blocks {
            let (mut values, mut bias) = (Vec::new(), Vec::new());
            for piece in &block.pieces {
                let slice_of = |place: Place| match &arenas[place.arena] {
                    Some(arena) => arena.part(place.offset, place.size).map(Some),
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

/// What of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Weights,
    Gradients,
}

impl Block {
    /// The block's rows and biases from the tensors that they are in a checkpoint.
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
            Source::ByTurns([a, b]) => {
                let (a, b) = (read(a, self.n / 2 * self.k)?, read(b, self.n / 2 * self.k)?);
                let pairs = a.chunks_exact(self.k).zip(b.chunks_exact(self.k));
                Ok((pairs.flat_map(|(a, b)| a.iter().chain(b).copied()).collect(), Vec::new()))
            }
        }
    }

    /// The other way round.
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
            Source::ByTurns(names) => {
                for (turn, name) in names.iter().enumerate() {
                    let rows = values.chunks_exact(self.k).skip(turn).step_by(2);
                    each(name, rows.flatten().copied().collect())?;
                }
                Ok(())
            }
        }
    }
}
