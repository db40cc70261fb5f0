//! Forged snapshots, with a checksum that fits: a state that no session can have is refused when it is restored, not
//! when the session goes on.

use std::ops::ControlFlow;

use bolmo_runtime::{Error, ErrorKind, GenerateOptions, Model, Session, block_on};
use bolmo_tests::{checksum, load, session_with};

/// Magic, version and fingerprint.
const HEAD: usize = 8 + 4 + 16;

/// The fields of a snapshot, in their order.
#[derive(Clone, PartialEq)]
struct Fields {
    head: Vec<u8>,
    ids: Vec<u16>,
    pending: u8,
    mark: u8,
    logits: Vec<f32>,
    patches: u64,
    arena: Vec<u8>,
    /// For each layer its first position and its rows.
    layers: Vec<(u64, Vec<u8>)>,
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn number(bytes: &mut &[u8]) -> u64 {
    u64::from_le_bytes(take(bytes, 8).try_into().expect("8 bytes"))
}

impl Fields {
    fn of(session: &mut Session) -> Self {
        let snapshot = block_on(session.snapshot()).expect("a snapshot");
        let mut rest = &snapshot[..snapshot.len() - 8];
        let rest = &mut rest;
        let head = take(rest, HEAD).to_vec();
        let count = number(rest) as usize;
        let ids = take(rest, 2 * count).chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        let (pending, mark) = (take(rest, 1)[0], take(rest, 1)[0]);
        let logits = take(rest, 4 * 520 * usize::from(mark));
        let logits = logits.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let patches = number(rest);
        let size = number(rest) as usize;
        let arena = take(rest, size).to_vec();
        let count = number(rest);
        let layer = |_| {
            let (first, size) = (number(rest), number(rest) as usize);
            (first, take(rest, size).to_vec())
        };
        let fields = Self { head, ids, pending, mark, logits, patches, arena, layers: (0..count).map(layer).collect() };
        assert!(fields.bytes().0 == snapshot, "a snapshot is put together as it was taken apart");
        fields
    }

