//! Snapshots: a session as bytes, to go on from elsewhere or later.
//!
//! Layout, little endian: magic, version u32, fingerprint u128, number of ids u64, ids u16 each, tail u8, logits (u8, then 520
//! f32 if 1), patches u64, arena (length u64, bytes), number of layers u64, for each the first position u64 and rows (length u64,
//! bytes); last the XXH3-64 of all before. The checksum is no protection against forgery: everything is checked all the same.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::session::{Session, State, Tail};
use crate::state::kv_cache::KvCache;
use crate::text::ids;

const MAGIC: &[u8; 8] = b"BOLMOSNP";
const VERSION: u32 = 1;

impl Session {
    /// The session as bytes, which [`Session::restore`] takes.
    pub async fn snapshot(&mut self) -> Result<Vec<u8>> {
        self.begin()?;
        let state = self.undecided.as_ref().unwrap_or(&self.state);
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.model.fingerprint.to_le_bytes());
        put_len(&mut out, state.ids.len());
        state.ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        out.push(match state.tail {
            Tail::Done => 0,
            Tail::Waiting => 1,
            Tail::Chosen => 2,
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
        self.end();
        Ok(out)
    }

    /// The session that a snapshot was taken of, on the same model: it goes on as if never interrupted.
    ///
    /// # Errors
    /// `BadCheckpoint` for bytes that are cut short, damaged or no snapshot; `InvalidArgument` for one of another model, format
    /// or version of this library.
    pub async fn restore(model: &Model, snapshot: &[u8]) -> Result<Session> {
        let inner = model.inner.clone();
        let mut r = Reader { bytes: snapshot };
        if r.take(MAGIC.len())? != MAGIC {
            return Err(Error::bad_checkpoint("these bytes are not a snapshot of a session"));
        }
        let version = u32::from_le_bytes(r.array()?);
        if version != VERSION {
            return Err(Error::invalid(format!("the snapshot has version {version}, expected {VERSION}")));
        }
        let sum_at = snapshot.len().checked_sub(8).ok_or_else(cut_short)?;
        let (body, sum) = snapshot.split_at(sum_at);
        if xxh3_64(body).to_le_bytes() != sum {
            return Err(Error::bad_checkpoint("the snapshot is cut short or damaged: its checksum does not match"));
        }
        let mut r = Reader { bytes: &body[MAGIC.len() + size_of_val(&VERSION)..] };
        let fingerprint = u128::from_le_bytes(r.array()?);
        if fingerprint != inner.fingerprint {
            return Err(Error::invalid(
                "the snapshot is of another model: weights, configuration or format differ from this one",
            ));
        }
        let count = r.len(2)?;
        let ids: Vec<u16> = r.take(2 * count)?.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        if ids.iter().any(|&id| usize::from(id) >= ids::IDS) {
            return Err(Error::bad_checkpoint("the snapshot holds ids above 519"));
        }
        let tail = match r.array()? {
            [0] => Tail::Done,
            [1] => Tail::Waiting,
            [2] => Tail::Chosen,
            [other] => {
                return Err(Error::bad_checkpoint(format!("the snapshot's tail is {other}, expected 0, 1 or 2")));
            }
        };
        let fits = match (tail, ids.last()) {
            (Tail::Done, _) => true,
            (Tail::Waiting, Some(&last)) => !ids::is_fused(last),
            (Tail::Chosen, Some(_)) => true,
            (Tail::Waiting | Tail::Chosen, None) => false,
        };
        if !fits {
            return Err(Error::bad_checkpoint("the snapshot's last id does not fit what is to be done with it"));
        }
        let logits = match r.array()? {
            [0] => None,
            [_] => Some(
                r.take(4 * ids::IDS)?.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            ),
        };
        let patches = u64::from_le_bytes(r.array()?);
        let patches = usize::try_from(patches).ok().filter(|&p| p <= ids.len()).ok_or_else(|| {
            Error::bad_checkpoint(format!("the snapshot holds {patches} patches of {} ids", ids.len()))
        })?;
        let arena_len = r.len(1)?;
        let arena = r.take(arena_len)?;
        let layer_count = r.len(16)?;
        let mut layers = Vec::new();
        for _ in 0..layer_count {
            let first = usize::try_from(u64::from_le_bytes(r.array()?)).map_err(|_| cut_short())?;
            let size = r.len(1)?;
            layers.push((first, r.take(size)?));
        }
        if !r.bytes.is_empty() {
            return Err(Error::bad_checkpoint(format!("{} bytes follow the snapshot's end", r.bytes.len())));
        }

        let gpu = inner.gpu();
        let expected = State::arena_bytes(gpu, &inner.config);
        let mut session = Session::new(model).await?;
        let kv = KvCache::restore(&inner.config, gpu, &mut session.recorder, patches, &layers).await?;
        let mut state = State::with_kv(gpu, &inner.config, kv).await?;
        if arena.len() as u64 != state.arena.size() {
            return Err(Error::bad_checkpoint(format!(
                "the snapshot's state has {} bytes, expected {expected}; it may come from another adapter",
                arena.len()
            )));
        }
        gpu.write(&state.arena, 0, arena)?;
        state.ids = ids;
        state.tail = tail;
        state.logits = logits;
        session.recorder.submit()?;
        session.replace(state);
        Ok(session)
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u64).to_le_bytes());
}

fn cut_short() -> Error {
    Error::bad_checkpoint("the snapshot is cut short")
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| cut_short())
    }

    /// A number of items of at least `item` bytes each, which must still be there.
    fn len(&mut self, item: usize) -> Result<usize> {
        let len = usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| cut_short())?;
        if len.checked_mul(item).is_none_or(|bytes| bytes > self.bytes.len()) {
            return Err(cut_short());
        }
        Ok(len)
    }
}
