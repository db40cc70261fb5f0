//! Snapshots: a session as bytes, to continue elsewhere or later.
//!
//! Layout, little endian: magic, version u32, fingerprint u128, number of ids u64, ids u16 each, pending byte u8 (0
//! none, 1 undecided, 2 chosen), logits (u8, then 520 f32 if 1), patches u64, arena (length u64, bytes), number of
//! layers u64, for each layer the first position u64 and rows (length u64, bytes); last the XXH3-64 of everything
//! before. The checksum does not protect against forgery: every value is checked as well.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

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
        let mut operation = self.begin()?;
        let out = operation.write_snapshot().await;
        if out.is_err() {
            operation.recorder.discard();
        }
        // Reading leaves the session as it was.
        operation.finish();
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
        put_len(&mut out, arena.len());
        out.extend_from_slice(&arena);
        let layers = state.kv.contents()?;
        put_len(&mut out, layers.len());
        for (first, slices) in layers {
            put_len(&mut out, first);
            let rows = if slices.is_empty() { Vec::new() } else { self.recorder.read(&slices).await? };
            put_len(&mut out, rows.len());
            out.extend_from_slice(&rows);
        }
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        Ok(out)
    }

    /// The session that a snapshot was taken of, on the same model. It continues as if it had never been interrupted.
    ///
    /// # Errors
    /// `BadCheckpoint` for bytes that are truncated, damaged or not a snapshot; `InvalidArgument` for a snapshot of
    /// another model, format or version of this library.
    pub async fn restore(model: &Model, snapshot: &[u8]) -> Result<Session> {
        let parts = Parts::read(snapshot, &model.inner)?;
        let inner = model.inner.clone();
        let device = inner.device();
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
        if ids.iter().any(|&id| usize::from(id) >= ids::IDS) {
            return Err(Error::bad_checkpoint("the snapshot holds ids above 519"));
        }
        let pending = pending_byte(r.array()?, ids.last().copied())?;
        let logits = match r.array()? {
            [0] => None,
            [_] => Some(
                r.take(4 * ids::IDS)?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            ),
        };
        let patches = u64::from_le_bytes(r.array()?);
        let patches = usize::try_from(patches).ok().filter(|&p| p <= ids.len()).ok_or_else(|| {
            Error::bad_checkpoint(format!("the snapshot holds {patches} patches for {} ids", ids.len()))
        })?;
        let arena_len = r.len(1)?;
        let arena = r.take(arena_len)?;
        let layer_count = r.len(16)?;
        let mut layers = Vec::new();
        for _ in 0..layer_count {
            let first = usize::try_from(u64::from_le_bytes(r.array()?)).map_err(|_| truncated())?;
            let size = r.len(1)?;
            layers.push((first, r.take(size)?));
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
             the \
             model that it was taken on",
        ));
    }
    Ok(r.bytes)
}

/// What is pending of the last id.
fn pending_byte([code]: [u8; 1], last: Option<u16>) -> Result<PendingByte> {
    let pending = match code {
        0 => PendingByte::None,
        1 => PendingByte::Undecided,
        2 => PendingByte::Chosen,
        other => {
            return Err(Error::bad_checkpoint(format!("the snapshot's pending byte is {other}, expected 0, 1 or 2")));
        }
    };
    let fits = match (pending, last) {
        (PendingByte::None, _) | (PendingByte::Chosen, Some(_)) => true,
        (PendingByte::Undecided, Some(last)) => !ids::is_fused(last),
        (PendingByte::Undecided | PendingByte::Chosen, None) => false,
    };
    if !fits {
        return Err(Error::bad_checkpoint("the snapshot's last id contradicts its pending byte"));
    }
    Ok(pending)
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u64).to_le_bytes());
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
