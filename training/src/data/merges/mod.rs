//! Order in which adjacent patches of a row are merged, and how far.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, HashMap};

use bolmo_runtime::{Error, Result};

/// Merges stop when this share of the subwords is left.
const SMALLEST_SHARE: f64 = 0.01;
/// Stands for a missing neighbor or pair.
const NONE: usize = usize::MAX;

/// Order of merges that starts with the most frequent pair of neighbors. Each merge is the index of its left part among
/// the patches that are left at that point.
///
/// All occurrences of a pair are merged from left to right. A merged patch equals no other patch, so once no pair of
/// subwords repeats, any two neighbors may be next. `choose(n)` selects one of `n` candidates, which are in the order
/// of their first occurrence.
pub fn bpe_merges(ids: &[u32], mut choose: impl FnMut(usize) -> usize) -> Vec<u32> {
    let mut patches = PatchList::new(ids.len());
    let mut pairs = Pairs::new(ids);
    let mut merges = Vec::with_capacity(ids.len());
    while patches.may_merge() {
        let Some(pair) = pairs.most_frequent(&mut choose) else {
            while patches.may_merge() {
                let candidates = patches.left - 1;
                merges.push(choose(candidates).min(candidates - 1) as u32);
                patches.left -= 1;
            }
            break;
        };
        for at in pairs.occurrences(pair) {
            // The left one of two overlapping occurrences has already taken this part.
            if pairs.at[at] == pair {
                let right = patches.next[at];
                for gone in [patches.previous[at], at, right] {
                    pairs.remove(gone);
                }
                merges.push(patches.merge(at));
            }
        }
    }
    merges
}

/// Order of merges that starts with the neighbors of the lowest total entropy, in the form of [`bpe_merges`].
///
/// `entropies` holds a small language model's entropy or cross-entropy of each subword of a row, `[patches]`. A merged
/// patch has the sum of its parts. The last subword has no bytes in the row and is not merged.
///
/// # Errors
/// Entropies that are not finite.
pub fn entropy_merges(entropies: &[f32], mut choose: impl FnMut(usize) -> usize) -> Result<Vec<u32>> {
    if let Some((place, found)) = entropies.iter().enumerate().find(|(_, entropy)| !entropy.is_finite()) {
        return Err(Error::invalid(format!(
            "expected a finite entropy for each subword, found {found} for number {place}"
        )));
    }
    let entropies = &entropies[..entropies.len().saturating_sub(1)];
    // The sums of all pairs of neighbors with the index of the left one, lowest first.
    let mut queue = BTreeSet::new();
    let mut entropy: Vec<f64> = entropies.iter().map(|&entropy| entropy.into()).collect();
    let mut patches = PatchList::new(entropy.len());
    queue.extend(entropy.windows(2).zip(0..).map(|(pair, at)| (Sum::of(pair[0], pair[1]), at)));
    let mut merges = Vec::with_capacity(entropy.len());
    while patches.may_merge() {
        let Some(&(lowest, _)) = queue.first() else { break };
        let tied = || queue.iter().take_while(|(sum, _)| *sum == lowest);
        let candidates = tied().count();
        let Some(&(_, at)) = tied().nth(choose(candidates).min(candidates - 1)) else { break };

        let (before, right) = (patches.previous[at], patches.next[at]);
        let after = patches.next[right];
        queue.remove(&(lowest, at));
        if before != NONE {
            queue.remove(&(Sum::of(entropy[before], entropy[at]), before));
        }
        if after != NONE {
            queue.remove(&(Sum::of(entropy[right], entropy[after]), right));
        }
        entropy[at] += entropy[right];
        merges.push(patches.merge(at));
        if before != NONE {
            queue.insert((Sum::of(entropy[before], entropy[at]), before));
        }
        if after != NONE {
            queue.insert((Sum::of(entropy[at], entropy[after]), at));
        }
    }
    Ok(merges)
}

