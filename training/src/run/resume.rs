//! The snapshot that a run resumes from, and the comparison of its configuration with the run's.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bolmo_runtime::{Error, Result};
use serde_json::{Value, json};

use super::config::RunConfig;
use super::keys::KEYS;
use super::kind::Kind;
use crate::data::Cursor;
use crate::parameters::snapshot;

/// Progress of a run, from a snapshot.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) path: PathBuf,
    /// Number of completed steps.
    pub(super) step: u64,
    /// Number of steps that the run had when the snapshot was written.
    pub(super) planned: u64,
    /// Position in the training data.
    pub(super) cursor: Cursor,
    /// Seconds that the steps took.
    pub(super) seconds: f64,
}

impl Progress {
    /// Reads the progress of the snapshot of a step, and checks that the run may resume from it with `config`. The
    /// configuration takes over what a run keeps from its beginning.
    ///
    /// # Errors
    /// `BadCheckpoint` for a damaged snapshot, `Unsupported` for one of another version, and `InvalidArgument` that
    /// names the keys which must not change.
    pub(super) fn read(step: u64, path: PathBuf, kind: Kind, config: &mut RunConfig) -> Result<Self> {
        let progress = snapshot::progress(&path)?;
        let bad = || {
            Error::bad_checkpoint(format!(
                "{}: state.json is damaged; delete this snapshot to resume from an older one",
                path.display()
            ))
        };
        let cursor: Cursor = serde_json::from_value(progress["cursor"].clone()).map_err(|_| bad())?;
        if progress["step"].as_u64() != Some(step) {
            return Err(bad());
        }
        // Older versions did not record the kind.
        if let Some(other) = progress["kind"].as_str().filter(|name| *name != kind.name()) {
            return Err(Error::invalid(format!(
                "{}: the snapshot belongs to a run of the kind {other}, found {}; resume with that kind, or start a \
                 new run with another `out`",
                path.display(),
                kind.name()
            )));
        }
        let recorded = recorded(&progress["config"]).ok_or_else(|| {
            Error::unsupported(format!(
                "{}: the snapshot was written by another version, and this one cannot read its configuration; start \
                 a new run with another `out`",
                path.display()
            ))
        })?;
        if let (Some(ours), Some(theirs)) = (&mut config.compression, &recorded.compression)
            && ours.steps.is_none()
        {
            ours.steps = theirs.steps;
        }
        let changed = differences(&comparable(&recorded), &comparable(config));
        if !changed.is_empty() {
            return Err(Error::invalid(format!(
                "{}: the snapshot belongs to a run with another configuration: {}; resume with the old values, or \
                 start a new run with another `out`",
                path.display(),
                changed.join(", ")
            )));
        }
        let steps = config.optimizer.steps;
        if steps < step {
            return Err(Error::invalid(format!(
                "`optimiser.steps` is {steps}, but the last snapshot, {}, is of step {step}; set it to at least {step}",
                path.display()
            )));
        }
        let seconds = progress["seconds"].as_f64().unwrap_or(0.0);
        Ok(Self { path, step, planned: recorded.optimizer.steps, cursor, seconds })
    }
}

/// Sets what a run keeps when it is extended: the number of steps of the compression.
pub(super) fn settle(config: &mut RunConfig) {
    let half = (config.optimizer.steps / 2).max(1);
    if let Some(compression) = &mut config.compression {
        compression.steps.get_or_insert(half);
    }
}

/// The part of a configuration that must not change when a run resumes.
fn comparable(config: &RunConfig) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or_default();
    for key in KEYS.iter().filter(|key| key.may_change) {
        let (section, name) = key.split();
        let table =
            section.split('.').filter(|part| !part.is_empty()).try_fold(&mut value, |table, part| table.get_mut(part));
        if let Some(Value::Object(table)) = table {
            table.remove(name);
        }
    }
    value
}

