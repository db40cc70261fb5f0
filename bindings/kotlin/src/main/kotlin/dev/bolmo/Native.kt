package dev.bolmo

/**
 * The native methods: one for each function of the C ABI that is used, and named like it. `bolmo.h` describes them.
 *
 * Objects are `Long` handles, text is UTF-8. A status that is not BOLMO_OK is thrown as a [BolmoException].
 */
internal object Native {
    /** Receives progress. Returns whether to continue. */
    fun interface Progress {
        /** [done] of [total]. */
        fun progress(done: Long, total: Long): Boolean
    }

    /** Receives pieces of generations. Returns whether to continue. */
    fun interface Pieces {
        /** A piece of the generation at [index], or its end if [bytes] is null. */
        fun piece(index: Long, bytes: ByteArray?, ids: ShortArray?, text: String?): Boolean
    }

    /** Receives the metrics of training steps, JSON. Returns whether to continue. */
    fun interface Metrics {
        /** The metrics of a step. */
        fun metrics(json: ByteArray): Boolean
    }

    /** Reads a file. */
    fun interface Reader {
        /** Fills the beginning of [destination] from [offset] on; returns how many bytes, 0 at the end, or -1. */
        fun read(offset: Long, destination: ByteArray): Int
    }

    /** Receives log lines. */
    fun interface Log {
        /** A line. */
        fun log(level: Int, text: ByteArray)
    }

    /** The exception for a status; called by the native methods. */
    @JvmStatic
    fun exception(status: Int, message: ByteArray): BolmoException =
        BolmoException.of(status, message.decodeToString())

    // Library
    @JvmStatic external fun methodCount(): Int
    @JvmStatic external fun handleCount(): Long
    @JvmStatic external fun statusName(status: Int): ByteArray
    @JvmStatic external fun stopName(stop: Int): ByteArray
    @JvmStatic external fun setLog(level: Int, log: Log?)

    // Text
    @JvmStatic external fun utf8Create(): Long
    @JvmStatic external fun utf8Push(assembler: Long, bytes: ByteArray): ByteArray
    @JvmStatic external fun utf8Finish(assembler: Long): ByteArray
    @JvmStatic external fun utf8Delete(assembler: Long)

    // Adapters
    @JvmStatic external fun adaptersList(choice: ByteArray): Long
    @JvmStatic external fun adaptersCount(list: Long): Long
    @JvmStatic external fun adaptersText(list: Long, index: Long, which: Int): ByteArray
    @JvmStatic external fun adaptersNumber(list: Long, index: Long, which: Int): Long
    @JvmStatic external fun adaptersDelete(list: Long)

    // Engine
    @JvmStatic external fun engineOptionsCreate(): Long
    @JvmStatic external fun engineOptionsSetAdapter(options: Long, choice: ByteArray)
    @JvmStatic external fun engineOptionsSetMaxBindingBytes(options: Long, bytes: Long)
    @JvmStatic external fun engineOptionsSetThreads(options: Long, threads: Long)
    @JvmStatic external fun engineOptionsSetProducts(options: Long, products: Int)
    @JvmStatic external fun engineOptionsSetInPlaceBytes(options: Long, bytes: Long)
    @JvmStatic external fun engineOptionsSetKernelCache(options: Long, path: ByteArray)
    @JvmStatic external fun engineOptionsDelete(options: Long)
    @JvmStatic external fun engineCreate(options: Long): Long
    @JvmStatic external fun engineText(engine: Long, which: Int): ByteArray
    @JvmStatic external fun engineNumber(engine: Long, which: Int): Long
    @JvmStatic external fun engineSuspend(engine: Long)
    @JvmStatic external fun engineResume(engine: Long)
    @JvmStatic external fun engineTrim(engine: Long): Long
    @JvmStatic external fun engineDestroyDevice(engine: Long)
    @JvmStatic external fun engineDelete(engine: Long)

