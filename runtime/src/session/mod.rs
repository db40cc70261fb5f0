//! A session: one sequence on a model.
//!
//! A session is one state machine. Between two operations its last byte is in one of three conditions
//! ([`PendingByte`](crate::state::PendingByte)):
//!
//! ```text
//!           append                 logits                  push
//!   (any) ─────────> Undecided ─────────────> None ─────────────────> Chosen
//!                        │  ^                                            │
//!                        └──┘ append: decides the byte, goes on          │ append, logits, decode step:
//!                                                                        │ take the id through the model
//!                                       None <───────────────────────────┘
//! ```
//!
//! Every operation holds an [`Operation`](machine::Operation) guard. If it fails part-way, or its future is dropped,
//! the guard poisons the session: later operations are refused until the session is rewound to a checkpoint.

mod append;
mod batch;
mod cancel;
mod checkpoint;
mod decode;
mod device_decode;
mod machine;
mod prefill;
mod snapshot;
mod tap;

pub(crate) use batch::Batch;
pub use cancel::CancelToken;
pub use checkpoint::Checkpoint;
pub(crate) use device_decode::DecodeStep;
pub use machine::Session;
pub(crate) use tap::{Dump, Tap};
