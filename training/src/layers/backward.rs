//! Building blocks of backward passes: gradients of products, norms and feed-forwards over rows of device memory.
//!
//! Gradients of weights are accumulated, always in the same order, so that a step gives the same bits every time.

use std::sync::Arc;

use bolmo_runtime::unstable::{Context, Device, Matrix, Mlp, Norm, Piece, Product, Rows, Slice};
use bolmo_runtime::{Config, Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{RmsNormGrad, SiluMul, SiluMulGrad, SumRows, Transpose};
use bolmo_shaders::sizes::{TRANSPOSE_TILE, WORKGROUP};

/// Rows that one lane of `sum_rows` adds up.
const SUM_ROWS: usize = 64;

/// Minimum number of rows in a part of a product whose sums are split.
const PART_ROWS: usize = 64;

const PLAIN: WeightFormat = WeightFormat::F32;

/// Sizes that determine the [`Scratch`] buffers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScratchSizes {
    /// Rows of the byte stream.
    pub(crate) bytes: usize,
    /// Rows of the patch stream.
    pub(crate) patches: usize,
    /// Rows whose logits are computed at a time.
    pub(crate) logit_rows: usize,
    /// Rows of the head.
    pub(crate) vocabulary: usize,
    /// Weights of the largest matrix.
    pub(crate) largest: usize,
}

/// Scratch buffers of backward passes.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// The transposed factors of a product.
    transposed: [Slice; 2],
    /// Sums over [`SUM_ROWS`] rows each.
    partial: Slice,
    /// Partial sums of a product with few outputs, on devices that split such products.
    parts: Option<Slice>,
    /// Contribution of each row to the gradient of a norm's weight, `[rows, width]`.
    pub(crate) contributions: Slice,
    /// Gradient of a norm's output, `[rows, D]`.
    pub(crate) du: Slice,
    /// Gradient of q, k, v and the gates, or of q, k and v, `[rows, width]`.
    pub(crate) d_projections: Slice,
    /// `[rows, F, 2]`
    pub(crate) d_gate_up: Slice,
    /// `[rows, F]`
    pub(crate) d_hidden: Slice,
    /// Gradient of the input of an output projection, `[rows, D or heads head_dim]`.
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
    /// Allocates the buffers.
    pub(crate) async fn new(device: &Arc<Device>, config: &Config, sizes: ScratchSizes) -> Result<Self> {
        let mut slices = Vec::new();
        for floats in Self::floats(config, sizes) {
            slices.push(device.allocate("gradients of activations", 4 * floats as u64).await?);
        }
        // One float for each output of the tiles that run at once.
        let groups = device.capabilities.product_groups;
        let tile = [WeightFormat::F16, PLAIN].map(|format| device.matmul_tile(format).iter().product::<usize>());
        let floats = groups * tile[0].max(tile[1]);
        let parts =
            if groups > 1 { Some(device.allocate("parts of gradients", 4 * floats as u64).await?) } else { None };
        let mut slices = slices.into_iter();
        let mut next = || slices.next().ok_or_else(|| Error::internal("a scratch buffer has no size"));
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

    /// Allocates room for the f16 copy of a product's largest matrix, whether a weight or a factor of a gradient.
    pub(crate) async fn allocate_f16(&self, device: &Arc<Device>) -> Result<Slice> {
        device.allocate("a matrix as f16", self.transposed[1].size() / 2).await
    }

    /// Floats of each buffer, in the order in which [`Self::new`] takes them.
    fn floats(config: &Config, sizes: ScratchSizes) -> [usize; 17] {
        let ScratchSizes { bytes, patches, logit_rows, vocabulary, largest } = sizes;
        let d = config.hidden_size;
        let heads = config.num_local_heads;
        let (dk, dv) = (config.mlstm_key_dim(), config.mlstm_value_dim());
        let local = 3 * d + 2 * heads;
        let (q, kv) = (config.query_width(), config.key_value_width());
        let rows = bytes.max(patches);
        let inner = (bytes * config.local_intermediate_size).max(patches * config.intermediate_size);
        let projections = (bytes * local).max(patches * (q + 2 * kv));
        let outputs =
            (bytes * local.max(2 * d)).max(logit_rows * vocabulary).max(patches * (q + 2 * kv)).max(2 * inner);
        let inputs = (rows * d).max(inner).max(patches * q).max(largest);
        let columns = vocabulary.max(local).max(2 * config.intermediate_size).max(2 * config.local_intermediate_size);
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

/// Recorder of backward passes.
pub(crate) struct Backward<'a, 'b> {
    pub(crate) cx: &'a mut Context<'b>,
    pub(crate) scratch: &'a Scratch,
}

/// Destination of a gradient.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    pub(crate) rows: Rows<'a>,
    /// Whether the gradient is added to what the rows hold.
    pub(crate) add: bool,
}

impl<'a> Output<'a> {
    /// Overwrites the rows.
    pub(crate) fn replace(rows: Rows<'a>) -> Self {
        Self { rows, add: false }
    }

    /// Adds to the rows.
    pub(crate) fn accumulate(rows: Rows<'a>) -> Self {
        Self { rows, add: true }
    }
}

/// Operands of the backward pass of `y = x Wᵀ + b`.
#[derive(Clone, Copy)]
pub(crate) struct LinearGrad<'a> {
    pub(crate) w: &'a Matrix,
    /// Gradients of W and b; `None` if they are frozen.
    pub(crate) dw: Option<&'a Matrix>,
    /// First row of W whose bias is trained.
    pub(crate) biased_from: usize,
    pub(crate) x: Rows<'a>,
    pub(crate) dy: Rows<'a>,
    pub(crate) dx: Output<'a>,
    pub(crate) rows: usize,
}

