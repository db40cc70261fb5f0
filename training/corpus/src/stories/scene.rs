//! The cast and things of a story, and the expansion of templates.

use super::plots::Plot;
use super::rules::RULES;
use crate::random::Random;
use crate::words::people::{ANIMALS, BOYS, ELDERS, GIRLS, TRAITS};
use crate::words::places::PLACES;
use crate::words::things::NUMBERS;

/// Names that every scene binds, whatever the plot.
///
/// `n` is the sum of `m` and `rest`, in words, and `price` the sum of `have` and `need`, in digits.
#[cfg(test)]
pub(super) const BOUND: &[&str] = &[
    "hero", "kind", "trait", "he", "him", "his", "friend", "fkind", "ftrait", "fhe", "fhim", "fhis", "place", "at",
    "noun", "things", "adj", "thing", "n", "m", "rest", "price", "have", "need",
];

/// Values of the placeholders in one story.
pub(super) struct Scene {
    names: Vec<(String, String)>,
}

impl Scene {
    /// Chooses a cast, a place, a thing and numbers for `plot`.
    pub(super) fn new(plot: &Plot, random: &mut Random) -> Self {
        let mut scene = Scene { names: Vec::new() };
        scene.person(["hero", "kind", "trait", "he", "him", "his"], random);
        scene.person(["friend", "fkind", "ftrait", "fhe", "fhim", "fhis"], random);

        let (place, at) = fields(random.pick(PLACES));
        scene.bind("place", place);
        scene.bind("at", at);
        let list = random.pick(plot.things);
        let (one, many) = fields(random.pick(list));
        let look = random.pick(plot.looks);
        scene.bind("noun", one);
        scene.bind("things", many);
        scene.bind("adj", look);
        scene.bind("thing", format!("{look} {one}"));

        let n = random.between(4, 10);
        let m = random.between(2, n - 2);
        scene.bind("n", NUMBERS[n]);
        scene.bind("m", NUMBERS[m]);
        scene.bind("rest", NUMBERS[n - m]);
        let (have, need) = (random.between(3, 14), random.between(4, 16));
        scene.bind("have", have.to_string());
        scene.bind("need", need.to_string());
        scene.bind("price", (have + need).to_string());

        for (name, list) in plot.picks {
            // Two names may share a list, such as a wrong and a right place, and must then differ.
            let entry = scene.fresh(list, random);
            for (at, field) in entry.split('/').enumerate() {
                scene.bind(if at == 0 { (*name).to_owned() } else { format!("{name}.{at}") }, field);
            }
        }
        scene
    }

    /// Binds the name, kind, trait and pronouns of a person to `names`.
    fn person(&mut self, names: [&str; 6], random: &mut Random) {
        let (people, child, pronouns) = if random.chance(1, 2) {
            (GIRLS, "girl", ["she", "her", "her"])
        } else {
            (BOYS, "boy", ["he", "him", "his"])
        };
        let name = self.fresh(people, random);
        let kind = if random.chance(1, 2) { child } else { random.pick(ANIMALS) };
        let quality = self.fresh(TRAITS, random);
        for (at, value) in names.into_iter().zip([name, kind, quality].into_iter().chain(pronouns)) {
            self.bind(at, value);
        }
    }

    /// An entry of `list` whose first field is not bound yet.
    fn fresh(&self, list: &[&'static str], random: &mut Random) -> &'static str {
        loop {
            let entry = random.pick(list);
            let first = fields(entry).0;
            if self.names.iter().all(|(_, value)| value != first) {
                return entry;
            }
        }
    }

    fn bind(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.names.push((name.into(), value.into()));
    }

    /// Expands the placeholders of `template` and its quotation marks.
    ///
    /// # Panics
    ///
    /// If the template uses an unknown name. A test rules this out for all templates.
    pub(super) fn fill(&self, template: &str, random: &mut Random) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let (name, after) = after.split_once('}').expect("templates close their braces");
            text.push_str(&self.named(name, random));
            rest = after;
        }
        text.push_str(rest);
        text.replace(['<', '>'], "\"")
    }