    // Checkpoint
    @JvmStatic external fun checkpointOpen(path: ByteArray): Long
    @JvmStatic external fun checkpointBuilderCreate(): Long
    @JvmStatic external fun checkpointBuilderSetConfig(builder: Long, json: ByteArray)
    @JvmStatic external fun checkpointBuilderSetTokenizer(builder: Long, json: ByteArray, config: ByteArray?)
    @JvmStatic external fun checkpointBuilderAddBytes(builder: Long, name: ByteArray, data: ByteArray)
    @JvmStatic external fun checkpointBuilderAddBuffer(builder: Long, name: ByteArray, buffer: java.nio.ByteBuffer)
    @JvmStatic external fun checkpointBuilderAddReader(builder: Long, name: ByteArray, size: Long, reader: Reader)
    @JvmStatic external fun checkpointBuilderOpen(builder: Long): Long
    @JvmStatic external fun checkpointBuilderDelete(builder: Long)
    @JvmStatic external fun checkpointNumber(checkpoint: Long, which: Int): Long
    @JvmStatic external fun checkpointDeviceBytes(checkpoint: Long, format: Int): Long
    @JvmStatic external fun checkpointMappedBytes(checkpoint: Long, engine: Long, format: Int): Long
    @JvmStatic external fun checkpointSessionBytes(checkpoint: Long, patches: Long): Long
    @JvmStatic external fun checkpointTokenizerSource(checkpoint: Long): ByteArray
    @JvmStatic external fun checkpointWarningCount(checkpoint: Long): Long
    @JvmStatic external fun checkpointWarning(checkpoint: Long, index: Long): ByteArray
    @JvmStatic external fun checkpointConfigJson(checkpoint: Long): ByteArray
    @JvmStatic external fun checkpointDelete(checkpoint: Long)

    // Model
    @JvmStatic external fun loadOptionsCreate(): Long
    @JvmStatic external fun loadOptionsSetFormat(options: Long, format: Int)
    @JvmStatic external fun loadOptionsSetPartFormat(options: Long, part: Int, format: Int)
    @JvmStatic external fun loadOptionsSetTokenizerPath(options: Long, path: ByteArray)
    @JvmStatic external fun loadOptionsSetTokenizer(options: Long, json: ByteArray, config: ByteArray?)
    @JvmStatic external fun loadOptionsSetRopeTheta(options: Long, theta: Double)
    @JvmStatic external fun loadOptionsSetRopeScaling(options: Long, scaling: ByteArray)
    @JvmStatic external fun loadOptionsDelete(options: Long)
    @JvmStatic external fun modelLoad(engine: Long, checkpoint: Long, options: Long, progress: Progress?): Long
    @JvmStatic external fun modelNumber(model: Long, which: Int): Long
    @JvmStatic external fun modelDeviceBytes(model: Long): Long
    @JvmStatic external fun modelMappedBytes(model: Long): Long
    @JvmStatic external fun modelSessionBytes(model: Long, patches: Long): Long
    @JvmStatic external fun modelFingerprint(model: Long): ByteArray
    @JvmStatic external fun modelWarningCount(model: Long): Long
    @JvmStatic external fun modelWarning(model: Long, index: Long): ByteArray
    @JvmStatic external fun modelDelete(model: Long)