    /// The snapshot, and the places of the numbers that count what follows.
    fn bytes(&self) -> (Vec<u8>, Vec<(&'static str, usize)>) {
        let (mut out, mut counts) = (self.head.clone(), Vec::new());
        let mut count = |out: &mut Vec<u8>, what, count: usize| {
            counts.push((what, out.len()));
            out.extend_from_slice(&(count as u64).to_le_bytes());
        };
        count(&mut out, "ids", self.ids.len());
        self.ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        out.extend_from_slice(&[self.pending, self.mark]);
        self.logits.iter().for_each(|logit| out.extend_from_slice(&logit.to_le_bytes()));
        out.extend_from_slice(&self.patches.to_le_bytes());
        count(&mut out, "bytes of the state", self.arena.len());
        out.extend_from_slice(&self.arena);
        count(&mut out, "layers", self.layers.len());
        for (first, rows) in &self.layers {
            out.extend_from_slice(&first.to_le_bytes());
            count(&mut out, "bytes of a layer", rows.len());
            out.extend_from_slice(rows);
        }
        let sum = checksum(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        (out, counts)
    }
}

/// Restores `bytes`. A session that is accepted goes on in every way without an internal error.
fn restore(model: &Model, bytes: &[u8], what: &str) -> Result<(), Error> {
    let mut session = block_on(Session::restore(model, bytes))?;
    let snapshot = block_on(session.snapshot()).unwrap_or_else(|e| panic!("{what}: a snapshot: {e}"));
    let again = || block_on(Session::restore(model, &snapshot)).unwrap_or_else(|e| panic!("{what}: again: {e}"));
    let check = |step: &str, result: Result<(), Error>| match result {
        Err(error) if error.kind() == ErrorKind::Internal => panic!("{what}: {step}: {error}"),
        _ => {}
    };
    check("append", block_on(again().append(b"ab")));
    check("logits", block_on(again().logits(0.0)).map(|_| ()));
    check("push", block_on(again().push(80)));
    check("ends", block_on(again().append_ids_with_ends(&[80, 81], &[true, false])));
    let mut options = GenerateOptions::default();
    options.max_bytes = 6;
    let generate = |session: &mut Session| block_on(session.generate(&options, &mut |_| ControlFlow::Continue(())));
    check("generate", generate(&mut again()).map(|_| ()));
    check("append at last", block_on(session.append(b"the end")));
    check("generate at last", generate(&mut session).map(|_| ()));
    Ok(())
}

/// Refused, and as damage.
fn refused(model: &Model, bytes: &[u8], what: &str) {
    match restore(model, bytes, what) {
        Ok(()) => panic!("{what}: the snapshot was accepted"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::BadCheckpoint, "{what}: {error}");
            assert!(error.message().contains("snapshot"), "{what}: {error}");
        }
    }
}

/// Sessions in every kind of state, with their names.
fn sessions(model: &Model) -> Vec<(&'static str, Session)> {
    let text =
        |bytes: usize| -> Vec<u32> { std::iter::once(1).chain((0..bytes as u32).map(|i| 80 + i % 30)).collect() };
    let mut all = vec![
        ("empty", block_on(Session::new(model)).expect("a session")),
        ("one id", session_with(model, &text(0))),
        ("a text", session_with(model, &text(40))),
        ("a long text", session_with(model, &text(300))),
    ];
    let mut decided = session_with(model, &text(40));
    block_on(decided.append_ids_with_ends(&[90, 91], &[true, false])).expect("ids");
    all.push(("no pending byte", decided));
    let mut ended = session_with(model, &text(40));
    block_on(ended.append_ids_with_ends(&[90, 91], &[false, true])).expect("ids");
    all.push(("an ended patch", ended));
    for (name, id) in [("a plain choice", 80), ("a fused choice", 80 + 260)] {
        let mut chosen = session_with(model, &text(40));
        block_on(chosen.push(id)).expect("an id");
        all.push((name, chosen));
    }
    let mut generated = session_with(model, &text(40));
    let mut options = GenerateOptions::default();
    options.max_bytes = 20;
    block_on(generated.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("bytes");
    all.push(("generated text", generated));
    all
}

/// Changes that leave a state which no session can have, whatever it was before.
fn impossible(fields: &Fields) -> Vec<(String, Fields)> {
    let mut all = Vec::new();
    let mut changed = |what: &str, change: &dyn Fn(&mut Fields)| {
        let mut new = fields.clone();
        change(&mut new);
        if new != *fields {
            all.push((what.to_owned(), new));
        }
    };
    for pending in [3, 4, 127, 255] {
        changed("an unknown pending byte", &|f| f.pending = pending);
    }
    for mark in [2, 255] {
        changed("an unknown mark of logits", &|f| f.mark = mark);
    }
    for patches in [fields.patches.wrapping_sub(1), fields.patches + 1, 1 << 32, u64::MAX] {
        changed("another number of patches", &|f| f.patches = patches);
    }
    let with_logits = fields.mark == 1;
    changed(if with_logits { "no logits" } else { "logits after nothing" }, &|f| {
        f.mark = u8::from(!with_logits);
        f.logits = if with_logits { Vec::new() } else { vec![0.0; 520] };
    });
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let put = |bytes: &mut [u8], at: usize| {
            if let Some(place) = bytes.get_mut(4 * at..4 * at + 4) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        };
        changed("a logit that is no number", &|f| f.logits.iter_mut().skip(77).take(1).for_each(|x| *x = value));
        changed("a state that is no number", &|f| put(&mut f.arena, 5));
        changed("a key that is no number", &|f| put(&mut f.layers[0].1, 3));
    }
    for id in [2, 3, 262, 263, 520, 521, u16::MAX] {
        for at in [0, fields.ids.len() / 2, fields.ids.len().saturating_sub(1)] {
            changed("an id that no session holds", &|f| f.ids.iter_mut().skip(at).take(1).for_each(|x| *x = id));
        }
    }
    // The first id that went through the model ends a patch, as do as many others as there are patches.
    let processed = fields.ids.len() - usize::from(fields.pending != 0);
    for at in [0, processed / 2, processed.saturating_sub(1)].into_iter().filter(|&at| at < processed) {
        changed("another boundary", &|f| f.ids[at] = if f.ids[at] < 260 { f.ids[at] + 260 } else { f.ids[at] - 260 });
    }
    if fields.pending == 1 {
        changed("a fused id that is undecided", &|f| *f.ids.last_mut().expect("an id") += 260);
        changed("no id that could be undecided", &|f| f.ids.clear());
    }
    changed("a single id that was chosen", &|f| {
        f.pending = 2;
        f.ids.truncate(1);
    });
    changed("fewer layers", &|f| f.layers.truncate(f.layers.len() - 1));
    changed("more layers", &|f| f.layers.push((0, Vec::new())));
    for layer in 0..fields.layers.len() {
        changed("fewer rows", &|f| {
            let rows = &mut f.layers[layer].1;
            rows.truncate(rows.len().saturating_sub(4));
        });
        changed("more rows", &|f| f.layers[layer].1.extend([0; 64]));
        for first in [fields.layers[layer].0 + 1, fields.patches + 1, 1 << 32, u64::MAX] {
            changed("another first position", &|f| f.layers[layer].0 = first);
        }
    }
    changed("a shorter state", &|f| f.arena.truncate(f.arena.len() - 4));
    changed("a longer state", &|f| f.arena.extend([0; 256]));
    all
}

#[test]
fn states_that_no_session_can_have_are_refused() {
    for (family, name) in [("infer", "nano_trained"), ("infer", "swa")] {
        let model = load(family, name);
        for (state, mut session) in sessions(&model) {
            let fields = Fields::of(&mut session);
            let what = |change: &str| format!("{name}, {state}: {change}");
            restore(&model, &fields.bytes().0, &what("unchanged")).expect("the snapshot as it was taken");
            for (change, forged) in impossible(&fields) {
                refused(&model, &forged.bytes().0, &what(&change));
            }
            let (bytes, counts) = fields.bytes();
            for (counted, at) in counts {
                let before = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
                for count in [0, 1, before.wrapping_sub(1), before + 1, 2 * before, 1 << 32, i64::MAX as u64, u64::MAX]
                {
                    let mut forged = bytes[..bytes.len() - 8].to_vec();
                    forged[at..at + 8].copy_from_slice(&count.to_le_bytes());
                    forged.extend_from_slice(&checksum(&forged).to_le_bytes());
                    if count != before {
                        refused(&model, &forged, &what(&format!("{count} {counted} instead of {before}")));
                    }
                }
            }
        }
    }
}

/// What one change breaks, another one may mend: whatever is accepted then is a session that works.
#[test]
fn combinations_of_changes_are_refused_or_work() {
    let model = load("infer", "swa");
    let mut accepted = 0;
    for (state, mut session) in sessions(&model) {
        let fields = Fields::of(&mut session);
        let cut = |f: &Fields, ids: usize, pending: u8| Fields { ids: f.ids[..ids].to_vec(), pending, ..f.clone() };
        for pending in 0..3 {
            let step = if fields.ids.len() > 100 { 17 } else { 1 };
            for ids in (0..=fields.ids.len()).step_by(step) {
                let mut forged = cut(&fields, ids, pending);
                let read = &forged.ids[..ids.saturating_sub(usize::from(pending != 0))];
                forged.patches = read.iter().filter(|&&id| id >= 260).count() as u64;
                for rows in [None, Some(forged.patches)] {
                    let mut forged = forged.clone();
                    if let Some(rows) = rows {
                        let row = |f: &Fields| {
                            let (first, bytes) = f.layers.iter().find(|(_, bytes)| !bytes.is_empty())?;
                            Some(bytes.len() / (f.patches - first) as usize)
                        };
                        let Some(row) = row(&fields) else { continue };
                        for (first, bytes) in &mut forged.layers {
                            bytes.resize(row * rows.saturating_sub(*first) as usize, 0);
                        }
                    }
                    let what = format!("{state}: {ids} ids, pending {pending}, rows {rows:?}");
                    match restore(&model, &forged.bytes().0, &what) {
                        Ok(()) => accepted += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::BadCheckpoint, "{what}: {error}"),
                    }
                }
            }
        }
    }
    assert!(accepted > 50, "only {accepted} were accepted");
}
