use super::sizes;
use crate::params;

/// The node of a row without a place.
const NOWHERE: u32 = u32::MAX;

/// The probabilities of the next ids, given the bytes of an unfinished subword, from the logits of a subword model.
///
/// Shapes: logits `[count, vocabulary]`, order `[subwords]`, starts `[nodes + 1]`, children `[children, 4]`,
/// place `[rows, 2]`, out `[rows, n]`.
pub fn next_ids(
    p: &params::NextIds,
    logits: &[f32],
    order: &[u32],
    starts: &[u32],
    children: &[u32],
    place: &[u32],
    out: &mut [f32],
) {
    let [rows, n, vocabulary] = sizes([p.rows, p.n, p.vocabulary]);
    for row in 0..rows {
        let (from, node) = (place[2 * row], place[2 * row + 1]);
        if node == NOWHERE || !(p.first..p.first + p.count).contains(&from) {
            continue;
        }
        let logits = &logits[(from - p.first) as usize * vocabulary..][..vocabulary];
        let [first, last] = sizes([starts[node as usize], starts[node as usize + 1]]);
        let children: Vec<[usize; 3]> =
            children[4 * first..4 * last].chunks_exact(4).map(|c| sizes([c[0], c[1], c[2]])).collect();
        let of = |[_, begin, count]: &[usize; 3]| {
            order[*begin..begin + count].iter().map(|&subword| f64::from(logits[subword as usize])).collect::<Vec<_>>()
        };
        let most = children.iter().flat_map(of).fold(f64::NEG_INFINITY, f64::max);
        let part = |child: &[usize; 3]| of(child).iter().map(|l| (l - most).exp()).sum::<f64>();
        let sum: f64 = children.iter().map(part).sum();
        for child in &children {
            out[row * n + child[0]] = (part(child) / sum) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn subwords_with_a_common_prefix_are_summed() {
        // Probabilities of a, ab, abc, b: 1/10, 2/10, 3/10, 4/10. Plain ids: a 0, b 1, c 2; fused ids add 3.
        let logits = [1f32, 4.0, 2.0, 3.0].map(f32::ln);
        let order = [0, 2, 3, 1];
        let children = [
            [3, 0, 1, 0],
            [0, 1, 2, 0],
            [4, 3, 1, 0], // Of the root: the subword a, continuations of a, the subword b.
            [4, 1, 1, 0],
            [1, 2, 1, 0], // Of a.
            [5, 2, 1, 0], // Of ab.
        ];
        let starts = [0, 3, 5, 6];
        let place = [7, 0, 7, 1, 7, 2, 7, u32::MAX, 8, 0];
        let p = params::NextIds { rows: 5, n: 6, vocabulary: 4, first: 7, count: 1 };
        let mut out = [0.0; 30];
        next_ids(&p, &logits, &order, &starts, children.as_flattened(), &place, &mut out);
        assert_close(&out[..6], &[0.5, 0.0, 0.0, 0.1, 0.4, 0.0], 1e-6);
        assert_close(&out[6..12], &[0.0, 0.6, 0.0, 0.0, 0.4, 0.0], 1e-6);
        assert_close(&out[12..18], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 1e-6);
        assert_eq!(out[18..], [0.0; 12]);
    }
}
