//! A session: one sequence on a model.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use bolmo_runtime::ids::is_fused;
use bolmo_runtime::{CancelToken, Error, ErrorKind, Result, Session};
use js_sys::{Function, Promise, Uint8Array};
use send_wrapper::SendWrapper;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::{promise, to_js};
use crate::generate::{Pieces, ended};
use crate::options;

/// One sequence. A call during another one is rejected as `busy`.
#[wasm_bindgen]
pub struct WebSession {
    shared: Rc<Shared>,
}

struct Shared {
    /// `None` while a call uses it.
    session: RefCell<Option<Session>>,
    cancel: CancelToken,
    /// Whether the session began with `<bos>`, which is not a byte of the text.
    bos: bool,
}

/// A session that is put back when the call is over, however it ends.
struct Taken {
    shared: Rc<Shared>,
    session: Option<Session>,
}

impl Taken {
    fn get(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "the session is missing during a call"))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.shared.session.borrow_mut() = self.session.take();
    }
}

impl Shared {
    fn take(self: &Rc<Self>) -> Result<Taken> {
        let session = self.session.borrow_mut().take().ok_or_else(busy)?;
        // A cancel request that came too late for the last call must not stop this one.
        self.cancel.reset();
        Ok(Taken { shared: self.clone(), session: Some(session) })
    }

    /// Reads the session between calls.
    fn look<T>(&self, at: impl FnOnce(&Session) -> T) -> Result<T, JsValue> {
        self.session.borrow().as_ref().map(at).ok_or_else(|| to_js(&busy()))
    }
}

fn busy() -> Error {
    Error::new(ErrorKind::Busy, "the session is busy; wait for the running call, abort it, or use another session")
}

impl WebSession {
    /// `bos`: whether the session begins with `<bos>`.
    pub fn new(session: Session, bos: bool) -> Self {
        let cancel = session.cancel_token();
        Self { shared: Rc::new(Shared { session: RefCell::new(Some(session)), cancel, bos }) }
    }
}

#[wasm_bindgen]
impl WebSession {
    /// Appends bytes of text. `progress` is called with the bytes done and the total.
    pub fn append(&self, text: Vec<u8>, progress: Function) -> Promise {
        // Taken now, not when the promise starts: a cancel request in between is meant for this call.
        let taken = self.shared.take();
        let progress = SendWrapper::new(progress);
        promise(async move {
            let mut taken = taken?;
            let mut tell = |done: usize, all: usize| {
                // Errors of the listener are ignored.
                let _ = progress.call2(&JsValue::NULL, &(done as f64).into(), &(all as f64).into());
            };
            taken.get()?.append_with_progress(&text, &mut tell).await.map(|()| JsValue::UNDEFINED)
        })
    }

    /// Generates. `on_piece` receives a piece's text, bytes and patch ends. Resolves to a JSON object.
    pub fn generate(&self, options: &str, on_piece: Function) -> Promise {
        let options = options::generate(options);
        let taken = self.shared.take();
        promise(async move {
            let (options, mut taken) = (options?, taken?);
            let mut pieces = Pieces::new(on_piece);
            let result = taken
                .get()?
                .generate(&options, &mut |piece| {
                    pieces.push(piece.bytes, piece.ids);
                    ControlFlow::Continue(())
                })
                .await;
            pieces.finish();
            Ok(ended(&result?))
        })
    }

    /// Asks the running call to stop.
    pub fn cancel(&self) {
        self.shared.cancel.cancel();
    }

    /// Saves the session as bytes.
    pub fn snapshot(&self) -> Promise {
        let (taken, bos) = (self.shared.take(), self.shared.bos);
        promise(async move {
            let bytes = taken?.get()?.snapshot().await?;
            let mut framed = vec![u8::from(bos)];
            framed.extend(bytes);
            Ok(Uint8Array::from(&framed[..]))
        })
    }

    /// Creates another session with the same text.
    pub fn fork(&self) -> Promise {
        let (taken, bos) = (self.shared.take(), self.shared.bos);
        promise(async move { Ok(WebSession::new(taken?.get()?.try_clone().await?, bos)) })
    }

    /// Number of bytes of text.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> Result<usize, JsValue> {
        let bos = usize::from(self.shared.bos);
        self.shared.look(|session| session.ids().len().saturating_sub(bos))
    }

    /// Offsets into the text after which a patch ends. Whether one ends after the last byte may still be undecided.
    #[wasm_bindgen(js_name = patchEnds)]
    pub fn patch_ends(&self) -> Result<Vec<u32>, JsValue> {
        let bos = u32::from(self.shared.bos);
        self.shared.look(|session| {
            let ends = (1..).zip(session.ids()).filter(|&(at, &id)| is_fused(id) && at > bos);
            ends.map(|(at, _)| at - bos).collect()
        })
    }

    /// Device memory of the session, in bytes.
    #[wasm_bindgen(getter, js_name = deviceBytes)]
    pub fn device_bytes(&self) -> Result<f64, JsValue> {
        self.shared.look(|session| session.device_bytes() as f64)
    }
}