/// Operands of the backward pass of a norm over whole rows.
#[derive(Clone, Copy)]
pub(crate) struct NormGrad<'a> {
    pub(crate) norm: Norm<'a>,
    /// Gradient of the norm's weight; `None` if it is frozen.
    pub(crate) d_scale: Option<&'a Slice>,
    pub(crate) x: Rows<'a>,
    pub(crate) dy: Rows<'a>,
    pub(crate) dx: Output<'a>,
    pub(crate) rows: usize,
    /// Floats of a row.
    pub(crate) dim: usize,
}

/// Operands of the backward pass of `y = down(silu(gate(x)) * up(x))`.
#[derive(Clone, Copy)]
pub(crate) struct MlpGrad<'a> {
    pub(crate) w: &'a Mlp,
    /// Gradients of the matrices; `None` if they are frozen.
    pub(crate) dw: Option<&'a Mlp>,
    /// Saved products of gate and up.
    pub(crate) gate_up: &'a Slice,
    pub(crate) x: Rows<'a>,
    pub(crate) dy: Rows<'a>,
    pub(crate) dx: Output<'a>,
    pub(crate) rows: usize,
}

impl Backward<'_, '_> {
    /// Backward pass of a product: `dx = dy W`, `dW += dyᵀ x`, and `db +=` the sum of the rows of dy.
    pub(crate) fn linear(&mut self, operands: LinearGrad<'_>) -> Result<()> {
        let LinearGrad { w, dw, biased_from, x, dy, dx, rows } = operands;
        for (i, piece) in w.pieces.iter().enumerate() {
            // Wᵀ of the piece: [k, rows of the piece]
            let wt = self.transpose(1, Rows::new(&piece.weights, w.k, 0), piece.rows, w.k)?;
            let from = Rows { offset: dy.offset + piece.first_row, ..dy };
            let wt = factor(&wt, w.k, piece.rows, from)?;
            self.cx.linear(Product { add: dx.add || i > 0, ..Product::new(&wt, from, dx.rows, rows) })?;
        }
        let Some(dw) = dw else { return Ok(()) };
        let xt = self.transpose(1, x, rows, w.k)?;
        for piece in &dw.pieces {
            let from = Rows { offset: dy.offset + piece.first_row, ..dy };
            let dyt = self.transpose(0, from, rows, piece.rows)?;
            self.add_weight_gradient([&xt, &dyt], [w.k, piece.rows], rows, &piece.weights)?;
            if let Some(bias) = &piece.bias {
                let skip = biased_from.saturating_sub(piece.first_row).min(piece.rows);
                let from = Rows { offset: from.offset + skip, ..from };
                self.sum_rows(from, bias, skip, rows, piece.rows - skip)?;
            }
        }
        Ok(())
    }

