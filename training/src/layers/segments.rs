//! Sums of rows by segment: the backward pass of a gather.

use std::sync::Arc;

use bolmo_runtime::unstable::{Context, Device, Matrix, Slice};
use bolmo_runtime::{Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::GatherRowsGrad;
use bolmo_shaders::sizes::WORKGROUP;

/// Rows that one workgroup adds up at most. A longer segment is added up in parts.
const MAX_SEGMENT_ROWS: usize = 64;

/// Segments per dispatch. No grid has more than 65535 workgroups in a dimension.
const SEGMENTS_PER_DISPATCH: usize = 1 << 15;

/// Segments on the device: the row of the table, the first place in the order, the number of places, and padding,
/// `[count, 4]`.
#[derive(Debug)]
struct SegmentTable {
    slice: Slice,
    count: usize,
}

impl SegmentTable {
    async fn new(device: &Arc<Device>, capacity: usize) -> Result<Self> {
        Ok(Self { slice: device.allocate("rows and their positions", 16 * capacity as u64).await?, count: 0 })
    }

    fn set(&mut self, device: &Device, segments: &[[u32; 4]]) -> Result<()> {
        self.count = segments.len();
        device.write(&self.slice, 0, bytemuck::cast_slice(segments))
    }
}

/// The positions that were gathered from each row of a table.
///
/// A few rows of the table, such as those of padding and of the space, may account for most of a batch. Long segments
/// are therefore split into parts, and a second pass adds up the sums of the parts.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Positions, grouped by row of the table, `[positions]`.
    order: Slice,
    /// Segments that are added up in one pass.
    short: SegmentTable,
    /// Parts of the long segments; each names its own row of `partial`.
    parts: SegmentTable,
    /// Sums of the parts, `[parts, width]`.
    partial: Slice,
    /// 0, 1, 2, …, `[parts]`.
    identity: Slice,
    /// The parts of each long segment.
    long: SegmentTable,
}

/// Operands of sums by segment.
#[derive(Clone, Copy)]
pub(crate) struct SegmentSum<'a> {
    /// Destination; its first row is row `first_row` of the table.
    pub(crate) y: &'a Slice,
    pub(crate) first_row: usize,
    /// Rows of the table that `y` holds.
    pub(crate) rows: usize,
    /// Floats of a row.
    pub(crate) dim: usize,
    /// Rows to add up, one for each position.
    pub(crate) dy: &'a Slice,
    /// Whether the sums are added to what `y` holds.
    pub(crate) add: bool,
}

impl Segments {
    /// Allocates memory for up to `positions` positions with rows of `width` floats.
    pub(crate) async fn new(device: &Arc<Device>, positions: usize, width: usize) -> Result<Self> {
        // Each long segment has at least one full part and at most one that is not full.
        let full = positions / MAX_SEGMENT_ROWS;
        let (longs, parts) = (full + 1, 2 * full + 1);
        let identity = device.allocate("part numbers", 4 * parts as u64).await?;
        device.write(&identity, 0, bytemuck::cast_slice(&(0..parts as u32).collect::<Vec<_>>()))?;
        Ok(Self {
            order: device.allocate("positions by row", 4 * positions as u64).await?,
            short: SegmentTable::new(device, positions).await?,
            parts: SegmentTable::new(device, parts).await?,
            partial: device.allocate("sums of parts", 4 * (parts * width) as u64).await?,
            identity,
            long: SegmentTable::new(device, longs).await?,
        })
    }

    /// Groups positions by row. `index` holds the row of the table that each position gathers; a position whose row is
    /// not below `rows`, such as `u32::MAX`, belongs to no segment.
    pub(crate) fn set(&mut self, device: &Device, index: &[u32], rows: usize) -> Result<()> {
        let HostSegments { order, short, parts, long } = HostSegments::group(index, rows);
        device.write(&self.order, 0, bytemuck::cast_slice(&order))?;
        self.short.set(device, &short)?;
        self.parts.set(device, &parts)?;
        self.long.set(device, &long)
    }

