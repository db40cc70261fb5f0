package dev.bolmo

/** The library itself: its version, its log and its objects. */
public object Bolmo {
    /** The library's version, such as "0.1.0". */
    @JvmStatic
    public val version: String get() = NativeLibrary.VERSION

    /** Number of native objects that were created and not freed: 0 when a program has cleaned up. */
    @JvmStatic
    public val handleCount: Long
        get() {
            NativeLibrary.load()
            return Native.handleCount()
        }

    /**
     * Passes log messages up to [level] to [logger]; null turns logging off, as it is at first.
     *
     * The logger is called by any thread, also by several at once. It must not call the library. Its exceptions go to
     * the thread's uncaught exception handler.
     *
     * @throws BolmoException.Busy if the logger is being set by another thread, or calls this
     */
    @JvmStatic
    public fun setLogger(level: LogLevel, logger: Logger?) {
        NativeLibrary.load()
        Native.setLog(
            level.ordinal,
            logger?.let {
                Native.Log { line, text ->
                    try {
                        it.log(LogLevel.entries[line], text.decodeToString())
                    } catch (e: Throwable) {
                        val thread = Thread.currentThread()
                        thread.uncaughtExceptionHandler.uncaughtException(thread, e)
                    }
                }
            },
        )
    }
}

/** How much is logged. */
public enum class LogLevel {
    /** Nothing. */
    OFF,

    /** Failures, including those that no call can return. */
    ERROR,

    /** Problems that don't stop the work. */
    WARN,

    /** Progress of the work. */
    INFO,

    /** Details for finding a fault. */
    DEBUG,

    /** Everything, including the graphics library's own messages. */
    TRACE,
}

/** Receives log messages. */
public fun interface Logger {
    /** A [message]. */
    public fun log(level: LogLevel, message: String)
}

/** Progress of a long call: [done] of [total]. */
public data class Progress(
    /** How much is done. */
    val done: Long,
    /** How much there is to do. */
    val total: Long,
) {
    /** From 0 to 1. */
    val fraction: Double get() = if (total == 0L) 1.0 else done.toDouble() / total
}

/** Receives the progress of a long call, on the thread that does the work. An exception ends the call. */
public fun interface ProgressListener {
    /** There is [progress]. */
    public fun onProgress(progress: Progress)
}

/**
 * Assembles text from bytes that come in pieces. Characters that are not complete yet are held back; invalid UTF-8
 * becomes U+FFFD.
 */
public class Utf8Assembler : NativeHandle(create(), Native::utf8Delete) {
    /** Takes the next [bytes]; returns the text that is complete by now, which may be empty. */
    @Synchronized
    public fun push(bytes: ByteArray): String = withHandle { Native.utf8Push(it, bytes).decodeToString() }

    /** Ends the text: returns U+FFFD if it stops inside a character, else nothing. Another text can follow. */
    @Synchronized
    public fun finish(): String = withHandle { Native.utf8Finish(it).decodeToString() }

    /** Frees the assembler. */
    @Synchronized
    override fun close(): Unit = super.close()

    internal companion object {
        private fun create(): Long {
            NativeLibrary.load()
            return Native.utf8Create()
        }

        /** The text of [bytes]. */
        fun decode(bytes: ByteArray): String = Utf8Assembler().use { it.push(bytes) + it.finish() }
    }
}
