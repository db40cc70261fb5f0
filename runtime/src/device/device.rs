//! The device: opened once, shared by models and sessions, and watched for loss and errors.

use std::sync::{Arc, Mutex};

use bolmo_shaders::{Fusion, KernelId, Reduce, Tiles, Variant, WeightFormat};
use futures_channel::oneshot;

use crate::device::adapter;
use crate::device::adapter::{AdapterChoice, AdapterInfo};
use crate::device::capabilities::Capabilities;
use crate::device::pipelines::Pipelines;
use crate::device::self_test;
use crate::device::usage::{Counters, DeviceMemory, Usage};
use crate::error::{Error, ErrorKind, Result};

/// How to open an engine.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Which adapter to use.
    pub adapter: AdapterChoice,
    /// Ask the device for smaller bindings than the adapter offers, in bytes (at least 64 KiB).
    pub max_binding_bytes: Option<u64>,
    /// Use another way of adding up than the adapter's best; [`Reduce::Workgroup`] and [`Reduce::OneLane`] are possible everywhere.
    pub reduce: Option<Reduce>,
    /// Let others work together on a tile than is best for the adapter. [`Tiles::Workgroup`] is possible everywhere; it is also what is
    /// used where the adapter cannot do what is asked for, or fails its test.
    pub tiles: Option<Tiles>,
    /// Up to how many rows a product is computed row by row, and the mLSTM recurrently.
    pub few_rows: Option<usize>,
    /// Whether a product of few rows has four loads of each row of weights on their way at once, as is best on GPUs.
    pub matvec_ahead: Option<bool>,
    /// Into how many workgroups a product of few outputs and long sums is cut, as gradients of weights are.
    pub product_groups: Option<usize>,
    /// Bytes of a prompt that one submission handles at most.
    pub prefill_bytes: Option<usize>,
    /// Bytes that one submission decodes at most; 0 takes the logits of every byte to the host and chooses there.
    pub decode_steps: Option<usize>,
    /// A folder in which compiled kernels are kept, where the driver hands them out; nothing is written if `None`. Made when needed; what
    /// is in it can be deleted at any time.
    pub kernel_cache: Option<std::path::PathBuf>,
}

/// An opened device. Cheap to clone; models and sessions keep it alive.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) gpu: Arc<Gpu>,
}

impl Engine {
    /// Opens the adapter that `options` falls on.
    ///
    /// # Errors
    /// `NotFound` if no adapter fits, `Unsupported` if it refuses the limits, `OutOfMemory`.
    pub async fn open(options: &EngineOptions) -> Result<Self> {
        Self::open_tested(options, self_test::run).await
    }

    /// As [`Self::open`]; where lanes work together on tiles in a way that `test` refuses, the device is opened again to use workgroup
    /// memory instead. A test that loses the device refuses too.
    pub(crate) async fn open_tested(
        options: &EngineOptions,
        test: impl AsyncFnOnce(&Engine) -> Result<()>,
    ) -> Result<Self> {
        let engine = Self { gpu: Arc::new(Gpu::open(options).await?) };
        // These need nothing that an adapter may get wrong.
        if matches!(engine.capabilities().tiles, Tiles::Workgroup | Tiles::OneLane) {
            return Ok(engine);
        }
        let Err(error) = test(&engine).await else { return Ok(engine) };
        log::warn!("{}: {:?} is not used: {error}", engine.adapter().name, engine.capabilities().tiles);
        let options = EngineOptions { tiles: Some(Tiles::Workgroup), ..options.clone() };
        Ok(Self { gpu: Arc::new(Gpu::open(&options).await?) })
    }

    /// The adapter in use.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.gpu.adapter
    }

    /// What was decided for it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.gpu.capabilities
    }

    /// What was sent to the device so far, by every model and session on it.
    pub fn counters(&self) -> Counters {
        self.gpu.usage.counters()
    }

    /// The buffers on the device, those of every model and session on it.
    pub fn memory(&self) -> DeviceMemory {
        self.gpu.usage.memory()
    }

    /// Waits until the device is lost, and returns the reason. It never ends if the engine goes first.
    pub async fn lost(&self) -> Error {
        let loss = self.gpu.status.loss();
        match loss.await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives the device up: every later call on it, its models and sessions fails with
    /// [`ErrorKind::DeviceLost`], as if the driver had dropped it.
    pub fn destroy(&self) {
        self.gpu.device.destroy();
        self.gpu.status.lose("it was destroyed by the program".to_owned());
    }
}

