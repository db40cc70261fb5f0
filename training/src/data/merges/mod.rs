//! In which order neighbouring patches of a row are merged, and how far.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, HashMap};

use bolmo_runtime::{Error, Result};

/// Merges are found until this share of the subwords would be left.
const SMALLEST_SHARE: f64 = 0.01;
/// What stands for no neighbour and no pair.
const NONE: usize = usize::MAX;

/// The order of merges by which the most frequent pair of neighbours goes first, each as the place of its left part among the patches
/// that are left by then.
///
/// All occurrences of a pair are merged, from left to right. What results is equal to no other patch, so once no pair of
/// subwords repeats any two neighbours may be next. Of `n` candidates, in the order in which they occur first, `choose(n)` says
/// which one is taken.
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
            // Where occurrences overlap, the one in front has taken the other's left part.
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

/// The order of merges by which those neighbours go first that a small language model was the least surprised by, as in [`bpe_merges`].
///
/// `entropies` has a number for each subword of a row, `[patches]`: the model's entropy or cross-entropy there. A merged patch has the
/// sum of its parts. The last subword of a row has no bytes in it and is not merged.
///
/// # Errors
/// Numbers that are infinite or none.
pub fn entropy_merges(entropies: &[f32], mut choose: impl FnMut(usize) -> usize) -> Result<Vec<u32>> {
    if let Some((place, found)) = entropies.iter().enumerate().find(|(_, entropy)| !entropy.is_finite()) {
        return Err(Error::invalid(format!(
            "expected a finite entropy for each subword, found {found} for number {place}"
        )));
    }
    let entropies = &entropies[..entropies.len().saturating_sub(1)];
    // The sums of all neighbours with the place of the left one, the lowest first.
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

/// Merges patches until there are at least `ratio` bytes a patch.
///
/// `lens` are the lengths of a row's patches, that of `<bos>` in front, as far as they have bytes. `merges` are places among the patches
/// behind `<bos>`; merges beyond the last one are passed over. `bytes` is what the ratio counts: the bytes to be predicted.
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

/// Exchanges patch ends of the tokenizer for ends in front of blanks, both drawn at random, until there are at least `ratio` bytes a patch.
///
/// `lens` and `space_lens` are the lengths of a row's patches by the tokenizer and by blanks, that of `<bos>` in front. With the
/// ends that both have kept, each step takes away one that only the tokenizer has, and puts in so many of the others that both
/// run out together. Rows that have more ends in front of blanks than of the tokenizer stay as they are.
pub fn space_patches(
    lens: &[u32],
    space_lens: &[u32],
    bytes: usize,
    ratio: f64,
    mut choose: impl FnMut(usize) -> usize,
) -> Vec<u32> {
    let all: u32 = lens.iter().sum();
    let subword = ends(lens);
    // Patches end where those of the tokenizer do, so that no byte is without one.
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

/// Where patches of these lengths end.
fn ends(lens: &[u32]) -> BTreeSet<u32> {
    let mut end = 0;
    let ends = lens.iter().filter(|&&len| len > 0);
    ends.map(|len| {
        end += len;
        end
    })
    .collect()
}

/// Takes a random one of `from`, which is not empty.
fn take(from: &mut Vec<u32>, choose: &mut impl FnMut(usize) -> usize) -> u32 {
    let candidates = from.len();
    from.swap_remove(choose(candidates).min(candidates - 1))
}

/// Whether there are at least `ratio` bytes a patch. The reference divides and compares in f32.
fn reaches(bytes: usize, patches: usize, ratio: f64) -> bool {
    bytes as f32 / patches as f32 >= ratio as f32
}

/// The patches of a row, each known by the place where its first subword was.
struct PatchList {
    previous: Vec<usize>,
    next: Vec<usize>,
    first: usize,
    left: usize,
    /// Sums over the patches that are left, each over as many places as its number's lowest bit says (a Fenwick tree).
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

    /// Whether there are two patches, and more than the smallest share of the first ones.
    fn may_merge(&self) -> bool {
        self.left > 1 && self.left as f64 / self.first as f64 > SMALLEST_SHARE
    }

    /// Joins the patch at `at` with the next one, which it must have, and says how many patches are in front of it.
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

/// The pairs of neighbouring subwords that are not yet part of a merged patch.
struct Pairs {
    /// The pair whose left part is at each place, or `NONE`.
    at: Vec<usize>,
    pairs: Vec<Pair>,
    /// The pairs that repeat: how often, and where first.
    ranking: BTreeSet<(Reverse<u32>, usize, usize)>,
}

struct Pair {
    /// Where it occurred at the beginning.
    places: Vec<usize>,
    /// How many of the first places it has no longer.
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
        // Nothing follows the last subword.
        at.resize(ids.len(), NONE);
        let mut made = Self { at, pairs, ranking: BTreeSet::new() };
        made.ranking = (0..made.pairs.len()).filter_map(|number| made.rank(number)).collect();
        made
    }

    /// The entry of a pair in the ranking, if it repeats.
    fn rank(&self, number: usize) -> Option<(Reverse<u32>, usize, usize)> {
        let pair = &self.pairs[number];
        (pair.count > 1).then(|| (Reverse(pair.count), pair.places[pair.passed], number))
    }

    /// The chosen one of the pairs that occur the most often, if any repeats.
    fn most_frequent(&self, choose: &mut impl FnMut(usize) -> usize) -> Option<usize> {
        let &(most, ..) = self.ranking.first()?;
        let tied = || self.ranking.iter().take_while(|(count, ..)| *count == most);
        let candidates = tied().count();
        tied().nth(choose(candidates).min(candidates - 1)).map(|&(.., number)| number)
    }

    /// Where a pair occurs, from left to right; some of it may be stale.
    fn occurrences(&self, number: usize) -> Vec<usize> {
        let pair = &self.pairs[number];
        pair.places[pair.passed..].to_vec()
    }

    /// Forgets the pair whose left part is at `place`, if there is one.
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

/// A sum of entropies, ordered as numbers are.
#[derive(Clone, Copy)]
struct Sum(f64);

impl Sum {
    fn of(left: f64, right: f64) -> Self {
        // Zeros are equal, whatever their sign.
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
