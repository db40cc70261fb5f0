//! The table of keys.

use super::key::{ANY, Expected, Key, LARGE, Need, Section};
use crate::run::kind::Kind::{self, Stage1, Stage2, Subword};

use Expected::{Choice, Flag, Number, Path, Paths, Text, Whole};
use Need::{Always, InTable, Kinds, Optional};

const ALL: &[Kind] = &Kind::ALL;
const BYTES: &[Kind] = &[Stage1, Stage2];
const ONE: &[Kind] = &[Stage1];
const TWO: &[Kind] = &[Stage2];
const NEW: &[Kind] = &[Subword];
/// Upper limit of sizes that are multiplied with each other.
const SIZE: i64 = 65535;
/// Numbers below 1 that are still below 1 in an f32.
const BELOW_ONE: Expected = Number(0.0, 0.999999);
const FACTOR: Expected = Number(0.0, LARGE);
const COUNT: Expected = Whole(1, ANY);

/// The tables, in the order of a file.
pub(in crate::run) const SECTIONS: [Section; 11] = [
    section("", ALL, "The folder of the run, and its seed.", false),
    section("model", ALL, "The model to train.", false),
    section("model.new", NEW, "Sizes of a new subword model with the blocks of OLMo 2.", false),
    section(
        "model.local",
        ONE,
        "Sizes of the local parts of a new byte-level model. Without this table they are those of published models.",
        true,
    ),
    section("data", ALL, "Training text, held-out text and the tokenizer.", false),
    section("batch", ALL, "Sizes of a step.", false),
    section("device", ALL, "Limits on the device.", false),
    section("optimiser", ALL, "Learning rates, their schedule, and AdamW.", false),
    section("losses", BYTES, "Factors of the losses. The defaults are those of the paper.", false),
    section(
        "compression",
        TWO,
        "Compression to larger patches. Without this table the patches stay the tokenizer's subwords.",
        true,
    ),
    section("every", ALL, "Intervals of snapshots and evaluations.", false),
];