    // Session
    @JvmStatic external fun sessionCreate(model: Long): Long
    @JvmStatic external fun sessionClone(session: Long): Long
    @JvmStatic external fun sessionAppendBos(session: Long)
    @JvmStatic external fun sessionAppend(session: Long, data: ByteArray, progress: Progress?)
    @JvmStatic external fun sessionAppendIds(session: Long, ids: IntArray, progress: Progress?)
    @JvmStatic external fun sessionCancel(session: Long)
    @JvmStatic external fun sessionResetCancel(session: Long)
    @JvmStatic external fun sessionLength(session: Long): Long
    @JvmStatic external fun sessionIds(session: Long, first: Long): ShortArray
    @JvmStatic external fun sessionPatches(session: Long): Long
    @JvmStatic external fun sessionDeviceBytes(session: Long): Long
    /** What is done, and the total. */
    @JvmStatic external fun sessionProgress(session: Long): LongArray
    @JvmStatic external fun sessionCheckpointCreate(session: Long): Long
    @JvmStatic external fun sessionCheckpointDelete(checkpoint: Long)
    @JvmStatic external fun sessionRewind(session: Long, checkpoint: Long)
    @JvmStatic external fun sessionSnapshot(session: Long): ByteArray
    @JvmStatic external fun sessionRestore(model: Long, snapshot: ByteArray): Long
    @JvmStatic external fun sessionDelete(session: Long)

    // Constraint
    @JvmStatic external fun constraintCreateRegex(pattern: ByteArray): Long
    @JvmStatic external fun constraintCreateJsonSchema(schema: ByteArray): Long
    @JvmStatic external fun constraintMatches(constraint: Long, data: ByteArray): Boolean
    @JvmStatic external fun constraintShortest(constraint: Long): Long
    @JvmStatic external fun constraintDelete(constraint: Long)
    @JvmStatic external fun matcherCreate(constraint: Long): Long
    @JvmStatic external fun matcherClone(matcher: Long): Long
    @JvmStatic external fun matcherAllowed(matcher: Long, remaining: Long): ByteArray
    @JvmStatic external fun matcherAdvance(matcher: Long, data: ByteArray)
    @JvmStatic external fun matcherIsMatch(matcher: Long): Boolean
    @JvmStatic external fun matcherDelete(matcher: Long)

    // Options, generate
    @JvmStatic external fun generateOptionsCreate(): Long
    @JvmStatic external fun generateOptionsSetMaxBytes(options: Long, bytes: Long)
    @JvmStatic external fun generateOptionsSetTemperature(options: Long, temperature: Float)
    @JvmStatic external fun generateOptionsSetTopK(options: Long, topK: Long)
    @JvmStatic external fun generateOptionsSetTopP(options: Long, topP: Float)
    @JvmStatic external fun generateOptionsSetMinP(options: Long, minP: Float)
    @JvmStatic external fun generateOptionsSetRepetitionPenalty(options: Long, penalty: Float, window: Long)
    @JvmStatic external fun generateOptionsSetByteBias(options: Long, byte: Int, bias: Float)
    @JvmStatic external fun generateOptionsSetEndBias(options: Long, bias: Float)
    @JvmStatic external fun generateOptionsSetBoundaryBias(options: Long, bias: Float)
    @JvmStatic external fun generateOptionsSetSeed(options: Long, seed: Long)
    @JvmStatic external fun generateOptionsAddStop(options: Long, stop: ByteArray)
    @JvmStatic external fun generateOptionsSetConstraint(options: Long, constraint: Long)
    @JvmStatic external fun generateOptionsSetLogprobs(options: Long, keep: Boolean)
    @JvmStatic external fun generateOptionsDelete(options: Long)
    @JvmStatic external fun sessionGenerate(session: Long, options: Long, pieces: Pieces): Long
    @JvmStatic external fun generationStop(generation: Long): Int
    @JvmStatic external fun generationBytes(generation: Long): ByteArray
    @JvmStatic external fun generationIds(generation: Long): ShortArray
    @JvmStatic external fun generationPatches(generation: Long): Long
    @JvmStatic external fun generationMatched(generation: Long): Boolean
    @JvmStatic external fun generationLogprobs(generation: Long, which: Int): FloatArray
    @JvmStatic external fun generationDelete(generation: Long)