    /// Adds the rows of dy to the rows of the table that they were gathered from.
    pub(crate) fn add_to_table(&self, cx: &mut Context<'_>, dw: &Matrix, dy: &Slice) -> Result<()> {
        for piece in &dw.pieces {
            let (first_row, rows) = (piece.first_row, piece.rows);
            self.sum(cx, SegmentSum { y: &piece.weights, first_row, rows, dim: dw.k, dy, add: true })?;
        }
        Ok(())
    }

    /// Sums the rows of dy by segment.
    pub(crate) fn sum(&self, cx: &mut Context<'_>, sum: SegmentSum<'_>) -> Result<()> {
        dispatch(cx, sum, &self.order, &self.short)?;
        if self.long.count > 0 {
            let of_parts = SegmentSum { y: &self.partial, first_row: 0, rows: self.parts.count, add: false, ..sum };
            dispatch(cx, of_parts, &self.order, &self.parts)?;
            dispatch(cx, SegmentSum { dy: &self.partial, ..sum }, &self.identity, &self.long)?;
        }
        Ok(())
    }
}

/// Records the sums of one table of segments.
fn dispatch(cx: &mut Context<'_>, sum: SegmentSum<'_>, order: &Slice, table: &SegmentTable) -> Result<()> {
    let mut done = 0;
    while done < table.count {
        let count = (table.count - done).min(SEGMENTS_PER_DISPATCH);
        let part = table.slice.part(16 * done as u64, 16 * count as u64)?;
        let params = GatherRowsGrad {
            segments: count as u32,
            dim4: (sum.dim / 4) as u32,
            first_row: sum.first_row as u32,
            rows: sum.rows as u32,
            add: sum.add.into(),
        };
        let grid = [(sum.dim / 4).div_ceil(WORKGROUP as usize), count, 1];
        let slices = [sum.dy, order, &part, sum.y];
        cx.recorder.dispatch(KernelId::GatherRowsGrad, WeightFormat::F32, &params, &slices, grid)?;
        done += count;
    }
    Ok(())
}

/// The contents of [`Segments`] on the host.
#[derive(Debug, PartialEq)]
struct HostSegments {
    order: Vec<u32>,
    short: Vec<[u32; 4]>,
    parts: Vec<[u32; 4]>,
    long: Vec<[u32; 4]>,
}

impl HostSegments {
    fn group(index: &[u32], rows: usize) -> Self {
        // A counting sort keeps the positions of a row in order, so that sums are reproducible.
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
        let mut this = Self { order, short: Vec::new(), parts: Vec::new(), long: Vec::new() };
        for (row, bounds) in starts.windows(2).enumerate() {
            let (first, count) = (bounds[0], bounds[1] - bounds[0]);
            match count as usize {
                0 => {}
                1..=MAX_SEGMENT_ROWS => this.short.push([row as u32, first, count, 0]),
                _ => {
                    let before = this.parts.len() as u32;
                    for at in (first..first + count).step_by(MAX_SEGMENT_ROWS) {
                        let own = this.parts.len() as u32;
                        this.parts.push([own, at, (first + count - at).min(MAX_SEGMENT_ROWS as u32), 0]);
                    }
                    this.long.push([row as u32, before, this.parts.len() as u32 - before, 0]);
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
    fn long_segments_are_split() {
        // Row 2 at every position but three, row 0 at two of those.
        let mut index = vec![2; 200];
        (index[5], index[7], index[150]) = (0, u32::MAX, 0);
        let segments = HostSegments::group(&index, 4);
        assert_eq!(segments.order[..4], [5, 150, 0, 1]);
        assert_eq!(segments.order.len(), 199);
        assert!(segments.order[2..].is_sorted() && !segments.order.contains(&7));
        assert_eq!(segments.short, [[0, 0, 2, 0]]);
        assert_eq!(segments.parts, [[0, 2, 64, 0], [1, 66, 64, 0], [2, 130, 64, 0], [3, 194, 5, 0]]);
        assert_eq!(segments.long, [[2, 0, 4, 0]]);
        let none = HostSegments { order: vec![], short: vec![], parts: vec![], long: vec![] };
        assert_eq!(HostSegments::group(&[], 3), none);
    }
}
