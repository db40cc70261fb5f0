//! What the stages are made of: products, norms and look-ups over rows of device memory.

use bolmo_shaders::params::{GatherRows, MatMul, MatVec, RmsNorm, RoundF16, SiluMul};
use bolmo_shaders::table::{WORKGROUP, fours_grid};
use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use crate::config::Config;
use crate::device::{Form, Recorder, Slice};
use crate::error::Result;
use crate::model::weights::{Matrix, Mlp, Piece};
use crate::state::workspace::Workspace;

/// What every stage works with.
pub struct Context<'a> {
    /// Where dispatches go.
    pub recorder: &'a mut Recorder,
    /// The model's shape.
    pub config: &'a Config,
    /// Where activations are.
    pub workspace: &'a Workspace,
}

/// Rows in device memory: where the first one begins and how far it is to the next, in floats.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The memory.
    pub slice: &'a Slice,
    /// Of row 0, in floats.
    pub offset: usize,
    /// From row to row, in floats.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `stride` floats from row `first` on.
    pub fn new(slice: &'a Slice, stride: usize, first: usize) -> Self {
        Self { slice, offset: first * stride, stride }
    }
}

/// An RMS norm in front of a product: its weight `[k]`, and its epsilon.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// `[k]`
    pub scale: &'a Slice,
    /// Added to the mean square.
    pub eps: f32,
}

