package dev.bolmo

import java.util.concurrent.atomic.AtomicReference
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.launch

/** A saved state of a session, to rewind to. Any number of threads may use it at once. */
public class SessionCheckpoint internal constructor(handle: Long) :
    NativeHandle(handle, Native::sessionCheckpointDelete)

/**
 * One sequence on a model: text is appended, and generated text is appended to it.
 *
 * A session runs one call at a time; a second one throws [BolmoException.Busy]. [cancel], [close], [length],
 * [patches], [deviceBytes] and [progress] may be used by any thread meanwhile.
 */
public class Session internal constructor(
    /** The model. */
    public val model: Model,
    handle: Long,
) : NativeHandle(handle, Native::sessionDelete) {
    private val current = AtomicReference<Call?>()

    /** The result of the last generation that ended, also of one that was cancelled; null before. */
    @Volatile
    public var lastGeneration: Generation? = null
        private set

    /** Number of ids that the session holds, including the one that begins the text. */
    public val length: Long get() = withHandle(Native::sessionLength)

    /** Number of patches that have passed through the global blocks. */
    public val patches: Long get() = withHandle(Native::sessionPatches)

    /** Device memory of the sequence in bytes, including memory that it shares with forks. */
    public val deviceBytes: Long get() = withHandle(Native::sessionDeviceBytes)

    /** Progress of the call that is running, or of the last one: bytes appended or generated. */
    public val progress: Progress
        get() = withHandle { handle -> Native.sessionProgress(handle).let { Progress(it[0], it[1]) } }

    /** The ids from number [first] on: 4 more than the byte, and 260 more where it ends a patch. */
    @JvmOverloads
    public fun ids(first: Long = 0): ShortArray = withHandle { Native.sessionIds(it, first) }

    /**
     * Appends [text]. Appending it in chunks of any size gives the same state as appending it at once. If the coroutine
     * is cancelled, the session holds the bytes that were done ([length]) and can continue from there.
     *
     * @throws BolmoException.InvalidArgument if [text] has a lone surrogate
     * @throws BolmoException.Cancelled after [cancel] or [close]
     */
    public suspend fun append(text: String, onProgress: ProgressListener? = null): Unit =
        append(utf8(text, "text"), onProgress)

    /** Appends [bytes], which need not be UTF-8. As above. */
    public suspend fun append(bytes: ByteArray, onProgress: ProgressListener? = null) {
        val call = newCall()
        onNativeThread(call) { appendNow(call, bytes, onProgress) }
    }

    /** Appends plain ids: 4 to 259 for bytes, and the special ids 0 and 1. As above. */
    public suspend fun appendIds(ids: IntArray, onProgress: ProgressListener? = null) {
        val call = newCall()
        onNativeThread(call) { appendIdsNow(call, ids, onProgress) }
    }

    /** [append], on the calling thread. */
    @JvmOverloads
    public fun appendBlocking(text: String, onProgress: ProgressListener? = null): Unit =
        appendNow(newCall(), utf8(text, "text"), onProgress)

    /** [append], on the calling thread. */
    @JvmOverloads
    public fun appendBlocking(bytes: ByteArray, onProgress: ProgressListener? = null): Unit =
        appendNow(newCall(), bytes, onProgress)

    /** [appendIds], on the calling thread. */
    @JvmOverloads
    public fun appendIdsBlocking(ids: IntArray, onProgress: ProgressListener? = null): Unit =
        appendIdsNow(newCall(), ids, onProgress)

    /**
     * Generates. The flow is cold: each collector starts a generation, which continues the text.
     *
     * The native side waits while the collector processes a piece. So the session holds what was collected and nothing
     * more, except that with stop strings and constraints it may hold bytes that were not passed on: those of a stop
     * string, and those that may begin one. [lastGeneration] has all of them.
     *
     * If the collector leaves, by `first()`, `take(n)`, a timeout, a cancellation or an exception, the generation ends
     * within one submission to the device, and the session can be used as soon as the collector has returned. After
     * [cancel] or [close] the flow ends. [lastGeneration] says why a generation ended.
     *
     * @throws BolmoException.InvalidArgument in the collector, if the session has no text yet
     */
    public fun generate(options: GenerateOptions): Flow<Piece> = flow {
        val call = newCall()
        val handover = Handover<Piece>(call::cancel)
        coroutineScope {
            launch(nativeThreads) {
                handover.finish(runCatching { generateNow(call, options, handover::give) }.exceptionOrNull())
            }
            try {
                while (true) emit(handover.next() ?: break)
            } finally {
                handover.stop()
            }
        }
    }

    /** Generates with the options that are used most; see [GenerateOptions] for their meaning. */
    public fun generate(
        maxBytes: Int = 256,
        temperature: Float = 0f,
        topK: Int = 0,
        topP: Float = 1f,
        minP: Float = 0f,
        seed: Long = 0,
        stop: List<String> = emptyList(),
        constraint: Constraint? = null,
    ): Flow<Piece> = generate(
        GenerateOptions(
            maxBytes = maxBytes,
            temperature = temperature,
            topK = topK,
            topP = topP,
            minP = minP,
            seed = seed,
            stop = stop,
            constraint = constraint,
        ),
    )

    /**
     * Generates a whole text. Its pieces go to [onPiece], if it is not null, on the thread that generates.
     *
     * After [cancel] or [close] this returns what there is. If the coroutine is cancelled or the listener throws,
     * [lastGeneration] has it.
     */
    public suspend fun generateText(options: GenerateOptions, onPiece: PieceListener? = null): Generation {
        val call = newCall()
        return onNativeThread(call) { generateNow(call, options) { onPiece?.onPiece(it) ?: true } }
    }

    /** [generateText] with the options that are used most. */
    public suspend fun generateText(
        maxBytes: Int = 256,
        temperature: Float = 0f,
        seed: Long = 0,
        stop: List<String> = emptyList(),
        constraint: Constraint? = null,
    ): Generation = generateText(
        GenerateOptions(
            maxBytes = maxBytes,
            temperature = temperature,
            seed = seed,
            stop = stop,
            constraint = constraint,
        ),
    )

    /** [generateText], on the calling thread. */
    @JvmOverloads
    public fun generateBlocking(
        options: GenerateOptions = GenerateOptions(),
        listener: PieceListener? = null,
    ): Generation = generateNow(newCall(), options) { listener?.onPiece(it) ?: true }

    /**
     * Cancels the running [append], [appendIds] or generation within one submission to the device: appending throws
     * [BolmoException.Cancelled], a generation ends with what there is. Does nothing if none is running. May be called
     * by any thread at any time, also in a callback.
     */
    public fun cancel() {
        current.get()?.cancel()
    }

    /**
     * The logits of the next id, 520 of them. After appended text this first decides whether its last byte ends a
     * patch, with [boundaryBias] added to the logit of ending one.
     */
    public suspend fun logits(boundaryBias: Float = 0f): FloatArray = onNativeThread { logitsBlocking(boundaryBias) }

    /** [logits], on the calling thread. */
    @JvmOverloads
    public fun logitsBlocking(boundaryBias: Float = 0f): FloatArray =
        exclusively { Native.sessionLogits(it, boundaryBias) }

    /**
     * Appends a chosen id: 1, 4 to 259, or one of them plus 260. The model processes it in the next call that needs
     * logits.
     */
    public fun push(id: Int): Unit = exclusively { Native.sessionPush(it, id) }

    /** Saves the state of the session, to [rewind] to. */
    public suspend fun checkpoint(): SessionCheckpoint = creating { checkpointBlocking() }

    /** [checkpoint], on the calling thread. */
    public fun checkpointBlocking(): SessionCheckpoint =
        SessionCheckpoint(exclusively(Native::sessionCheckpointCreate))

    /**
     * Rewinds to [checkpoint], or moves to a checkpoint of another session of the model. This also makes a session
     * usable again after a call failed half-way.
     */
    public suspend fun rewind(checkpoint: SessionCheckpoint): Unit = onNativeThread { rewindBlocking(checkpoint) }

    /** [rewind], on the calling thread. */
    public fun rewindBlocking(checkpoint: SessionCheckpoint): Unit = exclusively { session ->
        checkpoint.withHandle { Native.sessionRewind(session, it) }
    }

    /** Saves the session as bytes, for [Model.restore], to continue later or elsewhere. */
    public suspend fun snapshot(): ByteArray = onNativeThread { snapshotBlocking() }

    /** [snapshot], on the calling thread. */
    public fun snapshotBlocking(): ByteArray = exclusively(Native::sessionSnapshot)

    /** Creates another session with the same text, independent from here on. Memory is shared until one writes. */
    public suspend fun fork(): Session = creating { forkBlocking() }

    /** [fork], on the calling thread. */
    public fun forkBlocking(): Session = Session(model, exclusively(Native::sessionClone))

    /** Frees the session. A running call ends as after [cancel]. */
    override fun close() {
        // First, so that a call that begins now either finds the session closed or is found by `cancel`.
        refuse()
        cancel()
        super.close()
    }

    /** A call of this session that can be cancelled. */
    internal fun newCall(): Call = Call(
        // Also while the session is being closed.
        request = { Native.sessionCancel(raw) },
        withdraw = { Native.sessionResetCancel(raw) },
    )

    /** Runs [block], which nothing cancels, unless another call is running. */
    private inline fun <T> exclusively(block: (Long) -> T): T =
        exclusively(Call(request = {}, withdraw = {}), block)

    /** Runs [call], unless another one is running. */
    internal inline fun <T> exclusively(call: Call, block: (Long) -> T): T {
        enter(call)
        try {
            return withHandle(block)
        } finally {
            leave(call)
        }
    }

    /** [call] begins, unless another one is running. */
    internal fun enter(call: Call) {
        if (!current.compareAndSet(null, call)) {
            throw BolmoException.Busy("the Session is in use by another call: wait for its end, or cancel it")
        }
        try {
            call.begin()
        } catch (e: Throwable) {
            current.set(null)
            throw e
        }
    }

    /** A generation has ended. */
    internal fun generated(generation: Generation) {
        lastGeneration = generation
    }

    /** [call] has ended. */
    internal fun leave(call: Call) {
        call.end()
        current.set(null)
    }

    private fun appendNow(call: Call, bytes: ByteArray, onProgress: ProgressListener?) = exclusively(call) {
        Native.sessionAppend(it, bytes, onProgress?.native())
    }

    private fun appendIdsNow(call: Call, ids: IntArray, onProgress: ProgressListener?) = exclusively(call) {
        Native.sessionAppendIds(it, ids, onProgress?.native())
    }

    private fun ProgressListener.native() = Native.Progress { done, total ->
        onProgress(Progress(done, total))
        true
    }

    private fun generateNow(call: Call, options: GenerateOptions, receive: (Piece) -> Boolean): Generation {
        try {
            enter(call)
        } catch (_: BolmoException.Cancelled) {
            return Generation.cancelled().also(::generated)
        }
        try {
            return withHandle { session ->
                val pieces = GenerationPieces(receive)
                val handle = options.native { Native.sessionGenerate(session, it, pieces) }
                Generation.take(handle).also(::generated).also { pieces.rethrow() }
            }
        } finally {
            leave(call)
        }
    }
}

/**
 * The callback of a generation. An exception of [receive] ends the generation and waits for [rethrow], so that there is
 * a result. A receiver that has refused a piece or has thrown is not called again.
 */
private class GenerationPieces(private val receive: (Piece) -> Boolean) : Native.Pieces {
    private var wanted = true
    private var failure: Throwable? = null

    override fun piece(index: Long, bytes: ByteArray?, ids: ShortArray?, text: String?): Boolean {
        if (!wanted) return false
        wanted = try {
            receive(Piece(bytes!!, ids!!, text!!))
        } catch (e: Throwable) {
            failure = e
            false
        }
        return wanted
    }

    fun rethrow() {
        failure?.let { throw it }
    }
}
