//! Sessions.

use bolmo::session::*;
use jni_sys::jlong;

use crate::callback::Callback;
use crate::env::{ByteArray, IntArray, LongArray, ProgressObject, ShortArray, at, size};
use crate::native::{check, make, number, read, take_bytes};

natives! {
    fn sessionCreate(_env, model: jlong) -> jlong { make(|out| abi!(bolmo_session_create(at(model), out))) }

    fn sessionClone(_env, session: jlong) -> jlong { make(|out| abi!(bolmo_session_clone(at(session), out))) }

    fn sessionAppendBos(_env, session: jlong) { check(abi!(bolmo_session_append_bos(at(session)))) }

    fn sessionAppend(env, session: jlong, data: ByteArray, progress: ProgressObject) {
        let (data, callback) = (env.bytes(data)?, Callback::new(env, progress.0));
        callback.outcome(check(abi!(bolmo_session_append(
            at(session),
            data.pointer().cast(),
            data.len(),
            callback.progress(),
            callback.user_data()
        ))))
    }

    fn sessionAppendIds(env, session: jlong, ids: IntArray, progress: ProgressObject) {
        let (ids, callback) = (env.ints(ids)?, Callback::new(env, progress.0));
        callback.outcome(check(abi!(bolmo_session_append_ids(
            at(session),
            ids.pointer(),
            ids.len(),
            callback.progress(),
            callback.user_data()
        ))))
    }

    fn sessionCancel(_env, session: jlong) { check(abi!(bolmo_session_cancel(at(session)))) }

    fn sessionResetCancel(_env, session: jlong) { check(abi!(bolmo_session_reset_cancel(at(session)))) }

    fn sessionLength(_env, session: jlong) -> jlong { number(|out| abi!(bolmo_session_length(at(session), out))) }

    /// All ids from number `first` on.
    fn sessionIds(env, session: jlong, first: jlong) -> ShortArray {
        let first = size(first, "first")?;
        let length = read(|out| abi!(bolmo_session_length(at(session), out)))?;
        let mut ids = vec![0; length.saturating_sub(first)];
        let capacity = ids.len();
        let count = read(|out| abi!(bolmo_session_ids(at(session), first, ids.as_mut_ptr(), capacity, out)))?;
        env.short_array(&ids[..count.min(capacity)])
    }

    fn sessionPatches(_env, session: jlong) -> jlong {
        number(|out| abi!(bolmo_session_patches(at(session), out)))
    }

    fn sessionDeviceBytes(_env, session: jlong) -> jlong {
        number(|out| abi!(bolmo_session_device_bytes(at(session), out)))
    }

    /// What is done, and the total.
    fn sessionProgress(env, session: jlong) -> LongArray {
        let (mut done, mut total) = (0, 0);
        check(abi!(bolmo_session_progress(at(session), &mut done, &mut total)))?;
        env.long_array(&[done, total].map(|count: u64| count as jlong))
    }

    fn sessionCheckpointCreate(_env, session: jlong) -> jlong {
        make(|out| abi!(bolmo_session_checkpoint_create(at(session), out)))
    }

    fn sessionCheckpointDelete(_env, checkpoint: jlong) {
        bolmo_session_checkpoint_delete(at(checkpoint));
        Ok(())
    }

    fn sessionRewind(_env, session: jlong, checkpoint: jlong) {
        check(abi!(bolmo_session_rewind(at(session), at(checkpoint))))
    }

    fn sessionSnapshot(env, session: jlong) -> ByteArray {
        take_bytes(env, |out| abi!(bolmo_session_snapshot(at(session), out)))
    }

    fn sessionRestore(env, model: jlong, snapshot: ByteArray) -> jlong {
        let snapshot = env.bytes(snapshot)?;
        make(|out| abi!(bolmo_session_restore(at(model), snapshot.pointer().cast(), snapshot.len(), out)))
    }

    fn sessionDelete(_env, session: jlong) {
        bolmo_session_delete(at(session));
        Ok(())
    }
}
