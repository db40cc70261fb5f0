package dev.bolmo

import java.io.IOException
import java.net.URL
import java.nio.file.FileSystemException
import java.nio.file.InvalidPathException
import java.nio.file.Path
import kotlin.io.path.Path

/**
 * The native library of this package, `libbolmo_jni`.
 *
 * It is looked for in this order:
 * 1. where the system property [PATH_PROPERTY] says, a file or a folder; nowhere else if it is set;
 * 2. on Android, among the libraries of the app;
 * 3. among the resources, as `META-INF/native/<os>-<arch>/<file name>`, from where it is extracted once for all
 *    processes of a user ([NativeCache]).
 */
internal object NativeLibrary {
    /** The system property that names the library, or the folder that has it. */
    const val PATH_PROPERTY: String = "bolmo.library.path"

    /** The system property that names the folder for extracted libraries. */
    const val CACHE_PROPERTY: String = "bolmo.library.cache"

    /** The `bolmo_abi_version()` that these classes were made for. */
    const val ABI_VERSION: Int = 7

    /** The `bolmo_version()` that these classes were made for. */
    const val VERSION: String = "0.1.0"

    private val failure: NativeLibraryException? by lazy {
        try {
            val library = NativeLoader(Platform.current).load()
            checkVersion(library, ::abiVersion, ::version)
            checkMethods(library, Native::methodCount)
            null
        } catch (e: NativeLibraryException) {
            e
        }
    }

    /**
     * Loads the library, the first time; later calls do nothing.
     *
     * Functions that need the library and have no handle yet call this first. A static initializer should not: its
     * callers would get an [ExceptionInInitializerError] without the message.
     *
     * @throws NativeLibraryException the same each time, if there is no library that can be used
     */
    fun load() {
        failure?.let { throw NativeLibraryException(it.message!!, it) }
    }

    /** `bolmo_abi_version()` of the library that was loaded. Found by its name, since the rest may have changed. */
    @JvmStatic
    private external fun abiVersion(): Int

    /** `bolmo_version()` of the library that was loaded. Found by its name, since the rest may have changed. */
    @JvmStatic
    private external fun version(): String

    /**
     * Throws unless all native methods of the [library] that was loaded are there. [count] is the one that it registers
     * last, which fails if it could not register another one: a method of these classes is missing or another one.
     */
    fun checkMethods(library: String, count: () -> Int) {
        try {
            count()
        } catch (e: UnsatisfiedLinkError) {
            throw NativeLibraryException(
                "$library and these classes have the same version, $VERSION (ABI $ABI_VERSION), but not the same " +
                    "native methods. Use the one that came with these classes; if a tool has removed or renamed " +
                    "methods of dev.bolmo.Native, give it the rules in META-INF/proguard/bolmo.pro.",
                e,
            )
        }
    }

    /** Throws unless the [library] that was loaded has the version that these classes were made for. */
    fun checkVersion(library: String, abiVersion: () -> Int, version: () -> String) {
        val (abi, release) = try {
            abiVersion() to version()
        } catch (e: UnsatisfiedLinkError) {
            throw NativeLibraryException(
                "$library doesn't tell its version: expected libbolmo_jni $VERSION (ABI $ABI_VERSION), " +
                    "found another library. Use the one that came with these classes.",
                e,
            )
        }
        if (abi != ABI_VERSION || release != VERSION) {
            throw NativeLibraryException(
                "$library is of another version: these classes need $VERSION (ABI $ABI_VERSION), " +
                    "the library has $release (ABI $abi). Use a library and classes of the same version.",
            )
        }
    }
}

/**
 * There is no native library that can be used: none for this system, or one of another version.
 *
 * The message says which library was expected, and where it was looked for.
 */
public class NativeLibraryException internal constructor(message: String, cause: Throwable? = null) :
    BolmoException(message, cause)

/** An operating system and an architecture, as the folders of native libraries are named. */
internal data class Platform(val os: String, val arch: String, val isAndroid: Boolean = false) {
    /** The file name of the library. */
    val fileName: String
        get() = when (os) {
            "windows" -> "bolmo_jni.dll"
            "macos" -> "libbolmo_jni.dylib"
            else -> "libbolmo_jni.so"
        }

    /** The name of the resource that has the library. */
    val resource: String get() = "META-INF/native/$this/$fileName"

    override fun toString(): String = "$os-$arch"

    companion object {
        /** Those that a jar may have libraries for. */
        val known: List<Platform> = listOf("linux", "macos", "windows").flatMap { os ->
            listOf("x86_64", "aarch64").map { Platform(os, it) }
        }

        /** The platform of this process. */
        val current: Platform
            get() = named(
                System.getProperty("os.name"),
                System.getProperty("os.arch"),
                System.getProperty("java.vm.name"),
            )

        /** The platform for the values of the properties `os.name`, `os.arch` and `java.vm.name`. */
        fun named(os: String, arch: String, vm: String = ""): Platform = Platform(
            when {
                os.startsWith("Windows") -> "windows"
                os.startsWith("Mac") -> "macos"
                else -> os.lowercase().replace(' ', '_')
            },
            when (arch) {
                "amd64", "x86_64", "x64" -> "x86_64"
                "aarch64", "arm64" -> "aarch64"
                else -> arch
            },
            isAndroid = vm == "Dalvik",
        )
    }
}

