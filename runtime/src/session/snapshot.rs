//! Snapshots: a session as bytes, to continue elsewhere or later.
//!
//! Layout, little endian: magic, version u32, fingerprint u128, number of ids u64, ids u16 each, pending byte u8 (0
//! none, 1 undecided, 2 chosen), logits (u8, then 520 f32 if 1), patches u64, arena (length u64, bytes), number of
//! layers u64, for each layer the first position u64 and rows (length u64, bytes); last the XXH3-64 of everything
//! before. The checksum does not protect against forgery: every value is checked as well, alone and against the others.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::allocate;
use crate::error::{Error, Result};
use crate::model::{Inner, Model};
use crate::session::machine::Session;
use crate::state::kv_cache::KvCache;
use crate::state::{PendingByte, State};
use crate::text::ids;

const MAGIC: &[u8; 8] = b"BOLMOSNP";
const VERSION: u32 = 1;

impl Session {
    /// The session as bytes, for [`Session::restore`].
    pub async fn snapshot(&mut self) -> Result<Vec<u8>> {
        let mut operation = self.begin().await?;
        let out = operation.write_snapshot().await;
        if out.is_err() {
            operation.recorder.discard();
        }
        // It has the size of the largest layer's keys and values, and stays small otherwise.
        operation.recorder.forget_readable();
        if let Ok(out) = &out {
            log::debug!("snapshot of {} ids: {} bytes", operation.state.ids.len(), out.len());
        }
        // Reading leaves the session as it was.
        operation.finish()?;
        out
    }

    async fn write_snapshot(&mut self) -> Result<Vec<u8>> {
        let state = self.before_decision.as_ref().unwrap_or(&self.state);
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.model.fingerprint.to_le_bytes());
        put_len(&mut out, state.ids.len());
        state.ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        out.push(match state.pending {
            PendingByte::None => 0,
            PendingByte::Undecided => 1,
            PendingByte::Chosen => 2,
        });
        out.push(state.logits.is_some().into());
        state.logits.iter().flat_map(|l| l.iter()).for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        put_len(&mut out, state.kv.len());
        let arena = self.recorder.read(std::slice::from_ref(&state.arena)).await?;
        put_bytes(&mut out, &arena)?;
        let layers = state.kv.contents()?;
        put_len(&mut out, layers.len());
        for (first, slices) in layers {
            put_len(&mut out, first);
            let rows = if slices.is_empty() { Vec::new() } else { self.recorder.read(&slices).await? };
            put_bytes(&mut out, &rows)?;
        }
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        Ok(out)
    }

    /// The session that a snapshot was taken of, on the same model. It continues as if it had never been interrupted.
    ///
    /// # Errors
    /// `BadCheckpoint` for bytes that are truncated, damaged, not a snapshot, or hold a state that no session can have;
    /// `InvalidArgument` for a snapshot of another model, format or version of this library.
    pub async fn restore(model: &Model, snapshot: &[u8]) -> Result<Session> {
        let parts = Parts::read(snapshot, &model.inner)?;
        let inner = model.inner.clone();
        let device = inner.device();
        let _permit = device.begin_work()?;
        let mut session = Session::new(model).await?;
        let kv = KvCache::restore(&inner.config, device, &mut session.recorder, parts.patches, &parts.layers).await?;
        let mut state = State::with_kv(device, &inner.config, kv).await?;
        if parts.arena.len() as u64 != state.arena.size() {
            return Err(Error::bad_checkpoint(format!(
                "the snapshot's state has {} bytes, expected {}; take the snapshot again on this adapter",
                parts.arena.len(),
                State::arena_bytes(device, &inner.config)
            )));
        }
        device.write(&state.arena, 0, parts.arena)?;
        state.ids = parts.ids;
        state.pending = parts.pending;
        state.logits = parts.logits;
        session.recorder.submit()?;
        session.replace(state);
        log::debug!("session restored from {} bytes: {} ids", snapshot.len(), session.ids().len());
        Ok(session)
    }
}

/// The contents of a snapshot, as far as they can be checked without the device.
struct Parts<'a> {
    ids: Vec<u16>,
    pending: PendingByte,
    logits: Option<Arc<[f32]>>,
    patches: usize,
    arena: &'a [u8],
    /// For each layer its first position and its rows.
    layers: Vec<(usize, &'a [u8])>,
}

impl<'a> Parts<'a> {
    fn read(snapshot: &'a [u8], model: &Inner) -> Result<Self> {
        let mut r = Reader { bytes: checked_body(snapshot, model)? };
        let count = r.len(2)?;
        let ids: Vec<u16> = r.take(2 * count)?.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        check_ids(&ids, model)?;
        let pending = pending_byte(r.array()?)?;
        let processed = processed(&ids, pending)?;
        let logits = match r.array()? {
            [0] => None,
            [1] => Some(
                r.take(4 * ids::IDS)?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            ),
            [other] => {
                return Err(Error::bad_checkpoint(format!("the snapshot's logits flag is {other}, expected 0 or 1")));
            }
        };
        check_logits(logits.as_deref(), processed)?;
        let patches = u64::from_le_bytes(r.array()?);
        let ended = processed.iter().filter(|&&id| ids::is_fused(id)).count();
        if patches != ended as u64 {
            return Err(Error::bad_checkpoint(format!(
                "the snapshot holds {patches} patches, but its ids end {ended} of them"
            )));
        }
        let patches = ended;
        let arena_len = r.len(1)?;
        let arena = finite(r.take(arena_len)?, "state")?;
        let layer_count = r.len(16)?;
        let mut layers = Vec::new();
        for _ in 0..layer_count {
            let first = usize::try_from(u64::from_le_bytes(r.array()?)).map_err(|_| truncated())?;
            let size = r.len(1)?;
            layers.push((first, finite(r.take(size)?, "keys and values")?));
        }
        if !r.bytes.is_empty() {
            return Err(Error::bad_checkpoint(format!("{} bytes follow the end of the snapshot", r.bytes.len())));
        }
        Ok(Self { ids, pending, logits, patches, arena, layers })
    }
}

