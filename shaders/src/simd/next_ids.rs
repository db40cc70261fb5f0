use std::ops::Range;

use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::size;
use super::scratch::with_scratch;
use super::softmax::{BLOCK, Exp, max_if_finite};
use super::vector::Vector;
use crate::params;

/// The node of a row without a place.
const NOWHERE: u32 = u32::MAX;
/// Rows of a task: few, because a row at the root has all subwords, and some, because most rows have hardly any.
const TASK_ROWS: usize = 8;
/// Multiply-adds that take as long as one subword.
const COST: usize = 30;

/// The probabilities of the next ids from the logits of a subword model; see the
/// [CPU reference](crate::cpu::next_ids).
pub(super) fn next_ids(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::NextIds = call.params()?;
    let [rows, n, vocabulary, count] = [p.rows, p.n, p.vocabulary, p.count].map(size);
    let logits = call.read(0, product([count, vocabulary]))?;
    let whole = |i: usize| call.read_u32(i, call.bindings[i].words());
    let (order, starts, children) = (whole(1)?, whole(2)?, whole(3)?);
    let trie = Trie { order, starts, children: bytemuck::cast_slice(&children[..children.len() / 4 * 4]) };
    let place = call.read_u32(4, product([rows, 2]))?;
    let out = call.write(5, product([rows, n]))?;
    // The row of logits and the node of a row that has both.
    let place_of = |row: usize| {
        let (from, node) = (place[2 * row].checked_sub(p.first).map(size), place[2 * row + 1]);
        let from = from.filter(|&from| from < count && node != NOWHERE && !call.halted(row));
        from.map(|from| (from, size(node)))
    };

    // The trie is data: what is read of it is checked before anything is written.
    let (mut subwords, mut begin, mut end) = (0usize, usize::MAX, 0);
    for (_, node) in (0..rows).filter_map(place_of) {
        let range = trie.subwords(node, n).ok_or_else(|| Fault::new("next_ids: a node is out of range"))?;
        subwords = subwords.saturating_add(range.len());
        (begin, end) = (begin.min(range.start), end.max(range.end));
    }
    if order.get(begin..end).unwrap_or_default().iter().any(|&subword| size(subword) >= vocabulary) {
        return Err(Fault::new("next_ids: a subword is out of range"));
    }

    call.each(rows.div_ceil(TASK_ROWS), product([subwords, COST]), |task| {
        let own = task * TASK_ROWS..((task + 1) * TASK_ROWS).min(rows);
        for (row, (from, node)) in own.filter_map(|row| Some((row, place_of(row)?))) {
            let Some(range) = trie.subwords(node, n) else { continue };
            let logits = &logits[from * vocabulary..][..vocabulary];
            // SAFETY: every row belongs to one task.
            let out = unsafe { out.slice(row * n..(row + 1) * n) };
            with_scratch(range.len(), |shares| {
                shares.iter_mut().zip(&order[range]).for_each(|(to, &subword)| *to = logits[size(subword)]);
                call.instructions.run(Row { shares, children: trie.children(node).unwrap_or_default(), out });
            });
        }
    });
    Ok(())
}

struct Trie<'a> {
    /// `[subwords]`
    order: &'a [u32],
    /// `[nodes + 1]`
    starts: &'a [u32],
    /// `[children, 4]`: id, first and count in `order`, 0.
    children: &'a [[u32; 4]],
}

impl<'a> Trie<'a> {
    /// The children of a node, if it exists.
    fn children(&self, node: usize) -> Option<&'a [[u32; 4]]> {
        let [begin, end] = self.starts.get(node..)?.first_chunk::<2>()?.map(size);
        self.children.get(begin..end)
    }

    /// The range of a node's subwords in `order`, of which each child has a part, one after another; none if that isn't
    /// so, or if ids aren't below `n`.
    fn subwords(&self, node: usize, n: usize) -> Option<Range<usize>> {
        let children = self.children(node)?;
        let begin = children.first().map_or(0, |child| size(child[1]));
        let mut end = begin;
        for &[id, first, count, _] in children {
            if size(id) >= n || size(first) != end {
                return None;
            }
            end = end.saturating_add(size(count));
        }
        (end <= self.order.len()).then_some(begin..end)
    }
}

