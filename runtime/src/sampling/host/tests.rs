use super::*;
use crate::error::ErrorKind;

const A: u16 = 4 + b'a' as u16;
const FAR: f32 = -1e4;

/// Logits with these probabilities (or shares of them), and next to nothing elsewhere.
fn logits(shares: &[(u16, f64)]) -> Vec<f32> {
    let mut logits = vec![FAR; IDS];
    for &(id, share) in shares {
        logits[usize::from(id)] = share.ln() as f32;
    }
    logits
}

fn sampler(change: impl FnOnce(&mut SamplingOptions)) -> Sampler {
    let mut options = SamplingOptions { temperature: 1.0, seed: 7, ..Default::default() };
    change(&mut options);
    Sampler::new(options).unwrap()
}

fn greedy_sampler(change: impl FnOnce(&mut SamplingOptions)) -> Sampler {
    sampler(|options| {
        options.temperature = 0.0;
        change(options);
    })
}

/// How often each id is drawn, as a share.
fn shares(sampler: &mut Sampler, logits: &[f32], history: &[u16]) -> Vec<f64> {
    const DRAWS: usize = 20_000;
    let mut shares = vec![0.0; IDS];
    for _ in 0..DRAWS {
        shares[usize::from(sampler.choose(logits, history, None).unwrap())] += 1.0 / DRAWS as f64;
    }
    shares
}

fn assert_shares(sampler: &mut Sampler, logits: &[f32], history: &[u16], expected: &[(u16, f64)]) {
    let mut want = vec![0.0; IDS];
    expected.iter().for_each(|&(id, share)| want[usize::from(id)] = share);
    for (id, (found, want)) in shares(sampler, logits, history).into_iter().zip(want).enumerate() {
        // Five standard deviations of 20 000 draws at the widest; what cannot be drawn never is.
        assert!((found - want).abs() <= if want == 0.0 { 0.0 } else { 0.018 }, "id {id}: {found} for {want}");
    }
}

#[test]
fn draws_follow_the_distribution() {
    let l = logits(&[(A, 0.3), (A + 260, 0.1), (A + 1, 0.4), (1, 0.05), (261, 0.15)]);
    let same = [(A, 0.3), (A + 260, 0.1), (A + 1, 0.4), (1, 0.05), (261, 0.15)];
    assert_shares(&mut sampler(|_| ()), &l, &[], &same);
    // Only the choice between bytes is tempered: 0.4, 0.4 and 0.2 squared, then each one's own flag.
    let squared = [(A, 4.0 / 12.0), (A + 260, 4.0 / 36.0), (A + 1, 4.0 / 9.0), (1, 1.0 / 36.0), (261, 1.0 / 12.0)];
    assert_shares(&mut sampler(|o| o.temperature = 0.5), &l, &[], &squared);
    let calm = [(1, 0.25 * 0.9), (261, 0.75 * 0.9), (A + 1, 0.1)];
    let l = logits(&[(1, 0.25 * 0.9), (261, 0.75 * 0.9), (A + 1, 0.1)]);
    assert_shares(&mut sampler(|_| ()), &l, &[], &calm);
    assert_shares(&mut sampler(|o| o.temperature = 1e-30), &l, &[], &[(1, 0.25), (261, 0.75)]);
    // The boundary bias moves the flag: odds of 3 times e^ln(1/3).
    let even = [(1, 0.5), (261, 0.5)];
    assert_shares(&mut sampler(|o| (o.boundary_bias, o.top_k) = (-(3f32.ln()), 1)), &l, &[], &even);
}

