package dev.bolmo

/** Difference between a fused id and its plain id. A fused id says that a patch ends there. */
internal const val FUSED_OFFSET = 260

/** Options for generating. Java has a [Builder]. */
public data class GenerateOptions(
    /** Maximum number of bytes to generate, at least 1. */
    val maxBytes: Int = 256,
    /** Divides the log-probabilities of the bytes. 0, the default, always chooses the most probable id. */
    val temperature: Float = 0f,
    /** Samples from the most probable bytes only, so many of them. 0, the default, turns this off. */
    val topK: Int = 0,
    /** Samples from the most probable bytes whose probabilities add up to this only. 1, the default, turns this off. */
    val topP: Float = 1f,
    /** Samples from bytes with at least this share of the highest probability. 0, the default, turns this off. */
    val minP: Float = 0f,
    /** Above 1 discourages bytes that are among the last ids. 1, the default, turns this off. Clamped to 100. */
    val repetitionPenalty: Float = 1f,
    /** Number of last ids that count for [repetitionPenalty]. */
    val repetitionWindow: Int = 64,
    /** Added to the logits of bytes, plain and fused. Clamped to -1000..1000, as all biases are. */
    val byteBias: Map<Int, Float> = emptyMap(),
    /** Added to the logits of the end of the text: above 0 ends earlier. */
    val endBias: Float = 0f,
    /** Added to the logits of all ids that end a patch: above 0 makes patches shorter. */
    val boundaryBias: Float = 0f,
    /** Seed of the random numbers. The same seed draws the same numbers on every platform. */
    val seed: Long = 0,
    /** Strings that end the generation, and are not part of its text. */
    val stop: List<String> = emptyList(),
    /** The same as bytes, which need not be UTF-8. */
    val stopBytes: List<ByteArray> = emptyList(),
    /** What the text must match. */
    val constraint: Constraint? = null,
    /** Whether to keep the log-probabilities of the chosen ids. */
    val logprobs: Boolean = false,
) {
    /** Sets options one by one, for Java. */
    public class Builder {
        private var options = GenerateOptions()

        /** Sets [GenerateOptions.maxBytes]. */
        public fun maxBytes(bytes: Int): Builder = apply { options = options.copy(maxBytes = bytes) }

        /** Sets [GenerateOptions.temperature]. */
        public fun temperature(temperature: Float): Builder =
            apply { options = options.copy(temperature = temperature) }

        /** Sets [GenerateOptions.topK]. */
        public fun topK(topK: Int): Builder = apply { options = options.copy(topK = topK) }

        /** Sets [GenerateOptions.topP]. */
        public fun topP(topP: Float): Builder = apply { options = options.copy(topP = topP) }

        /** Sets [GenerateOptions.minP]. */
        public fun minP(minP: Float): Builder = apply { options = options.copy(minP = minP) }

        /** Sets [GenerateOptions.repetitionPenalty] and [GenerateOptions.repetitionWindow]. */
        public fun repetitionPenalty(penalty: Float, window: Int): Builder =
            apply { options = options.copy(repetitionPenalty = penalty, repetitionWindow = window) }

        /** Adds to [GenerateOptions.byteBias]. */
        public fun byteBias(byte: Int, bias: Float): Builder =
            apply { options = options.copy(byteBias = options.byteBias + (byte to bias)) }

        /** Sets [GenerateOptions.endBias]. */
        public fun endBias(bias: Float): Builder = apply { options = options.copy(endBias = bias) }

        /** Sets [GenerateOptions.boundaryBias]. */
        public fun boundaryBias(bias: Float): Builder = apply { options = options.copy(boundaryBias = bias) }

        /** Sets [GenerateOptions.seed]. */
        public fun seed(seed: Long): Builder = apply { options = options.copy(seed = seed) }

        /** Adds to [GenerateOptions.stop]. */
        public fun stop(stop: String): Builder = apply { options = options.copy(stop = options.stop + stop) }

        /** Adds to [GenerateOptions.stopBytes]. */
        public fun stop(stop: ByteArray): Builder =
            apply { options = options.copy(stopBytes = options.stopBytes + listOf(stop)) }

        /** Sets [GenerateOptions.constraint]. */
        public fun constraint(constraint: Constraint): Builder =
            apply { options = options.copy(constraint = constraint) }

        /** Sets [GenerateOptions.logprobs]. */
        public fun logprobs(keep: Boolean): Builder = apply { options = options.copy(logprobs = keep) }

        /** The options. */
        public fun build(): GenerateOptions = options
    }

    /** Runs [block] with native options. */
    internal inline fun <T> native(block: (Long) -> T): T =
        withNative(Native::generateOptionsCreate, Native::generateOptionsDelete) { options ->
            set(options)
            block(options)
        }

    private fun set(options: Long) {
        Native.generateOptionsSetMaxBytes(options, maxBytes.toLong())
        Native.generateOptionsSetTemperature(options, temperature)
        Native.generateOptionsSetTopK(options, topK.toLong())
        Native.generateOptionsSetTopP(options, topP)
        Native.generateOptionsSetMinP(options, minP)
        Native.generateOptionsSetRepetitionPenalty(options, repetitionPenalty, repetitionWindow.toLong())
        byteBias.forEach { (byte, bias) -> Native.generateOptionsSetByteBias(options, byte, bias) }
        Native.generateOptionsSetEndBias(options, endBias)
        Native.generateOptionsSetBoundaryBias(options, boundaryBias)
        Native.generateOptionsSetSeed(options, seed)
        stop.forEach { Native.generateOptionsAddStop(options, utf8(it, "stop")) }
        stopBytes.forEach { Native.generateOptionsAddStop(options, it) }
        constraint?.withHandle { Native.generateOptionsSetConstraint(options, it) }
        if (logprobs) Native.generateOptionsSetLogprobs(options, true)
    }
}

