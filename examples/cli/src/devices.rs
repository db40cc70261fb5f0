//! `bolmo devices`: the adapters of this machine, and the one that would be used.

use std::fmt::Write;

use bolmo_runtime::{AdapterChoice, AdapterInfo, adapters, block_on};
use serde_json::{Value, json};

use crate::args::Common;
use crate::output::{Outcome, size, write, write_json};

/// Runs the command.
pub fn run(common: &Common) -> Outcome {
    let choice = AdapterChoice::parse(&common.adapter);
    let found = block_on(adapters(&choice));
    if common.json {
        let chosen = found.iter().find(|adapter| adapter.chosen).map(|adapter| adapter.index);
        let list: Vec<Value> = found.iter().map(to_json).collect();
        return write_json(&json!({ "adapters": list, "chosen": chosen }));
    }
    let mut text: String = found.iter().map(describe).collect();
    if !found.iter().any(|adapter| adapter.chosen) {
        text.push_str(&match choice {
            AdapterChoice::Name(name) => format!("No usable adapter matches {name:?}; choose one of these names.\n"),
            AdapterChoice::Index(index) => format!("Adapter {index} does not exist or cannot be used.\n"),
            _ => "None of them would be used; the reasons are above.\n".to_owned(),
        });
    }
    write(&text)
}

fn to_json(adapter: &AdapterInfo) -> Value {
    json!({
        "index": adapter.index,
        "name": adapter.name,
        "kind": adapter.kind,
        "backend": adapter.backend,
        "driver": adapter.driver,
        "software": adapter.is_software(),
        "max_binding_bytes": adapter.max_binding_bytes,
        "max_buffer_bytes": adapter.max_buffer_bytes,
        "workgroup_bytes": adapter.workgroup_bytes,
        "subgroup_sizes": adapter.subgroup_sizes.map(|(min, max)| [min, max]),
        "shader_f16": adapter.shader_f16,
        "cooperative_matrix": adapter.cooperative_matrix,
        "timestamps": adapter.timestamps,
        "usable": adapter.unusable.is_none(),
        "chosen": adapter.chosen,
        "reason": adapter.reason,
    })
}

fn describe(adapter: &AdapterInfo) -> String {
    let yes = |has: bool| if has { "yes" } else { "no" };
    let subgroups = match adapter.subgroup_sizes {
        None => "no".to_owned(),
        Some((min, max)) if min == max => min.to_string(),
        Some((min, max)) => format!("{min} to {max}"),
    };
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} {}  {}", if adapter.chosen { '*' } else { ' ' }, adapter.index, adapter.name);
    let _ = writeln!(text, "     {}", adapter.reason);
    if adapter.is_cpu() {
        let _ = writeln!(text, "     the CPU itself, {}, memory of this machine", adapter.driver);
        return text;
    }
    let _ = writeln!(text, "     {}, {}, driver {}", adapter.kind, adapter.backend, adapter.driver);
    let _ = writeln!(
        text,
        "     bindings up to {}, buffers up to {}, workgroup memory {}",
        size(adapter.max_binding_bytes),
        size(adapter.max_buffer_bytes),
        size(adapter.workgroup_bytes.into())
    );
    let _ = writeln!(
        text,
        "     subgroups {subgroups}, f16 arithmetic {}, cooperative matrices {}, time stamps {}",
        yes(adapter.shader_f16),
        yes(adapter.cooperative_matrix),
        yes(adapter.timestamps)
    );
    text
}
