//! The threads that compute, and how they share the tasks of a kernel.
//!
//! A decode step is a chain of hundreds of short kernels, so handing out tasks must take a microsecond at most. The
//! threads therefore spin for a while before they sleep. The executor's thread opens a job, takes tasks itself, and
//! waits only for threads that have joined: one that wakes up late finds the job closed and holds nobody up.
//!
//! Tasks are divided into ranges, one for each thread, which takes its own in order and then helps with the others.
//! Neighboring tasks read neighboring weights, so what a task prefetches of the next one is of use to the same core.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use bolmo_shaders::simd::{NoMemory, Workers};

use crate::error::{Error, Result};

/// Turns of a loop that waits before its thread sleeps: some tens of microseconds.
const SPINS: usize = 2000;
/// Turns after which the thread offers its core to others.
const SPINS_BEFORE_YIELD: usize = 400;

/// Keeps what several threads write apart, so that they don't take each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// Most ranges that tasks are divided into. If there are more threads, some share a range.
const MAX_RANGES: usize = 16;

/// What helpers do: the tasks of one kernel.
type Task = *const (dyn Fn(usize) + Sync);

struct Job {
    task: Task,
    tasks: usize,
    /// Ranges that the tasks are divided into, 1 to [`MAX_RANGES`].
    ranges: usize,
}

/// What threads share.
struct Shared {
    /// The job's number in the upper 32 bits, then the number of helpers that may still join, then the number of those
    /// that have joined and not left, 16 bits each.
    gate: Apart<AtomicU64>,
    /// The next task of each range, counted from its beginning.
    next: [Apart<AtomicUsize>; MAX_RANGES],
    /// Written by the executor's thread while no helper is in the job.
    job: UnsafeCell<Job>,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// Whether a task had not enough memory.
    no_memory: AtomicBool,
}

// SAFETY: `job` is written only while the gate is closed and no helper is in the job, and read only by helpers that
// have joined. The task is `Sync`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

const SEAT: u64 = 1 << 16;
const SEATS: u64 = 0xffff << 16;
const INSIDE: u64 = 0xffff;

fn number(gate: u64) -> u32 {
    (gate >> 32) as u32
}

/// The helpers of the executor's thread.
#[derive(Default)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    helpers: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Default for Shared {
    fn default() -> Self {
        let nothing: &(dyn Fn(usize) + Sync) = &|_| ();
        Self {
            gate: Apart::default(),
            next: Default::default(),
            job: UnsafeCell::new(Job { task: nothing, tasks: 0, ranges: 1 }),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            no_memory: AtomicBool::new(false),
        }
    }
}

/// The threads that work for one submission.
pub(super) struct Team<'a> {
    shared: &'a Shared,
    helpers: usize,
}

impl Pool {
    /// Starts helpers until there are `threads` threads, that of the executor included.
    pub(super) fn grow(&self, threads: usize) -> Result<()> {
        let mut helpers = self.helpers.lock().unwrap_or_else(|e| e.into_inner());
        while helpers.len() + 1 < threads {
            let shared = self.shared.clone();
            helpers.push(spawn("bolmo-cpu-helper", move || shared.help())?);
        }
        Ok(())
    }

    /// A team of `threads` threads, the calling one included. There is one team at a time: the executor's.
    pub(super) fn team(&self, threads: usize) -> Team<'_> {
        Team { shared: &self.shared, helpers: threads.saturating_sub(1).min(INSIDE as usize) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let helpers = self.helpers.get_mut().unwrap_or_else(|e| e.into_inner());
        if helpers.is_empty() {
            return;
        }
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_all();
        for helper in helpers.drain(..) {
            // The thread returns nothing, and a panic cannot be reported from here.
            let _ = helper.join();
        }
    }
}

