//! The table of kernels: one row each, with the kernel's text, its bindings, its parameter block and its variants.

pub use crate::forms::{Fusion, QUANT_BLOCK, Reduce, Tiles, Variant, WeightAccess, WeightFormat};
use crate::params::{self, Params, ParamsLayout};

/// What a kernel does with a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// One storage binding of a kernel. Binding 0 of every kernel is its parameter block, a uniform; these follow in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name in the shader.
    pub name: &'static str,
    /// What the kernel does with it.
    pub access: Access,
    /// Its shape in words, as in the shader.
    pub shape: &'static str,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Which kernel it is.
    pub id: KernelId,
    /// The name that file, CPU twin and test share.
    pub stem: &'static str,
    /// The text of `wgsl/<stem>.wgsl`.
    pub text: &'static str,
    /// Whether `shared/math.wgsl` goes in front.
    pub math: bool,
    /// How it reads binding 1, if that is a matrix in a [`WeightFormat`].
    pub weights: Option<WeightAccess>,
    /// Whether the kernel comes in the [`Reduce`] forms, which hold its entry point.
    pub reduce: bool,
    /// Whether it comes in the forms of [`Fusion`].
    pub fusion: bool,
    /// Its text for [`Tiles::Subgroup`], if it comes in the forms of [`Tiles`].
    pub subgroup_text: Option<&'static str>,
    /// Its text for [`Tiles::OneLane`], if there is one.
    pub one_lane_text: Option<&'static str>,
    /// Whether it comes in the form for [`Reduce::OneLane`] and in none of the others: with the constant `LANES` at 1, without barriers.
    pub lone: bool,
    /// Its text for cooperative matrices, if there is one.
    pub cooperative_text: Option<&'static str>,
    /// Whether a flag in binding [`GUARD_BINDING`] can make a dispatch of it do nothing.
    pub guard: bool,
    /// Storage bindings from 1 on.
    pub bindings: &'static [Binding],
    /// Layout of the parameter block in binding 0.
    pub params: ParamsLayout,
}

macro_rules! kernels {
    ($($(#[$doc:meta])* $id:ident $stem:literal { $($part:ident)*; $($access:ident $name:literal $shape:literal,)* })*) => {
        /// Names a kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum KernelId { $($(#[$doc])* $id,)* }

        /// Every kernel.
        pub static KERNELS: &[Kernel] = &[$(Kernel {
            id: KernelId::$id,
            stem: $stem,
            text: include_str!(concat!("../wgsl/", $stem, ".wgsl")),
            math: has(&[$(stringify!($part)),*], "math"),
            weights: if has(&[$(stringify!($part)),*], "fours") {
                Some(WeightAccess::Fours)
            } else if has(&[$(stringify!($part)),*], "blocks") {
                Some(WeightAccess::Blocks)
            } else {
                None
            },
            reduce: has(&[$(stringify!($part)),*], "reduce"),
            fusion: has(&[$(stringify!($part)),*], "fusion"),
            subgroup_text: if has(&[$(stringify!($part)),*], "tiles") { subgroup_text($stem) } else { None },
            one_lane_text: if has(&[$(stringify!($part)),*], "tiles") { one_lane_text($stem) } else { None },
            lone: has(&[$(stringify!($part)),*], "lone"),
            cooperative_text: if has(&[$(stringify!($part)),*], "cooperative") { cooperative_text($stem) } else { None },
            guard: has(&[$(stringify!($part)),*], "guard")
                || has(&[$(stringify!($part)),*], "reduce") && !has(&[$(stringify!($part)),*], "unguarded"),
            bindings: &[$(Binding { name: $name, access: Access::$access, shape: $shape },)*],
            params: <params::$id as Params>::LAYOUT,
        },)*];
    };
}

/// Whether a row of the table names this part.
const fn has(parts: &[&str], part: &str) -> bool {
    let mut i = 0;
    while i < parts.len() {
        if same(parts[i], part) {
            return true;
        }
        i += 1;
    }
    false
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// The texts in `wgsl/subgroup/`.
const fn subgroup_text(stem: &str) -> Option<&'static str> {
    if same(stem, "matmul") {
        Some(include_str!("../wgsl/subgroup/matmul.wgsl"))
    } else if same(stem, "attention") {
        Some(include_str!("../wgsl/subgroup/attention.wgsl"))
    } else if same(stem, "mlstm_chunk_out") {
        Some(include_str!("../wgsl/subgroup/mlstm_chunk_out.wgsl"))
    } else {
        None
    }
}

/// The texts in `wgsl/one_lane/`.
const fn one_lane_text(stem: &str) -> Option<&'static str> {
    if same(stem, "attention") { Some(include_str!("../wgsl/one_lane/attention.wgsl")) } else { None }
}

/// The texts in `wgsl/cooperative/`.
const fn cooperative_text(stem: &str) -> Option<&'static str> {
    if same(stem, "matmul") { Some(include_str!("../wgsl/cooperative/matmul.wgsl")) } else { None }
}

