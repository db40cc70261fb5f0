//! Products of a few rows with packed panels: queries with keys, and their weights with values.

use std::ops::Range;

use super::instruction_set::Task;
use super::vector::Vector;

/// Rows of a register tile: 6 rows of 2 vectors leave 4 of 16 registers for operands.
pub(super) const TILE_ROWS: usize = 6;

/// The right-hand side of a product, `[depth, columns]`.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a> {
    /// `[columns / LANES, depth, LANES]`, with this depth.
    Panels(&'a [f32], usize),
    /// Row-major, with this stride.
    Rows(&'a [f32], usize),
}

/// `c = a b`, or `c += a b`, for up to [`TILE_ROWS`] rows of a and c. Products are added in the order of depth.
pub(super) struct Product<'a> {
    /// `[rows, depth]`
    pub(super) a: &'a [f32],
    pub(super) a_stride: usize,
    pub(super) b: Operand<'a>,
    /// `[rows, columns]`
    pub(super) c: &'a mut [f32],
    pub(super) c_stride: usize,
    pub(super) rows: usize,
    /// Columns to compute, extended to whole vectors.
    pub(super) columns: Range<usize>,
    /// The part of depth to sum over.
    pub(super) depth: Range<usize>,
    pub(super) add: bool,
}

impl Task for Product<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { rows, depth, .. } = self;
        let panels = self.columns.start / V::LANES..self.columns.end.div_ceil(V::LANES);
        if rows == 0 || depth.is_empty() || panels.is_empty() {
            return;
        }
        let (b, step, panel) = match self.b {
            Operand::Panels(b, depth) => (b, V::LANES, depth * V::LANES),
            Operand::Rows(b, stride) => (b, stride, V::LANES),
        };
        assert!((rows - 1) * self.a_stride + depth.end <= self.a.len());
        assert!((panels.end - 1) * panel + (depth.end - 1) * step + V::LANES <= b.len());
        assert!((rows - 1) * self.c_stride + panels.end * V::LANES <= self.c.len());
        // SAFETY: by the assertions above, the ranges that `Tile::columns` accesses lie within the three slices.
        let tile = unsafe {
            Tile {
                a: self.a.as_ptr().add(depth.start),
                a_stride: self.a_stride,
                b: b.as_ptr().add(panels.start * panel + depth.start * step),
                step,
                panel,
                c: self.c.as_mut_ptr().add(panels.start * V::LANES),
                c_stride: self.c_stride,
                depth: depth.len(),
                add: self.add,
            }
        };
        // SAFETY: as above.
        unsafe {
            match rows {
                1 => tile.columns::<V, 1>(panels.len()),
                2 => tile.columns::<V, 2>(panels.len()),
                3 => tile.columns::<V, 3>(panels.len()),
                4 => tile.columns::<V, 4>(panels.len()),
                5 => tile.columns::<V, 5>(panels.len()),
                TILE_ROWS => tile.columns::<V, TILE_ROWS>(panels.len()),
                _ => unreachable!("a register tile has at most {TILE_ROWS} rows"),
            }
        }
    }
}

/// Where a tile starts in each operand.
#[derive(Clone, Copy)]
struct Tile {
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    /// From one row of b to the next.
    step: usize,
    /// From one vector of a row of b to the next.
    panel: usize,
    c: *mut f32,
    c_stride: usize,
    depth: usize,
    add: bool,
}

impl Tile {
    /// All columns of `ROWS` rows.
    ///
    /// # Safety
    /// a is valid for reads of `[ROWS, depth]`, b of `[depth, panels]` vectors, and c for writes of `[ROWS, panels]`
    /// vectors, initialized if `add` is set.
    #[inline(always)]
    unsafe fn columns<V: Vector, const ROWS: usize>(self, panels: usize) {
        let mut done = 0;
        // SAFETY: the caller's; `done` plus the width of a tile is at most `panels`.
        unsafe {
            // A sum takes several cycles, so few rows need more columns to keep the units busy.
            while ROWS <= 2 && panels - done >= 4 {
                self.at::<V>(done).sum::<V, ROWS, 4>();
                done += 4;
            }
            while panels - done >= 2 {
                self.at::<V>(done).sum::<V, ROWS, 2>();
                done += 2;
            }
            if done < panels {
                self.at::<V>(done).sum::<V, ROWS, 1>();
            }
        }
    }

