//! Sizes that host and shaders share: workgroups, tiles, limits, and the grids of dispatches.

/// Neighbouring weights of a row that share a scale in the formats that have scales.
pub const QUANT_BLOCK: usize = 32;

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
