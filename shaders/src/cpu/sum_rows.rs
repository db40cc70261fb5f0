use super::sizes;
use crate::params;

/// The sum of every `per` rows of x, or `y +=`; the last sum may have fewer rows.
///
/// Shapes: x `[rows, columns]` at x_offset and x_stride, y `[rows / per, columns]` at y_offset.
pub fn sum_rows(p: &params::SumRows, x: &[f32], y: &mut [f32]) {
    let [rows, columns, per] = sizes([p.rows, p.columns, p.per]);
    let [x_offset, x_stride, y_offset] = sizes([p.x_offset, p.x_stride, p.y_offset]);
    for begin in (0..rows).step_by(per) {
        let end = rows.min(begin + per);
        for c in 0..columns {
            let sum: f64 = (begin..end).map(|r| f64::from(x[x_offset + r * x_stride + c])).sum();
            let y = &mut y[y_offset + begin / per * columns + c];
            *y = (sum + if p.add != 0 { f64::from(*y) } else { 0.0 }) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_sum_may_have_fewer_rows() {
        let x = [7.0, 1.0, 10.0, 7.0, 2.0, 20.0, 7.0, 4.0, 40.0];
        let p = params::SumRows { rows: 3, columns: 2, x_offset: 1, x_stride: 3, per: 2, y_offset: 1, add: 0 };
        let mut y = [0.5; 5];
        sum_rows(&p, &x, &mut y);
        assert_eq!(y, [0.5, 3.0, 30.0, 4.0, 40.0]);
        sum_rows(&params::SumRows { add: 1, per: 3, ..p }, &x, &mut y);
        assert_eq!(y, [0.5, 10.0, 100.0, 4.0, 40.0]);
    }
}
