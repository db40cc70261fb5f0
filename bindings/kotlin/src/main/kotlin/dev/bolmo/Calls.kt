package dev.bolmo

import java.util.concurrent.SynchronousQueue
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicInteger
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import kotlin.coroutines.resume
import kotlinx.coroutines.CancellableContinuation
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.launch
import kotlinx.coroutines.suspendCancellableCoroutine
import kotlinx.coroutines.withContext

/** Stack size of the threads below. The drivers' shader compilers go deep, and unused pages cost nothing. */
private const val STACK_BYTES = 8L shl 20

private val threadNumber = AtomicInteger()

/** The threads that native calls block: as many as there are calls at a time. They don't keep the JVM from ending. */
internal val nativeThreads: CoroutineDispatcher =
    ThreadPoolExecutor(0, Int.MAX_VALUE, 10, TimeUnit.SECONDS, SynchronousQueue()) {
        Thread(null, it, "bolmo-${threadNumber.incrementAndGet()}", STACK_BYTES).apply { isDaemon = true }
    }.asCoroutineDispatcher()

/**
 * One call that can be cancelled. [request] asks the native side to end it, [withdraw] takes back a request that came
 * too late and would end the next call.
 */
internal class Call(private val request: () -> Unit, private val withdraw: () -> Unit) {
    private enum class State { NEW, RUNNING, ENDED }

    private var state = State.NEW
    private var requested = false

    /** Asks for the end of the call, or keeps it from starting. Does nothing after its end. */
    @Synchronized
    fun cancel() {
        if (state == State.ENDED) return
        requested = true
        if (state == State.RUNNING) unlessFreed(request)
    }

    /**
     * The call starts.
     *
     * @throws BolmoException.Cancelled if it was cancelled before
     */
    @Synchronized
    fun begin() {
        if (requested) throw BolmoException.Cancelled("the call was cancelled before it began")
        state = State.RUNNING
    }

    /** The call has ended. */
    @Synchronized
    fun end() {
        val late = requested && state == State.RUNNING
        state = State.ENDED
        if (late) unlessFreed(withdraw)
    }

    private fun unlessFreed(action: () -> Unit) = try {
        action()
    } catch (_: BolmoException.InvalidArgument) {
        // The object was freed meanwhile.
    }
}

/**
 * Runs [block], which blocks in [call], on a thread of its own. If the coroutine is cancelled, so is the call at once;
 * this returns when the call has ended.
 */
internal suspend fun <T> onNativeThread(call: Call? = null, block: () -> T): T = coroutineScope {
    // Resumed by the thread that cancels, whatever the dispatcher is doing.
    val watcher = call?.let {
        launch(Dispatchers.Unconfined, CoroutineStart.UNDISPATCHED) {
            try {
                awaitCancellation()
            } finally {
                it.cancel()
            }
        }
    }
    try {
        withContext(nativeThreads) { block() }
    } catch (e: BolmoException.Cancelled) {
        ensureActive()
        throw e
    } finally {
        watcher?.cancel()
    }
}

/** As above, for a block that makes an object. It is closed if the coroutine was cancelled meanwhile. */
internal suspend fun <T : AutoCloseable> creating(call: Call? = null, block: () -> T): T {
    var made: T? = null
    var returned = false
    try {
        return onNativeThread(call) { block().also { made = it } }.also { returned = true }
    } finally {
        if (!returned) made?.close()
    }
}

/** A cancellable call whose native side asks in its progress callback whether to continue. */
internal class ProgressCall(private val listener: ProgressListener?) {
    @Volatile
    private var cancelled = false

    val call: Call = Call(request = { cancelled = true }, withdraw = {})

    /** The callback. */
    val progress: Native.Progress = Native.Progress { done, total ->
        listener?.onProgress(Progress(done, total))
        !cancelled
    }

    /** Runs the call. */
    inline fun <T> run(block: () -> T): T {
        call.begin()
        try {
            return block()
        } finally {
            call.end()
        }
    }
}

/**
 * Passes items from a native callback to a coroutine, one at a time: the callback waits until the receiver has
 * processed the item. [cancel] is called when the receiver leaves.
 */
internal class Handover<T : Any>(private val cancel: () -> Unit) {
    private val lock = ReentrantLock()
    private val changed = lock.newCondition()
    private var item: T? = null
    private var taken = false
    private var waiting: CancellableContinuation<Unit>? = null
    private var stopped = false
    private var ended = false
    private var failure: Throwable? = null

    /** Passes [next] on and waits. Returns whether the receiver wants more. */
    fun give(next: T): Boolean {
        val receiver = lock.withLock {
            if (stopped) return false
            item = next
            takeWaiting()
        }
        // Not under the lock: a receiver without a dispatcher, as in `suspend fun main`, runs in here until it asks for
        // the next item.
        receiver?.resume(Unit)
        return lock.withLock {
            while (item != null && !stopped) changed.awaitUninterruptibly()
            !stopped
        }
    }

    /** There are no more items, because of [cause] if it is not null. */
    fun finish(cause: Throwable?) {
        val receiver = lock.withLock {
            ended = true
            failure = cause
            takeWaiting()
        }
        receiver?.resume(Unit)
    }

    private fun takeWaiting(): CancellableContinuation<Unit>? = waiting.also { waiting = null }

    /** The next item, or null after the last one. The item before has been processed. */
    suspend fun next(): T? {
        lock.withLock {
            // The first item may have been given before it was asked for.
            if (taken) {
                item = null
                taken = false
                changed.signal()
            }
        }
        suspendCancellableCoroutine { continuation ->
            continuation.invokeOnCancellation { stop() }
            val ready = lock.withLock {
                val ready = item != null || ended
                if (!ready) waiting = continuation
                ready
            }
            if (ready) continuation.resume(Unit)
        }
        return lock.withLock {
            failure?.let { throw it }
            taken = item != null
            item
        }
    }

    /** The receiver leaves. What has ended is not cancelled: others may use it by now. */
    fun stop() {
        val running = lock.withLock {
            stopped = true
            waiting = null
            changed.signal()
            !ended
        }
        if (running) cancel()
    }
}
