package dev.bolmo

import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** Format of matrices on the device. Norms and biases are always f32. */
public enum class Format {
    /** 32 bits per weight. */
    F32,

    /** 16 bits per weight. */
    F16,

    /** 8 bits per weight, and a scale for every 32 weights. */
    Q8,

    /** 4 bits per weight, and a scale for every 32 weights. */
    Q4,
}

/** Sizes of a model. */
@ConsistentCopyVisibility
public data class ModelInfo internal constructor(
    /** Number of weights, all parts together. */
    val parameters: Long,
    /** Width of the residual stream. */
    val hiddenSize: Int,
    /** Local layers before the boundary predictor. */
    val encoderLayers: Int,
    /** Global blocks. */
    val globalLayers: Int,
    /** Local layers after the global blocks. */
    val decoderLayers: Int,
    /** Rows of the suffix table; 0 for a model without one. Such a model needs no tokenizer.json. */
    val suffixRows: Int,
    /** Logits per step. */
    val logits: Int,
    /** Size of the state that a byte changes, in bytes. A session takes more: [Model.sessionBytes]. */
    val stateBytes: Long,
    /** Size of the keys and values of a patch, in bytes. Sessions reserve room for more patches than they hold. */
    val patchBytes: Long,
    /** The same for patches beyond the sliding window, if the model has one. */
    val latePatchBytes: Long,
    /**
     * Device memory that the model takes, beside weights and sessions, to process prompts, in bytes: once for each call
     * that appends or scores at the same time. Of a [Checkpoint]: at most this much, on any device.
     */
    val workBytes: Long,
) {
    internal companion object {
        /** Reads the properties. */
        fun read(number: (Int) -> Long): ModelInfo = ModelInfo(
            parameters = number(0),
            hiddenSize = number(1).toInt(),
            encoderLayers = number(2).toInt(),
            globalLayers = number(3).toInt(),
            decoderLayers = number(4).toInt(),
            suffixRows = number(5).toInt(),
            logits = number(6).toInt(),
            stateBytes = number(7),
            patchBytes = number(8),
            latePatchBytes = number(9),
            workBytes = number(10),
        )
    }
}

/** The `tokenizer.json` of the subword model that a model was made from. Nearly all models need it. */
public sealed class Tokenizer {
    /** A file, or the folder that has it. */
    public data class Path(
        /** The path. */
        val path: String,
    ) : Tokenizer()

    /** The contents of `tokenizer.json`, and of the `tokenizer_config.json` beside it if there is one. */
    public class Contents @JvmOverloads constructor(
        /** `tokenizer.json`. */
        public val json: ByteArray,
        /** `tokenizer_config.json`. */
        public val config: ByteArray? = null,
    ) : Tokenizer()
}

/** Reads a file of weights that is not in a folder, such as a document that an app was given access to. */
public fun interface WeightsReader {
    /**
     * Reads bytes from [offset] on into [destination], as [FileChannel.read] does. Returns how many, at least one; 0
     * or -1 at the end. Called by several threads at once.
     */
    @Throws(IOException::class)
    public fun read(offset: Long, destination: ByteBuffer): Int
}

/** A safetensors file of a checkpoint that is not a folder. */
public class Weights private constructor(
    internal val name: String,
    internal val buffer: ByteBuffer?,
    internal val size: Long,
    internal val reader: WeightsReader?,
) {
    /** Kinds of files. */
    public companion object {
        /**
         * A file in memory, from the buffer's position to its limit. A direct buffer, such as a file that is mapped,
         * is used in place and must not change while the checkpoint is open; others are copied. [name] is used in
         * messages.
         */
        @JvmStatic
        public fun memory(name: String, buffer: ByteBuffer): Weights = Weights(name, buffer.slice(), 0, null)

        /** A file of [size] bytes that [reader] reads. It must not change. [name] is used in messages. */
        @JvmStatic
        public fun reader(name: String, size: Long, reader: WeightsReader): Weights = Weights(name, null, size, reader)

        /** A file behind a channel, which must stay open until the model is loaded. [name] is used in messages. */
        @JvmStatic
        public fun channel(name: String, channel: FileChannel): Weights =
            reader(name, channel.size()) { offset, destination -> channel.read(destination, offset) }
    }
}

/** Keeps the exception of a [WeightsReader], which can't pass the native side, as the cause of what follows. */
internal class ReaderFailures {
    @Volatile
    private var last: Throwable? = null

    /** The callback for [reader]. */
    fun native(reader: WeightsReader): Native.Reader = Native.Reader { offset, destination ->
        try {
            val count = reader.read(offset, ByteBuffer.wrap(destination))
            if (count > destination.size) throw IOException("it returned $count of at most ${destination.size} bytes")
            count.coerceAtLeast(0)
        } catch (e: Throwable) {
            last = e
            -1
        }
    }

