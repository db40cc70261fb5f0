use super::{Matrix, sizes};
use crate::params;

/// `y[y_row + t] = w[index[t] - first_row]`, or `+=` (docs/model.md, "Suffix table", "Patches and pooling",
/// "Depooling").
///
/// A table may be sliced by rows. A row in another slice gives zeros, or adds nothing.
///
/// Shapes: w `[rows, dim]`, index `[count]`, y `[y_row + count, dim]`.
pub fn gather_rows(p: &params::GatherRows, w: Matrix, index: &[u32], y: &mut [f32]) {
    let [count, dim, first_row, rows, y_row] = sizes([p.count, 4 * p.dim4, p.first_row, p.rows, p.y_row]);
    for (t, &row) in index[..count].iter().enumerate() {
        let row = row as usize;
        let here = row >= first_row && row - first_row < rows;
        for i in 0..dim {
            let v = if here { w.get((row - first_row) * dim + i) } else { 0.0 };
            let y = &mut y[(y_row + t) * dim + i];
            if p.add == 0 {
                *y = v;
            } else if here {
                *y += v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn two_slices_give_the_whole_table() {
        let table: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let half: Vec<f16> = table.iter().map(|&v| f16::from_f32(v)).collect();
        let index = [2, 0, 1, 2];
        let mut y = [-1.0; 20];
        let first = params::GatherRows { count: 4, dim4: 1, first_row: 0, rows: 1, add: 0, y_row: 1 };
        gather_rows(&first, Matrix::F32(&table[..4]), &index, &mut y);
        let second = params::GatherRows { first_row: 1, rows: 2, add: 1, ..first };
        gather_rows(&second, Matrix::F16(&half[4..]), &index, &mut y);
        assert_eq!(y[..4], [-1.0; 4]);
        for (t, row) in [2, 0, 1, 2].into_iter().enumerate() {
            assert_eq!(y[4 + 4 * t..8 + 4 * t], table[4 * row..4 * row + 4]);
        }
    }
}
