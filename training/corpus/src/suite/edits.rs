//! The edits themselves, on a list of units: the letters of a word and the words of a phrase are edited alike.

/// Puts `new` after every `unit`.
pub(super) fn insert(units: &[String], unit: &str, new: &str) -> Vec<String> {
    let mut edited = Vec::new();
    for one in units {
        edited.push(one.clone());
        if one == unit {
            edited.push(new.to_owned());
        }
    }
    edited
}

/// Takes every `unit` out.
pub(super) fn delete(units: &[String], unit: &str) -> Vec<String> {
    units.iter().filter(|one| *one != unit).cloned().collect()
}

/// Puts `new` in the place of every `unit`.
pub(super) fn substitute(units: &[String], unit: &str, new: &str) -> Vec<String> {
    units.iter().map(|one| if one == unit { new.to_owned() } else { one.clone() }).collect()
}

/// Lets `one` and `other` change places.
pub(super) fn swap(units: &[String], one: &str, other: &str) -> Vec<String> {
    let change = |unit: &String| match unit.as_str() {
        unit if unit == one => other.to_owned(),
        unit if unit == other => one.to_owned(),
        unit => unit.to_owned(),
    };
    units.iter().map(change).collect()
}
