//! Generating on several sessions together, which shares the work and takes less time than one after the other.
//!
//! Each session generates the same text as it would alone. They may be of different models and engines, but only those
//! of one model share work, and only without a constraint and without log-probabilities.
//!
//! bolmo_generate_batch generates on a fixed number of sessions. A bolmo_batch lets sessions come and go:
//!
//! ```c
//! static int32_t receive(size_t index, const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
//!     server *server = user_data;
//!     (void)ids;
//!     if (data != NULL) return send_to_client(server, index, data, size);
//!     // The generation has ended. Its session may generate again at once.
//!     bolmo_generation *generation;
//!     if (bolmo_batch_generation(server->batch, index, &generation) == BOLMO_OK) bolmo_generation_delete(generation);
//!     return 0;
//! }
//! ...
//! bolmo_batch_create(&server.batch);
//! bolmo_batch_add(server.batch, session, options, &index); // from any thread, and while the batch runs
//! ...
//! bolmo_batch_run(server.batch, receive, &server);         // until all have ended
//! bolmo_batch_delete(server.batch);
//! ```
//!
//! From bolmo_batch_add until its generation has ended, a session is in use: other calls with it return BOLMO_BUSY.
//! bolmo_session_cancel ends its generation, and a callback that returns a value other than 0 does. Deleting the
//! session is allowed; its generation continues.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bolmo_runtime::{Error, ErrorKind, GenerateOptions, Generation, GenerationBatch, Piece, Result, block_on};

use crate::generate::bolmo_generation;
use crate::handle::{self, opaque};
use crate::input::{self, Out, UserData};
use crate::options::{self, bolmo_generate_options};
use crate::session::{TakenSession, bolmo_session};
use crate::status::{bolmo_status, call};
use crate::text::busy;

/// Generations on several sessions, which may join and leave. Any number of threads may use it at once; one of them
/// runs it.
pub struct bolmo_batch {
    _opaque: [u8; 0],
}
opaque!(bolmo_batch, OpenBatch);

/// Receives a chunk of output of the session with number `index`, as a bolmo_piece_callback does. With NULL for `data`
/// and `ids` and a `size` of 0 the generation has ended: its session, if the batch could use it, is no longer in use.
/// In bolmo_batch_run its result is there; bolmo_generate_batch writes results when it returns.
///
/// Returns 0 to continue; any other value ends this generation only, and is ignored if it has ended. Called by the
/// thread that called bolmo_batch_run or bolmo_generate_batch. It may call the library, but calls with sessions in use
/// return BOLMO_BUSY, as running the batch does; bolmo_session_cancel, bolmo_session_delete and every other function of
/// the batch are allowed.
pub type bolmo_batch_callback = Option<
    unsafe extern "C" fn(index: usize, data: *const u8, size: usize, ids: *const u16, user_data: *mut c_void) -> i32,
>;

/// A batch, which threads share.
#[derive(Default)]
pub(crate) struct OpenBatch {
    /// Locked for short times only, so that sessions may join while the batch runs.
    sessions: Mutex<Sessions>,
    /// Locked while the batch runs.
    running: Mutex<GenerationBatch<TakenSession>>,
}

#[derive(Default)]
struct Sessions {
    /// Those that were added and have not joined the running batch.
    added: VecDeque<(TakenSession, GenerateOptions)>,
    /// Number of sessions that were ever added.
    count: usize,
    /// Results of those that have ended, until they are handed out.
    ended: HashMap<usize, Result<Generation>>,
    /// Those of `0..count` whose generation has not ended.
    open: BTreeSet<usize>,
    /// Whether a run takes what is added.
    active: bool,
}

impl OpenBatch {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a run in which it takes what is added. A run that ends early, by a panic, is not active any more either.
struct Active<'a>(&'a OpenBatch);

impl<'a> Active<'a> {
    /// Begins a run, unless there is one.
    fn begin(batch: &'a OpenBatch) -> Result<Self> {
        let mut sessions = batch.sessions();
        if sessions.active {
            return Err(busy("bolmo_batch"));
        }
        sessions.active = true;
        Ok(Self(batch))
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.sessions().active = false;
    }
}

/// The program's callback.
#[derive(Clone, Copy)]
struct Callback {
    function: bolmo_batch_callback,
    user_data: UserData,
}

impl Callback {
    fn new(function: bolmo_batch_callback, user_data: *mut c_void) -> Self {
        Self { function, user_data: UserData::new(user_data) }
    }

