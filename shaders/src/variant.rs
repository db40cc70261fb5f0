//! The forms that kernels come in: how a matrix is kept, what a product does besides, how lanes add up, and who works together on a tile.

use crate::sizes::{LONE_TEAMS, MLSTM_CHUNK_OUT_TILE, QUANT_BLOCK, SUBGROUP_LANES, WORKGROUP};

/// How a matrix is kept on the device. Each format has a `shared/weights_*.wgsl` and a `shared/blocks_*.wgsl` that read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightFormat {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight, two to a 32-bit word.
    F16,
    /// Signed bytes, and an f16 scale for [`QUANT_BLOCK`] of a row.
    Q8,
    /// Half bytes, and an f16 scale for [`QUANT_BLOCK`] of a row.
    Q4,
}

impl WeightFormat {
    /// Every format.
    pub const ALL: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4];

    /// Bytes of `rows` rows of `k` weights, scales not counted.
    pub const fn weight_bytes(self, rows: u64, k: u64) -> u64 {
        match self {
            WeightFormat::F32 => 4 * rows * k,
            WeightFormat::F16 => 2 * rows * k,
            WeightFormat::Q8 => rows * k,
            WeightFormat::Q4 => rows * k / 2,
        }
    }

    /// Bytes of the scales of `rows` rows of `k` weights, a whole number of 32-bit words; 0 for formats without.
    pub const fn scale_bytes(self, rows: u64, k: u64) -> u64 {
        match self {
            WeightFormat::F32 | WeightFormat::F16 => 0,
            WeightFormat::Q8 | WeightFormat::Q4 => (rows * (k / QUANT_BLOCK as u64)).div_ceil(2) * 4,
        }
    }

    /// Whether the format has scales, in binding [`SCALES_BINDING`](crate::sizes::SCALES_BINDING).
    pub const fn has_scales(self) -> bool {
        matches!(self, WeightFormat::Q8 | WeightFormat::Q4)
    }

    /// The format itself if rows of `k` weights can be kept in it, else the next larger one in which they can.
    pub const fn fitting(self, k: usize) -> WeightFormat {
        match self {
            WeightFormat::Q8 | WeightFormat::Q4 if k.is_multiple_of(QUANT_BLOCK) => self,
            WeightFormat::F16 | WeightFormat::Q8 | WeightFormat::Q4 if k.is_multiple_of(8) => WeightFormat::F16,
            _ => WeightFormat::F32,
        }
    }

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
            WeightFormat::Q8 => "q8",
            WeightFormat::Q4 => "q4",
        }
    }

    /// The format that users call `name`.
    pub fn from_name(name: &str) -> Option<WeightFormat> {
        WeightFormat::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The text that reads a matrix in this format, four weights at a time or in blocks as wide as a load.
    pub(crate) const fn part(self, access: WeightAccess) -> &'static str {
        match (self, access) {
            (WeightFormat::F32, WeightAccess::Fours) => include_str!("../wgsl/shared/weights_f32.wgsl"),
            (WeightFormat::F16, WeightAccess::Fours) => include_str!("../wgsl/shared/weights_f16.wgsl"),
            (WeightFormat::Q8, WeightAccess::Fours) => include_str!("../wgsl/shared/weights_q8.wgsl"),
            (WeightFormat::Q4, WeightAccess::Fours) => include_str!("../wgsl/shared/weights_q4.wgsl"),
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
    /// Four weights at a time, by `shared/weights_*.wgsl`.
    Fours,
    /// As many of a row as one load brings, by `shared/blocks_*.wgsl`.
    Blocks,
}

/// What a product does besides multiplying, and how it is cut; see `matvec.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fusion {
    /// x goes through an RMS norm first.
    pub norm: bool,
    /// Rows of W are pairs of gate and up, and what comes out is `silu(gate) * up`.
    pub gated: bool,
    /// Teams take twice as many rows of W, so that loads of x count for less: where a matrix has so many that teams are enough anyway. The
    /// text is the same, what differs are the kernel's constants.
    pub tall: bool,
}

impl Fusion {
    /// Every combination that has a text of its own.
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

/// How the lanes of a workgroup add up. Each way has a `shared/reduce_*.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reduce {
    /// With subgroup operations, in a workgroup that is one subgroup of [`SUBGROUP_LANES`] lanes: nothing waits at a barrier. Wrong on any other
    /// size of subgroups. Kernels whose workgroups hold several teams have the form for [`Reduce::Subgroup`] in its place.
    OneSubgroup,
    /// With subgroup operations, whatever the subgroup's size.
    Subgroup,
    /// Through workgroup memory alone; every adapter can.
    Workgroup,
    /// Not at all: a workgroup is one lane, or several that work on rows of their own. Every adapter can; for CPUs without subgroups, where
    /// barriers are dearest. Some kernels that otherwise have one form come in this one too: their text without the barriers. One lane then
    /// does the work of many, and Mesa's driver for CPUs ends the loops of a lane, without a word, once they come to 65535 turns together:
    /// a dispatch must stay below that.
    OneLane,
}