/// What the device has reported outside of any call.
#[derive(Debug, Default)]
pub(super) struct Status {
    failure: Mutex<Option<Error>>,
    /// Who waits for a loss.
    waiting: Mutex<Vec<oneshot::Sender<Error>>>,
}

impl Status {
    fn lose(&self, why: String) {
        let advice = match cfg!(target_family = "wasm") {
            true => "reload() of the model gets a new one",
            false => "open the engine again and load the model again to go on",
        };
        let message = format!("the device was lost: {}; {advice}", why.trim_end_matches('.'));
        let error = Error::new(ErrorKind::DeviceLost, message);
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error.clone());
        self.tell(&error);
    }

    fn tell(&self, error: &Error) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(|e| e.into_inner()));
        for waiter in waiting {
            // Nobody waits any more if the future was dropped.
            let _ = waiter.send(error.clone());
        }
    }

    /// Hears of a loss, at once if there was one.
    fn loss(&self) -> oneshot::Receiver<Error> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(|e| e.into_inner()).push(sender);
        // In this order no loss slips through in between.
        if let Some(error) = self.found_lost() {
            self.tell(&error);
        }
        receiver
    }

    /// The loss, if there was one.
    fn found_lost(&self) -> Option<Error> {
        let failure = self.failure.lock().unwrap_or_else(|e| e.into_inner()).clone();
        failure.filter(|error| error.kind() == ErrorKind::DeviceLost)
    }

    fn report(&self, error: wgpu::Error) {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        // The first error is the cause; a loss stays a loss.
        if failure.is_none() {
            *failure = Some(from_wgpu(error));
        }
    }

    /// The failure that every further call returns, if there was one.
    pub(super) fn check(&self) -> Result<()> {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        match failure.as_ref() {
            None => Ok(()),
            Some(error) if error.kind() == ErrorKind::DeviceLost => Err(error.clone()),
            // Anything else is reported once: the device itself goes on.
            Some(_) => failure.take().map_or(Ok(()), Err),
        }
    }
}

pub(super) fn from_wgpu(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::new(
            ErrorKind::OutOfMemory,
            "the device has no memory left; use a smaller model, a smaller format (--quantize f16, q8 or q4), or fewer sessions at once",
        ),
        other => Error::internal(format!("the graphics library refused a command: {other}")),
    }
}

/// The device, its queue and everything made once for it.
#[derive(Debug)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) status: Arc<Status>,
    pub(super) pipelines: Pipelines,
    pub(super) usage: Arc<Usage>,
    pub(super) offset_alignment: u64,
    /// What stands for every buffer where nothing is allocated in earnest.
    #[cfg(not(target_family = "wasm"))]
    pub(super) stand_in: Option<wgpu::Buffer>,
    #[cfg(not(target_family = "wasm"))]
    poller: poller::Poller,
    /// The adapter in use.
    pub adapter: AdapterInfo,
    /// What was decided for it.
    pub capabilities: Capabilities,
}

impl Gpu {
    async fn open(options: &EngineOptions) -> Result<Self> {
        let (adapter, info) = adapter::request(&options.adapter).await?;
        if let Some(bytes) = options.max_binding_bytes
            && bytes < 1 << 16
        {
            return Err(Error::invalid(format!("max_binding_bytes is {bytes}, expected at least 65536")));
        }
        let capabilities = Capabilities::decide(&info, options);
        let mut limits = adapter.limits();
        limits.max_storage_buffer_binding_size = capabilities.max_binding_bytes;
        let mut features = wgpu::Features::empty();
        if capabilities.reduce.subgroups() {
            features |= wgpu::Features::SUBGROUP;
        }
        let cooperates = capabilities.tiles.cooperative_side().is_some();
        let mut experimental = wgpu::ExperimentalFeatures::disabled();
        if cooperates {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
            // SAFETY: what is asked of the caller is to accept that the feature may have faults. It is used by one kernel, which is tested
            // on the device before anything relies on it (`gpu/self_test.rs`).
            experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let keeps_kernels =
            options.kernel_cache.is_some() && adapter.features().contains(wgpu::Features::PIPELINE_CACHE);
        if keeps_kernels {
            features |= wgpu::Features::PIPELINE_CACHE;
        }
        // What measures dispatches.
        if cfg!(not(target_family = "wasm")) && info.timestamps {
            features |= wgpu::Features::TIMESTAMP_QUERY;
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("bolmo"),
                required_features: features,
                required_limits: limits.clone(),
                experimental_features: experimental,
                memory_hints: wgpu::MemoryHints::Performance,
                trace: wgpu::Trace::Off,
            })
            .await
            .map_err(|e| Error::unsupported(format!("adapter {} cannot be opened: {e}", info.name)))?;
        let status = Arc::new(Status::default());
        let lost = status.clone();
        device.set_device_lost_callback(move |reason, message| {
            lost.lose(if message.is_empty() { format!("{reason:?}") } else { message });
        });
        let errors = status.clone();
        device.on_uncaptured_error(Arc::new(move |error| errors.report(error)));
        let pipelines = Pipelines::new(&device, &capabilities);
        #[cfg(not(target_family = "wasm"))]
        let pipelines = pipelines.with_disk(
            options
                .kernel_cache
                .as_deref()
                .filter(|_| keeps_kernels)
                .map(|folder| crate::device::kernel_cache::DiskCache::open(&device, folder, &info)),
        );
        Ok(Self {
            #[cfg(not(target_family = "wasm"))]
            stand_in: None,
            #[cfg(not(target_family = "wasm"))]
            poller: poller::Poller::start(device.clone())?,
            pipelines,
            usage: Arc::default(),
            offset_alignment: u64::from(
                limits.min_storage_buffer_offset_alignment.max(limits.min_uniform_buffer_offset_alignment),
            ),
            device,
            queue,
            status,
            adapter: info,
            capabilities,
        })
    }

