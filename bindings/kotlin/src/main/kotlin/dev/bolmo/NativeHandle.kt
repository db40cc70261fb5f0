package dev.bolmo

/**
 * An object of the native library.
 *
 * [close] frees it. Objects that are not closed are freed some time after they were garbage collected; since the
 * collector doesn't know how much memory they take on the device, closing them is better. Objects may be closed in any
 * order, any number of times, by any thread, during a call and in a callback: a running call ends as cancelled or
 * completes. Every other use of a closed object throws an [IllegalStateException].
 */
public abstract class NativeHandle internal constructor(handle: Long, delete: (Long) -> Unit) : AutoCloseable {
    /** The handle, also after [close]: the library refuses one that was deleted, and never uses it again. */
    internal val raw: Long = handle

    @Volatile
    private var handle: Long = handle

    @Volatile
    private var lastUse: Int = 0

    private val cleanable = NativeCleaner.register(this, Deletion(handle, delete))

    /** A class of its own, which has no reference to the object. */
    private class Deletion(private val handle: Long, private val delete: (Long) -> Unit) : Runnable {
        override fun run() = delete(handle)
    }

    /** Whether [close] was called. */
    public val isClosed: Boolean get() = handle == 0L

    /** Frees the object. May be called any number of times, by any thread. */
    override fun close() {
        refuse()
        cleanable.clean()
    }

    /** From here on the object counts as closed, though it is not freed yet. */
    internal fun refuse() {
        handle = 0
    }

    /** Runs [block] with the handle, which stays valid meanwhile unless [close] is called. */
    internal inline fun <T> withHandle(block: (Long) -> T): T {
        val open = handle
        if (open == 0L) throw closed(null)
        try {
            return block(open)
        } catch (e: BolmoException.InvalidArgument) {
            // Closed by another thread before the call had looked at the handle.
            throw if (isClosed) closed(e) else e
        } finally {
            // A write that others can see: until here, the object can't be collected.
            lastUse++
        }
    }

    private fun closed(cause: Throwable?) = IllegalStateException("the ${javaClass.simpleName} is closed", cause)
}

/** Runs [block] with the handle that [create] makes, and deletes it. */
internal inline fun <T> withNative(create: () -> Long, delete: (Long) -> Unit, block: (Long) -> T): T {
    val handle = create()
    try {
        return block(handle)
    } finally {
        delete(handle)
    }
}

/** UTF-8 of a text. A lone surrogate, which UTF-8 doesn't have, is refused rather than replaced. */
internal fun utf8(text: String, name: String): ByteArray = try {
    text.encodeToByteArray(throwOnInvalidSequence = true)
} catch (_: CharacterCodingException) {
    val at = loneSurrogate(text)
    val code = text[at].code.toString(16).uppercase()
    throw BolmoException.InvalidArgument("$name: expected Unicode text, found the lone surrogate U+$code at index $at")
}

private fun loneSurrogate(text: String): Int {
    var i = 0
    while (i < text.length) {
        val pair = text[i].isHighSurrogate() && i + 1 < text.length && text[i + 1].isLowSurrogate()
        if (text[i].isSurrogate() && !pair) return i
        i += if (pair) 2 else 1
    }
    return 0
}
