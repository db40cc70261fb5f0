use super::sizes;
use crate::params;

/// Gradient of `gather_rows` by the table.
///
/// `dw[row - first_row]` becomes the sum of dy over the positions of the row's segment, or that sum is added to it.
/// Rows without a segment are unchanged, and segments of other slices of the table are skipped.
///
/// Shapes: dy `[.., dim]`, order `[positions]`, segments `[segments, 4]` of row, first, count and 0, dw `[rows, dim]`.
pub fn gather_rows_grad(p: &params::GatherRowsGrad, dy: &[f32], order: &[u32], segments: &[[u32; 4]], dw: &mut [f32]) {
    let [count, dim, first_row, rows] = sizes([p.segments, 4 * p.dim4, p.first_row, p.rows]);
    for &segment in &segments[..count] {
        let [row, first, count, _] = sizes(segment);
        if row < first_row || row - first_row >= rows {
            continue;
        }
        for i in 0..dim {
            let positions = &order[first..first + count];
            let sum: f64 = positions.iter().map(|&t| f64::from(dy[t as usize * dim + i])).sum();
            let dw = &mut dw[(row - first_row) * dim + i];
            *dw = (sum + if p.add != 0 { f64::from(*dw) } else { 0.0 }) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{central_differences, wide};
    use crate::cpu::noise::{assert_close, noise};

    #[test]
    fn matches_central_differences() {
        let (dim, index) = (4, [2usize, 0, 2, 4, 2, 0]);
        let dy = noise(1, index.len() * dim, 1.0);
        let table = wide(&noise(2, 5 * dim, 1.0));
        let cotangent = wide(&dy);
        let loss = |table: &[f64]| -> f64 {
            let looked_up = index.iter().flat_map(|&row| &table[row * dim..(row + 1) * dim]);
            looked_up.zip(&cotangent).map(|(y, c)| y * c).sum()
        };
        let expected: Vec<f32> = (0..table.len()).map(|i| central_differences(loss, &table, i) as f32).collect();
        // Positions sorted by row, in two slices of the table.
        let order = [1, 5, 0, 2, 4, 3];
        let segments = [[0, 0, 2, 0], [2, 2, 3, 0], [4, 5, 1, 0]];
        let p = params::GatherRowsGrad { segments: 3, dim4: 1, first_row: 0, rows: 2, add: 0 };
        let mut dw = vec![0.0; 5 * dim];
        gather_rows_grad(&p, &dy, &order, &segments, &mut dw[..2 * dim]);
        gather_rows_grad(
            &params::GatherRowsGrad { first_row: 2, rows: 3, ..p },
            &dy,
            &order,
            &segments,
            &mut dw[2 * dim..],
        );
        assert_close(&dw, &expected, 1e-6);
        let twice: Vec<f32> = expected.iter().map(|v| 2.0 * v).collect();
        gather_rows_grad(&params::GatherRowsGrad { rows: 5, add: 1, ..p }, &dy, &order, &segments, &mut dw);
        assert_close(&dw, &twice, 1e-6);
    }
}