// After the stem: the shared parts that go in front of a kernel. Those in the reduce forms have a guard, unless they are unguarded: it takes
// a binding, of which an adapter may have no more than 8.
kernels! {
    /// Rows of a table, picked by index.
    GatherRows "gather_rows" { fours guard;
        Read "w" "[rows, dim]",
        Read "index" "[count]",
        ReadWrite "y" "[y_row + count, dim]",
    }
    /// Root-mean-square norm of rows or of groups within rows.
    RmsNorm "rms_norm" { reduce;
        Read "scale" "[dim]",
        Read "x" "[rows, groups, dim]",
        ReadWrite "y" "[rows, groups, dim]",
    }
    /// Matrix product for few rows of x.
    MatVec "matvec" { blocks reduce fusion;
        Read "w" "[n, k]",
        Read "x" "[rows, k]",
        Read "b" "[n]",
        Read "scale" "[k]",
        ReadWrite "y" "[rows, n]",
    }
    /// Matrix product for many rows of x.
    MatMul "matmul" { fours tiles cooperative;
        Read "w" "[n, k]",
        Read "x" "[rows, k]",
        Read "b" "[n]",
        ReadWrite "y" "[rows, n]",
    }
    /// The gated product of a feed-forward.
    SiluMul "silu_mul" { ;
        Read "gate_up" "[rows, dim, 2]",
        ReadWrite "h" "[rows, dim]",
    }
    /// Norm and rotary positions of queries and keys, and the way into the KV cache.
    Rope "rope" { reduce;
        Read "qkv" "[rows, ...]",
        Read "q_scale" "[q_group, 2 half_dim]",
        Read "k_scale" "[k_group, 2 half_dim]",
        Read "cos_sin" "[rows, half_dim]",
        ReadWrite "q" "[rows, heads, 2 half_dim]",
        ReadWrite "kv" "[segment rows, 2, kv_heads, 2 half_dim]",
    }
    /// Attention over one segment of the KV cache.
    Attention "attention" { tiles;
        Read "q" "[sequences, count, heads, dim]",
        Read "kv" "[sequences, keys, 2, kv_heads, dim]",
        ReadWrite "running" "[sequences, count, heads, 2]",
        ReadWrite "o" "[sequences, count, heads, dim]",
    }
    /// Gates of the mLSTM and their stabiliser.
    MlstmGates "mlstm_gates" { math;
        Read "x" "[rows, ...]",
        ReadWrite "m" "[sequences, heads]",
        ReadWrite "gates" "[rows, heads, 4]",
    }
    /// A whole mLSTM cell for few rows: gates, recurrent step, norm and output gate.
    MlstmCell "mlstm_cell" { math guard lone;
        Read "x" "[rows, ...]",
        ReadWrite "c" "[heads, dk, dv + 1]",
        ReadWrite "m" "[heads]",
        Read "norm" "[heads, dv]",
        ReadWrite "out" "[rows, heads, dv]",
    }
    /// The mLSTM cell in its recurrent form.
    MlstmStep "mlstm_step" { ;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        ReadWrite "c" "[heads, dk, dv + 1]",
        ReadWrite "y" "[rows, heads, dv + 1]",
    }
    /// Chunkwise mLSTM: what each chunk adds to the state.
    MlstmChunkState "mlstm_chunk_state" { ;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        ReadWrite "states" "[chunks, heads, dk, dv + 1]",
    }
    /// Chunkwise mLSTM: the state at the start of each chunk.
    MlstmChunkScan "mlstm_chunk_scan" { ;
        Read "gates" "[rows, heads, 4]",
        ReadWrite "c" "[sequences, heads, dk, dv + 1]",
        ReadWrite "states" "[chunks, heads, dk, dv + 1]",
    }
    /// Chunkwise mLSTM: the output of every row.
    MlstmChunkOut "mlstm_chunk_out" { tiles;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        Read "states" "[chunks, heads, dk, dv + 1]",
        ReadWrite "y" "[rows, heads, dv + 1]",
    }
    /// Normaliser, head norm and output gate of the mLSTM.
    MlstmNorm "mlstm_norm" { reduce;
        Read "y" "[rows, heads, dv + 1]",
        Read "gates" "[rows, heads, 4]",
        Read "x" "[rows, ...]",
        Read "scale" "[heads, dv]",
        ReadWrite "out" "[rows, heads, dv]",
    }
    /// The choice of the next id, and the way to the next byte.
    Sample "sample" { math lone;
        Read "logits" "[520]",
        Read "bias" "[257]",
        Read "random" "[steps]",
        Read "stops" "[1 + 2 count + bytes]",
        Read "trie" "[nodes + 1]",
        ReadWrite "control" "[8 + steps]",
        ReadWrite "history" "[ring]",
        ReadWrite "next" "[65]",
    }
    /// Cosine of the boundary predictor.
    Boundary "boundary" { reduce;
        Read "x" "[rows + 1, 2, dim]",
        ReadWrite "cosine" "[rows]",
    }
    /// A plain copy, to measure what memory gives.
    Copy "copy" { ;
        Read "x" "[count]",
        ReadWrite "y" "[count]",
    }
    /// Backwards through the mLSTM's normaliser, head norm and output gate.
    MlstmNormGrad "mlstm_norm_grad" { reduce unguarded;
        Read "y" "[rows, heads, dv + 1]",
        Read "gates" "[rows, heads, 4]",
        Read "x" "[rows, ...]",
        Read "scale" "[heads, dv]",
        Read "dout" "[rows, heads, dv]",
        ReadWrite "dy" "[rows, heads, dv + 1]",
        ReadWrite "dx" "[rows, ...]",
        ReadWrite "dscale" "[rows, heads, dv]",
    }
    /// Backwards through the chunkwise mLSTM: what each chunk asks of the state at its start.
    MlstmChunkStateGrad "mlstm_chunk_state_grad" { ;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        Read "dy" "[rows, heads, dv + 1]",
        ReadWrite "dstates" "[chunks, heads, dk, dv + 1]",
    }
    /// Backwards through the chunkwise mLSTM: the gradient of the state at the end of each chunk.
    MlstmChunkScanGrad "mlstm_chunk_scan_grad" { ;
        Read "gates" "[rows, heads, 4]",
        ReadWrite "dstates" "[chunks, heads, dk, dv + 1]",
    }
    /// Backwards through the chunkwise mLSTM: what ties rows of a chunk to each other.
    MlstmChunkScores "mlstm_chunk_scores" { ;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        Read "dy" "[rows, heads, dv + 1]",
        ReadWrite "a" "[rows, heads, 64]",
        ReadWrite "b" "[rows, heads, 64]",
    }
    /// Backwards through the chunkwise mLSTM: the gradients of q, k and v.
    MlstmChunkOutGrad "mlstm_chunk_out_grad" { ;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        Read "states" "[chunks, heads, dk, dv + 1]",
        Read "dstates" "[chunks, heads, dk, dv + 1]",
        Read "dy" "[rows, heads, dv + 1]",
        Read "a" "[rows, heads, 64]",
        Read "b" "[rows, heads, 64]",
        ReadWrite "dx" "[rows, ...]",
    }
    /// What the gradients of the mLSTM's gates come from.
    MlstmGateDots "mlstm_gate_dots" { ;
        Read "x" "[rows, ...]",
        Read "dx" "[rows, ...]",
        ReadWrite "dots" "[rows, heads, 2]",
    }
    /// The gradients of the mLSTM's gates.
    MlstmGatesGrad "mlstm_gates_grad" { math;
        Read "x" "[rows, ...]",
        Read "dots" "[rows, heads, 2]",
        ReadWrite "dx" "[rows, ...]",
    }
    /// Back through the root-mean-square norm.
    RmsNormGrad "rms_norm_grad" { reduce;
        Read "scale" "[dim]",
        Read "x" "[rows, groups, dim]",
        Read "dy" "[rows, groups, dim]",
        ReadWrite "dx" "[rows, groups, dim]",
        ReadWrite "dscale" "[rows, groups, dim]",
    }
    /// Back through the gated product.
    SiluMulGrad "silu_mul_grad" { ;
        Read "gate_up" "[rows, dim, 2]",
        Read "dh" "[rows, dim]",
        ReadWrite "d_gate_up" "[rows, dim, 2]",
    }
    /// Back through the boundary predictor's cosine.
    BoundaryGrad "boundary_grad" { reduce;
        Read "x" "[rows + 1, 2, dim]",
        Read "dcosine" "[rows]",
        ReadWrite "dx" "[rows + 1, 2, dim]",
    }
    /// Back through norm and rotary positions of queries and keys.
    RopeGrad "rope_grad" { reduce unguarded;
        Read "qkv" "[rows, ...]",
        Read "q_scale" "[q_group, 2 half_dim]",
        Read "k_scale" "[k_group, 2 half_dim]",
        Read "cos_sin" "[rows, half_dim]",
        Read "dq" "[rows, heads, 2 half_dim]",
        Read "dkv" "[segment rows, 2, kv_heads, 2 half_dim]",
        ReadWrite "dqkv" "[rows, ...]",
        ReadWrite "dscale" "[rows, heads + kv_heads, 2 half_dim]",
    }
    /// Back through attention within sequences, to the queries.
    AttentionGradQ "attention_grad_q" { ;
        Read "q" "[rows, heads, dim]",
        Read "kv" "[rows, 2, kv_heads, dim]",
        Read "running" "[rows, heads, 2]",
        Read "o" "[rows, heads, dim]",
        Read "d_o" "[rows, heads, dim]",
        ReadWrite "delta" "[rows, heads]",
        ReadWrite "dq" "[rows, heads, dim]",
    }
    /// Back through attention within sequences, to keys and values.
    AttentionGradKv "attention_grad_kv" { ;
        Read "q" "[rows, heads, dim]",
        Read "kv" "[rows, 2, kv_heads, dim]",
        Read "running" "[rows, heads, 2]",
        Read "d_o" "[rows, heads, dim]",
        Read "delta" "[rows, heads]",
        ReadWrite "dkv" "[rows, 2, kv_heads, dim]",
    }
    /// A matrix laid down the other way.
    Transpose "transpose" { ;
        Read "x" "[rows, columns]",
        ReadWrite "y" "[columns, rows]",
    }
    /// Sums over rows.
    SumRows "sum_rows" { ;
        Read "x" "[rows, columns]",
        ReadWrite "y" "[rows / per, columns]",
    }
    /// Gradient of a table that rows were picked from.
    GatherRowsGrad "gather_rows_grad" { ;
        Read "dy" "[.., dim]",
        Read "order" "[positions]",
        Read "segments" "[segments, 4]",
        ReadWrite "dw" "[rows, dim]",
    }
    /// Logarithms of the probabilities of a label and of a set of ids.
    LogSoftmax "log_softmax" { math reduce;
        Read "logits" "[rows, n]",
        Read "label" "[rows]",
        Read "members" "[n]",
        ReadWrite "out" "[rows, 4]",
    }
    /// Gradient of those logarithms, in place of the logits.
    LogSoftmaxGrad "log_softmax_grad" { math;
        ReadWrite "logits" "[rows, n]",
        Read "label" "[rows]",
        Read "members" "[n]",
        Read "out" "[rows, 4]",
        Read "weight" "[rows, 2]",
    }
    /// Entropy of what logits say.
    Entropy "entropy" { math reduce;
        Read "logits" "[rows, n]",
        Read "logs" "[rows, 4]",
        ReadWrite "out" "[rows]",
    }
    /// Probabilities of next ids from logits over subwords.
    NextIds "next_ids" { math reduce;
        Read "logits" "[count, vocabulary]",
        Read "order" "[subwords]",
        Read "starts" "[nodes + 1]",
        Read "children" "[children, 4]",
        Read "place" "[rows, 2]",
        ReadWrite "out" "[rows, n]",
    }
    /// Divergence of logits from probabilities, and its gradient.
    SoftLabels "soft_labels" { math reduce;
        Read "logits" "[rows, n]",
        Read "logs" "[rows, 4]",
        Read "place" "[rows, 2]",
        ReadWrite "target_p" "[rows, n]",
        ReadWrite "divergence" "[rows]",
    }
    /// Euclidean distances of rows.
    RowDistance "row_distance" { reduce;
        Read "x" "[rows, dim]",
        Read "y" "[rows, dim]",
        ReadWrite "out" "[rows]",
    }
    /// Gradient of those distances.
    RowDistanceGrad "row_distance_grad" { ;
        Read "x" "[rows, dim]",
        Read "y" "[rows, dim]",
        Read "distance" "[rows]",
        Read "weight" "[rows]",
        ReadWrite "dx" "[rows, dim]",
    }
    /// Sums of squares over stretches, for the norm of a gradient.
    SumSquares "sum_squares" { reduce;
        Read "x" "[count]",
        ReadWrite "out" "[stretches]",
    }
    /// Values as f16, for products in that type.
    RoundF16 "round_f16" { ;
        Read "x" "[count]",
        ReadWrite "y" "[count / 4] of four f16",
    }
    /// A step of the optimiser AdamW.
    Adamw "adamw" { ;
        Read "grad" "[count]",
        Read "squares" "[1]",
        ReadWrite "w" "[count]",
        ReadWrite "m" "[count]",
        ReadWrite "v" "[count]",
    }
}

