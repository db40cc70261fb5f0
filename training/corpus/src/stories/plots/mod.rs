//! What happens: each plot is a list of steps, and each step a choice of templates.
//!
//! In a template `{name}` stands for what [`Scene`](super::scene::Scene) has bound to the name or for one of the
//! phrases of a rule, `{a name}` puts the fitting article in front, `<` and `>` are the two sides of a quotation, and
//! `|` ends a sentence within the step.

mod feelings;
mod finding;
mod helping;
mod making;

use self::Step::{Maybe, Tell};

/// One step of a plot.
pub(super) enum Step {
    /// One of these is told.
    Tell(&'static [&'static str]),
    /// One of these is told, or none.
    Maybe(&'static [&'static str]),
    /// One of these is told, mostly at the start of a new paragraph.
    Turn(&'static [&'static str]),
}

impl Step {
    /// The templates to choose from.
    pub(super) fn templates(&self) -> &'static [&'static str] {
        match self {
            Step::Tell(templates) | Step::Maybe(templates) | Step::Turn(templates) => templates,
        }
    }
}

/// One kind of story.
pub(super) struct Plot {
    /// Templates of titles.
    pub(super) titles: &'static [&'static str],
    /// The lists that the thing of the story comes from, as "one/many".
    pub(super) things: &'static [&'static [&'static str]],
    /// What the thing can look like.
    pub(super) looks: &'static [&'static str],
    /// Further names, each bound once to an entry of its list. Fields of an entry are parted by `/`.
    pub(super) picks: &'static [(&'static str, &'static [&'static str])],
    /// What is told.
    pub(super) steps: &'static [Step],
}

/// All plots.
pub(super) fn plots() -> impl Iterator<Item = &'static Plot> {
    [finding::PLOTS, helping::PLOTS, making::PLOTS, feelings::PLOTS].into_iter().flatten()
}

/// Who the story is about.
const HERO: Step = Tell(&[
    "{once} there was {a trait} {kind} named {hero}.",
    "{once} there lived {a trait} {kind}, and {his} name was {hero}.",
    "{hero} was {a trait} {kind} who lived near {place}.",
    "there once was {a trait} {kind} called {hero}.",
    "this is a story about {hero}, {a trait} {kind}.",
    "{a trait} {kind} named {hero} lived in a little house near {place}.",
    "{hero} is {a trait} {kind} who likes to be {at}.",
]);

/// Who else is there, where the plot itself does not say it.
const FRIEND: Step = Tell(&[
    "{his} best friend was {a ftrait} {fkind} named {friend}.",
    "{he} had a good friend, {a ftrait} {fkind} called {friend}.",
    "{hero} and {friend}, {a ftrait} {fkind}, were always together.",
    "{friend}, {a ftrait} {fkind}, lived next door.",
    "almost every day {he} played with {friend}, {a ftrait} {fkind}.",
    "everybody knew that {he} and {friend}, {a ftrait} {fkind}, were friends.",
]);

/// How it can end for two.
const END: Step = Maybe(&[
    "from that day on, they were the best of friends.",
    "that night {hero} slept very well.",
    "they laughed and walked home together.",
    "{hero} never forgot that day.",
    "it had been a very good day.",
    "even now {hero} smiles when {he} thinks of it.",
    "they still talk about it today.",
]);

/// How it can end for one.
const END_ALONE: Step = Maybe(&[
    "that night {hero} slept very well.",
    "{hero} never forgot that day.",
    "it had been worth it.",
    "even now {hero} smiles when {he} thinks of it.",
    "since then {he} has told this story many times.",
    "and that is how it was.",
]);
