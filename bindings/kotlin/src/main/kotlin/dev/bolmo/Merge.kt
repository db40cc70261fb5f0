package dev.bolmo

/**
 * Options for [merge]: what a subword model learned after its pretraining is added to the Bolmo model that was made
 * from it. Global blocks and final norm become `bolmo + alpha * (postTrained - base)`.
 */
public data class MergeOptions @JvmOverloads constructor(
    /** Folder of the Bolmo model. */
    val bolmo: String,
    /** Folder of the subword model that it was made from. */
    val base: String,
    /** Folder of a model that was trained from the base model and differs from it in its weights only. */
    val postTrained: String,
    /** Factor for the difference between the two. */
    val alpha: Float = 1f,
    /** Whether the suffix table changes too, by the difference of the token embeddings. */
    val embeddings: Boolean = false,
)

/**
 * Writes the merged model to the folder [out], which must be empty or not exist, and appears when it is complete. Uses
 * no device. Returns a report as JSON, which `bolmo.h` describes.
 */
public suspend fun merge(options: MergeOptions, out: String, onProgress: ProgressListener? = null): String {
    val progress = ProgressCall(onProgress)
    return onNativeThread(progress.call) { mergeNow(options, out, progress) }
}

/** [merge], on the calling thread. */
@JvmOverloads
public fun mergeBlocking(options: MergeOptions, out: String, onProgress: ProgressListener? = null): String =
    mergeNow(options, out, ProgressCall(onProgress))

private fun mergeNow(options: MergeOptions, out: String, progress: ProgressCall): String {
    NativeLibrary.load()
    return withNative(Native::mergeOptionsCreate, Native::mergeOptionsDelete) { native ->
        Native.mergeOptionsSetBolmo(native, utf8(options.bolmo, "bolmo"))
        Native.mergeOptionsSetBase(native, utf8(options.base, "base"))
        Native.mergeOptionsSetPostTrained(native, utf8(options.postTrained, "postTrained"))
        Native.mergeOptionsSetAlpha(native, options.alpha)
        Native.mergeOptionsSetEmbeddings(native, options.embeddings)
        progress.run { Native.merge(native, utf8(out, "out"), progress.progress) }.decodeToString()
    }
}
