//! The table of kernels. A row has the kernel's WGSL text, its bindings, its parameter block and its variants.

use crate::params::{self, Params, ParamsLayout};
use crate::variant::WeightAccess;

/// The access of a kernel to a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// A storage binding of a kernel.
///
/// Binding 0 of every kernel is its parameter block, a uniform. The storage bindings follow in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The name of the variable in the shader.
    pub name: &'static str,
    /// How the kernel accesses it.
    pub access: Access,
    /// Its shape, as the shader states it.
    pub shape: &'static str,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// The id of the kernel.
    pub id: KernelId,
    /// The name that shader, CPU reference and test share.
    pub stem: &'static str,
    /// Whether only training uses the kernel. Builds for browsers have neither its shader nor its fast form.
    pub training: bool,
    /// The text of `wgsl/<stem>.wgsl`; empty in builds without it.
    pub text: &'static str,
    /// Whether the kernel uses `shared/math.wgsl`.
    pub math: bool,
    /// How the kernel reads binding 1, if that is a matrix in a [weight format](crate::WeightFormat).
    pub weights: Option<WeightAccess>,
    /// Whether the kernel has [reduction](crate::Reduce) variants, which provide its entry point.
    pub reduce: bool,
    /// Whether the kernel has [fusion](crate::Fusion) variants.
    pub fusion: bool,
    /// Its WGSL text for [subgroup tiles](crate::Tiles::Subgroup), if the kernel has `Tiles` variants.
    pub subgroup_text: Option<&'static str>,
    /// Its WGSL text for [single-lane tiles](crate::Tiles::SingleLane), if there is one.
    pub single_lane_text: Option<&'static str>,
    /// Whether the kernel also has a [single-lane](crate::Reduce::SingleLane) variant and no other reduction: the same
    /// text without barriers, with the constant `LANES` at 1.
    pub single_lane: bool,
    /// Its WGSL text for cooperative matrices, if there is one.
    pub cooperative_text: Option<&'static str>,
    /// Whether the [guard flags](crate::sizes::GUARD_BINDING) can make a dispatch skip rows.
    pub guard: bool,
    /// Storage bindings from 1 on.
    pub bindings: &'static [Binding],
    /// Layout of the parameter block in binding 0.
    pub params: ParamsLayout,
}

macro_rules! kernels {
    ($(
        $(#[$doc:meta])*
        $id:ident $stem:literal { $($part:ident)*; $($access:ident $name:literal $shape:literal,)* }
    )*) => {
        /// The id of a kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum KernelId { $($(#[$doc])* $id,)* }

        /// Every kernel.
        pub static KERNELS: &[Kernel] = &[$(Kernel {
            id: KernelId::$id,
            stem: $stem,
            training: has(&[$(stringify!($part)),*], "training"),
            text: if has(&[$(stringify!($part)),*], "training") && !TRAINS {
                ""
            } else {
                shader(include_str!(concat!("../wgsl/", $stem, ".wgsl")))
            },
            math: has(&[$(stringify!($part)),*], "math"),
            weights: if has(&[$(stringify!($part)),*], "vec4") {
                Some(WeightAccess::Vec4)
            } else if has(&[$(stringify!($part)),*], "blocks") {
                Some(WeightAccess::Blocks)
            } else {
                None
            },
            reduce: has(&[$(stringify!($part)),*], "reduce"),
            fusion: has(&[$(stringify!($part)),*], "fusion"),
            subgroup_text: if has(&[$(stringify!($part)),*], "tiles") { subgroup_text($stem) } else { None },
            single_lane_text: if has(&[$(stringify!($part)),*], "tiles") { single_lane_text($stem) } else { None },
            single_lane: has(&[$(stringify!($part)),*], "single_lane"),
            cooperative_text: if has(&[$(stringify!($part)),*], "cooperative") {
                cooperative_text($stem)
            } else {
                None
            },
            guard: has(&[$(stringify!($part)),*], "guard")
                || has(&[$(stringify!($part)),*], "reduce") && !has(&[$(stringify!($part)),*], "unguarded"),
            bindings: &[$(Binding { name: $name, access: Access::$access, shape: $shape },)*],
            params: <params::$id as Params>::LAYOUT,
        },)*];
    };
}

/// Whether kernels that only training uses are there. Browsers don't train, and load smaller files without them.
pub(crate) const TRAINS: bool = !cfg!(all(target_arch = "wasm32", target_os = "unknown"));

/// The text of a shader, in builds that have shaders.
const fn shader(text: &'static str) -> &'static str {
    if cfg!(feature = "wgsl") { text } else { "" }
}

/// Returns whether `parts` contains `part`.
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

/// Returns whether two strings are equal.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Returns the text in `wgsl/subgroup/`, if there is one.
const fn subgroup_text(stem: &str) -> Option<&'static str> {
    if same(stem, "matmul") {
        Some(shader(include_str!("../wgsl/subgroup/matmul.wgsl")))
    } else if same(stem, "attention") {
        Some(shader(include_str!("../wgsl/subgroup/attention.wgsl")))
    } else if same(stem, "mlstm_chunk_out") {
        Some(shader(include_str!("../wgsl/subgroup/mlstm_chunk_out.wgsl")))
    } else {
        None
    }
}

/// Returns the text in `wgsl/single_lane/`, if there is one.
const fn single_lane_text(stem: &str) -> Option<&'static str> {
    if same(stem, "attention") { Some(shader(include_str!("../wgsl/single_lane/attention.wgsl"))) } else { None }
}