/// Merges patches until there are at least `ratio` bytes per patch.
///
/// `lens` holds the lengths of the patches that have bytes, with that of `<bos>` first. `merges` are indices among the
/// patches after `<bos>`; a merge past the last patch is skipped. `bytes` is the number of bytes to predict, which the
/// ratio counts.
pub fn merge_patches(lens: &[u32], merges: &[u32], bytes: usize, ratio: f64) -> Vec<u32> {
    let mut lens = lens.to_vec();
    for &merge in merges {
        if reaches(bytes, lens.len(), ratio) {
            break;
        }
        let right = merge as usize + 2;
        if right < lens.len() {
            lens[right - 1] += lens.remove(right);
        }
    }
    lens
}

/// Replaces patch ends of the tokenizer by ends before whitespace, both at random, until there are at least `ratio`
/// bytes per patch.
///
/// `lens` and `space_lens` hold the lengths of a row's patches by the tokenizer and by whitespace, with that of `<bos>`
/// first. Common ends are kept. Each step removes an end that only the tokenizer has, and adds ends before whitespace
/// at a rate at which both kinds run out together. A row with more ends before whitespace than of the tokenizer stays
/// as it is.
pub fn space_patches(
    lens: &[u32],
    space_lens: &[u32],
    bytes: usize,
    ratio: f64,
    mut choose: impl FnMut(usize) -> usize,
) -> Vec<u32> {
    let all: u32 = lens.iter().sum();
    let subword = ends(lens);
    // The last end is the tokenizer's, so that every byte is in a patch.
    let space: BTreeSet<u32> =
        ends(space_lens).into_iter().filter(|&end| end <= all).chain((all > 0).then_some(all)).collect();
    let mut removable: Vec<u32> = subword.difference(&space).copied().collect();
    let mut addable: Vec<u32> = space.difference(&subword).copied().collect();
    let (steps, additions) = (removable.len(), addable.len());
    let mut now = subword;
    if additions < steps {
        let mut added = 0;
        for step in 1..=steps {
            if reaches(bytes, now.len(), ratio) {
                break;
            }
            now.remove(&take(&mut removable, &mut choose));
            while added < step * additions / steps {
                now.insert(take(&mut addable, &mut choose));
                added += 1;
            }
        }
    }
    let mut start = 0;
    now.into_iter().map(|end| end - std::mem::replace(&mut start, end)).collect()
}

/// Ends of patches of these lengths.
fn ends(lens: &[u32]) -> BTreeSet<u32> {
    let mut end = 0;
    let ends = lens.iter().filter(|&&len| len > 0);
    ends.map(|len| {
        end += len;
        end
    })
    .collect()
}

/// Removes a random element of `from`, which is not empty.
fn take(from: &mut Vec<u32>, choose: &mut impl FnMut(usize) -> usize) -> u32 {
    let candidates = from.len();
    from.swap_remove(choose(candidates).min(candidates - 1))
}

/// Whether there are at least `ratio` bytes per patch. The reference divides and compares in f32.
fn reaches(bytes: usize, patches: usize, ratio: f64) -> bool {
    bytes as f32 / patches as f32 >= ratio as f32
}

/// The patches of a row as a linked list, each identified by the index of its first subword.
struct PatchList {
    previous: Vec<usize>,
    next: Vec<usize>,
    first: usize,
    left: usize,
    /// Fenwick tree that counts the remaining patches.
    sums: Vec<u32>,
}

impl PatchList {
    fn new(count: usize) -> Self {
        Self {
            previous: (0..count).map(|i| if i == 0 { NONE } else { i - 1 }).collect(),
            next: (0..count).map(|i| if i + 1 == count { NONE } else { i + 1 }).collect(),
            first: count,
            left: count,
            sums: (1..=count as u32).map(|i| i & i.wrapping_neg()).collect(),
        }
    }

    /// Whether there are two patches left, and more than the smallest share of the original ones.
    fn may_merge(&self) -> bool {
        self.left > 1 && self.left as f64 / self.first as f64 > SMALLEST_SHARE
    }

