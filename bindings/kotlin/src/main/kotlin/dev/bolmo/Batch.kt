package dev.bolmo

import java.util.concurrent.ConcurrentHashMap
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

    /**
     * Adds a session, by any thread at any time, also in a collector: while the batch runs, it joins before the next
     * byte, else it waits for [run]. Returns the number of its generation: 0 for the first one, and one more for each
     * further one.
     *
     * @throws BolmoException.Busy if the session is in use
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
     */
    public fun run(): Flow<BatchPiece> = batchFlow(::cancel) { receive -> runNow(receive) }

    /** [run], on the calling thread. A listener that returns false ends the generation of that piece. */
    public fun runBlocking(listener: BatchListener): Unit = runNow(listener::onPiece)

    /**
     * The result of the generation with the number [index], once. Throws the exception of its failure.
     *
     * @throws BolmoException.Busy if it has not ended
     * @throws BolmoException.NotFound if there is none, or it was returned before
     */
    public fun generation(index: Int): Generation =
        Generation.take(withHandle { Native.batchGeneration(it, index.toLong()) })

    /** Cancels all generations. */
    public fun cancel(): Unit = calls.values.forEach { (_, call) -> call.cancel() }

    /** Frees the batch. Its generations end as after [cancel]. */
    override fun close() {
        cancel()
        super.close()
        // Sessions of a batch that is running are released by their ends.
        if (!running) calls.keys.forEach(::release)
    }

    @Volatile
    private var running = false

    private fun runNow(receive: (BatchPiece) -> Boolean) = withHandle { batch ->
        val pieces = BatchPieces(receive, ::ended, ::cancel)
        running = true
        try {
            Native.batchRun(batch, pieces)
        } finally {
            running = false
        }
        pieces.rethrow()
    }

    /** A generation may end before [add] has noted its call. */
    @Synchronized
    private fun ended(index: Int) = release(index)

    private fun release(index: Int) {
        calls.remove(index)?.let { (session, call) -> session.leave(call) }
    }

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
 * called for each of them.
 */
private class BatchPieces(
    private val receive: (BatchPiece) -> Boolean,
    private val ended: (Int) -> Unit,
    private val cancel: () -> Unit,
) : Native.Pieces {
    private var failure: Throwable? = null

    override fun piece(index: Long, bytes: ByteArray?, ids: ShortArray?, text: String?): Boolean {
        val number = index.toInt()
        if (bytes == null) ended(number)
        if (failure != null) return false
        return try {
            receive(BatchPiece(number, bytes?.let { Piece(it, ids!!, text!!) }))
        } catch (e: Throwable) {
            failure = e
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

/** The native call of [Model.generateBatch]. */
internal class FixedBatch(private val sessions: List<Session>, private val options: List<GenerateOptions>) {
    private val calls = sessions.map(Session::newCall)

    /** Cancels all generations. */
    fun cancel(): Unit = calls.forEach(Call::cancel)

    /** Generates. The results are the sessions' [Session.lastGeneration]. */
    fun run(receive: (BatchPiece) -> Boolean) {
        var entered = 0
        val left = BooleanArray(sessions.size)
        fun leave(index: Int) {
            if (!left[index]) {
                left[index] = true
                sessions[index].leave(calls[index])
            }
        }
        try {
            for ((session, call) in sessions zip calls) {
                session.enter(call)
                entered++
            }
            val pieces = BatchPieces(receive, ::leave, ::cancel)
            generate(pieces)
            pieces.rethrow()
        } finally {
            for (index in 0 until entered) leave(index)
        }
    }

    private fun generate(pieces: Native.Pieces) {
        val generations = LongArray(sessions.size)
        val handles = sessions.map { session -> session.withHandle { it } }.toLongArray()
        try {
            withOptions(options) { Native.generateBatch(handles, it, pieces, generations) }
        } finally {
            for (index in generations.indices) {
                if (generations[index] != 0L) sessions[index].generated(Generation.take(generations[index]))
            }
        }
    }

    /** Native options for each of [rest]. */
    private fun withOptions(
        rest: List<GenerateOptions>,
        handles: LongArray = LongArray(rest.size),
        block: (LongArray) -> Unit,
    ) {
        val next = handles.indexOf(0)
        if (next < 0) return block(handles)
        rest[next].native {
            handles[next] = it
            withOptions(rest, handles, block)
        }
    }
}
