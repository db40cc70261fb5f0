//! Tests of compiled constraints as a whole.

mod fuzz;
mod json_schema;
mod random_walk;
mod regex;
