//! The variants of kernels: the weight format, the fusion of products, the reduction over lanes, and the cooperation on
//! tiles.

use crate::sizes::{MLSTM_CHUNK_OUT_TILE, QUANT_BLOCK, SINGLE_LANE_TEAMS, SUBGROUP_LANES, WORKGROUP};

/// The storage format of a matrix on the device.
///
/// Each format has a `shared/weights_*.wgsl` and a `shared/blocks_*.wgsl` that read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightFormat {
    /// 4 bytes per weight.
    F32,
    /// 2 bytes per weight, two weights per 32-bit word.
    F16,
    /// Signed bytes, and one f16 scale per [`QUANT_BLOCK`] weights of a row.
    Q8,
    /// 4-bit integers, and one f16 scale per [`QUANT_BLOCK`] weights of a row.
    Q4,
}

impl WeightFormat {
    /// Every format.
    pub const ALL: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4];

    /// Returns the size in bytes of `rows` rows of `k` weights, without scales.
    pub const fn weight_bytes(self, rows: u64, k: u64) -> u64 {
        match self {
            WeightFormat::F32 => 4 * rows * k,
            WeightFormat::F16 => 2 * rows * k,
            WeightFormat::Q8 => rows * k,
            WeightFormat::Q4 => rows * k / 2,
        }
    }

    /// Returns the size in bytes of the scales of `rows` rows of `k` weights.
    ///
    /// The size is a multiple of 4, and 0 for formats without scales.
    pub const fn scale_bytes(self, rows: u64, k: u64) -> u64 {
        match self {
            WeightFormat::F32 | WeightFormat::F16 => 0,
            WeightFormat::Q8 | WeightFormat::Q4 => (rows * (k / QUANT_BLOCK as u64)).div_ceil(2) * 4,
        }
    }

    /// Returns whether the format has scales, in binding [`SCALES_BINDING`](crate::sizes::SCALES_BINDING).
    pub const fn has_scales(self) -> bool {
        matches!(self, WeightFormat::Q8 | WeightFormat::Q4)
    }

    /// Returns the format itself if it can store rows of `k` weights, else the next larger format that can.
    pub const fn fitting(self, k: usize) -> WeightFormat {
        match self {
            WeightFormat::Q8 | WeightFormat::Q4 if k.is_multiple_of(QUANT_BLOCK) => self,
            WeightFormat::F16 | WeightFormat::Q8 | WeightFormat::Q4 if k.is_multiple_of(8) => WeightFormat::F16,
            _ => WeightFormat::F32,
        }
    }

    /// Returns the name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
            WeightFormat::Q8 => "q8",
            WeightFormat::Q4 => "q4",
        }
    }

    /// Returns the format with this name.
    pub fn from_name(name: &str) -> Option<WeightFormat> {
        WeightFormat::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Returns the WGSL text that reads a matrix in this format.
    pub(crate) const fn part(self, access: WeightAccess) -> &'static str {
        match (self, access) {
            (WeightFormat::F32, WeightAccess::Vec4) => include_str!("../wgsl/shared/weights_f32.wgsl"),
            (WeightFormat::F16, WeightAccess::Vec4) => include_str!("../wgsl/shared/weights_f16.wgsl"),
            (WeightFormat::Q8, WeightAccess::Vec4) => include_str!("../wgsl/shared/weights_q8.wgsl"),
            (WeightFormat::Q4, WeightAccess::Vec4) => include_str!("../wgsl/shared/weights_q4.wgsl"),
            (WeightFormat::F32, WeightAccess::Blocks) => include_str!("../wgsl/shared/blocks_f32.wgsl"),
            (WeightFormat::F16, WeightAccess::Blocks) => include_str!("../wgsl/shared/blocks_f16.wgsl"),
            (WeightFormat::Q8, WeightAccess::Blocks) => include_str!("../wgsl/shared/blocks_q8.wgsl"),
            (WeightFormat::Q4, WeightAccess::Blocks) => include_str!("../wgsl/shared/blocks_q4.wgsl"),
        }
    }
}

/// How a kernel reads its matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightAccess {
    /// Four weights at a time, through `shared/weights_*.wgsl`.
    Vec4,
    /// As many weights of a row as one load returns, through `shared/blocks_*.wgsl`.
    Blocks,
}

/// The operations fused into a product, and the shape of its tiles; see `matvec.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fusion {
    /// x goes through an RMS norm first.
    pub norm: bool,
    /// Rows of W alternate between gate and up, and the output is `silu(gate) * up`.
    pub gated: bool,
    /// Teams handle twice as many rows of W, which amortizes the loads of x. For matrices with enough rows to keep all
    /// teams busy. The WGSL text is the same; only the kernel's constants differ.
    pub tall: bool,
}

