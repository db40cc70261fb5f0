package dev.bolmo

import java.io.File
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.emitAll
import kotlinx.coroutines.flow.flow

/** Parts of a model that may be kept in different formats. */
public enum class Part {
    /** The parts that run once per byte: local layers, boundary predictor, head. */
    LOCAL,

    /** The global blocks, which run once per patch. */
    GLOBAL,

    /** The embedding tables of bytes and subwords. */
    EMBEDDINGS,
}

/** Options for loading a model. Java has a [Builder]. */
public data class LoadOptions(
    /** Format of the weights on the device; null, the default: as stored if the checkpoint is quantized, else f32. */
    val format: Format? = null,
    /** Formats of parts, where they differ. */
    val partFormats: Map<Part, Format> = emptyMap(),
    /** The source model's tokenizer, instead of the checkpoint's own. */
    val tokenizer: Tokenizer? = null,
    /** Base of the rotary frequencies, for a checkpoint that lost it in conversion. */
    val ropeTheta: Double? = null,
    /**
     * Scaling of the rotary frequencies, for a checkpoint that lost it in conversion: `none`, a kind with its keys as
     * in `yarn:factor=8,original_max_position_embeddings=8192`, or the JSON object.
     */
    val ropeScaling: String? = null,
    /** The engine to load on; null, the default: a new one with [engineOptions], which is closed with the model. */
    val engine: Engine? = null,
    /** Options of a new engine. */
    val engineOptions: EngineOptions = EngineOptions(),
) {
    /** Sets options one by one, for Java. */
    public class Builder {
        private var options = LoadOptions()

        /** Sets [LoadOptions.format]. */
        public fun format(format: Format): Builder = apply { options = options.copy(format = format) }

        /** Adds to [LoadOptions.partFormats]. */
        public fun partFormat(part: Part, format: Format): Builder =
            apply { options = options.copy(partFormats = options.partFormats + (part to format)) }

        /** Sets [LoadOptions.tokenizer]. */
        public fun tokenizer(tokenizer: Tokenizer): Builder = apply { options = options.copy(tokenizer = tokenizer) }

        /** Sets [LoadOptions.ropeTheta]. */
        public fun ropeTheta(theta: Double): Builder = apply { options = options.copy(ropeTheta = theta) }

        /** Sets [LoadOptions.ropeScaling]. */
        public fun ropeScaling(scaling: String): Builder = apply { options = options.copy(ropeScaling = scaling) }

        /** Sets [LoadOptions.engine]. */
        public fun engine(engine: Engine): Builder = apply { options = options.copy(engine = engine) }

        /** Sets [LoadOptions.engineOptions]. */
        public fun engineOptions(engineOptions: EngineOptions): Builder =
            apply { options = options.copy(engineOptions = engineOptions) }

        /** The options. */
        public fun build(): LoadOptions = options
    }

    /** Runs [block] with native options. */
    internal inline fun <T> native(block: (Long) -> T): T =
        withNative(Native::loadOptionsCreate, Native::loadOptionsDelete) { options ->
            format?.let { Native.loadOptionsSetFormat(options, it.ordinal) }
            partFormats.forEach { (part, format) ->
                Native.loadOptionsSetPartFormat(options, part.ordinal, format.ordinal)
            }
            when (tokenizer) {
                is Tokenizer.Path -> Native.loadOptionsSetTokenizerPath(options, utf8(tokenizer.path, "tokenizer"))
                is Tokenizer.Contents -> Native.loadOptionsSetTokenizer(options, tokenizer.json, tokenizer.config)
                null -> {}
            }
            ropeTheta?.let { Native.loadOptionsSetRopeTheta(options, it) }
            ropeScaling?.let { Native.loadOptionsSetRopeScaling(options, utf8(it, "ropeScaling")) }
            block(options)
        }
}

/**
 * Weights on a device, for any number of sessions and threads.
 *
 * ```kotlin
 * Model.load("bolmo-1b", LoadOptions(format = Format.Q8)).use { model ->
 *     model.session().use { session ->
 *         session.append("Once upon a time")
 *         session.generate(maxBytes = 200).collect { print(it.text) }
 *     }
 * }
 * ```
 *
 * Suspend functions do their work on threads of the library, never on the caller's. If their coroutine is cancelled,
 * the work ends within one submission to the device, and they return when it has. Each has a blocking form for Java.
 */
