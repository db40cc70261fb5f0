//! Series of points: thinned, smoothed, and split at missing values.

use super::axis::{Axis, drawable};

/// A point that stands for one or more neighboring values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub x: f64,
    /// NaN for a gap.
    pub y: f64,
    /// Number of values.
    pub count: usize,
}

/// A running mean, which needs no sum of large values.
#[derive(Default)]
struct Mean {
    value: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        self.weight += weight;
        self.value += (value - self.value) * weight / self.weight;
    }

    fn get(&self) -> f64 {
        if self.weight > 0.0 { self.value } else { f64::NAN }
    }
}

/// Reduces values to at most `limit` points: the means of neighboring values, or the values themselves if they are few
/// enough.
///
/// Values that cannot be drawn do not contribute to a mean. A point without other values is a gap.
pub(super) fn thinned(values: &[(f64, f64)], limit: usize) -> Vec<Point> {
    let buckets = values.len().min(limit.max(1));
    let bucket = |index: usize| {
        let values = &values[index * values.len() / buckets..(index + 1) * values.len() / buckets];
        let (mut x, mut y) = (Mean::default(), Mean::default());
        for &(at, value) in values {
            x.add(at, 1.0);
            if let Some(value) = drawable(value) {
                y.add(value, 1.0);
            }
        }
        Point { x: x.get(), y: y.get(), count: values.len() }
    };
    (0..buckets).map(bucket).collect()
}

/// The running mean over about `window` values around each point.
///
/// At the beginning the window is shortened on both sides. A loss falls fast at first, and later values would hide
/// where it began.
pub(super) fn smoothed(points: &[Point], window: usize) -> Vec<Point> {
    let values: usize = points.iter().map(|point| point.count).sum();
    // All points stand for about the same number of values.
    let half = (window.min(values) * points.len()).checked_div(2 * values).unwrap_or(0);
    let smooth = |(index, point): (usize, &Point)| {
        let half = half.min(index);
        let mut mean = Mean::default();
        if point.y.is_finite() {
            for near in &points[index - half..=(index + half).min(points.len() - 1)] {
                if near.y.is_finite() {
                    mean.add(near.y, near.count as f64);
                }
            }
        }
        Point { y: mean.get(), ..*point }
    };
    points.iter().enumerate().map(smooth).collect()
}

/// The positions of the points on two axes, in segments without gaps.
pub(super) fn segments(points: &[Point], x: &Axis, y: &Axis) -> Vec<Vec<(f64, f64)>> {
    let mut segments = vec![Vec::new()];
    for point in points {
        match (x.place(point.x), y.place(point.y), segments.last_mut()) {
            (Some(x), Some(y), Some(segment)) => segment.push((x, y)),
            _ => segments.push(Vec::new()),
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::axis::Scale;

    fn wave(count: usize) -> Vec<(f64, f64)> {
        (0..count).map(|i| (i as f64, (i as f64 * 0.37).sin() + 1e-3 * i as f64)).collect()
    }

    #[test]
    fn few_values_are_kept_as_they_are() {
        let values = wave(1000);
        let points = thinned(&values, 1000);
        assert!(points.iter().zip(&values).all(|(p, v)| (p.x, p.y, p.count) == (v.0, v.1, 1)));
        assert_eq!(points.len(), values.len());
        assert!(thinned(&[], 1000).is_empty());
    }

    /// Each point lies between the extremes of its values, and the mean over all points is the mean over all values.
    #[test]
    fn thinning_keeps_means() {
        for count in [1001, 1999, 25_003] {
            let values = wave(count);
            let points = thinned(&values, 1000);
            assert_eq!(points.len(), 1000);
            let mut rest = &values[..];
            for point in &points {
                let (bucket, later) = rest.split_at(point.count);
                let low = bucket.iter().map(|v| v.1).fold(f64::INFINITY, f64::min);
                let high = bucket.iter().map(|v| v.1).fold(f64::NEG_INFINITY, f64::max);
                assert!(point.y >= low - 1e-12 && point.y <= high + 1e-12, "{point:?}");
                assert!(point.x >= bucket[0].0 && point.x <= bucket[bucket.len() - 1].0, "{point:?}");
                let mean = bucket.iter().map(|v| v.1).sum::<f64>() / bucket.len() as f64;
                assert!((point.y - mean).abs() < 1e-9, "{point:?} {mean}");
                rest = later;
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn gaps_stay_gaps() {
        let mut values = wave(3000);
        values[1].1 = f64::NAN;
        values[30..60].fill((40.0, f64::INFINITY));
        let points = thinned(&values, 1000);
        assert!((points[0].y - (values[0].1 + values[2].1) / 2.0).abs() < 1e-12);
        let gaps: Vec<usize> = (0..1000).filter(|&i| points[i].y.is_nan()).collect();
        assert_eq!(gaps, Vec::from_iter(10..20));
        let smooth = smoothed(&points, 300);
        assert!((0..1000).all(|i| smooth[i].y.is_nan() == points[i].y.is_nan()));
        let x = Axis::whole(points.iter().map(|p| p.x), 440.0);
        let y = Axis::beside(points.iter().map(|p| p.y), Scale::Linear);
        let lengths: Vec<usize> = segments(&smooth, &x, &y).iter().map(Vec::len).collect();
        assert_eq!(lengths, [10, 980]);
    }

    #[test]
    fn smoothing_removes_noise_and_keeps_the_beginning() {
        let values: Vec<_> = (0..5000).map(|i| (i as f64, if i % 2 == 0 { 1.1 } else { 0.9 })).collect();
        let points = thinned(&values, 5000);
        let smooth = smoothed(&points, 100);
        assert_eq!(smooth[0].y, points[0].y);
        assert!(smooth[50..4900].iter().all(|p| (p.y - 1.0).abs() < 0.002));
        // A window of one value changes nothing, and neither does one shorter than a point.
        assert!(smoothed(&points, 1).iter().zip(&points).all(|(a, b)| a.y == b.y));
        let thin = thinned(&values, 100);
        assert!(smoothed(&thin, 40).iter().zip(&thin).all(|(a, b)| a.y == b.y));
        assert!(smoothed(&[], 10).is_empty());
        // The window may be longer than the series.
        assert!(smoothed(&points, usize::MAX).iter().all(|p| p.y >= 0.9 && p.y <= 1.1));
    }
}