/// The forms of a dimension that a kernel has itself: those that are what they come to. A kernel without the dimension has one form.
fn own_forms<T: Copy + PartialEq, const N: usize>(all: [T; N], comes_to: impl Fn(T) -> Option<T>) -> Vec<Option<T>> {
    let own: Vec<_> = all.into_iter().filter(|&form| comes_to(form) == Some(form)).map(Some).collect();
    if own.is_empty() { vec![None] } else { own }
}

impl KernelId {
    /// The kernel's row.
    pub fn kernel(self) -> &'static Kernel {
        // The rows stand in the order of the enum: the same macro makes both.
        &KERNELS[self as usize]
    }
}

impl Kernel {
    /// Every variant of the kernel.
    pub fn variants(&self) -> Vec<Variant> {
        let weights: Vec<_> = if self.weights.is_some() { WeightFormat::ALL.map(Some).to_vec() } else { vec![None] };
        let mut reduce = own_forms(Reduce::ALL, |reduce| self.reduces(reduce));
        if self.lone {
            reduce.push(None);
        }
        let fusion: Vec<_> = if self.fusion { Fusion::ALL.map(Some).to_vec() } else { vec![None] };
        let mut all = Vec::new();
        for &weights in &weights {
            let tiles = own_forms(Tiles::ALL, |tiles| self.tiles(weights, tiles));
            for &reduce in &reduce {
                for &fusion in &fusion {
                    all.extend(tiles.iter().map(|&tiles| Variant { weights, reduce, fusion, tiles }));
                }
            }
        }
        all
    }