/// The bytes between the header and the checksum, once both were found to be right.
fn checked_body<'a>(snapshot: &'a [u8], model: &Inner) -> Result<&'a [u8]> {
    let mut r = Reader { bytes: snapshot };
    if r.take(MAGIC.len())? != MAGIC {
        return Err(Error::bad_checkpoint("these bytes are not a snapshot of a session"));
    }
    let version = u32::from_le_bytes(r.array()?);
    if version != VERSION {
        return Err(Error::invalid(format!("the snapshot has version {version}, expected {VERSION}")));
    }
    let sum_at = snapshot.len().checked_sub(8).ok_or_else(truncated)?;
    let (body, sum) = snapshot.split_at(sum_at);
    if xxh3_64(body).to_le_bytes() != sum {
        return Err(Error::bad_checkpoint("the snapshot is cut short or damaged: its checksum does not match"));
    }
    let mut r = Reader { bytes: &body[MAGIC.len() + size_of_val(&VERSION)..] };
    let fingerprint = u128::from_le_bytes(r.array()?);
    if fingerprint != model.fingerprint {
        return Err(Error::invalid(
            "the snapshot is of another model: weights, configuration or format differ from this one; restore it on \
             the model that it was taken on",
        ));
    }
    Ok(r.bytes)
}

/// Checks that a session can hold these ids.
fn check_ids(ids: &[u16], model: &Inner) -> Result<()> {
    let special = [ids::PAD_ID, ids::END_ID, model.config.special.bos];
    let known = |id: u16| {
        let plain = ids::plain(id);
        let is_byte = plain.checked_sub(model.config.byte_offset).is_some_and(|byte| byte < 256);
        // Only special ids may lack a suffix, which was checked with the vocabulary.
        let has_suffix = || is_byte || model.suffixes.as_ref().is_none_or(|t| t.longest_match(&[plain]).is_some());
        plain < ids::PLAIN_IDS && (is_byte || special.contains(&plain)) && has_suffix()
    };
    match ids.iter().position(|&id| !known(id)) {
        None => Ok(()),
        Some(position) => Err(Error::bad_checkpoint(format!(
            "the snapshot holds the id {} at position {position}, which no session can hold",
            ids[position]
        ))),
    }
}

/// What is pending of the last id.
fn pending_byte([code]: [u8; 1]) -> Result<PendingByte> {
    match code {
        0 => Ok(PendingByte::None),
        1 => Ok(PendingByte::Undecided),
        2 => Ok(PendingByte::Chosen),
        other => Err(Error::bad_checkpoint(format!("the snapshot's pending byte is {other}, expected 0, 1 or 2"))),
    }
}

/// The ids that went through the whole model: all but a pending one.
fn processed(ids: &[u16], pending: PendingByte) -> Result<&[u16]> {
    let contradiction = || Error::bad_checkpoint("the snapshot's ids contradict its pending byte");
    let processed = match (pending, ids) {
        (PendingByte::None, _) => ids,
        (PendingByte::Undecided, [before @ .., last]) if !ids::is_fused(*last) => before,
        // An id is chosen by the logits after another one.
        (PendingByte::Chosen, [before @ .., _]) if !before.is_empty() => before,
        _ => return Err(contradiction()),
    };
    match processed.first() {
        Some(&first) if !ids::is_fused(first) => Err(Error::bad_checkpoint(
            "the snapshot's first id does not end a patch, but the first id of a text always does",
        )),
        _ => Ok(processed),
    }
}

/// Checks that there are logits exactly if an id went through the model, and that they are numbers.
fn check_logits(logits: Option<&[f32]>, processed: &[u16]) -> Result<()> {
    match (logits, processed) {
        (None, [_, ..]) => {
            Err(Error::bad_checkpoint(format!("the snapshot lacks the logits after its first {} ids", processed.len())))
        }
        (Some(_), []) => Err(Error::bad_checkpoint("the snapshot holds logits that follow no id")),
        (Some(logits), _) if !logits.iter().all(|logit| logit.is_finite()) => Err(not_finite("logits")),
        _ => Ok(()),
    }
}

/// `bytes`, if the f32 in them are finite.
fn finite<'a>(bytes: &'a [u8], what: &str) -> Result<&'a [u8]> {
    let all = bytes.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite());
    if all { Ok(bytes) } else { Err(not_finite(what)) }
}

fn not_finite(what: &str) -> Error {
    Error::bad_checkpoint(format!("the snapshot's {what} hold a value that is not a finite number"))
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u64).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    // What follows is short, up to the next call.
    allocate::reserve(out, bytes.len() + 4096, "a snapshot")?;
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
    Ok(())
}

fn truncated() -> Error {
    Error::bad_checkpoint("the snapshot is cut short")
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| truncated())
    }

    /// A number of items of at least `item` bytes each, which must still be there.
    fn len(&mut self, item: usize) -> Result<usize> {
        let len = usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| truncated())?;
        if len.checked_mul(item).is_none_or(|bytes| bytes > self.bytes.len()) {
            return Err(truncated());
        }
        Ok(len)
    }
}
