//! Operations that stages are made of: products, norms and look-ups over rows of device memory.

use bolmo_shaders::params::{GatherRows, MatMul, MatVec, RmsNorm, RoundF16, SiluMul};
use bolmo_shaders::sizes::{WORKGROUP, vec4_grid};
use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use crate::config::Config;
use crate::device::{Form, Recorder, Slice};
use crate::error::Result;
use crate::model::weights::{Matrix, Mlp, Piece};
use crate::state::workspace::Workspace;

/// What every stage works with.
pub struct Context<'a> {
    /// Receives the dispatches.
    pub recorder: &'a mut Recorder,
    /// The model's shape.
    pub config: &'a Config,
    /// Holds the activations.
    pub workspace: &'a Workspace,
}

/// Rows in device memory. All lengths are in floats.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The memory.
    pub slice: &'a Slice,
    /// Start of row 0.
    pub offset: usize,
    /// Distance from one row to the next.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `stride` floats, starting at row `first`.
    pub fn new(slice: &'a Slice, stride: usize, first: usize) -> Self {
        Self { slice, offset: first * stride, stride }
    }
}

/// Weight and epsilon of an RMS norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `[k]`
    pub scale: &'a Slice,
    /// Added to the mean square.
    pub eps: f32,
}

/// Operands of a matrix product, `y = x Wᵀ + b`.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// `[n, k]`, with its bias if it has one.
    pub w: &'a Matrix,
    /// `[rows, k]`
    pub x: Rows<'a>,
    /// `[rows, n]`
    pub y: Rows<'a>,
    /// Rows of x and y.
    pub rows: usize,
    /// Whether the product is added to y instead of replacing it.
    pub add: bool,
}

impl<'a> Product<'a> {
    /// `y = x Wᵀ + b`
    pub fn new(w: &'a Matrix, x: Rows<'a>, y: Rows<'a>, rows: usize) -> Self {
        Self { w, x, y, rows, add: false }
    }

    /// `y += x Wᵀ + b`
    pub fn accumulated(self) -> Self {
        Self { add: true, ..self }
    }
}

/// Operands of an RMS norm over rows, `y = rms(x; norm)`.
#[derive(Debug, Clone, Copy)]
pub struct NormRows<'a> {
    /// Weight, `[groups, dim]`, and epsilon.
    pub norm: Norm<'a>,
    /// `[rows, groups, dim]`
    pub x: Rows<'a>,
    /// `[rows, groups, dim]`
    pub y: Rows<'a>,
    /// Rows of x and y.
    pub rows: usize,
    /// Parts of a row that are normalized separately.
    pub groups: usize,
    /// Floats of a group.
    pub dim: usize,
    /// Whether the result is added to y instead of replacing it.
    pub add: bool,
}

impl<'a> NormRows<'a> {
    /// `y = rms(x; norm)` over whole rows of `dim` floats.
    pub fn new(norm: Norm<'a>, x: Rows<'a>, y: Rows<'a>, rows: usize, dim: usize) -> Self {
        Self { norm, x, y, rows, groups: 1, dim, add: false }
    }

    /// The same, added to y.
    pub fn accumulated(self) -> Self {
        Self { add: true, ..self }
    }
}

/// Operands of a look-up, `y[y_row + t] = table[index[t]]`.
#[derive(Debug, Clone, Copy)]
pub struct Gather<'a> {
    /// Rows of the table, `[count]` u32.
    pub index: &'a Slice,
    /// Receives the rows.
    pub y: &'a Slice,
    /// Row of y that `index[0]` writes to.
    pub y_row: usize,
    /// Rows to look up.
    pub count: usize,
    /// Whether rows are added to y instead of replacing it.
    pub add: bool,
}

/// Rows `first_row ..` of a table, which lie in one buffer.
#[derive(Clone, Copy)]
struct TablePiece<'a> {
    form: Form<'a>,
    first_row: usize,
    rows: usize,
    dim: usize,
    table: &'a Slice,
}

/// What a `matvec` computes beside the product.
#[derive(Clone, Copy, Default)]
struct MatVecFusion<'a> {
    /// RMS norm of x in front of the product.
    norm: Option<Norm<'a>>,
    /// Whether rows of W alternate between gate and up, and y is `silu(gate) * up`.
    gated: bool,
}

