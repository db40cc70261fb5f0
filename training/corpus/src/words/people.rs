//! People and animals of the stories.

/// Names with the pronoun "she".
pub(crate) const GIRLS: &[&str] = &[
    "Anna", "Bella", "Clara", "Dora", "Ella", "Greta", "Hanna", "Ida", "Julia", "Kira", "Lena", "Mia", "Nina", "Olga",
    "Paula", "Rita", "Sara", "Tilda", "Vera", "Zoe",
];

/// Names with the pronoun "he".
pub(crate) const BOYS: &[&str] = &[
    "Adam", "Ben", "Carlo", "David", "Emil", "Felix", "Gus", "Hugo", "Ivan", "Jonas", "Karl", "Leo", "Max", "Noah",
    "Oscar", "Paul", "Ruben", "Simon", "Tom", "Victor",
];

/// Animals that act like people.
pub(crate) const ANIMALS: &[&str] = &[
    "bear", "cat", "dog", "donkey", "duck", "fox", "frog", "goat", "hare", "mouse", "owl", "pig", "rabbit", "squirrel",
];

/// Traits, as attributes of "girl" or "fox".
pub(crate) const TRAITS: &[&str] = &[
    "brave", "careful", "cheerful", "clever", "curious", "friendly", "gentle", "funny", "kind", "little", "lively",
    "patient", "polite", "quiet", "shy", "small", "young",
];

/// Adults to ask: the name, and the two pronouns.
pub(crate) const ELDERS: &[&str] = &[
    "{his} mother/she/her",
    "{his} father/he/him",
    "{his} grandmother/she/her",
    "{his} grandfather/he/him",
    "{his} aunt/she/her",
    "{his} uncle/he/him",
    "the baker/he/him",
    "the farmer/she/her",
    "the teacher/she/her",
    "the old fisherman/he/him",
    "the miller/he/him",
    "the shepherd/she/her",
];