    /// Merges the patch at `at` with the next one, which must exist, and returns the number of patches before it.
    fn merge(&mut self, at: usize) -> u32 {
        let gone = self.next[at];
        let after = self.next[gone];
        self.next[at] = after;
        if after != NONE {
            self.previous[after] = at;
        }
        self.left -= 1;
        let mut i = gone + 1;
        while i <= self.sums.len() {
            self.sums[i - 1] -= 1;
            i += i & i.wrapping_neg();
        }
        let (mut i, mut before) = (at, 0);
        while i > 0 {
            before += self.sums[i - 1];
            i &= i - 1;
        }
        before
    }
}

/// Pairs of adjacent subwords that are not yet part of a merged patch.
struct Pairs {
    /// The pair whose left part is at each index, or `NONE`.
    at: Vec<usize>,
    pairs: Vec<Pair>,
    /// Pairs that repeat, by number of occurrences and first index.
    ranking: BTreeSet<(Reverse<u32>, usize, usize)>,
}

struct Pair {
    /// Indices of its original occurrences.
    places: Vec<usize>,
    /// Number of leading indices where it no longer occurs.
    passed: usize,
    count: u32,
}

impl Pairs {
    fn new(ids: &[u32]) -> Self {
        let mut numbers = HashMap::new();
        let mut pairs: Vec<Pair> = Vec::new();
        let mut at: Vec<usize> = Vec::with_capacity(ids.len());
        for (place, pair) in ids.windows(2).enumerate() {
            let number = *numbers.entry((pair[0], pair[1])).or_insert(pairs.len());
            if number == pairs.len() {
                pairs.push(Pair { places: Vec::new(), passed: 0, count: 0 });
            }
            pairs[number].places.push(place);
            pairs[number].count += 1;
            at.push(number);
        }
        // The last subword has no right neighbor.
        at.resize(ids.len(), NONE);
        let mut made = Self { at, pairs, ranking: BTreeSet::new() };
        made.ranking = (0..made.pairs.len()).filter_map(|number| made.rank(number)).collect();
        made
    }

    /// Entry of a pair in the ranking, if it repeats.
    fn rank(&self, number: usize) -> Option<(Reverse<u32>, usize, usize)> {
        let pair = &self.pairs[number];
        (pair.count > 1).then(|| (Reverse(pair.count), pair.places[pair.passed], number))
    }

    /// Chooses one of the most frequent pairs, if any repeats.
    fn most_frequent(&self, choose: &mut impl FnMut(usize) -> usize) -> Option<usize> {
        let &(most, ..) = self.ranking.first()?;
        let tied = || self.ranking.iter().take_while(|(count, ..)| *count == most);
        let candidates = tied().count();
        tied().nth(choose(candidates).min(candidates - 1)).map(|&(.., number)| number)
    }

    /// Indices of a pair from left to right, some of which may be stale.
    fn occurrences(&self, number: usize) -> Vec<usize> {
        let pair = &self.pairs[number];
        pair.places[pair.passed..].to_vec()
    }

    /// Removes the pair whose left part is at `place`, if there is one.
    fn remove(&mut self, place: usize) {
        let Some(slot) = self.at.get_mut(place) else { return };
        let number = std::mem::replace(slot, NONE);
        if number == NONE {
            return;
        }
        if let Some(entry) = self.rank(number) {
            self.ranking.remove(&entry);
        }
        let pair = &mut self.pairs[number];
        pair.count -= 1;
        while pair.count > 0 && self.at[pair.places[pair.passed]] != number {
            pair.passed += 1;
        }
        self.ranking.extend(self.rank(number));
    }
}

/// A sum of entropies with a total order.
#[derive(Clone, Copy)]
struct Sum(f64);

impl Sum {
    fn of(left: f64, right: f64) -> Self {
        // Zeros of both signs are equal.
        Sum(left + right + 0.0)
    }
}

impl Ord for Sum {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Sum {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sum {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Sum {}

#[cfg(test)]
mod tests;
