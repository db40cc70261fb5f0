//! The one function that maps what an adapter can do to the forms of kernels and sizes of work that are used on it.

use bolmo_shaders::table::{LONE_TEAMS, SUBGROUP_LANES};
use bolmo_shaders::{Fusion, Reduce, Tiles};

use crate::device::adapter::AdapterInfo;
use crate::device::options::EngineOptions;

/// What the runtime does on this adapter, decided once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How lanes add up.
    pub reduce: Reduce,
    /// Who works together on a tile of a product of many rows, or of attention.
    pub tiles: Tiles,
    /// Rows of a matrix that one workgroup of `matvec` takes, or half of what it takes if the matrix is tall.
    pub matvec_rows: u32,
    /// Rows of a matrix that a team of lanes of `matvec` takes at a time, or half of what it takes if the matrix is tall.
    pub matvec_team_rows: u32,
    /// Whether a team of four rows of `matvec` has four loads of each on their way at once.
    pub matvec_ahead: bool,
    /// From so many rows on a matrix is tall.
    pub tall_rows: usize,
    /// Up to this width of x a norm in front of a `matvec` is part of it: every team goes over x once more, instead of one more dispatch.
    pub fused_norm_width: usize,
    /// Lanes of a subgroup, where all have as many: what cooperative matrices are made for.
    pub subgroup_lanes: Option<u32>,
    /// Lanes of a workgroup of `mlstm_cell`.
    pub cell_lanes: u32,
    /// Up to this many rows a product is a `matvec`; above, `matmul`.
    pub few_rows: usize,
    /// Up to this many rows the mLSTM is recurrent; above, chunkwise.
    pub recurrent_rows: usize,
    /// Turns that a lane's loops may take within a recurrent cell that is one dispatch.
    pub cell_turns: usize,
    /// Rows of the largest segment of a KV cache.
    pub segment_rows: usize,
    /// Bytes of a prompt that one submission handles at most.
    pub prefill_bytes: usize,
    /// Products of two numbers that one submission of a prompt's bytes makes at most, roughly.
    pub prefill_products: u64,
    /// Bytes that one submission decodes at most; 0: the host chooses.
    pub decode_steps: usize,
    /// How many bytes a submission is recorded for, as a multiple of what patches have had so far. A byte too many costs the launch
    /// of kernels that do nothing, one too few costs a submission and a readback.
    pub decode_slack: f32,
    /// How many products of weights a product within attention takes as long as.
    pub attention_cost: u64,
    /// Workgroups that a product of few outputs and long sums is cut into, where its tiles are fewer.
    pub product_groups: usize,
    /// Bytes that a binding may cover.
    pub max_binding_bytes: u64,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
}

impl Capabilities {
    /// [`Self::prefill_bytes`] on software adapters, unless their limits allow fewer or options ask for others.
    pub const SOFTWARE_PREFILL_BYTES: usize = 256;
    /// The same on all others.
    pub const GPU_PREFILL_BYTES: usize = 1024;