    fn pass(&self, index: usize, piece: Piece<'_>) -> ControlFlow<()> {
        let (data, ids) = (piece.bytes, piece.ids);
        let go_on = self.function.is_none_or(|function| {
            trusted!(function(index, data.as_ptr(), data.len(), ids.as_ptr(), self.user_data.get())) == 0
        });
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn ended(&self, index: usize) {
        if let Some(function) = self.function {
            trusted!(function(index, std::ptr::null(), 0, std::ptr::null(), self.user_data.get()));
        }
    }
}

/// Generates on `count` sessions, each with its own entry of `options`, until all have ended. `options` may be NULL,
/// and so may its entries, for the defaults. `callback` may be NULL; it receives the session's index in the array, and
/// once for each of them the end, also where nothing was generated.
///
/// `generations` and `statuses` may be NULL; else they have room for `count` results. Each session has its own status:
/// one that fails does not affect the others, and its generation is NULL. A session that occurs twice is BOLMO_BUSY the
/// second time. Returns BOLMO_OK if all succeeded, else the status of the first session in the array that failed, whose
/// message is this thread's. If an array is NULL that must not be, nothing is generated or written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_generate_batch(
    sessions: *const *mut bolmo_session,
    options: *const *const bolmo_generate_options,
    count: usize,
    callback: bolmo_batch_callback,
    user_data: *mut c_void,
    generations: *mut *mut bolmo_generation,
    statuses: *mut bolmo_status,
) -> bolmo_status {
    call(|| {
        let sessions = trusted!(input::items(sessions, count, "sessions"))?;
        let all_options = match options.is_null() {
            true => None,
            false => Some(trusted!(input::items(options, count, "options"))?),
        };
        let generations = trusted!(OutItems::optional(generations, count, "generations"))?;
        let statuses = trusted!(OutItems::optional(statuses, count, "statuses"))?;
        let mut batch = GenerationBatch::new();
        let mut results: Vec<Option<Result<Generation>>> = Vec::new();
        // For each session of the batch, its index in the array.
        let mut indices = Vec::new();
        for (index, &session) in sessions.iter().enumerate() {
            let options = all_options.map_or(std::ptr::null(), |all| all[index]);
            let taken = options::read(options).and_then(|options| Ok((TakenSession::new(session)?, options)));
            results.push(match taken {
                Ok((session, options)) => {
                    batch.add(session, options);
                    indices.push(index);
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        let callback = Callback::new(callback, user_data);
        // All are there before the callback, which may start other work, is called.
        for index in (0..count).filter(|&index| results[index].is_some()) {
            callback.ended(index);
        }
        while !batch.is_empty() {
            for ended in block_on(batch.round(&mut |number, piece| callback.pass(indices[number], piece))) {
                let index = indices[ended.index];
                results[index] = Some(ended.generation);
                drop(ended.session);
                callback.ended(index);
            }
        }
        let mut first_failure = None;
        let (mut made, mut outcomes) = (Vec::new(), Vec::new());
        for result in results {
            let lost = || Err(Error::internal("a generation of a batch has no outcome"));
            let handle = match (result.unwrap_or_else(lost), &generations) {
                (Ok(generation), Some(_)) => handle::insert(generation),
                (Ok(_), None) => Ok(std::ptr::null_mut()),
                (Err(error), _) => Err(error),
            };
            outcomes
                .push(handle.as_ref().map_or_else(|error| bolmo_status::of(error.kind()), |_| bolmo_status::BOLMO_OK));
            made.push(handle.unwrap_or_else(|error| {
                first_failure.get_or_insert(error);
                std::ptr::null_mut()
            }));
        }
        generations.into_iter().for_each(|places| places.set(&made));
        statuses.into_iter().for_each(|places| places.set(&outcomes));
        first_failure.map_or(Ok(()), Err)
    })
}

/// Creates a batch without sessions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_batch_create(batch: *mut *mut bolmo_batch) -> bolmo_status {
    call(|| {
        let batch = trusted!(Out::new(batch, "batch"))?;
        batch.set(handle::insert(OpenBatch::default())?);
        Ok(())
    })
}

/// Adds a session, which is in use from now on. `options` may be NULL; they are read by this call. `index` receives the
/// session's number in the batch: 0 for the first one, and one more for each further one; a session that is added again
/// gets a new number. May be called by any thread at any time, also in a callback: while the batch runs, the session
/// joins before the next byte, else it waits for bolmo_batch_run.
///
/// BOLMO_BUSY: the session is in use, also by this batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_batch_add(
    batch: *mut bolmo_batch,
    session: *mut bolmo_session,
    options: *const bolmo_generate_options,
    index: *mut usize,
) -> bolmo_status {
    call(|| {
        let index = trusted!(Out::new(index, "index"))?;
        let batch = handle::get(batch)?;
        let options = options::read(options)?;
        let session = TakenSession::new(session)?;
        let mut sessions = batch.sessions();
        let number = sessions.count;
        sessions.added.push_back((session, options));
        sessions.open.insert(number);
        sessions.count += 1;
        index.set(number);
        Ok(())
    })
}

/// Generates until the generations of all sessions in the batch have ended, including those that are added meanwhile.
/// `callback` may be NULL. Returns BOLMO_OK even if some fail: bolmo_batch_generation tells. Returns at once if there
/// are none. A session that is added in the callback joins, also at the end of the last generation; one that is added
/// later waits for the next run. Results are kept until they are handed out or the batch is deleted.
///
/// BOLMO_BUSY: the batch is running already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_batch_run(
    batch: *mut bolmo_batch,
    callback: bolmo_batch_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let batch = handle::get(batch)?;
        let active = Active::begin(&batch)?;
        // Free, or about to be: an earlier run is not active any more.
        let mut running = batch.running.lock().unwrap_or_else(PoisonError::into_inner);
        let callback = Callback::new(callback, user_data);
        loop {
            let mut sessions = batch.sessions();
            let joining: Vec<_> = sessions.added.drain(..).collect();
            if joining.is_empty() && running.is_empty() {
                // Under the lock, so that what is added from here on finds no active run. `active` must not say so
                // again: the next run may have begun by then.
                sessions.active = false;
                std::mem::forget(active);
                return Ok(());
            }
            drop(sessions);
            for (session, options) in joining {
                // In the same order, so the numbers are the same.
                running.add(session, options);
            }
            for ended in block_on(running.round(&mut |index, piece| callback.pass(index, piece))) {
                drop(ended.session);
                let mut sessions = batch.sessions();
                sessions.open.remove(&ended.index);
                sessions.ended.insert(ended.index, ended.generation);
                drop(sessions);
                callback.ended(ended.index);
            }
        }
    })
}

