//! Linear least squares on the host, in f64.

/// Ridge added to the diagonal, relative to its mean. Without it, dependent inputs have no unique solution.
const RIDGE: f64 = 1e-6;

/// Weight `[m, d]` and bias `[m]` for which `x W' + b` is closest to `y`, for rows of `x` `[n, d]` and `y` `[n, m]`.
/// Solves the normal equations of the centered rows by Cholesky decomposition. Without rows, all values are 0.
pub(crate) fn least_squares(x: &[f32], d: usize, y: &[f32], m: usize) -> (Vec<f32>, Vec<f32>) {
    let rows = (x.len() / d).max(1) as f64;
    let mean = |values: &[f32], width: usize| {
        let mut sums = vec![0.0; width];
        for row in values.chunks_exact(width) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value) / rows;
            }
        }
        sums
    };
    let (mean_x, mean_y) = (mean(x, d), mean(y, m));
    // Lower half of X'X, and Y'X row by row.
    let (mut square, mut solution) = (vec![0.0; d * d], vec![0.0; m * d]);
    let (mut a, mut b) = (vec![0.0; d], vec![0.0; m]);
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact(m)) {
        center(&mut a, x, &mean_x);
        center(&mut b, y, &mean_y);
        for (i, row) in square.chunks_exact_mut(d).enumerate() {
            add(&mut row[..=i], a[i], &a);
        }
        for (&b, row) in b.iter().zip(solution.chunks_exact_mut(d)) {
            add(row, b, &a);
        }
    }
    let ridge = RIDGE * (0..d).map(|i| square[i * d + i]).sum::<f64>() / d as f64;
    for i in 0..d {
        square[i * d + i] += ridge;
    }
    decompose(&mut square, d);
    let mut bias = mean_y;
    for (row, bias) in solution.chunks_exact_mut(d).zip(&mut bias) {
        solve(&square, row);
        *bias -= dot(row, &mean_x);
    }
    let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    (narrow(solution), narrow(bias))
}

fn center(into: &mut [f64], values: &[f32], mean: &[f64]) {
    for ((into, &value), mean) in into.iter_mut().zip(values).zip(mean) {
        *into = f64::from(value) - mean;
    }
}

fn add(to: &mut [f64], factor: f64, values: &[f64]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += factor * value;
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Replaces the lower half of `a` `[d, d]` by L with L L' = a. Zero pivots divide nothing.
fn decompose(a: &mut [f64], d: usize) {
    for i in 0..d {
        let (above, row) = a.split_at_mut(i * d);
        for j in 0..i {
            let other = &above[j * d..];
            row[j] = ratio(row[j] - dot(&row[..j], other), other[j]);
        }
        row[i] = (row[i] - dot(&row[..i], &row[..i])).max(0.0).sqrt();
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// Replaces `v` by the solution s of L L' s = v.
fn solve(l: &[f64], v: &mut [f64]) {
    let d = v.len();
    for i in 0..d {
        v[i] = ratio(v[i] - dot(&v[..i], &l[i * d..]), l[i * d + i]);
    }
    for i in (0..d).rev() {
        v[i] = ratio(v[i], l[i * d + i]);
        let known = v[i];
        for (j, v) in v[..i].iter_mut().enumerate() {
            *v -= known * l[i * d + j];
        }
    }
}

#[cfg(test)]
mod tests {
    use bolmo_runtime::unstable::Stream;

    use super::*;

    fn normal_values(name: &str, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        Stream::new(7, name).fill_bell(0, 1.0, &mut values);
        values
    }

    /// Residuals of a least-squares solution are orthogonal to every input and sum to 0.
    #[test]
    fn residuals_are_orthogonal_to_the_inputs() {
        let (n, d, m) = (200, 6, 3);
        let (mut x, y) = (normal_values("x", n * d), normal_values("y", n * m));
        // Two dependent inputs, and one that is constant.
        for row in x.chunks_exact_mut(d) {
            row[1] = 2.0 * row[0] + 1.0;
            row[3] = 5.0;
        }
        let (weight, bias) = least_squares(&x, d, &y, m);
        for (output, (weight, bias)) in weight.chunks_exact(d).zip(&bias).enumerate() {
            let (mut sum, mut with) = (0.0, vec![0.0; d]);
            for (x, y) in x.chunks_exact(d).zip(y.chunks_exact(m)) {
                let made: f64 = weight.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                let residual = f64::from(y[output]) - made - f64::from(*bias);
                sum += residual;
                for (with, &x) in with.iter_mut().zip(x) {
                    *with += residual * f64::from(x);
                }
            }
            assert!(sum.abs() < 1e-3 && with.iter().all(|w| w.abs() < 1e-2), "{output}: {sum}, {with:?}");
        }
    }

    #[test]
    fn a_linear_map_is_recovered() {
        let (n, d, m) = (50, 4, 2);
        let (x, wanted) = (normal_values("x", n * d), normal_values("weight", m * d));
        let of = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>() + 0.5;
        let y: Vec<f32> =
            x.chunks_exact(d).flat_map(|x| wanted.chunks_exact(d).map(move |w| of(x, w)).collect::<Vec<_>>()).collect();
        let (weight, bias) = least_squares(&x, d, &y, m);
        assert!(weight.iter().zip(&wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-4), "{weight:?}");
        assert!(bias.iter().all(|b| (b - 0.5).abs() < 1e-4), "{bias:?}");
        let (weight, bias) = least_squares(&[], d, &[], m);
        assert!(weight.iter().chain(&bias).all(|&value| value == 0.0));
    }
}
