//! Places of the stories.

/// Places: the name, and the phrase for being there.
pub(crate) const PLACES: &[&str] = &[
    "the forest/in the forest",
    "the river/by the river",
    "the lake/at the lake",
    "the garden/in the garden",
    "the market/at the market",
    "the school/at the school",
    "the hill/on the hill",
    "the beach/on the beach",
    "the bridge/at the bridge",
    "the farm/at the farm",
    "the village/in the village",
    "the meadow/in the meadow",
    "the old mill/at the old mill",
    "the harbor/in the harbor",
    "the station/at the station",
    "the library/in the library",
    "the castle/at the castle",
    "the big oak tree/under the big oak tree",
    "the pond/by the pond",
    "the playground/on the playground",
];

/// Hiding spots of small things.
pub(crate) const SPOTS: &[&str] = &[
    "under the bed",
    "behind the door",
    "in the tall grass",
    "under an old coat",
    "on top of the cupboard",
    "next to the stove",
    "between two stones",
    "under the stairs",
    "behind the curtain",
    "in the hay",
    "inside an empty bucket",
    "below the window",
];
