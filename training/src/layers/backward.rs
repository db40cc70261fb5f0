//! What backward passes are made of: the gradients of products, norms and feed-forwards over rows of device memory. Gradients of weights
//! are added to what their memory holds, in an order that does not depend on chance.

use std::sync::Arc;

use bolmo_runtime::internals::{Context, Gpu, Matrix, Mlp, Norm, Piece, Rows, Slice};
use bolmo_runtime::{Config, Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{GatherRowsGrad, RmsNormGrad, SiluMul, SiluMulGrad, SumRows, Transpose};
use bolmo_shaders::table::{TRANSPOSE_TILE, WORKGROUP};

/// Rows that one lane of `sum_rows` adds up.
const SUM_ROWS: usize = 64;

/// Rows that one part of the sums of a product is made of at least.
const PART_ROWS: usize = 64;

/// Device memory that backward passes work in.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// One factor of a product of gradients, the other way round.
    transposed: [Slice; 2],
    /// Sums over [`SUM_ROWS`] rows each.
    partial: Slice,
    /// Parts of the sums of a product of few outputs, if they are made in parts.
    parts: Option<Slice>,
    /// What rows contribute to the gradient of a norm's weight, `[rows, width]`.
    pub(crate) contributions: Slice,
    /// Gradient of what a norm made, `[rows, D]`.
    pub(crate) du: Slice,
    /// Gradient of q, k, v and gates, or of q, k and v, `[rows, width]`.
    pub(crate) d_projections: Slice,
    /// `[rows, F, 2]`
    pub(crate) d_gate_up: Slice,
    /// `[rows, F]`
    pub(crate) d_hidden: Slice,
    /// Gradient of what goes into an output projection, `[rows, D or heads head_dim]`.
    pub(crate) d_mixed: Slice,
    /// Gradient of the mLSTM's sums, `[bytes, H, dv + 1]`.
    pub(crate) d_cell: Slice,
    /// Gradients of states, `[chunks, H, dk, dv + 1]`.
    pub(crate) d_states: Slice,
    /// Weights of pairs of rows within a chunk and their gradients, `[bytes, H, 64]` each.
    pub(crate) scores: [Slice; 2],
    /// `[bytes, H, 2]`
    pub(crate) dots: Slice,
    /// `[patches, heads]`
    pub(crate) delta: Slice,
    /// `[patches, heads, head_dim]`
    pub(crate) dq: Slice,
    /// `[patches, 2, kv_heads, head_dim]`
    pub(crate) dkv: Slice,
}

impl Scratch {
    /// Memory for so many rows of bytes and of patches, for a model whose head has `widest` rows and is multiplied with `head_rows` rows at a
    /// time, and whose largest matrix has `largest` weights.
    pub(crate) async fn new(
        gpu: &Arc<Gpu>,
        config: &Config,
        (bytes, patches): (usize, usize),
        (head_rows, widest): (usize, usize),
        largest: usize,
    ) -> Result<Self> {
        let mut slices = Vec::new();
        for floats in Self::sizes(config, (bytes, patches), (head_rows, widest), largest) {
            slices.push(gpu.allocate("gradients of activations", 4 * floats as u64).await?);
        }
        // As many floats as outputs of the tiles.
        let groups = gpu.capabilities.product_groups;
        let tile = [WeightFormat::F16, PLAIN].map(|format| gpu.matmul_tile(format).iter().product::<usize>());
        let floats = groups * tile[0].max(tile[1]);
        let parts = if groups > 1 { Some(gpu.allocate("parts of gradients", 4 * floats as u64).await?) } else { None };
        let mut slices = slices.into_iter();
        let mut next = || slices.next().ok_or_else(|| Error::internal("a buffer without a size"));
        Ok(Self {
            transposed: [next()?, next()?],
            partial: next()?,
            parts,
            contributions: next()?,
            du: next()?,
            d_projections: next()?,
            d_gate_up: next()?,
            d_hidden: next()?,
            d_mixed: next()?,
            d_cell: next()?,
            d_states: next()?,
            scores: [next()?, next()?],
            dots: next()?,
            delta: next()?,
            dq: next()?,
            dkv: next()?,
        })
    }

