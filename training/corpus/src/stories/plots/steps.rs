//! Steps of a plot, and those that several plots share.

use self::Step::{Maybe, Tell};

/// A step of a plot.
pub(in crate::stories) enum Step {
    /// One of these.
    Tell(&'static [&'static str]),
    /// One of these, or none.
    Maybe(&'static [&'static str]),
    /// One of these, usually at the start of a paragraph.
    Turn(&'static [&'static str]),
}

impl Step {
    /// Templates to choose from.
    pub(in crate::stories) fn templates(&self) -> &'static [&'static str] {
        match self {
            Step::Tell(templates) | Step::Maybe(templates) | Step::Turn(templates) => templates,
        }
    }
}

/// A kind of story.
pub(in crate::stories) struct Plot {
    /// Templates of the title.
    pub(in crate::stories) titles: &'static [&'static str],
    /// Lists for the thing of the story, as "singular/plural".
    pub(in crate::stories) things: &'static [&'static [&'static str]],
    /// Looks of the thing.
    pub(in crate::stories) looks: &'static [&'static str],
    /// Further names, each bound to an entry of its list. `/` separates the fields of an entry.
    pub(in crate::stories) picks: &'static [(&'static str, &'static [&'static str])],
    /// Steps of the story.
    pub(in crate::stories) steps: &'static [Step],
}

/// The main character.
pub(super) const HERO: Step = Tell(&[
    "{once} there was {a trait} {kind} named {hero}.",
    "{once} there lived {a trait} {kind}, and {his} name was {hero}.",
    "{hero} was {a trait} {kind} who lived near {place}.",
    "there once was {a trait} {kind} called {hero}.",
    "this is a story about {hero}, {a trait} {kind}.",
    "{a trait} {kind} named {hero} lived in a little house near {place}.",
    "{hero} is {a trait} {kind} who likes to be {at}.",
]);

/// The friend, unless the plot introduces one itself.
pub(super) const FRIEND: Step = Tell(&[
    "{his} best friend was {a ftrait} {fkind} named {friend}.",
    "{he} had a good friend, {a ftrait} {fkind} called {friend}.",
    "{hero} and {friend}, {a ftrait} {fkind}, were always together.",
    "{friend}, {a ftrait} {fkind}, lived next door.",
    "almost every day {he} played with {friend}, {a ftrait} {fkind}.",
    "everybody knew that {he} and {friend}, {a ftrait} {fkind}, were friends.",
]);

/// Endings for two characters.
pub(super) const END: Step = Maybe(&[
    "from that day on, they were the best of friends.",
    "that night {hero} slept very well.",
    "they laughed and walked home together.",
    "{hero} never forgot that day.",
    "it had been a very good day.",
    "even now {hero} smiles when {he} thinks of it.",
    "they still talk about it today.",
]);

/// Endings for one character.
pub(super) const END_ALONE: Step = Maybe(&[
    "that night {hero} slept very well.",
    "{hero} never forgot that day.",
    "it had been worth it.",
    "even now {hero} smiles when {he} thinks of it.",
    "since then {he} has told this story many times.",
    "and that is how it was.",
]);