    /// The same device for a rehearsal: what is allocated there only counts, and what is written there goes nowhere. It tells how much
    /// memory something takes before any is taken; nothing can be computed with what it hands out.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn rehearsal(&self) -> Result<Self> {
        let descriptor = wgpu::BufferDescriptor {
            label: Some("a stand-in"),
            size: 16,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        Ok(Self {
            stand_in: Some(self.device.create_buffer(&descriptor)),
            poller: poller::Poller::start(self.device.clone())?,
            pipelines: Pipelines::new(&self.device, &self.capabilities),
            usage: Arc::default(),
            offset_alignment: self.offset_alignment,
            device: self.device.clone(),
            queue: self.queue.clone(),
            status: self.status.clone(),
            adapter: self.adapter.clone(),
            capabilities: self.capabilities.clone(),
        })
    }

    /// Whether it is a rehearsal.
    #[cfg(not(target_family = "wasm"))]
    pub fn is_rehearsal(&self) -> bool {
        self.stand_in.is_some()
    }

    /// Compiles a kernel, unless it already is.
    pub(crate) fn compile(&self, kernel: KernelId, format: WeightFormat, fusion: Fusion) {
        self.pipelines.get(kernel, self.variant(kernel, format, fusion));
    }

    /// The variant of a kernel for this adapter.
    pub(super) fn variant(&self, kernel: KernelId, format: WeightFormat, fusion: Fusion) -> Variant {
        kernel.kernel().variant(format, self.capabilities.reduce, fusion, self.capabilities.tiles)
    }

    /// Rows of W and rows of x that one workgroup of `matmul` multiplies, where W is in `format`.
    pub fn matmul_tile(&self, format: WeightFormat) -> [usize; 2] {
        self.variant(KernelId::MatMul, format, Fusion::default()).tiles.unwrap_or(Tiles::Workgroup).matmul()
    }

    /// Keeps what was compiled for the next start, if there is a place for it.
    pub(crate) fn save_kernels(&self) {
        self.pipelines.save();
    }

    /// The failure that the device has reported, if any.
    pub fn check(&self) -> Result<()> {
        self.status.check()
    }

    /// Waits for a loss that something else has given away, as long as the device takes for nothing, a few times over.
    #[cfg(target_family = "wasm")]
    pub(super) async fn loss_in_sight(&self) {
        for _ in 0..8 {
            if self.is_lost() {
                return;
            }
            // A lost device answers too, or drops the wait.
            let _ = self.idle().await;
        }
    }

    /// Whether the device is lost.
    #[cfg(target_family = "wasm")]
    pub(super) fn is_lost(&self) -> bool {
        self.status.found_lost().is_some()
    }

    /// Sees to it that the callbacks of `submission` are called without anyone blocking for them.
    pub(super) fn attend(&self, submission: wgpu::SubmissionIndex) {
        #[cfg(not(target_family = "wasm"))]
        self.poller.attend(submission);
        #[cfg(target_family = "wasm")]
        let _ = submission; // the browser's event loop does it
    }
}

#[cfg(not(target_family = "wasm"))]
mod poller {
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
}