    /// Room for the largest matrix of a product as f16, one of the model's or a factor of a gradient.
    pub(crate) async fn room_for_halves(&self, gpu: &Arc<Gpu>) -> Result<Slice> {
        gpu.allocate("a matrix as f16", self.transposed[1].size() / 2).await
    }

    /// Floats of each buffer, in order.
    pub(crate) fn sizes(
        config: &Config,
        (bytes, patches): (usize, usize),
        (head_rows, widest): (usize, usize),
        largest: usize,
    ) -> [usize; 17] {
        let d = config.hidden_size;
        let heads = config.num_local_heads;
        let (dk, dv) = (config.mlstm_key_dim(), config.mlstm_value_dim());
        let local = 3 * d + 2 * heads;
        let (q, kv) = (config.query_width(), config.key_value_width());
        let rows = bytes.max(patches);
        let inner = (bytes * config.local_intermediate_size).max(patches * config.intermediate_size);
        let projections = (bytes * local).max(patches * (q + 2 * kv));
        let outputs = (bytes * local.max(2 * d)).max(head_rows * widest).max(patches * (q + 2 * kv)).max(2 * inner);
        let inputs = (rows * d).max(inner).max(patches * q).max(largest);
        let columns = widest.max(local).max(2 * config.intermediate_size).max(2 * config.local_intermediate_size);
        [
            outputs,
            inputs,
            rows.div_ceil(SUM_ROWS) * columns.max(q + kv),
            (rows * d).max(patches * (q + kv)),
            rows * d,
            projections,
            2 * inner,
            inner,
            (rows * d).max(patches * q),
            bytes * heads * (dv + 1),
            bytes.div_ceil(64) * heads * dk * (dv + 1),
            bytes * heads * 64,
            bytes * heads * 64,
            bytes * heads * 2,
            patches * config.num_attention_heads,
            patches * q,
            patches * 2 * kv,
        ]
    }
}

/// Records backward passes.
pub(crate) struct Backward<'a, 'b> {
    pub(crate) cx: &'a mut Context<'b>,
    pub(crate) scratch: &'a Scratch,
}

/// Where a gradient goes, and whether it is added to what is there.
#[derive(Clone, Copy)]
pub(crate) struct Into<'a> {
    pub(crate) rows: Rows<'a>,
    pub(crate) add: bool,
}

const PLAIN: WeightFormat = WeightFormat::F32;

impl Backward<'_, '_> {
    /// Back through `y = x Wᵀ + b`: `dx = dy W`, `dW += dyᵀ x`, and `db +=` the sum of dy's rows. Rows of W from `biased` on have a bias that
    /// is trained. What is `None` is not wanted.
    #[allow(clippy::too_many_arguments)] // a product's arguments, all of them needed
    pub(crate) fn linear(
        &mut self,
        w: &Matrix,
        dw: Option<&Matrix>,
        biased: usize,
        x: Rows<'_>,
        dy: Rows<'_>,
        dx: Option<Into<'_>>,
        rows: usize,
    ) -> Result<()> {
        if let Some(Into { rows: to, add }) = dx {
            for (i, piece) in w.pieces.iter().enumerate() {
                // W of the piece the other way round: [k, rows of the piece]
                let wt = self.transpose(1, Rows::new(&piece.weights, w.k, 0), piece.rows, w.k)?;
                let from = Rows { offset: dy.offset + piece.first_row, ..dy };
                self.product(&wt, w.k, piece.rows, from, to, rows, add || i > 0)?;
            }
        }
        let Some(dw) = dw else { return Ok(()) };
        let xt = self.transpose(1, x, rows, w.k)?;
        for piece in &dw.pieces {
            let from = Rows { offset: dy.offset + piece.first_row, ..dy };
            let dyt = self.transpose(0, from, rows, piece.rows)?;
            self.long_product(&xt, w.k, rows, &dyt, &piece.weights, piece.rows)?;
            if let Some(bias) = &piece.bias {
                let skip = biased.saturating_sub(piece.first_row).min(piece.rows);
                let from = Rows { offset: from.offset + skip, ..from };
                self.sum_rows(from, bias, skip, rows, piece.rows - skip)?;
            }
        }
        Ok(())
    }

