// A guard for dispatches recorded before it is known whether they are wanted: flags in device memory skip rows.
@group(0) @binding(14) var<storage, read> halt: array<u32>; // [rows, 64] or fewer rows

// Column 0 of a row is 0 if the row is wanted. Rows past the end read the last word.
const HALT_STRIDE: u32 = 64u;

// Whether to skip this row. Uniform where `row` is: every lane reads the same word, and no lane writes it in this
// dispatch.
fn halted(row: u32) -> bool {
    return halt[min(row * HALT_STRIDE, arrayLength(&halt) - 1u)] != 0u;
}
