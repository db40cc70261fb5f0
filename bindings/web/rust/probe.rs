//! What is known before weights are fetched: the adapter, and the memory that a model would take.

use bolmo_runtime::layout::parameters_by_part;
use bolmo_runtime::{
    AdapterChoice, AdapterInfo, Capabilities, Config, WeightFormat, adapters, device_bytes, session_bytes, work_bytes,
};
use js_sys::Promise;
use serde_json::{Value, json};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::promise;
use crate::folder::{self, Folder};

/// Patches of a text of a few pages.
const LONG_TEXT: usize = 1024;

/// Properties of an adapter.
pub fn adapter(info: &AdapterInfo) -> Value {
    json!({
        "name": info.name,
        "software": info.is_software(),
        "maxBufferBytes": info.max_buffer_bytes,
        "maxBindingBytes": info.max_binding_bytes,
        "unusable": info.unusable,
    })
}

/// Number of weights of a model.
pub fn parameters(config: &Config) -> u64 {
    parameters_by_part(config).iter().map(|(_, count)| count).sum()
}

/// The adapter that is used as JSON, or `null` if there is none: the browser's, or the CPU device where the build has
/// that.
#[wasm_bindgen(js_name = probeAdapter)]
pub fn probe_adapter() -> Promise {
    promise(async {
        let found = adapters(&AdapterChoice::Auto).await;
        Ok(found.first().map_or(Value::Null, adapter).to_string())
    })
}

/// Memory needs of the checkpoint in `folder`, from its `config.json` alone, as JSON.
#[wasm_bindgen(js_name = probeModel)]
pub fn probe_model(folder: Folder) -> Promise {
    promise(async move {
        let text = folder::config(&folder).await?;
        let name = format!("{}/config.json", folder.origin());
        let (config, _) = Config::from_json(&text, &name)?;
        let stored = bolmo_runtime::files::stored_formats(&text, &name)?;
        let formats = WeightFormat::ALL.map(|format| (format.name().to_owned(), device_bytes(&config, format)));
        let formats: serde_json::Map<String, Value> = match stored {
            Some(stored) => [(stored.to_string(), device_bytes(&config, stored).into())].into_iter().collect(),
            None => formats.map(|(name, bytes)| (name, bytes.into())).into_iter().collect(),
        };
        let json = json!({
            "parameters": parameters(&config),
            "weightBytes": formats,
            "workBytes": {
                "software": work_bytes(&config, Capabilities::SOFTWARE_PREFILL_BYTES),
                "gpu": work_bytes(&config, Capabilities::GPU_PREFILL_BYTES),
                "cpu": work_bytes(&config, Capabilities::CPU_PREFILL_BYTES),
            },
            "sessionBytes": session_bytes(&config, LONG_TEXT),
        });
        Ok(json.to_string())
    })
}
