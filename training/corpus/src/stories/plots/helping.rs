//! Plots about help.

use super::steps::Step::{Maybe, Tell, Turn};
use super::steps::{END, FRIEND, HERO, Plot};
use crate::words::people::ELDERS;
use crate::words::things::{BAKED, FRUITS, LOOKS, TASTES, TOOLS};

pub(super) const PLOTS: &[Plot] = &[SHARING, STUCK, STORM, RACE];

/// Some of the food in a basket goes to someone hungry, and is counted.
const SHARING: Plot = Plot {
    titles: &["{n} {things}", "{hero} shares", "the hungry {fkind}", "a basket of {things}"],
    things: &[FRUITS, BAKED],
    looks: TASTES,
    picks: &[],
    steps: &[
        HERO,
        Tell(&[
            "{day}, {hero} had {n} {things} in a basket.",
            "{day}, {he} packed {n} {adj} {things} for the way.",
            "{he} had {n} {adj} {things} for lunch.",
        ]),
        Tell(&[
            "on the way to {place} {he} met {friend}, {a ftrait} {fkind}.",
            "{at} sat {a ftrait} {fkind} named {friend}.",
            "when {he} came to {place}, {he} saw {a ftrait} {fkind}, whose name was {friend}.",
        ]),
        Turn(&[
            "<I am so hungry,> said {friend}.",
            "<I have not eaten since yesterday,> said {friend} in a low voice.",
            "<Why are you sad?> asked {hero}.|<I have nothing to eat,> {said} {friend}.",
            "<Those {things} smell good,> said {friend}, and {fhe} looked at the basket.",
        ]),
        Tell(&[
            "{hero} looked at the {things}, and then {he} looked at {friend}.",
            "{hero} was hungry too, but {he} did not think for long.",
            "<Then we will share,> said {hero}.",
        ]),
        Tell(&[
            "{he} gave {friend} {m} {things}, and {rest} were left.",
            "<Take {m},> said {hero}, <and I will keep {rest}.>",
            "{m} of the {n} {things} were for {friend}, and {rest} were for {hero}.",
        ]),
        Maybe(&[
            "they sat down {at} and ate.",
            "nothing had ever tasted so good.",
            "<Now you have only {rest},> said {friend}.|<That is enough for me,> {said} {hero}.",
        ]),
        Turn(&[
            "{next}, {friend} came back with {n} {things}.",
            "{next}, {friend} brought {hero} {a noun} as big as a hat.",
            "{next}, when {hero} had nothing to eat, {friend} cooked for both of them.",
        ]),
        Tell(&[
            "<You shared with me, so I will share with you,> said {friend}.",
            "<This is for you, because you are so kind,> said {friend}.",
            "{hero} {friendly} and said, <Let's eat together again.>",
        ]),
        END,
    ],
};

/// A voice calls for help, and someone fetches the right tool.
const STUCK: Plot = Plot {
    titles: &["a voice {at}", "{hero} helps", "{friend} is stuck", "help for {friend}"],
    things: &[TOOLS],
    looks: LOOKS,
    picks: &[(
        "trouble",
        &[
            "in a deep hole/a rope/pulled {fhim} out",
            "high up in a tree/a ladder/helped {fhim} down",
            "in the mud/a long stick/pulled {fhim} out",
            "in a net/a sharp knife/cut {fhim} free",
            "behind a heavy gate/a hammer/opened it for {fhim}",
            "under a fallen branch/a saw/got {fhim} out",
        ],
    )],
    steps: &[
        HERO,
        Tell(&[
            "{day}, {he} was {at} when {he} heard a voice.",
            "{day}, {he} went to {place} with {a thing}, and there {he} heard somebody.",
            "{day}, {hero} was on the way home from {place}.",
        ]),
        Turn(&[
            "<Help, help!> somebody {cried}.",
            "<Is anybody there?> {cried} a voice.|<I can't get out!>",
            "<Please help me!> somebody {cried}.",
        ]),
        Tell(&[
            "it was {friend}, {a ftrait} {fkind}, who was stuck {trouble}.",
            "{a ftrait} {fkind} was stuck {trouble}, and {fhis} name was {friend}.",
            "{hero} looked around and saw {a ftrait} {fkind} {trouble}.|It was {friend}.",
        ]),
        Maybe(&[
            "<How long have you been there?> asked {hero}.|<For {n} hours,> {said} {friend}.",
            "{friend} had been there for {n} hours.",
            "{fhe} was cold, and {fhis} voice was weak.",
        ]),
        Turn(&[
            "<Don't be afraid,> said {hero}, <I will get {trouble.1}.>",
            "<I know what we need,> said {hero}, <and that is {trouble.1}.>",
            "<Wait here,> said {hero}, but then {he} had to laugh, because {friend} could do nothing else.",
        ]),
        Tell(&[
            "{he} ran home and came back with {trouble.1}.",
            "{he} ran to the next house and asked for {trouble.1}.",
            "{he} was gone for only {n} minutes, and {he} brought {trouble.1}.",
        ]),
        Tell(&[
            "with it {he} {trouble.2}.",
            "it was not easy, but at last {he} {trouble.2}.",
            "it took {m} tries, but then {he} {trouble.2}.",
        ]),
        Tell(&[
            "<You saved me!> said {friend}.",
            "<I will never forget this,> said {friend}.",
            "<You would have done the same for me,> said {hero}.",
            "{friend} thanked {him} {n} times.",
        ]),
        END,
    ],
};

