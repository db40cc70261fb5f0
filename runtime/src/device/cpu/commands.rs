//! Command lists of the CPU device.

use std::sync::Arc;

#[cfg(not(target_family = "wasm"))]
use bolmo_shaders::KernelId;
use bolmo_shaders::WeightFormat;
use futures_channel::oneshot;

#[cfg(not(target_family = "wasm"))]
use super::command::Times;
use super::command::{Command, Commands, buffer};
use super::device::Cpu;
use super::submission::{Job, Submission};
use crate::device::dispatch::Dispatch;
use crate::device::interrupt::Interrupt;
use crate::device::memory::Slice;
use crate::device::status::Status;
#[cfg(not(target_family = "wasm"))]
use crate::device::usage::KernelTime;
use crate::error::{Error, Result};

/// A command list that is ready to be submitted, with a slice to read back after it.
#[derive(Debug)]
pub(in crate::device) struct Recorded {
    commands: Commands,
    read: Slice,
}

/// A result on its way to the host.
pub(in crate::device) struct Reply {
    bytes: oneshot::Receiver<Result<Vec<u8>>>,
    status: Arc<Status>,
}

impl Reply {
    /// Waits for the contents of what was read back.
    pub(in crate::device) async fn bytes(self) -> Result<Vec<u8>> {
        // Nothing arrives in a process that was forked.
        self.status.check_process()?;
        let answer = self.bytes.await;
        self.status.check()?;
        answer.map_err(|_| Error::internal("the CPU device dropped a submission"))?
    }
}

/// A command list.
#[derive(Debug)]
pub(in crate::device) struct CommandList {
    cpu: Arc<Cpu>,
    commands: Commands,
    /// Times of dispatches, while they are measured.
    #[cfg(not(target_family = "wasm"))]
    times: Option<Arc<Times>>,
    /// Stops what is submitted.
    interrupt: Option<Interrupt>,
}

impl CommandList {
    /// An empty list.
    pub(in crate::device) fn new(cpu: &Arc<Cpu>) -> Self {
        Self {
            cpu: cpu.clone(),
            commands: Commands::default(),
            #[cfg(not(target_family = "wasm"))]
            times: None,
            interrupt: None,
        }
    }

    /// Workgroups in one dimension of a dispatch.
    pub(in crate::device) fn max_groups(&self) -> u32 {
        u32::MAX
    }

    /// Dispatches recorded so far.
    pub(in crate::device) fn dispatches(&self) -> usize {
        self.commands.dispatches
    }

    /// Whether nothing is recorded.
    pub(in crate::device) fn is_empty(&self) -> bool {
        self.commands.list.is_empty()
    }

    /// The CPU device keeps no bind groups.
    pub(in crate::device) fn forget_bindings(&mut self) {}

    /// The CPU device has no passes.
    #[cfg(not(target_family = "wasm"))]
    pub(in crate::device) fn end_pass(&mut self) {}

    /// Sets what stops the submissions that follow.
    pub(in crate::device) fn set_interrupt(&mut self, interrupt: Option<Interrupt>) {
        self.interrupt = interrupt;
    }

    /// Dispatches are timed where they run.
    #[cfg(not(target_family = "wasm"))]
    pub(in crate::device) fn submits_each(&self) -> bool {
        false
    }

    /// Records a dispatch.
    pub(in crate::device) fn dispatch(&mut self, dispatch: Dispatch<'_>) -> Result<()> {
        let Dispatch { kernel, variant, params, slices, guard, scales, odd_rows, any_order, grid } = dispatch;
        let commands = &mut self.commands;
        let (first_slice, first_byte) = (commands.slices.len(), commands.params.len());
        let odd = odd_rows.into_iter().flat_map(|odd| std::iter::once(&odd.weights).chain(&odd.scales));
        commands.slices.extend(slices.iter().copied().chain(guard).chain(scales).chain(odd).cloned());
        commands.params.extend_from_slice(params);
        commands.dispatches += 1;
        commands.list.push(Command::Dispatch {
            kernel,
            format: variant.weights.unwrap_or(WeightFormat::F32),
            fusion: variant.fusion.unwrap_or_default(),
            params: first_byte..commands.params.len(),
            slices: first_slice..commands.slices.len(),
            guarded: guard.is_some(),
            scaled: scales.is_some(),
            alternates: odd_rows.is_some(),
            any_order,
            grid,
        });
        Ok(())
    }

