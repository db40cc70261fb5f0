//! The table of kernels: one row each, with the kernel's text, its bindings, its parameter block and its variants.

use crate::params::{self, Params, ParamsLayout};

/// How a matrix is kept on the device. Each format has a `shared/weights_*.wgsl` that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightFormat {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight, two to a 32-bit word.
    F16,
}

impl WeightFormat {
    /// Every format.
    pub const ALL: [WeightFormat; 2] = [WeightFormat::F32, WeightFormat::F16];

    /// Bytes of one weight.
    pub const fn bytes(self) -> u64 {
        match self {
            WeightFormat::F32 => 4,
            WeightFormat::F16 => 2,
        }
    }

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
        }
    }

    const fn part(self) -> &'static str {
        match self {
            WeightFormat::F32 => include_str!("../wgsl/shared/weights_f32.wgsl"),
            WeightFormat::F16 => include_str!("../wgsl/shared/weights_f16.wgsl"),
        }
    }
}

/// How the lanes of a workgroup add up. Each way has a `shared/reduce_*.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reduce {
    /// With subgroup operations, whatever the subgroup's size.
    Subgroup,
    /// Through workgroup memory alone; every adapter can.
    Workgroup,
}

impl Reduce {
    /// Every way.
    pub const ALL: [Reduce; 2] = [Reduce::Subgroup, Reduce::Workgroup];

    const fn name(self) -> &'static str {
        match self {
            Reduce::Subgroup => "subgroup",
            Reduce::Workgroup => "workgroup",
        }
    }

    const fn part(self) -> &'static str {
        match self {
            Reduce::Subgroup => include_str!("../wgsl/shared/reduce_subgroup.wgsl"),
            Reduce::Workgroup => include_str!("../wgsl/shared/reduce_workgroup.wgsl"),
        }
    }
}

/// Which of a kernel's forms to use; a dimension that the kernel lacks is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Variant {
    /// The format of the matrix in binding 1.
    pub weights: Option<WeightFormat>,
    /// How lanes add up.
    pub reduce: Option<Reduce>,
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let weights = self.weights.map(WeightFormat::name);
        let reduce = self.reduce.map(Reduce::name);
        match (weights, reduce) {
            (None, None) => f.write_str("plain"),
            (Some(one), None) | (None, Some(one)) => f.write_str(one),
            (Some(w), Some(r)) => write!(f, "{w}-{r}"),
        }
    }
}

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
    /// Whether binding 1 is a matrix in a [`WeightFormat`].
    pub weights: bool,
    /// Whether the kernel comes in the [`Reduce`] forms, which hold its entry point.
    pub reduce: bool,
    /// Storage bindings from 1 on.
    pub bindings: &'static [Binding],
    /// Layout of the parameter block in binding 0.
    pub params: ParamsLayout,
}

macro_rules! kernels {
    ($($(#[$doc:meta])* $id:ident $stem:literal { math: $math:literal, weights: $weights:literal, reduce: $reduce:literal,
        $($access:ident $name:literal $shape:literal,)* })*) => {
        /// Names a kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum KernelId { $($(#[$doc])* $id,)* }

        /// Every kernel.
        pub static KERNELS: &[Kernel] = &[$(Kernel {
            id: KernelId::$id,
            stem: $stem,
            text: include_str!(concat!("../wgsl/", $stem, ".wgsl")),
            math: $math,
            weights: $weights,
            reduce: $reduce,
            bindings: &[$(Binding { name: $name, access: Access::$access, shape: $shape },)*],
            params: <params::$id as Params>::LAYOUT,
        },)*];
    };
}

