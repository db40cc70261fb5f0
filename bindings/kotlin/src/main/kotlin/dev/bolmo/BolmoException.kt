package dev.bolmo

/**
 * A failure of the library. Its message says what failed, what was expected and what was found.
 *
 * There is a subclass for each status of the C ABI. Coroutines that are cancelled see a
 * [kotlin.coroutines.cancellation.CancellationException] instead, as everywhere in Kotlin.
 */
public sealed class BolmoException(message: String, cause: Throwable? = null) : RuntimeException(message, cause) {
    /** An argument is out of range or contradicts another one, or a text has a lone surrogate. */
    public class InvalidArgument internal constructor(message: String) : BolmoException(message)

    /** A file, an adapter or an item that was asked for does not exist. */
    public class NotFound internal constructor(message: String) : BolmoException(message)

    /** A checkpoint, a tokenizer or a snapshot is damaged or contradicts itself. */
    public class BadCheckpoint internal constructor(message: String) : BolmoException(message)

    /** The input is well formed, but this version, model or adapter does not support it. */
    public class Unsupported internal constructor(message: String) : BolmoException(message)

    /** The device or the host has too little memory. */
    public class OutOfMemory internal constructor(message: String) : BolmoException(message)

    /** The device was lost: open the engine again, load the model again, and restore sessions from snapshots. */
    public class DeviceLost internal constructor(message: String) : BolmoException(message)

    /** The call was cancelled by [Session.cancel], [Trainer.cancel] or [Session.close]. */
    public class Cancelled internal constructor(message: String) : BolmoException(message)

    /** The object is in use by another call. */
    public class Busy internal constructor(message: String) : BolmoException(message)

    /** Reading or writing failed. If a [WeightsReader] threw, its exception is the [cause]. */
    public class Io internal constructor(message: String, cause: Throwable? = null) : BolmoException(message, cause)

    /** A bug in the library; please report it. */
    public class Internal internal constructor(message: String) : BolmoException(message)

    /** The engine is suspended. Resume it, then repeat the call. */
    public class Suspended internal constructor(message: String) : BolmoException(message)

    /** A status that this version doesn't know. */
    public class Unknown internal constructor(
        /** The number of the status in the C ABI. */
        public val status: Int,
        message: String,
    ) : BolmoException(message)

    internal companion object {
        /** What messages name in C, and the same here. */
        private val names = mapOf(
            "bolmo_load_options_set_format" to "LoadOptions.format",
            "bolmo_load_options_set_tokenizer_path" to "LoadOptions.tokenizer",
            "bolmo_engine_create" to "Engine.open",
            "bolmo_model_load" to "Model.load",
            "bolmo_batch_add" to "Batch.add",
        )

        /** The exception for a status of the C ABI, whose [message] may name functions. */
        fun of(status: Int, message: String): BolmoException =
            named(status, names.entries.fold(message) { text, (function, name) -> text.replace(function, name) })

        private fun named(status: Int, message: String): BolmoException = when (status) {
            1 -> InvalidArgument(message)
            2 -> NotFound(message)
            3 -> BadCheckpoint(message)
            4 -> Unsupported(message)
            5 -> OutOfMemory(message)
            6 -> DeviceLost(message)
            7 -> Cancelled(message)
            8 -> Busy(message)
            9 -> Io(message)
            10 -> Internal(message)
            11 -> Suspended(message)
            else -> Unknown(status, "${Native.statusName(status).decodeToString()}: $message")
        }
    }
}