impl Context<'_> {
    /// `y = x Wᵀ + b`, by `matvec` for few rows and by `matmul` for more.
    pub fn linear(&mut self, product: Product<'_>) -> Result<()> {
        if self.uses_matvec(product.rows) {
            return self.matvec(product, MatVecFusion::default());
        }
        self.matmul(product, None)
    }

    /// `x Wᵀ` as partial sums over `columns` columns of W each, a multiple of 4: y is `[parts, rows, n]`. For products
    /// with few outputs and long sums.
    pub fn linear_in_parts(&mut self, product: Product<'_>, columns: usize) -> Result<()> {
        self.matmul(product, Some(columns))
    }

    /// The product by `matmul`, in partial sums over `part` columns each if that is given.
    fn matmul(&mut self, product: Product<'_>, part: Option<usize>) -> Result<()> {
        match &self.workspace.f16_scratch {
            Some(scratch) if product.w.format == WeightFormat::F32 => self.matmul_in_f16(product, scratch, part),
            _ => self.matmul_as_stored(product, part),
        }
    }

    /// As [`Self::matmul_as_stored`], with each piece of W rounded to f16 in `scratch` when its turn comes.
    fn matmul_in_f16(&mut self, product: Product<'_>, scratch: &Slice, part: Option<usize>) -> Result<()> {
        let w = product.w;
        for piece in &w.pieces {
            let count = piece.rows * w.k;
            let weights = scratch.part(0, 2 * count as u64)?;
            let params = RoundF16 { count4: (count / 4) as u32 };
            let slices = [&piece.weights, &weights];
            self.recorder.dispatch(KernelId::RoundF16, WeightFormat::F32, &params, &slices, vec4_grid(count / 4))?;
            let &Piece { first_row, rows, .. } = piece;
            let rounded = Piece { first_row, rows, weights, scales: None, odd_rows: None, bias: piece.bias.clone() };
            let w = Matrix { n: w.n, k: w.k, format: WeightFormat::F16, pieces: vec![rounded] };
            self.matmul_as_stored(Product { w: &w, ..product }, part)?;
        }
        Ok(())
    }

    /// `y = rms(x; norm) Wᵀ + b`. Overwrites the workspace's `u`.
    pub fn norm_linear(&mut self, norm: Norm<'_>, product: Product<'_>) -> Result<()> {
        let Product { w, x, rows, .. } = product;
        if self.fuses_norm(rows, w.k) {
            return self.matvec(product, MatVecFusion { norm: Some(norm), gated: false });
        }
        self.norm_into_u(norm, x, rows, w.k)?;
        let u = Rows::new(&self.workspace.u, w.k, 0);
        self.linear(Product { x: u, ..product })
    }

    /// `rms(x; norm)` in the workspace's `u`.
    fn norm_into_u(&mut self, norm: Norm<'_>, x: Rows<'_>, rows: usize, dim: usize) -> Result<()> {
        let u = Rows::new(&self.workspace.u, dim, 0);
        self.norm(NormRows::new(norm, x, u, rows, dim))
    }

    /// Whether a product of this many rows is computed row by row.
    fn uses_matvec(&self, rows: usize) -> bool {
        !self.workspace.saves_activations && rows <= self.recorder.device().capabilities.matvec_max_rows
    }

    /// Whether a norm in front of a product is part of the product's kernel.
    fn fuses_norm(&self, rows: usize, width: usize) -> bool {
        self.uses_matvec(rows) && width <= self.recorder.device().capabilities.fused_norm_width
    }

    fn matvec(&mut self, product: Product<'_>, MatVecFusion { norm, gated }: MatVecFusion<'_>) -> Result<()> {
        let Product { w, x, y, rows, add } = product;
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
            let capabilities = &self.recorder.device().capabilities;
            let fusion = Fusion { norm: norm.is_some(), gated, tall: piece.rows >= capabilities.tall_rows };
            let grid = [rows, piece.rows.div_ceil(capabilities.matvec_rows(fusion)), 1];
            let form = Form { fusion, ..piece.form(w.format) };
            self.recorder.dispatch(KernelId::MatVec, form, &params, &slices, grid)?;
        }
        Ok(())
    }

    /// The product by `matmul`, with W in the format that it has.
    fn matmul_as_stored(&mut self, product: Product<'_>, part: Option<usize>) -> Result<()> {
        let Product { w, x, y, rows, add } = product;
        let [tile_columns, tile_rows] = self.recorder.device().matmul_tile(w.format);
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
            // Gradients have no other form that must have the same bits.
            let form = Form { any_order: self.workspace.saves_activations, ..piece.form(w.format) };
            let parts = part.map_or(1, |columns| w.k.div_ceil(columns));
            let grid = [piece.rows.div_ceil(tile_columns), rows.div_ceil(tile_rows), parts];
            self.recorder.dispatch(KernelId::MatMul, form, &params, &slices, grid)?;
        }
        Ok(())
    }

    /// `y = rms(x; norm)` over each group of a row.
    pub fn norm(&mut self, operands: NormRows<'_>) -> Result<()> {
        let NormRows { norm, x, y, rows, groups, dim, add } = operands;
        let params = RmsNorm {
            rows: rows as u32,
            groups: groups as u32,
            dim4: (dim / 4) as u32,
            x_offset4: (x.offset / 4) as u32,
            x_stride4: (x.stride / 4) as u32,
            y_offset4: (y.offset / 4) as u32,
            y_stride4: (y.stride / 4) as u32,
            add: add.into(),
            eps: norm.eps,
        };
        let slices = [norm.scale, x.slice, y.slice];
        self.recorder.dispatch(KernelId::RmsNorm, WeightFormat::F32, &params, &slices, [groups, rows, 1])
    }

    /// Looks up rows of a table of weights, which may lie in several pieces.
    pub fn gather(&mut self, table: &Matrix, gather: Gather<'_>) -> Result<()> {
        for (i, piece) in table.pieces.iter().enumerate() {
            let form = piece.form(table.format);
            let &Piece { first_row, rows, ref weights, .. } = piece;
            let part = TablePiece { form, first_row, rows, dim: table.k, table: weights };
            // Every piece adds the rows that it has.
            self.gather_piece(part, Gather { add: gather.add || i > 0, ..gather })?;
        }
        Ok(())
    }

    /// Looks up rows of activations, `[rows, D]`.
    pub fn gather_rows(&mut self, table: &Slice, gather: Gather<'_>) -> Result<()> {
        let dim = self.config.hidden_size;
        let rows = table.size() as usize / (4 * dim);
        self.gather_piece(TablePiece { form: WeightFormat::F32.into(), first_row: 0, rows, dim, table }, gather)
    }

    fn gather_piece(&mut self, piece: TablePiece<'_>, gather: Gather<'_>) -> Result<()> {
        let Gather { index, y, y_row, count, add } = gather;
        let params = GatherRows {
            count: count as u32,
            dim4: (piece.dim / 4) as u32,
            first_row: piece.first_row as u32,
            rows: piece.rows as u32,
            add: add.into(),
            y_row: y_row as u32,
        };
        let grid = [(piece.dim / 4).div_ceil(WORKGROUP as usize), count, 1];
        self.recorder.dispatch(KernelId::GatherRows, piece.form, &params, &[piece.table, index, y], grid)
    }

    /// `y = down(silu(gate(x)) * up(x))`, or added to y if `add`, with x normalized first if there is a `norm`. All
    /// rows are `[rows, D]`.
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
        if self.uses_matvec(rows) {
            self.matvec(Product::new(&w.gate_up, x, hidden, rows), MatVecFusion { norm, gated: true })?;
        } else {
            self.linear(Product::new(&w.gate_up, x, Rows::new(&ws.gate_up, 2 * width, 0), rows))?;
            let params = SiluMul { rows: rows as u32, dim4: (width / 4) as u32 };
            let grid = [(width / 4).div_ceil(WORKGROUP as usize), rows, 1];
            self.recorder.dispatch(KernelId::SiluMul, WeightFormat::F32, &params, &[&ws.gate_up, &ws.hidden], grid)?;
        }
        self.linear(Product { add, ..Product::new(&w.down, hidden, Rows::new(y, d, 0), rows) })
    }
}
