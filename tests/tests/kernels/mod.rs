//! Every kernel on the device against its CPU reference, over drawn shapes and sizes around every tile: one test per
//! kernel.
//!
//! Memory that a kernel must not read or write holds a NaN: reading it spoils the result, and overwriting it is seen.
//! Bounds follow from the roundings of a kernel, relative to the sum of the absolute values that go into an output; a
//! wrong index is off by about one such value, which is far more.

mod harness;
mod heads;
mod logits;
mod mlstm;
mod mlstm_fused;
mod mlstm_grad;
mod rows;
mod sample;
mod sums;

mod attention_grad;
mod rows_grad;

#[test]
fn gather_rows() {
    rows::gather_rows();
}

#[test]
fn rms_norm() {
    rows::rms_norm();
}

#[test]
fn matvec() {
    rows::matvec();
}

#[test]
fn matmul() {
    rows::matmul();
}

#[test]
fn silu_mul() {
    rows::silu_mul();
}

#[test]
fn rope() {
    heads::rope();
}

#[test]
fn attention() {
    heads::attention();
}

#[test]
fn boundary() {
    heads::boundary();
}

#[test]
fn copy() {
    rows::copy();
}

#[test]
fn sample() {
    sample::sample();
}

#[test]
fn mlstm_cell() {
    mlstm_fused::cell();
}

#[test]
fn mlstm_gates() {
    mlstm::gates();
}

#[test]
fn mlstm_step() {
    mlstm::step();
}

#[test]
fn mlstm_chunk_state() {
    mlstm::chunk_state();
}

#[test]
fn mlstm_chunk_scan() {
    mlstm::chunk_scan();
}

#[test]
fn mlstm_chunk_out() {
    mlstm::chunk_out();
}

#[test]
fn mlstm_norm() {
    mlstm::norm();
}

#[test]
fn mlstm_norm_grad() {
    mlstm_grad::norm();
}

#[test]
fn mlstm_chunk_state_grad() {
    mlstm_grad::chunk_state();
}

#[test]
fn mlstm_chunk_scan_grad() {
    mlstm_grad::chunk_scan();
}

#[test]
fn mlstm_chunk_scores() {
    mlstm_grad::chunk_scores();
}

#[test]
fn mlstm_chunk_out_grad() {
    mlstm_grad::chunk_out();
}

#[test]
fn mlstm_gate_dots() {
    mlstm_grad::gate_dots();
}

#[test]
fn mlstm_gates_grad() {
    mlstm_grad::gates();
}

#[test]
fn rms_norm_grad() {
    rows_grad::rms_norm();
}

#[test]
fn silu_mul_grad() {
    rows_grad::silu_mul();
}

#[test]
fn boundary_grad() {
    rows_grad::boundary();
}

#[test]
fn rope_grad() {
    rows_grad::rope();
}

#[test]
fn attention_grad_q() {
    attention_grad::queries();
}

#[test]
fn attention_grad_kv() {
    attention_grad::keys_and_values();
}

#[test]
fn transpose() {
    sums::transpose();
}

#[test]
fn sum_rows() {
    sums::sum_rows();
}

#[test]
fn gather_rows_grad() {
    sums::gather_rows_grad();
}

#[test]
fn log_softmax() {
    logits::log_softmax();
}

#[test]
fn log_softmax_grad() {
    logits::log_softmax_grad();
}

#[test]
fn entropy() {
    logits::entropy();
}

#[test]
fn next_ids() {
    logits::next_ids();
}

#[test]
fn soft_labels() {
    logits::soft_labels();
}

#[test]
fn row_distance() {
    sums::row_distance();
}

#[test]
fn row_distance_grad() {
    sums::row_distance_grad();
}

#[test]
fn sum_squares() {
    sums::sum_squares();
}

#[test]
fn round_f16() {
    sums::round_f16();
}

#[test]
fn adamw() {
    sums::adamw();
}
