//! Phrases that are chosen each time a template uses them.

/// Names of rules, and the phrases they stand for.
pub(super) const RULES: &[(&str, &[&str])] = &[
    (
        "once",
        &[
            "once upon a time",
            "long ago",
            "in a small town",
            "at the edge of a village",
            "not far from the sea",
            "in a green valley",
            "behind the mountains",
            "many years ago",
        ],
    ),
    (
        "day",
        &[
            "one {weather} {hour}",
            "one {weather} {hour}",
            "one day",
            "on {weekday}",
            "on a {weather} {weekday}",
            "one {hour} in {season}",
            "early one morning",
            "on the first day of {season}",
        ],
    ),
    ("weather", &["sunny", "cold", "rainy", "windy", "warm", "quiet", "cloudy", "bright", "foggy"]),
    ("hour", &["morning", "afternoon", "day", "evening"]),
    ("weekday", &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]),
    ("season", &["spring", "summer", "autumn", "winter"]),
    ("said", &["said", "said", "said", "answered", "replied"]),
    ("cried", &["cried", "shouted", "called"]),
    ("then", &["then", "after that", "soon", "a little later", "a moment later", "at last"]),
    ("next", &["the next day", "the next morning", "a week later", "{number} days later", "on the following day"]),
    ("number", &["two", "three", "four", "five", "six"]),
    ("went", &["walked", "went", "ran", "hurried"]),
    ("happy", &["happy", "very happy", "glad", "proud", "pleased", "so happy that {he} danced"]),
    ("sad", &["sad", "very sad", "unhappy", "worried"]),
    ("tired", &["tired", "very tired", "hungry and tired", "cold and tired"]),
    ("friendly", &["smiled", "laughed", "nodded", "smiled and nodded"]),
];
