package dev.bolmo

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.net.URL
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.attribute.PosixFilePermissions
import java.security.MessageDigest
import kotlin.io.path.createDirectories
import kotlin.io.path.createFile
import kotlin.io.path.listDirectoryEntries
import kotlin.io.path.name
import kotlin.io.path.readBytes
import kotlin.io.path.setPosixFilePermissions
import kotlin.io.path.writeBytes
import kotlin.io.path.writeText
import kotlin.random.Random

/** How the library is found, extracted and checked; the JVM of the tests itself has it from `bolmo.library.path`. */
class NativeLibraryTest {
    @TempDir
    lateinit var folder: Path

    private val platform = Platform("linux", "x86_64")
    private val content = Random(1).nextBytes(3_000_000)
    private val loaded = mutableListOf<Path>()

    private fun Path.resource(bytes: ByteArray = content): URL =
        resolve("resource").also { it.writeBytes(bytes) }.toUri().toURL()

    private fun loader(
        platform: Platform = this.platform,
        properties: Map<String, String> = emptyMap(),
        resources: Map<String, URL> = emptyMap(),
        caches: List<Path> = listOf(folder.resolve("cache")),
        loadFile: (Path) -> Unit = { loaded.add(it) },
        loadName: (String) -> Unit = { throw UnsatisfiedLinkError("dlopen failed: library \"lib$it.so\" not found") },
    ) = NativeLoader(platform, properties::get, resources::get, { caches }, loadFile, loadName)

    private fun messageOf(block: () -> Unit): String =
        assertThrows(NativeLibraryException::class.java) { block() }.message!!

    private fun assertSays(message: String, vararg parts: String) {
        for (part in parts) assertTrue(part in message, "“$part” is not in the message: $message")
    }

    @Test
    fun `the library of this process has the version of the classes`() = NativeLibrary.load()

    @Test
    fun `the property names the file or its folder`() {
        val file = folder.resolve("libbolmo_jni.so").createFile()
        for (named in listOf(file, folder)) {
            loader(properties = mapOf("bolmo.library.path" to named.toString())).load()
        }
        assertEquals(listOf(file, file), loaded)
    }

    @Test
    fun `a file that is not there is named, and nothing else is tried`() {
        val message = messageOf {
            loader(
                properties = mapOf("bolmo.library.path" to "$folder"),
                resources = mapOf(platform.resource to folder.resource()),
            ).load()
        }
        assertSays(message, "$folder/libbolmo_jni.so", "bolmo.library.path", "linux-x86_64")
        assertEquals(emptyList<Path>(), loaded)
    }

    @Test
    fun `a file that is no library keeps the system's reason`() {
        val file = folder.resolve("libbolmo_jni.so")
        file.writeText("text")
        val message = messageOf {
            NativeLoader(Platform.current, mapOf("bolmo.library.path" to "$file")::get).load()
        }
        assertSays(message, "$file", "${Platform.current}", "0.1.0", "file too short")
    }

    @Test
    fun `a system without a library is named, with those that have one`() {
        val resources = mapOf(platform.resource to folder.resource())
        assertSays(
            messageOf { loader(Platform.named("Linux", "riscv64"), resources = resources).load() },
            "linux-riscv64", "META-INF/native/linux-riscv64/libbolmo_jni.so", "linux-x86_64", "bolmo.library.path",
        )
        assertSays(
            messageOf { loader(Platform.named("Mac OS X", "aarch64")).load() },
            "macos-aarch64", "META-INF/native/macos-aarch64/libbolmo_jni.dylib", "no library for any other",
        )
        assertEquals("META-INF/native/windows-x86_64/bolmo_jni.dll", Platform.named("Windows 11", "amd64").resource)
    }

    @Test
    fun `an app on Android loads by name`() {
        val android = Platform.named("Linux", "aarch64", "Dalvik")
        val names = mutableListOf<String>()
        loader(android, loadName = { names.add(it) }).load()
        assertEquals(listOf("bolmo_jni"), names)
        assertSays(messageOf { loader(android).load() }, "aarch64", "dlopen failed", "dev.bolmo:bolmo-android")
    }

