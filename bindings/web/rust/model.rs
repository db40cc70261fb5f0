//! A model on a device of its own.

use bolmo_runtime::{CancelToken, Engine, EngineOptions, Error, ErrorKind, Model, ScoreOptions, Session};
use js_sys::{Function, Promise};
use send_wrapper::SendWrapper;
use serde_json::json;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::promise;
use crate::folder::{self, Folder};
use crate::options;
use crate::probe;
use crate::session::WebSession;

/// A model. It has its own device, so that a failure there doesn't affect other models.
#[wasm_bindgen]
pub struct WebModel {
    model: Model,
}

/// Loads the checkpoint in `folder`. `options` is JSON: `quantize`, a format or formats by part; `ropeTheta` and
/// `ropeScaling`, which override those of the checkpoint. `progress` is called with the bytes done and the total; it
/// cancels the load by returning `false`.
#[wasm_bindgen]
pub fn load(folder: Folder, options: &str, progress: Function) -> Promise {
    let options = options::load(options);
    let progress = SendWrapper::new(progress);
    promise(async move {
        let mut load = options?;
        let opened = folder::open(&folder).await?;
        load.vocabulary = opened.vocabulary;
        let engine = Engine::open(&EngineOptions::default()).await?;
        let mut tell = |done: u64, all: u64| {
            let answer = progress.call2(&JsValue::NULL, &(done as f64).into(), &(all as f64).into());
            answer.map_or(true, |answer| answer != false)
        };
        let model = Model::load_with_progress(&engine, &opened.checkpoint, load, &mut tell).await;
        // Without this the device would stay until it is garbage-collected.
        let model = model.inspect_err(|_| engine.destroy())?;
        Ok(WebModel { model })
    })
}

#[wasm_bindgen]
impl WebModel {
    /// Properties of the model, as JSON.
    pub fn info(&self) -> String {
        let (model, engine) = (&self.model, self.model.engine());
        let config = model.config();
        json!({
            "parameters": probe::parameters(config),
            "hiddenSize": config.hidden_size,
            "formats": model.formats().to_string(),
            "fingerprint": format!("{:032x}", model.fingerprint()),
            "warnings": model.warnings(),
            "maxPositions": config.max_position_embeddings,
            "weightBytes": bolmo_runtime::device_bytes(config, model.formats()),
            "device": if engine.adapter().is_cpu() { "cpu" } else { "gpu" },
            "adapter": probe::adapter(engine.adapter()),
        })
        .to_string()
    }

    /// The device's work so far and the memory in use, as JSON.
    pub fn usage(&self) -> String {
        let (counters, memory) = (self.model.engine().counters(), self.model.engine().memory());
        json!({
            "dispatches": counters.dispatches,
            "submits": counters.submits,
            "readbacks": counters.readbacks,
            "deviceBytes": memory.current_bytes,
            "peakDeviceBytes": memory.peak_bytes,
        })
        .to_string()
    }

    /// Creates a session, with `<bos>` at the start if `bos` is set.
    pub fn session(&self, bos: bool) -> Promise {
        let model = self.model.clone();
        promise(async move {
            let mut session = Session::new(&model).await?;
            if bos {
                session.append_bos().await?;
            }
            Ok(WebSession::new(session, bos))
        })
    }

    /// Restores a session from a snapshot.
    pub fn restore(&self, snapshot: Vec<u8>) -> Promise {
        let model = self.model.clone();
        promise(async move {
            let Some((bos @ (0 | 1), snapshot)) = snapshot.split_first() else {
                let message = "the bytes are not a snapshot of a session";
                return Err(Error::new(ErrorKind::BadCheckpoint, message));
            };
            Ok(WebSession::new(Session::restore(&model, snapshot).await?, *bos == 1))
        })
    }

    /// Scores a text; the result is JSON. `progress` is called with the bytes done and the total.
    pub fn score(&self, text: Vec<u8>, cancel: &Cancel, progress: Function) -> Promise {
        let model = self.model.clone();
        let mut options = ScoreOptions::default();
        options.cancel = cancel.token.clone();
        let progress = SendWrapper::new(progress);
        promise(async move {
            let mut tell = |done: usize, all: usize| {
                // Errors of the listener are ignored.
                let _ = progress.call2(&JsValue::NULL, &(done as f64).into(), &(all as f64).into());
            };
            let score = model.score_text(&text, &options, &mut tell).await?;
            let json = json!({
                "bytes": score.bytes,
                "patches": score.patches,
                "bytesPerPatch": score.bytes_per_patch(),
                "bitsPerByteJoint": score.bits_per_byte_joint(),
                "bitsPerByteFolded": score.bits_per_byte_marginal(),
            });
            Ok(json.to_string())
        })
    }

    /// Starts compiling the kernels that the first byte doesn't need.
    pub fn warm(&self) {
        self.model.warm();
    }

    /// Resolves to a message if the device is lost, and never otherwise.
    pub fn lost(&self) -> Promise {
        let engine = self.model.engine().clone();
        promise(async move { Ok(engine.lost().await.message().to_owned()) })
    }

    /// Releases the device, with everything on it.
    pub fn destroy(&self) {
        self.model.engine().destroy();
    }
}

/// Cancels a call that has no session.
#[wasm_bindgen]
#[derive(Default)]
pub struct Cancel {
    token: CancelToken,
}

#[wasm_bindgen]
impl Cancel {
    /// Creates a token.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the call to stop.
    pub fn cancel(&self) {
        self.token.cancel();
    }
}