    /// Adds `x Wᵀ` to y `[rows, n]`, where W `[n, k]` and x `[rows, k]` are so long that their sums may be worth to be made in parts.
    fn long_product(&mut self, w: &Slice, n: usize, k: usize, x: &Slice, y: &Slice, rows: usize) -> Result<()> {
        let gpu = self.cx.recorder.gpu();
        let format = if self.cx.workspace.halves.is_some() { WeightFormat::F16 } else { PLAIN };
        let [tile_columns, tile_rows] = gpu.matmul_tile(format);
        let tiles = n.div_ceil(tile_columns) * rows.div_ceil(tile_rows);
        let wanted = (gpu.capabilities.product_groups / tiles).min(k / PART_ROWS).max(1);
        let columns = k.div_ceil(wanted).next_multiple_of(16);
        let (parts, outputs) = (k.div_ceil(columns), rows * n);
        let x = Rows::new(x, k, 0);
        let Some(sums) = self.scratch.parts.as_ref().filter(|_| parts > 1) else {
            return self.product(w, n, k, x, Rows::new(y, n, 0), rows, true);
        };
        self.cx.linear_in_parts(&Self::matrix(w, n, k, x)?, x, sums, rows, columns)?;
        let params = SumRows {
            rows: parts as u32,
            columns: outputs as u32,
            x_offset: 0,
            x_stride: outputs as u32,
            per: parts as u32,
            y_offset: 0,
            add: 1,
        };
        let grid = [outputs.div_ceil(WORKGROUP as usize), 1, 1];
        self.cx.recorder.dispatch(KernelId::SumRows, PLAIN, &params, &[sums, y], grid)
    }

    /// `y = x Wᵀ`, or added to y, with a W `[n, k]` that is no model's.
    #[allow(clippy::too_many_arguments)] // a product's arguments, all of them needed
    fn product(
        &mut self,
        w: &Slice,
        n: usize,
        k: usize,
        x: Rows<'_>,
        y: Rows<'_>,
        rows: usize,
        add: bool,
    ) -> Result<()> {
        self.cx.linear(&Self::matrix(w, n, k, x)?, x, y, rows, add)
    }

    /// A matrix `[n, k]` that is no model's, to be multiplied with x.
    fn matrix(w: &Slice, n: usize, k: usize, x: Rows<'_>) -> Result<Matrix> {
        if !k.is_multiple_of(4) || !x.offset.is_multiple_of(4) || !x.stride.is_multiple_of(4) {
            return Err(Error::internal(format!("a product over {k} columns, which must be a multiple of 4")));
        }
        let piece = Piece { first_row: 0, rows: n, weights: w.clone(), scales: None, bias: None };
        Ok(Matrix { n, k, format: PLAIN, pieces: vec![piece] })
    }

    /// Rows of x as the columns of a matrix `[columns, rows]`.
    fn transpose(&mut self, which: usize, x: Rows<'_>, rows: usize, columns: usize) -> Result<Slice> {
        let y = self.scratch.transposed[which].part(0, 4 * (rows * columns) as u64)?;
        let params = Transpose {
            rows: rows as u32,
            columns: columns as u32,
            x_offset: x.offset as u32,
            x_stride: x.stride as u32,
            y_offset: 0,
            y_stride: rows as u32,
        };
        let tile = TRANSPOSE_TILE as usize;
        let grid = [columns.div_ceil(tile), rows.div_ceil(tile), 1];
        self.cx.recorder.dispatch(KernelId::Transpose, PLAIN, &params, &[x.slice, &y], grid)?;
        Ok(y)
    }

