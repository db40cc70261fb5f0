//! Plots about things that are lost, hidden or too expensive.

use super::steps::Step::{Maybe, Tell, Turn};
use super::steps::{END, END_ALONE, FRIEND, HERO, Plot};
use crate::words::people::ELDERS;
use crate::words::places::SPOTS;
use crate::words::things::{CLOTHES, LOOKS, TOOLS, TOYS, TREASURES};

pub(super) const PLOTS: &[Plot] = &[LOST, COINS, LETTER];

/// A lost thing is found where nobody has looked yet.
const LOST: Plot = Plot {
    titles: &["the lost {noun}", "{hero} and the {thing}", "where is the {noun}?", "{hero} looks for the {noun}"],
    things: &[TOYS, CLOTHES, TOOLS, TREASURES],
    looks: LOOKS,
    picks: &[("spot", SPOTS), ("wrong", SPOTS), ("elder", ELDERS)],
    steps: &[
        HERO,
        FRIEND,
        Tell(&[
            "{hero} had {a thing} that {he} loved very much.",
            "more than anything else, {hero} loved {his} {thing}.",
            "{elder} had given {hero} {a thing}, and {he} took it everywhere.",
            "{hero} owned {a thing}, and nobody else had one like it.",
        ]),
        Tell(&[
            "{day}, the {noun} was gone.",
            "but {day}, {he} could not find it.",
            "{day}, {hero} wanted to show it to {friend}, but it was not there.",
        ]),
        Turn(&[
            "<Where is my {noun}?> {cried} {hero}.",
            "<Have you seen my {noun}?> {hero} asked {friend}.",
            "<Oh no, my {noun} is lost!> said {hero}.",
            "<I can't find my {noun},> said {hero}, and {he} was {sad}.",
        ]),
        Tell(&[
            "{friend} {said}, <Don't worry, we will look for it together.>",
            "<When did you last see it?> asked {friend}.|<I had it yesterday, when we were {at},> {said} {hero}.",
            "<I will help you,> {said} {friend}.",
            "<If we both look, we will find it,> said {friend}.",
        ]),
        Tell(&[
            "first they looked {wrong}, but there was nothing there.",
            "they looked {at}, and they looked {wrong}, but the {noun} was not there.",
            "they found {n} other {things} {wrong}, but not the {adj} one.",
            "they searched for {n} hours, and they even looked {wrong}.",
        ]),
        Maybe(&[
            "{hero} was about to give up.",
            "soon both of them were {tired}.",
            "they asked {elder}, but {elder.1} had not seen it.",
        ]),
        Turn(&[
            "then {friend} looked {spot}, and there it was!",
            "at last {hero} looked {spot}.|There lay the {thing}!",
            "{then} {friend} {cried}, <Come here!>|The {thing} was {spot}.",
        ]),
        Tell(&[
            "<Thank you,> said {hero}, <you are a true friend.>",
            "<Next time I will put it in a safe place,> said {hero}.",
            "{hero} was {happy}, and {friend} was glad too.",
            "<How did it get there?> asked {friend}, but nobody knew.",
        ]),
        END,
    ],
};