/// Two characters wait for the rain to end.
const STORM: Plot = Plot {
    titles: &["the storm", "{hero} and {friend} in the rain", "after the rain", "the day of the big storm"],
    things: &[TOOLS],
    looks: LOOKS,
    picks: &[
        ("elder", ELDERS),
        ("shelter", &["a cave", "an old barn", "a little hut", "an empty house", "a thick tree", "a small bridge"]),
        (
            "plan",
            &["look for berries", "pick flowers", "fly a kite", "catch fish", "play hide and seek", "watch the birds"],
        ),
    ],
    steps: &[
        HERO,
        FRIEND,
        Tell(&[
            "{day}, they went to {place} to {plan}.",
            "{day}, {hero} and {friend} were {at}, because they wanted to {plan}.",
            "<Let's go to {place} and {plan},> said {hero}.",
        ]),
        Tell(&[
            "suddenly the sky grew dark, and it began to rain.",
            "they had been there for {n} minutes when a strong wind came up.",
            "at first the sun was shining, but then black clouds came over the hills.",
        ]),
        Turn(&[
            "<We have to find a dry place,> said {hero}.",
            "<Did you hear the thunder?> asked {friend}.|<Yes, we must hurry!> {cried} {hero}.",
            "<Run!> {cried} {friend}.",
        ]),
        Tell(&[
            "they ran until they came to {shelter}.",
            "not far away, {friend} saw {shelter}.",
            "after {n} minutes they reached {shelter}, and they were wet from head to toe.",
        ]),
        Maybe(&[
            "{friend} was afraid of the thunder, so {hero} held {fhis} hand.",
            "it was dark there, but it was dry.",
            "luckily {hero} had {a thing} and some bread with {him}.",
        ]),
        Tell(&[
            "while they waited, {hero} told {n} funny stories.",
            "they sang every song they knew to pass the time.",
            "they counted the seconds from each flash to its thunder: <One, two, three, four!>",
        ]),
        Turn(&[
            "{then} the rain stopped, and the sun came out again.",
            "after {m} hours the storm was over.",
            "<Look, a rainbow!> {cried} {friend} when the rain was over.",
        ]),
        Tell(&[
            "when they came home, {elder} gave them hot soup.",
            "<Were you afraid?> asked {elder}.|<Not at all,> said {hero}, and {friend} laughed.",
            "the whole world smelled fresh and new.",
        ]),
        END,
    ],
};

/// A race that nobody wins, or both.
const RACE: Plot = Plot {
    titles: &["the race", "{hero} and {friend} run a race", "the race to {place}", "who is faster?"],
    things: &[TOOLS],
    looks: LOOKS,
    picks: &[
        ("elder", ELDERS),
        ("cause", &["over a stone", "over a root", "into a puddle", "on the wet grass", "over {a thing}"]),
    ],
    steps: &[
        HERO,
        FRIEND,
        Turn(&[
            "{day}, {friend} said, <I am faster than you!>",
            "<I can run faster than anybody,> said {friend} {day}.",
            "<Who of us is faster?> {hero} asked {day}.",
        ]),
        Tell(&[
            "<Then let's race to {place},> {said} {hero}.",
            "they wanted to find out, so they agreed to race to {place}.",
            "<We will run from my house to {place},> {said} {hero}, <and then we will see.>",
        ]),
        Tell(&[
            "{elder} counted: <One, two, three, go!>",
            "<Ready, steady, go!> {cried} {elder}.",
            "{elder} gave the sign, and off they ran.",
        ]),
        Tell(&[
            "at first {friend} was {n} steps ahead.",
            "{friend} ran like the wind, and {hero} was far behind.",
            "{hero} ran well, but {friend} was faster.",
        ]),
        Turn(&[
            "but then {friend} fell {cause}.",
            "suddenly {friend} fell {cause} and hurt {fhis} leg.",
            "near {place} {friend} fell {cause} and could not get up.",
        ]),
        Tell(&[
            "{hero} could have won easily, but {he} stopped.",
            "{hero} did not run past {fhim}.",
            "{hero} forgot the race and turned around.",
        ]),
        Tell(&[
            "<Are you hurt?> {he} asked.|<Only a little,> {said} {friend}.",
            "<Give me your hand,> said {hero}.",
            "<Go on, you can win!> said {friend}.|<Not without you,> {said} {hero}.",
        ]),
        Tell(&[
            "they walked the rest of the way side by side.",
            "together they came to {place}, slowly, step by step.",
            "so nobody won the race, and nobody was sad about it.",
            "<You are both winners,> said {elder}.",
        ]),
        END,
    ],
};