    /// Adds the sum of rows of x to `columns` floats of y from `y_offset` on.
    pub(crate) fn sum_rows(
        &mut self,
        x: Rows<'_>,
        y: &Slice,
        y_offset: usize,
        rows: usize,
        columns: usize,
    ) -> Result<()> {
        let partial = &self.scratch.partial;
        let parts = rows.div_ceil(SUM_ROWS);
        let groups = columns.div_ceil(WORKGROUP as usize);
        let params = SumRows {
            rows: rows as u32,
            columns: columns as u32,
            x_offset: x.offset as u32,
            x_stride: x.stride as u32,
            per: SUM_ROWS as u32,
            y_offset: 0,
            add: 0,
        };
        self.cx.recorder.dispatch(KernelId::SumRows, PLAIN, &params, &[x.slice, partial], [groups, parts, 1])?;
        let params = SumRows {
            rows: parts as u32,
            columns: columns as u32,
            x_offset: 0,
            x_stride: columns as u32,
            per: parts as u32,
            y_offset: y_offset as u32,
            add: 1,
        };
        self.cx.recorder.dispatch(KernelId::SumRows, PLAIN, &params, &[partial, y], [groups, 1, 1])
    }

    /// Back through a norm of whole rows of `dim` floats. `d_scale` gets the gradient of its weight.
    #[allow(clippy::too_many_arguments)] // a norm's arguments, all of them needed
    pub(crate) fn norm(
        &mut self,
        norm: Norm<'_>,
        d_scale: Option<&Slice>,
        x: Rows<'_>,
        dy: Rows<'_>,
        dx: Into<'_>,
        rows: usize,
        dim: usize,
    ) -> Result<()> {
        let params = RmsNormGrad {
            rows: rows as u32,
            groups: 1,
            dim4: (dim / 4) as u32,
            x_offset4: (x.offset / 4) as u32,
            x_stride4: (x.stride / 4) as u32,
            dy_offset4: (dy.offset / 4) as u32,
            dy_stride4: (dy.stride / 4) as u32,
            dx_offset4: (dx.rows.offset / 4) as u32,
            dx_stride4: (dx.rows.stride / 4) as u32,
            add: dx.add.into(),
            eps: norm.eps,
        };
        let contributions = &self.scratch.contributions;
        let slices = [norm.scale, x.slice, dy.slice, dx.rows.slice, contributions];
        self.cx.recorder.dispatch(KernelId::RmsNormGrad, PLAIN, &params, &slices, [1, rows, 1])?;
        match d_scale {
            Some(d_scale) => self.sum_rows(Rows::new(contributions, dim, 0), d_scale, 0, rows, dim),
            None => Ok(()),
        }
    }

    /// Back through `down(silu(gate(x)) * up(x))`: from dy to dx, with the products of gate and up kept in `gate_up`.
    #[allow(clippy::too_many_arguments)] // the parts of one step
    pub(crate) fn mlp(
        &mut self,
        w: &Mlp,
        dw: Option<&Mlp>,
        gate_up: &Slice,
        x: Rows<'_>,
        dy: Rows<'_>,
        dx: Into<'_>,
        rows: usize,
    ) -> Result<()> {
        let width = w.down.k;
        let hidden = &self.cx.workspace.hidden;
        let grid = [(width / 4).div_ceil(WORKGROUP as usize), rows, 1];
        if dw.is_some() {
            let params = SiluMul { rows: rows as u32, dim4: (width / 4) as u32 };
            self.cx.recorder.dispatch(KernelId::SiluMul, PLAIN, &params, &[gate_up, hidden], grid)?;
        }
        let (d_hidden, d_gate_up) = (&self.scratch.d_hidden, &self.scratch.d_gate_up);
        let into = Into { rows: Rows::new(d_hidden, width, 0), add: false };
        self.linear(&w.down, dw.map(|dw| &dw.down), 0, Rows::new(hidden, width, 0), dy, Some(into), rows)?;
        let params = SiluMulGrad { rows: rows as u32, dim4: (width / 4) as u32 };
        self.cx.recorder.dispatch(KernelId::SiluMulGrad, PLAIN, &params, &[gate_up, d_hidden, d_gate_up], grid)?;
        let d_gate_up = Rows::new(d_gate_up, 2 * width, 0);
        self.linear(&w.gate_up, dw.map(|dw| &dw.gate_up), 0, x, d_gate_up, Some(dx), rows)
    }

