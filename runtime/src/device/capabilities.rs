//! The kernels and sizes of work that suit an adapter.

use bolmo_shaders::sizes::{SINGLE_LANE_TEAMS, SUBGROUP_LANES, WORKGROUP};
use bolmo_shaders::{Fusion, Reduce, Tiles};

use crate::device::adapter::AdapterInfo;
use crate::device::options::EngineOptions;

/// The kernels and sizes of work chosen for an adapter when it is opened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How the lanes of a workgroup add up.
    pub reduce: Reduce,
    /// Which lanes share a tile of a `matmul` or of attention.
    pub tiles: Tiles,
    /// Rows of a matrix per workgroup of `matvec`; twice as many for a tall matrix.
    pub matvec_rows: u32,
    /// Rows of a matrix that a team of lanes of `matvec` handles at a time; twice as many for a tall matrix.
    pub matvec_team_rows: u32,
    /// Whether a team of four rows of `matvec` keeps four loads of each row in flight.
    pub matvec_ahead: bool,
    /// Number of rows from which a matrix counts as tall.
    pub tall_rows: usize,
    /// Largest width of x for which a norm in front of a `matvec` is fused into it. Every team then computes the norm
    /// again, which saves a dispatch.
    pub fused_norm_width: usize,
    /// Lanes per subgroup, if all subgroups have the same size. Cooperative matrices are compiled for it.
    pub subgroup_lanes: Option<u32>,
    /// Lanes per workgroup of `mlstm_cell`.
    pub cell_lanes: u32,
    /// Largest number of rows for which a product runs as `matvec`; above it, `matmul`.
    pub matvec_max_rows: usize,
    /// Largest number of rows for which the mLSTM runs in its recurrent form; above it, chunkwise.
    pub recurrent_rows: usize,
    /// Largest number of loop iterations of one lane in a single-dispatch mLSTM cell.
    pub cell_turns: usize,
    /// Rows of the largest segment of a KV cache.
    pub segment_rows: usize,
    /// Bytes from which on a tensor is used where the checkpoint has it.
    pub in_place_bytes: u64,
    /// Maximum prompt bytes per submission.
    pub prefill_bytes: usize,
    /// Approximate maximum of multiply-adds per prefill submission.
    pub prefill_products: u64,
    /// Maximum decoded bytes per submission; with 0 the host samples every byte.
    pub decode_steps: usize,
    /// Bytes that a decode submission is recorded for, as a multiple of the average patch length so far. A byte too
    /// many costs the launch of kernels that do nothing; a byte too few costs a submission and a readback.
    pub decode_slack: f32,
    /// Whether the host records the next decode step while the device works, which needs a core that is free.
    pub records_ahead: bool,
    /// Whether a submission can be stopped between two dispatches. Submissions may then take long.
    pub interrupts: bool,
    /// Weights of all sequences of a decode step from which on it is long enough to be worth stopping part-way. That
    /// costs a copy of their states.
    pub long_step_weights: u64,
    /// Cost of a multiply-add within attention, relative to one with a weight.
    pub attention_cost: u64,
    /// Number of workgroups that split a product with few outputs and long sums, if it has fewer tiles.
    pub product_groups: usize,
    /// Largest binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
}

impl Capabilities {
    /// Default of [`Self::prefill_bytes`] on the CPU device.
    pub const CPU_PREFILL_BYTES: usize = 512;
    /// Default of [`Self::in_place_bytes`] on the CPU device. Products with a matrix of several such tensors take a
    /// dispatch for each, which costs more than the memory of smaller ones is worth.
    pub const CPU_IN_PLACE_BYTES: u64 = 1 << 18;
    /// Default of [`Self::prefill_bytes`] on software adapters.
    pub const SOFTWARE_PREFILL_BYTES: usize = 256;
    /// Default of [`Self::prefill_bytes`] on all other adapters.
    pub const GPU_PREFILL_BYTES: usize = 1024;

