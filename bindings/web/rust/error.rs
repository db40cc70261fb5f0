//! Errors across the border: a JavaScript `Error` whose property `kind` is the name of an [`ErrorKind`].

use bolmo_runtime::{Error, ErrorKind, Hint, Result};
use js_sys::{Promise, Reflect};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::future_to_promise;

/// Property of a JavaScript error that holds its kind.
const KIND: &str = "kind";

/// Converts a future to a promise.
pub fn promise<T: Into<JsValue>>(future: impl Future<Output = Result<T>> + 'static) -> Promise {
    future_to_promise(async move { future.await.map(Into::into).map_err(|error| to_js(&error)) })
}

/// Converts an error to JavaScript.
pub fn to_js(error: &Error) -> JsValue {
    let js = js_sys::Error::new(&with_hint(error));
    // Setting a property of a new object cannot fail.
    let _ = Reflect::set(&js, &KIND.into(), &error.kind().to_string().into());
    js.into()
}

/// The sentence of an error, with the option or method that its hint means.
fn with_hint(error: &Error) -> String {
    let remedy = match error.hint() {
        Some(Hint::SmallerFormat { format: Some(format) }) => format!("quantize: '{}'", format.name()),
        Some(Hint::SmallerFormat { format: None }) => "quantize: 'f16', 'q8' or 'q4'".to_owned(),
        Some(Hint::ReopenDevice) => "model.reload()".to_owned(),
        _ => return error.message().to_owned(),
    };
    format!("{} ({remedy})", error.message())
}

/// Converts a value that JavaScript has thrown. One without a `kind` comes from the browser's own functions for
/// reading.
pub fn from_js(thrown: &JsValue) -> Error {
    let text = |key: &str| Reflect::get(thrown, &key.into()).ok().and_then(|value| value.as_string());
    let kind = text(KIND);
    let kind = ErrorKind::ALL.into_iter().find(|known| Some(known.to_string()) == kind).unwrap_or(ErrorKind::Io);
    let message = text("message").or_else(|| thrown.as_string());
    Error::new(kind, message.unwrap_or_else(|| "reading failed without a reason".to_owned()))
}
