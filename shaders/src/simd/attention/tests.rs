use super::*;
use crate::KernelId;
use crate::cpu;
use crate::cpu::noise::{assert_close, noise};
use crate::simd::testing::{Run, Threads, words};

/// Sizes of a call. Queries are the last positions of the segment.
#[derive(Debug, Clone, Copy)]
struct Case {
    sequences: u32,
    count: u32,
    kv_heads: u32,
    group: u32,
    dim4: u32,
    keys: u32,
    window: u32,
}

const PLAIN: Case = Case { sequences: 1, count: 1, kv_heads: 1, group: 1, dim4: 2, keys: 1, window: 0 };

impl Case {
    fn params(&self) -> params::Attention {
        params::Attention {
            count: self.count,
            heads: self.kv_heads * self.group,
            heads_per_kv: self.group,
            dim4: self.dim4,
            query_first: self.keys - self.count,
            key_first: 0,
            keys: self.keys,
            window: self.window,
            begin: 1,
            end: 1,
            scale: 0.3,
        }
    }

    /// Values of q and of kv.
    fn sizes(&self) -> [usize; 2] {
        let row = self.sequences * self.kv_heads * 4 * self.dim4;
        [row * self.group * self.count, row * 2 * self.keys].map(|n| n as usize)
    }

    fn inputs(&self) -> [Vec<f32>; 2] {
        let [q, kv] = self.sizes();
        [noise(1, q, 2.0), noise(2, kv, 2.0)]
    }
}

/// A run with empty outputs.
fn run(p: &params::Attention, sequences: u32, q: &[f32], kv: &[f32]) -> Run {
    let running = vec![f32::NAN; q.len() / 2 / p.dim4 as usize];
    let o = vec![f32::NAN; q.len()];
    Run::new(KernelId::Attention, p, [q, kv, &running, &o].map(words).to_vec(), [p.count, p.heads, sequences])
}

/// Compares a segment with the reference, from the contents of `running` and `o` before it.
fn check(run: &Run, p: &params::Attention) {
    let of = |i: usize| bytemuck::cast_slice::<u32, f32>(&run.bindings[i]).to_vec();
    let [q, kv, mut running, mut o] = [0, 1, 2, 3].map(of);
    cpu::attention(p, run.grid[2], &q, &kv, &mut running, &mut o);
    run.all(|found| {
        // In f32 and in another order, with weights that amount to the number of keys.
        let sums = |values: &[f32], which: usize| values.iter().copied().skip(which).step_by(2).collect::<Vec<_>>();
        assert_close(&sums(found.f32(2), 0), &sums(&running, 0), 1e-6);
        assert_close(&sums(found.f32(2), 1), &sums(&running, 1), 1e-5);
        assert_close(found.f32(3), &o, 1e-5);
    });
}

#[test]
fn matches_the_reference() {
    let cases = [
        PLAIN,
        // decode, with and without groups and windows
        Case { kv_heads: 2, group: 3, dim4: 16, keys: 700, ..PLAIN },
        Case { kv_heads: 3, dim4: 5, keys: 600, ..PLAIN },
        Case { kv_heads: 1, dim4: 32, keys: 1100, window: 300, ..PLAIN },
        Case { sequences: 3, kv_heads: 2, group: 2, dim4: 4, keys: 520, window: 1, ..PLAIN },
        Case { group: 50, dim4: 1, keys: 300, ..PLAIN },
        // prompts
        Case { count: 23, keys: 23, ..PLAIN },
        Case { sequences: 2, count: 70, kv_heads: 2, dim4: 3, keys: 300, ..PLAIN },
        Case { count: 260, dim4: 16, keys: 530, ..PLAIN },
        Case { count: 60, group: 4, dim4: 8, keys: 60, window: 7, ..PLAIN },
        Case { count: 100, kv_heads: 70, dim4: 1, keys: 600, window: 257, ..PLAIN },
        Case { count: 9, dim4: 36, keys: 33, window: 3, ..PLAIN },
    ];
    for case in cases {
        let [q, kv] = case.inputs();
        check(&run(&case.params(), case.sequences, &q, &kv), &case.params());
    }
}

#[test]
fn segments_continue_each_other() {
    for (window, group) in [(0, 1), (5, 2), (280, 3)] {
        let case = Case { sequences: 2, count: 14, kv_heads: 2, group, keys: 600, window, ..PLAIN };
        let [q, _] = case.inputs();
        // Cuts before, inside and after what some queries see. Some see nothing of a segment.
        for bounds in [[0, 300, 600], [0, 590, 600], [0, 512, 600], [0, 257, 258]] {
            let mut before: Option<[Vec<u32>; 2]> = None;
            for bounds in bounds.windows(2) {
                let (keys, end) = (bounds[1] - bounds[0], (bounds[1] == 600).into());
                let begin = (bounds[0] == 0).into();
                let p = params::Attention { key_first: bounds[0], keys, begin, end, ..case.params() };
                let kv = noise(u64::from(bounds[0]), Case { keys, ..case }.sizes()[1], 2.0);
                let mut run = run(&p, 2, &q, &kv);
                if let Some([running, o]) = before {
                    (run.bindings[2], run.bindings[3]) = (running, o);
                }
                check(&run, &p);
                let found = run.once(InstructionSet::best(), &Threads(1)).expect("the same call");
                before = Some([2, 3].map(|i| found.u32(i).to_vec()));
            }
        }
    }
}