impl Workers for Team<'_> {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let helpers = self.helpers.min(tasks.saturating_sub(1));
        if helpers == 0 {
            return (0..tasks).for_each(task);
        }
        let (shared, ranges) = (self.shared, (helpers + 1).min(MAX_RANGES));
        // SAFETY: the gate is closed and nobody is inside, see the end of this function, so no helper reads the job.
        // The task outlives its use, because this function returns only when nobody is inside any more.
        unsafe {
            let task = std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task);
            *shared.job.get() = Job { task, tasks, ranges };
        }
        shared.next[..ranges].iter().for_each(|next| next.0.store(0, Ordering::Relaxed));
        let old = shared.gate.0.load(Ordering::Relaxed);
        let new = (u64::from(number(old).wrapping_add(1)) << 32) | (helpers as u64 * SEAT);
        shared.gate.0.store(new, Ordering::Release);
        // Pairs with the fence of a helper that is about to sleep: one of the two sees the other's store.
        fence(Ordering::SeqCst);
        if shared.sleepers.load(Ordering::Relaxed) > 0 {
            shared.wake_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(task, [tasks, ranges], 0)));
        // Closed: who comes now finds no seat.
        shared.gate.0.fetch_and(!SEATS, Ordering::Relaxed);
        let mut turns = 0_usize;
        while shared.gate.0.load(Ordering::Acquire) & INSIDE != 0 {
            turns += 1;
            pause(turns);
        }
        let (panicked, no_memory) =
            (shared.panicked.swap(false, Ordering::Relaxed), shared.no_memory.swap(false, Ordering::Relaxed));
        match own {
            Err(panic) => resume_unwind(panic),
            Ok(()) if panicked => panic!("a task of a kernel panicked"),
            Ok(()) if no_memory => resume_unwind(Box::new(NoMemory)),
            Ok(()) => {}
        }
    }
}

impl Shared {
    /// Takes tasks of the range with number `first` in order, then of the others.
    fn take_tasks(&self, task: &(dyn Fn(usize) + Sync), [tasks, ranges]: [usize; 2], first: usize) {
        for i in 0..ranges {
            let range = (first + i) % ranges;
            let [begin, end] = [range, range + 1].map(|range| range * tasks / ranges);
            loop {
                let number = begin + self.next[range].0.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    break;
                }
                task(number);
            }
        }
    }

    /// What a helper does until the pool ends.
    fn help(&self) {
        let mut seen = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let comes = || number(self.gate.0.load(Ordering::Acquire)) != seen || self.stop.load(Ordering::Relaxed);
            if !spin(comes) {
                self.sleep_until(comes);
            }
            let mut gate = self.gate.0.load(Ordering::Acquire);
            seen = number(gate);
            while number(gate) == seen && gate & SEATS != 0 {
                let joined = gate - SEAT + 1;
                match self.gate.0.compare_exchange_weak(gate, joined, Ordering::Acquire, Ordering::Acquire) {
                    Ok(_) => {
                        // The executor's thread has begun with range 0.
                        self.work(((gate & SEATS) / SEAT) as usize);
                        break;
                    }
                    Err(now) => gate = now,
                }
            }
        }
    }

    /// Takes tasks of the job that this helper has joined, those of range `seat` first, then leaves it.
    fn work(&self, seat: usize) {
        let done = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: this helper has joined, so the executor's thread waits for it: the job does not change, and the
            // task lives.
            let (task, sizes) = unsafe {
                let job = &*self.job.get();
                (&*job.task, [job.tasks, job.ranges])
            };
            self.take_tasks(task, sizes, seat);
        }));
        if let Err(panic) = done {
            let what = if panic.is::<NoMemory>() { &self.no_memory } else { &self.panicked };
            what.store(true, Ordering::Relaxed);
        }
        self.gate.0.fetch_sub(1, Ordering::Release);
    }

    fn sleep_until(&self, comes: impl Fn() -> bool) {
        let mut guard = self.sleep.lock().unwrap_or_else(|e| e.into_inner());
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence after a job was opened.
        fence(Ordering::SeqCst);
        while !comes() {
            guard = self.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    fn wake_all(&self) {
        // A helper between its last look and its wait holds the lock.
        drop(self.sleep.lock().unwrap_or_else(|e| e.into_inner()));
        self.wake.notify_all();
    }
}

/// Waits a short time for `comes`, and returns whether it came.
pub(super) fn spin(comes: impl Fn() -> bool) -> bool {
    for turn in 0..SPINS {
        if comes() {
            return true;
        }
        pause(turn);
    }
    false
}

/// One turn of a loop that waits.
fn pause(turn: usize) {
    // Where other threads want the core, the one that is waited for may be among them.
    if turn < SPINS_BEFORE_YIELD || !turn.is_multiple_of(32) {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Starts a thread that computes.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    // Signals are for the host's own threads. A new thread inherits what its creator blocks.
    let _blocked = BlockedSignals::new();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            flush_subnormals();
            work();
        })
        .map_err(|e| Error::io(format!("a thread of the CPU device could not be started: {e}")))
}

