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
        (first_row, rows): (usize, usize),
        dim: usize,
        dy: &Slice,
        segments: &Segments,
        add: bool,
    ) -> Result<()> {
        let mut done = 0;
        while done < segments.count {
            // No grid has more than 65535 workgroups in a dimension.
            let count = (segments.count - done).min(1 << 15);
            let part = segments.segments.part(16 * done as u64, 16 * count as u64)?;
            let params = GatherRowsGrad {
                segments: count as u32,
                dim4: (dim / 4) as u32,
                first_row: first_row as u32,
                rows: rows as u32,
                add: add.into(),
            };
            let grid = [(dim / 4).div_ceil(WORKGROUP as usize), count, 1];
            let slices = [dy, &segments.order, &part, y];
            self.cx.recorder.dispatch(KernelId::GatherRowsGrad, PLAIN, &params, &slices, grid)?;
            done += count;
        }
        Ok(())
    }
}

/// Which rows were gathered from which row of a table, on the device.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Positions, those of one row of the table together, `[positions]`.
    order: Slice,
    /// Row of the table, its first place in `order`, and how many, `[segments, 4]`.
    segments: Slice,
    count: usize,
}

impl Segments {
    /// Memory for up to so many positions.
    pub(crate) async fn new(gpu: &Arc<Gpu>, positions: usize) -> Result<Self> {
        let order = gpu.allocate("positions by row", 4 * positions as u64).await?;
        let segments = gpu.allocate("rows and their positions", 16 * positions as u64).await?;
        Ok(Self { order, segments, count: 0 })
    }

    /// Sorts `index`, which has for each position the row that was gathered; `u32::MAX` for none.
    pub(crate) fn set(&mut self, gpu: &Gpu, index: &[u32]) -> Result<()> {
        let mut order: Vec<u32> = (0..index.len() as u32).filter(|&i| index[i as usize] != u32::MAX).collect();
        // Stable, so that sums go in the order of positions.
        order.sort_by_key(|&i| index[i as usize]);
        let mut segments: Vec<[u32; 4]> = Vec::new();
        for (at, &i) in order.iter().enumerate() {
            match segments.last_mut() {
                Some([row, _, count, _]) if *row == index[i as usize] => *count += 1,
                _ => segments.push([index[i as usize], at as u32, 1, 0]),
            }
        }
        gpu.write(&self.order, 0, bytemuck::cast_slice(&order))?;
        gpu.write(&self.segments, 0, bytemuck::cast_slice(&segments))?;
        self.count = segments.len();
        Ok(())
    }
}