/// Hands out the result of the session with number `index`, which is there once. A failure of its generation is the
/// failure of this call. After BOLMO_DEVICE_LOST and similar failures the session keeps the bytes that the callback
/// received.
///
/// BOLMO_BUSY: the generation has not ended. BOLMO_NOT_FOUND: there is no such number, or its result was handed out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_batch_generation(
    batch: *mut bolmo_batch,
    index: usize,
    generation: *mut *mut bolmo_generation,
) -> bolmo_status {
    call(|| {
        let generation = trusted!(Out::new(generation, "generation"))?;
        let batch = handle::get(batch)?;
        let mut sessions = batch.sessions();
        let Some(result) = sessions.ended.remove(&index) else {
            if sessions.open.contains(&index) {
                return Err(busy(&format!("generation {index} of the batch")));
            }
            let count = sessions.count;
            let message = match index < count {
                true => format!("index: the result of generation {index} was handed out before"),
                false => format!("index: expected a number below {count} that bolmo_batch_add returned, found {index}"),
            };
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        drop(sessions);
        generation.set(handle::insert(result?)?);
        Ok(())
    })
}

/// Deletes the batch. A run continues to the end of the generations that were added; without one, sessions that were
/// added are no longer in use, and unchanged. Results that were not handed out are lost. NULL and deleted handles are
/// ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_batch_delete(batch: *mut bolmo_batch) {
    handle::delete(batch);
}

/// Places for several results. They are written by [`OutItems::set`] only.
struct OutItems<T> {
    places: *mut T,
    count: usize,
}

impl<T: Copy> OutItems<T> {
    /// `None` for NULL: the results are not wanted.
    ///
    /// # Safety
    /// `places` is NULL or valid for writes of `count` items during the call.
    unsafe fn optional(places: *mut T, count: usize, name: &str) -> Result<Option<Self>> {
        if places.is_null() {
            return Ok(None);
        }
        if !places.is_aligned() {
            return Err(input::invalid(format!("{name}: expected an aligned address, found {places:p}")));
        }
        Ok(Some(Self { places, count }))
    }

    fn set(self, values: &[T]) {
        let count = values.len().min(self.count);
        // SAFETY: the caller of `optional` promised that `count` places can be written, and they are aligned.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.places, count) };
    }
}