kernels! {
    /// Rows of a table, picked by index.
    GatherRows "gather_rows" { math: false, weights: true, reduce: false,
        Read "w" "[rows, dim]",
        Read "index" "[count]",
        ReadWrite "y" "[y_row + count, dim]",
    }
    /// Root-mean-square norm of rows or of groups within rows.
    RmsNorm "rms_norm" { math: false, weights: false, reduce: true,
        Read "scale" "[dim]",
        Read "x" "[rows, groups, dim]",
        ReadWrite "y" "[rows, groups, dim]",
    }
    /// Matrix product for few rows of x.
    MatVec "matvec" { math: false, weights: true, reduce: true,
        Read "w" "[n, k]",
        Read "x" "[rows, k]",
        Read "b" "[n]",
        ReadWrite "y" "[rows, n]",
    }
    /// Matrix product for many rows of x.
    MatMul "matmul" { math: false, weights: true, reduce: false,
        Read "w" "[n, k]",
        Read "x" "[rows, k]",
        Read "b" "[n]",
        ReadWrite "y" "[rows, n]",
    }
    /// The gated product of a feed-forward.
    SiluMul "silu_mul" { math: false, weights: false, reduce: false,
        Read "gate_up" "[rows, 2, dim]",
        ReadWrite "h" "[rows, dim]",
    }
    /// Rotary positions, and the way into the KV cache.
    Rope "rope" { math: false, weights: false, reduce: false,
        Read "qk" "[rows, ...]",
        Read "v" "[rows, ...]",
        Read "cos_sin" "[rows, half_dim, 2]",
        ReadWrite "q" "[rows, heads, dim]",
        ReadWrite "kv" "[segment rows, 2, kv_heads, dim]",
    }
    /// Attention over one segment of the KV cache.
    Attention "attention" { math: false, weights: false, reduce: false,
        Read "q" "[count, heads, dim]",
        Read "kv" "[keys, 2, kv_heads, dim]",
        ReadWrite "running" "[count, heads, 2]",
        ReadWrite "o" "[count, heads, dim]",
    }
    /// Gates of the mLSTM and their stabiliser.
    MlstmGates "mlstm_gates" { math: true, weights: false, reduce: false,
        Read "x" "[rows, ...]",
        ReadWrite "m" "[heads]",
        ReadWrite "gates" "[rows, heads, 4]",
    }
    /// The mLSTM cell in its recurrent form.
    MlstmStep "mlstm_step" { math: false, weights: false, reduce: false,
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        ReadWrite "c" "[heads, dk, dv + 1]",
        ReadWrite "y" "[rows, heads, dv + 1]",
    }
    /// Chunkwise mLSTM: what each chunk adds to the state.
    MlstmChunkState "mlstm_chunk_state" { math: false, weights: false, reduce: false,
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        ReadWrite "states" "[chunks, heads, dk, dv + 1]",
    }
    /// Chunkwise mLSTM: the state at the start of each chunk.
    MlstmChunkScan "mlstm_chunk_scan" { math: false, weights: false, reduce: false,
        Read "gates" "[rows, heads, 4]",
        ReadWrite "c" "[heads, dk, dv + 1]",
        ReadWrite "states" "[chunks, heads, dk, dv + 1]",
    }
    /// Chunkwise mLSTM: the output of every row.
    MlstmChunkOut "mlstm_chunk_out" { math: false, weights: false, reduce: false,
        Read "x" "[rows, ...]",
        Read "gates" "[rows, heads, 4]",
        Read "states" "[chunks, heads, dk, dv + 1]",
        ReadWrite "y" "[rows, heads, dv + 1]",
    }
    /// Normaliser, head norm and output gate of the mLSTM.
    MlstmNorm "mlstm_norm" { math: false, weights: false, reduce: true,
        Read "y" "[rows, heads, dv + 1]",
        Read "gates" "[rows, heads, 4]",
        Read "x" "[rows, ...]",
        Read "scale" "[heads, dv]",
        ReadWrite "out" "[rows, heads, dv]",
    }
    /// Cosine of the boundary predictor.
    Boundary "boundary" { math: false, weights: false, reduce: true,
        Read "x" "[rows + 1, 2, dim]",
        ReadWrite "cosine" "[rows]",
    }
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
        let weights: Vec<_> = if self.weights { WeightFormat::ALL.map(Some).to_vec() } else { vec![None] };
        let reduce: Vec<_> = if self.reduce { Reduce::ALL.map(Some).to_vec() } else { vec![None] };
        weights.iter().flat_map(|&weights| reduce.iter().map(move |&reduce| Variant { weights, reduce })).collect()
    }

    /// The variant of this kernel that a caller's choices come to: dimensions that the kernel lacks are dropped.
    pub fn variant(&self, weights: WeightFormat, reduce: Reduce) -> Variant {
        Variant { weights: self.weights.then_some(weights), reduce: self.reduce.then_some(reduce) }
    }

    /// The whole WGSL text of a variant: the shared parts it is made of, then the kernel's own file.
    pub fn source(&self, variant: Variant) -> String {
        let mut text = String::new();
        if self.math {
            text.push_str(include_str!("../wgsl/shared/math.wgsl"));
        }
        for part in [variant.reduce.map(Reduce::part), variant.weights.map(WeightFormat::part)].into_iter().flatten() {
            text.push_str(part);
        }
        text.push_str(self.text);
        text
    }
}

/// Rows of a chunk in the chunkwise mLSTM kernels.
pub const MLSTM_CHUNK: u32 = 64;
/// Rows that one workgroup of `mlstm_chunk_out` takes.
pub const MLSTM_CHUNK_OUT_TILE: u32 = 16;
/// The widest key head that `mlstm_chunk_out` holds.
pub const MLSTM_MAX_DK: u32 = 128;
/// Rows and columns of x Wᵀ that one workgroup of `matmul` makes.
pub const MATMUL_TILE: u32 = 64;
/// Queries that one workgroup of `attention` takes.
pub const ATTENTION_QUERIES: u32 = 8;
/// The widest head that `attention` holds.
pub const ATTENTION_MAX_DIM: u32 = 128;
/// Lanes of every workgroup.
pub const WORKGROUP: u32 = 64;