/// The keys, in the order of a file.
pub(in crate::run) const KEYS: [Key; 49] = [
    key("out", ALL, Path, "Folder of the run: metrics, snapshots, charts, and finally the model.")
        .needed(Always, "\"runs/STAGE\"")
        .may_change(),
    key("seed", ALL, Whole(0, ANY), "Seed of all random choices."),
    key(
        "model.source",
        &[Subword, Stage1],
        Path,
        "Stage 1: folder of the source model, which is also the teacher. Subword run: folder of a model to continue \
         from, in place of the table `model.new`.",
    )
    .needed(Kinds(ONE), "\"runs/subword/model\"")
    .without("a new model, in a subword run"),
    key(
        "model.student",
        BYTES,
        Path,
        "Stage 2: folder of the byte-level model. Stage 1: folder of a byte-level model to continue from, made from \
         the same source.",
    )
    .needed(Kinds(TWO), "\"runs/stage1/model\"")
    .without("a new model, in stage 1"),
    key(
        "model.start",
        ONE,
        Choice(&["moments", "fitted"]),
        "Initialization of a new byte-level model. `moments`: patches of random bytes have the mean and the standard \
         deviation of the source's embeddings, as in the paper. `fitted`: a linear map fits patches of the training \
         text to the embeddings of their subwords.",
    ),
    key("model.export", ALL, Choice(&["f32", "f16", "bf16"]), "Type of the tensors of the finished model.")
        .may_change(),
    key("model.new.hidden_size", NEW, Whole(1, SIZE), "Width of the residual stream.").in_table("256"),
    key("model.new.layers", NEW, Whole(1, 1024), "Number of blocks.").in_table("4"),
    key("model.new.heads", NEW, Whole(1, 1024), "Number of attention heads.").in_table("4"),
    key("model.new.intermediate_size", NEW, Whole(1, 1 << 20), "Inner width of the feed-forwards.").in_table("704"),
    key("model.local.encoder_layers", ONE, Whole(1, 1024), "Layers of the encoder.").in_table("1"),
    key("model.local.decoder_layers", ONE, Whole(1, 1024), "Layers of the decoder.").in_table("4"),
    key("model.local.heads", ONE, Whole(2, 1024), "Number of mLSTM heads, an even number.").in_table("4"),
    key("model.local.intermediate_size", ONE, Whole(1, 1 << 20), "Inner width of the feed-forwards.").in_table("352"),
    key("data.train", ALL, Paths, "Text files in UTF-8, or `.npy` files of subword ids, to train on.")
        .needed(Kinds(ALL), "[\"texts/train.txt\"]"),
    key(
        "data.held_out",
        ALL,
        Paths,
        "Files of the same kinds to evaluate on. Without any, a share of the training text is held out.",
    ),
    key(
        "data.held_out_share",
        ALL,
        Number(0.0, 0.99),
        "Share of the training text to hold out if `data.held_out` is empty. Whole documents are held out.",
    ),
    key(
        "data.separator",
        ALL,
        Text,
        "Line that separates the documents of a text file. It is not part of their text. A line with anything else on \
         it, even a space, is text.",
    ),
    key("data.tokenizer", ALL, Path, "Folder or `tokenizer.json` of the subword tokenizer.")
        .needed(Optional, "\"tokenizer\"")
        .without("the tokenizer of the source or of the student"),
    key(
        "batch.rows",
        ALL,
        Whole(1, SIZE),
        "Examples of a batch. `batch.rows` times `batch.subwords` must be a multiple of 4.",
    )
    .unit("examples"),
    key("batch.subwords", ALL, Whole(2, SIZE), "Subwords of an example, and its number of patch slots.")
        .unit("subwords"),
    key(
        "batch.bytes_per_subword",
        BYTES,
        Whole(1, SIZE),
        "Maximum length of an example, for each of its subwords. What is longer is cut off.",
    )
    .unit("bytes"),
    key("batch.accumulate", ALL, Whole(1, 1 << 20), "Number of batches whose gradients are averaged in a step.")
        .unit("batches"),
    key(
        "batch.half_products",
        ALL,
        Flag,
        "Whether products read f16 factors and accumulate in f32. This is faster on adapters with matrix units. \
         Weights are always f32.",
    ),
    key(
        "batch.recompute",
        ALL,
        Flag,
        "Whether layers save only their inputs and run forward again before their backward pass. This takes less \
         memory and one more forward pass. The results have the same bits.",
    )
    .may_change(),
    key("device.memory_mib", ALL, COUNT, "Maximum device memory. A run that needs more is refused.")
        .needed(Optional, "8192")
        .without("no limit; on adapters that compute in main memory, the free memory")
        .unit("MiB")
        .may_change(),
    key(
        "optimiser.steps",
        ALL,
        COUNT,
        "Number of steps. A larger number extends a run that is resumed, even a finished one.",
    )
    .needed(Always, "1000")
    .unit("steps")
    .may_change(),
    key("optimiser.rate", ALL, FACTOR, "Peak learning rate.").needed(Always, "0.001"),
    key(
        "optimiser.encoder_rate",
        BYTES,
        FACTOR,
        "Peak learning rate of the embeddings, the encoder and the boundary predictor. A lower rate suits a \
         fitted start, where most of these weights are already right.",
    )
    .needed(Optional, "0.001")
    .without("`optimiser.rate`"),
    key("optimiser.global_rate", TWO, FACTOR, "Peak learning rate of the global blocks.")
        .needed(Optional, "0.0005")
        .without("half of `optimiser.rate`"),
    key(
        "optimiser.warmup",
        ALL,
        Number(0.0, 1.0),
        "Share of the steps in which the learning rates rise from 0 to their peaks. From there they fall to 0 at the \
         last step.",
    ),
    key("optimiser.beta1", ALL, BELOW_ONE, "Decay of the first moment."),
    key("optimiser.beta2", ALL, BELOW_ONE, "Decay of the second moment."),
    key("optimiser.decay", ALL, Number(0.0, 1000.0), "Weight decay of everything but embeddings."),
    key("optimiser.clip", ALL, FACTOR, "Maximum norm of the gradients. 0 disables clipping."),
    key(
        "losses.encoder",
        ONE,
        FACTOR,
        "Factor of the distance between the student's patches and the teacher's after the first global blocks.",
    ),
    key("losses.cross_entropy", BYTES, FACTOR, "Factor of the cross-entropy of the next byte."),
    key("losses.distill", ONE, FACTOR, "Factor of the distillation of the probabilities of patches."),
    key("losses.boundary", BYTES, FACTOR, "Factor of the boundary predictor's cross-entropy."),
    key(
        "losses.spelling",
        ONE,
        FACTOR,
        "Factor of byte distillation, the divergence of the next byte's distribution from the teacher's. With it the \
         decoder learns from every byte that the teacher considers possible. The paper has no such term.",
    ),
    key(
        "losses.divide_twice",
        BYTES,
        Flag,
        "Whether cross-entropy and distillation are divided once more by the share of real bytes, as in the \
         reference. Otherwise they are plain means.",
    ),
    key(
        "compression.kind",
        TWO,
        Choice(&["bpe", "entropy", "cross_entropy", "space", "words"]),
        "Order in which neighboring patches are merged. `bpe`: the most frequent pair of subwords first. `entropy` \
         and `cross_entropy`: the pair that a small subword model predicts best first. `space`: no merges; random \
         ends of the tokenizer's patches are replaced by ends before whitespace and around punctuation. `words`: by \
         ends before whitespace alone. Both stop where no other end of the tokenizer is left, below `target` if that \
         is larger.",
    ),
    key("compression.target", TWO, Number(1.0, 1024.0), "Size of the patches at the end.")
        .in_table("6.0")
        .unit("bytes per patch"),
    key(
        "compression.steps",
        TWO,
        COUNT,
        "Number of steps in which the patches grow to that size. A run that is extended keeps the number that it \
         began with.",
    )
    .needed(Optional, "500")
    .without("half of `optimiser.steps`")
    .unit("steps"),
    key(
        "compression.entropies",
        TWO,
        Path,
        "Folder of the subword model that chooses the merges. The kinds `entropy` and `cross_entropy` need it.",
    )
    .needed(Optional, "\"runs/subword/model\"")
    .without("no model"),
    key("every.snapshot", ALL, COUNT, "Interval of snapshots. The last step has one in any case.")
        .unit("steps")
        .may_change(),
    key("every.keep", ALL, COUNT, "Number of snapshots to keep. Older ones are deleted.")
        .unit("snapshots")
        .may_change(),
    key("every.evaluate", ALL, COUNT, "Interval of evaluations on held-out text. The last step has one in any case.")
        .unit("steps")
        .may_change(),
    key("every.evaluate_batches", ALL, COUNT, "Maximum length of an evaluation.").unit("batches").may_change(),
];

const fn section(name: &'static str, kinds: &'static [Kind], text: &'static str, commented: bool) -> Section {
    Section { name, kinds, text, commented }
}

/// A key that need not be given.
const fn key(name: &'static str, kinds: &'static [Kind], value: Expected, text: &'static str) -> Key {
    Key { name, kinds, value, need: Optional, absent: "", example: "", unit: "", text, may_change: false }
}

impl Key {
    const fn needed(self, need: Need, example: &'static str) -> Self {
        Self { need, example, ..self }
    }

    const fn in_table(self, example: &'static str) -> Self {
        self.needed(InTable, example)
    }

    const fn without(self, absent: &'static str) -> Self {
        Self { absent, ..self }
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn may_change(self) -> Self {
        Self { may_change: true, ..self }
    }
}