    @Test
    fun `another version is refused with both versions`() {
        NativeLibrary.checkVersion("lib", { NativeLibrary.ABI_VERSION }, { NativeLibrary.VERSION })
        val older = messageOf { NativeLibrary.checkVersion("/lib.so", { NativeLibrary.ABI_VERSION - 1 }, { "0.0.9" }) }
        assertSays(
            older, "/lib.so", "0.0.9 (ABI ${NativeLibrary.ABI_VERSION - 1})",
            "${NativeLibrary.VERSION} (ABI ${NativeLibrary.ABI_VERSION})",
        )
        messageOf { NativeLibrary.checkVersion("lib", { NativeLibrary.ABI_VERSION + 1 }, { NativeLibrary.VERSION }) }
        messageOf { NativeLibrary.checkVersion("lib", { NativeLibrary.ABI_VERSION }, { "0.1.1" }) }
        val other = messageOf { NativeLibrary.checkVersion("/lib.so", { throw UnsatisfiedLinkError() }, { "" }) }
        assertSays(other, "/lib.so", "doesn't tell its version", NativeLibrary.VERSION)
    }

    @Test
    fun `a library without a method is refused`() {
        NativeLibrary.checkMethods("lib") { 1 }
        val message = messageOf { NativeLibrary.checkMethods("/lib.so") { throw UnsatisfiedLinkError("methodCount") } }
        assertSays(message, "/lib.so", NativeLibrary.VERSION, "native methods", "bolmo.pro")
    }

    @Test
    fun `properties that are not paths are named`() {
        for (name in listOf(NativeLibrary.PATH_PROPERTY, NativeLibrary.CACHE_PROPERTY)) {
            val message = messageOf {
                NativeLoader(
                    platform,
                    property = { if (it == name) "a\u0000b" else null },
                    resource = { folder.resource() },
                    loadFile = {},
                ).load()
            }
            assertSays(message, name, "not a path")
        }
    }

    @Test
    fun `the resource is extracted once, under the hash of its content`() {
        val resources = mapOf(platform.resource to folder.resource())
        loader(resources = resources).load()
        val file = loaded.single()
        assertEquals(folder.resolve("cache").resolve(sha256(content)).resolve("libbolmo_jni.so"), file)
        assertTrue(file.readBytes().contentEquals(content))
        assertEquals("rwx------", PosixFilePermissions.toString(Files.getPosixFilePermissions(file.parent)))
        val key = fileKey(file)
        loader(resources = resources).load()
        assertEquals(key, fileKey(loaded.last()))
        assertEquals(listOf(file), file.parent.listDirectoryEntries())

        val next = content.reversedArray()
        loader(resources = mapOf(platform.resource to folder.resource(next))).load()
        assertTrue(loaded.last().readBytes().contentEquals(next))
        assertTrue(file.readBytes().contentEquals(content))
    }

    @Test
    fun `a file that was damaged in the cache is replaced`() {
        val resources = mapOf(platform.resource to folder.resource())
        loader(resources = resources).load()
        for (damaged in listOf(content.copyOf(1000), content.copyOf().also { it[77] = (it[77] + 1).toByte() })) {
            loaded.last().writeBytes(damaged)
            loader(resources = resources).load()
            assertTrue(loaded.last().readBytes().contentEquals(content))
        }
    }

    @Test
    fun `a damaged resource is refused and leaves no file`() {
        val hash = folder.resolve("hash").also { it.writeText(sha256(content) + "\n") }.toUri().toURL()
        val url = folder.resource(content.copyOf(1000))
        val message = messageOf {
            loader(resources = mapOf(platform.resource to url, platform.resource + ".sha256" to hash)).load()
        }
        assertSays(message, "is damaged", sha256(content), sha256(content.copyOf(1000)))
        assertEquals(emptyList<Path>(), folder.resolve("cache").resolve(sha256(content)).listDirectoryEntries())
        // The hash beside the library is the one that is used: this content would be right without it.
        loader(resources = mapOf(platform.resource to url)).load()
    }

    @Test
    fun `a folder that others can write to is not used`() {
        val resources = mapOf(platform.resource to folder.resource())
        val cache = folder.resolve("cache").createDirectories()
        val parent = cache.resolve(sha256(content)).createDirectories()
        for (open in listOf(cache, parent)) {
            open.setPosixFilePermissions(PosixFilePermissions.fromString("rwxrwxrwx"))
            assertSays(messageOf { loader(resources = resources).load() }, "$open can be written to by others")
            open.setPosixFilePermissions(PosixFilePermissions.fromString("rwxr-xr-x"))
        }
        loader(resources = resources).load()
        loaded.last().setPosixFilePermissions(PosixFilePermissions.fromString("rw-rw----"))
        assertSays(messageOf { loader(resources = resources).load() }, "libbolmo_jni.so can be written to by others")

        val link = Files.createSymbolicLink(folder.resolve("link"), folder.resolve("elsewhere").createDirectories())
        assertSays(messageOf { loader(resources = resources, caches = listOf(link)).load() }, "is a symbolic link")
    }