    /// Adds rows of dy to the rows of a table that they were gathered from.
    pub(crate) fn gather(&mut self, dw: &Matrix, dy: &Slice, segments: &Segments) -> Result<()> {
        for piece in &dw.pieces {
            self.segments(&piece.weights, (piece.first_row, piece.rows), dw.k, dy, segments, true)?;
        }
        Ok(())
    }

    /// Sums of rows of dy by segments, in the rows of y from 0 on that the segments name.
    pub(crate) fn segments(
        &mut self,
        y: &Slice,
        rows: (usize, usize),
        dim: usize,
        dy: &Slice,
        segments: &Segments,
        add: bool,
    ) -> Result<()> {
        let Segments { order, whole, pieces, partial, long, .. } = segments;
        self.sums(y, rows, dim, dy, order, whole, add)?;
        if long.count > 0 {
            self.sums(partial, (0, pieces.count), dim, dy, order, pieces, false)?;
            self.sums(y, rows, dim, partial, &segments.in_order, long, add)?;
        }
        Ok(())
    }

    /// Sums of those rows of dy that each stretch of `order` names, in the row of y that is the stretch's.
    #[allow(clippy::too_many_arguments)] // a sum's arguments, all of them needed
    fn sums(
        &mut self,
        y: &Slice,
        (first_row, rows): (usize, usize),
        dim: usize,
        dy: &Slice,
        order: &Slice,
        stretches: &Stretches,
        add: bool,
    ) -> Result<()> {
        let mut done = 0;
        while done < stretches.count {
            // No grid has more than 65535 workgroups in a dimension.
            let count = (stretches.count - done).min(1 << 15);
            let part = stretches.slice.part(16 * done as u64, 16 * count as u64)?;
            let params = GatherRowsGrad {
                segments: count as u32,
                dim4: (dim / 4) as u32,
                first_row: first_row as u32,
                rows: rows as u32,
                add: add.into(),
            };
            let grid = [(dim / 4).div_ceil(WORKGROUP as usize), count, 1];
            self.cx.recorder.dispatch(KernelId::GatherRowsGrad, PLAIN, &params, &[dy, order, &part, y], grid)?;
            done += count;
        }
        Ok(())
    }
}

/// Rows of a segment that are added up by one workgroup; a longer one is added up in pieces.
const PIECE: usize = 64;

/// Row of a table, its first place in an order, and how many, `[count, 4]`.
#[derive(Debug)]
struct Stretches {
    slice: Slice,
    count: usize,
}

impl Stretches {
    async fn new(gpu: &Arc<Gpu>, most: usize) -> Result<Self> {
        Ok(Self { slice: gpu.allocate("rows and their positions", 16 * most as u64).await?, count: 0 })
    }

    fn set(&mut self, gpu: &Gpu, stretches: &[[u32; 4]]) -> Result<()> {
        self.count = stretches.len();
        gpu.write(&self.slice, 0, bytemuck::cast_slice(stretches))
    }
}

/// Which rows were gathered from which row of a table, on the device. Few rows of a table may be most of a batch (padding, a blank), so
/// that long segments go in pieces, whose sums are added up in turn.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Positions, those of one row of the table together, `[positions]`.
    order: Slice,
    /// Segments that are short.
    whole: Stretches,
    /// Pieces of those that are long; the row of each is its own of `partial`.
    pieces: Stretches,
    /// Sums of pieces, `[pieces, width]`.
    partial: Slice,
    /// 0, 1, 2, …, `[pieces]`.
    in_order: Slice,
    /// Which pieces make up each long segment.
    long: Stretches,
}