    /// Storage buffers of the variant that binds most of them.
    pub fn most_storage_buffers(&self) -> usize {
        self.bindings.len() + usize::from(self.guard) + usize::from(self.weights.is_some())
    }

    /// The variant of this kernel that a caller's choices come to: dimensions that the kernel lacks are dropped.
    pub fn variant(&self, weights: WeightFormat, reduce: Reduce, fusion: Fusion, tiles: Tiles) -> Variant {
        Variant {
            weights: self.weights.map(|_| weights),
            reduce: self.reduces(reduce),
            fusion: self.fusion.then_some(fusion),
            tiles: self.tiles(self.weights.map(|_| weights), tiles),
        }
    }

    /// The form that there is where `reduce` is asked for.
    fn reduces(&self, reduce: Reduce) -> Option<Reduce> {
        if self.lone {
            return (reduce == Reduce::OneLane).then_some(reduce);
        }
        // Products have teams.
        self.reduce.then_some(if self.fusion && reduce == Reduce::OneSubgroup { Reduce::Subgroup } else { reduce })
    }

    /// The form that there is where `tiles` is asked for.
    fn tiles(&self, weights: Option<WeightFormat>, tiles: Tiles) -> Option<Tiles> {
        let cooperates = self.cooperative_text.is_some() && weights.is_some_and(|format| format != WeightFormat::F32);
        self.subgroup_text.map(|_| match tiles {
            Tiles::Cooperative8 | Tiles::Cooperative16 if !cooperates => Tiles::Workgroup,
            Tiles::OneLane if self.one_lane_text.is_none() => Tiles::Workgroup,
            tiles => tiles,
        })
    }

