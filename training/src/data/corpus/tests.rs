use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const EOS: u32 = 9;

/// Documents of distinct ids, so that each id tells where it came from.
fn corpus(lengths: &[usize]) -> Corpus {
    let mut next = 100;
    let mut corpus = Corpus::with_eos(EOS);
    for half in lengths.chunks(lengths.len().div_ceil(2).max(1)) {
        let mut ids = Vec::new();
        for &length in half {
            ids.extend(next..next + length as u32);
            ids.push(EOS);
            next += length as u32 + 1;
        }
        corpus.add_ids(ids);
    }
    corpus
}

fn options(patches: usize, held_out: f64) -> RowOptions {
    RowOptions { patches, seed: 5, held_out }
}

/// All ids of the rows, without the ends of documents.
fn ids(rows: &Dataset) -> BTreeSet<u32> {
    let all = (0..rows.len()).flat_map(|i| rows.get(i).unwrap());
    all.filter(|&id| id != EOS).collect()
}

proptest! {
    #[test]
    fn what_is_held_out_shares_no_document(
        lengths in prop::collection::vec(1usize..40, 2..60),
        held_out in 0.05f64..0.9,
    ) {
        let whole = corpus(&lengths).len();
        let split = corpus(&lengths).rows(&options(1, held_out)).unwrap();
        let (train, held) = (ids(&split.train), ids(split.held_out.as_ref().unwrap()));
        prop_assert!(train.is_disjoint(&held));
        let mut next = 100;
        for &length in &lengths {
            let document: BTreeSet<u32> = (next..next + length as u32).collect();
            prop_assert!(document.is_subset(&train) || document.is_subset(&held));
            next += length as u32 + 1;
        }
        // At most the share, unless that is less than the smallest document.
        let smallest = *lengths.iter().min().unwrap() as u64 + 1;
        let wanted = (whole as f64 * held_out).round() as u64;
        prop_assert!(split.held_out.unwrap().len() <= wanted.max(smallest));
    }
}

#[test]
fn a_large_share_of_even_documents_is_met_and_the_seed_decides_which() {
    let held = |seed| {
        let split = corpus(&[9; 200]).rows(&RowOptions { patches: 1, seed, held_out: 0.1 }).unwrap();
        let held = split.held_out.unwrap();
        assert_eq!((held.len(), split.train.len()), (200, 1800));
        ids(&held)
    };
    assert_eq!(held(1), held(1));
    assert_ne!(held(1), held(2));
    assert!(corpus(&[9; 200]).rows(&options(1, 0.0)).unwrap().held_out.is_none());
}

#[test]
fn too_little_is_refused_with_a_remedy() {
    let refused = |corpus: Corpus, options| {
        let error = corpus.rows(&options).err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    };
    assert!(refused(Corpus::with_eos(EOS), options(4, 0.0)).contains("at least 4 ids, which make a row, found 0"));
    assert!(refused(corpus(&[2]), options(4, 0.0)).contains("at least 4 ids, which make a row, found 3"));
    assert!(refused(corpus(&[20]), options(4, 0.1)).contains("found 1: add documents"));
    assert!(refused(corpus(&[20, 20]), options(4, 1.0)).contains("below 1, found 1"));
    assert!(refused(corpus(&[20, 20]), options(4, f64::NAN)).contains("NaN"));
    assert!(refused(corpus(&[20, 20]), options(0, 0.0)).contains("found 0"));
    assert!(refused(corpus(&[2, 20]), options(4, 0.1)).starts_with("the documents held out: "));
}
