//! Sessions: one sequence each, on a model.
//!
//! Text goes in by pieces, of any size and any bytes, and generations append to it. A session can be cloned, taken back to a
//! checkpoint, and saved as bytes:
//!
//! ```c
//! bolmo_session *session;
//! bolmo_session_create(model, &session);
//! bolmo_session_append_bos(session);
//! bolmo_session_append(session, question, strlen(question), NULL, NULL);
//! bolmo_session_checkpoint *asked;
//! bolmo_session_checkpoint_create(session, &asked);
//! bolmo_session_generate(session, options, print, stdout, NULL); // one answer
//! bolmo_session_rewind(session, asked);
//! bolmo_session_generate(session, others, print, stdout, NULL);  // another one
//! bolmo_session_checkpoint_delete(asked);
//! ```
//!
//! A session is used by one thread at a time; a second one gets BOLMO_BUSY. Only bolmo_session_cancel, bolmo_session_reset_cancel and
//! bolmo_session_delete may be called while another call with the session is running.

use std::ffi::c_void;
use std::sync::Mutex;

use bolmo_runtime::{CancelToken, Result, Session, SessionCheckpoint, block_on};

use crate::handle::{self, opaque};
use crate::input::{self, Out};
use crate::model::{Progress, bolmo_model, bolmo_progress_callback};
use crate::status::{bolmo_status, call};
use crate::text::{bolmo_bytes, lock};

/// One sequence on a model. It keeps the model alive.
pub struct bolmo_session {
    _opaque: [u8; 0],
}
opaque!(bolmo_session, OpenSession);

/// A state of a session to come back to. Any number of threads may use it at once. It keeps the model alive.
pub struct bolmo_session_checkpoint {
    _opaque: [u8; 0],
}
opaque!(bolmo_session_checkpoint, SessionCheckpoint);

/// A session, and what stops it while it is in use.
pub(crate) struct OpenSession {
    pub(crate) session: Mutex<Session>,
    cancel: CancelToken,
}

impl OpenSession {
    fn new(session: Session) -> Self {
        let cancel = session.cancel_token();
        Self { session: Mutex::new(session), cancel }
    }
}

/// Runs `work` with the session, if nobody else uses it.
pub(crate) fn with<T>(session: *const bolmo_session, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
    let object = handle::get(session)?;
    let mut session = lock(&object.session, "bolmo_session")?;
    work(&mut session)
}

/// Runs `work` with something that tells `progress`, and asks `cancel` to stop when the program wants to.
pub(crate) fn telling<T>(
    progress: Progress,
    cancel: &CancelToken,
    work: impl FnOnce(&mut (dyn FnMut(usize, usize) + Send)) -> T,
) -> T {
    work(&mut |done, total| {
        // At the end there is nothing left to stop, and the request would hit the next call.
        if !progress.tell(done as u64, total as u64) && done < total {
            cancel.cancel();
        }
    })
}

/// A session without any text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_create(
    model: *const bolmo_model,
    session: *mut *mut bolmo_session,
) -> bolmo_status {
    call(|| {
        let session = trusted!(Out::new(session, "session"))?;
        let model = handle::get(model)?;
        session.set(handle::insert(OpenSession::new(block_on(Session::new(&model.model))?))?);
        Ok(())
    })
}

/// Another session with the same text, which goes its own way from here. Memory is shared until one of them writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_clone(
    session: *mut bolmo_session,
    clone: *mut *mut bolmo_session,
) -> bolmo_status {
    call(|| {
        let clone = trusted!(Out::new(clone, "clone"))?;
        let copy = with(session, |session| block_on(session.try_clone()))?;
        clone.set(handle::insert(OpenSession::new(copy))?);
        Ok(())
    })
}

/// Appends the id that begins a text. Do this once, before the first text, unless the model should see it as cut out of the middle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_append_bos(session: *mut bolmo_session) -> bolmo_status {
    call(|| with(session, |session| block_on(session.append_bos())))
}

/// Appends text, any bytes. Pieces of any size come to the same as all at once. `progress`, which may be NULL, is told of bytes done
/// and in all, and can cancel.
///
/// BOLMO_CANCELLED: the session holds the bytes that were done (bolmo_session_length) and can go on from there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_append(
    session: *mut bolmo_session,
    data: *const c_void,
    size: usize,
    progress: bolmo_progress_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let data = trusted!(input::bytes(data, size, "data"))?;
        let progress = Progress::new(progress, user_data);
        with(session, |session| {
            let cancel = session.cancel_token();
            telling(progress, &cancel, |tell| block_on(session.append(data, tell)))
        })
    })
}

/// Appends plain ids: bytes as 4 to 259, and the special ids 0 and 1. Else as bolmo_session_append.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_append_ids(
    session: *mut bolmo_session,
    ids: *const u32,
    count: usize,
    progress: bolmo_progress_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let ids = trusted!(input::items(ids, count, "ids"))?;
        let progress = Progress::new(progress, user_data);
        with(session, |session| {
            let cancel = session.cancel_token();
            telling(progress, &cancel, |tell| block_on(session.append_ids(ids, tell)))
        })
    })
}