/// The outputs of a run, `[count, heads, dim]`.
fn outputs(run: &Run, instructions: InstructionSet) -> Vec<u32> {
    run.once(instructions, &Threads(2)).expect("a call with bindings that are large enough").u32(3).to_vec()
}

#[test]
fn a_query_has_the_same_bits_alone_and_among_others() {
    for (window, group, dim4, key_first) in [(0, 1, 16, 0), (0, 2, 5, 7), (100, 3, 4, 0), (2, 1, 8, 300)] {
        let case = Case { count: 130, kv_heads: 2, group, dim4, keys: 700, window, ..PLAIN };
        let p = params::Attention { key_first, query_first: key_first + 570, ..case.params() };
        let [q, kv] = case.inputs();
        let row = q.len() / 130;
        for instructions in InstructionSet::available() {
            let all = outputs(&run(&p, 1, &q, &kv), instructions);
            // Pieces of a prompt, from one query to many. They don't see the keys of later pieces, which may be absent.
            let mut start = 0;
            for count in [1, 1, 2, 60, 5, 1, 49, 11] {
                let keys = 570 + start + count;
                let part = params::Attention { count, query_first: p.query_first + start, keys, ..p };
                let of = start as usize * row..(start + count) as usize * row;
                let kv = &kv[..kv.len() / 700 * keys as usize];
                let found = outputs(&run(&part, 1, &q[of.clone()], kv), instructions);
                assert!(found == all[of], "{}: queries {start} to {}", instructions.name(), start + count);
                start += count;
            }
            assert_eq!(start, 130);
        }
    }
}

#[test]
fn what_a_query_does_not_see_does_not_matter() {
    let case = Case { count: 40, kv_heads: 1, group: 2, dim4: 4, keys: 340, window: 20, ..PLAIN };
    let (p, [q, mut kv]) = (case.params(), case.inputs());
    let row = 2 * 16;
    for bad in [f32::NAN, f32::INFINITY] {
        let expected = run(&p, 1, &q, &kv);
        let clean = kv.clone();
        // Keys before the first window, and key and value 320 as a whole. Queries 20 to 39 see those.
        kv[..200 * row].fill(bad);
        kv[320 * row..321 * row].fill(bad);
        let found = run(&p, 1, &q, &kv);
        for instructions in InstructionSet::available() {
            let (found, expected) = (outputs(&found, instructions), outputs(&expected, instructions));
            assert!(found[..20 * row] == expected[..20 * row], "{}", instructions.name());
            let nan = |values: &[u32]| values.iter().all(|&word| f32::from_bits(word).is_nan());
            assert!(nan(&found[20 * row..]), "{}", instructions.name());
        }
        kv = clean;
    }
}

#[test]
fn nan_in_queries_and_values_reaches_the_output() {
    for keys in [3, 1000] {
        let case = Case { kv_heads: 2, dim4: 4, keys, ..PLAIN };
        let (p, [q, kv]) = (case.params(), case.inputs());
        let (mut bad_q, mut bad_v) = (q.clone(), kv.clone());
        bad_q[3] = f32::NAN;
        // The value of the first head's key 1, column 2.
        bad_v[(2 + 1) * 32 + 2] = f32::NAN;
        run(&p, 1, &bad_q, &kv).all(|found| {
            assert!(found.f32(3)[..16].iter().all(|v| v.is_nan()) && found.f32(3)[16..].iter().all(|v| v.is_finite()));
        });
        run(&p, 1, &q, &bad_v).all(|found| {
            let nan: Vec<_> = (0..32).filter(|&i| found.f32(3)[i].is_nan()).collect();
            assert_eq!(nan, [2]);
        });
    }
}

#[test]
fn wrong_parameters_are_refused() {
    let case = Case { sequences: 2, count: 3, kv_heads: 2, group: 2, keys: 10, ..PLAIN };
    let (p, [q, kv]) = (case.params(), case.inputs());
    let refused = |run: &Run| run.once(InstructionSet::best(), &Threads(1)).is_err();
    assert!(!refused(&run(&p, 2, &q, &kv)));
    for binding in 0..4 {
        let mut short = run(&p, 2, &q, &kv);
        short.bindings[binding].pop();
        assert!(refused(&short), "binding {binding}");
    }
    for wrong in [
        params::Attention { heads_per_kv: 0, ..p },
        params::Attention { heads_per_kv: 3, ..p },
        params::Attention { dim4: u32::MAX, ..p },
        params::Attention { keys: u32::MAX, ..p },
        params::Attention { count: u32::MAX, heads: u32::MAX - 1, ..p },
    ] {
        let mut run = run(&p, 2, &q, &kv);
        run.params = bytemuck::bytes_of(&wrong).to_vec();
        assert!(refused(&run), "{wrong:?}");
    }
    // Empty calls, and positions at the end of their range are no mistakes.
    let last = params::Attention { query_first: u32::MAX, key_first: u32::MAX, window: u32::MAX, ..p };
    assert!(!refused(&run(&last, 2, &q, &kv)));
    for empty in [
        params::Attention { count: 0, ..p },
        params::Attention { keys: 0, begin: 0, ..p },
        params::Attention { dim4: 0, ..p },
    ] {
        assert!(!refused(&run_with(&empty, &q, &kv)), "{empty:?}");
    }
}

fn run_with(p: &params::Attention, q: &[f32], kv: &[f32]) -> Run {
    Run { params: bytemuck::bytes_of(p).to_vec(), ..run(&params::Attention { dim4: 2, ..*p }, 2, q, kv) }
}