impl Fusion {
    /// Every combination with a WGSL text of its own.
    pub const ALL: [Fusion; 4] = [
        Fusion { norm: false, gated: false, tall: false },
        Fusion { norm: false, gated: true, tall: false },
        Fusion { norm: true, gated: false, tall: false },
        Fusion { norm: true, gated: true, tall: false },
    ];

    pub(crate) fn part(self) -> String {
        format!("const NORM: bool = {};\nconst GATED: bool = {};\n", self.norm, self.gated)
    }
}

/// How the lanes of a workgroup reduce.
///
/// Each value has a `shared/reduce_*.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reduce {
    /// Subgroup operations in a workgroup that is one subgroup of [`SUBGROUP_LANES`] lanes, without barriers.
    ///
    /// Incorrect for any other subgroup size. Kernels with teams use the [`Reduce::Subgroup`] variant instead.
    OneSubgroup,
    /// Subgroup operations, with subgroups of any size.
    Subgroup,
    /// Workgroup memory only; every adapter supports it.
    Workgroup,
    /// No reduction: a workgroup is a single lane, or several lanes with their own rows.
    ///
    /// Every adapter supports it. It is meant for CPUs without subgroups, where barriers are most expensive. Some
    /// kernels without other [`Reduce`] variants have this one too: their text without the barriers.
    ///
    /// A single lane then does the work of many. Mesa's CPU driver silently ends the loops of a lane after 65535
    /// iterations in total, so a dispatch must stay below that limit.
    SingleLane,
}

impl Reduce {
    /// Every value.
    pub const ALL: [Reduce; 4] = [Reduce::OneSubgroup, Reduce::Subgroup, Reduce::Workgroup, Reduce::SingleLane];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Reduce::OneSubgroup => "one_subgroup",
            Reduce::Subgroup => "subgroup",
            Reduce::Workgroup => "workgroup",
            Reduce::SingleLane => "single_lane",
        }
    }

    /// Returns the number of lanes of a workgroup.
    pub const fn lanes(self) -> u32 {
        match self {
            Reduce::OneSubgroup => SUBGROUP_LANES,
            Reduce::Subgroup | Reduce::Workgroup => WORKGROUP,
            Reduce::SingleLane => 1,
        }
    }

    /// Returns whether the adapter must support subgroup operations.
    pub const fn subgroups(self) -> bool {
        matches!(self, Reduce::OneSubgroup | Reduce::Subgroup)
    }

    /// Returns the WGSL text of the reduction, `teams` for kernels whose workgroups hold several teams.
    pub(crate) const fn part(self, teams: bool) -> &'static str {
        match self {
            Reduce::SingleLane if teams => include_str!("../wgsl/shared/teams_single_lane.wgsl"),
            Reduce::SingleLane => include_str!("../wgsl/shared/reduce_single_lane.wgsl"),
            Reduce::OneSubgroup => include_str!("../wgsl/shared/reduce_one_subgroup.wgsl"),
            Reduce::Subgroup => include_str!("../wgsl/shared/reduce_subgroup.wgsl"),
            Reduce::Workgroup => include_str!("../wgsl/shared/reduce_workgroup.wgsl"),
        }
    }
}

/// The arithmetic of products with matrices that have scales, on the CPU device outside of browsers. Other weights are
/// always multiplied in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Products {
    /// Weights are converted to f32.
    #[default]
    F32,
    /// Activations are quantized to 8 bits in blocks of 32 with a scale each, and multiplied with weights in integers.
    ///
    /// This is faster, and moves an activation by at most 0.4% of the largest one in its block. A block with an
    /// infinite value or NaN gives NaN. A block of values below 2^-100 counts as zeros. Parts of sums that cut blocks
    /// are computed in f32.
    Int8,
}

/// How lanes cooperate on a tile of a product or of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tiles {
    /// A workgroup that is one subgroup of [`SUBGROUP_LANES`] lanes.
    ///
    /// Tiles stay in registers and lanes exchange values by subgroup operations, without barriers. Incorrect for any
    /// other subgroup size. The text is `wgsl/subgroup/<stem>.wgsl`.
    Subgroup,
    /// A workgroup of [`WORKGROUP`] lanes, through workgroup memory; every adapter supports it.
    Workgroup,
    /// A workgroup of four subgroups, with cooperative matrices of 8 x 8.
    ///
    /// Both factors are rounded to f16, so matrices in f32 don't have this variant. The text is
    /// `wgsl/cooperative/<stem>.wgsl`.
    Cooperative8,
    /// The same with matrices of 16 x 16.
    Cooperative16,
    /// No cooperation: each lane works alone.
    ///
    /// For attention on CPUs without subgroups; other kernels use the [`Tiles::Workgroup`] variant instead. The text is
    /// `wgsl/single_lane/<stem>.wgsl`.
    SingleLane,
}