/// Stops what the session is doing, or else what it is asked to do next, within one bounded submission to the device. A generation
/// ends with BOLMO_STOP_CANCELLED and keeps what it has; appending returns BOLMO_CANCELLED. May be called from any thread at any time, but
/// not from a signal handler: let that set a flag, and a callback return it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_cancel(session: *mut bolmo_session) -> bolmo_status {
    call(|| {
        handle::get(session)?.cancel.cancel();
        Ok(())
    })
}

/// Takes back a bolmo_session_cancel that came too late for what it was meant for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_reset_cancel(session: *mut bolmo_session) -> bolmo_status {
    call(|| {
        handle::get(session)?.cancel.reset();
        Ok(())
    })
}

/// How many ids the session holds, the one that begins the text included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_length(session: *const bolmo_session, ids: *mut usize) -> bolmo_status {
    call(|| {
        let ids = trusted!(Out::new(ids, "ids"))?;
        ids.set(with(session, |session| Ok(session.ids().len()))?);
        Ok(())
    })
}

/// Copies the ids from `first` on to `ids`, which has room for `capacity`: `count` gets how many were copied, none with a
/// `capacity` of 0. Ids that end a patch are fused (BOLMO_FUSED_OFFSET added).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_ids(
    session: *const bolmo_session,
    first: usize,
    ids: *mut u16,
    capacity: usize,
    count: *mut usize,
) -> bolmo_status {
    call(|| {
        let count = trusted!(Out::new(count, "count"))?;
        let copied = with(session, |session| {
            let all = session.ids().get(first..).unwrap_or_default();
            let some = &all[..all.len().min(capacity)];
            trusted!(input::fill(ids, capacity, some, "ids"))?;
            Ok(some.len())
        })?;
        count.set(copied);
        Ok(())
    })
}

/// How many patches have gone through the global model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_patches(session: *const bolmo_session, patches: *mut usize) -> bolmo_status {
    call(|| {
        let patches = trusted!(Out::new(patches, "patches"))?;
        patches.set(with(session, |session| Ok(session.patches()))?);
        Ok(())
    })
}

/// Bytes of device memory that the sequence holds, those that it shares with clones included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_device_bytes(session: *const bolmo_session, bytes: *mut u64) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        bytes.set(with(session, |session| Ok(session.device_bytes()))?);
        Ok(())
    })
}

/// A state of the session to come back to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_checkpoint_create(
    session: *mut bolmo_session,
    checkpoint: *mut *mut bolmo_session_checkpoint,
) -> bolmo_status {
    call(|| {
        let checkpoint = trusted!(Out::new(checkpoint, "checkpoint"))?;
        checkpoint.set(handle::insert(with(session, |session| block_on(session.checkpoint()))?)?);
        Ok(())
    })
}

/// Deletes the checkpoint. NULL and handles that were deleted are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_session_checkpoint_delete(checkpoint: *mut bolmo_session_checkpoint) {
    handle::delete(checkpoint);
}

/// Takes the session back (or over) to the checkpoint, as if nothing had happened since. Also makes a session usable again after a
/// call with it failed half-way.
///
/// BOLMO_INVALID_ARGUMENT: the checkpoint was taken on another model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_rewind(
    session: *mut bolmo_session,
    checkpoint: *const bolmo_session_checkpoint,
) -> bolmo_status {
    call(|| {
        let checkpoint = handle::get(checkpoint)?;
        with(session, |session| block_on(session.rewind(&checkpoint)))
    })
}

/// The session as bytes, to go on from later or elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_snapshot(
    session: *mut bolmo_session,
    snapshot: *mut *mut bolmo_bytes,
) -> bolmo_status {
    call(|| {
        let snapshot = trusted!(Out::new(snapshot, "snapshot"))?;
        snapshot.set(handle::insert(with(session, |session| block_on(session.snapshot()))?)?);
        Ok(())
    })
}

/// The session that a snapshot was taken of: it goes on as if never interrupted.
///
/// BOLMO_BAD_CHECKPOINT: the bytes are no snapshot, cut short or damaged. BOLMO_INVALID_ARGUMENT: a snapshot of another model, format
/// or version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_session_restore(
    model: *const bolmo_model,
    data: *const c_void,
    size: usize,
    session: *mut *mut bolmo_session,
) -> bolmo_status {
    call(|| {
        let session = trusted!(Out::new(session, "session"))?;
        let data = trusted!(input::bytes(data, size, "data"))?;
        let model = handle::get(model)?;
        session.set(handle::insert(OpenSession::new(block_on(Session::restore(&model.model, data))?))?);
        Ok(())
    })
}

/// Deletes the session. If a call with it is running, that call goes on to its end. NULL and handles that were deleted are left
/// alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_session_delete(session: *mut bolmo_session) {
    handle::delete(session);
}
