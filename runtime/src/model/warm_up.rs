//! Warm-up: compiling kernels in the background, on threads or, in browsers, one after the other.

use std::sync::Arc;

use crate::device::Device;
use crate::model::kernels::KernelSpec;

/// Compiles kernels in the background, one after the other.
///
/// A browser's GPU process executes commands in order. Each kernel is requested only when the previous one is done, so
/// that other submissions wait for at most one kernel.
#[cfg(target_family = "wasm")]
pub(crate) fn warm(device: &Arc<Device>, kernels: Vec<KernelSpec>) {
    if device.adapter.is_cpu() {
        // Its kernels are compiled with this crate.
        return;
    }
    let device = device.clone();
    wasm_bindgen_futures::spawn_local(async move {
        for KernelSpec { kernel, format, fusion } in kernels {
            // Fails if the device is lost.
            let Ok(_permit) = device.continue_work(&[]).await else { return };
            device.compile(kernel, format, fusion);
            // A dropped wait means that the device is lost, which the next iteration sees.
            let _ = device.idle().await;
        }
    });
}

#[cfg(not(target_family = "wasm"))]
pub(crate) use threads::Warming;

#[cfg(not(target_family = "wasm"))]
mod threads {
    use std::sync::Mutex;
    use std::thread::JoinHandle;

    use super::{Arc, Device, KernelSpec};
    use crate::timer::Timer;

    /// Most drivers compile on every thread that calls them; more threads than this gain little.
    const MAX_THREADS: usize = 8;

    /// Kernels that are being compiled. Dropping it waits for the kernels in progress and skips the others, which are
    /// compiled when they are dispatched.
    #[derive(Debug)]
    pub(crate) struct Warming {
        remaining: Arc<Mutex<Vec<KernelSpec>>>,
        threads: Vec<JoinHandle<()>>,
        total: usize,
        timer: Timer,
    }

    impl Warming {
        /// Starts to compile `kernels`, in order.
        pub(crate) fn start(device: &Arc<Device>, mut kernels: Vec<KernelSpec>) -> Self {
            kernels.reverse();
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let (total, timer) = (kernels.len(), Timer::start());
            let count = total.min(cores).min(MAX_THREADS);
            let remaining = Arc::new(Mutex::new(kernels));
            let threads = (0..count).filter_map(|_| {
                let (device, remaining) = (device.clone(), Arc::clone(&remaining));
                let next = move || remaining.lock().unwrap_or_else(|e| e.into_inner()).pop();
                let work = move || {
                    while let Some(KernelSpec { kernel, format, fusion }) = next() {
                        // Whoever dispatches the kernel receives its errors.
                        device.compile(kernel, format, fusion);
                    }
                };
                // Without the thread, kernels are compiled when they are dispatched.
                std::thread::Builder::new().name("bolmo-kernels".to_owned()).spawn(work).ok()
            });
            Self { threads: threads.collect(), remaining, total, timer }
        }

        /// Waits until all kernels are compiled.
        pub(crate) fn finish(mut self) {
            self.join();
            log::debug!("{} kernels compiled or taken from the kernel cache, {}", self.total, self.timer);
        }

        fn join(&mut self) {
            for thread in self.threads.drain(..) {
                // A panic in a driver's compiler recurs where the kernel is dispatched.
                let _ = thread.join();
            }
        }
    }

    impl Drop for Warming {
        fn drop(&mut self) {
            self.remaining.lock().unwrap_or_else(|e| e.into_inner()).clear();
            self.join();
        }
    }
}
