//! A thread that polls the device. Native devices invoke callbacks only while somebody polls them.

use std::sync::mpsc;

use crate::error::{Error, Result};

/// Polls the device for submissions that somebody awaits.
#[derive(Debug)]
pub(super) struct Poller {
    /// `None` only during the drop.
    submissions: Option<mpsc::Sender<wgpu::SubmissionIndex>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Poller {
    /// Starts the thread, which ends when the poller is dropped.
    pub(super) fn start(device: wgpu::Device) -> Result<Self> {
        let (submissions, awaited) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("bolmo-poller".to_owned())
            .spawn(move || {
                while let Ok(submission) = awaited.recv() {
                    // A lost device returns an error, but has invoked its callbacks by then.
                    let _ = device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
                }
            })
            .map_err(|e| Error::io(format!("the thread that polls the device could not be started: {e}")))?;
        Ok(Self { submissions: Some(submissions), thread: Some(thread) })
    }

    /// Polls until the callbacks of `submission` have been invoked, without blocking the caller.
    pub(super) fn attend(&self, submission: wgpu::SubmissionIndex) {
        // The thread ends before `self` only if it panicked; callbacks then come with later polls.
        let _ = self.submissions.as_ref().map(|s| s.send(submission));
    }
}

impl Drop for Poller {
    /// Joins the thread, which may hold the last reference to the device. A detached thread could unload the driver
    /// while the program exits and runs the driver's exit handlers, which crashes the program.
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            // The thread returns nothing, and a panic cannot be reported from here.
            let _ = thread.join();
        }
    }
}