/// A thing is too expensive, and work pays for the rest.
const COINS: Plot = Plot {
    titles: &["the {thing}", "{hero} and the {price} coins", "how {hero} bought {a noun}", "{price} coins"],
    things: &[TOYS, CLOTHES, TOOLS],
    looks: LOOKS,
    picks: &[
        ("elder", ELDERS),
        (
            "job",
            &[
                "swept the floor/sweep the floor",
                "carried water/carry water",
                "picked apples/pick apples",
                "fed the hens/feed the hens",
                "washed the windows/wash the windows",
                "cut the grass/cut the grass",
                "cleaned the stable/clean the stable",
                "painted the fence/paint the fence",
            ],
        ),
    ],
    steps: &[
        HERO,
        Tell(&[
            "{day}, {hero} saw {a thing} in the window of a shop.",
            "in a shop near {place} there were {n} {things}, and {hero} loved the {adj} one.",
            "{he} wanted {a thing} more than anything.",
            "for a long time {hero} had dreamed of {a thing}.",
        ]),
        Tell(&[
            "it cost {price} coins, but {he} had only {have}.",
            "the price was {price} coins.|{hero} counted {his} money and found only {have}.",
            "it was not cheap: {he} had {have} coins, and it cost {price}.",
        ]),
        Turn(&[
            "<I need {need} more coins,> said {hero}.",
            "<How can I get {need} coins?> {he} asked {elder}.",
            "<Can I work for you?> {he} asked {elder}.|<I still need {need} coins.>",
        ]),
        Tell(&[
            "{elder} {said}, <If you {job.1} for me, I will pay you.>",
            "<You can {job.1} for {n} days,> said {elder}, <and I will give you {need} coins.>",
            "{elder} thought about it and {said}, <Yes, you can {job.1}.>",
        ]),
        Tell(&[
            "so {hero} {job} every day for {n} days.",
            "{hero} {job} until {his} back hurt.",
            "for {n} days {hero} got up early and {job}.",
        ]),
        Maybe(&[
            "it was hard work, but {he} did not stop.",
            "sometimes {he} wanted to play, but {he} thought of the {noun} and went on.",
            "every evening {he} counted the days that were left.",
        ]),
        Turn(&[
            "at last {he} had {price} coins.",
            "then {elder} gave {him} {need} shiny coins.",
            "when the work was done, {elder} paid {him} {need} coins.",
        ]),
        Tell(&[
            "{he} {went} to the shop and bought the {thing}.",
            "{hero} put the money on the table of the shop, and the {noun} was {his} own.",
            "{he} took all {price} coins to the shop and came back with the {thing}.",
        ]),
        Tell(&[
            "{hero} was {happy}.",
            "{he} had earned it, and so {he} took good care of it.",
            "<It is even nicer than I thought,> said {hero}.",
            "<Well done,> said {elder}, <now you know what it is worth.>",
        ]),
        END_ALONE,
    ],
};

/// A letter leads to something hidden long ago.
const LETTER: Plot = Plot {
    titles: &["the secret letter", "{n} steps to the {side}", "the box near {place}", "the hidden {noun}"],
    things: &[TREASURES],
    looks: LOOKS,
    picks: &[
        ("elder", ELDERS),
        ("spot", SPOTS),
        ("side", &["north", "south", "east", "west"]),
        ("hide", &["under the flat stone", "in the hollow tree", "behind the old wall", "below the broken fence"]),
    ],
    steps: &[
        HERO,
        FRIEND,
        Tell(&[
            "{day}, {hero} found a letter {spot}.",
            "{day}, there was an old letter {spot}.",
            "when {hero} cleaned the house, {he} found a letter {spot}.",
        ]),
        Tell(&[
            "it said, <Go to {place}, take {n} steps to the {side} and look {hide}.>",
            "there were only a few words on it: <{n} steps to the {side} of {place}, {hide}.>",
        ]),
        Turn(&[
            "<Look at this!> {hero} said to {friend}.",
            "<What can it mean?> asked {friend}.",
            "<Let's go there at once,> said {friend}.",
            "{hero} showed it to {friend}.|<Maybe it is a treasure,> {fhe} whispered.",
        ]),
        Tell(&[
            "they {went} to {place} and counted {n} steps to the {side}.",
            "at {place} they took {n} steps to the {side}.",
            "{hero} walked {n} steps to the {side}, and {friend} walked behind {him}.",
        ]),
        Maybe(&[
            "<It must be here,> said {friend}.",
            "both of them were very excited.",
            "<And what if somebody has taken it?> asked {hero}.",
        ]),
        Turn(&[
            "{hide}, they found a small box.",
            "they looked {hide} and found a small box.",
            "{friend} put {fhis} hand {hide} and pulled out a small box.",
        ]),
        Tell(&[
            "in the box lay {a thing}.",
            "{hero} opened it, and in it was {a thing}.",
            "it was full of sand, but in the sand was {a thing}.",
        ]),
        Tell(&[
            "{elder} had hidden it there {n} years ago.",
            "when they showed it to {elder}, {elder.1} {friendly}.|<I hid it when I was young,> {elder.1} said.",
            "they asked everybody, but nobody had lost {a noun}.",
            "<We will put it back and write a new letter,> said {hero}.",
        ]),
        END,
    ],
};