/// Returns the text in `wgsl/cooperative/`, if there is one.
const fn cooperative_text(stem: &str) -> Option<&'static str> {
    if same(stem, "matmul") { Some(shader(include_str!("../wgsl/cooperative/matmul.wgsl"))) } else { None }
}

// After the stem come the shared parts and the variants of a kernel. Kernels with reduce variants have a guard, unless
// they are marked as unguarded: the guard takes a storage binding, and an adapter may support no more than 8.
kernels! {
    /// Gathers rows of a table by index.
    GatherRows "gather_rows" { vec4 guard;
        Read "w" "[rows, dim]",
        Read "index" "[count]",
        ReadWrite "y" "[y_row + count, dim]",
    }
    /// Root-mean-square norm of rows, or of groups within rows.
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
    MatMul "matmul" { vec4 tiles cooperative;
        Read "w" "[n, k]",
        Read "x" "[rows, k]",
        Read "b" "[n]",
        ReadWrite "y" "[rows, n]",
    }
    /// The gated product of a feed-forward layer.
    SiluMul "silu_mul" { ;
        Read "gate_up" "[rows, dim, 2]",
        ReadWrite "h" "[rows, dim]",
    }
    /// Norm and rotary embedding of queries and keys, and the write to the KV cache.
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
    /// Gates of the mLSTM and their stabilizer.
    MlstmGates "mlstm_gates" { math;
        Read "x" "[rows, ...]",
        ReadWrite "m" "[sequences, heads]",
        ReadWrite "gates" "[rows, heads, 4]",
    }
    /// A whole mLSTM cell for few rows: gates, recurrent step, norm and output gate.
    MlstmCell "mlstm_cell" { math guard single_lane;
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
    /// Chunkwise mLSTM: the contribution of each chunk to the state.
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
    /// Normalizer, head norm and output gate of the mLSTM.
    MlstmNorm "mlstm_norm" { reduce;
        Read "y" "[rows, heads, dv + 1]",
        Read "gates" "[rows, heads, 4]",
        Read "x" "[rows, ...]",
        Read "scale" "[heads, dv]",
        ReadWrite "out" "[rows, heads, dv]",
    }
    /// Samples the next id and prepares the inputs of the next byte.
    Sample "sample" { math single_lane;
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
    /// A plain copy, to measure memory bandwidth.
    Copy "copy" { ;
        Read "x" "[count]",
        ReadWrite "y" "[count]",
    }
    /// Gradient of the mLSTM's normalizer, head norm and output gate.
    MlstmNormGrad "mlstm_norm_grad" { reduce unguarded training;
        Read "y" "[rows, heads, dv + 1]",
        Read "gates" "[rows, heads, 4]",
        Read "x" "[rows, ...]",
        Read "scale" "[heads, dv]",
        Read "dout" "[rows, heads, dv]",
        ReadWrite "dy" "[rows, heads, dv + 1]",
        ReadWrite "dx" "[rows, ...]",
        ReadWrite "dscale" "[rows, heads, dv]",
    }
    /// Gradient of the chunkwise mLSTM: the contribution of each chunk to the gradient of the state at its start.
    MlstmChunkStateGrad "mlstm_chunk_state_grad" { training;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        Read "dy" "[rows, heads, dv + 1]",
        ReadWrite "dstates" "[chunks, heads, dk, dv + 1]",
    }
    /// Gradient of the chunkwise mLSTM: the gradient of the state at the end of each chunk.
    MlstmChunkScanGrad "mlstm_chunk_scan_grad" { training;
        Read "gates" "[rows, heads, 4]",
        ReadWrite "dstates" "[chunks, heads, dk, dv + 1]",
    }
    /// Gradient of the chunkwise mLSTM: the scores between the rows of a chunk.
    MlstmChunkScores "mlstm_chunk_scores" { training;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        Read "dy" "[rows, heads, dv + 1]",
        ReadWrite "a" "[rows, heads, 64]",
        ReadWrite "b" "[rows, heads, 64]",
    }
    /// Gradient of the chunkwise mLSTM: the gradients of q, k and v.
    MlstmChunkOutGrad "mlstm_chunk_out_grad" { training;
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        Read "states" "[chunks, heads, dk, dv + 1]",
        Read "dstates" "[chunks, heads, dk, dv + 1]",
        Read "dy" "[rows, heads, dv + 1]",
        Read "a" "[rows, heads, 64]",
        Read "b" "[rows, heads, 64]",
        ReadWrite "dx" "[rows, ...]",
    }
    /// The dot products that the gradients of the mLSTM gates are made of.
    MlstmGateDots "mlstm_gate_dots" { training;
        Read "x" "[rows, ...]",
        Read "dx" "[rows, ...]",
        ReadWrite "dots" "[rows, heads, 2]",
    }
    /// Gradient of the mLSTM gates.
    MlstmGatesGrad "mlstm_gates_grad" { math training;
        Read "x" "[rows, ...]",
        Read "dots" "[rows, heads, 2]",
        ReadWrite "dx" "[rows, ...]",
    }
    /// Gradient of the root-mean-square norm.
    RmsNormGrad "rms_norm_grad" { reduce training;
        Read "scale" "[dim]",
        Read "x" "[rows, groups, dim]",
        Read "dy" "[rows, groups, dim]",
        ReadWrite "dx" "[rows, groups, dim]",
        ReadWrite "dscale" "[rows, groups, dim]",
    }
    /// Gradient of the gated product.
    SiluMulGrad "silu_mul_grad" { training;
        Read "gate_up" "[rows, dim, 2]",
        Read "dh" "[rows, dim]",
        ReadWrite "d_gate_up" "[rows, dim, 2]",
    }
    /// Gradient of the boundary predictor's cosine.
    BoundaryGrad "boundary_grad" { reduce training;
        Read "x" "[rows + 1, 2, dim]",
        Read "dcosine" "[rows]",
        ReadWrite "dx" "[rows + 1, 2, dim]",
    }
    /// Gradient of the norm and rotary embedding of queries and keys.
    RopeGrad "rope_grad" { reduce unguarded training;
        Read "qkv" "[rows, ...]",
        Read "q_scale" "[q_group, 2 half_dim]",
        Read "k_scale" "[k_group, 2 half_dim]",
        Read "cos_sin" "[rows, half_dim]",
        Read "dq" "[rows, heads, 2 half_dim]",
        Read "dkv" "[segment rows, 2, kv_heads, 2 half_dim]",
        ReadWrite "dqkv" "[rows, ...]",
        ReadWrite "dscale" "[rows, heads + kv_heads, 2 half_dim]",
    }
    /// Gradient of attention within sequences by the queries.
    AttentionGradQ "attention_grad_q" { training;
        Read "q" "[rows, heads, dim]",
        Read "kv" "[rows, 2, kv_heads, dim]",
        Read "running" "[rows, heads, 2]",
        Read "o" "[rows, heads, dim]",
        Read "d_o" "[rows, heads, dim]",
        ReadWrite "delta" "[rows, heads]",
        ReadWrite "dq" "[rows, heads, dim]",
    }
    /// Gradient of attention within sequences by keys and values.
    AttentionGradKv "attention_grad_kv" { training;
        Read "q" "[rows, heads, dim]",
        Read "kv" "[rows, 2, kv_heads, dim]",
        Read "running" "[rows, heads, 2]",
        Read "d_o" "[rows, heads, dim]",
        Read "delta" "[rows, heads]",
        ReadWrite "dkv" "[rows, 2, kv_heads, dim]",
    }
    /// The transpose of a matrix.
    Transpose "transpose" { training;
        Read "x" "[rows, columns]",
        ReadWrite "y" "[columns, rows]",
    }
    /// Sums over rows.
    SumRows "sum_rows" { training;
        Read "x" "[rows, columns]",
        ReadWrite "y" "[rows / per, columns]",
    }
    /// Gradient of a table by the rows gathered from it.
    GatherRowsGrad "gather_rows_grad" { training;
        Read "dy" "[.., dim]",
        Read "order" "[positions]",
        Read "segments" "[segments, 4]",
        ReadWrite "dw" "[rows, dim]",
    }
    /// Logarithms of the probabilities of a label and of a set of ids.
    LogSoftmax "log_softmax" { math reduce training;
        Read "logits" "[rows, n]",
        Read "label" "[rows]",
        Read "members" "[n]",
        ReadWrite "out" "[rows, 4]",
    }
    /// Gradient of those logarithms, in place of the logits.
    LogSoftmaxGrad "log_softmax_grad" { math training;
        ReadWrite "logits" "[rows, n]",
        Read "label" "[rows]",
        Read "members" "[n]",
        Read "out" "[rows, 4]",
        Read "weight" "[rows, 2]",
    }
    /// Entropy of the softmax of logits.
    Entropy "entropy" { math reduce training;
        Read "logits" "[rows, n]",
        Read "logs" "[rows, 4]",
        ReadWrite "out" "[rows]",
    }
    /// Probabilities of next ids from logits over subwords.
    NextIds "next_ids" { math reduce training;
        Read "logits" "[count, vocabulary]",
        Read "order" "[subwords]",
        Read "starts" "[nodes + 1]",
        Read "children" "[children, 4]",
        Read "place" "[rows, 2]",
        ReadWrite "out" "[rows, n]",
    }
    /// Divergence of logits from probabilities, and its gradient.
    SoftLabels "soft_labels" { math reduce training;
        Read "logits" "[rows, n]",
        Read "logs" "[rows, 4]",
        Read "place" "[rows, 2]",
        ReadWrite "target_p" "[rows, n]",
        ReadWrite "divergence" "[rows]",
    }
    /// Euclidean distances between rows.
    RowDistance "row_distance" { reduce training;
        Read "x" "[rows, dim]",
        Read "y" "[rows, dim]",
        ReadWrite "out" "[rows]",
    }
    /// Gradient of those distances.
    RowDistanceGrad "row_distance_grad" { training;
        Read "x" "[rows, dim]",
        Read "y" "[rows, dim]",
        Read "distance" "[rows]",
        Read "weight" "[rows]",
        ReadWrite "dx" "[rows, dim]",
    }
    /// Sums of squares over blocks, for the norm of a gradient.
    SumSquares "sum_squares" { reduce training;
        Read "x" "[count]",
        ReadWrite "out" "[blocks]",
    }
    /// Rounds values to f16, for products in f16.
    RoundF16 "round_f16" { ;
        Read "x" "[count]",
        ReadWrite "y" "[count / 4] of four f16",
    }
    /// A step of the AdamW optimizer.
    Adamw "adamw" { training;
        Read "grad" "[count]",
        Read "squares" "[1]",
        ReadWrite "w" "[count]",
        ReadWrite "m" "[count]",
        ReadWrite "v" "[count]",
    }
}

impl KernelId {
    /// Returns the kernel's row in the table.
    pub fn kernel(self) -> &'static Kernel {
        // The same macro generates the rows and the enum, in the same order.
        &KERNELS[self as usize]
    }
}