#[test]
fn filters_keep_the_most_probable_bytes() {
    let l = logits(&[(A, 0.2), (A + 260, 0.2), (A + 1, 0.3), (A + 2, 0.2), (A + 3, 0.1)]);
    let two = [(A, 2.0 / 7.0), (A + 260, 2.0 / 7.0), (A + 1, 3.0 / 7.0)];
    assert_shares(&mut sampler(|o| o.top_k = 2), &l, &[], &two);
    assert_shares(&mut sampler(|o| o.top_p = 0.69), &l, &[], &two);
    assert_shares(&mut sampler(|o| o.min_p = 0.6), &l, &[], &two);
    assert_shares(&mut sampler(|o| o.top_p = 1e-9), &l, &[], &[(A, 0.5), (A + 260, 0.5)]);
    // The share that top-p keeps is one of what top-k left: 0.4 of 0.7 is less than 0.6.
    assert_shares(&mut sampler(|o| (o.top_k, o.top_p) = (2, 0.6)), &l, &[], &two);
    assert_shares(&mut sampler(|o| (o.top_k, o.top_p) = (2, 0.5)), &l, &[], &[(A, 0.5), (A + 260, 0.5)]);
    let equal = logits(&[(A + 2, 0.5), (A, 0.5), (1, 0.5)]);
    assert_shares(&mut sampler(|o| o.top_k = 2), &equal, &[], &[(1, 0.5), (A, 0.5)]);
}

#[test]
fn other_specials_are_never_chosen() {
    let mut l = vec![0.0; IDS];
    for id in [0, 2, 3, 260, 262, 263] {
        l[id] = 50.0;
    }
    assert_eq!(greedy_sampler(|_| ()).choose(&l, &[], None).unwrap(), 1);
    let found = shares(&mut sampler(|_| ()), &l, &[]);
    assert!([0, 2, 3, 260, 262, 263].iter().all(|&id| found[id] == 0.0));
}

#[test]
fn greedy_takes_the_lowest_of_the_highest_ids() {
    let choose = |shares: &[(u16, f64)]| greedy_sampler(|_| ()).choose(&logits(shares), &[], None).unwrap();
    assert_eq!(choose(&[(A, 0.3), (A + 260, 0.3), (A + 1, 0.4)]), A + 1);
    assert_eq!(choose(&[(A + 261, 0.3), (A + 260, 0.3)]), A + 260);
    assert_eq!(choose(&[(A + 260, 0.3), (A + 9, 0.3)]), A + 9);
    assert_eq!(choose(&[(1, 0.3), (A, 0.3), (261, 0.3)]), 1);
    assert_eq!(choose(&[(261, 0.3), (264, 0.3)]), 261);
}

#[test]
fn biases_move_both_twins() {
    let l = logits(&[(A, 0.5), (A + 261, 0.4), (1, 0.1), (A + 1, 0.01)]);
    let choose = |change: fn(&mut SamplingOptions)| greedy_sampler(change).choose(&l, &[], None).unwrap();
    assert_eq!(choose(|o| o.byte_bias = vec![(b'b', 0.2), (b'b', 0.2)]), A + 261);
    assert_eq!(choose(|o| o.byte_bias = vec![(b'b', 0.2)]), A);
    assert_eq!(choose(|o| o.end_bias = 3.0), 1);
    assert_eq!(choose(|o| o.boundary_bias = 0.5), A + 261);
    assert_eq!(choose(|o| (o.byte_bias, o.boundary_bias) = (vec![(b'b', 9.0)], -9.0)), A + 1);
}

#[test]
fn the_penalty_discourages_what_was_seen_lately() {
    let l = logits(&[(A, 0.3), (A + 260, 0.3), (A + 1, 0.4)]);
    // A penalty of 2 squares the probability of the byte, 0.6, and keeps its flag's.
    let penalised = [(A, 0.18 / 0.76), (A + 260, 0.18 / 0.76), (A + 1, 0.4 / 0.76)];
    assert_shares(&mut sampler(|o| o.repetition_penalty = 2.0), &l, &[A, A, 1], &penalised);
    let plain = [(A, 0.3), (A + 260, 0.3), (A + 1, 0.4)];
    let short = |o: &mut SamplingOptions| (o.repetition_penalty, o.repetition_window) = (2.0, 2);
    assert_shares(&mut sampler(short), &l, &[A, 1, 1], &plain);
    let root = 0.6f64.sqrt() / (0.6f64.sqrt() + 0.4);
    let encouraged = [(A, root / 2.0), (A + 260, root / 2.0), (A + 1, 1.0 - root)];
    assert_shares(&mut sampler(|o| o.repetition_penalty = 0.5), &l, &[A], &encouraged);
    let mut ruled_out = l.clone();
    ruled_out[usize::from(A)] = f32::NEG_INFINITY;
    ruled_out[usize::from(A + 260)] = f32::NEG_INFINITY;
    assert_shares(&mut sampler(|o| o.repetition_penalty = 0.5), &ruled_out, &[A], &[(A + 1, 1.0)]);
}

