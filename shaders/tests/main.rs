//! Tests of the kernels' sources without a device, in one program.

mod common;
mod layout;
mod math;
mod table;
mod translate;
