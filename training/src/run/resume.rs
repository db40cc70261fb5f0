//! Comparison of a run's configuration with that of a snapshot.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::config::RunConfig;

/// The part of a configuration that must not change when a run resumes: everything but the folder, the intervals and the
/// device.
pub(super) fn comparable(config: &RunConfig) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or_default();
    if let Value::Object(keys) = &mut value {
        keys.remove("out");
        keys.remove("every");
        keys.remove("device");
        // Recomputation affects memory and time, but not the results.
        if let Some(Value::Object(batch)) = keys.get_mut("batch") {
            batch.remove("recompute");
        }
    }
    value
}

/// The configuration in a snapshot, with default values for keys that its version did not have.
pub(super) fn recorded(value: &Value) -> Option<Value> {
    let mut value = value.clone();
    value.as_object_mut()?.insert("out".to_owned(), json!(""));
    serde_json::from_value(value).ok().map(|config| comparable(&config))
}

/// Lists the keys that differ, each with both values.
pub(super) fn differences(was: &Value, is: &Value) -> Vec<String> {
    let mut all = Vec::new();
    collect_differences(was, is, "", &mut all);
    all
}

fn collect_differences(was: &Value, is: &Value, key: &str, out: &mut Vec<String>) {
    match (was, is) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in keys {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect_differences(&was[name.as_str()], &is[name.as_str()], &key, out);
            }
        }
        _ if was == is => {}
        _ => out.push(format!("`{key}` was {was} and is {is}")),
    }
}
