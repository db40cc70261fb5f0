//! The key of a `config.json` that gives the formats of a quantized checkpoint.

use bolmo_shaders::WeightFormat;
use bolmo_shaders::sizes::QUANT_BLOCK;
use serde_json::Value;
#[cfg(not(target_family = "wasm"))]
use serde_json::json;

use crate::checkpoint::formats::Formats;
use crate::config::keys::Keys;
use crate::error::Result;
use crate::input::json;

/// The key. Checkpoints without it are not quantized.
const KEY: &str = "bolmo_quantization";
/// Version of the layout; only one exists so far.
const VERSION: usize = 1;
/// Keys of the object, apart from the parts.
const OWN_KEYS: [&str; 2] = ["version", "block"];
/// Keys of the parts.
const PARTS: [&str; 3] = ["local", "global", "embeddings"];

/// Reads the formats from a `config.json`; `None` if the checkpoint is not quantized. `origin` names the file in
/// messages.
pub fn stored_formats(text: &[u8], origin: &str) -> Result<Option<Formats>> {
    let value = json::config(text, origin)?;
    let Some(keys) = Keys::new(&value, origin)?.optional_object(KEY)? else {
        return Ok(None);
    };
    match keys.optional_integer("version", 0, usize::MAX)? {
        Some(VERSION) => {}
        Some(_) => return Err(keys.unsupported_value("version", VERSION)),
        None => return Err(keys.missing("version")),
    }
    if keys.optional_integer("block", 0, usize::MAX)? != Some(QUANT_BLOCK) {
        return Err(keys.unsupported_value("block", QUANT_BLOCK));
    }
    if let Some(Value::Object(map)) = value.get(KEY)
        && let Some(other) = map.keys().find(|key| !OWN_KEYS.contains(&key.as_str()) && !PARTS.contains(&key.as_str()))
    {
        let other: String = other.chars().take(60).collect();
        return Err(keys.unsupported(&other, format_args!("is not known in version {VERSION}")));
    }
    let format = |part: &str| -> Result<WeightFormat> {
        let name = keys.text(part)?.ok_or_else(|| keys.missing(part))?;
        WeightFormat::from_name(name).ok_or_else(|| keys.unsupported_value(part, "f32, f16, q8, q4"))
    };
    let [local, global, embeddings] = PARTS.map(format);
    Ok(Some(Formats { local: local?, global: global?, embeddings: embeddings? }))
}

/// Sets the key of a `config.json`.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn set_stored_formats(config: &mut Value, formats: Formats) {
    config[KEY] = json!({
        "version": VERSION,
        "block": QUANT_BLOCK,
        "local": formats.local.name(),
        "global": formats.global.name(),
        "embeddings": formats.embeddings.name(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn formats_round_trip() {
        for text in ["q8", "q4,local=q8", "f16,local=q4,embeddings=f32"] {
            let formats: Formats = text.parse().expect("formats");
            let mut config = json!({ "hidden_size": 8 });
            set_stored_formats(&mut config, formats);
            assert_eq!(stored_formats(config.to_string().as_bytes(), "config.json").expect("formats"), Some(formats));
        }
        assert_eq!(stored_formats(b"{}", "config.json").expect("none"), None);
        assert_eq!(stored_formats(br#"{"bolmo_quantization": null}"#, "config.json").expect("none"), None);
    }

    #[test]
    fn unknown_values_are_rejected_by_key() {
        let cases: [(&str, Value, ErrorKind, &str); 10] = [
            ("version", json!(2), ErrorKind::Unsupported, "known: 1"),
            ("version", json!("1"), ErrorKind::BadCheckpoint, "integer"),
            ("version", json!(null), ErrorKind::BadCheckpoint, "missing"),
            ("block", json!(64), ErrorKind::Unsupported, "known: 32"),
            ("block", json!(null), ErrorKind::Unsupported, "known: 32"),
            ("local", json!("q5"), ErrorKind::Unsupported, "q5"),
            ("global", json!(8), ErrorKind::BadCheckpoint, "string"),
            ("embeddings", json!(null), ErrorKind::BadCheckpoint, "missing"),
            ("head", json!("q8"), ErrorKind::Unsupported, "not known"),
            ("local", json!({}), ErrorKind::BadCheckpoint, "string"),
        ];
        for (key, value, kind, words) in cases {
            let mut config = json!({});
            set_stored_formats(&mut config, WeightFormat::Q8.into());
            config[KEY][key] = value;
            let error = stored_formats(config.to_string().as_bytes(), "folder/config.json").expect_err(key);
            assert_eq!(error.kind(), kind, "{error}");
            for word in ["folder/config.json", KEY, key, words] {
                assert!(error.message().contains(word), "{error} lacks {word}");
            }
        }
        assert!(stored_formats(br#"{"bolmo_quantization": "q8"}"#, "config.json").is_err());
    }
}
