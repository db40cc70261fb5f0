use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::data::random::{Purpose, below, generator};

/// Random choices from a seed.
fn dice(seed: u64) -> impl FnMut(usize) -> usize {
    let mut generator = generator(seed, Purpose::Merges, 0);
    move |n| below(&mut generator, n)
}

fn recorded(seed: u64, record: &mut Vec<usize>) -> impl FnMut(usize) -> usize {
    let mut dice = dice(seed);
    move |n| {
        record.push(n);
        dice(n)
    }
}

/// The definition, which counts all pairs in each step.
fn naive_bpe(ids: &[u32], mut choose: impl FnMut(usize) -> usize) -> Vec<u32> {
    let mut ids: Vec<u64> = ids.iter().map(|&id| id.into()).collect();
    let (first, mut merges, mut new_id) = (ids.len(), Vec::new(), u64::from(u32::MAX));
    while ids.len() > 1 && ids.len() as f64 / first as f64 > SMALLEST_SHARE {
        let mut counts: Vec<((u64, u64), usize)> = Vec::new();
        for pair in ids.windows(2).map(|pair| (pair[0], pair[1])) {
            match counts.iter_mut().find(|(known, _)| *known == pair) {
                Some((_, count)) => *count += 1,
                None => counts.push((pair, 1)),
            }
        }
        let most = counts.iter().map(|(_, count)| *count).max().unwrap();
        counts.retain(|(_, count)| *count == most);
        let (left, right) = counts[choose(counts.len())].0;
        let mut merged = Vec::new();
        let mut rest = &ids[..];
        while let [id, after @ ..] = rest {
            if *id == left && after.first() == Some(&right) {
                merges.push(merged.len() as u32);
                new_id += 1;
                merged.push(new_id);
                rest = &after[1..];
            } else {
                merged.push(*id);
                rest = after;
            }
        }
        ids = merged;
    }
    merges
}

/// The definition, which searches for the lowest sum in each step.
fn naive_entropy(entropies: &[f32], mut choose: impl FnMut(usize) -> usize) -> Vec<u32> {
    let mut patches: Vec<f64> = entropies[..entropies.len() - 1].iter().map(|&e| e.into()).collect();
    let (first, mut merges) = (patches.len(), Vec::new());
    while patches.len() > 1 && patches.len() as f64 / first as f64 > SMALLEST_SHARE {
        let sums: Vec<f64> = patches.windows(2).map(|pair| pair[0] + pair[1]).collect();
        let lowest = sums.iter().copied().fold(f64::INFINITY, f64::min);
        let tied: Vec<usize> = (0..sums.len()).filter(|&i| sums[i] == lowest).collect();
        let at = tied[choose(tied.len())];
        patches[at] += patches.remove(at + 1);
        merges.push(at as u32);
    }
    merges
}

/// Rows of repeated subwords.
fn some_ids() -> impl Strategy<Value = Vec<u32>> {
    (1u32..12).prop_flat_map(|kinds| prop::collection::vec(0..kinds, 1..150))
}

/// Lengths of a row's patches, with that of `<bos>` first.
fn some_lens() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1u32..8, 1..80).prop_map(|mut lens| {
        lens[0] = 1;
        lens
    })
}