    /// Records a copy.
    pub(in crate::device) fn copy(&mut self, from: &Slice, to: &Slice) -> Result<()> {
        let at = self.commands.slices.len();
        self.commands.slices.extend([from.clone(), to.clone()]);
        self.commands.list.push(Command::Copy(at));
        Ok(())
    }

    /// Records filling a slice with zeros.
    pub(in crate::device) fn clear(&mut self, slice: &Slice) {
        self.commands.list.push(Command::Clear(self.commands.slices.len()));
        self.commands.slices.push(slice.clone());
    }

    /// Begins or stops to measure dispatches, and returns the times measured before.
    #[cfg(not(target_family = "wasm"))]
    pub(in crate::device) fn measure(&mut self, on: bool) -> Vec<(KernelId, KernelTime)> {
        let old = std::mem::replace(&mut self.times, on.then(Arc::default));
        let mut times =
            old.map_or_else(Vec::new, |times| std::mem::take(&mut *times.lock().unwrap_or_else(|e| e.into_inner())));
        times.sort_by_key(|(_, time)| std::cmp::Reverse(time.time));
        times
    }

    /// Submits the list and returns its number of dispatches.
    pub(in crate::device) fn submit(&mut self) -> Result<u64> {
        let commands = std::mem::take(&mut self.commands);
        self.start(commands, Vec::new(), None)
    }

    /// Submits the list and reads `slices` back after it.
    pub(in crate::device) fn read(&mut self, slices: &[Slice]) -> Result<(u64, Reply)> {
        let commands = std::mem::take(&mut self.commands);
        self.start_with_reply(commands, slices.to_vec())
    }

    /// Ends the list, to be submitted later, with `read` read back after it.
    pub(in crate::device) fn finish(&mut self, read: &Slice) -> Result<Recorded> {
        Ok(Recorded { commands: std::mem::take(&mut self.commands), read: read.clone() })
    }

    /// Submits a finished list.
    pub(in crate::device) fn submit_recorded(&mut self, recorded: Recorded) -> Result<(u64, Reply)> {
        self.start_with_reply(recorded.commands, vec![recorded.read])
    }

    fn start_with_reply(&mut self, commands: Commands, reads: Vec<Slice>) -> Result<(u64, Reply)> {
        let (sender, bytes) = oneshot::channel();
        let dispatches = self.start(commands, reads, Some(sender))?;
        Ok((dispatches, Reply { bytes, status: self.cpu.status() }))
    }

    fn start(
        &mut self,
        commands: Commands,
        reads: Vec<Slice>,
        reply: Option<oneshot::Sender<Result<Vec<u8>>>>,
    ) -> Result<u64> {
        for slice in commands.slices.iter().chain(&reads) {
            buffer(slice)?.mark_used();
        }
        let dispatches = commands.dispatches as u64;
        let submission = Submission {
            commands,
            reads,
            reply,
            status: self.cpu.status(),
            #[cfg(not(target_family = "wasm"))]
            times: self.times.clone(),
            interrupt: self.interrupt.clone(),
            #[cfg(not(target_family = "wasm"))]
            threads: self.cpu.threads,
            instructions: self.cpu.instructions,
            products: self.cpu.products,
        };
        self.cpu.submit(Job::Run(Box::new(submission)))?;
        Ok(dispatches)
    }

    /// Drops the commands that are recorded but not submitted.
    pub(in crate::device) fn discard(&mut self) {
        self.commands = Commands::default();
    }
}
