//! Things of the stories, in the singular and the plural.

/// Things to play with.
pub(crate) const TOYS: &[&str] = &[
    "ball/balls",
    "kite/kites",
    "drum/drums",
    "doll/dolls",
    "boat/boats",
    "top/tops",
    "puzzle/puzzles",
    "whistle/whistles",
    "flute/flutes",
    "train/trains",
];

/// Things to wear.
pub(crate) const CLOTHES: &[&str] =
    &["hat/hats", "scarf/scarves", "coat/coats", "cap/caps", "sweater/sweaters", "belt/belts"];

/// Things to work with.
pub(crate) const TOOLS: &[&str] = &[
    "lamp/lamps",
    "basket/baskets",
    "cup/cups",
    "book/books",
    "umbrella/umbrellas",
    "pencil/pencils",
    "blanket/blankets",
    "clock/clocks",
    "spoon/spoons",
    "brush/brushes",
];

/// Things worth hiding.
pub(crate) const TREASURES: &[&str] = &[
    "ring/rings",
    "coin/coins",
    "shell/shells",
    "stone/stones",
    "feather/feathers",
    "bell/bells",
    "key/keys",
    "crown/crowns",
    "mirror/mirrors",
    "bottle/bottles",
];

/// Food that grows and can be cooked with.
pub(crate) const FRUITS: &[&str] =
    &["apple/apples", "pear/pears", "plum/plums", "carrot/carrots", "nut/nuts", "orange/oranges", "onion/onions"];

/// Food that someone has made.
pub(crate) const BAKED: &[&str] = &["cookie/cookies", "pancake/pancakes", "roll/rolls", "muffin/muffins"];

/// Things to plant: the seed, then what grows.
pub(crate) const PLANTS: &[&str] =
    &["bean/beans", "pumpkin/pumpkins", "flower/flowers", "tomato/tomatoes", "melon/melons", "sunflower/sunflowers"];

/// Looks of made things.
pub(crate) const LOOKS: &[&str] = &[
    "red", "blue", "green", "yellow", "white", "black", "brown", "old", "new", "small", "big", "round", "wooden",
    "tiny", "shiny", "pretty", "purple", "silver",
];

/// Looks of food.
pub(crate) const TASTES: &[&str] = &["fresh", "big", "small", "round", "tasty", "good", "fine"];

/// Number words by value.
pub(crate) const NUMBERS: &[&str] =
    &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
