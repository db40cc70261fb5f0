//! The thread that runs submissions, one for the process.
//!
//! It is the first thread of the [`Pool`]: it takes part in every task, so that a program with one thread for computing
//! has one thread that computes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use bolmo_shaders::Access;
use bolmo_shaders::simd::{Call, InstructionSet, Memory, NoMemory, OddRows, Products};
use futures_channel::oneshot;

use super::buffer::HostBuffer;
use super::command::{Command, Commands, Times, add_time, buffer};
use super::pool::{Pool, Team, spawn, spin};
use crate::allocate;
use crate::device::interrupt::Interrupt;
use crate::device::memory::Slice;
use crate::device::process::Process;
use crate::device::status::Status;
use crate::error::{Error, ErrorKind, Result};

/// What the executor is asked to do.
pub(super) enum Job {
    /// Runs a list of commands.
    Run(Box<Submission>),
    /// Writes to a buffer.
    Write { to: HostBuffer, offset: u64, bytes: Box<[u8]> },
    /// Tells that everything before is done.
    Signal(oneshot::Sender<()>),
}

/// A submitted list of commands.
pub(super) struct Submission {
    pub(super) commands: Commands,
    /// What is read back afterwards.
    pub(super) reads: Vec<Slice>,
    /// Receives what was read, or the reason why the commands failed.
    pub(super) reply: Option<oneshot::Sender<Result<Vec<u8>>>>,
    /// Receives the reason if there is no `reply`.
    pub(super) status: Arc<Status>,
    pub(super) times: Option<Arc<Times>>,
    pub(super) interrupt: Option<Interrupt>,
    pub(super) threads: usize,
    pub(super) instructions: InstructionSet,
    pub(super) products: Products,
}

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
                    job.run(&pool);
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

impl Job {
    fn run(self, pool: &Pool) {
        match self {
            Job::Run(submission) => submission.run(pool),
            // SAFETY: once a submission has used a buffer, this thread and its helpers alone access it, and the helpers
            // have nothing to do now.
            Job::Write { to, offset, bytes } => unsafe { to.write(offset, &bytes) },
            // Sending fails if the waiting future was dropped.
            Job::Signal(done) => drop(done.send(())),
        }
    }
}

impl Submission {
    fn run(self, pool: &Pool) {
        let result = match catch_unwind(AssertUnwindSafe(|| self.commands(pool))) {
            Ok(result) => result,
            Err(panic) if panic.is::<NoMemory>() => Err(Error::new(
                ErrorKind::OutOfMemory,
                "a kernel of the CPU device: there is not enough memory for its intermediate results",
            )),
            Err(_) => Err(Error::internal("a kernel of the CPU device panicked")),
        };
        // Before the host learns that it is done: memory that it drops then is free at once.
        drop((self.commands, self.reads));
        match (self.reply, result) {
            // Sending fails if the waiting future was dropped.
            (Some(reply), result) => drop(reply.send(result)),
            // The submission that the host waits for says so.
            (None, Err(error)) if error.kind() == ErrorKind::Cancelled => {}
            (None, Err(error)) => self.status.report(error),
            (None, Ok(_)) => {}
        }
    }

    /// Runs the commands and returns what is to be read back.
    fn commands(&self, pool: &Pool) -> Result<Vec<u8>> {
        let team = pool.team(self.threads);
        for command in &self.commands.list {
            self.command(command, &team)?;
        }
        if self.interrupt.as_ref().is_some_and(Interrupt::has_skipped) {
            return Err(Error::new(ErrorKind::Cancelled, "the work was stopped"));
        }
        let mut bytes = Vec::new();
        allocate::reserve(&mut bytes, self.reads.iter().map(|slice| slice.size as usize).sum(), "results")?;
        for slice in &self.reads {
            // SAFETY: this thread alone accesses the buffer between dispatches.
            bytes.extend_from_slice(unsafe { buffer(slice)?.bytes(slice.offset, slice.size) });
        }
        Ok(bytes)
    }

    fn command(&self, command: &Command, team: &Team<'_>) -> Result<()> {
        let slices = &self.commands.slices;
        match command {
            // Copies are made all the same: those of a growing KV cache must not be lost.
            Command::Dispatch { .. } if self.interrupt.as_ref().is_some_and(Interrupt::skips) => {}
            Command::Dispatch { kernel, .. } => match &self.times {
                None => self.dispatch(command, team)?,
                Some(times) => {
                    let begun = Instant::now();
                    self.dispatch(command, team)?;
                    add_time(times, *kernel, begun.elapsed());
                }
            },
            &Command::Copy(at) => {
                let (from, to) = (&slices[at], &slices[at + 1]);
                let (source, target) = (buffer(from)?, buffer(to)?);
                if source == target {
                    return Err(Error::internal("a copy within a buffer"));
                }
                // SAFETY: this thread alone accesses the buffers between dispatches, and they are two.
                unsafe { target.write(to.offset, source.bytes(from.offset, from.size)) };
            }
            &Command::Clear(at) => {
                let slice = &slices[at];
                // SAFETY: this thread alone accesses the buffer between dispatches.
                unsafe { buffer(slice)?.clear(slice.offset, slice.size) };
            }
        }
        Ok(())
    }

    fn dispatch(&self, command: &Command, team: &Team<'_>) -> Result<()> {
        let Command::Dispatch { kernel, format, fusion, params, slices, guarded, scaled, alternates, any_order, grid } =
            command
        else {
            return Ok(());
        };
        let bindings = kernel.kernel().bindings;
        let mut memory: Vec<Memory<'_>> = Vec::with_capacity(slices.len());
        for (i, slice) in self.commands.slices[slices.clone()].iter().enumerate() {
            let buffer = buffer(slice)?;
            if buffer.is_read_only() && bindings.get(i).is_some_and(|binding| binding.access == Access::ReadWrite) {
                return Err(Error::internal("a kernel would write to memory that is only read"));
            }
            // SAFETY: the executor runs one dispatch at a time, and nothing else accesses the buffers of submissions.
            // `Call::run` checks that no range that is written overlaps another one.
            memory.push(unsafe { buffer.memory(slice.offset, slice.size) });
        }
        let odd_scales = (*alternates && *scaled).then(|| memory.pop()).flatten();
        let odd_weights = alternates.then(|| memory.pop()).flatten();
        let scales = scaled.then(|| memory.pop()).flatten();
        let guard = guarded.then(|| memory.pop()).flatten();
        let call = Call {
            kernel: *kernel,
            format: *format,
            fusion: *fusion,
            params: &self.commands.params[params.clone()],
            bindings: &memory,
            scales,
            any_order: *any_order,
            odd_rows: odd_weights.map(|weights| OddRows { weights, scales: odd_scales }),
            guard,
            grid: *grid,
            instructions: self.instructions,
            products: self.products,
            workers: team,
        };
        call.run().map_err(|fault| Error::internal(format!("the CPU device refused a dispatch: {fault}")))
    }
}
