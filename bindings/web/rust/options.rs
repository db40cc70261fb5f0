//! Options from JavaScript: a JSON object in which unknown keys are errors.

use std::collections::BTreeSet;

use bolmo_runtime::{Config, Constraint, Error, ErrorKind, GenerateOptions, LoadOptions, Result};
use serde_json::{Map, Value};

/// An object of options. Every key that is read counts as known.
pub struct Options {
    what: &'static str,
    map: Map<String, Value>,
    known: BTreeSet<&'static str>,
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

impl Options {
    /// Parses text from JavaScript; `what` names the options in messages.
    pub fn parse(what: &'static str, text: &str) -> Result<Self> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { what, map, known: BTreeSet::new() }),
            _ => Err(invalid(format!("{what}: expected an object"))),
        }
    }

    /// The value of a key, or `None` if it is absent or null.
    fn value(&mut self, key: &'static str) -> Option<&Value> {
        self.known.insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let what = self.what;
        let Some(value) = self.value(key) else { return Ok(None) };
        let found = || invalid(format!("{what}: {key} must be {expected}, found {}", brief(value)));
        read(value).map(Some).ok_or_else(found)
    }

    /// Reads a string.
    pub fn string(&mut self, key: &'static str) -> Result<Option<String>> {
        self.read(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// Reads a number; the runtime checks its range.
    fn number(&mut self, key: &'static str) -> Result<Option<f32>> {
        // Beyond the range of f32 the largest number stands for it.
        let narrow = |number: f64| number.clamp(f32::MIN.into(), f32::MAX.into()) as f32;
        self.read(key, "a number", |value| value.as_f64().map(narrow))
    }

    /// Reads a whole number of at least 0.
    fn whole(&mut self, key: &'static str) -> Result<Option<u64>> {
        self.read(key, "a whole number of at least 0", |value| {
            let number = value.as_f64()?;
            // The largest number up to which JavaScript counts exactly.
            let exact = (0.0..=9_007_199_254_740_991.0).contains(&number) && number.fract() == 0.0;
            exact.then_some(number as u64)
        })
    }

    /// Rejects keys that were never read, which are mistyped.
    pub fn finish(self) -> Result<()> {
        match self.map.keys().find(|key| !self.known.contains(key.as_str())) {
            None => Ok(()),
            Some(unknown) => {
                let known: Vec<&str> = self.known.into_iter().collect();
                Err(invalid(format!("{}: unknown option {unknown:?}; expected one of {}", self.what, known.join(", "))))
            }
        }
    }
}

fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string().chars().take(40).collect(),
    }
}

fn byte_string(value: &Value) -> Option<Vec<u8>> {
    value.as_array()?.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
}

/// Options for loading.
pub fn load(text: &str) -> Result<LoadOptions> {
    let mut from = Options::parse("load", text)?;
    let mut to = LoadOptions::default();
    to.formats = from.string("quantize")?.map(|text| text.parse()).transpose()?;
    to.rope_theta = from.read("ropeTheta", "a number", Value::as_f64)?;
    to.rope_theta.map_or(Ok(()), Config::check_rope_theta)?;
    let scaling = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => Some(value.to_string()),
        _ => None,
    };
    let scaling = from.read("ropeScaling", "a string or an object", scaling)?;
    to.rope_scaling = scaling.map(|text| text.parse()).transpose()?;
    from.finish()?;
    Ok(to)
}

/// Options for generating.
pub fn generate(text: &str) -> Result<GenerateOptions> {
    let mut from = Options::parse("generate", text)?;
    let mut to = GenerateOptions::default();
    let too_large = |_| invalid("generate: a number is too large for this platform".to_owned());
    let size = |from: &mut Options, key, to: &mut usize| -> Result<()> {
        if let Some(number) = from.whole(key)? {
            *to = usize::try_from(number).map_err(too_large)?;
        }
        Ok(())
    };
    size(&mut from, "maxBytes", &mut to.max_bytes)?;
    size(&mut from, "topK", &mut to.sampling.top_k)?;
    size(&mut from, "repetitionWindow", &mut to.sampling.repetition_window)?;
    let sampling = &mut to.sampling;
    for (key, to) in [
        ("temperature", &mut sampling.temperature),
        ("topP", &mut sampling.top_p),
        ("minP", &mut sampling.min_p),
        ("repetitionPenalty", &mut sampling.repetition_penalty),
        ("endBias", &mut sampling.end_bias),
        ("boundaryBias", &mut sampling.boundary_bias),
    ] {
        if let Some(number) = from.number(key)? {
            *to = number;
        }
    }
    if let Some(seed) = from.whole("seed")? {
        to.sampling.seed = seed;
    }
    let stops = |value: &Value| value.as_array()?.iter().map(byte_string).collect::<Option<Vec<_>>>();
    if let Some(stops) = from.read("stop", "strings or bytes", stops)? {
        to.stops = stops;
    }
    let regex = from.string("regex")?;
    let schema = from.read("jsonSchema", "a JSON schema", |value| Some(value.to_string()))?;
    if !cfg!(feature = "constraints") && (regex.is_some() || schema.is_some()) {
        let message = "generate: regex and jsonSchema need the larger wasm file; load the model with constraints: true";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    to.constraint = match (regex, schema) {
        (Some(_), Some(_)) => return Err(invalid("generate: give regex or jsonSchema, not both".to_owned())),
        (Some(regex), None) => Some(Constraint::regex(&regex)?),
        (None, Some(schema)) => Some(Constraint::json_schema(schema.as_bytes())?),
        (None, None) => None,
    };
    from.finish()?;
    to.validate().map_err(|error| Error::new(error.kind(), in_camel_case(error.message())))?;
    Ok(to)
}

/// Converts the runtime's option name at the start of a message to JavaScript's camel case.
fn in_camel_case(message: &str) -> String {
    let (name, rest) = message.split_at(message.find([' ', ':']).unwrap_or(0));
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    let rest_of_name = parts.map(|part| {
        let (initial, others) = part.split_at(part.len().min(1));
        initial.to_ascii_uppercase() + others
    });
    first + &rest_of_name.collect::<String>() + rest
}
