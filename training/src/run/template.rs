//! Texts that are made from the table of keys: a commented configuration, and the reference in docs/training.md.

use toml::{Table, Value};

use super::config::{CompressionConfig, LossConfig, RunConfig};
use super::keys::{KEYS, Key, SECTIONS, lookup};
use super::kind::Kind;
use crate::data::CompressionKind;

/// Columns of a line.
const COLUMNS: usize = 100;
/// Columns of a line of the reference.
const REFERENCE_COLUMNS: usize = 120;

/// A commented configuration for a kind of training, with every key that it reads. Keys have their default values, or
/// examples where there is no default; keys that are optional and have no default value are comments.
pub fn template(kind: Kind) -> String {
    let defaults = defaults(kind);
    let mut text = String::new();
    comment(
        &mut text,
        &format!(
            "Configuration of {}. Set the paths to your own. Keys in comments are not set. All other keys have their \
             default, if there is one. Paths are relative to the current folder.",
            kind.title()
        ),
    );
    for section in SECTIONS.iter().filter(|section| section.kinds.contains(&kind)) {
        text.push('\n');
        if !section.name.is_empty() {
            comment(&mut text, section.text);
            let mark = if section.commented { "# " } else { "" };
            text += &format!("{mark}[{}]\n", section.name);
        }
        let keys = KEYS.iter().filter(|key| key.kinds.contains(&kind) && key.split().0 == section.name);
        for (i, key) in keys.enumerate() {
            if i > 0 || !section.name.is_empty() {
                text.push('\n');
            }
            let default = lookup(&defaults, key.name);
            comment(&mut text, &format!("{} {}", key.text, properties(key, default.is_none(), kind)));
            let value = match default {
                Some(value) => literal(value),
                None => key.example.replace("STAGE", kind.name()),
            };
            let set = !section.commented && (default.is_some() || key.required(kind) || is_first_tokenizer(key, kind));
            let mark = if set { "" } else { "# " };
            text += &format!("{mark}{} = {value}\n", key.split().1);
        }
    }
    text
}

/// Whether a template sets the key although it is optional: a new model has no tokenizer of its own.
fn is_first_tokenizer(key: &Key, kind: Kind) -> bool {
    key.name == "data.tokenizer" && kind == Kind::Subword
}

/// The reference of all keys, in Markdown.
pub fn reference() -> String {
    let defaults = Kind::ALL.map(|kind| (kind, defaults(kind)));
    let mut text = String::new();
    for section in &SECTIONS {
        let heading = if section.name.is_empty() { "Top level".to_owned() } else { format!("`[{}]`", section.name) };
        text += &format!("### {heading}\n\n");
        wrap(&mut text, &format!("{}{}", section.text, readers(section.kinds)), REFERENCE_COLUMNS, "", "");
        text.push('\n');
        for key in KEYS.iter().filter(|key| key.split().0 == section.name) {
            let values: Vec<(Kind, Option<String>)> = defaults
                .iter()
                .filter(|(kind, _)| key.kinds.contains(kind))
                .map(|(kind, table)| (*kind, lookup(table, key.name).map(literal)))
                .collect();
            let default = match values.as_slice() {
                [(_, Some(first)), rest @ ..] if rest.iter().all(|(_, value)| value.as_ref() == Some(first)) => {
                    format!("default `{first}`")
                }
                _ if key.absent.is_empty() => "required".to_owned(),
                _ => {
                    let required: Vec<&str> =
                        key.kinds.iter().filter(|kind| key.required(**kind)).map(|kind| kind.title()).collect();
                    match required.is_empty() {
                        true => format!("default: {}", key.absent),
                        false => format!("required in {}; default: {}", required.join(" and "), key.absent),
                    }
                }
            };
            let readers = if key.kinds == section.kinds { String::new() } else { readers(key.kinds) };
            let change = if key.may_change { " May change when a run resumes." } else { "" };
            let item =
                format!("- `{}` ({}{}; {default}). {}{readers}{change}", key.name, key.value, unit(key), key.text);
            wrap(&mut text, &item, REFERENCE_COLUMNS, "", "  ");
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The kinds of training that read a key, unless all do.
fn readers(kinds: &[Kind]) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.title()).collect();
    if kinds.len() == Kind::ALL.len() { String::new() } else { format!(" Read by {}.", names.join(" and ")) }
}

fn unit(key: &Key) -> String {
    if key.unit.is_empty() { String::new() } else { format!(", in {}", key.unit) }
}

/// The values that are allowed, the unit, and what holds without the key.
fn properties(key: &Key, without_default: bool, kind: Kind) -> String {
    let mut value = key.value.to_string();
    if let Some(first) = value.get(..1).map(str::to_uppercase) {
        value.replace_range(..1, &first);
    }
    let rest = match without_default {
        false => String::new(),
        true if key.required(kind) || is_first_tokenizer(key, kind) => "; required".to_owned(),
        true => format!("; default: {}", key.absent),
    };
    let change = if key.may_change { " May change when a run resumes." } else { "" };
    format!("{value}{}{rest}.{change}", unit(key))
}

/// The default values of a kind of training.
fn defaults(kind: Kind) -> Table {
    let mut config = RunConfig::new("", 1, 0.0);
    let losses = config.losses.options(kind);
    config.losses = LossConfig {
        encoder: Some(losses.encoder),
        cross_entropy: Some(losses.cross_entropy),
        distill: Some(losses.distill),
        boundary: Some(losses.boundary),
        byte_distillation: Some(losses.byte_distillation),
        divide_twice: losses.divide_twice,
    };
    let kind = CompressionKind::default();
    config.compression = Some(CompressionConfig { kind, target: 1.0, steps: None, entropies: None });
    // Default values always have a form in TOML.
    let mut table = Table::try_from(&config).unwrap_or_default();
    for key in KEYS.iter().filter(|key| !key.example.is_empty()) {
        let (section, name) = key.split();
        let place = match section {
            "" => Some(&mut table),
            _ => table.get_mut(section).and_then(Value::as_table_mut),
        };
        if let Some(place) = place {
            place.remove(name);
        }
    }
    table
}

/// A value in TOML.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Boolean(value) => value.to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", ")),
        // No default value has these types.
        Value::Datetime(_) | Value::Table(_) => String::new(),
    }
}

