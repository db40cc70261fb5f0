//! The CPU device of an engine.

use std::sync::Arc;

use bolmo_shaders::Products;
use bolmo_shaders::simd::InstructionSet;
use futures_channel::oneshot;

use super::buffer::HostBuffer;
use super::executor::Executor;
use super::submission::Job;
use super::threads::{cpu_name, wanted_threads};
use crate::allocate;
use crate::device::adapter::{AdapterInfo, CPU};
use crate::device::options::EngineOptions;
use crate::device::shared_bytes::SharedBytes;
use crate::device::status::Status;
use crate::error::{Error, Result};

/// The CPU device of an engine.
#[derive(Debug)]
pub(in crate::device) struct Cpu {
    executor: Arc<Executor>,
    status: Arc<Status>,
    /// Threads that compute for this engine.
    pub(super) threads: usize,
    pub(super) instructions: InstructionSet,
    pub(super) products: Products,
}

/// The device, as whoever uses it holds it.
pub(in crate::device) type Shared = Arc<Cpu>;

impl Cpu {
    /// Opens the device.
    pub(in crate::device) fn open(options: &EngineOptions) -> Result<Self> {
        let (threads, instructions) = (wanted_threads(options)?, instructions()?);
        let products = options.products;
        Ok(Self { executor: Executor::shared(threads)?, status: Arc::default(), threads, instructions, products })
    }

    /// The device, to be shared.
    pub(in crate::device) fn shared(self) -> Shared {
        Arc::new(self)
    }

    /// Threads that compute.
    pub(in crate::device) fn threads(&self) -> usize {
        self.threads
    }

    /// What the device reports.
    pub(in crate::device) fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Allocates zeroed memory.
    pub(in crate::device) fn allocate(&self, what: &str, bytes: u64) -> Result<HostBuffer> {
        HostBuffer::zeroed(what, bytes)
    }

    /// Memory that is only read; `None` if it does not begin at a word.
    pub(in crate::device) fn share(&self, memory: &SharedBytes, offset: u64, bytes: u64) -> Option<HostBuffer> {
        HostBuffer::shared(memory, offset, bytes)
    }

    /// Writes `bytes` to a buffer, in order with submissions.
    pub(in crate::device) fn write(&self, to: &HostBuffer, offset: u64, bytes: &[u8]) -> Result<()> {
        if to.is_read_only() {
            return Err(Error::internal("a write to memory that is only read"));
        }
        // What no submission has used yet can be written at once, which saves a copy of the weights.
        if to.write_unused(offset, bytes) {
            return Ok(());
        }
        let mut copy = Vec::new();
        allocate::reserve(&mut copy, bytes.len(), "an upload")?;
        copy.extend_from_slice(bytes);
        self.submit(Job::Write { to: to.clone(), offset, bytes: copy.into() })
    }

    /// Adds a job behind all others.
    pub(super) fn submit(&self, job: Job) -> Result<()> {
        self.status.check_process()?;
        self.executor.submit(job);
        Ok(())
    }

    /// Waits until all submitted work is done. A fork of the process has no threads that do it.
    pub(in crate::device) async fn idle(&self) -> std::result::Result<(), oneshot::Canceled> {
        let (done, wait) = oneshot::channel();
        self.submit(Job::Signal(done)).map_err(|_| oneshot::Canceled)?;
        wait.await
    }
}

/// The instruction set to compute with: the best one, unless the environment variable `BOLMO_INSTRUCTIONS` names one.
fn instructions() -> Result<InstructionSet> {
    let Some(name) = std::env::var_os("BOLMO_INSTRUCTIONS").filter(|name| !name.is_empty()) else {
        return Ok(InstructionSet::best());
    };
    let available = InstructionSet::available();
    available.iter().find(|set| name == *set.name()).copied().ok_or_else(|| {
        let names: Vec<_> = available.iter().map(|set| set.name()).collect();
        Error::invalid(format!(
            "BOLMO_INSTRUCTIONS: this CPU has no instruction set {:?}, expected one of {}",
            name.to_string_lossy(),
            names.join(", ")
        ))
    })
}

/// The device as an adapter, at this index of the list.
pub(in crate::device) fn describe(index: usize) -> Option<AdapterInfo> {
    let instructions = instructions().unwrap_or(InstructionSet::best());
    Some(AdapterInfo {
        index,
        name: cpu_name(),
        kind: CPU,
        backend: CPU.to_owned(),
        driver: format!("bolmo {}, {}", env!("CARGO_PKG_VERSION"), instructions.name()),
        max_binding_bytes: MAX_BYTES,
        max_buffer_bytes: MAX_BYTES,
        workgroup_bytes: 0,
        subgroup_sizes: None,
        shader_f16: false,
        workgroup_lanes: 0,
        cooperative_matrix: false,
        cooperative_sides: Vec::new(),
        timestamps: true,
        unusable: None,
        chosen: false,
        reason: String::new(),
    })
}

/// Largest buffer: memory is the limit, and sums of sizes must not overflow.
const MAX_BYTES: u64 = if size_of::<usize>() < 8 { 1 << 30 } else { 1 << 46 };
