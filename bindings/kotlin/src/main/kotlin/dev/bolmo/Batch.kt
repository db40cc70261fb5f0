package dev.bolmo

import java.util.concurrent.ConcurrentHashMap
import java.util.concurrent.atomic.AtomicBoolean
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.launch

/** A piece of one generation of several. */
public class BatchPiece internal constructor(
    /** Which generation: the number that [Batch.add] returned, or the session's index in the list. */
    public val index: Int,
    /** The piece; null at the end of the generation, when its session can be used again. */
    public val piece: Piece?,
)

/**
 * Generations on several sessions together, which takes less time than one after the other. Sessions join and leave
 * while the batch runs. Each generates the same text as it would alone.
 *
 * From [add] until its generation has ended, a session is in use; [Session.cancel] ends its generation.
 */
public class Batch : NativeHandle(create(), Native::batchDelete) {
    private val calls = ConcurrentHashMap<Int, Pair<Session, Call>>()
    private val results = ConcurrentHashMap<Int, Result<Generation>>()
    private val running = AtomicBoolean()

    /**
     * Adds a session, by any thread at any time, also in a collector: while the batch runs, it joins before the next
     * byte, else it waits for [run]. Returns the number of its generation: 0 for the first one, and one more for each
     * further one.
     *
     * @throws BolmoException.Busy if the session is in use
     * @throws BolmoException.Cancelled if [Session.cancel] was called meanwhile
     */
    @JvmOverloads
    @Synchronized
    public fun add(session: Session, options: GenerateOptions = GenerateOptions()): Int {
        val call = session.newCall()
        session.enter(call)
        try {
            return withHandle { batch ->
                session.withHandle { handle -> options.native { Native.batchAdd(batch, handle, it) } }
            }.toInt().also { calls[it] = session to call }
        } catch (e: Throwable) {
            session.leave(call)
            throw e
        }
    }

    /**
     * Generates until the generations of all sessions in the batch have ended, those that are added meanwhile included.
     *
     * The native side waits while the collector processes a piece. If the collector leaves, all generations end within
     * one submission to the device.
     *
     * @throws BolmoException.Busy in the collector, if the batch is running already
     */
    public fun run(): Flow<BatchPiece> = batchFlow(::cancel) { receive -> runNow(receive) }

    /**
     * [run], on the calling thread. A listener that returns false ends the generation of that piece; of that one it
     * receives no more than the end.
     */
    public fun runBlocking(listener: BatchListener): Unit = runNow(listener::onPiece)

    /**
     * The result of the generation with the number [index], once. Throws the exception of its failure. Unless the
     * batch was closed before the end of the generation, it is the session's [Session.lastGeneration], too.
     *
     * @throws BolmoException.Busy if it has not ended
     * @throws BolmoException.NotFound if there is none, or it was returned before
     */
    @Synchronized
    public fun generation(index: Int): Generation = withHandle { batch ->
        results.remove(index)?.getOrThrow() ?: Generation.take(Native.batchGeneration(batch, index.toLong()))
    }

    /** Cancels all generations. */
    public fun cancel(): Unit = calls.values.forEach { (_, call) -> call.cancel() }

    /** Frees the batch. Its generations end as after [cancel]. */
    // Not while `add` is between the native side and its note of the call.
    @Synchronized
    override fun close() {
        // First, so that a run that begins now finds the batch closed.
        refuse()
        cancel()
        super.close()
        // Sessions of a batch that is running are released by their ends.
        if (!running.get()) releaseAll()
    }

    internal fun runNow(receive: (BatchPiece) -> Boolean) {
        if (!running.compareAndSet(false, true)) {
            throw BolmoException.Busy("the Batch is running already: wait for its end, or add the session to this run")
        }
        try {
            val pieces = BatchPieces(receive, ::ended, ::cancel)
            try {
                withHandle { Native.batchRun(it, pieces) }
            } catch (e: Throwable) {
                // All have ended, but not all ends may have been told.
                releaseAll()
                throw e
            }
            pieces.rethrow()
        } finally {
            running.set(false)
            // Closed by another thread, which has left them to this one.
            if (isClosed) releaseAll()
        }
    }

    /** The generation with the number [index] has ended, perhaps before [add] has noted it. Its session is in use. */
    @Synchronized
    private fun ended(index: Int) {
        val result = runCatching { withHandle { Generation.take(Native.batchGeneration(it, index.toLong())) } }
        result.onSuccess { calls[index]?.first?.generated(it) }
        results[index] = result
        release(index)
    }

    private fun release(index: Int) {
        calls.remove(index)?.let { (session, call) -> session.leave(call) }
    }

    private fun releaseAll() = calls.keys.forEach(::release)

    private companion object {
        fun create(): Long {
            NativeLibrary.load()
            return Native.batchCreate()
        }
    }
}

/** Receives the pieces of a [Batch], on the thread that runs it. */
public fun interface BatchListener {
    /** A [piece] of a generation, or its end. Returns whether that generation continues. */
    public fun onPiece(piece: BatchPiece): Boolean
}

/**
 * The callback of a batch. An exception of [receive] ends all generations and waits for [rethrow], so that [ended] is
 * called for each of them. Of a generation that was refused, [receive] is told the end only.
 */
private class BatchPieces(
    private val receive: (BatchPiece) -> Boolean,
    private val ended: (Int) -> Unit,
    private val cancel: () -> Unit,
) : Native.Pieces {
    private val refused = mutableSetOf<Int>()
    private var failure: Throwable? = null

    override fun piece(index: Long, bytes: ByteArray?, ids: ShortArray?, text: String?): Boolean {
        val number = index.toInt()
        return try {
            if (bytes == null) ended(number)
            if (failure != null || (bytes != null && number in refused)) return false
            val wanted = receive(BatchPiece(number, bytes?.let { Piece(it, ids!!, text!!) }))
            if (!wanted) refused += number
            wanted
        } catch (e: Throwable) {
            if (failure == null) failure = e
            cancel()
            false
        }
    }

    fun rethrow() {
        failure?.let { throw it }
    }
}

/** A flow of what [run] passes on. [cancel] is called when the collector leaves. */
internal fun batchFlow(cancel: () -> Unit, run: ((BatchPiece) -> Boolean) -> Unit): Flow<BatchPiece> = flow {
    val handover = Handover<BatchPiece>(cancel)
    coroutineScope {
        launch(nativeThreads) { handover.finish(runCatching { run(handover::give) }.exceptionOrNull()) }
        try {
            while (true) emit(handover.next() ?: break)
        } finally {
            handover.stop()
        }
    }
}

/** The call of [Model.generateBatch]: a batch of its own. */
internal class FixedBatch(private val sessions: List<Session>, private val options: List<GenerateOptions>) {
    @Volatile
    private var batch: Batch? = null

    @Volatile
    private var cancelled = false

    /** Cancels all generations. */
    fun cancel() {
        cancelled = true
        batch?.cancel()
    }

    /** Generates. The results are the sessions' [Session.lastGeneration]. */
    fun run(receive: (BatchPiece) -> Boolean): Unit = Batch().use { batch ->
        this.batch = batch
        if (options.size > sessions.size) {
            throw BolmoException.InvalidArgument(
                "options: expected at most one entry for each of ${sessions.size} sessions, found ${options.size}",
            )
        }
        for (index in sessions.indices) batch.add(sessions[index], options.getOrElse(index) { GenerateOptions() })
        // Before all were there to be cancelled.
        if (cancelled) throw BolmoException.Cancelled("the call was cancelled before it began")
        batch.runNow(receive)
        for (index in sessions.indices) batch.generation(index)
    }
}
