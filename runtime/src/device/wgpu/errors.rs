//! Errors of wgpu.

use crate::error::{Error, ErrorKind, Hint};

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
