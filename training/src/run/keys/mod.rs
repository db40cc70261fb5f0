//! The keys of a configuration: one table, from which checks, messages, templates and the reference are made.

mod check;
mod key;
mod table;

pub(super) use check::check_table;
pub(super) use key::{Key, lookup};
pub(super) use table::{KEYS, SECTIONS};