    // Sampler
    @JvmStatic external fun sessionLogits(session: Long, boundaryBias: Float): FloatArray
    @JvmStatic external fun sessionPush(session: Long, id: Int)
    @JvmStatic external fun samplerCreate(options: Long): Long
    @JvmStatic external fun samplerChoose(sampler: Long, session: Long, logits: FloatArray, allowed: ByteArray?): Int
    @JvmStatic external fun samplerDelete(sampler: Long)

    // Batch
    @JvmStatic external fun batchCreate(): Long
    @JvmStatic external fun batchAdd(batch: Long, session: Long, options: Long): Long
    @JvmStatic external fun batchRun(batch: Long, pieces: Pieces)
    @JvmStatic external fun batchGeneration(batch: Long, index: Long): Long
    @JvmStatic external fun batchDelete(batch: Long)

    // Score
    @JvmStatic external fun scoreOptionsCreate(): Long
    @JvmStatic external fun scoreOptionsSetBoundaries(options: Long, flags: ByteArray)
    @JvmStatic external fun scoreOptionsSetTensors(options: Long, keep: Boolean)
    @JvmStatic external fun scoreOptionsDelete(options: Long)
    @JvmStatic external fun modelScore(model: Long, data: ByteArray, options: Long, progress: Progress?): Long
    @JvmStatic external fun modelScoreIds(model: Long, ids: IntArray, options: Long, progress: Progress?): Long
    @JvmStatic external fun scoreNumber(score: Long, which: Int): Double
    @JvmStatic external fun scoreBoundaries(score: Long): ByteArray
    @JvmStatic external fun scoreLogprobs(score: Long, which: Int): FloatArray
    @JvmStatic external fun scoreTensor(score: Long, which: Int): FloatArray
    @JvmStatic external fun scoreTensorRows(score: Long, which: Int): Long
    @JvmStatic external fun scoreDelete(score: Long)

    // Merge
    @JvmStatic external fun mergeOptionsCreate(): Long
    @JvmStatic external fun mergeOptionsSetBolmo(options: Long, path: ByteArray)
    @JvmStatic external fun mergeOptionsSetBase(options: Long, path: ByteArray)
    @JvmStatic external fun mergeOptionsSetPostTrained(options: Long, path: ByteArray)
    @JvmStatic external fun mergeOptionsSetAlpha(options: Long, alpha: Float)
    @JvmStatic external fun mergeOptionsSetEmbeddings(options: Long, embeddings: Boolean)
    @JvmStatic external fun mergeOptionsDelete(options: Long)
    @JvmStatic external fun merge(options: Long, out: ByteArray, progress: Progress?): ByteArray

    // Training
    @JvmStatic external fun trainerOptionsCreate(): Long
    @JvmStatic external fun trainerOptionsSetKind(options: Long, kind: Int)
    @JvmStatic external fun trainerOptionsSetConfig(options: Long, toml: ByteArray)
    @JvmStatic external fun trainerOptionsSetOverride(options: Long, pair: ByteArray)
    @JvmStatic external fun trainerOptionsAddText(options: Long, text: ByteArray)
    @JvmStatic external fun trainerOptionsAddHeldOutText(options: Long, text: ByteArray)
    @JvmStatic external fun trainerOptionsSetResume(options: Long, resume: Boolean)
    @JvmStatic external fun trainerOptionsDelete(options: Long)
    @JvmStatic external fun trainerCreate(engine: Long, options: Long): Long
    @JvmStatic external fun trainerStep(trainer: Long, count: Long, metrics: Metrics?)
    @JvmStatic external fun trainerCancel(trainer: Long)
    @JvmStatic external fun trainerResetCancel(trainer: Long)
    @JvmStatic external fun trainerSteps(trainer: Long): Long
    @JvmStatic external fun trainerEvaluate(trainer: Long): ByteArray
    @JvmStatic external fun trainerSave(trainer: Long)
    @JvmStatic external fun trainerExport(trainer: Long, path: ByteArray)
    @JvmStatic external fun trainerDelete(trainer: Long)
}