    /// The tile `panels` vectors to the right.
    ///
    /// # Safety
    /// The operands have more than that many vectors.
    #[inline(always)]
    unsafe fn at<V: Vector>(self, panels: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self { b: self.b.add(panels * self.panel), c: self.c.add(panels * V::LANES), ..self } }
    }

    /// `ROWS` rows of `COLUMNS` vectors.
    ///
    /// # Safety
    /// As for [`Self::columns`], with `COLUMNS` panels.
    #[inline(always)]
    unsafe fn sum<V: Vector, const ROWS: usize, const COLUMNS: usize>(self) {
        let mut sums = [[V::splat(0.0); COLUMNS]; ROWS];
        // SAFETY: the caller's.
        unsafe {
            if self.add {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(self.c.add(i * self.c_stride + j * V::LANES));
                    }
                }
            }
            for k in 0..self.depth {
                let mut b = [V::splat(0.0); COLUMNS];
                for (j, b) in b.iter_mut().enumerate() {
                    *b = V::load(self.b.add(k * self.step + j * self.panel));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = V::splat(*self.a.add(i * self.a_stride + k));
                    for (sum, &b) in sums.iter_mut().zip(&b) {
                        *sum = a.mul_add(b, *sum);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    sum.store(self.c.add(i * self.c_stride + j * V::LANES));
                }
            }
        }
    }
}

/// Writes keys to panels for [`Operand::Panels`] of depth `dim`, one key per column.
pub(super) struct PackKeys<'a> {
    /// The keys of `valid`, `[valid.len(), dim]` at `stride`.
    pub(super) keys: &'a [f32],
    pub(super) stride: usize,
    pub(super) dim: usize,
    /// Columns that have a key. Others become 0.
    pub(super) valid: Range<usize>,
    /// Columns to write, extended to whole vectors.
    pub(super) columns: Range<usize>,
    pub(super) panels: &'a mut [f32],
}

impl Task for PackKeys<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { stride, dim, valid, .. } = self;
        assert!(valid.is_empty() || (valid.len() - 1) * stride + dim <= self.keys.len());
        for panel in self.columns.start / V::LANES..self.columns.end.div_ceil(V::LANES) {
            let to = &mut self.panels[panel * dim * V::LANES..(panel + 1) * dim * V::LANES];
            let columns = panel * V::LANES..(panel + 1) * V::LANES;
            let mut done = 0;
            if valid.start <= columns.start && columns.end <= valid.end {
                let keys = &self.keys[(columns.start - valid.start) * stride..];
                while dim - done >= V::LANES {
                    // SAFETY: `LANES` keys of `dim` values from this key on are within `keys`, by the assertion above,
                    // and `to` has `LANES` values for each of them.
                    unsafe { V::transpose(keys.as_ptr().add(done), stride, to.as_mut_ptr().add(done * V::LANES)) };
                    done += V::LANES;
                }
            }
            for (lane, column) in columns.enumerate() {
                let key =
                    if valid.contains(&column) { &self.keys[(column - valid.start) * stride..][..dim] } else { &[] };
                for d in done..dim {
                    to[d * V::LANES + lane] = key.get(d).copied().unwrap_or_default();
                }
            }
        }
    }
}

/// Writes values to panels for [`Operand::Panels`] of depth `depth`, one value vector per row.
pub(super) struct PackValues<'a> {
    /// The values of `rows`, `[rows.len(), dim]` at `stride`.
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) dim: usize,
    /// Rows to write.
    pub(super) rows: Range<usize>,
    pub(super) depth: usize,
    pub(super) panels: &'a mut [f32],
}

impl Task for PackValues<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { stride, dim, depth, .. } = self;
        assert!(self.rows.end <= depth && dim.div_ceil(V::LANES) * depth * V::LANES <= self.panels.len());
        for (i, row) in self.rows.enumerate() {
            let values = &self.values[i * stride..][..dim];
            for (panel, values) in values.chunks(V::LANES).enumerate() {
                // SAFETY: the chunk has that many values, and panels have room for `depth` vectors, by the assertion.
                unsafe {
                    let to = self.panels.as_mut_ptr().add((panel * depth + row) * V::LANES);
                    V::load_first(values.as_ptr(), values.len()).store(to);
                }
            }
        }
    }
}