    /// The whole WGSL text of a variant: the shared parts it is made of, then the kernel's own file.
    pub fn source(&self, variant: Variant) -> String {
        let (first, types) = variant.tiles.map_or_else(Default::default, Tiles::parts);
        let mut text = first.to_owned();
        if self.math {
            text.push_str(include_str!("../wgsl/shared/math.wgsl"));
        }
        if self.guard {
            text.push_str(include_str!("../wgsl/shared/guard.wgsl"));
        }
        let weights = variant.weights.zip(self.weights).map(|(format, access)| format.part(access));
        let reduce = variant.reduce.filter(|_| self.reduce).map(|reduce| reduce.part(self.fusion));
        for part in [reduce, weights].into_iter().flatten() {
            text.push_str(part);
        }
        if let Some(fusion) = variant.fusion {
            text.push_str(&fusion.part());
        }
        text.push_str(&types);
        let own = match variant.tiles {
            Some(Tiles::Subgroup) => self.subgroup_text,
            Some(Tiles::Cooperative8 | Tiles::Cooperative16) => self.cooperative_text,
            Some(Tiles::OneLane) => self.one_lane_text,
            Some(Tiles::Workgroup) | None => None,
        };
        match variant.reduce {
            Some(_) if self.lone => text.push_str(&without_barriers(self.text)),
            _ => text.push_str(own.unwrap_or(self.text)),
        }
        text
    }
}