    /** Runs [block], which may read. */
    inline fun <T> explain(block: () -> T): T {
        // That of an earlier call explains nothing.
        last = null
        return try {
            block()
        } catch (e: BolmoException.Io) {
            throw last?.let { BolmoException.Io("${e.message}: $it", it) } ?: e
        }
    }
}

/**
 * The files of a model, opened and checked but not loaded yet. Opening reads headers only, so that the memory that a
 * model takes is known before it is loaded. May be closed after loading.
 */
public class Checkpoint private constructor(handle: Long, internal val failures: ReaderFailures) :
    NativeHandle(handle, Native::checkpointDelete) {
    /** Sizes. */
    public val info: ModelInfo = ModelInfo.read { Native.checkpointNumber(handle, it) }

    /** What is odd about the files, but was accepted. */
    public val warnings: List<String> = List(Native.checkpointWarningCount(handle).toInt()) {
        Native.checkpointWarning(handle, it.toLong()).decodeToString()
    }

    /** The name under which the source model's tokenizer was published, if the checkpoint says. */
    public val tokenizerSource: String = Native.checkpointTokenizerSource(handle).decodeToString()

    /** The configuration as the library understands it: JSON with the keys of `config.json`. */
    public val configJson: String get() = withHandle(Native::checkpointConfigJson).decodeToString()

    /**
     * The device memory that the weights will take in [format], in bytes. For weights that are stored quantized, their
     * own formats count. Needed in addition: [sessionBytes] for each session, and [ModelInfo.workBytes].
     */
    public fun deviceBytes(format: Format): Long = withHandle { Native.checkpointDeviceBytes(it, format.ordinal) }

    /**
     * How many of these bytes need no memory of their own on [engine]: on the CPU device, large tensors that are stored
     * in [format] are used where the file is mapped, and processes share them. 0 on other devices.
     */
    public fun mappedBytes(engine: Engine, format: Format): Long =
        withHandle { own -> engine.withHandle { Native.checkpointMappedBytes(own, it, format.ordinal) } }

    /**
     * The device memory that a session takes at most while it grows to [patches] patches, in bytes, on any device. A
     * patch has about 4 bytes of text; the model decides.
     */
    public fun sessionBytes(patches: Long): Long = withHandle { Native.checkpointSessionBytes(it, patches) }

    /** Opening. */
    public companion object {
        /**
         * Opens the folder at [path], which must not change until the checkpoint is closed.
         *
         * @throws BolmoException.NotFound if there is no such folder, or no config.json or weights in it
         * @throws BolmoException.BadCheckpoint if it is damaged
         */
        @JvmStatic
        public fun open(path: String): Checkpoint {
            NativeLibrary.load()
            return Checkpoint(Native.checkpointOpen(utf8(path, "path")), ReaderFailures())
        }

        /** As above. */
        @JvmStatic
        public fun open(path: java.nio.file.Path): Checkpoint = open(path.toString())

        /** As above. */
        @JvmStatic
        public fun open(folder: File): Checkpoint = open(folder.path)

        /**
         * Opens a checkpoint that is not a folder.
         *
         * @param config the contents of `config.json`
         * @param weights the safetensors files
         * @param tokenizer the source model's tokenizer, which [LoadOptions.tokenizer] can name too
         */
        @JvmStatic
        @JvmOverloads
        public fun open(
            config: ByteArray,
            weights: List<Weights>,
            tokenizer: Tokenizer.Contents? = null,
        ): Checkpoint {
            NativeLibrary.load()
            val failures = ReaderFailures()
            val create = Native::checkpointBuilderCreate
            return withNative(create, Native::checkpointBuilderDelete) { builder ->
                Native.checkpointBuilderSetConfig(builder, config)
                tokenizer?.let { Native.checkpointBuilderSetTokenizer(builder, it.json, it.config) }
                weights.forEach { add(builder, it, failures) }
                Checkpoint(failures.explain { Native.checkpointBuilderOpen(builder) }, failures)
            }
        }

        private fun add(builder: Long, weights: Weights, failures: ReaderFailures) {
            val name = utf8(weights.name, "name")
            val buffer = weights.buffer
            when {
                weights.reader != null -> {
                    val reader = failures.native(weights.reader)
                    Native.checkpointBuilderAddReader(builder, name, weights.size, reader)
                }
                buffer!!.isDirect && buffer.remaining() > 0 -> Native.checkpointBuilderAddBuffer(builder, name, buffer)
                else -> {
                    val bytes = ByteArray(buffer.remaining()).also(buffer.duplicate()::get)
                    Native.checkpointBuilderAddBytes(builder, name, bytes)
                }
            }
        }
    }
}