proptest! {
    #[test]
    fn frequent_pairs_match_the_definition(ids in some_ids(), seed: u64) {
        let (mut got, mut want) = (Vec::new(), Vec::new());
        prop_assert_eq!(bpe_merges(&ids, recorded(seed, &mut got)), naive_bpe(&ids, recorded(seed, &mut want)));
        prop_assert_eq!(got, want);
    }

    #[test]
    fn low_sums_match_the_definition(
        // Few values, so that there are ties, with zeros of both signs.
        steps in prop::collection::vec(-2i8..6, 1..120), seed: u64,
    ) {
        let entropy = |&step: &_| f32::from(step) * 0.25 * if step == 0 { -1.0 } else { 1.0 };
        let entropies: Vec<f32> = steps.iter().map(entropy).collect();
        let (mut got, mut want) = (Vec::new(), Vec::new());
        let merges = entropy_merges(&entropies, recorded(seed, &mut got)).unwrap();
        prop_assert_eq!(merges, naive_entropy(&entropies, recorded(seed, &mut want)));
        prop_assert_eq!(got, want);
    }

    #[test]
    fn merges_reach_the_ratio_and_lose_no_byte(
        ids in some_ids(), lens in some_lens(), low in 1.0f64..20.0, more in 0.0f64..20.0, seed: u64, by_entropy: bool,
    ) {
        let merges = if by_entropy {
            let entropies: Vec<f32> = ids.iter().map(|&id| id as f32).collect();
            entropy_merges(&entropies, dice(seed)).unwrap()
        } else {
            bpe_merges(&ids, dice(seed))
        };
        let bytes = lens.iter().sum::<u32>() as usize - 1;
        let merged = |ratio| merge_patches(&lens, &merges, bytes, ratio);
        let (fewer, fewest) = (merged(low), merged(low + more));
        for merged in [&fewer, &fewest] {
            prop_assert_eq!(merged.iter().sum::<u32>(), lens.iter().sum::<u32>());
            prop_assert!(!merged.contains(&0));
            prop_assert_eq!(merged[0], 1);
        }
        prop_assert!(fewest.len() <= fewer.len());
        // Every end of a coarser division is an end of the finer one.
        prop_assert!(ends(&fewest).is_subset(&ends(&fewer)) && ends(&fewer).is_subset(&ends(&lens)));
        // The ratio is just reached, or all merges are done.
        let all = merged(f64::INFINITY).len();
        prop_assert!(reaches(bytes, fewer.len(), low) || fewer.len() == all);
        prop_assert!(fewer.len() == lens.len() || !reaches(bytes, fewer.len() + 1, low));
    }

    #[test]
    fn ends_before_whitespace_reach_the_ratio_and_lose_no_byte(
        lens in some_lens(), space_lens in some_lens(), low in 1.0f64..20.0, more in 0.0f64..20.0, seed: u64,
    ) {
        let bytes = lens.iter().sum::<u32>() as usize - 1;
        let patches = |ratio| space_patches(&lens, &space_lens, bytes, ratio, dice(seed));
        let (fewer, fewest) = (patches(low), patches(low + more));
        prop_assert_eq!(&fewer, &patches(low));
        for patches in [&fewer, &fewest] {
            prop_assert_eq!(patches.iter().sum::<u32>(), lens.iter().sum::<u32>());
            prop_assert!(!patches.contains(&0));
            prop_assert_eq!(patches[0], 1);
        }
        prop_assert!(fewest.len() <= fewer.len() && fewer.len() <= lens.len());
        let allowed: BTreeSet<u32> = ends(&lens).union(&ends(&space_lens)).copied().collect();
        prop_assert!(ends(&fewer).is_subset(&allowed));
        let widest = patches(f64::INFINITY);
        prop_assert!(reaches(bytes, fewer.len(), low) || fewer.len() == widest.len());
        if widest.len() < lens.len() {
            let all = lens.iter().sum();
            let space: BTreeSet<u32> = ends(&space_lens).into_iter().filter(|&end| end < all).chain([all]).collect();
            prop_assert_eq!(ends(&widest), space);
        }
    }
}

#[test]
fn the_seed_determines_the_choices() {
    let ids: Vec<u32> = (0..200).collect();
    assert_eq!(bpe_merges(&ids, dice(1)), bpe_merges(&ids, dice(1)));
    assert_ne!(bpe_merges(&ids, dice(1)), bpe_merges(&ids, dice(2)));
    let (lens, space_lens) = ([1; 100], [&[1][..], &[3; 33]].concat());
    let patches = |seed| space_patches(&lens, &space_lens, 99, 1.5, dice(seed));
    assert_ne!(patches(1), patches(2));
}

#[test]
fn rows_without_neighbors_have_no_merges() {
    for ids in [&[][..], &[5]] {
        assert!(bpe_merges(ids, |_| 0).is_empty());
    }
    for entropies in [&[][..], &[0.5], &[0.5, 0.25]] {
        assert!(entropy_merges(entropies, |_| 0).unwrap().is_empty());
    }
    assert_eq!(merge_patches(&[1], &[0, 0], 0, 8.0), [1]);
    assert_eq!(space_patches(&[1, 0], &[1, 2, 3], 0, 8.0, |_| 0), [1]);
}

#[test]
fn entropies_that_are_not_finite_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = entropy_merges(&[0.5, bad, 0.5], |_| 0).unwrap_err();
        assert!(error.message().contains("for number 1"), "{error}");
    }
}

#[test]
fn a_choice_past_the_candidates_takes_the_last_one() {
    let ids = [1, 2, 3, 1, 2, 3];
    assert_eq!(bpe_merges(&ids, |_| usize::MAX), bpe_merges(&ids, |n| n - 1));
}

#[test]
fn long_rows_take_less_than_quadratic_time() {
    // Repeated phrases and then padding, which gives many ties and overlapping pairs.
    let phrase = |i: u32| (i * i) % 509;
    let ids: Vec<u32> = (0..30_000).map(phrase).chain([7; 2_000]).collect();
    let entropies: Vec<f32> = ids.iter().map(|&id| id as f32 / 8.0 + 0.1).collect();
    let start = Instant::now();
    let all_but_the_smallest_share = |patches: usize| patches - patches / 100;
    assert_eq!(bpe_merges(&ids, dice(1)).len(), all_but_the_smallest_share(ids.len()));
    let merges = entropy_merges(&entropies, dice(1)).unwrap();
    assert_eq!(merges.len(), all_but_the_smallest_share(ids.len() - 1));
    // The definition takes minutes.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
