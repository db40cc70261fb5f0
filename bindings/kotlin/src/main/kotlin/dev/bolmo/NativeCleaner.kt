package dev.bolmo

import java.lang.ref.PhantomReference
import java.lang.ref.ReferenceQueue
import java.util.concurrent.ConcurrentHashMap

/**
 * Runs an action after an object was collected without being closed.
 *
 * It does what `java.lang.ref.Cleaner` does, which Android has only from API level 33 on.
 */
internal object NativeCleaner {
    private val queue = ReferenceQueue<Any>()

    /** References that nobody else holds have to be reachable until their object is collected. */
    private val waiting: MutableSet<Cleanable> = ConcurrentHashMap.newKeySet()

    init {
        Thread(::run, "bolmo-cleaner").apply { isDaemon = true }.start()
    }

    /**
     * Registers an [action] that runs once: when the result's [clean][Cleanable.clean] is called, else after [owner]
     * was collected. The action must not refer to [owner].
     */
    fun register(owner: Any, action: Runnable): Cleanable = Cleanable(owner, action).also { waiting.add(it) }

    /** A registered action. */
    internal class Cleanable(owner: Any, private val action: Runnable) : PhantomReference<Any>(owner, queue) {
        /** Runs the action, unless it has run. */
        fun clean() {
            if (waiting.remove(this)) {
                clear()
                action.run()
            }
        }
    }

    private fun run() {
        while (true) {
            try {
                (queue.remove() as Cleanable).clean()
            } catch (_: InterruptedException) {
                // Nobody has a reason to interrupt this thread.
            } catch (_: Throwable) {
                // The others are cleaned all the same, also after an error such as too little memory.
            }
        }
    }
}
