//! Large amounts of the host's memory, whose lack is an error. Rust aborts the process where it allocates by itself.

use crate::error::{Error, ErrorKind, Hint, Result};

/// Reserves memory for `count` more elements, for `what`.
///
/// # Errors
/// `OutOfMemory`, if there is not enough memory.
pub(crate) fn reserve<T>(elements: &mut Vec<T>, count: usize, what: &str) -> Result<()> {
    elements
        .try_reserve_exact(count)
        .map_err(|_| out_of_memory((count as u64).saturating_mul(size_of::<T>() as u64), what))
}

/// Sets the number of elements to `count`. New ones have the default value, such as zero.
///
/// # Errors
/// `OutOfMemory`, if there is not enough memory.
pub(crate) fn resize<T: Clone + Default>(elements: &mut Vec<T>, count: usize, what: &str) -> Result<()> {
    reserve(elements, count.saturating_sub(elements.len()), what)?;
    elements.resize(count, T::default());
    Ok(())
}

/// `count` default values, such as zeros, for `what`.
///
/// # Errors
/// `OutOfMemory`, if there is not enough memory.
pub(crate) fn zeros<T: Clone + Default>(count: usize, what: &str) -> Result<Vec<T>> {
    let mut elements = Vec::new();
    resize(&mut elements, count, what)?;
    Ok(elements)
}

/// There are no `bytes` bytes of memory for `what`.
pub(crate) fn out_of_memory(bytes: u64, what: &str) -> Error {
    let message = format!(
        "allocating {bytes} bytes for {what}: there is not enough memory; use a smaller model, a smaller weight format \
         (f16, q8 or q4), or fewer sessions at a time"
    );
    Error::new(ErrorKind::OutOfMemory, message).with_hint(Hint::SmallerFormat { format: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_memory_is_an_error() {
        for error in [
            zeros::<f32>(usize::MAX / 8, "weights").unwrap_err(),
            zeros::<u64>(usize::MAX, "weights").unwrap_err(),
            reserve(&mut vec![0_u8; 7], isize::MAX as usize, "weights").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
            assert!(error.message().contains("for weights: there is not enough memory"), "{error}");
        }
        assert_eq!(zeros::<u16>(3, "weights").expect("six bytes"), [0; 3]);
        let mut some = vec![1, 2, 3];
        resize(&mut some, 2, "weights").expect("less than before");
        resize(&mut some, 3, "weights").expect("four bytes");
        assert_eq!(some, [1, 2, 0]);
    }
}