fn comment(out: &mut String, text: &str) {
    wrap(out, text, COLUMNS, "# ", "# ");
}

/// Appends a text in lines of at most `columns`. `first` stands before the first line, `other` before the others.
fn wrap(out: &mut String, text: &str, columns: usize, first: &str, other: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > columns {
            out.push_str(&line);
            out.push('\n');
            line = other.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::config::{LocalConfig, NewModel};
    use super::*;

    /// All keys of a configuration in which everything is set.
    fn fields() -> BTreeSet<String> {
        let mut config = RunConfig::new("o", 1, 0.0);
        let path = || Some("p".into());
        (config.model.source, config.model.student, config.data.tokenizer) = (path(), path(), path());
        config.model.local =
            Some(LocalConfig { encoder_layers: 1, decoder_layers: 1, heads: 2, intermediate_size: 32 });
        config.model.new = Some(NewModel { hidden_size: 8, layers: 1, heads: 2, intermediate_size: 32 });
        config.device.memory_mib = Some(1);
        (config.optimizer.encoder_rate, config.optimizer.global_rate) = (Some(0.1), Some(0.1));
        let some = Some(1.0);
        let divide_twice = true;
        config.losses = LossConfig {
            encoder: some,
            cross_entropy: some,
            distill: some,
            boundary: some,
            byte_distillation: some,
            divide_twice,
        };
        let kind = CompressionKind::Bpe;
        config.compression = Some(CompressionConfig { kind, target: 2.0, steps: Some(1), entropies: path() });
        // In JSON an optional field that is not set is there too.
        fn collect(value: &serde_json::Value, name: &str, names: &mut BTreeSet<String>) {
            let Some(table) = value.as_object() else {
                assert!(!value.is_null(), "set {name} above");
                assert!(names.insert(name.to_owned()));
                return;
            };
            for (part, value) in table {
                let name = if name.is_empty() { part.clone() } else { format!("{name}.{part}") };
                collect(value, &name, names);
            }
        }
        let mut names = BTreeSet::new();
        collect(&serde_json::to_value(&config).unwrap(), "", &mut names);
        names
    }

    #[test]
    fn the_table_has_every_key_once_and_no_other() {
        let names: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        assert_eq!(names.len(), KEYS.len());
        assert_eq!(names, fields());
        for key in &KEYS {
            let section = SECTIONS.iter().find(|section| section.name == key.split().0).expect(key.name);
            assert!(key.kinds.iter().all(|kind| section.kinds.contains(kind)), "{}", key.name);
            assert!(key.text.ends_with('.') && !key.kinds.is_empty(), "{}", key.name);
            // Without a default value a key has an example, and words for the default unless it is required.
            for kind in key.kinds {
                let has_value = lookup(&defaults(*kind), key.name).is_some();
                assert_eq!(has_value, key.example.is_empty(), "{}", key.name);
                assert!(has_value || key.required(*kind) || !key.absent.is_empty(), "{}", key.name);
            }
        }
    }

    #[test]
    fn templates_parse_and_have_the_default_values() {
        for kind in Kind::ALL {
            let text = template(kind);
            assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
            let config = RunConfig::parse(&text, &[]).unwrap_or_else(|e| panic!("{e}: {text}"));
            let mut expected = RunConfig::new(format!("runs/{}", kind.name()), 1000, 0.001);
            let path = |path: &str| Some(path.into());
            expected.data.train = vec!["texts/train.txt".into()];
            match kind {
                Kind::Subword => {
                    expected.data.tokenizer = path("tokenizer");
                    expected.model.new =
                        Some(NewModel { hidden_size: 256, layers: 4, heads: 4, intermediate_size: 704 });
                }
                Kind::Stage1 => expected.model.source = path("runs/subword/model"),
                Kind::Stage2 => expected.model.student = path("runs/stage1/model"),
            }
            assert_eq!(config.losses.options(kind), expected.losses.options(kind));
            expected.losses = config.losses.clone();
            assert_eq!(config, expected);
        }
    }

    /// Every key of a template is valid, those in comments too, and no key is missing.
    #[test]
    fn comments_of_templates_are_valid_keys() {
        for kind in Kind::ALL {
            let text: String = template(kind)
                .lines()
                .map(|line| {
                    let key = line.strip_prefix("# ").filter(|rest| {
                        let name = rest.split(' ').next().unwrap_or_default();
                        rest.starts_with('[')
                            || rest.contains(" = ")
                                && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
                    });
                    format!("{}\n", key.unwrap_or(line))
                })
                .collect();
            let config = RunConfig::parse(&text, &[]).unwrap_or_else(|e| panic!("{e}: {text}"));
            let table = Table::try_from(&config).unwrap();
            for key in KEYS.iter().filter(|key| key.kinds.contains(&kind)) {
                assert!(lookup(&table, key.name).is_some(), "{}: {text}", key.name);
            }
        }
    }

    #[test]
    fn the_reference_has_every_key() {
        let text = reference();
        for key in &KEYS {
            assert_eq!(text.matches(&format!("- `{}` (", key.name)).count(), 1, "{}", key.name);
        }
        assert!(text.lines().all(|line| line.chars().count() <= REFERENCE_COLUMNS), "{text}");
    }
}