/// One row.
struct Row<'a> {
    /// Logits of the node's subwords, child after child, overwritten by their shares.
    shares: &'a mut [f32],
    children: &'a [[u32; 4]],
    /// `[n]`
    out: &'a mut [f32],
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { shares, children, out } = self;
        match max_if_finite::<V>(shares) {
            Some((max, _)) => {
                let exp = Exp::<V>::new();
                for shares in shares.chunks_mut(V::LANES) {
                    // SAFETY: the slice has that many values.
                    unsafe {
                        let logits = V::load_first(shares.as_ptr(), shares.len());
                        exp.of(logits.sub(V::splat(max))).store_first(shares.as_mut_ptr(), shares.len());
                    }
                }
            }
            // Vectors turn NaN into some other exponential.
            None => exp_any(shares),
        }
        let total = sum::<V>(shares);
        let mut rest = &*shares;
        for child in children {
            let (part, others) = rest.split_at(size(child[2]));
            out[size(child[0])] = (sum::<V>(part) / total) as f32;
            rest = others;
        }
    }
}

/// Replaces logits that may be infinite or NaN by `exp(logit - max)`.
fn exp_any(logits: &mut [f32]) {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &logit| max.max(logit));
    logits.iter_mut().for_each(|logit| *logit = (f64::from(*logit) - f64::from(max)).exp() as f32);
}