#[test]
fn only_what_is_allowed_is_chosen() {
    let l = logits(&[(A, 0.9), (A + 261, 0.1)]);
    let mut allowed = [false; CANDIDATES];
    let error = sampler(|_| ()).choose(&l, &[], Some(&allowed)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    allowed[usize::from(b'b')] = true;
    assert_eq!(greedy_sampler(|_| ()).choose(&l, &[], Some(&allowed)).unwrap(), A + 261);
    assert_eq!(sampler(|_| ()).choose(&l, &[], Some(&allowed)).unwrap(), A + 261);
    allowed = [false; CANDIDATES];
    allowed[END] = true;
    assert_eq!(greedy_sampler(|_| ()).choose(&l, &[], Some(&allowed)).unwrap(), 1);
}

#[test]
fn equal_seeds_choose_equally() {
    let l: Vec<f32> = (0..IDS).map(|id| (id % 7) as f32 / 3.0).collect();
    let run = |seed| {
        let mut sampler = sampler(|o| o.seed = seed);
        (0..50).map(|_| sampler.choose(&l, &[], None).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert_eq!(sampler(|_| ()).uniform(), sampler(|_| ()).uniform());
}

#[test]
fn faulty_logits_are_errors() {
    let mut sampler = sampler(|_| ());
    for (bad, word) in [(f32::NAN, "not a number at id 300"), (f32::INFINITY, "infinity at id 300")] {
        let mut l = vec![0.0; IDS];
        l[300] = bad;
        let error = sampler.choose(&l, &[], None).unwrap_err();
        assert!(error.kind() == ErrorKind::BadCheckpoint && error.message().contains(word), "{error}");
    }
    let none = vec![f32::NEG_INFINITY; IDS];
    assert!(sampler.choose(&none, &[], None).is_err());
    assert!(greedy_sampler(|_| ()).choose(&none, &[], None).is_err());
    assert!(sampler.choose(&none[1..], &[], None).unwrap_err().message().contains("found 519"));
}

#[test]
fn options_out_of_range_are_named() {
    let error = |change: fn(&mut SamplingOptions)| {
        let mut options = SamplingOptions::default();
        change(&mut options);
        Sampler::new(options).unwrap_err().to_string()
    };
    assert!(
        error(|o| o.temperature = -1.0).starts_with("temperature: ") && SamplingOptions::default().validate().is_ok()
    );
    assert!(error(|o| o.temperature = f32::INFINITY).ends_with("found inf"));
    assert!(error(|o| o.top_p = 0.0).starts_with("top_p: "));
    assert!(error(|o| o.top_p = f32::NAN).ends_with("found NaN"));
    assert!(error(|o| o.min_p = 1.5).starts_with("min_p: "));
    assert!(error(|o| o.repetition_penalty = 0.0).starts_with("repetition_penalty: "));
    assert!(error(|o| o.end_bias = f32::NAN).starts_with("end_bias: "));
    assert!(error(|o| o.boundary_bias = f32::INFINITY).starts_with("boundary_bias: "));
    assert!(error(|o| o.byte_bias = vec![(10, f32::NAN)]).starts_with("byte_bias of byte 0x0a: "));
}

#[test]
fn enormous_options_leave_the_logits_their_say() {
    let mut l = vec![0.0; IDS];
    l[usize::from(A + 1)] = 0.5;
    l[usize::from(A + 262)] = 0.25;
    l[usize::from(A)] = 0.125;
    let choose = |change: &dyn Fn(&mut SamplingOptions)| greedy_sampler(change).choose(&l, &[A + 1], None).unwrap();
    for bias in [30.0, MAX_BIAS, 1e8, f32::MAX] {
        assert_eq!(choose(&|o| o.boundary_bias = bias), A + 262);
        assert_eq!(choose(&|o| o.boundary_bias = -bias), A + 1);
        assert_eq!(choose(&|o| o.byte_bias = vec![(b'a', bias), (b'c', bias)]), A + 262);
        assert_eq!(
            choose(&|o| o.byte_bias = vec![(b'a', bias), (b'a', bias), (b'c', bias)]),
            if bias < MAX_BIAS { A } else { A + 262 }
        );
        assert_eq!(choose(&|o| o.byte_bias = vec![(b'b', -bias)]), A + 262);
        assert_eq!(choose(&|o| o.end_bias = bias), 1);
        assert!(force(&l, A, bias) && !force(&l, A, -bias));
    }
    for penalty in [2.0, MAX_PENALTY, 1e8, f32::MAX] {
        assert_eq!(choose(&|o| o.repetition_penalty = penalty), A + 262);
    }
    // What the device gets keeps enough digits for the logits.
    let sampler = sampler(|o| {
        o.temperature = 1e-40;
        o.byte_bias = vec![(b'a', 1e8), (b'a', 1e8), (b'b', -1e30)];
        (o.boundary_bias, o.end_bias, o.repetition_penalty) = (1e30, -1e8, 1e30);
    });
    let (bias, options) = (sampler.device_bias(), sampler.options());
    assert_eq!((bias[97], bias[98], bias[99], bias[END]), (MAX_BIAS, -MAX_BIAS, 0.0, -MAX_BIAS));
    assert_eq!((options.boundary_bias, options.repetition_penalty), (MAX_BIAS, MAX_PENALTY));
    assert_eq!(options.temperature, TEMPERATURES[0]);
    let hot = SamplingOptions { temperature: f32::MAX, ..Default::default() };
    assert_eq!(Sampler::new(hot).unwrap().options().temperature, TEMPERATURES[1]);
    assert_eq!(greedy_sampler(|_| ()).options().temperature, 0.0);
    let error = SamplingOptions { temperature: f32::MIN, ..Default::default() }.validate().unwrap_err();
    assert!(error.message().ends_with("found -3.4028235e38"), "{error}");
}

#[test]
fn force_prefers_the_plain_twin_of_equals() {
    let mut l = vec![0.0; IDS];
    assert!(!force(&l, A, 0.0));
    assert!(force(&l, A, 0.1) && force(&l, A + 260, 0.1));
    l[usize::from(A + 260)] = 1.0;
    assert!(force(&l, A, 0.0) && !force(&l, A, -1.0) && !force(&l, A + 1, 0.0));
    assert!(!force(&l, 520, 9.0) && !force(&[], A, 9.0));
}

#[test]
fn log_probabilities_are_normalised_over_all_ids() {
    let l: Vec<f32> = (0..IDS).map(|id| (id as f32 * 0.7).sin() * 30.0 + 500.0).collect();
    let all = 0..IDS as u16;
    assert!((all.clone().map(|id| joint(&l, id).exp()).sum::<f64>() - 1.0).abs() < 1e-12);
    assert!((all.take(260).map(|id| marginal(&l, id).exp()).sum::<f64>() - 1.0).abs() < 1e-12);
    assert!((marginal(&l, A).exp() - joint(&l, A).exp() - joint(&l, A + 260).exp()).abs() < 1e-12);
    assert_eq!(marginal(&l, A), marginal(&l, A + 260));
    assert_eq!((joint(&l, 520), marginal(&l, 530)), (f64::NEG_INFINITY, f64::NEG_INFINITY));
}
