// A dispatch that is recorded before it is known whether it is wanted: a flag in device memory makes it do nothing.
@group(0) @binding(14) var<storage, read> halt: array<u32>; // [1], 0: go on

// Uniform: every lane reads the same word, which nobody writes meanwhile.
fn halted() -> bool {
    return halt[0] != 0u;
}