    @Test
    fun `where one folder can't be used, the next one is`() {
        val resources = mapOf(platform.resource to folder.resource())
        // Root may write everywhere, but not below a file.
        val unusable = folder.resolve("file").createFile().resolve("cache")
        val usable = folder.resolve("usable")
        loader(resources = resources, caches = listOf(unusable, usable)).load()
        assertTrue(loaded.single().startsWith(usable))
        val message = messageOf {
            loader(
                resources = resources,
                caches = listOf(unusable, usable),
                loadFile = { throw UnsatisfiedLinkError("failed to map segment from shared object") },
            ).load()
        }
        assertSays(message, "- $unusable: ", "- $usable: ", "failed to map segment", "bolmo.library.cache")
    }

    @Test
    fun `an interrupted thread extracts the library too`() {
        val resources = mapOf(platform.resource to folder.resource())
        Thread.currentThread().interrupt()
        try {
            loader(resources = resources).load()
        } finally {
            assertTrue(Thread.interrupted())
        }
        assertTrue(loaded.single().readBytes().contentEquals(content))
    }

    @Test
    fun `what is wrong with a folder is said`() {
        val resources = mapOf(platform.resource to folder.resource())
        // Where not even root can create a folder.
        assumeTrue(Files.isDirectory(Path.of("/proc/self")))
        val nowhere = Path.of("/proc/no such folder")
        val message = messageOf { loader(resources = resources, caches = listOf(nowhere)).load() }
        assertSays(message, "- $nowhere: java.nio.file.NoSuchFileException: ")
    }

    @Test
    fun `the folder is the user's cache unless a property names it`() {
        val properties = mapOf("user.home" to "/home/mia", "user.name" to "mia", "java.io.tmpdir" to "/tmp")
        fun folders(
            platform: Platform,
            environment: Map<String, String> = emptyMap(),
            more: Map<String, String> = emptyMap(),
        ) = NativeCache.folders(platform, (properties + more)::get, environment::get).map { it.toString() }
        val temporary = "/tmp/bolmo-native-mia"
        assertEquals(listOf("/home/mia/.cache/bolmo/native", temporary), folders(platform))
        assertEquals(
            listOf("/caches/bolmo/native", temporary),
            folders(platform, mapOf("XDG_CACHE_HOME" to "/caches")),
        )
        assertEquals(
            listOf("/home/mia/Library/Caches/bolmo/native", temporary),
            folders(Platform("macos", "aarch64")),
        )
        val unnamed = folders(platform, more = mapOf("bolmo.library.cache" to ""))
        assertEquals(listOf("/home/mia/.cache/bolmo/native", temporary), unnamed)
        assertEquals(listOf("/mine"), folders(platform, more = mapOf("bolmo.library.cache" to "/mine")))
    }

    @Test
    fun `several processes extract at once`() {
        val url = folder.resource()
        val cache = folder.resolve("cache")
        val java = Path.of(System.getProperty("java.home"), "bin", "java").toString()
        val classes = System.getProperty("java.class.path")
        val processes = List(6) {
            ProcessBuilder(java, "-cp", classes, ExtractMain::class.java.name, "$url", "$cache")
                .redirectErrorStream(true).start()
        }
        val files = processes.map { process ->
            val output = process.inputStream.bufferedReader().readText().trim()
            assertEquals(0, process.waitFor(), output)
            Path.of(output)
        }
        val file = files.distinct().single()
        assertTrue(file.readBytes().contentEquals(content))
        assertEquals(listOf("libbolmo_jni.so"), file.parent.listDirectoryEntries().map { it.name })
    }

    private fun fileKey(file: Path) = Files.readAttributes(file, "fileKey,lastModifiedTime")

    private fun sha256(bytes: ByteArray) =
        MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
}

/** Extracts the resource at a URL into a folder, and prints the file. */
internal object ExtractMain {
    @JvmStatic
    fun main(arguments: Array<String>) =
        println(NativeCache(Path.of(arguments[1])).extract(URL(arguments[0]), null, "libbolmo_jni.so"))
}