    /// Chooses what suits `adapter`, except where `options` ask for something else that it supports.
    pub(super) fn decide(adapter: &AdapterInfo, options: &EngineOptions) -> Self {
        if adapter.is_cpu() {
            return Self::of_cpu(adapter, options);
        }
        let software = adapter.is_software();
        // In a subgroup wider than the workgroup some lanes would have no values.
        let subgroups = adapter.subgroup_sizes.filter(|&(_, max)| max <= WORKGROUP);
        let reduce = choose_reduce(options.reduce, subgroups, software);
        let subgroup_lanes = subgroups.filter(|(min, max)| min == max && reduce.subgroups()).map(|(min, _)| min);
        let tiles = choose_tiles(options.tiles, adapter, reduce, subgroup_lanes);
        let matvec_ahead = options.matvec_ahead.unwrap_or(!software);
        let matvec_team_rows = if matvec_ahead { 4 } else { 8 };
        let (cell_turns, segment_rows) = loop_limits(reduce);
        let (prefill_bytes, prefill_products) = prefill_limits(software);
        Self {
            reduce,
            tiles,
            subgroup_lanes,
            matvec_rows: matvec_teams(reduce, subgroups) * matvec_team_rows,
            matvec_team_rows,
            matvec_ahead,
            // From 1024 rows on there are at least eight workgroups, one for each thread of a typical CPU. The gain on
            // GPUs has not been measured.
            tall_rows: if software { 1024 } else { usize::MAX },
            // On a CPU a dispatch costs as much as a product with about 50 000 weights, and the loads of a norm's
            // scales cost as much as those of weights.
            fused_norm_width: if software { 512 } else { usize::MAX },
            // Large devices have few heads to distribute and much latency to hide: more lanes share a head's state.
            cell_lanes: if software { 64 } else { 256 },
            matvec_max_rows: options.matvec_max_rows.unwrap_or_else(|| matvec_max_rows(tiles, software)),
            cell_turns,
            segment_rows,
            recurrent_rows: options.matvec_max_rows.unwrap_or_else(|| recurrent_rows(tiles, software)),
            in_place_bytes: u64::MAX,
            prefill_bytes: options.prefill_bytes.unwrap_or(prefill_bytes).clamp(1, 4096),
            prefill_products,
            decode_steps: options.decode_steps.unwrap_or(16),
            decode_slack: if software { 1.0 } else { 1.6 },
            records_ahead: true,
            interrupts: false,
            long_step_weights: u64::MAX,
            // Attention consists mostly of loads, which software adapters execute lane by lane.
            attention_cost: if software { 8 } else { 1 },
            // A few for each core of a large device; on a CPU one tile keeps a thread busy.
            product_groups: options.product_groups.unwrap_or(if software { 1 } else { 512 }).clamp(1, 1 << 12),
            max_binding_bytes: options
                .max_binding_bytes
                .map_or(adapter.max_binding_bytes, |bytes| bytes.min(adapter.max_binding_bytes)),
            max_buffer_bytes: adapter.max_buffer_bytes,
        }
    }

    /// Sizes of work for the CPU device. What describes variants of shaders has no effect there.
    fn of_cpu(adapter: &AdapterInfo, options: &EngineOptions) -> Self {
        Self {
            reduce: Reduce::Workgroup,
            tiles: Tiles::Workgroup,
            subgroup_lanes: None,
            matvec_rows: WORKGROUP,
            matvec_team_rows: 4,
            matvec_ahead: false,
            tall_rows: usize::MAX,
            // A dispatch of a norm costs less than the norm in every task of a product.
            fused_norm_width: 0,
            cell_lanes: WORKGROUP,
            // Both products have the same bits. Up to here the weights are the larger part of what is read.
            matvec_max_rows: options.matvec_max_rows.unwrap_or(8),
            recurrent_rows: options.matvec_max_rows.unwrap_or(16),
            cell_turns: usize::MAX,
            segment_rows: usize::MAX,
            in_place_bytes: options.in_place_bytes.unwrap_or(Self::CPU_IN_PLACE_BYTES),
            prefill_bytes: options.prefill_bytes.unwrap_or(Self::CPU_PREFILL_BYTES).clamp(1, 4096),
            // Some seconds on a slow CPU. Longer chunks share the reading of weights between more rows. In browsers one
            // thread computes, and pages show how far it is.
            prefill_products: if cfg!(target_family = "wasm") { 1 << 32 } else { 1 << 36 },
            decode_steps: options.decode_steps.unwrap_or(16),
            // Halted dispatches cost next to nothing, but recording them does.
            decode_slack: 1.2,
            records_ahead: false,
            interrupts: true,
            long_step_weights: 1 << 26,
            attention_cost: 1,
            product_groups: options.product_groups.unwrap_or(1).clamp(1, 1 << 12),
            max_binding_bytes: options
                .max_binding_bytes
                .map_or(adapter.max_binding_bytes, |bytes| bytes.min(adapter.max_binding_bytes)),
            max_buffer_bytes: adapter.max_buffer_bytes,
        }
    }

    /// Largest number of rows for which a recurrent cell of this shape is a single dispatch; at least 1.
    pub fn cell_rows(&self, key_dim: usize, value_dim: usize) -> usize {
        // For each column of the state: its rows, the column itself, mean and variance, and the output.
        let turns = (key_dim + 4) * (value_dim + 1);
        (self.cell_turns / turns).clamp(1, self.recurrent_rows.max(1))
    }

    /// Rows of a matrix per workgroup of `matvec` in this form.
    pub fn matvec_rows(&self, fusion: Fusion) -> usize {
        self.matvec_rows as usize * if fusion.tall { 2 } else { 1 }
    }
}