#[inline(always)]
fn sum<V: Vector>(values: &[f32]) -> f64 {
    let mut sum = 0.0;
    for block in values.chunks(BLOCK) {
        let mut part = V::splat(0.0);
        let vectors = block.chunks_exact(V::LANES);
        // Most children have fewer values than a vector.
        for &value in vectors.remainder() {
            sum += f64::from(value);
        }
        for values in vectors {
            // SAFETY: the slice has that many values.
            part = part.add(unsafe { V::load(values.as_ptr()) });
        }
        sum += f64::from(part.sum());
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Run, cases, words};

    struct Case {
        p: params::NextIds,
        logits: Vec<f32>,
        order: Vec<u32>,
        starts: Vec<u32>,
        children: Vec<u32>,
        place: Vec<u32>,
    }

    impl Case {
        /// Nodes whose children have up to `largest` subwords.
        fn new(rows: u32, n: u32, vocabulary: u32, largest: u32, width: f32) -> Self {
            let p = params::NextIds { rows, n, vocabulary, first: 3, count: 2 };
            let logits = noise(1, 2 * vocabulary as usize, width);
            // A permutation, and a node that has all of it.
            let step = (1..vocabulary).rev().find(|step| vocabulary % 2 == 1 && step % 2 == 0).unwrap_or(1);
            let order = (0..vocabulary).map(|i| (i * (step / 2).max(1) + 5) % vocabulary).collect();
            let (mut starts, mut children) = (vec![0], vec![]);
            for node in 0..4 {
                let mut at = node * vocabulary / 5;
                for child in 0..n / (node + 1) {
                    let rest = vocabulary - at;
                    let last = child + 1 == n / (node + 1);
                    let count = if last { rest } else { rest.min(1 + (child * 7 + node) % largest) };
                    if count > 0 {
                        children.extend([child * (node + 1), at, count, 0]);
                        at += count;
                    }
                }
                starts.push(children.len() as u32 / 4);
            }
            let place = |row: u32| match row % 7 {
                5 => [3, NOWHERE],
                6 => [[2, 5, 0, u32::MAX][row as usize / 7 % 4], 1],
                kind => [3 + row % 2, kind % 4],
            };
            Self { p, logits, order, starts, children, place: (0..rows).flat_map(place).collect() }
        }

        fn run(&self) -> Run {
            let Self { p, logits, order, starts, children, place } = self;
            let out = vec![-1f32; (p.rows * p.n) as usize];
            let more = [order, starts, children, place].map(Vec::clone);
            let bindings = [vec![words(logits)], more.to_vec(), vec![words(&out)]].concat();
            Run::new(KernelId::NextIds, p, bindings, [p.rows, 1, 1])
        }

        fn expected(&self) -> Vec<f32> {
            let Self { p, logits, order, starts, children, place } = self;
            let mut out = vec![-1.0; (p.rows * p.n) as usize];
            cpu::next_ids(p, logits, order, starts, children, place, &mut out);
            out
        }

        fn fails(&self, change: impl Fn(&mut Self)) -> bool {
            let Self { p, logits, order, starts, children, place } = self;
            let [order, starts, children, place] = [order, starts, children, place].map(Vec::clone);
            let mut case = Self { p: *p, logits: logits.clone(), order, starts, children, place };
            change(&mut case);
            case.run().fault().is_some()
        }
    }

    #[test]
    fn matches_the_reference() {
        for (rows, n, vocabulary, largest, width) in cases([
            (3, 4, 9, 3, 4.0),
            (7, 1, 1, 1, 1.0),
            (40, 9, 65, 20, 1e-3),
            (30, 65, 300, 40, 30.0),
            (9, 520, 3001, 9, 8.0),
            (8, 100, 20_000, 1500, 12.0),
            (5, 17, 200, 40, 1e3),
            (5, 17, 200, 40, 1e30),
        ]) {
            let case = Case::new(rows, n, vocabulary, largest, width);
            let expected = case.expected();
            case.run().all(|found| {
                for (i, (&found, &expected)) in found.f32(5).iter().zip(&expected).enumerate() {
                    // Differences down to -87 are rounded before their exponentials.
                    let tolerance = if width > 20.0 { 1e-5 } else { 3e-6 } * expected.abs() + 1e-35;
                    assert!((found - expected).abs() <= tolerance, "{i}: {found} {expected}, {:?}", case.p);
                }
            });
        }
    }

    #[test]
    fn halted_rows_are_skipped() {
        let case = Case::new(4, 9, 30, 5, 4.0);
        let mut run = case.run();
        let mut guard = vec![0; 129];
        guard[64] = 1;
        run.guard = Some(guard);
        // Nor is their place looked at.
        run.bindings[4][3] = 77;
        let expected = case.expected();
        run.all(|found| {
            for (i, (&found, &expected)) in found.f32(5).iter().zip(&expected).enumerate() {
                let expected = if i / 9 == 1 { -1.0 } else { expected };
                assert!((found - expected).abs() < 1e-5);
            }
        });
    }

    #[test]
    fn infinity_and_nan_are_not_hidden() {
        for faulty in cases([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
            let mut case = Case::new(4, 9, 30, 5, 4.0);
            case.logits[17] = faulty;
            let expected = case.expected();
            case.run().all(|found| {
                for (&found, &expected) in found.f32(5).iter().zip(&expected) {
                    assert!((found - expected).abs() < 1e-5 || (found.is_nan() && expected.is_nan()));
                }
                assert_eq!(found.f32(5)[0].is_nan(), faulty != f32::NEG_INFINITY);
            });
        }
    }

    #[test]
    fn indices_out_of_range_are_faults() {
        let case = Case::new(12, 9, 30, 5, 4.0);
        assert!(!case.fails(|_| {}));
        // Nodes and subwords that no row has don't matter.
        assert!(!case.fails(|case| (case.place, case.order) = ([9, 9].repeat(12), vec![99; 30])));
        assert!(!case.fails(|case| case.place = [4, NOWHERE].repeat(12)));
        let changes: &[&dyn Fn(&mut Case)] = &[
            &|case| case.place[1] = 4,
            &|case| case.place[1] = NOWHERE - 1,
            &|case| case.order[29] = 30,
            &|case| case.order[29] = u32::MAX,
            &|case| case.starts[1] = u32::MAX,
            &|case| case.starts[1] = 0,
            &|case| case.starts.truncate(4),
            &|case| case.starts.clear(),
            &|case| case.children[0] = 9,
            &|case| case.children[4] = u32::MAX,
            &|case| case.children[1] = 31,
            &|case| case.children[6] = u32::MAX,
            &|case| case.children[6] += 1,
            &|case| case.children.truncate(8),
            &|case| case.order.truncate(29),
        ];
        for (i, change) in changes.iter().enumerate() {
            // A node without children has nothing to check.
            let fits = i == 5 && !case.fails(|case| case.starts[1] = 0);
            assert!(fits || case.fails(change), "change {i}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let case = Case::new(3, 9, 30, 5, 4.0);
        for binding in cases([0, 4, 5]) {
            let mut run = case.run();
            run.bindings[binding].pop();
            assert!(run.fault().is_some());
        }
        for size in [0, u32::MAX] {
            for p in [
                params::NextIds { rows: size, ..case.p },
                params::NextIds { n: size, ..case.p },
                params::NextIds { vocabulary: size, ..case.p },
                params::NextIds { count: size, ..case.p },
                params::NextIds { rows: size, n: size, vocabulary: size, count: size, first: size },
                params::NextIds { rows: u32::MAX, n: 0, vocabulary: 0, ..case.p },
            ] {
                let run = Run { params: bytemuck::bytes_of(&p).to_vec(), ..case.run() };
                // Without rows, of the output or of logits, there is nothing to do.
                assert_eq!(run.fault().is_some(), p.rows != 0 && p.count != 0, "{p:?}");
            }
        }
    }
}
