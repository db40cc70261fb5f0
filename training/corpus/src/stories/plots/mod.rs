//! Plots: each is a list of steps, and each step a choice of templates.
//!
//! In a template, `{name}` stands for a value of the [`Scene`](super::scene::Scene) or a phrase of a rule, `{a name}`
//! adds the right article, `<` and `>` are opening and closing quotation marks, and `|` separates sentences within a
//! step.

mod feelings;
mod finding;
mod helping;
mod making;
mod steps;

pub(super) use steps::{Plot, Step};

/// All plots.
pub(super) fn plots() -> impl Iterator<Item = &'static Plot> {
    [finding::PLOTS, helping::PLOTS, making::PLOTS, feelings::PLOTS].into_iter().flatten()
}
