package dev.bolmo

/** Arithmetic of products with matrices in [Format.Q8] and [Format.Q4] on the CPU device. */
public enum class Products {
    /** Weights are converted to 32-bit numbers. */
    F32,

    /**
     * What is multiplied with the weights is rounded to 8 bits, in blocks of 32 values with a scale. This is faster,
     * most of all for long prompts, and less exact.
     */
    INT8,
}

/** Options for opening an [Engine]. */
public data class EngineOptions @JvmOverloads constructor(
    /**
     * The adapter: a part of its name, driver or backend, its number in [Engine.adapters], "cpu", "software" or
     * "low-power". "cpu" is the library's own device, which needs no driver. "low-power" prefers an integrated GPU,
     * then the CPU. Empty, the default: the best one.
     */
    val adapter: String = "",
    /** Threads that compute on the CPU device, 1 to 256. 0, the default: one for each physical core. */
    val threads: Int = 0,
    /** The folder for compiled kernels, so that later starts are faster; null, the default, for none. */
    val kernelCache: String? = null,
    /** The largest binding in bytes, at least 65536. 0, the default: the adapter's own limit. */
    val maxBindingBytes: Long = 0,
    /** Arithmetic of products on the CPU device. Other adapters have [Products.F32] alone. */
    val products: Products = Products.F32,
    /**
     * Size in bytes from which on the CPU device uses a tensor where the checkpoint's file is mapped, if it is stored
     * in the wanted format. 0, the default: the library decides. [Long.MAX_VALUE] copies all tensors, for files that
     * other programs may write to.
     */
    val inPlaceBytes: Long = 0,
) {
    /** Runs [block] with native options. */
    internal inline fun <T> native(block: (Long) -> T): T =
        withNative(Native::engineOptionsCreate, Native::engineOptionsDelete) { options ->
            Native.engineOptionsSetAdapter(options, utf8(adapter, "adapter"))
            if (threads != 0) Native.engineOptionsSetThreads(options, threads.toLong())
            if (maxBindingBytes != 0L) Native.engineOptionsSetMaxBindingBytes(options, maxBindingBytes)
            if (products != Products.F32) Native.engineOptionsSetProducts(options, products.ordinal)
            if (inPlaceBytes != 0L) Native.engineOptionsSetInPlaceBytes(options, inPlaceBytes)
            if (kernelCache != null) Native.engineOptionsSetKernelCache(options, utf8(kernelCache, "kernelCache"))
            block(options)
        }
}

/** A device of this machine that could run a model, or the one that does. */
@ConsistentCopyVisibility
public data class Adapter internal constructor(
    /** Name. */
    val name: String,
    /** "discrete GPU", "integrated GPU", "virtual GPU", "software", "other" or "cpu". */
    val kind: String,
    /** "vulkan", "metal", "dx12" or "cpu". */
    val backend: String,
    /** Driver and version. */
    val driver: String,
    /** Why the adapter would be used, or why not. */
    val reason: String,
    /** Whether it is the one that would be used. */
    val isChosen: Boolean,
    /** Whether the library can run on it. */
    val isUsable: Boolean,
    /** Whether it runs on the CPU. */
    val isSoftware: Boolean,
    /** Largest binding, in bytes. */
    val maxBindingBytes: Long,
    /** Largest buffer, in bytes. */
    val maxBufferBytes: Long,
    /** Workgroup memory, in bytes. */
    val workgroupBytes: Long,
    /** Lanes of the smallest subgroup; 0 if kernels cannot use subgroups. */
    val minSubgroup: Int,
    /** Lanes of the largest subgroup; 0 if kernels cannot use subgroups. */
    val maxSubgroup: Int,
    /** Whether shaders can compute in f16. */
    val hasShaderF16: Boolean,
) {
    internal companion object {
        /** Reads the properties. */
        fun read(text: (Int) -> ByteArray, number: (Int) -> Long): Adapter = Adapter(
            name = text(0).decodeToString(),
            kind = text(1).decodeToString(),
            backend = text(2).decodeToString(),
            driver = text(3).decodeToString(),
            reason = text(4).decodeToString(),
            isChosen = number(0) != 0L,
            isUsable = number(1) != 0L,
            isSoftware = number(2) != 0L,
            maxBindingBytes = number(3),
            maxBufferBytes = number(4),
            workgroupBytes = number(5),
            minSubgroup = number(6).toInt(),
            maxSubgroup = number(7).toInt(),
            hasShaderF16 = number(8) != 0L,
        )
    }
}

/** An open device, for any number of models and threads. Its models keep it open. */
public class Engine private constructor(handle: Long) : NativeHandle(handle, Native::engineDelete) {
    /** The adapter that it runs on. */
    public val adapter: Adapter = Adapter.read({ Native.engineText(handle, it) }, { Native.engineNumber(handle, it) })

    /**
     * Stops the use of the device, as apps on phones have to in the background. When this returns, nothing is running
     * on the device, and nothing is submitted until [resume].
     *
     * Calls in progress pause, and continue after [resume]; they can still be cancelled. Calls that begin meanwhile
     * throw [BolmoException.Suspended] and change nothing. Suspending twice is allowed.
     *
     * @throws BolmoException.DeviceLost if the device is lost: nothing runs on it, and nothing will
     */
    public fun suspend(): Unit = withHandle(Native::engineSuspend)

    /**
     * Ends [suspend].
     *
     * @throws BolmoException.DeviceLost if the system has taken the device away meanwhile
     */
    public fun resume(): Unit = withHandle(Native::engineResume)

    /** Frees memory of the device that is not in use now. Returns how many bytes. For when memory runs low. */
    public fun trim(): Long = withHandle(Native::engineTrim)

    /**
     * Releases the device and all its memory at once, even if it is in use. Every later call that needs it throws
     * [BolmoException.DeviceLost].
     */
    public fun destroyDevice(): Unit = withHandle(Native::engineDestroyDevice)

    /** Opening, and listing of adapters. */
    public companion object {
        /**
         * Opens a device.
         *
         * @throws BolmoException.NotFound if no adapter matches
         */
        public suspend fun open(options: EngineOptions = EngineOptions()): Engine = creating { openBlocking(options) }

        /** [open], on the calling thread. */
        @JvmStatic
        @JvmOverloads
        public fun openBlocking(options: EngineOptions = EngineOptions()): Engine {
            NativeLibrary.load()
            return options.native { Engine(Native.engineCreate(it)) }
        }

        /** The adapters of this machine. The one that [choice], as in [EngineOptions.adapter], selects is chosen. */
        @JvmStatic
        @JvmOverloads
        public fun adapters(choice: String = ""): List<Adapter> {
            NativeLibrary.load()
            val create = { Native.adaptersList(utf8(choice, "choice")) }
            return withNative(create, Native::adaptersDelete) { list ->
                List(Native.adaptersCount(list).toInt()) { i ->
                    val index = i.toLong()
                    Adapter.read(
                        { Native.adaptersText(list, index, it) },
                        { Native.adaptersNumber(list, index, it) },
                    )
                }
            }
        }
    }
}