/**
 * A chunk of output, usually the bytes of one patch. Bytes that may begin a stop string are held back.
 *
 * The bytes are what the model wrote. The text is a view of them: it never cuts a character, so that the beginning of
 * one waits for the piece that has the rest, and invalid UTF-8 becomes U+FFFD.
 */
public class Piece internal constructor(
    /** The bytes. The last piece has none if it only ends a character that was cut. */
    public val bytes: ByteArray,
    /** Each byte's id: 4 more than the byte, and 260 more where it ends a patch. */
    public val ids: ShortArray,
    /** The characters that these bytes complete. */
    public val text: String,
) {
    /** Whether a patch ends with these bytes. */
    public val endsPatch: Boolean get() = ids.isNotEmpty() && ids.last() >= FUSED_OFFSET

    /** The text. */
    override fun toString(): String = text
}

/** Receives the pieces of a generation, on the thread that generates. An exception ends it. */
public fun interface PieceListener {
    /** A [piece]. Returns whether to continue; after `false` there are no more pieces. */
    public fun onPiece(piece: Piece): Boolean
}

/** Why a generation ended. */
public enum class StopReason {
    /** The maximum number of bytes was reached. */
    BUDGET,

    /** The model ended the text. */
    END,

    /** A stop string occurred. */
    STOP_STRING,

    /** [Session.cancel] was called, the receiver left, or the listener returned false. */
    CANCELLED,

    /** The text matches the constraint, and no further byte can follow. */
    COMPLETE,

    /** A reason that this version doesn't know. */
    OTHER,

    ;

    /** The name of the reason, such as "stop-string". */
    override fun toString(): String {
        NativeLibrary.load()
        return Native.stopName(ordinal).decodeToString()
    }
}

/** The result of a generation. */
public class Generation internal constructor(
    /** The bytes, without a stop string. */
    public val bytes: ByteArray,
    /**
     * The ids as they were chosen: 4 more than the byte, and 260 more where it ends a patch. They include those of a
     * stop string, and a final 1 or 261 if the model ended the text.
     */
    public val ids: ShortArray,
    /** Why it ended. */
    public val stop: StopReason,
    /** Number of patches that the ids ended. */
    public val patches: Long,
    /** Whether the whole text matches the constraint; false without one. */
    public val matched: Boolean,
    /** Log-probability of each id; null unless [GenerateOptions.logprobs] is set. */
    public val jointLogprobs: FloatArray?,
    /** Log-probability of each byte, whether it ends a patch or not; null unless [GenerateOptions.logprobs] is set. */
    public val foldedLogprobs: FloatArray?,
) {
    /** The bytes as text. Invalid UTF-8 becomes U+FFFD. */
    public val text: String by lazy { Utf8Assembler.decode(bytes) }

    /** The text. */
    override fun toString(): String = text

    internal companion object {
        /** Reads and deletes a native generation. */
        fun take(handle: Long): Generation = withNative({ handle }, Native::generationDelete) {
            Generation(
                bytes = Native.generationBytes(it),
                ids = Native.generationIds(it),
                stop = StopReason.entries.getOrElse(Native.generationStop(it)) { StopReason.OTHER },
                patches = Native.generationPatches(it),
                matched = Native.generationMatched(it),
                jointLogprobs = logprobs(it, 0),
                foldedLogprobs = logprobs(it, 1),
            )
        }

        /** One that was cancelled before it began. */
        fun cancelled(): Generation =
            Generation(ByteArray(0), ShortArray(0), StopReason.CANCELLED, 0, matched = false, null, null)

        private fun logprobs(generation: Long, which: Int): FloatArray? = try {
            Native.generationLogprobs(generation, which)
        } catch (_: BolmoException.NotFound) {
            null
        }
    }
}

/**
 * Chooses ids step by step, with its own stream of random numbers. It uses the sampling options only, not budget, stop
 * strings and constraint. For one thread at a time.
 *
 * ```kotlin
 * Sampler(GenerateOptions(temperature = 0.8f)).use { sampler ->
 *     repeat(100) {
 *         val id = sampler.choose(session, session.logits())
 *         if (id % 260 == 1) return // the end
 *         session.push(id)
 *     }
 * }
 * ```
 */
public class Sampler @JvmOverloads constructor(options: GenerateOptions = GenerateOptions()) :
    NativeHandle(create(options), Native::samplerDelete) {
    /**
     * Chooses the id that follows the session's text: that of a byte, or 1 or 261 for the end.
     *
     * @param allowed what may be chosen, as from [Matcher.allowed]
     */
    @JvmOverloads
    public fun choose(session: Session, logits: FloatArray, allowed: BooleanArray? = null): Int =
        withHandle { sampler ->
            session.withHandle { Native.samplerChoose(sampler, it, logits, allowed?.let(::flags)) }
        }

    private companion object {
        fun create(options: GenerateOptions): Long {
            NativeLibrary.load()
            return options.native(Native::samplerCreate)
        }
    }
}

/** One byte, 0 or 1, for each flag. */
internal fun flags(values: BooleanArray): ByteArray = ByteArray(values.size) { if (values[it]) 1 else 0 }

/** The flags of [flags]. */
internal fun booleans(flags: ByteArray): BooleanArray = BooleanArray(flags.size) { flags[it] != 0.toByte() }
