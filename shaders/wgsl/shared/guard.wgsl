// A dispatch that is recorded before it is known whether it is wanted: flags in device memory make its rows do nothing.
@group(0) @binding(14) var<storage, read> halt: array<u32>; // [rows, 64] or fewer, 0 in column 0: go on; the last word is for all rows behind

const HALT_STRIDE: u32 = 64u;

// Whether this row is not wanted. Uniform where `row` is: every lane reads the same word, which nobody writes meanwhile.
fn halted(row: u32) -> bool {
    return halt[min(row * HALT_STRIDE, arrayLength(&halt) - 1u)] != 0u;
}