    /// Adds `dyᵀ x` to dW `[outputs, inputs]`, from both factors transposed: `[inputs, rows]` and `[outputs, rows]`.
    ///
    /// The sums run over all rows of the batch. Where a matrix has too few tiles to occupy the device, they are
    /// computed in parts.
    fn add_weight_gradient(
        &mut self,
        [xt, dyt]: [&Slice; 2],
        [inputs, outputs]: [usize; 2],
        rows: usize,
        dw: &Slice,
    ) -> Result<()> {
        let device = self.cx.recorder.device();
        let format = if self.cx.workspace.f16_scratch.is_some() { WeightFormat::F16 } else { PLAIN };
        let [tile_columns, tile_rows] = device.matmul_tile(format);
        let tiles = inputs.div_ceil(tile_columns) * outputs.div_ceil(tile_rows);
        let wanted = (device.capabilities.product_groups / tiles).min(rows / PART_ROWS).max(1);
        let part_rows = rows.div_ceil(wanted).next_multiple_of(16);
        let parts = rows.div_ceil(part_rows);
        let dyt = Rows::new(dyt, rows, 0);
        let xt = factor(xt, inputs, rows, dyt)?;
        let Some(sums) = self.scratch.parts.as_ref().filter(|_| parts > 1) else {
            return self.cx.linear(Product::new(&xt, dyt, Rows::new(dw, inputs, 0), outputs).accumulated());
        };
        self.cx.linear_in_parts(Product::new(&xt, dyt, Rows::new(sums, xt.n, 0), outputs), part_rows)?;
        let count = inputs * outputs;
        let params = SumRows {
            rows: parts as u32,
            columns: count as u32,
            x_offset: 0,
            x_stride: count as u32,
            per: parts as u32,
            y_offset: 0,
            add: 1,
        };
        let grid = [count.div_ceil(WORKGROUP as usize), 1, 1];
        self.cx.recorder.dispatch(KernelId::SumRows, PLAIN, &params, &[sums, dw], grid)
    }

    /// Transposes rows of x into the matrix `[columns, rows]`, in scratch buffer number `which`.
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

    /// Adds the sum of the rows of x to `columns` floats of y, from `y_offset` on.
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

    /// Backward pass of a norm.
    pub(crate) fn norm(&mut self, operands: NormGrad<'_>) -> Result<()> {
        let NormGrad { norm, d_scale, x, dy, dx, rows, dim } = operands;
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

    /// Backward pass of a feed-forward.
    pub(crate) fn mlp(&mut self, operands: MlpGrad<'_>) -> Result<()> {
        let MlpGrad { w, dw, gate_up, x, dy, dx, rows } = operands;
        let width = w.down.k;
        let hidden = &self.cx.workspace.hidden;
        let grid = [(width / 4).div_ceil(WORKGROUP as usize), rows, 1];
        if dw.is_some() {
            let params = SiluMul { rows: rows as u32, dim4: (width / 4) as u32 };
            self.cx.recorder.dispatch(KernelId::SiluMul, PLAIN, &params, &[gate_up, hidden], grid)?;
        }
        let (d_hidden, d_gate_up) = (&self.scratch.d_hidden, &self.scratch.d_gate_up);
        self.linear(LinearGrad {
            w: &w.down,
            dw: dw.map(|dw| &dw.down),
            biased_from: 0,
            x: Rows::new(hidden, width, 0),
            dy,
            dx: Output::replace(Rows::new(d_hidden, width, 0)),
            rows,
        })?;
        let params = SiluMulGrad { rows: rows as u32, dim4: (width / 4) as u32 };
        self.cx.recorder.dispatch(KernelId::SiluMulGrad, PLAIN, &params, &[gate_up, d_hidden, d_gate_up], grid)?;
        let dy = Rows::new(d_gate_up, 2 * width, 0);
        let (w, dw) = (&w.gate_up, dw.map(|dw| &dw.gate_up));
        self.linear(LinearGrad { w, dw, biased_from: 0, x, dy, dx, rows })
    }
}

/// A matrix `[n, k]` in a buffer that belongs to no model, to be multiplied with x.
fn factor(w: &Slice, n: usize, k: usize, x: Rows<'_>) -> Result<Matrix> {
    if !k.is_multiple_of(4) || !x.offset.is_multiple_of(4) || !x.stride.is_multiple_of(4) {
        return Err(Error::internal(format!(
            "a product of gradients has {k} columns, an offset of {} and a stride of {}; all must be multiples of 4",
            x.offset, x.stride
        )));
    }
    let piece = Piece { first_row: 0, rows: n, weights: w.clone(), scales: None, odd_rows: None, bias: None };
    Ok(Matrix { n, k, format: PLAIN, pieces: vec![piece] })
}