impl Segments {
    /// Memory for up to so many positions, with rows of `width`.
    pub(crate) async fn new(gpu: &Arc<Gpu>, positions: usize, width: usize) -> Result<Self> {
        // Each long segment has at most one piece that is not full, and one at least that is.
        let (longs, pieces) = (positions / PIECE + 1, 2 * (positions / PIECE) + 1);
        let in_order = gpu.allocate("numbers", 4 * pieces as u64).await?;
        gpu.write(&in_order, 0, bytemuck::cast_slice(&(0..pieces as u32).collect::<Vec<_>>()))?;
        Ok(Self {
            order: gpu.allocate("positions by row", 4 * positions as u64).await?,
            whole: Stretches::new(gpu, positions).await?,
            pieces: Stretches::new(gpu, pieces).await?,
            partial: gpu.allocate("sums of pieces", 4 * (pieces * width) as u64).await?,
            in_order,
            long: Stretches::new(gpu, longs).await?,
        })
    }

    /// Sorts `index`, which has for each position the row that was gathered, of `rows`; `u32::MAX` for none.
    pub(crate) fn set(&mut self, gpu: &Gpu, index: &[u32], rows: usize) -> Result<()> {
        let Sorted { order, whole, pieces, long } = Sorted::of(index, rows);
        gpu.write(&self.order, 0, bytemuck::cast_slice(&order))?;
        self.whole.set(gpu, &whole)?;
        self.pieces.set(gpu, &pieces)?;
        self.long.set(gpu, &long)
    }
}

/// What [`Segments`] are on the host.
#[derive(Debug, PartialEq)]
struct Sorted {
    order: Vec<u32>,
    whole: Vec<[u32; 4]>,
    pieces: Vec<[u32; 4]>,
    long: Vec<[u32; 4]>,
}

impl Sorted {
    fn of(index: &[u32], rows: usize) -> Self {
        // By counting: positions of a row stay in their order, so that sums do.
        let mut starts = vec![0u32; rows + 1];
        let gathered = || index.iter().map(|&row| row as usize).enumerate().filter(|&(_, row)| row < rows);
        gathered().for_each(|(_, row)| starts[row + 1] += 1);
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut order = vec![0; starts[rows] as usize];
        let mut next = starts.clone();
        for (position, row) in gathered() {
            order[next[row] as usize] = position as u32;
            next[row] += 1;
        }
        let mut this = Self { order, whole: Vec::new(), pieces: Vec::new(), long: Vec::new() };
        for (row, bounds) in starts.windows(2).enumerate() {
            let (first, count) = (bounds[0], bounds[1] - bounds[0]);
            match count as usize {
                0 => {}
                1..=PIECE => this.whole.push([row as u32, first, count, 0]),
                _ => {
                    let before = this.pieces.len() as u32;
                    for at in (first..first + count).step_by(PIECE) {
                        let own = this.pieces.len() as u32;
                        this.pieces.push([own, at, (first + count - at).min(PIECE as u32), 0]);
                    }
                    this.long.push([row as u32, before, this.pieces.len() as u32 - before, 0]);
                }
            }
        }
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_segments_are_cut() {
        // Row 2 at every position but three, row 0 at two of those.
        let mut index = vec![2; 200];
        (index[5], index[7], index[150]) = (0, u32::MAX, 0);
        let sorted = Sorted::of(&index, 4);
        assert_eq!(sorted.order[..4], [5, 150, 0, 1]);
        assert_eq!(sorted.order.len(), 199);
        assert!(sorted.order[2..].is_sorted() && !sorted.order.contains(&7));
        assert_eq!(sorted.whole, [[0, 0, 2, 0]]);
        assert_eq!(sorted.pieces, [[0, 2, 64, 0], [1, 66, 64, 0], [2, 130, 64, 0], [3, 194, 5, 0]]);
        assert_eq!(sorted.long, [[2, 0, 4, 0]]);
        assert_eq!(Sorted::of(&[], 3), Sorted { order: vec![], whole: vec![], pieces: vec![], long: vec![] });
    }
}
