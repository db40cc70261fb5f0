//! Every function of the C ABI is called by the native methods.

use std::collections::BTreeSet;
use std::path::Path;

/// Functions that no native method calls, and why.
const EXCEPTIONS: &[(&str, &str)] =
    &[("bolmo_generate_batch", "a batch that is made for it hands out each result at the end of its generation")];

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of the functions in the record of the ABI.
fn functions() -> BTreeSet<String> {
    let record = std::fs::read_to_string(folder().join("../../../ffi/abi.txt")).expect("ffi/abi.txt");
    record
        .lines()
        .filter(|line| !line.starts_with("typedef") && !line.starts_with("enum") && line.ends_with(')'))
        .filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("bolmo_"))
        .map(str::to_owned)
        .collect()
}

/// The names that are followed by an opening parenthesis in the sources.
fn calls() -> BTreeSet<String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut calls = BTreeSet::new();
    for entry in std::fs::read_dir(folder().join("src")).expect("src") {
        let source = std::fs::read_to_string(entry.expect("a file").path()).expect("a source");
        for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("bolmo_").filter(|(at, _)| !line[..*at].ends_with(in_name)) {
                let rest = &line[at..];
                let (name, after) = rest.split_at(rest.find(|c| !in_name(c)).unwrap_or(rest.len()));
                if after.starts_with('(') {
                    calls.insert(name.to_owned());
                }
            }
        }
    }
    calls
}

#[test]
fn every_function_is_called() {
    let (functions, calls) = (functions(), calls());
    assert!(functions.len() > 100, "only {} functions were found in the record", functions.len());
    let exceptions: BTreeSet<String> = EXCEPTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let missing: Vec<_> = functions.iter().filter(|name| !calls.contains(*name)).collect();
    assert_eq!(missing, exceptions.iter().collect::<Vec<_>>(), "not called, and not an exception with a reason");
    let unknown: Vec<_> = calls.difference(&functions).collect();
    assert!(unknown.is_empty(), "not in the record: {unknown:?}");
}
