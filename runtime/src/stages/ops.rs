//! What the stages are made of: products, norms and look-ups over rows of device memory.

use bolmo_shaders::params::{GatherRows, MatMul, MatVec, RmsNorm, SiluMul};
use bolmo_shaders::table::{MATMUL_TILE, WORKGROUP};
use bolmo_shaders::{KernelId, WeightFormat};

use crate::config::Config;
use crate::error::Result;
use crate::gpu::{Recorder, Slice};
use crate::weights::{Matrix, Mlp};
use crate::workspace::Workspace;

/// What every stage works with.
pub(crate) struct Context<'a> {
    pub(crate) recorder: &'a mut Recorder,
    pub(crate) config: &'a Config,
    pub(crate) workspace: &'a Workspace,
}

/// Rows in device memory: where the first one begins and how far it is to the next, in floats.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) slice: &'a Slice,
    pub(crate) offset: usize,
    pub(crate) stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `stride` floats from row `first` on.
    pub(crate) fn new(slice: &'a Slice, stride: usize, first: usize) -> Self {
        Self { slice, offset: first * stride, stride }
    }

    /// The same rows from `column` on.
    pub(crate) fn column(self, column: usize) -> Self {
        Self { offset: self.offset + column, ..self }
    }
}

impl Context<'_> {
    /// `y = x Wᵀ + b`, or added to y where `add`.
    pub(crate) fn linear(&mut self, w: &Matrix, x: Rows<'_>, y: Rows<'_>, rows: usize, add: bool) -> Result<()> {
        let capabilities = &self.recorder.gpu().capabilities;
        let (few, matvec_rows) = (rows <= capabilities.few_rows, capabilities.matvec_rows as usize);
        for piece in &w.pieces {
            let bias = piece.bias.as_ref();
            // A product without bias binds its own weights in the bias' place and does not read them.
            let slices = [&piece.weights, x.slice, bias.unwrap_or(&piece.weights), y.slice];
            let params = MatMul {
                rows: rows as u32,
                n: piece.rows as u32,
                k4: (w.k / 4) as u32,
                x_offset4: (x.offset / 4) as u32,
                x_stride4: (x.stride / 4) as u32,
                y_offset: (y.offset + piece.first_row) as u32,
                y_stride: y.stride as u32,
                add: add.into(),
                bias: bias.is_some().into(),
            };
            if few {
                let MatMul { rows: _, n, k4, x_offset4, x_stride4, y_offset, y_stride, add, bias } = params;
                let params = MatVec { n, k4, x_offset4, x_stride4, y_offset, y_stride, add, bias };
                let grid = [piece.rows.div_ceil(matvec_rows), rows, 1];
                self.recorder.dispatch(KernelId::MatVec, w.format, &params, &slices, grid)?;
            } else {
                let grid = [piece.rows.div_ceil(MATMUL_TILE as usize), rows.div_ceil(MATMUL_TILE as usize), 1];
                self.recorder.dispatch(KernelId::MatMul, w.format, &params, &slices, grid)?;
            }
        }
        Ok(())
    }

    /// `y = rms(x; scale, eps)` over each of the `groups` parts of a row, or added to y where `add`.
    #[allow(clippy::too_many_arguments)] // a kernel's arguments, all of them needed
    pub(crate) fn norm(
        &mut self,
        scale: &Slice,
        eps: f32,
        x: Rows<'_>,
        y: Rows<'_>,
        rows: usize,
        groups: usize,
        dim: usize,
        add: bool,
    ) -> Result<()> {
        let params = RmsNorm {
            rows: rows as u32,
            groups: groups as u32,
            dim4: (dim / 4) as u32,
            x_offset4: (x.offset / 4) as u32,
            x_stride4: (x.stride / 4) as u32,
            y_offset4: (y.offset / 4) as u32,
            y_stride4: (y.stride / 4) as u32,
            add: add.into(),
            eps,
        };
        let slices = [scale, x.slice, y.slice];
        self.recorder.dispatch(KernelId::RmsNorm, WeightFormat::F32, &params, &slices, [groups, rows, 1])
    }

    /// `y[t] = table[index[t]]`, or added to y where `add`; `y_row` is the row of y that `index[0]` writes to.
    pub(crate) fn gather(
        &mut self,
        table: &Matrix,
        index: &Slice,
        y: &Slice,
        y_row: usize,
        count: usize,
        add: bool,
    ) -> Result<()> {
        for (i, piece) in table.pieces.iter().enumerate() {
            let part = (piece.first_row, piece.rows, &piece.weights);
            self.gather_piece(table.format, part, table.k, index, y, y_row, count, add || i > 0)?;
        }
        Ok(())
    }

    /// As [`Self::gather`], from rows of activations.
    pub(crate) fn gather_rows(
        &mut self,
        from: &Slice,
        index: &Slice,
        y: &Slice,
        count: usize,
        add: bool,
    ) -> Result<()> {
        let dim = self.config.hidden_size;
        let rows = from.size() as usize / (4 * dim);
        self.gather_piece(WeightFormat::F32, (0, rows, from), dim, index, y, 0, count, add)
    }

    #[allow(clippy::too_many_arguments)] // a kernel's arguments, all of them needed
    fn gather_piece(
        &mut self,
        format: WeightFormat,
        (first_row, rows, table): (usize, usize, &Slice),
        dim: usize,
        index: &Slice,
        y: &Slice,
        y_row: usize,
        count: usize,
        add: bool,
    ) -> Result<()> {
        let params = GatherRows {
            count: count as u32,
            dim4: (dim / 4) as u32,
            first_row: first_row as u32,
            rows: rows as u32,
            add: add.into(),
            y_row: y_row as u32,
        };
        let grid = [(dim / 4).div_ceil(WORKGROUP as usize), count, 1];
        self.recorder.dispatch(KernelId::GatherRows, format, &params, &[table, index, y], grid)
    }

    /// `y = down(silu(gate(x)) * up(x))`, or added to y where `add`. All rows are `[rows, D]`.
    pub(crate) fn mlp(&mut self, w: &Mlp, x: &Slice, y: &Slice, rows: usize, add: bool) -> Result<()> {
        let d = self.config.hidden_size;
        let ws = self.workspace;
        let width = w.down.k;
        self.linear(&w.gate_up, Rows::new(x, d, 0), Rows::new(&ws.gate_up, 2 * width, 0), rows, false)?;
        let params = SiluMul { rows: rows as u32, dim4: (width / 4) as u32 };
        let grid = [(width / 4).div_ceil(WORKGROUP as usize), rows, 1];
        self.recorder.dispatch(KernelId::SiluMul, WeightFormat::F32, &params, &[&ws.gate_up, &ws.hidden], grid)?;
        self.linear(&w.down, Rows::new(&ws.hidden, width, 0), Rows::new(y, d, 0), rows, add)
    }
}