impl Tiles {
    /// Every value.
    pub const ALL: [Tiles; 5] =
        [Tiles::Subgroup, Tiles::Workgroup, Tiles::Cooperative8, Tiles::Cooperative16, Tiles::SingleLane];

    /// Returns the name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Tiles::Subgroup => "subgroup",
            Tiles::Workgroup => "workgroup",
            Tiles::Cooperative8 => "cooperative8",
            Tiles::Cooperative16 => "cooperative16",
            Tiles::SingleLane => "single_lane",
        }
    }

    /// Returns the value with this name; `one_lane` is an alias of `single_lane`.
    pub fn from_name(name: &str) -> Option<Tiles> {
        let name = if name == "one_lane" { Tiles::SingleLane.name() } else { name };
        Tiles::ALL.into_iter().find(|tiles| tiles.name() == name)
    }

    /// Returns the number of rows and columns of the cooperative matrices, if the variant uses them.
    pub const fn cooperative_side(self) -> Option<u32> {
        match self {
            Tiles::Subgroup | Tiles::Workgroup | Tiles::SingleLane => None,
            Tiles::Cooperative8 => Some(8),
            Tiles::Cooperative16 => Some(16),
        }
    }

    /// Returns the directives at the start of the complete text, and the definitions right before the kernel's own
    /// text.
    pub(crate) fn parts(self) -> (&'static str, String) {
        let Some(side) = self.cooperative_side() else { return ("", String::new()) };
        let matrix = |role, scalar| format!("alias Matrix{role} = coop_mat{side}x{side}<{scalar}, {role}>;\n");
        let types = matrix("A", "f16") + &matrix("B", "f16") + &matrix("C", "f32");
        ("enable f16;\nenable wgpu_cooperative_matrix;\n", format!("const SIDE: u32 = {side}u;\n{types}"))
    }

    /// Returns the rows of W and the rows of x per workgroup of `matmul`.
    pub const fn matmul(self) -> [usize; 2] {
        match self {
            Tiles::Subgroup | Tiles::Cooperative8 => [32, 32],
            Tiles::Workgroup | Tiles::Cooperative16 | Tiles::SingleLane => [64, 64],
        }
    }

    /// Returns the grid of `mlstm_chunk_out` for value heads of width `dv`.
    pub const fn chunk_out_grid(self, rows: usize, heads: usize, dv: usize) -> [usize; 3] {
        let columns = match self {
            // A workgroup computes 32 columns.
            Tiles::Subgroup => dv.div_ceil(32),
            Tiles::Workgroup | Tiles::Cooperative8 | Tiles::Cooperative16 | Tiles::SingleLane => 1,
        };
        [rows.div_ceil(MLSTM_CHUNK_OUT_TILE as usize), heads, columns]
    }

    /// Returns the grid of `attention` for `queries` queries of each sequence.
    pub const fn attention_grid(self, queries: usize, heads: usize, sequences: usize) -> [usize; 3] {
        match self {
            Tiles::Subgroup => [queries.div_ceil(16), heads, sequences],
            Tiles::Workgroup | Tiles::Cooperative8 | Tiles::Cooperative16 => [queries.div_ceil(8), heads, sequences],
            Tiles::SingleLane => [(queries * heads).div_ceil(SINGLE_LANE_TEAMS as usize), 1, sequences],
        }
    }
}

/// A variant of a kernel.
///
/// A dimension that the kernel lacks is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Variant {
    /// The format of the matrix in binding 1.
    pub weights: Option<WeightFormat>,
    /// How lanes reduce.
    pub reduce: Option<Reduce>,
    /// The operations fused into a product.
    pub fusion: Option<Fusion>,
    /// How lanes cooperate on a tile.
    pub tiles: Option<Tiles>,
}

impl Variant {
    /// Returns whether the adapter must support subgroup operations.
    pub fn subgroups(&self) -> bool {
        self.reduce.is_some_and(Reduce::subgroups) || self.tiles == Some(Tiles::Subgroup) || self.cooperative()
    }

    /// Returns whether the adapter must support cooperative matrices, and f16 in shaders.
    pub fn cooperative(&self) -> bool {
        self.tiles.is_some_and(|tiles| tiles.cooperative_side().is_some())
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fusion = self.fusion.unwrap_or_default();
        let tiles = self.tiles.map(|tiles| format!("{}_tiles", tiles.name()));
        let names = [
            self.weights.map(WeightFormat::name),
            self.reduce.map(Reduce::name),
            tiles.as_deref(),
            fusion.norm.then_some("norm"),
            fusion.gated.then_some("gated"),
            fusion.tall.then_some("tall"),
        ];
        match names.into_iter().flatten().collect::<Vec<_>>().join("-") {
            none if none.is_empty() => f.write_str("plain"),
            names => f.write_str(&names),
        }
    }
}