impl Reduce {
    /// Every way.
    pub const ALL: [Reduce; 4] = [Reduce::OneSubgroup, Reduce::Subgroup, Reduce::Workgroup, Reduce::OneLane];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Reduce::OneSubgroup => "one_subgroup",
            Reduce::Subgroup => "subgroup",
            Reduce::Workgroup => "workgroup",
            Reduce::OneLane => "one_lane",
        }
    }

    /// Lanes of a workgroup.
    pub const fn lanes(self) -> u32 {
        match self {
            Reduce::OneSubgroup => SUBGROUP_LANES,
            Reduce::Subgroup | Reduce::Workgroup => WORKGROUP,
            Reduce::OneLane => 1,
        }
    }

    /// Whether it takes subgroup operations.
    pub const fn subgroups(self) -> bool {
        matches!(self, Reduce::OneSubgroup | Reduce::Subgroup)
    }

    /// `teams`: of a kernel whose workgroups hold several teams.
    pub(crate) const fn part(self, teams: bool) -> &'static str {
        match self {
            Reduce::OneLane if teams => include_str!("../wgsl/shared/teams_single_lane.wgsl"),
            Reduce::OneLane => include_str!("../wgsl/shared/reduce_single_lane.wgsl"),
            Reduce::OneSubgroup => include_str!("../wgsl/shared/reduce_one_subgroup.wgsl"),
            Reduce::Subgroup => include_str!("../wgsl/shared/reduce_subgroup.wgsl"),
            Reduce::Workgroup => include_str!("../wgsl/shared/reduce_workgroup.wgsl"),
        }
    }
}

/// Who works together on a tile of a product or of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tiles {
    /// A workgroup that is one subgroup of [`SUBGROUP_LANES`] lanes: tiles stay in registers, lanes hand each other values by subgroup
    /// operations, and nothing waits at a barrier. Wrong on any other size of subgroups. The text is `wgsl/subgroup/<stem>.wgsl`.
    Subgroup,
    /// A workgroup of [`WORKGROUP`] lanes, through workgroup memory; every adapter can.
    Workgroup,
    /// A workgroup of four subgroups, by cooperative matrices of 8 x 8. Both factors are rounded to f16, so matrices in f32 don't come in
    /// this form. The text is `wgsl/cooperative/<stem>.wgsl`.
    Cooperative8,
    /// The same by matrices of 16 x 16.
    Cooperative16,
    /// Nobody: a lane works by itself. For attention on CPUs without subgroups; other kernels have the form for [`Tiles::Workgroup`] in its
    /// place. The text is `wgsl/single_lane/<stem>.wgsl`.
    OneLane,
}

impl Tiles {
    /// Every way.
    pub const ALL: [Tiles; 5] =
        [Tiles::Subgroup, Tiles::Workgroup, Tiles::Cooperative8, Tiles::Cooperative16, Tiles::OneLane];

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Tiles::Subgroup => "subgroup",
            Tiles::Workgroup => "workgroup",
            Tiles::Cooperative8 => "cooperative8",
            Tiles::Cooperative16 => "cooperative16",
            Tiles::OneLane => "one_lane",
        }
    }

    /// The way that users call `name`.
    pub fn from_name(name: &str) -> Option<Tiles> {
        Tiles::ALL.into_iter().find(|tiles| tiles.name() == name)
    }

    /// Rows and columns of the cooperative matrices, if it is by those.
    pub const fn cooperative_side(self) -> Option<u32> {
        match self {
            Tiles::Subgroup | Tiles::Workgroup | Tiles::OneLane => None,
            Tiles::Cooperative8 => Some(8),
            Tiles::Cooperative16 => Some(16),
        }
    }

    /// What goes in front of everything else in a kernel's text, and what stands right in front of the kernel's own.
    pub(crate) fn parts(self) -> (&'static str, String) {
        let Some(side) = self.cooperative_side() else { return ("", String::new()) };
        let matrix = |role, scalar| format!("alias Matrix{role} = coop_mat{side}x{side}<{scalar}, {role}>;\n");
        let types = matrix("A", "f16") + &matrix("B", "f16") + &matrix("C", "f32");
        ("enable f16;\nenable wgpu_cooperative_matrix;\n", format!("const SIDE: u32 = {side}u;\n{types}"))
    }

    /// Rows of W and rows of x that one workgroup of `matmul` multiplies.
    pub const fn matmul(self) -> [usize; 2] {
        match self {
            Tiles::Subgroup | Tiles::Cooperative8 => [32, 32],
            Tiles::Workgroup | Tiles::Cooperative16 | Tiles::OneLane => [64, 64],
        }
    }

    /// The grid of `mlstm_chunk_out` for values `dv` wide.
    pub const fn chunk_out_grid(self, rows: usize, heads: usize, dv: usize) -> [usize; 3] {
        let columns = match self {
            // columns that one workgroup makes, besides the last
            Tiles::Subgroup => dv.div_ceil(32),
            Tiles::Workgroup | Tiles::Cooperative8 | Tiles::Cooperative16 | Tiles::OneLane => 1,
        };
        [rows.div_ceil(MLSTM_CHUNK_OUT_TILE as usize), heads, columns]
    }

    /// The grid of `attention`, for so many queries of each sequence.
    pub const fn attention_grid(self, queries: usize, heads: usize, sequences: usize) -> [usize; 3] {
        match self {
            Tiles::Subgroup => [queries.div_ceil(16), heads, sequences],
            Tiles::Workgroup | Tiles::Cooperative8 | Tiles::Cooperative16 => [queries.div_ceil(8), heads, sequences],
            Tiles::OneLane => [(queries * heads).div_ceil(LONE_TEAMS as usize), 1, sequences],
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
    /// What a product does besides multiplying.
    pub fusion: Option<Fusion>,
    /// Who works together on a tile.
    pub tiles: Option<Tiles>,
}

impl Variant {
    /// Whether the adapter must have subgroup operations.
    pub fn subgroups(&self) -> bool {
        self.reduce.is_some_and(Reduce::subgroups) || self.tiles == Some(Tiles::Subgroup) || self.cooperative()
    }

    /// Whether the adapter must have cooperative matrices, and f16 in shaders.
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
