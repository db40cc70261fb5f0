package dev.bolmo

import java.util.concurrent.atomic.AtomicReference

/** Kinds of training. */
public enum class TrainKind {
    /** Training of a subword model: a new one, or one from a folder. */
    SUBWORD,

    /** First stage of byteifying: the local parts learn to imitate a subword model, whose blocks are frozen. */
    STAGE1,

    /** Second stage of byteifying: all parts learn, end to end. */
    STAGE2,
}

/** Options of a training run. */
public data class TrainerOptions @JvmOverloads constructor(
    /** What is trained. */
    val kind: TrainKind,
    /** The configuration, a text in TOML; `docs/training.md` has all keys. */
    val config: String,
    /** Values that replace those of the configuration, by dotted key. */
    val overrides: Map<String, String> = emptyMap(),
    /** Texts to train on, in addition to the files that the configuration names. */
    val texts: List<String> = emptyList(),
    /** Texts to evaluate on. */
    val heldOutTexts: List<String> = emptyList(),
    /** Whether to continue from the last snapshot in the run's folder. */
    val resume: Boolean = false,
)

/** Receives the metrics of each training step as JSON, on the thread that trains. */
public fun interface MetricsListener {
    /** The [metrics] of a step. Returns whether to continue. */
    public fun onMetrics(metrics: String): Boolean
}

/** A training run on a device. One call at a time; only [cancel] and [close] may be used meanwhile. */
public class Trainer private constructor(handle: Long) : NativeHandle(handle, Native::trainerDelete) {
    private val current = AtomicReference<Call?>()

    /** Number of completed steps, including those before the run was resumed. */
    public val steps: Long get() = withHandle(Native::trainerSteps)

    /**
     * Runs [count] steps, or as many as are left.
     *
     * @throws BolmoException.Cancelled if [cancel] or the listener stopped the run with steps left; another call
     * continues from there
     */
    public suspend fun step(count: Long, onMetrics: MetricsListener? = null) {
        val call = newCall()
        onNativeThread(call) { stepNow(call, count, onMetrics) }
    }

    /** [step], on the calling thread. */
    @JvmOverloads
    public fun stepBlocking(count: Long, onMetrics: MetricsListener? = null): Unit =
        stepNow(newCall(), count, onMetrics)

    /** Stops the running [step] after the current one. Does nothing if none is running. */
    public fun cancel() {
        current.get()?.cancel()
    }

    /** Evaluates the model on the held-out text. Returns the metrics as JSON. */
    public suspend fun evaluate(): String = onNativeThread { evaluateBlocking() }

    /** [evaluate], on the calling thread. */
    public fun evaluateBlocking(): String = withHandle(Native::trainerEvaluate).decodeToString()

    /** Writes a snapshot to the folder of the run, from which a resumed run continues. */
    public suspend fun save(): Unit = onNativeThread { saveBlocking() }

    /** [save], on the calling thread. */
    public fun saveBlocking(): Unit = withHandle(Native::trainerSave)

    /** Writes the model to the folder [path], and replaces a model that is there. */
    public suspend fun export(path: String): Unit = onNativeThread { exportBlocking(path) }

    /** [export], on the calling thread. */
    public fun exportBlocking(path: String): Unit = withHandle { Native.trainerExport(it, utf8(path, "path")) }

    /** Frees the run, and unlocks its folder. A running [step] ends as after [cancel]. */
    override fun close() {
        // First, so that a call that begins now either finds the run closed or is found by `cancel`.
        refuse()
        cancel()
        super.close()
    }

    private fun newCall() = Call(
        // Also while the run is being closed.
        request = { Native.trainerCancel(raw) },
        withdraw = { Native.trainerResetCancel(raw) },
    )

    private fun stepNow(call: Call, count: Long, onMetrics: MetricsListener?) {
        if (!current.compareAndSet(null, call)) {
            throw BolmoException.Busy("the Trainer is in use by another call: wait for its end, or cancel it")
        }
        try {
            call.begin()
            val listener = onMetrics?.let { Native.Metrics { json -> it.onMetrics(json.decodeToString()) } }
            withHandle { Native.trainerStep(it, count, listener) }
        } finally {
            call.end()
            current.set(null)
        }
    }

    /** Creating. */
    public companion object {
        /** Reads data and model, and prepares the run on [engine]. The folder of the run is locked until [close]. */
        public suspend fun create(engine: Engine, options: TrainerOptions): Trainer =
            creating { createBlocking(engine, options) }

        /** [create], on the calling thread. */
        @JvmStatic
        public fun createBlocking(engine: Engine, options: TrainerOptions): Trainer = engine.withHandle { device ->
            withNative(Native::trainerOptionsCreate, Native::trainerOptionsDelete) { native ->
                Native.trainerOptionsSetKind(native, options.kind.ordinal)
                Native.trainerOptionsSetConfig(native, utf8(options.config, "config"))
                options.overrides.forEach { (key, value) ->
                    Native.trainerOptionsSetOverride(native, utf8("$key=$value", "overrides"))
                }
                options.texts.forEach { Native.trainerOptionsAddText(native, utf8(it, "texts")) }
                options.heldOutTexts.forEach { Native.trainerOptionsAddHeldOutText(native, utf8(it, "heldOutTexts")) }
                Native.trainerOptionsSetResume(native, options.resume)
                Trainer(Native.trainerCreate(device, native))
            }
        }
    }
}
