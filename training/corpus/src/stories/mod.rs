//! Short stories from a grammar: a plot, a constant cast, and many variants of each step.

mod plots;
mod rules;
mod scene;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use self::plots::{Step, plots};
use self::rules::RULES;
use self::scene::Scene;
use crate::random::Random;
use crate::words::made::{LONGEST, SHORTEST};

/// Maximum number of sentences of a story.
const LONGEST_STORY: usize = 12;

/// A story: a list of paragraphs, each a list of sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// Title, which about half of the stories have.
    pub title: Option<String>,
    /// Sentences of each paragraph.
    pub paragraphs: Vec<Vec<String>>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(title) = &self.title {
            writeln!(f, "{title}\n")?;
        }
        self.paragraphs.iter().try_for_each(|sentences| writeln!(f, "{}", sentences.join(" ")))
    }
}

/// Generates the story with this number for a seed.
///
/// ```
/// let story = bolmo_corpus::story(1, 0);
/// assert_eq!(story, bolmo_corpus::story(1, 0));
/// println!("{story}");
/// ```
pub fn story(seed: u64, index: u64) -> Story {
    Story::tell(&mut Random::stream(seed, "story", index))
}

impl Story {
    /// Generates a story from a stream of choices.
    pub(crate) fn tell(random: &mut Random) -> Story {
        loop {
            let story = Self::tell_any(random);
            if story.sentences() <= LONGEST_STORY {
                return story;
            }
        }
    }

    /// Generates a story that may be too long, if everybody talks in every step.
    fn tell_any(random: &mut Random) -> Story {
        static PLOTS: LazyLock<Vec<&plots::Plot>> = LazyLock::new(|| plots().collect());
        let plot = random.pick(&PLOTS);
        let scene = Scene::new(plot, random);
        let title = random.chance(1, 2).then(|| heading(&scene.fill(random.pick(plot.titles), random)));
        let mut paragraphs = vec![Vec::new()];
        for step in plot.steps {
            let templates = match step {
                Step::Maybe(_) if random.chance(1, 2) => continue,
                Step::Turn(templates) => {
                    if random.chance(2, 3) {
                        paragraphs.push(Vec::new());
                    }
                    templates
                }
                Step::Tell(templates) | Step::Maybe(templates) => templates,
            };
            let sentences = paragraphs.last_mut().expect("there is always one");
            let told = random.pick(templates);
            sentences.extend(told.split('|').map(|sentence| capital(&scene.fill(sentence, random))));
        }
        Story { title, paragraphs }
    }

    /// Number of sentences. Direct speech is part of the sentence around it.
    pub fn sentences(&self) -> usize {
        self.paragraphs.iter().map(Vec::len).sum()
    }
}

/// Capitalizes the first letter of `sentence`, which may follow a quotation mark.
fn capital(sentence: &str) -> String {
    let first = sentence.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
    let (before, rest) = sentence.split_at(first);
    let mut letters = rest.chars();
    letters
        .next()
        .map_or_else(String::new, |letter| format!("{before}{}{}", letter.to_ascii_uppercase(), letters.as_str()))
}

/// Capitalizes `title` in title case.
fn heading(title: &str) -> String {
    const SMALL: &[&str] = &["a", "an", "and", "at", "by", "for", "in", "of", "on", "or", "the", "to", "with"];
    let words = title
        .split(' ')
        .enumerate()
        .map(|(at, word)| if at > 0 && SMALL.contains(&word) { word.to_owned() } else { capital(word) });
    words.collect::<Vec<_>>().join(" ")
}

/// Words of `text` in lowercase, without the possessive 's.
fn words_of(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_ascii_alphabetic() && c != '\'')
        .map(|word| word.strip_suffix("'s").unwrap_or(word).trim_matches('\'').to_ascii_lowercase())
        .filter(|word| !word.is_empty())
}

/// `template` without its placeholders.
fn plain(template: &str) -> String {
    template.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect()
}

/// Words of all templates and lists, without the names of people.
static COMMON: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let told = plots().flat_map(|plot| {
        let steps = plot.steps.iter().flat_map(|step| step.templates());
        let lists = plot.things.iter().copied().chain([plot.looks]).chain(plot.picks.iter().map(|(_, list)| *list));
        steps.chain(plot.titles).copied().chain(lists.flatten().copied())
    });
    let phrases = RULES.iter().flat_map(|(_, phrases)| phrases.iter().copied());
    let all = told.chain(phrases).chain(scene::lists());
    // The "s" after a placeholder, as in "{friend}'s", is not a word.
    all.flat_map(|template| words_of(&plain(template)).collect::<Vec<_>>()).filter(|word| word != "s").collect()
});

/// All words of the stories in lowercase and sorted, including the names of people.
pub fn vocabulary() -> BTreeSet<String> {
    let people = scene::people().map(str::to_ascii_lowercase);
    COMMON.iter().cloned().chain(people).collect()
}

/// Words of the stories that puzzles can ask about: plain letters, neither too few nor too many.
pub(crate) static PUZZLE_WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let fits = |word: &&String| (SHORTEST..=LONGEST).contains(&word.len()) && !word.contains('\'');
    COMMON.iter().filter(fits).cloned().collect()
});

#[cfg(test)]
mod tests;
