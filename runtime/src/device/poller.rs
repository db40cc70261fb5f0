//! Native devices call back only while somebody polls them: a thread does, as long as something is awaited.

use std::sync::mpsc;

use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct Poller {
    /// None only while it is dropped.
    submissions: Option<mpsc::Sender<wgpu::SubmissionIndex>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Poller {
    /// Starts the thread. It ends when the poller is dropped.
    pub(super) fn start(device: wgpu::Device) -> Result<Self> {
        let (submissions, awaited) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("bolmo-poller".to_owned())
            .spawn(move || {
                while let Ok(submission) = awaited.recv() {
                    // A lost device answers with an error, and its callbacks have been called.
                    let _ = device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
                }
            })
            .map_err(|e| Error::io(format!("a thread could not be started: {e}")))?;
        Ok(Self { submissions: Some(submissions), thread: Some(thread) })
    }

    pub(super) fn attend(&self, submission: wgpu::SubmissionIndex) {
        // The thread lives as long as self, unless it could not go on; then callbacks come with later polls.
        let _ = self.submissions.as_ref().map(|s| s.send(submission));
    }
}

impl Drop for Poller {
    /// Waits for the thread, which may hold the last reference to the device: were it left alone, it would unload the driver
    /// while the program exits and runs the driver's own exit handlers, which crashes it.
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            // It has nothing to return, and nothing that could panic is left to be reported.
            let _ = thread.join();
        }
    }
}
