//! Errors of wgpu.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use crate::error::{Error, ErrorKind, Hint, Result};

/// Awaits `future`, in which wgpu or a driver may panic, for example for lack of memory: that is an error too.
pub(super) async fn caught<T>(future: impl Future<Output = T>) -> Result<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panicked(panic.as_ref()))),
    })
    .await
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it gave no reason");
    Error::unsupported(format!("the graphics driver failed: {}", text.replace('\n', " ")))
}

/// Converts an error of wgpu.
pub(super) fn from_wgpu(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::new(
            ErrorKind::OutOfMemory,
            "the device is out of memory; use a smaller model, a smaller weight format (f16, q8 or q4), or fewer \
             sessions at a time",
        )
        .with_hint(Hint::SmallerFormat { format: None }),
        other => Error::internal(format!("the graphics library rejected a command: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors() {
        let calm = async { std::future::ready(7).await };
        assert_eq!(crate::block_on(caught(calm)).expect("no panic"), 7);
        let error = crate::block_on(caught(async { panic!("no\ndriver {}", 1) })).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().ends_with("driver failed: no driver 1"), "{error}");
    }
}