/** Finds the library for [platform] and loads it. What it asks the system for can be replaced in tests. */
internal class NativeLoader(
    private val platform: Platform,
    private val property: (String) -> String? = System::getProperty,
    private val resource: (String) -> URL? = { NativeLibrary::class.java.classLoader.getResource(it) },
    private val caches: () -> List<Path> = { NativeCache.folders(platform, property, System::getenv) },
    private val loadFile: (Path) -> Unit = { System.load(it.toString()) },
    private val loadName: (String) -> Unit = { System.loadLibrary(it) },
) {
    /** Loads the library and returns what it was loaded from. */
    fun load(): String {
        val named = property(NativeLibrary.PATH_PROPERTY)
        return when {
            named != null -> fromPath(path(named))
            platform.isAndroid -> fromApp()
            else -> fromResource()
        }
    }

    private fun path(named: String): Path = try {
        Path(named)
    } catch (e: InvalidPathException) {
        val message = "The system property ${NativeLibrary.PATH_PROPERTY} is not a path: ${e.message}"
        throw NativeLibraryException(message, e)
    }

    private fun fromPath(named: Path): String {
        val file = (if (named.toFile().isDirectory) named.resolve(platform.fileName) else named).toAbsolutePath()
        if (!file.toFile().isFile) {
            throw NativeLibraryException(
                "There is no native library $file. The system property ${NativeLibrary.PATH_PROPERTY} is $named: " +
                    "expected ${platform.fileName} for $platform or the folder that has it.",
            )
        }
        try {
            loadFile(file)
        } catch (e: LinkageError) {
            throw NativeLibraryException(unusable(file.toString(), e), e)
        }
        return file.toString()
    }

    private fun fromApp(): String {
        try {
            loadName("bolmo_jni")
        } catch (e: LinkageError) {
            throw NativeLibraryException(
                "${platform.fileName} for ${platform.arch} is not among the app's libraries, or can't be loaded: " +
                    "${e.message}. The artifact dev.bolmo:bolmo-android has it for arm64-v8a and x86_64.",
                e,
            )
        }
        return platform.fileName
    }

    private fun fromResource(): String {
        val url = resource(platform.resource) ?: throw NativeLibraryException(noResource())
        val hash = resource(platform.resource + ".sha256")?.readText()?.trim()
        val failures = mutableListOf<Throwable>()
        val folders = try {
            caches()
        } catch (e: InvalidPathException) {
            val message = "The folder for the native library is not a path: ${e.message}. It is named by the system " +
                "properties ${NativeLibrary.CACHE_PROPERTY}, user.home, user.name and java.io.tmpdir."
            throw NativeLibraryException(message, e)
        }
        for (folder in folders) {
            // Another folder may be writable, or on a file system that programs can be run from.
            try {
                val file = NativeCache(folder).extract(url, hash, platform.fileName)
                loadFile(file)
                return file.toString()
            } catch (e: IOException) {
                failures += IOException("$folder: ${reason(e)}", e)
            } catch (e: LinkageError) {
                failures += IOException("$folder: ${unusable(platform.fileName, e)}", e)
            }
        }
        throw NativeLibraryException(
            "The native library for $platform could not be loaded from the resource ${platform.resource}. These " +
                "folders were tried:\n" + failures.joinToString("") { "- ${it.message}\n" } +
                "Name a folder that can be written to with -D${NativeLibrary.CACHE_PROPERTY}=FOLDER, or the library " +
                "itself with -D${NativeLibrary.PATH_PROPERTY}=FILE.",
            failures.firstOrNull(),
        )
    }

    /** Some exceptions of files have a path as their message, and only the class says what is wrong with it. */
    private fun reason(e: IOException): String =
        if (e.message == null || e is FileSystemException && e.reason == null) e.toString() else e.message!!

    private fun noResource(): String {
        val others = Platform.known.filter { resource(it.resource) != null }
        val found = if (others.isEmpty()) "no library for any other" else "those for " + others.joinToString()
        return "There is no native library for $platform: expected the resource ${platform.resource} on the class " +
            "path, found $found. Build libbolmo_jni for $platform and name it with " +
            "-D${NativeLibrary.PATH_PROPERTY}=FILE."
    }

    private fun unusable(name: String, cause: LinkageError): String =
        "$name can't be loaded on $platform by classes of version ${NativeLibrary.VERSION} " +
            "(ABI ${NativeLibrary.ABI_VERSION}): ${cause.message ?: cause}"
}
