//! How to open an engine.

use std::path::PathBuf;

use bolmo_shaders::{Products, Reduce, Tiles};

use crate::device::adapter::AdapterChoice;

/// How to open an engine. An option that is `None` takes the value that suits the adapter.
///
/// ```
/// use bolmo_runtime::{AdapterChoice, EngineOptions};
///
/// let options = EngineOptions::default().adapter(AdapterChoice::Software).prefill_bytes(128);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The adapter to use.
    pub adapter: AdapterChoice,
    /// Largest binding in bytes, at least 64 KiB; the adapter's own limit still applies.
    pub max_binding_bytes: Option<u64>,
    /// How the lanes of a workgroup add up. [`Reduce::Workgroup`] and [`Reduce::SingleLane`] work on every adapter.
    pub reduce: Option<Reduce>,
    /// Which lanes share a tile of a matrix product. [`Tiles::Workgroup`] works on every adapter and is the fallback
    /// where the adapter does not support the requested tiles or fails their self test.
    pub tiles: Option<Tiles>,
    /// Largest number of rows for which a product runs as `matvec` and the mLSTM runs in its recurrent form.
    pub matvec_max_rows: Option<usize>,
    /// Whether `matvec` keeps four loads of each row of weights in flight, as is best on GPUs.
    pub matvec_ahead: Option<bool>,
    /// Number of workgroups that split a product with few outputs and long sums, such as a weight gradient.
    pub product_groups: Option<usize>,
    /// Threads of the CPU device, from 1 to 256. With `None` the environment variable `BOLMO_THREADS` decides, and
    /// without it there is one for each physical core that the process may use. Results don't depend on it.
    pub threads: Option<usize>,
    /// Arithmetic of products with matrices in q8 and q4 on the CPU device. [`Products::Int8`] is faster and less
    /// exact; other devices don't have it.
    pub products: Products,
    /// Size in bytes from which on the CPU device uses a tensor where the file of the checkpoint is mapped, if it is
    /// stored in the wanted format. `u64::MAX` copies all tensors, for files that other programs may write to while the
    /// model exists.
    pub in_place_bytes: Option<u64>,
    /// Maximum prompt bytes per submission.
    pub prefill_bytes: Option<usize>,
    /// Maximum decoded bytes per submission. With 0 the logits of every byte are read back and the host samples.
    pub decode_steps: Option<usize>,
    /// Folder that caches compiled kernels, on drivers that support it. With `None` nothing is written. The folder is
    /// created when needed, and its files may be deleted at any time.
    pub kernel_cache: Option<PathBuf>,
}

impl EngineOptions {
    /// Sets the adapter to use.
    #[must_use]
    pub fn adapter(mut self, adapter: AdapterChoice) -> Self {
        self.adapter = adapter;
        self
    }

    /// Sets [`Self::max_binding_bytes`].
    #[must_use]
    pub fn max_binding_bytes(mut self, bytes: u64) -> Self {
        self.max_binding_bytes = Some(bytes);
        self
    }

    /// Sets [`Self::reduce`].
    #[must_use]
    pub fn reduce(mut self, reduce: Reduce) -> Self {
        self.reduce = Some(reduce);
        self
    }

    /// Sets [`Self::tiles`].
    #[must_use]
    pub fn tiles(mut self, tiles: Tiles) -> Self {
        self.tiles = Some(tiles);
        self
    }

    /// Sets [`Self::matvec_max_rows`].
    #[must_use]
    pub fn matvec_max_rows(mut self, rows: usize) -> Self {
        self.matvec_max_rows = Some(rows);
        self
    }

    /// Sets [`Self::matvec_ahead`].
    #[must_use]
    pub fn matvec_ahead(mut self, ahead: bool) -> Self {
        self.matvec_ahead = Some(ahead);
        self
    }

    /// Sets [`Self::product_groups`].
    #[must_use]
    pub fn product_groups(mut self, groups: usize) -> Self {
        self.product_groups = Some(groups);
        self
    }

    /// Sets [`Self::threads`].
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets [`Self::products`].
    #[must_use]
    pub fn products(mut self, products: Products) -> Self {
        self.products = products;
        self
    }

    /// Sets [`Self::in_place_bytes`].
    #[must_use]
    pub fn in_place_bytes(mut self, bytes: u64) -> Self {
        self.in_place_bytes = Some(bytes);
        self
    }

    /// Sets [`Self::prefill_bytes`].
    #[must_use]
    pub fn prefill_bytes(mut self, bytes: usize) -> Self {
        self.prefill_bytes = Some(bytes);
        self
    }

    /// Sets [`Self::decode_steps`].
    #[must_use]
    pub fn decode_steps(mut self, steps: usize) -> Self {
        self.decode_steps = Some(steps);
        self
    }

    /// Sets [`Self::kernel_cache`].
    #[must_use]
    pub fn kernel_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.kernel_cache = Some(folder.into());
        self
    }
}
