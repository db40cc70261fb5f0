//! The kinds of training.

/// Kind of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A subword model, new or continued from a folder.
    Subword,
    /// Stage 1 of byteifying: frozen global blocks and a teacher.
    Stage1,
    /// Stage 2 of byteifying: the whole model, end to end.
    Stage2,
}

impl Kind {
    /// All kinds, in the order of work.
    pub const ALL: [Kind; 3] = [Kind::Subword, Kind::Stage1, Kind::Stage2];

    /// Name in file names and messages: `subword`, `stage1` or `stage2`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Subword => "subword",
            Kind::Stage1 => "stage1",
            Kind::Stage2 => "stage2",
        }
    }

    /// The kind of training in words.
    pub(super) fn title(self) -> &'static str {
        match self {
            Kind::Subword => "a subword run",
            Kind::Stage1 => "stage 1",
            Kind::Stage2 => "stage 2",
        }
    }
}