/// A kernel's text for a workgroup of one lane, which waits for nobody. CPUs are slow to compile barriers, and to keep them.
fn without_barriers(text: &str) -> String {
    text.replace("workgroupBarrier();", "").replace("workgroupUniformLoad(&", "(")
}

/// The binding whose first word makes a guarded dispatch do nothing where it is not 0.
pub const GUARD_BINDING: u32 = 14;
/// The binding of a matrix' scales, in formats that have them.
pub const SCALES_BINDING: u32 = 15;
/// The widest value head that `mlstm_cell` holds.
pub const MLSTM_CELL_MAX_DV: u32 = 256;
/// Words of `sample`'s control block in front of the chosen ids.
pub const SAMPLE_CONTROL: u32 = 8;
/// Rows of a chunk in the chunkwise mLSTM kernels.
pub const MLSTM_CHUNK: u32 = 64;
/// Rows that one workgroup of `mlstm_chunk_out` takes.
pub const MLSTM_CHUNK_OUT_TILE: u32 = 16;
/// The widest key head that `mlstm_chunk_out` holds.
pub const MLSTM_MAX_DK: u32 = 128;
/// The widest head that `attention` holds.
pub const ATTENTION_MAX_DIM: u32 = 128;
/// Fours of values that one workgroup of `copy` takes.
pub const COPY_SLICE4: u32 = 1024;
/// Lanes of a workgroup of a kernel with teams in the form for [`Reduce::OneLane`], and in the form for [`Tiles::OneLane`].
pub const LONE_TEAMS: u32 = 4;
/// Lanes of a workgroup in all other forms.
pub const WORKGROUP: u32 = 64;
/// Lanes of a workgroup, and of the one subgroup in it, in the forms for [`Tiles::Subgroup`] and [`Reduce::OneSubgroup`].
pub const SUBGROUP_LANES: u32 = 8;

