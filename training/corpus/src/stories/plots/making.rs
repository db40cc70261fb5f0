//! Plots about things that are made, grown, cooked or given.

use super::steps::Step::{Maybe, Tell, Turn};
use super::steps::{END, END_ALONE, FRIEND, HERO, Plot};
use crate::words::people::ELDERS;
use crate::words::things::{CLOTHES, FRUITS, LOOKS, PLANTS, TASTES, TOOLS, TOYS, TREASURES};

pub(super) const PLOTS: &[Plot] = &[BUILDING, SEEDS, GIFT, COOKING];

/// The first one breaks, and the second one is better.
const BUILDING: Plot = Plot {
    titles: &["{hero} and {friend} build {project}", "the second try", "{project}", "try again"],
    things: &[TOOLS],
    looks: LOOKS,
    picks: &[
        ("elder", ELDERS),
        (
            "project",
            &[
                "a tree house/wood and nails",
                "a little boat/wood and a sheet",
                "a sand castle/wet sand and shells",
                "a big kite/paper and string",
                "a small hut/branches and leaves",
                "a bird house/old boards",
                "a tower/many flat stones",
                "a snowman/snow and a carrot",
            ],
        ),
        ("luck", &["the wind blew it over", "it fell apart", "a dog ran into it", "it broke in the middle"]),
    ],
    steps: &[
        HERO,
        FRIEND,
        Tell(&[
            "{day}, they wanted to build {project}.",
            "{day}, {hero} had an idea: they could build {project}.",
            "<Let's build {project}!> said {friend} {day}.",
        ]),
        Tell(&[
            "for that they needed {project.1}.",
            "they found {project.1} near {place}.",
            "{elder} gave them {project.1}.",
        ]),
        Tell(&[
            "{hero} carried the heavy pieces, and {friend} put them together.",
            "<I will hold it,> said {friend}, <and you can tie it.>",
            "they worked for {n} hours without a break.",
        ]),
        Turn(&["but when it was almost done, {luck}.", "just as they finished, {luck}.", "then {luck}."]),
        Tell(&[
            "<It is no use,> said {hero}, and {he} was {sad}.",
            "{friend} almost began to cry.",
            "they looked at it for a long time and said nothing.",
        ]),
        Tell(&[
            "<We can do it again,> said {friend}, <and this time we will do it better.>",
            "<What did we do wrong?> asked {hero}.|<We were too fast,> {said} {friend}.",
            "<I could never do it at once either,> said {elder}.",
        ]),
        Turn(&[
            "so they started again, and this time they were more careful.",
            "{next}, they tried again.",
            "they began once more and took {m} hours for it.",
        ]),
        Tell(&[
            "when the sun went down, it was done, and it was beautiful.",
            "the second one was much stronger than the first.",
            "{elder} looked at it and said, <I have never seen a better one.>",
        ]),
        END,
    ],
};

/// Seeds take time to grow.
const SEEDS: Plot = Plot {
    titles: &["{n} seeds", "{hero} plants {things}", "the garden of {hero}", "wait and see"],
    things: &[PLANTS],
    looks: TASTES,
    picks: &[("elder", ELDERS)],
    steps: &[
        HERO,
        Tell(&[
            "{day}, {elder} gave {him} {n} {noun} seeds.",
            "{day}, {hero} bought {n} {noun} seeds at the market.",
            "in an old box {hero} found {n} {noun} seeds.",
        ]),
        Tell(&[
            "{he} planted them behind the house.",
            "{he} made {n} holes in the ground and put one seed in each.",
            "{he} planted all of them in the garden, one after another.",
        ]),
        Tell(&[
            "every morning {he} gave them water.",
            "{he} watered them every day and pulled out the weeds.",
            "when the sun was too hot, {he} brought them water.",
        ]),
        Turn(&[
            "but for {m} weeks nothing happened.",
            "{m} weeks went by, and there was still nothing to see.",
            "a week went by, then another one, but the ground stayed brown.",
        ]),
        Tell(&[
            "<Why don't they grow?> {hero} asked {elder}.",
            "<They will never come up,> said {hero}.",
            "<Did I do something wrong?> {he} asked {elder}.",
        ]),
        Tell(&[
            "<They are growing, but you can't see it yet,> {said} {elder}.",
            "<You have to wait a little longer,> {said} {elder}.",
            "{elder} {friendly} and said, <Good things need time.>",
        ]),
        Turn(&[
            "then, {day}, a green leaf came out of the ground.",
            "{next}, {hero} saw the first green leaf.",
            "{next}, there were {rest} tiny leaves.",
        ]),
        Tell(&[
            "by the end of the summer there were {price} {things}.",
            "{rest} of the {n} seeds had grown, and soon the garden was full of {things}.",
            "they grew and grew until they were taller than {hero}.",
        ]),
        Tell(&[
            "{hero} kept {rest} of them and gave the others away.",
            "<Now I know how to wait,> said {hero}.",
            "{he} gave the most beautiful one to {friend}, {a ftrait} {fkind} from next door.",
        ]),
        END_ALONE,
    ],
};

