//! Small stories from a grammar: a plot, a cast that stays the same over its sentences, and many ways to say each step.

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

/// The most sentences of a story.
const LONGEST_STORY: usize = 12;

/// A story, as a list of paragraphs that are lists of sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// A line above it, which about half of the stories have.
    pub title: Option<String>,
    /// The sentences of each paragraph.
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

/// The story with this number under this seed.
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
    /// A story from a stream of choices.
    pub(crate) fn tell(random: &mut Random) -> Story {
        loop {
            let story = Self::tell_any(random);
            if story.sentences() <= LONGEST_STORY {
                return story;
            }
        }
    }

    /// A story that may have become too long, as a few do in which everybody talks at every step.
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

    /// The number of its sentences. What someone says is part of the sentence around it.
    pub fn sentences(&self) -> usize {
        self.paragraphs.iter().map(Vec::len).sum()
    }
}

/// `sentence` with a capital as its first letter, which may stand behind a quotation mark.
fn capital(sentence: &str) -> String {
    let first = sentence.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
    let (before, rest) = sentence.split_at(first);
    let mut letters = rest.chars();
    letters
        .next()
        .map_or_else(String::new, |letter| format!("{before}{}{}", letter.to_ascii_uppercase(), letters.as_str()))
}

/// `title` with the capitals that titles have.
fn heading(title: &str) -> String {
    const SMALL: &[&str] = &["a", "an", "and", "at", "by", "for", "in", "of", "on", "or", "the", "to", "with"];
    let words = title
        .split(' ')
        .enumerate()
        .map(|(at, word)| if at > 0 && SMALL.contains(&word) { word.to_owned() } else { capital(word) });
    words.collect::<Vec<_>>().join(" ")
}

/// The words of `text`, in small letters. Something that is owned counts as the owner's word.
fn words_of(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_ascii_alphabetic() && c != '\'')
        .map(|word| word.strip_suffix("'s").unwrap_or(word).trim_matches('\'').to_ascii_lowercase())
        .filter(|word| !word.is_empty())
}

/// What is left of `template` when its names are taken out.
fn plain(template: &str) -> String {
    template.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest)).collect()
}

/// Words of everything that a story can say, without the names of people.
static COMMON: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let told = plots().flat_map(|plot| {
        let steps = plot.steps.iter().flat_map(|step| step.templates());
        let lists = plot.things.iter().copied().chain([plot.looks]).chain(plot.picks.iter().map(|(_, list)| *list));
        steps.chain(plot.titles).copied().chain(lists.flatten().copied())
    });
    let phrases = RULES.iter().flat_map(|(_, phrases)| phrases.iter().copied());
    let all = told.chain(phrases).chain(scene::lists());
    // What follows a name, as in "{friend}'s", is no word.
    all.flat_map(|template| words_of(&plain(template)).collect::<Vec<_>>()).filter(|word| word != "s").collect()
});

/// All words that stories can have, in small letters and in order, the names of people among them.
pub fn vocabulary() -> BTreeSet<String> {
    let people = scene::people().map(str::to_ascii_lowercase);
    COMMON.iter().cloned().chain(people).collect()
}

/// The words of the stories that puzzles can ask about: plain letters, not too few and not too many.
pub(crate) static PUZZLE_WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let fits = |word: &&String| (SHORTEST..=LONGEST).contains(&word.len()) && !word.contains('\'');
    COMMON.iter().filter(fits).cloned().collect()
});

#[cfg(test)]
mod tests;