/// The grid of `mlstm_chunk_scores`: four rows by four sources a lane.
pub const fn mlstm_chunk_scores_grid(rows: usize, heads: usize) -> [usize; 3] {
    let quads = (MLSTM_CHUNK / 4) as usize;
    [(quads * quads).div_ceil(WORKGROUP as usize), heads, rows.div_ceil(MLSTM_CHUNK as usize)]
}

/// The grid of `mlstm_chunk_out_grad`: four rows by four columns of q, k or v a lane.
pub const fn mlstm_chunk_out_grad_grid(rows: usize, heads: usize, dk: usize, dv: usize) -> [usize; 3] {
    let lanes = (2 * dk.div_ceil(4) + dv.div_ceil(4)) * (MLSTM_CHUNK / 4) as usize;
    [lanes.div_ceil(WORKGROUP as usize), heads, rows.div_ceil(MLSTM_CHUNK as usize)]
}

/// Rows of a head that one lane of `attention_grad_q` (queries) and of `attention_grad_kv` (keys) takes.
pub const ATTENTION_GRAD_ROWS: usize = 4;

/// The grid of `attention_grad_q` for sequences of `count` rows.
pub const fn attention_grad_q_grid(count: usize, heads: usize, sequences: usize) -> [usize; 3] {
    [(count.div_ceil(ATTENTION_GRAD_ROWS) * heads).div_ceil(WORKGROUP as usize), 1, sequences]
}

/// The grid of `attention_grad_kv` for sequences of `count` rows.
pub const fn attention_grad_kv_grid(count: usize, kv_heads: usize, sequences: usize) -> [usize; 3] {
    attention_grad_q_grid(count, kv_heads, sequences)
}

/// Turns of loops that a lane of `attention_grad_q` or of `attention_grad_kv` takes at most, counted as Mesa's driver for CPUs counts them: it
/// ends the loops of a lane, without a word, once they come to 65535 turns together. There this has to stay below.
pub const fn attention_grad_turns(count: usize, heads_per_kv: usize, dim4: usize) -> usize {
    // The turn that finds a loop at its end counts too.
    let width = dim4 + 1;
    // Eight rows at a time: a turn for them, and twice through the head's width.
    let head = count.div_ceil(8) * (1 + 2 * width) + 1;
    width + heads_per_kv * (1 + head) + 1
}

/// Rows and columns of x that one workgroup of `transpose` takes.
pub const TRANSPOSE_TILE: u32 = 32;
/// The most workgroups in one dimension of a dispatch that every adapter takes.
pub const MAX_GROUPS: u32 = 65535;

/// The grid of `adamw` and `round_f16` for `count4` fours of values: more workgroups than one dimension takes go on in the second.
pub const fn fours_grid(count4: usize) -> [usize; 3] {
    let groups = count4.div_ceil(WORKGROUP as usize);
    let most = MAX_GROUPS as usize;
    if groups <= most { [groups, 1, 1] } else { [most, groups.div_ceil(most), 1] }
}