/// A gift that no shop sells.
const GIFT: Plot = Plot {
    titles: &["a gift for {friend}", "the birthday", "{friend} has a birthday", "the best gift"],
    things: &[TOYS, CLOTHES, TOOLS, TREASURES],
    looks: LOOKS,
    picks: &[
        ("elder", ELDERS),
        (
            "gift",
            &[
                "a card with {n} hearts",
                "a little bear out of wool",
                "a picture of the two of them",
                "a song with {n} verses",
                "a cake with {n} candles",
                "a chain of {n} paper stars",
            ],
        ),
    ],
    steps: &[
        HERO,
        FRIEND,
        Tell(&[
            "{friend} was going to have a birthday, and {hero} had no gift yet.",
            "soon it was {friend}'s birthday, and {hero} wanted to give {fhim} something nice.",
            "tomorrow {friend} would be {n} years old.",
        ]),
        Turn(&[
            "<What would {fhe} like?> {hero} asked {elder}.",
            "<I want to buy {a thing} for {friend},> {he} said to {elder}.",
            "{hero} thought of {a thing}, but {he} was not sure.",
        ]),
        Tell(&[
            "but {a thing} cost {price} coins, and {he} had only {have}.",
            "in the shop there was {a thing} for {price} coins, but {he} had only {have}.",
        ]),
        Tell(&[
            "<You can make something yourself,> said {elder}.",
            "<The best gifts don't come from a shop,> said {elder}.",
            "then {he} had a better idea.",
        ]),
        Tell(&[
            "so {hero} made {gift}.",
            "{he} worked all evening and made {gift}.",
            "{he} sat down at the table and made {gift}.",
        ]),
        Maybe(&[
            "it was not perfect, but it was made with love.",
            "it was late when {he} went to bed.",
            "<I hope {fhe} will like it,> {he} thought.",
        ]),
        Turn(&[
            "{friend}'s eyes grew big when {fhe} saw it.",
            "the next day {hero} gave it to {friend}.|<Did you make this yourself?> {fhe} asked.",
            "on the birthday there were {m} guests, and {hero} came last.|<This is for you,> {he} said.",
        ]),
        Tell(&[
            "<It is the best gift I have ever had,> said {friend}.",
            "<I like it more than {a thing},> said {friend}.",
            "{friend} was so happy that {fhe} could not say a word.",
        ]),
        END,
    ],
};

/// Each has what the other one lacks.
const COOKING: Plot = Plot {
    titles: &["{hero} cooks", "no {missing}", "{hero} and {friend} cook {meal}", "the best {meal.1}"],
    things: &[FRUITS],
    looks: TASTES,
    picks: &[
        ("elder", ELDERS),
        ("meal", &["a soup/soup", "a cake/cake", "a pie/pie", "a stew/stew", "a pudding/pudding"]),
        ("missing", &["salt", "butter", "milk", "flour", "honey", "sugar"]),
        ("other", &["salt", "butter", "milk", "flour", "honey", "sugar"]),
    ],
    steps: &[
        HERO,
        FRIEND,
        Tell(&[
            "{day}, {hero} wanted to make {meal} for {elder}.",
            "{day}, {he} was hungry and began to make {meal}.",
            "{day}, {hero} had {n} {things} and wanted to make {meal} with them.",
        ]),
        Tell(&[
            "{he} had everything, but there was no {missing}.",
            "but when {he} opened the cupboard, there was no {missing} in it.",
            "<I can't make {meal} without {missing},> {he} said.",
        ]),
        Tell(&[
            "so {he} {went} to {friend} and knocked {m} times.",
            "{he} took a cup and {went} to the house of {friend}.",
            "{hero} took off {his} apron and {went} to {friend}.",
        ]),
        Turn(&[
            "<Can you give me some {missing}?> asked {hero}.",
            "<Do you have any {missing}?> {he} asked.",
            "<I need a little {missing}, please,> said {hero}.",
        ]),
        Tell(&[
            "<Yes, but I have no {other},> {said} {friend}.",
            "<I have enough of it,> {said} {friend}, <but I need some {other}.>",
            "<What a day!> said {friend}.|<I was just looking for some {other}.>",
        ]),
        Tell(&[
            "<Then let's cook together,> said {hero}, <for I have {other} at home.>",
            "{hero} had {other}, and {friend} had {missing}, so they cooked together.",
        ]),
        Turn(&[
            "{hero} cut {n} {things}, and {friend} made the fire.",
            "soon the whole house smelled of {meal.1}.",
            "they stirred and tasted, and tasted and stirred.",
        ]),
        Tell(&[
            "{elder} came by and ate {m} plates of it.",
            "<This is the best {meal.1} in the world,> said {friend}.",
            "it was so good that nothing was left.",
        ]),
        END,
    ],
};
