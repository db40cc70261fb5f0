//! The thread that runs submissions, one for the process.
//!
//! It is the first thread of the [`Pool`]: it takes part in every task, so that a program with one thread for computing
//! has one thread that computes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;

use bolmo_shaders::simd::NoMemory;

use super::pool::{Pool, spawn, spin};
use super::submission::{Job, Submission};
use crate::device::process::Process;
use crate::error::{Error, ErrorKind, Result};

/// The executor that the engines of the process share.
#[derive(Debug)]
pub(super) struct Executor {
    queue: Arc<Queue>,
    pool: Arc<Pool>,
    /// The process that has the threads; a fork of it doesn't.
    process: Process,
    /// `None` only during the drop.
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
    /// Length of the list, to look at without the lock.
    length: AtomicUsize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("length", &self.length).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Jobs {
    list: VecDeque<Job>,
    closed: bool,
}

static SHARED: Mutex<Weak<Executor>> = Mutex::new(Weak::new());

impl Executor {
    /// The executor, with at least `threads` threads. It is started for the first engine and ends with the last one.
    pub(super) fn shared(threads: usize) -> Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(executor) = shared.upgrade().filter(|executor| executor.process.is_current()) {
            executor.pool.grow(threads)?;
            return Ok(executor);
        }
        let (queue, pool) = (Arc::<Queue>::default(), Arc::new(Pool::default()));
        pool.grow(threads)?;
        let thread = {
            let (queue, pool) = (queue.clone(), pool.clone());
            spawn("bolmo-cpu", move || {
                while let Some(job) = queue.next() {
                    run(job, &pool);
                }
            })?
        };
        let executor = Arc::new(Self { queue, pool, process: Process::current(), thread: Some(thread) });
        *shared = Arc::downgrade(&executor);
        Ok(executor)
    }

    /// Adds a job behind all others. A process that was forked has no threads for it.
    pub(super) fn submit(&self, job: Job) {
        let mut jobs = self.queue.jobs();
        jobs.list.push_back(job);
        self.queue.length.store(jobs.list.len(), Ordering::Release);
        drop(jobs);
        self.queue.more.notify_one();
    }
}

impl Drop for Executor {
    /// Ends the threads, so that a library with this code can be unloaded.
    fn drop(&mut self) {
        if !self.process.is_current() {
            // There is nothing to wait for, and locks may be held by threads that don't exist here.
            std::mem::forget((self.thread.take(), self.pool.clone()));
            return;
        }
        self.queue.jobs().closed = true;
        self.queue.more.notify_one();
        // The last engine may be dropped by a waker that the thread itself calls.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            // The thread returns nothing, and a panic cannot be reported from here.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The next job, or `None` when the queue is closed and empty.
    fn next(&self) -> Option<Job> {
        // While text is generated the next submission comes soon, and waking a thread takes long.
        spin(|| self.length.load(Ordering::Acquire) > 0);
        let mut jobs = self.jobs();
        loop {
            if let Some(job) = jobs.list.pop_front() {
                self.length.store(jobs.list.len(), Ordering::Release);
                return Some(job);
            }
            if jobs.closed {
                return None;
            }
            jobs = self.more.wait(jobs).unwrap_or_else(|e| e.into_inner());
        }
    }
}

fn run(job: Job, pool: &Pool) {
    match job {
        Job::Run(submission) => {
            let result = run_commands(&submission, pool);
            submission.answer(result);
        }
        // SAFETY: once a submission has used a buffer, this thread and its helpers alone access it, and the helpers
        // have nothing to do now.
        Job::Write { to, offset, bytes } => unsafe { to.write(offset, &bytes) },
        // Sending fails if the waiting future was dropped.
        Job::Signal(done) => drop(done.send(())),
    }
}

/// Runs the commands and returns what is to be read back.
fn run_commands(submission: &Submission, pool: &Pool) -> Result<Vec<u8>> {
    let team = pool.team(submission.threads);
    let all = || {
        (0..submission.len()).try_for_each(|i| submission.command(i, &team))?;
        submission.results()
    };
    match catch_unwind(AssertUnwindSafe(all)) {
        Ok(result) => result,
        Err(panic) if panic.is::<NoMemory>() => Err(Error::new(
            ErrorKind::OutOfMemory,
            "a kernel of the CPU device: there is not enough memory for its intermediate results",
        )),
        Err(_) => Err(Error::internal("a kernel of the CPU device panicked")),
    }
}
