//! Turns of the browser's event loop.
//!
//! What a thread computes without a pause keeps messages from it. A message to oneself is behind those that wait
//! already, and unlike a timer it is not delayed: not after several in a row, and not in a page that is hidden.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use futures_channel::oneshot;
use wasm_bindgen::prelude::{Closure, JsValue, wasm_bindgen};

/// Milliseconds of work after which other tasks have their turn.
const TURN: f64 = 8.0;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance)]
    fn now() -> f64;

    type MessageChannel;

    #[wasm_bindgen(constructor)]
    fn new() -> MessageChannel;

    #[wasm_bindgen(method, getter)]
    fn port1(this: &MessageChannel) -> MessagePort;

    #[wasm_bindgen(method, getter)]
    fn port2(this: &MessageChannel) -> MessagePort;

    type MessagePort;

    #[wasm_bindgen(method, setter)]
    fn set_onmessage(this: &MessagePort, receive: &Closure<dyn FnMut()>);

    #[wasm_bindgen(method, js_name = postMessage)]
    fn post_message(this: &MessagePort, message: &JsValue);
}

/// A channel from this thread to itself.
struct Channel {
    send: MessagePort,
    _receive: MessagePort,
    _received: Closure<dyn FnMut()>,
}

impl Channel {
    fn open() -> Self {
        let channel = MessageChannel::new();
        let received = Closure::new(|| {
            if let Some(waiting) = WAITING.with_borrow_mut(VecDeque::pop_front) {
                // Sending fails if the waiting future was dropped.
                let _ = waiting.send(());
            }
        });
        let receive = channel.port1();
        receive.set_onmessage(&received);
        Self { send: channel.port2(), _receive: receive, _received: received }
    }
}

thread_local! {
    static CHANNEL: Channel = Channel::open();
    /// Who waits for a message, in order.
    static WAITING: RefCell<VecDeque<oneshot::Sender<()>>> = const { RefCell::new(VecDeque::new()) };
    /// When this thread's turn began, in milliseconds.
    static BEGUN: Cell<f64> = const { Cell::new(0.0) };
}

/// Lets other tasks of this thread have their turn, if this one's has lasted long.
pub(super) async fn pass_if_due() {
    if now() - BEGUN.get() < TURN {
        return;
    }
    let (sender, receiver) = oneshot::channel();
    WAITING.with_borrow_mut(|waiting| waiting.push_back(sender));
    CHANNEL.with(|channel| channel.send.post_message(&JsValue::NULL));
    // The sender is kept until it has sent.
    let _ = receiver.await;
    BEGUN.set(now());
}
