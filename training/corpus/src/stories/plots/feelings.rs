//! Plots about feelings.

use super::steps::Step::{Maybe, Tell, Turn};
use super::steps::{END, END_ALONE, FRIEND, HERO, Plot};
use crate::words::people::ELDERS;
use crate::words::things::{CLOTHES, LOOKS, TOOLS, TOYS};

pub(super) const PLOTS: &[Plot] = &[QUARREL, NOISE, SKILL, NEW];

/// Two characters want the same thing.
const QUARREL: Plot = Plot {
    titles: &["one {noun} for two", "the quarrel", "mine or yours?", "{hero}, {friend} and the {noun}"],
    things: &[TOYS],
    looks: LOOKS,
    picks: &[("elder", ELDERS)],
    steps: &[
        HERO,
        FRIEND,
        Tell(&[
            "{day}, both of them wanted to play with the {thing}.",
            "{day}, they found {a thing} {at}, and both of them wanted it.",
            "{elder} gave them {a thing}, but there was only one.",
        ]),
        Turn(&[
            "<It is mine!> {cried} {hero}.|<No, I had it first!> {cried} {friend}.",
            "<Give it to me,> said {hero}, but {friend} shook {fhis} head.",
            "<You always take everything!> {cried} {friend}.",
        ]),
        Tell(&[
            "they pulled and pulled until the {noun} fell to the ground.",
            "{hero} pulled on one side, and {friend} pulled on the other.",
            "{friend} ran away with it, and {hero} ran after {fhim}.",
        ]),
        Turn(&[
            "{elder} heard the noise and came.|<Why do you fight?> {elder.1} asked.",
            "<Stop it, both of you!> said {elder}.",
            "<You will break it,> said {elder}.",
        ]),
        Tell(&[
            "<{hero} can have it for {n} minutes, and then it is {friend}'s turn,> {elder.1} said.",
            "<There is one {noun}, but there are two of you,> {elder.1} said, <so what can you do?>",
            "{elder} told them to think about it.",
        ]),
        Tell(&[
            "for a while nobody spoke.",
            "{hero} looked at the ground, and {he} felt bad.",
            "<I am sorry,> said {hero}.|<I am sorry too,> {said} {friend}.",
        ]),
        Tell(&[
            "<You can go first,> said {hero}.",
            "<We could play together,> said {friend}.",
            "then they took turns, {n} minutes each.",
        ]),
        Tell(&[
            "they found out that it was much more fun together.",
            "soon they did not know anymore why they had been angry.",
            "{elder} {friendly} and went back to work.",
        ]),
        END,
    ],
};

/// A noise at night has a harmless cause.
const NOISE: Plot = Plot {
    titles: &["the noise in the night", "{hero} is afraid", "{sound}", "what was that?"],
    things: &[TOOLS],
    looks: LOOKS,
    picks: &[
        ("sound", &["tap, tap, tap", "knock, knock", "scratch, scratch", "bump, bump, bump"]),
        (
            "cause",
            &[
                "a branch in the wind",
                "the cat, who had found an empty box",
                "a little bird that had lost its way",
                "an open window",
                "a mouse with a nut",
                "a loose door",
                "{a thing} that had fallen down",
            ],
        ),
    ],
    steps: &[
        HERO,
        FRIEND,
        Tell(&[
            "one {weather} night {friend} stayed at {hero}'s house.",
            "one night they slept in the same room, because it was {season} and they had a holiday.",
            "one dark night the two of them were alone in the house.",
        ]),
        Tell(&[
            "{hero} could not sleep, because there was a noise: {sound}.",
            "it was late when {hero} heard something: {sound}.",
            "suddenly there was a strange noise: {sound}!",
        ]),
        Turn(&[
            "<What is that?> whispered {hero}.",
            "<Are you awake?> {he} asked.|<Yes, I hear it too,> {said} {friend}.",
            "<Maybe it is a monster,> whispered {hero}.",
        ]),
        Tell(&[
            "{he} pulled the blanket over {his} head.",
            "{his} heart beat fast.",
            "{he} counted to {n}, but the noise did not stop.",
        ]),
        Tell(&[
            "<Let's look together,> said {friend}, <because two are braver than one.>",
            "<I don't believe in monsters,> said {friend}.",
            "<We will only know if we look,> said {friend}.",
        ]),
        Turn(&[
            "they took a lamp and went down the stairs, all {price} steps.",
            "{hero} took a lamp, {friend} took {a thing}, and they opened the door.",
            "slowly, very slowly, they went to the kitchen.",
        ]),
        Tell(&[
            "and what did they see?|It was only {cause}!",
            "there it was: {cause}!",
            "it was {cause}, nothing more.",
        ]),
        Tell(&[
            "they laughed until they had to sit down.",
            "<And I was so afraid of that!> said {hero}.",
            "<You were brave,> said {friend}.|<I was afraid, but I went,> {said} {hero}.",
        ]),
        END,
    ],
};