/// Makes this thread treat subnormal numbers as zeros, as GPUs do. Arithmetic with them takes a hundred times as long.
fn flush_subnormals() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: sets two bits of this thread's floating-point control register: flush to zero, and subnormals are zeros.
    // No code of this thread relies on subnormal numbers.
    unsafe {
        let mut control = 0_u32;
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags));
        control |= (1 << 15) | (1 << 6);
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: sets bit FZ of this thread's floating-point control register. No code of this thread relies on subnormal
    // numbers.
    unsafe {
        let mut control: u64;
        std::arch::asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags));
        control |= 1 << 24;
        std::arch::asm!("msr fpcr, {}", in(reg) control, options(nomem, nostack, preserves_flags));
    }
}

/// Blocks all signals for the calling thread until it is dropped.
struct BlockedSignals {
    #[cfg(unix)]
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> Self {
        #[cfg(unix)]
        // SAFETY: both sets are written by the functions before they are read.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
        #[cfg(not(unix))]
        Self {}
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        #[cfg(unix)]
        // SAFETY: the set was written by `new`.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = Pool::default();
        pool.grow(4).expect("threads");
        for threads in 1..=5 {
            for tasks in [0, 1, 2, 3, 7, 100, 1000] {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.team(threads).run(tasks, &|task| {
                    runs[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn jobs_follow_one_another_without_mixing() {
        let pool = Pool::default();
        pool.grow(3).expect("threads");
        let team = pool.team(3);
        let mut values = vec![0_usize; 64];
        for round in 0..5000 {
            let cells: Vec<AtomicUsize> = values.iter().map(|&value| AtomicUsize::new(value)).collect();
            team.run(cells.len(), &|task| {
                cells[task].fetch_add(task + round, Ordering::Relaxed);
            });
            values = cells.into_iter().map(AtomicUsize::into_inner).collect();
        }
        let sum: usize = (0..5000).sum();
        assert!(values.iter().enumerate().all(|(task, &value)| value == 5000 * task + sum));
    }

    #[test]
    fn helpers_wake_up_after_they_slept() {
        let pool = Pool::default();
        pool.grow(2).expect("threads");
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let threads = Mutex::new(std::collections::HashSet::new());
            pool.team(2).run(2, &|_| {
                threads.lock().expect("no task panics").insert(std::thread::current().id());
                // Long enough for the other thread to take the second task.
                std::thread::sleep(std::time::Duration::from_millis(50));
            });
            assert_eq!(threads.into_inner().expect("no task panics").len(), 2);
        }
    }

    #[test]
    fn a_task_that_panics_ends_its_job_alone() {
        let pool = Pool::default();
        pool.grow(3).expect("threads");
        for bad in [0, 50, 99] {
            let job = || pool.team(3).run(100, &|task| assert!(task != bad, "a test of panics"));
            assert!(catch_unwind(AssertUnwindSafe(job)).is_err());
            pool.team(3).run(100, &|_| ());
        }
    }

    #[test]
    fn a_task_without_memory_ends_its_job_alone() {
        let pool = Pool::default();
        pool.grow(3).expect("threads");
        for bad in [0, 50, 99] {
            let task = |task| {
                if task == bad {
                    resume_unwind(Box::new(NoMemory));
                }
            };
            let panic = catch_unwind(AssertUnwindSafe(|| pool.team(3).run(100, &task))).unwrap_err();
            assert!(panic.is::<NoMemory>(), "task {bad}");
            pool.team(3).run(100, &|_| ());
        }
    }

    #[test]
    fn dropping_the_pool_ends_its_threads() {
        let pool = Pool::default();
        pool.grow(4).expect("threads");
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        assert!(shared.upgrade().is_none(), "a thread still has the pool");
    }
}