    pub(super) fn decide(adapter: &AdapterInfo, options: &EngineOptions) -> Self {
        // A subgroup wider than the workgroup of 64 would leave lanes without values.
        let subgroups = adapter.subgroup_sizes.filter(|&(_, max)| max <= bolmo_shaders::table::WORKGROUP);
        let lone = subgroups == Some((SUBGROUP_LANES, SUBGROUP_LANES));
        let reduce = match options.reduce {
            Some(fixed @ (Reduce::Workgroup | Reduce::OneLane)) => fixed,
            // Barriers are dear on CPUs, and rows are short.
            None if lone && adapter.is_software() => Reduce::OneSubgroup,
            Some(Reduce::OneSubgroup) if lone => Reduce::OneSubgroup,
            _ if subgroups.is_some() => Reduce::Subgroup,
            None if adapter.is_software() => Reduce::OneLane,
            _ => Reduce::Workgroup,
        };
        let subgroup_lanes = subgroups.filter(|(min, max)| min == max && reduce.subgroups()).map(|(min, _)| min);
        let possible = |tiles: Tiles| match tiles.cooperative_side() {
            // four subgroups to a workgroup
            Some(side) => {
                adapter.shader_f16
                    && adapter.cooperative_sides.contains(&side)
                    && subgroup_lanes.is_some_and(|lanes| 4 * lanes <= adapter.workgroup_lanes)
            }
            None => tiles != Tiles::Subgroup || subgroup_lanes == Some(SUBGROUP_LANES),
        };
        // Tiles of a subgroup suit CPUs, where barriers and workgroup memory are dear, and are written for one size of subgroups. CPUs
        // that offer cooperative matrices have no units for them.
        let best: &[Tiles] = match adapter.is_software() {
            true if reduce == Reduce::OneLane => &[Tiles::OneLane],
            true => &[Tiles::Subgroup],
            false => &[Tiles::Cooperative16, Tiles::Cooperative8],
        };
        let wanted = options.tiles.as_ref().map_or(best, std::slice::from_ref);
        let tiles = wanted.iter().copied().find(|&tiles| possible(tiles)).unwrap_or(Tiles::Workgroup);
        let matvec_ahead = options.matvec_ahead.unwrap_or(!adapter.is_software());
        let matvec_team_rows = if matvec_ahead { 4 } else { 8 };
        let matvec_rows = match (reduce, subgroups) {
            // as many for each subgroup of a workgroup
            (Reduce::OneSubgroup | Reduce::Subgroup, Some((min, _))) => {
                matvec_team_rows * (bolmo_shaders::table::WORKGROUP / min.max(1)).max(1)
            }
            (Reduce::OneLane, _) => LONE_TEAMS * matvec_team_rows,
            _ => 8 * matvec_team_rows,
        };
        // On a CPU a matvec reads the weights from its caches again for every row, and beats tiles in workgroup memory for long. Tiles of a
        // subgroup take 32 rows in the time of two to six. Without subgroups barriers take so long to compile and to keep that the forms
        // without them are best for any number of rows.
        let few_rows = match tiles {
            Tiles::OneLane => Self::SOFTWARE_PREFILL_BYTES,
            Tiles::Subgroup => 4,
            _ if adapter.is_software() => 24,
            Tiles::Workgroup | Tiles::Cooperative8 | Tiles::Cooperative16 => 8,
        };
        let recurrent_rows = match tiles {
            Tiles::OneLane => Self::SOFTWARE_PREFILL_BYTES,
            _ if adapter.is_software() => 24,
            _ => 8,
        };
        // Where one lane does all the work its loops must end before 65535 turns, see `Reduce::OneLane`; a row of the widest cell takes 34 000. A
        // key of the widest head takes 8.
        let (cell_turns, segment_rows) = if reduce == Reduce::OneLane { (60_000, 4096) } else { (usize::MAX, 1 << 20) };
        // Small models on a CPU stay below 100 ms a submission, so that a cancel is quick. Attention is made of loads, which software
        // adapters do lane by lane.
        let (prefill_bytes, prefill_products, attention_cost) = if adapter.is_software() {
            (Self::SOFTWARE_PREFILL_BYTES, 1 << 27, 8)
        } else {
            (Self::GPU_PREFILL_BYTES, 1 << 38, 1)
        };
        Self {
            reduce,
            tiles,
            subgroup_lanes,
            matvec_rows,
            matvec_team_rows,
            matvec_ahead,
            // Enough for eight workgroups, so that every thread has some. What GPUs gain is not known.
            tall_rows: if adapter.is_software() { 1024 } else { usize::MAX },
            // On a CPU a dispatch costs about as much as a matrix of 50 000 weights, and the scales of a norm are loads like those.
            fused_norm_width: if adapter.is_software() { 512 } else { usize::MAX },
            // Large devices have few heads to go round and much to wait for: more lanes share a head's state.
            cell_lanes: if adapter.is_software() { 64 } else { 256 },
            few_rows: options.few_rows.unwrap_or(few_rows),
            cell_turns,
            segment_rows,
            recurrent_rows: options.few_rows.unwrap_or(recurrent_rows),
            prefill_bytes: options.prefill_bytes.unwrap_or(prefill_bytes).clamp(1, 4096),
            prefill_products,
            decode_steps: options.decode_steps.unwrap_or(16),
            decode_slack: if adapter.is_software() { 1.0 } else { 1.6 },
            attention_cost,
            // A few to each core of a large device; a CPU's threads are busy with one tile each.
            product_groups: options
                .product_groups
                .unwrap_or(if adapter.is_software() { 1 } else { 512 })
                .clamp(1, 1 << 12),
            max_binding_bytes: options
                .max_binding_bytes
                .map_or(adapter.max_binding_bytes, |asked| asked.min(adapter.max_binding_bytes)),
            max_buffer_bytes: adapter.max_buffer_bytes,
        }
    }

    /// Up to this many rows all of a recurrent cell of this shape is one dispatch; at least 1.
    pub fn cell_rows(&self, key_dim: usize, value_dim: usize) -> usize {
        // For each column of the state its rows, the column itself, mean and variance, and what is written.
        let turns = (key_dim + 4) * (value_dim + 1);
        (self.cell_turns / turns).clamp(1, self.recurrent_rows.max(1))
    }

    /// Rows of a matrix that one workgroup of `matvec` takes in this form.
    pub fn matvec_rows(&self, fusion: Fusion) -> usize {
        self.matvec_rows as usize * if fusion.tall { 2 } else { 1 }
    }
}
