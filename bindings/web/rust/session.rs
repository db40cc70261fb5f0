//! A session: one sequence on a model.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use bolmo_runtime::stages::bytes::is_fused;
use bolmo_runtime::{CancelToken, Error, ErrorKind, Result, Session};
use js_sys::{Function, Promise, Uint8Array};
use send_wrapper::SendWrapper;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::{promise, to_js};
use crate::generate::{Pieces, ended};
use crate::options;

/// One sequence. Calls while another one is under way are refused as `busy`.
#[wasm_bindgen]
pub struct WebSession {
    shared: Rc<Shared>,
}

struct Shared {
    /// Out of its place while a call has it.
    session: RefCell<Option<Session>>,
    cancel: CancelToken,
    /// Whether it began with `<bos>`, which is no byte of the text.
    bos: bool,
}

/// A session that is put back when a call is over, however it ends.
struct Taken {
    shared: Rc<Shared>,
    session: Option<Session>,
}

impl Taken {
    fn get(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "a session that was taken is not there"))
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
        // A cancel that came too late for the last call is not for this one.
        self.cancel.reset();
        Ok(Taken { shared: self.clone(), session: Some(session) })
    }

    /// Looks at the session between calls.
    fn look<T>(&self, at: impl FnOnce(&Session) -> T) -> Result<T, JsValue> {
        self.session.borrow().as_ref().map(at).ok_or_else(|| to_js(&busy()))
    }
}

fn busy() -> Error {
    Error::new(ErrorKind::Busy, "the session is at work: wait for the call before, abort it, or use another session")
}

impl WebSession {
    /// `bos`: whether it begins with `<bos>`.
    pub fn new(session: Session, bos: bool) -> Self {
        let cancel = session.cancel_token();
        Self { shared: Rc::new(Shared { session: RefCell::new(Some(session)), cancel, bos }) }
    }
}

#[wasm_bindgen]
impl WebSession {
    /// Appends bytes of text; `progress` is called with bytes done and in all.
    pub fn append(&self, text: Vec<u8>, progress: Function) -> Promise {
        // At once, and not when the promise begins: a cancel that comes in between is for this call.
        let taken = self.shared.take();
        let progress = SendWrapper::new(progress);
        promise(async move {
            let mut taken = taken?;
            let mut tell = |done: usize, all: usize| {
                // What the listener does with it is its own business.
                let _ = progress.call2(&JsValue::NULL, &(done as f64).into(), &(all as f64).into());
            };
            taken.get()?.append(&text, &mut tell).await.map(|()| JsValue::UNDEFINED)
        })
    }

    /// Generates; `on_piece` gets a piece's text, bytes and patch ends. Comes to a JSON object.
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

    /// Asks the call that is under way to stop.
    pub fn cancel(&self) {
        self.shared.cancel.cancel();
    }

    /// The session as bytes.
    pub fn snapshot(&self) -> Promise {
        let (taken, bos) = (self.shared.take(), self.shared.bos);
        promise(async move {
            let bytes = taken?.get()?.snapshot().await?;
            let mut framed = vec![u8::from(bos)];
            framed.extend(bytes);
            Ok(Uint8Array::from(&framed[..]))
        })
    }

    /// Another session with the same text.
    pub fn fork(&self) -> Promise {
        let (taken, bos) = (self.shared.take(), self.shared.bos);
        promise(async move { Ok(WebSession::new(taken?.get()?.try_clone().await?, bos)) })
    }

    /// How many bytes of text it has.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> Result<usize, JsValue> {
        let bos = usize::from(self.shared.bos);
        self.shared.look(|session| session.ids().len().saturating_sub(bos))
    }

    /// After how many bytes of its text each patch ends. The last byte's end may still be open.
    #[wasm_bindgen(js_name = patchEnds)]
    pub fn patch_ends(&self) -> Result<Vec<u32>, JsValue> {
        let bos = u32::from(self.shared.bos);
        self.shared.look(|session| {
            let ends = (1..).zip(session.ids()).filter(|&(at, &id)| is_fused(id) && at > bos);
            ends.map(|(at, _)| at - bos).collect()
        })
    }

    /// Bytes of device memory that it holds.
    #[wasm_bindgen(getter, js_name = deviceBytes)]
    pub fn device_bytes(&self) -> Result<f64, JsValue> {
        self.shared.look(|session| session.device_bytes() as f64)
    }
}
