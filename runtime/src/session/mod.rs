//! A session: one sequence on a model.
//!
//! A session is one state machine. Its state is the pending byte, [`PendingByte`](crate::state::PendingByte):
//!
//! ```text             append                  logits                  push   empty ──────────────> Undecided
//! ──────────> None ──────────────────> Chosen ──┐ decode                          ▲ │ ▲ ▲               │ ▲           
//!           │ │ ▲   │ step                          └─┘ │ └─── append ────┘ └─────── logits ───────┘ │ └───┘          
//!             append └─────────────────── append ─────────────────┘ ```
//!
//! Operations that change the state hold an [`Operation`](machine::Operation) guard. If such an operation fails
//! part-way, or its future is dropped, the guard poisons the session: later operations are refused until the session is
//! rewound to a checkpoint.

mod append;
mod batch;
mod calls;
mod cancel;
mod checkpoint;
mod decode;
mod device_decode;
mod machine;
mod memory;
mod prefill;
mod progress;
mod snapshot;
mod tap;
mod unread_logits;

pub(crate) use batch::Batch;
pub use calls::{Call, Calls};
pub use cancel::CancelToken;
pub use checkpoint::Checkpoint;
pub(crate) use device_decode::DecodeStep;
pub use machine::Session;
pub use memory::session_bytes;
pub use progress::Progress;
pub(crate) use tap::{Dump, Tap};
