//! Kernels compiled ahead, while something else is waited for: on threads of their own, or in browsers one after the other.

use std::sync::Arc;

use crate::device::Gpu;
use crate::model::kernels::Wanted;

/// Compiles kernels in the background, one after the other. A browser's process for the GPU takes commands in their order: each kernel is
/// asked for when the one before is done, so that whatever else is submitted waits for one at most.
#[cfg(target_family = "wasm")]
pub(crate) fn warm(gpu: &Arc<Gpu>, kernels: Vec<Wanted>) {
    let gpu = gpu.clone();
    wasm_bindgen_futures::spawn_local(async move {
        for (kernel, format, fusion) in kernels {
            if gpu.is_lost() {
                return;
            }
            gpu.compile(kernel, format, fusion);
            // A wait that is dropped is the device's end, which the next turn sees.
            let _ = gpu.idle().await;
        }
    });
}

#[cfg(not(target_family = "wasm"))]
pub(crate) use threads::Warming;

#[cfg(not(target_family = "wasm"))]
mod threads {
    use std::sync::Mutex;
    use std::thread::JoinHandle;

    use super::{Arc, Gpu, Wanted};

    /// Most drivers compile on as many threads as call them; more than this bring little.
    const MOST_THREADS: usize = 8;

    /// Kernels that are being compiled. Dropping it waits for the ones under way and leaves the others to whoever needs them.
    #[derive(Debug, Default)]
    pub(crate) struct Warming {
        left: Arc<Mutex<Vec<Wanted>>>,
        threads: Vec<JoinHandle<()>>,
    }

    impl Warming {
        /// Begins with the first of `kernels`.
        pub(crate) fn start(gpu: &Arc<Gpu>, mut kernels: Vec<Wanted>) -> Self {
            kernels.reverse();
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let count = kernels.len().min(cores).min(MOST_THREADS);
            let left = Arc::new(Mutex::new(kernels));
            let threads = (0..count).filter_map(|_| {
                let (gpu, left) = (gpu.clone(), Arc::clone(&left));
                let next = move || left.lock().unwrap_or_else(|e| e.into_inner()).pop();
                let work = move || {
                    while let Some((kernel, format, fusion)) = next() {
                        // What is wrong with a kernel is told to whoever uses it.
                        gpu.compile(kernel, format, fusion);
                    }
                };
                // Without threads kernels are compiled when they are needed.
                std::thread::Builder::new().name("bolmo-kernels".to_owned()).spawn(work).ok()
            });
            Self { threads: threads.collect(), left }
        }

        /// Waits until all are compiled.
        pub(crate) fn finish(mut self) {
            self.join();
        }

        fn join(&mut self) {
            for thread in self.threads.drain(..) {
                // A panic in a driver's compiler comes again where the kernel is needed.
                let _ = thread.join();
            }
        }
    }

    impl Drop for Warming {
        fn drop(&mut self) {
            self.left.lock().unwrap_or_else(|e| e.into_inner()).clear();
            self.join();
        }
    }
}
