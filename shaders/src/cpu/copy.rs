use super::sizes;
use crate::params;

/// `y = x`.
///
/// Shapes: x and y `[count]`.
pub fn copy(p: &params::Copy, x: &[f32], y: &mut [f32]) {
    let [count] = sizes([4 * p.count4]);
    y[..count].copy_from_slice(&x[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_past_count_are_unchanged() {
        let mut y = [0.0; 12];
        copy(&params::Copy { count4: 2 }, &[1.5; 12], &mut y);
        assert_eq!(y, [1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 0.0, 0.0, 0.0, 0.0]);
    }
}
