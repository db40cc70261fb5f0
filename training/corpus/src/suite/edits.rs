//! Edits of a list of units, either letters of a word or words of a phrase.

/// Inserts `new` after every `unit`.
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

/// Removes every `unit`.
pub(super) fn delete(units: &[String], unit: &str) -> Vec<String> {
    units.iter().filter(|one| *one != unit).cloned().collect()
}

/// Replaces every `unit` by `new`.
pub(super) fn substitute(units: &[String], unit: &str, new: &str) -> Vec<String> {
    units.iter().map(|one| if one == unit { new.to_owned() } else { one.clone() }).collect()
}

/// Swaps `one` and `other`.
pub(super) fn swap(units: &[String], one: &str, other: &str) -> Vec<String> {
    let change = |unit: &String| match unit.as_str() {
        unit if unit == one => other.to_owned(),
        unit if unit == other => one.to_owned(),
        unit => unit.to_owned(),
    };
    units.iter().map(change).collect()
}
