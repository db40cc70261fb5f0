//! Resources of decoding on the device, and the description of a decode step.

use crate::device::{Recorded, Slice};
use crate::sampling::device::{DeviceSampler, Flag};
use crate::sampling::host::Sampler;

/// Work of one submission for one sequence.
pub(crate) struct DecodeStep<'a> {
    /// Bytes generated so far, and the most that may be generated.
    pub(crate) bytes: (usize, usize),
    /// Draws the random numbers for the choices.
    pub(crate) sampler: &'a Sampler,
    /// For each choice, whether the plain or the fused id is taken; at most
    /// [`MAX_CHOICES`](crate::sampling::device::MAX_CHOICES) of them. All slots have equally many, or theirs end with a
    /// patch.
    pub(crate) flags: Vec<Flag>,
    /// The flags of the step after this one if this one ends with a patch, as most do.
    pub(crate) flags_ahead: Vec<Flag>,
}

/// Resources for decoding on the device.
#[derive(Debug)]
pub(super) struct DeviceDecode {
    pub(super) sampler: DeviceSampler,
    /// The control block of steps of this session alone.
    pub(super) control: Slice,
    /// The control block on the host's side.
    pub(super) readable: Slice,
    /// Copy of the session's arena from before a step, on devices that can stop within one.
    pub(super) before: Option<Slice>,
    /// The next step, recorded ahead.
    pub(super) ahead: Option<RecordedStep>,
}

/// A decode step that is recorded and not submitted.
#[derive(Debug)]
pub(super) struct RecordedStep {
    pub(super) list: Recorded,
    /// For each choice that it makes.
    pub(super) flags: Vec<Flag>,
    /// Whether it begins with the global blocks.
    pub(super) ends_patch: bool,
    /// Number of patches before it.
    pub(super) patches: usize,
}
