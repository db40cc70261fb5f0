//! Lengths of bindings from sizes in parameter blocks. They saturate, and no binding is large enough for a saturated
//! length. Offsets below a length that a binding has don't overflow.

/// The product of all sizes.
pub(super) fn product<const N: usize>(sizes: [usize; N]) -> usize {
    sizes.into_iter().fold(1, usize::saturating_mul)
}

/// Length of a binding in which each of `rows` rows (at least one) has `width` values from `offset` on.
pub(super) fn rows_end(rows: usize, stride: usize, offset: usize, width: usize) -> usize {
    product([rows - 1, stride]).saturating_add(offset).saturating_add(width)
}

/// Whether `rows` rows, each with values in `parts` (offset and width) and `stride` apart, have no value in common.
/// Tasks that write to other rows or other parts then write to other values.
pub(super) fn apart<const N: usize>(rows: usize, stride: usize, mut parts: [[usize; 2]; N]) -> bool {
    parts.sort_unstable();
    let ends = parts.map(|[offset, width]| offset.saturating_add(width));
    let within = parts.iter().skip(1).zip(ends).all(|([next, _], end)| end <= *next);
    within && (rows < 2 || ends[N - 1] - parts[0][0] <= stride)
}