impl Context<'_> {
    /// `y = x Wᵀ + b`, or added to y where `add`.
    pub fn linear(&mut self, w: &Matrix, x: Rows<'_>, y: Rows<'_>, rows: usize, add: bool) -> Result<()> {
        if self.few(rows) {
            return self.matvec(w, None, false, x, y, rows, add);
        }
        self.matmul(w, x, y, rows, add, None)
    }

    /// `x Wᵀ` as sums over `columns` of W each, a multiple of 4: y is `[parts, rows, n]`. For few outputs that are long sums.
    pub fn linear_in_parts(&mut self, w: &Matrix, x: Rows<'_>, y: &Slice, rows: usize, columns: usize) -> Result<()> {
        self.matmul(w, x, Rows::new(y, w.n, 0), rows, false, Some(columns))
    }

    fn matmul(
        &mut self,
        w: &Matrix,
        x: Rows<'_>,
        y: Rows<'_>,
        rows: usize,
        add: bool,
        part: Option<usize>,
    ) -> Result<()> {
        match &self.workspace.halves {
            Some(halves) if w.format == WeightFormat::F32 => self.matmul_in_f16(w, halves, x, y, rows, add, part),
            _ => self.matmul_as_is(w, x, y, rows, add, part),
        }
    }

    /// As [`Self::matmul_as_is`], each piece of W as f16 in `halves` when its turn comes.
    #[allow(clippy::too_many_arguments)] // a kernel's arguments, all of them needed
    fn matmul_in_f16(
        &mut self,
        w: &Matrix,
        halves: &Slice,
        x: Rows<'_>,
        y: Rows<'_>,
        rows: usize,
        add: bool,
        part: Option<usize>,
    ) -> Result<()> {
        for piece in &w.pieces {
            let count = piece.rows * w.k;
            let weights = halves.part(0, 2 * count as u64)?;
            let params = RoundF16 { count4: (count / 4) as u32 };
            let slices = [&piece.weights, &weights];
            self.recorder.dispatch(KernelId::RoundF16, WeightFormat::F32, &params, &slices, fours_grid(count / 4))?;
            let own =
                Piece { first_row: piece.first_row, rows: piece.rows, weights, scales: None, bias: piece.bias.clone() };
            let w = Matrix { n: w.n, k: w.k, format: WeightFormat::F16, pieces: vec![own] };
            self.matmul_as_is(&w, x, y, rows, add, part)?;
        }
        Ok(())
    }

    /// `y = rms(x; norm) Wᵀ + b`, or added to y where `add`. Overwrites the workspace's `u`.
    pub fn norm_linear(&mut self, norm: Norm<'_>, w: &Matrix, x: Rows<'_>, y: Rows<'_>, rows: usize) -> Result<()> {
        if self.fuses_norm(rows, w.k) {
            return self.matvec(w, Some(norm), false, x, y, rows, false);
        }
        self.norm_into_u(norm, x, rows, w.k)?;
        let ws = self.workspace;
        self.linear(w, Rows::new(&ws.u, w.k, 0), y, rows, false)
    }

    /// `rms(x; norm)` in the workspace's `u`.
    fn norm_into_u(&mut self, norm: Norm<'_>, x: Rows<'_>, rows: usize, dim: usize) -> Result<()> {
        let ws = self.workspace;
        self.norm(norm.scale, norm.eps, x, Rows::new(&ws.u, dim, 0), rows, 1, dim, false)
    }

    /// Whether a product of this many rows is computed row by row.
    fn few(&self, rows: usize) -> bool {
        !self.workspace.keep && rows <= self.recorder.gpu().capabilities.matvec_max_rows
    }

    /// Whether the norm in front of a product is part of it.
    fn fuses_norm(&self, rows: usize, width: usize) -> bool {
        self.few(rows) && width <= self.recorder.gpu().capabilities.fused_norm_width
    }

    #[allow(clippy::too_many_arguments)] // a kernel's arguments, all of them needed
    fn matvec(
        &mut self,
        w: &Matrix,
        norm: Option<Norm<'_>>,
        gated: bool,
        x: Rows<'_>,
        y: Rows<'_>,
        rows: usize,
        add: bool,
    ) -> Result<()> {
        for piece in &w.pieces {
            // A product without bias or norm binds its own weights in their place and does not read them.
            let bias = piece.bias.as_ref().unwrap_or(&piece.weights);
            let scale = norm.map_or(&piece.weights, |norm| norm.scale);
            let slices = [&piece.weights, x.slice, bias, scale, y.slice];
            let first = if gated { piece.first_row / 2 } else { piece.first_row };
            let params = MatVec {
                n: piece.rows as u32,
                k4: (w.k / 4) as u32,
                x_offset4: (x.offset / 4) as u32,
                x_stride4: (x.stride / 4) as u32,
                y_offset: (y.offset + first) as u32,
                y_stride: y.stride as u32,
                add: add.into(),
                bias: piece.bias.is_some().into(),
                eps: norm.map_or(0.0, |norm| norm.eps),
            };
            let capabilities = &self.recorder.gpu().capabilities;
            let fusion = Fusion { norm: norm.is_some(), gated, tall: piece.rows >= capabilities.tall_rows };
            let grid = [rows, piece.rows.div_ceil(capabilities.matvec_rows(fusion)), 1];
            let form = Form { format: w.format, fusion, scales: piece.scales.as_ref() };
            self.recorder.dispatch(KernelId::MatVec, form, &params, &slices, grid)?;
        }
        Ok(())
    }

    /// The product by `matmul`, of W as it is, in sums over `part` columns each if that is given.
    fn matmul_as_is(
        &mut self,
        w: &Matrix,
        x: Rows<'_>,
        y: Rows<'_>,
        rows: usize,
        add: bool,
        part: Option<usize>,
    ) -> Result<()> {
        let [tile_columns, tile_rows] = self.recorder.gpu().matmul_tile(w.format);
        for piece in &w.pieces {
            let slices = [&piece.weights, x.slice, piece.bias.as_ref().unwrap_or(&piece.weights), y.slice];
            let params = MatMul {
                rows: rows as u32,
                n: piece.rows as u32,
                k4: (w.k / 4) as u32,
                x_offset4: (x.offset / 4) as u32,
                x_stride4: (x.stride / 4) as u32,
                y_offset: (y.offset + piece.first_row) as u32,
                y_stride: y.stride as u32,
                add: add.into(),
                bias: piece.bias.is_some().into(),
                part4: (part.unwrap_or_default() / 4) as u32,
                y_part: (rows * y.stride) as u32,
            };
            let form = Form { scales: piece.scales.as_ref(), ..w.format.into() };
            let parts = part.map_or(1, |columns| w.k.div_ceil(columns));
            let grid = [piece.rows.div_ceil(tile_columns), rows.div_ceil(tile_rows), parts];
            self.recorder.dispatch(KernelId::MatMul, form, &params, &slices, grid)?;
        }
        Ok(())
    }

    /// `y = rms(x; scale, eps)` over each of the `groups` parts of a row, or added to y where `add`.
    #[allow(clippy::too_many_arguments)] // a kernel's arguments, all of them needed
    pub fn norm(
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
    pub fn gather(
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
            let form = Form { scales: piece.scales.as_ref(), ..table.format.into() };
            self.gather_piece(form, part, table.k, index, y, y_row, count, add || i > 0)?;
        }
        Ok(())
    }

    /// As [`Self::gather`], from rows of activations.
    pub fn gather_rows(
        &mut self,
        from: &Slice,
        index: &Slice,
        y: &Slice,
        y_row: usize,
        count: usize,
        add: bool,
    ) -> Result<()> {
        let dim = self.config.hidden_size;
        let rows = from.size() as usize / (4 * dim);
        self.gather_piece(WeightFormat::F32.into(), (0, rows, from), dim, index, y, y_row, count, add)
    }

    #[allow(clippy::too_many_arguments)] // a kernel's arguments, all of them needed
    fn gather_piece(
        &mut self,
        form: Form<'_>,
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
        self.recorder.dispatch(KernelId::GatherRows, form, &params, &[table, index, y], grid)
    }

    /// `y = down(silu(gate(x)) * up(x))`, or added to y where `add`, and x behind `norm` if there is one. All rows are `[rows, D]`.
    pub fn mlp(&mut self, w: &Mlp, norm: Option<Norm<'_>>, x: &Slice, y: &Slice, rows: usize, add: bool) -> Result<()> {
        let d = self.config.hidden_size;
        let ws = self.workspace;
        let width = w.down.k;
        let hidden = Rows::new(&ws.hidden, width, 0);
        let (mut x, mut norm) = (Rows::new(x, d, 0), norm);
        if let Some(separate) = norm.filter(|_| !self.fuses_norm(rows, d)) {
            self.norm_into_u(separate, x, rows, d)?;
            (x, norm) = (Rows::new(&ws.u, d, 0), None);
        }
        if self.few(rows) {
            self.matvec(&w.gate_up, norm, true, x, hidden, rows, false)?;
        } else {
            self.linear(&w.gate_up, x, Rows::new(&ws.gate_up, 2 * width, 0), rows, false)?;
            let params = SiluMul { rows: rows as u32, dim4: (width / 4) as u32 };
            let grid = [(width / 4).div_ceil(WORKGROUP as usize), rows, 1];
            self.recorder.dispatch(KernelId::SiluMul, WeightFormat::F32, &params, &[&ws.gate_up, &ws.hidden], grid)?;
        }
        self.linear(&w.down, hidden, Rows::new(y, d, 0), rows, add)
    }
}
