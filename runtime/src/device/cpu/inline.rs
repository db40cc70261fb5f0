//! Running submissions on the calling thread, which in browsers is the only one.
//!
//! A task of the browser's event loop takes jobs from the queue, in order, and lets other tasks have their turn from
//! time to time ([`turns`](super::turns)), so that requests to stop arrive while a submission runs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bolmo_shaders::simd::Workers;

use super::submission::{Job, Submission};
use super::turns;
use crate::error::Result;

/// The executor of an engine.
#[derive(Debug, Default)]
pub(super) struct Executor {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue(Mutex<Jobs>);

#[derive(Default)]
struct Jobs {
    list: VecDeque<Job>,
    /// Whether a task takes jobs from the list.
    attended: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor. There is one thread.
    pub(super) fn shared(_: usize) -> Result<Arc<Self>> {
        Ok(Arc::default())
    }

    /// Adds a job behind all others. It begins when the caller waits for something.
    pub(super) fn submit(&self, job: Job) {
        let mut jobs = self.queue.jobs();
        jobs.list.push_back(job);
        if !std::mem::replace(&mut jobs.attended, true) {
            wasm_bindgen_futures::spawn_local(attend(self.queue.clone()));
        }
    }
}

impl Queue {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The next job. Without one, nobody attends to the list any more.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs();
        let next = jobs.list.pop_front();
        jobs.attended = next.is_some();
        next
    }
}

/// The calling thread.
struct Alone;

impl Workers for Alone {
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}

async fn attend(queue: Arc<Queue>) {
    while let Some(job) = queue.next() {
        match job {
            Job::Run(submission) => {
                let result = run(&submission).await;
                submission.answer(result);
            }
            // SAFETY: once a submission has used a buffer, this task alone accesses it, and one of its jobs at a time.
            Job::Write { to, offset, bytes } => unsafe { to.write(offset, &bytes) },
            // Sending fails if the waiting future was dropped.
            Job::Signal(done) => drop(done.send(())),
        }
    }
}

/// Runs the commands and returns what is to be read back.
async fn run(submission: &Submission) -> Result<Vec<u8>> {
    for i in 0..submission.len() {
        turns::pass_if_due().await;
        submission.command(i, &Alone)?;
    }
    submission.results()
}