public class Model private constructor(
    handle: Long,
    /** The engine that the model is on. */
    public val engine: Engine,
    private val ownsEngine: Boolean,
) : NativeHandle(handle, Native::modelDelete) {
    /** Sizes. */
    public val info: ModelInfo = ModelInfo.read { Native.modelNumber(handle, it) }

    /** Device memory that the weights take, in bytes. */
    public val deviceBytes: Long = Native.modelDeviceBytes(handle)

    /** How many of these bytes are used where the checkpoint's files are mapped, and need no memory of their own. */
    public val mappedBytes: Long = Native.modelMappedBytes(handle)

    /** What is odd about the files, but was accepted. */
    public val warnings: List<String> = List(Native.modelWarningCount(handle).toInt()) {
        Native.modelWarning(handle, it.toLong()).decodeToString()
    }

    /**
     * A fingerprint of the model's configuration, weights and format, in hexadecimal digits. Snapshots restore only on
     * models with the same fingerprint. Computed when it is first asked for.
     */
    public val fingerprint: String by lazy {
        withHandle(Native::modelFingerprint).joinToString("") { "%02x".format(it) }
    }

    /** The device memory that a session takes at most while it grows to [patches] patches, in bytes. */
    public fun sessionBytes(patches: Long): Long = withHandle { Native.modelSessionBytes(it, patches) }

    /**
     * Creates a session. With [bos], the default, it contains the id that begins a text; without, the model sees what
     * is appended as an excerpt.
     */
    @JvmOverloads
    public fun session(bos: Boolean = true): Session {
        val session = Session(this, withHandle(Native::sessionCreate))
        try {
            if (bos) session.withHandle(Native::sessionAppendBos)
        } catch (e: BolmoException) {
            session.close()
            throw e
        }
        return session
    }

    /**
     * Restores a session from [Session.snapshot]. It continues as if it had never been interrupted.
     *
     * @throws BolmoException.BadCheckpoint if [snapshot] is none, or is damaged
     * @throws BolmoException.InvalidArgument if it belongs to another model, format or version
     */
    public suspend fun restore(snapshot: ByteArray): Session = creating { restoreBlocking(snapshot) }

    /** [restore], on the calling thread. */
    public fun restoreBlocking(snapshot: ByteArray): Session =
        Session(this, withHandle { Native.sessionRestore(it, snapshot) })

    /**
     * Generates on several sessions of this or other models together, which takes less time than one after the other.
     * Each has its own entry of [options]; the defaults, with at most 256 bytes, count for those without. The results
     * are the sessions' [Session.lastGeneration]. If some fail, the others continue, and the first failure is thrown at
     * the end.
     *
     * The native side waits while the collector processes a piece. If the collector leaves, all generations end within
     * one submission to the device. [Session.cancel] ends one of them.
     */
    public fun generateBatch(
        sessions: List<Session>,
        options: List<GenerateOptions> = emptyList(),
    ): Flow<BatchPiece> = flow {
        val batch = FixedBatch(sessions, options)
        emitAll(batchFlow(batch::cancel, batch::run))
    }

    /**
     * [generateBatch], on the calling thread. A listener that returns false ends the generation of that piece; of that
     * one it receives no more than the end.
     */
    public fun generateBatchBlocking(
        sessions: List<Session>,
        options: List<GenerateOptions>,
        listener: BatchListener,
    ): Unit = FixedBatch(sessions, options).run(listener::onPiece)

    /** Scores [text]: the probability that the model gives it. It is preceded by the id that begins a text. */
    public suspend fun score(
        text: String,
        options: ScoreOptions = ScoreOptions(),
        onProgress: ProgressListener? = null,
    ): Score = score(utf8(text, "text"), options, onProgress)

    /** Scores [bytes], as above. */
    public suspend fun score(
        bytes: ByteArray,
        options: ScoreOptions = ScoreOptions(),
        onProgress: ProgressListener? = null,
    ): Score {
        val progress = ProgressCall(onProgress)
        return onNativeThread(progress.call) { scoreNow(progress, bytes, options) }
    }

    /**
     * Scores plain ids (0, 1, 4 to 259) as they are, at least two. The first one is not predicted; the last one never
     * ends a patch.
     */
    public suspend fun scoreIds(
        ids: IntArray,
        options: ScoreOptions = ScoreOptions(),
        onProgress: ProgressListener? = null,
    ): Score {
        val progress = ProgressCall(onProgress)
        return onNativeThread(progress.call) { scoreIdsNow(progress, ids, options) }
    }

    /** [score], on the calling thread. */
    @JvmOverloads
    public fun scoreBlocking(
        text: String,
        options: ScoreOptions = ScoreOptions(),
        onProgress: ProgressListener? = null,
    ): Score = scoreBlocking(utf8(text, "text"), options, onProgress)

    /** [score], on the calling thread. */
    @JvmOverloads
    public fun scoreBlocking(
        bytes: ByteArray,
        options: ScoreOptions = ScoreOptions(),
        onProgress: ProgressListener? = null,
    ): Score = scoreNow(ProgressCall(onProgress), bytes, options)

    /** [scoreIds], on the calling thread. */
    @JvmOverloads
    public fun scoreIdsBlocking(
        ids: IntArray,
        options: ScoreOptions = ScoreOptions(),
        onProgress: ProgressListener? = null,
    ): Score = scoreIdsNow(ProgressCall(onProgress), ids, options)

    private fun scoreNow(progress: ProgressCall, bytes: ByteArray, options: ScoreOptions) =
        scoreNow(progress, options) { m, o, p -> Native.modelScore(m, bytes, o, p) }

    private fun scoreIdsNow(progress: ProgressCall, ids: IntArray, options: ScoreOptions) =
        scoreNow(progress, options) { m, o, p -> Native.modelScoreIds(m, ids, o, p) }

    private fun scoreNow(
        progress: ProgressCall,
        options: ScoreOptions,
        score: (Long, Long, Native.Progress) -> Long,
    ): Score = withHandle { model ->
        progress.run { options.native { Score.take(score(model, it, progress.progress), options) } }
    }

    /** Frees the model when its last session is closed too, and its engine if it was opened for it. */
    override fun close() {
        super.close()
        if (ownsEngine) engine.close()
    }

    /** Loading. */
    public companion object {
        /**
         * Loads the model in the folder at [path].
         *
         * @throws BolmoException.NotFound if there is no such folder, or no config.json or weights in it
         * @throws BolmoException.BadCheckpoint if it is damaged
         * @throws BolmoException.OutOfMemory if the device has too little memory; [Checkpoint.deviceBytes] knows before
         */
        public suspend fun load(
            path: String,
            options: LoadOptions = LoadOptions(),
            onProgress: ProgressListener? = null,
        ): Model {
            val progress = ProgressCall(onProgress)
            return creating(progress.call) { Checkpoint.open(path).use { loadNow(it, options, progress) } }
        }

        /** As above. */
        public suspend fun load(
            path: java.nio.file.Path,
            options: LoadOptions = LoadOptions(),
            onProgress: ProgressListener? = null,
        ): Model = load(path.toString(), options, onProgress)

        /** As above. */
        public suspend fun load(
            folder: File,
            options: LoadOptions = LoadOptions(),
            onProgress: ProgressListener? = null,
        ): Model = load(folder.path, options, onProgress)

        /** Loads an open [checkpoint], which can be closed afterwards. */
        public suspend fun load(
            checkpoint: Checkpoint,
            options: LoadOptions = LoadOptions(),
            onProgress: ProgressListener? = null,
        ): Model {
            val progress = ProgressCall(onProgress)
            return creating(progress.call) { loadNow(checkpoint, options, progress) }
        }

        /** [load], on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun loadBlocking(
            path: String,
            options: LoadOptions = LoadOptions(),
            onProgress: ProgressListener? = null,
        ): Model = Checkpoint.open(path).use { loadNow(it, options, ProgressCall(onProgress)) }

        /** [load], on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun loadBlocking(
            path: java.nio.file.Path,
            options: LoadOptions = LoadOptions(),
            onProgress: ProgressListener? = null,
        ): Model = loadBlocking(path.toString(), options, onProgress)

        /** [load], on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun loadBlocking(
            folder: File,
            options: LoadOptions = LoadOptions(),
            onProgress: ProgressListener? = null,
        ): Model = loadBlocking(folder.path, options, onProgress)

        /** [load], on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun loadBlocking(
            checkpoint: Checkpoint,
            options: LoadOptions = LoadOptions(),
            onProgress: ProgressListener? = null,
        ): Model = loadNow(checkpoint, options, ProgressCall(onProgress))

        private fun loadNow(checkpoint: Checkpoint, options: LoadOptions, progress: ProgressCall): Model {
            val engine = options.engine ?: Engine.openBlocking(options.engineOptions)
            val owned = options.engine == null
            try {
                val handle = checkpoint.withHandle { files ->
                    engine.withHandle { device ->
                        options.native {
                            progress.run {
                                checkpoint.failures.explain { Native.modelLoad(device, files, it, progress.progress) }
                            }
                        }
                    }
                }
                return Model(handle, engine, owned)
            } catch (e: Throwable) {
                if (owned) engine.close()
                throw e
            }
        }
    }
}