/// The configuration in a snapshot, with default values for keys that its version did not have.
fn recorded(value: &Value) -> Option<RunConfig> {
    let mut value = value.clone();
    // Older versions left the folder out.
    value.as_object_mut()?.entry("out").or_insert_with(|| json!(""));
    let mut config = serde_json::from_value(value).ok()?;
    settle(&mut config);
    Some(config)
}

/// Lists the keys that differ, each with both values.
fn differences(was: &Value, is: &Value) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::CompressionKind;
    use crate::run::config::CompressionConfig;

    /// Writes the state of a snapshot of step 4 of a run with this configuration, as a run does.
    fn saved(dir: &std::path::Path, config: &RunConfig) -> PathBuf {
        let path = dir.join("step-00000004");
        std::fs::create_dir_all(&path).unwrap();
        let cursor = Cursor { epoch: 0, row: 3, rows: 9, patches: 4, seed: 0 };
        let mut state = json!({ "step": 4, "cursor": cursor, "seconds": 1.5, "config": config });
        if config.compression.is_none() {
            state["kind"] = json!("subword");
        }
        std::fs::write(path.join("state.json"), state.to_string()).unwrap();
        path
    }

    #[test]
    fn a_run_may_be_extended_but_not_changed_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let config = RunConfig::new("o", 4, 0.003);
        let path = saved(dir.path(), &config);
        let read = |change: &dyn Fn(&mut RunConfig)| {
            let mut changed = config.clone();
            change(&mut changed);
            Progress::read(4, path.clone(), Kind::Subword, &mut changed)
        };
        let same = read(&|_| {}).unwrap();
        assert_eq!((same.step, same.planned, same.cursor.row, same.seconds), (4, 4, 3, 1.5));
        let extended = read(&|config| {
            config.optimizer.steps = 10;
            config.out = "elsewhere".into();
            config.every.snapshot = 1;
            config.every.keep = 9;
            config.every.evaluate = 2;
            config.every.evaluate_batches = 1;
            config.device.memory_mib = Some(9);
            config.batch.recompute = true;
            config.model.export = crate::run::config::ExportType::Bf16;
        });
        assert_eq!(extended.unwrap().planned, 4);
        let error = Progress::read(4, path.clone(), Kind::Stage2, &mut config.clone()).unwrap_err();
        assert!(error.message().contains("of the kind subword, found stage2"), "{error}");
        let error = read(&|config| config.optimizer.steps = 3).unwrap_err();
        assert!(error.message().contains("`optimiser.steps` is 3") && error.message().contains("step 4"), "{error}");
        let error = read(&|config| {
            config.optimizer.rate = 0.5;
            config.batch.rows = 3;
            config.optimizer.steps = 99;
        });
        let error = error.unwrap_err();
        assert!(error.message().contains("`batch.rows` was 8 and is 3, `optimiser.rate` was 0.003 and is 0.5"));
        assert!(!error.message().contains("99"), "{error}");
    }

    #[test]
    fn an_extended_run_keeps_the_steps_of_its_compression() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = RunConfig::new("o", 4, 0.003);
        let compression = CompressionConfig { kind: CompressionKind::Bpe, target: 8.0, steps: None, entropies: None };
        config.compression = Some(compression);
        // Snapshots of older versions don't have the number.
        for settled in [false, true] {
            if settled {
                settle(&mut config);
            }
            let path = saved(dir.path(), &config);
            let mut extended = config.clone();
            extended.optimizer.steps = 100;
            extended.compression.as_mut().unwrap().steps = None;
            Progress::read(4, path.clone(), Kind::Stage2, &mut extended).unwrap();
            assert_eq!(extended.compression.as_ref().unwrap().steps, Some(2));
            extended.compression.as_mut().unwrap().steps = Some(50);
            let error = Progress::read(4, path, Kind::Stage2, &mut extended).unwrap_err();
            assert!(error.message().contains("`compression.steps` was 2 and is 50"), "{error}");
        }
    }
}
