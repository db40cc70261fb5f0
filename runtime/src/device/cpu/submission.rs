//! What is submitted to the executor, and the running of single commands.

use std::sync::Arc;

use bolmo_shaders::simd::{Call, InstructionSet, Memory, OddRows, Workers};
use bolmo_shaders::{Access, Products};
use futures_channel::oneshot;

use super::buffer::HostBuffer;
use super::command::{Command, Commands, buffer};
#[cfg(not(target_family = "wasm"))]
use super::command::{Times, add_time};
use crate::allocate;
use crate::device::interrupt::Interrupt;
use crate::device::memory::Slice;
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
    /// Receives the times of dispatches, if they are measured.
    #[cfg(not(target_family = "wasm"))]
    pub(super) times: Option<Arc<Times>>,
    pub(super) interrupt: Option<Interrupt>,
    #[cfg(not(target_family = "wasm"))]
    pub(super) threads: usize,
    pub(super) instructions: InstructionSet,
    pub(super) products: Products,
}

impl Submission {
    /// Number of commands.
    pub(super) fn len(&self) -> usize {
        self.commands.list.len()
    }

    /// Runs a command. They run one after another, in order; nothing but `workers` works for them meanwhile.
    pub(super) fn command(&self, index: usize, workers: &dyn Workers) -> Result<()> {
        let command = &self.commands.list[index];
        let slices = &self.commands.slices;
        match command {
            // Copies are made all the same: those of a growing KV cache must not be lost.
            Command::Dispatch { .. } if self.interrupt.as_ref().is_some_and(Interrupt::skips) => {}
            #[cfg(not(target_family = "wasm"))]
            Command::Dispatch { kernel, .. } if self.times.is_some() => {
                let begun = std::time::Instant::now();
                self.dispatch(command, workers)?;
                self.times.iter().for_each(|times| add_time(times, *kernel, begun.elapsed()));
            }
            Command::Dispatch { .. } => self.dispatch(command, workers)?,
            &Command::Copy(at) => {
                let (from, to) = (&slices[at], &slices[at + 1]);
                let (source, target) = (buffer(from)?, buffer(to)?);
                if source == target {
                    return Err(Error::internal("a copy within a buffer"));
                }
                // SAFETY: the executor alone accesses the buffers between dispatches, and they are two.
                unsafe { target.write(to.offset, source.bytes(from.offset, from.size)) };
            }
            &Command::Clear(at) => {
                let slice = &slices[at];
                // SAFETY: the executor alone accesses the buffer between dispatches.
                unsafe { buffer(slice)?.clear(slice.offset, slice.size) };
            }
        }
        Ok(())
    }

    /// What is to be read back, after the commands.
    pub(super) fn results(&self) -> Result<Vec<u8>> {
        if self.interrupt.as_ref().is_some_and(Interrupt::has_skipped) {
            return Err(Error::new(ErrorKind::Cancelled, "the work was stopped"));
        }
        let mut bytes = Vec::new();
        allocate::reserve(&mut bytes, self.reads.iter().map(|slice| slice.size as usize).sum(), "results")?;
        for slice in &self.reads {
            // SAFETY: the executor alone accesses the buffer between dispatches.
            bytes.extend_from_slice(unsafe { buffer(slice)?.bytes(slice.offset, slice.size) });
        }
        Ok(bytes)
    }

    /// Ends the submission: passes `result` on.
    pub(super) fn answer(self, result: Result<Vec<u8>>) {
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

    fn dispatch(&self, command: &Command, workers: &dyn Workers) -> Result<()> {
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
            workers,
        };
        call.run().map_err(|fault| Error::internal(format!("the CPU device refused a dispatch: {fault}")))
    }
}