    fn named(&self, name: &str, random: &mut Random) -> String {
        if let Some(name) = name.strip_prefix("a ") {
            let noun = self.named(name, random);
            let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
            return format!("{article} {noun}");
        }
        let bound = self.names.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let template = bound.unwrap_or_else(|| {
            let (_, phrases) = RULES.iter().find(|(known, _)| *known == name).expect("templates use known names");
            random.pick(phrases)
        });
        self.fill(template, random)
    }
}

/// The first two fields of an entry. An entry without a second field repeats the first.
fn fields(entry: &str) -> (&str, &str) {
    let mut fields = entry.split('/');
    let first = fields.next().unwrap_or(entry);
    (first, fields.next().unwrap_or(first))
}

/// All lists that scenes draw from.
pub(super) fn lists() -> impl Iterator<Item = &'static str> {
    // No story has zero things.
    [ANIMALS, TRAITS, ELDERS, PLACES, &NUMBERS[1..], &["girl", "boy", "she", "her", "he", "him", "his", "a", "an"]]
        .into_iter()
        .flatten()
        .copied()
}

/// All names of people.
pub(super) fn people() -> impl Iterator<Item = &'static str> {
    GIRLS.iter().chain(BOYS).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::plots::plots;
    use super::*;

    /// Names of the placeholders of `template`.
    fn names(template: &str) -> Vec<&str> {
        template.split('{').skip(1).map(|part| part.split_once('}').expect("closed").0).collect()
    }

    #[test]
    fn templates_use_known_names() {
        for plot in plots() {
            let rules = RULES.iter().map(|(name, _)| name);
            let mut known: HashSet<String> = BOUND.iter().chain(rules).map(|&name| name.to_owned()).collect();
            for (name, list) in plot.picks {
                let count = list[0].split('/').count();
                assert!(list.iter().all(|entry| entry.split('/').count() == count), "{list:?}");
                assert!(known.insert((*name).to_owned()), "{name} is bound twice");
                known.extend((1..count).map(|at| format!("{name}.{at}")));
            }
            let steps = plot.steps.iter().flat_map(|step| step.templates());
            let picks = plot.picks.iter().flat_map(|(_, list)| list.iter());
            let phrases = RULES.iter().flat_map(|(_, phrases)| phrases.iter());
            for template in steps.chain(plot.titles).chain(picks).chain(phrases) {
                assert_eq!(template.matches('{').count(), template.matches('}').count(), "{template}");
                for name in names(template) {
                    let name = name.strip_prefix("a ").unwrap_or(name);
                    assert!(known.contains(name), "{{{name}}} in {template}");
                }
            }
        }
    }

    #[test]
    fn scenes_bind_the_names_that_are_listed() {
        let mut random = Random::stream(1, "scene", 0);
        for plot in plots() {
            let scene = Scene::new(plot, &mut random);
            for name in BOUND {
                assert!(scene.names.iter().any(|(known, _)| known == name), "{name}");
            }
        }
    }

    #[test]
    fn two_people_and_two_picks_of_one_list_differ() {
        let plot = plots().next().expect("there are plots");
        for index in 0..500 {
            let mut random = Random::stream(2, "scene", index);
            let scene = Scene::new(plot, &mut random);
            for (one, other) in [("hero", "friend"), ("trait", "ftrait"), ("spot", "wrong")] {
                assert_ne!(scene.named(one, &mut random), scene.named(other, &mut random));
            }
        }
    }

    #[test]
    fn articles_fit_and_sums_are_right() {
        let value = |word: &str| NUMBERS.iter().position(|&number| number == word).expect("a number");
        let all: Vec<&Plot> = plots().collect();
        for (index, plot) in all.into_iter().cycle().take(400).enumerate() {
            let mut random = Random::stream(3, "scene", index as u64);
            let scene = Scene::new(plot, &mut random);
            let mut get = |name: &str| scene.named(name, &mut random);
            assert_eq!(value(&get("n")), value(&get("m")) + value(&get("rest")));
            let mut number = |name: &str| get(name).parse::<usize>().expect("digits");
            assert_eq!(number("price"), number("have") + number("need"));
            let thing = get("a thing");
            let vowel = thing.split(' ').nth(1).is_some_and(|word| "aeiou".contains(&word[..1]));
            assert_eq!(thing.starts_with("an "), vowel, "{thing}");
        }
    }
}