/// How lanes add up: the requested way if the adapter supports it, else the best way it supports.
fn choose_reduce(requested: Option<Reduce>, subgroups: Option<(u32, u32)>, software: bool) -> Reduce {
    let one_subgroup = subgroups == Some((SUBGROUP_LANES, SUBGROUP_LANES));
    match requested {
        Some(fixed @ (Reduce::Workgroup | Reduce::SingleLane)) => fixed,
        // Barriers are expensive on CPUs, and rows are short.
        None if one_subgroup && software => Reduce::OneSubgroup,
        Some(Reduce::OneSubgroup) if one_subgroup => Reduce::OneSubgroup,
        _ if subgroups.is_some() => Reduce::Subgroup,
        None if software => Reduce::SingleLane,
        _ => Reduce::Workgroup,
    }
}

/// Which lanes share a tile: as requested if the adapter supports it, else the best it supports.
fn choose_tiles(requested: Option<Tiles>, adapter: &AdapterInfo, reduce: Reduce, subgroup_lanes: Option<u32>) -> Tiles {
    let supported = |tiles: Tiles| match tiles.cooperative_side() {
        // A workgroup has four subgroups.
        Some(side) => {
            adapter.shader_f16
                && adapter.cooperative_sides.contains(&side)
                && subgroup_lanes.is_some_and(|lanes| 4 * lanes <= adapter.workgroup_lanes)
        }
        None => tiles != Tiles::Subgroup || subgroup_lanes == Some(SUBGROUP_LANES),
    };
    // Tiles of a subgroup suit CPUs, where barriers and workgroup memory are expensive; they are written for one
    // subgroup size. CPUs that offer cooperative matrices have no hardware units for them.
    let best: &[Tiles] = match adapter.is_software() {
        true if reduce == Reduce::SingleLane => &[Tiles::SingleLane],
        true => &[Tiles::Subgroup],
        false => &[Tiles::Cooperative16, Tiles::Cooperative8],
    };
    let candidates = requested.as_ref().map_or(best, std::slice::from_ref);
    candidates.iter().copied().find(|&tiles| supported(tiles)).unwrap_or(Tiles::Workgroup)
}

/// Teams of lanes in a workgroup of `matvec`.
fn matvec_teams(reduce: Reduce, subgroups: Option<(u32, u32)>) -> u32 {
    match (reduce, subgroups) {
        // Each subgroup of a workgroup is a team.
        (Reduce::OneSubgroup | Reduce::Subgroup, Some((min, _))) => (WORKGROUP / min.max(1)).max(1),
        (Reduce::SingleLane, _) => SINGLE_LANE_TEAMS,
        _ => 8,
    }
}

/// Largest number of rows for which a product runs as `matvec`.
fn matvec_max_rows(tiles: Tiles, software: bool) -> usize {
    match tiles {
        // Without subgroups, barriers take so long to compile and to execute that the forms without them are best for
        // any number of rows.
        Tiles::SingleLane => Capabilities::SOFTWARE_PREFILL_BYTES,
        // Tiles of a subgroup multiply 32 rows in the time that `matvec` takes for two to six.
        Tiles::Subgroup => 4,
        // On a CPU `matvec` reads the weights again from the caches for every row, which is faster than tiles in
        // workgroup memory up to many rows.
        _ if software => 24,
        Tiles::Workgroup | Tiles::Cooperative8 | Tiles::Cooperative16 => 8,
    }
}

/// Largest number of rows for which the mLSTM runs in its recurrent form.
fn recurrent_rows(tiles: Tiles, software: bool) -> usize {
    match tiles {
        Tiles::SingleLane => Capabilities::SOFTWARE_PREFILL_BYTES,
        _ if software => 24,
        _ => 8,
    }
}

/// Loop iterations of one lane in a single-dispatch mLSTM cell, and rows of a segment of a KV cache.
///
/// Where one lane does all the work, its loops must end before 65535 iterations (see [`Reduce::SingleLane`]). A row of
/// the widest mLSTM cell takes 34 000, a key of the widest attention head takes 8.
fn loop_limits(reduce: Reduce) -> (usize, usize) {
    if reduce == Reduce::SingleLane { (60_000, 4096) } else { (usize::MAX, 1 << 20) }
}

/// Prompt bytes and multiply-adds per prefill submission.
///
/// On a CPU a submission of a small model stays below 100 ms, so that cancelling is quick.
fn prefill_limits(software: bool) -> (usize, u64) {
    match software {
        true => (Capabilities::SOFTWARE_PREFILL_BYTES, 1 << 27),
        false => (Capabilities::GPU_PREFILL_BYTES, 1 << 38),
    }
}
