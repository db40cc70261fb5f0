//! Sizes that host and shaders share: bindings, workgroups, tiles, limits, and the grids of dispatches.

/// Consecutive weights of a row that share a scale, in the formats that have scales.
pub const QUANT_BLOCK: usize = 32;

/// The binding of the guard flags; a nonzero flag makes a guarded dispatch skip its rows.
pub const GUARD_BINDING: u32 = 14;
/// The binding of a matrix's scales, in formats that have scales.
pub const SCALES_BINDING: u32 = 15;
/// The maximum width of a value head in `mlstm_cell`.
pub const MLSTM_CELL_MAX_DV: u32 = 256;
/// Words of `sample`'s control block before the chosen ids.
pub const SAMPLE_CONTROL: u32 = 8;
/// Rows of a chunk in the chunkwise mLSTM kernels.
pub const MLSTM_CHUNK: u32 = 64;
/// Rows per workgroup of `mlstm_chunk_out`.
pub const MLSTM_CHUNK_OUT_TILE: u32 = 16;
/// The maximum width of a key head in `mlstm_chunk_out`.
pub const MLSTM_MAX_DK: u32 = 128;
/// The maximum width of a head in `attention`.
pub const ATTENTION_MAX_DIM: u32 = 128;
/// Values / 4 that one workgroup of `copy` copies.
pub const COPY_SLICE4: u32 = 1024;
/// Lanes of a workgroup in [`Reduce::SingleLane`](crate::Reduce::SingleLane) variants of kernels with teams, and in
/// [`Tiles::SingleLane`](crate::Tiles::SingleLane) variants.
pub const SINGLE_LANE_TEAMS: u32 = 4;
/// Lanes of a workgroup in all other variants.
pub const WORKGROUP: u32 = 64;
/// Lanes of a workgroup, which is one subgroup, in [`Tiles::Subgroup`](crate::Tiles::Subgroup) and
/// [`Reduce::OneSubgroup`](crate::Reduce::OneSubgroup) variants.
pub const SUBGROUP_LANES: u32 = 8;
/// Rows of a head that one lane of `attention_grad_q` (queries) or `attention_grad_kv` (keys) handles.
pub const ATTENTION_GRAD_ROWS: usize = 4;
/// Rows and columns of x that one workgroup of `transpose` handles.
pub const TRANSPOSE_TILE: u32 = 32;
/// The number of workgroups in one dimension of a dispatch that every adapter supports.
pub const MAX_GROUPS: u32 = 65535;

/// The grid of `mlstm_chunk_scores`: one lane per four rows and four sources.
pub const fn mlstm_chunk_scores_grid(rows: usize, heads: usize) -> [usize; 3] {
    let quads = (MLSTM_CHUNK / 4) as usize;
    [(quads * quads).div_ceil(WORKGROUP as usize), heads, rows.div_ceil(MLSTM_CHUNK as usize)]
}

/// The grid of `mlstm_chunk_out_grad`: one lane per four rows and four columns of q, k or v.
pub const fn mlstm_chunk_out_grad_grid(rows: usize, heads: usize, dk: usize, dv: usize) -> [usize; 3] {
    let lanes = (2 * dk.div_ceil(4) + dv.div_ceil(4)) * (MLSTM_CHUNK / 4) as usize;
    [lanes.div_ceil(WORKGROUP as usize), heads, rows.div_ceil(MLSTM_CHUNK as usize)]
}

/// The grid of `attention_grad_q` for sequences of `count` rows.
pub const fn attention_grad_q_grid(count: usize, heads: usize, sequences: usize) -> [usize; 3] {
    [(count.div_ceil(ATTENTION_GRAD_ROWS) * heads).div_ceil(WORKGROUP as usize), 1, sequences]
}

/// The grid of `attention_grad_kv` for sequences of `count` rows.
pub const fn attention_grad_kv_grid(count: usize, kv_heads: usize, sequences: usize) -> [usize; 3] {
    attention_grad_q_grid(count, kv_heads, sequences)
}

/// The maximum number of loop iterations in a lane of `attention_grad_q` or `attention_grad_kv`.
///
/// Iterations are counted as Mesa's CPU driver counts them. That driver silently ends the loops of a lane after 65535
/// iterations in total, so the number must stay below that limit.
pub const fn attention_grad_iterations(count: usize, heads_per_kv: usize, dim4: usize) -> usize {
    // The iteration that ends a loop counts too.
    let width = dim4 + 1;
    // Eight rows at a time: one iteration, and two loops over the width of the head.
    let head = count.div_ceil(8) * (1 + 2 * width) + 1;
    width + heads_per_kv * (1 + head) + 1
}

/// The grid of `adamw` and `round_f16` for `count4` vectors of four values.
///
/// Workgroups beyond the limit of the first dimension continue in the second.
pub const fn vec4_grid(count4: usize) -> [usize; 3] {
    let groups = count4.div_ceil(WORKGROUP as usize);
    let most = MAX_GROUPS as usize;
    if groups <= most { [groups, 1, 1] } else { [most, groups.div_ceil(most), 1] }
}