/// Something takes many attempts.
const SKILL: Plot = Plot {
    titles: &["{hero} learns to {skill}", "a little every day", "how {hero} learned to {skill}", "{n} tries"],
    things: &[TOYS],
    looks: LOOKS,
    picks: &[
        ("elder", ELDERS),
        (
            "skill",
            &[
                "swim",
                "read",
                "ride a horse",
                "sing",
                "paint",
                "dance",
                "skate",
                "bake bread",
                "climb a tree",
                "write",
                "play the flute",
                "tell stories",
            ],
        ),
    ],
    steps: &[
        HERO,
        Tell(&[
            "{he} wanted to learn how to {skill}.",
            "all the others could {skill}, but {hero} could not.",
            "there was one thing {he} could not do: {he} could not {skill}.",
        ]),
        Tell(&[
            "{day}, {he} tried it {at}, but it went wrong.",
            "{he} tried it {n} times, and {n} times it went wrong.",
            "the first time was bad, and the second time was even worse.",
        ]),
        Turn(&[
            "<I will never learn it,> said {hero}.",
            "<I am too small to {skill},> {he} said to {elder}.",
            "<Why is it so hard to {skill}?> {he} asked.",
        ]),
        Tell(&[
            "{elder} {friendly} and said, <I could not do it either when I was young.>",
            "<Try a little every day,> said {elder}, <and don't give up.>",
            "<Nobody can {skill} on the first day,> said {elder}.",
        ]),
        Tell(&[
            "so {hero} practiced every day for {n} weeks.",
            "{hero} went to {place} every morning and tried again.",
            "from then on {he} practiced after school, and {elder} helped {him}.",
        ]),
        Maybe(&[
            "some days were good, and some days were bad.",
            "once {he} wanted to stop, but {elder} told {him} to go on.",
            "each week it went a little better.",
        ]),
        Turn(&[
            "then, {day}, it worked!",
            "{then} {he} tried it once more, and it worked!",
            "<I can {skill}!> {hero} {cried} {day}.",
        ]),
        Tell(&[
            "{hero} was {happy}, and {elder} was proud of {him}.",
            "<I knew you could do it,> said {elder}.",
            "everybody came to see it.",
        ]),
        Tell(&[
            "now {he} is teaching {a fkind} named {friend} how to {skill}.",
            "today {hero} can {skill} better than anybody {at}.",
            "next year {he} will teach {friend}, {a ftrait} {fkind}, to {skill}.",
        ]),
        END_ALONE,
    ],
};

/// A newcomer knows nobody.
const NEW: Plot = Plot {
    titles: &["{friend} is new", "the new {fkind}", "{hero} makes a friend", "{friend} finds a friend"],
    things: &[CLOTHES, TOYS],
    looks: LOOKS,
    picks: &[("game", &["hide and seek", "catch", "with the ball", "a game with stones", "in the sand"])],
    steps: &[
        HERO,
        Tell(&[
            "{day}, {a ftrait} {fkind} named {friend} came to live near {place}.",
            "{day}, there was somebody new {at}: {a ftrait} {fkind} named {friend}.",
            "{a ftrait} {fkind} named {friend} had just come from a town far away.",
        ]),
        Tell(&[
            "{friend} did not know anybody and sat alone {at}.",
            "{fhe} had {a thing}, but nobody to show it to.",
            "nobody talked to {fhim}, and {fhe} was {sad}.",
        ]),
        Tell(&[
            "{hero} remembered how it had been to be new.",
            "{hero} watched {fhim} for a while.",
            "<Somebody should say hello,> thought {hero}.",
        ]),
        Turn(&[
            "<Hello, I am {hero},> {he} said, <and what is your name?>|<I am {friend},> {said} the {fkind}.",
            "<Hello, what is your name?> asked {hero}.|<My name is {friend},> {said} the {fkind}.",
            "<I like your {noun},> said {hero}.|<Thank you,> {said} {friend}.",
        ]),
        Tell(&[
            "<Do you want to play {game}?> asked {hero}.",
            "<We are {n}, and we need one more to play {game},> said {hero}.",
            "<Come with me,> said {hero}, <I will show you {place}.>",
        ]),
        Maybe(&[
            "first {friend} shook {fhis} head, but then {fhe} smiled.",
            "{friend} did not have to be asked twice.",
            "<I would like that very much,> {said} {friend}.",
        ]),
        Turn(&[
            "they played until it was dark.",
            "they played {game} for {n} hours.",
            "in the evening they knew everything about each other.",
        ]),
        Tell(&[
            "{next}, {m} others came and played with them.",
            "{next}, {friend} was waiting at {hero}'s door.",
            "<I have a friend now,> {friend} said at home.",
        ]),
        END,
    ],
};
