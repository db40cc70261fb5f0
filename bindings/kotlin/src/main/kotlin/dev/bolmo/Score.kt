package dev.bolmo

/** Options for scoring. */
public class ScoreOptions @JvmOverloads constructor(
    /** Which bytes end a patch, a flag for each byte or id; null, the default: what the model decides. */
    public val boundaries: BooleanArray? = null,
    /** Whether to keep every intermediate tensor, which takes about 2400 + 24 D bytes of memory per byte. */
    public val tensors: Boolean = false,
) {
    /** Runs [block] with native options. */
    internal inline fun <T> native(block: (Long) -> T): T =
        withNative(Native::scoreOptionsCreate, Native::scoreOptionsDelete) { options ->
            if (boundaries != null) {
                if (boundaries.isEmpty()) {
                    throw BolmoException.InvalidArgument(
                        "boundaries: expected a flag for each byte or id, found none; null lets the model decide",
                    )
                }
                Native.scoreOptionsSetBoundaries(options, flags(boundaries))
            }
            Native.scoreOptionsSetTensors(options, tensors)
            block(options)
        }
}

/** A tensor of the forward pass, for n ids, p patches and hidden size D. */
public enum class TensorKind {
    /** Encoder output after its norm, `[n, D]`. */
    ENCODER_OUT,

    /** Log-probability that a patch ends, `[n]`. */
    BOUNDARY_LOGPROBS,

    /** Input of the global blocks, `[p, D]`. */
    PATCH_EMBEDDINGS,

    /** Output of the global blocks, `[p, D]`. */
    GLOBAL_OUT,

    /** Decoder output before the final norm, `[n, D]`. */
    DECODER_OUT,

    /** Decoder output after the final norm, `[n, D]`. */
    FINAL_HIDDEN,

    /** Logits, `[n, 520]`. */
    LOGITS,
}

/** A tensor, row by row. */
public class Tensor internal constructor(
    /** Number of rows. */
    public val rows: Int,
    /** Length of a row; 1 for a tensor of one dimension. */
    public val columns: Int,
    /** The numbers. */
    public val data: FloatArray,
) {
    /** The number in a [row] and a [column]. */
    public operator fun get(row: Int, column: Int): Float = data[row * columns + column]
}

/** The probability of a text. */
public class Score internal constructor(
    /** Bits per byte, of the bytes together with the patch boundaries. */
    public val bitsPerByteJoint: Double,
    /** Bits per byte, of the bytes alone. Not comparable with a subword model's. */
    public val bitsPerByteFolded: Double,
    /** Natural log-probability of the bytes together with the patch boundaries. */
    public val logLikelihoodJoint: Double,
    /** Natural log-probability of the bytes alone. */
    public val logLikelihoodFolded: Double,
    /** Number of predicted bytes. */
    public val bytes: Long,
    /** Number of patches that end inside the text. */
    public val patches: Long,
    /** Which bytes or ids end a patch. */
    public val boundaries: BooleanArray,
    /** Log-probability of each predicted byte together with its boundary. */
    public val jointLogprobs: FloatArray,
    /** Log-probability of each predicted byte alone. */
    public val foldedLogprobs: FloatArray,
    /** The tensors; empty unless [ScoreOptions.tensors] is set. */
    public val tensors: Map<TensorKind, Tensor>,
) {
    internal companion object {
        /** Reads and deletes a native score. */
        fun take(handle: Long, options: ScoreOptions): Score = withNative({ handle }, Native::scoreDelete) { score ->
            Score(
                bitsPerByteJoint = Native.scoreNumber(score, 0),
                bitsPerByteFolded = Native.scoreNumber(score, 1),
                logLikelihoodJoint = Native.scoreNumber(score, 2),
                logLikelihoodFolded = Native.scoreNumber(score, 3),
                bytes = Native.scoreNumber(score, 4).toLong(),
                patches = Native.scoreNumber(score, 5).toLong(),
                boundaries = booleans(Native.scoreBoundaries(score)),
                jointLogprobs = Native.scoreLogprobs(score, 0),
                foldedLogprobs = Native.scoreLogprobs(score, 1),
                tensors = if (options.tensors) TensorKind.entries.associateWith { tensor(score, it) } else emptyMap(),
            )
        }

        private fun tensor(score: Long, kind: TensorKind): Tensor {
            val data = Native.scoreTensor(score, kind.ordinal)
            val rows = Native.scoreTensorRows(score, kind.ordinal).toInt()
            return Tensor(rows, if (rows == 0) 0 else data.size / rows, data)
        }
    }
}
