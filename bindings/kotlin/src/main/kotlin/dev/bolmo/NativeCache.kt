package dev.bolmo

import java.io.FileOutputStream
import java.io.IOException
import java.net.URL
import java.nio.file.Files
import java.nio.file.LinkOption.NOFOLLOW_LINKS
import java.nio.file.Path
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.nio.file.attribute.FileAttribute
import java.nio.file.attribute.PosixFileAttributes
import java.nio.file.attribute.PosixFilePermission.GROUP_WRITE
import java.nio.file.attribute.PosixFilePermission.OTHERS_WRITE
import java.nio.file.attribute.PosixFilePermissions
import java.nio.file.attribute.UserPrincipal
import java.security.DigestInputStream
import java.security.MessageDigest
import kotlin.io.path.Path

/**
 * A folder of extracted libraries, each in a folder that is named by the SHA-256 of its content.
 *
 * Processes share it: a library appears under its name only when it is complete. Nobody but the user and root may be
 * able to write there, since what lies there is run.
 */
internal class NativeCache(private val folder: Path) {
    /**
     * The file with the content of [url], extracted now unless it was before.
     *
     * @param hash the SHA-256 of the content in hexadecimal; computed if null
     * @throws IOException if it can't be written, or if somebody else could change it
     */
    fun extract(url: URL, hash: String?, name: String): Path {
        val expected = hash ?: url.openStream().use { sha256(it.readBytes()) }
        val parent = folder.toAbsolutePath().resolve(expected)
        val file = parent.resolve(name)
        Files.createDirectories(parent, *permissions(parent, "rwx------"))
        checkOwner(folder.toAbsolutePath())
        checkOwner(parent)
        if (isComplete(file, expected)) return file
        val temporary = Files.createTempFile(parent, "extract", ".tmp", *permissions(parent, "rw-------"))
        try {
            write(url, expected, temporary)
            try {
                Files.move(temporary, file, ATOMIC_MOVE)
            } catch (e: IOException) {
                // Windows doesn't replace a library that another process has loaded since.
                if (!isComplete(file, expected)) throw e
            }
        } finally {
            Files.deleteIfExists(temporary)
        }
        return file
    }

    /** Whether [file] is there, with the content that it should have. */
    private fun isComplete(file: Path, expected: String): Boolean {
        if (!Files.isRegularFile(file, NOFOLLOW_LINKS)) return false
        checkOwner(file)
        return sha256(Files.readAllBytes(file)) == expected
    }

    private fun write(url: URL, expected: String, file: Path) {
        val digest = MessageDigest.getInstance("SHA-256")
        // Not a channel, which an interrupted thread can't write to.
        FileOutputStream(file.toFile()).use { output ->
            url.openStream().use { DigestInputStream(it, digest).copyTo(output) }
            // Otherwise the name may survive a power failure, and the content not.
            output.fd.sync()
        }
        val found = hexadecimal(digest.digest())
        if (found != expected) {
            throw IOException("$url is damaged: expected SHA-256 $expected, found $found; get the jar again")
        }
    }

    /** Throws if somebody but this user and root could change [path]. */
    private fun checkOwner(path: Path) {
        if (!isPosix(path)) return
        val found = Files.readAttributes(path, PosixFileAttributes::class.java, NOFOLLOW_LINKS)
        val uid = Files.getAttribute(path, "unix:uid", NOFOLLOW_LINKS)
        val reason = when {
            found.isSymbolicLink -> "is a symbolic link"
            uid != 0 && found.owner() != user -> "belongs to ${found.owner().name}, not to ${user.name}"
            GROUP_WRITE in found.permissions() || OTHERS_WRITE in found.permissions() ->
                "can be written to by others (${PosixFilePermissions.toString(found.permissions())})"
            else -> return
        }
        throw IOException("$path $reason: a library is only run from where nobody else can change it")
    }

    /**
     * The user of this process: the owner of the files that it creates. The property `user.name` is "?" where a user
     * has no name, as in containers, and /proc may be missing.
     */
    private val user: UserPrincipal by lazy {
        val file = try {
            Files.createTempFile(folder.toAbsolutePath(), "owner", ".tmp")
        } catch (_: IOException) {
            Files.createTempFile("bolmo", ".tmp")
        }
        try {
            Files.getOwner(file, NOFOLLOW_LINKS)
        } finally {
            Files.delete(file)
        }
    }

    companion object {
        /** Folders to try, the best one first: the one that was named, else the user's cache, then a temporary one. */
        fun folders(platform: Platform, property: (String) -> String?, environment: (String) -> String?): List<Path> {
            property(NativeLibrary.CACHE_PROPERTY)?.takeIf(String::isNotEmpty)?.let { return listOf(Path(it)) }
            val home = property("user.home")
            val cache = when (platform.os) {
                "windows" -> environment("LOCALAPPDATA")
                "macos" -> home?.let { "$it/Library/Caches" }
                else -> environment("XDG_CACHE_HOME")?.takeIf { it.startsWith('/') } ?: home?.let { "$it/.cache" }
            }
            return listOfNotNull(
                cache?.let { Path(it, "bolmo", "native") },
                // One of each user: those of others can't be written to.
                property("java.io.tmpdir")?.let { Path(it, "bolmo-native-" + property("user.name")) },
            )
        }

        private fun isPosix(path: Path) = "posix" in path.fileSystem.supportedFileAttributeViews()

        private fun permissions(path: Path, permissions: String): Array<FileAttribute<*>> =
            if (isPosix(path)) {
                arrayOf(PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString(permissions)))
            } else {
                emptyArray()
            }

        private fun sha256(bytes: ByteArray) = hexadecimal(MessageDigest.getInstance("SHA-256").digest(bytes))

        private fun hexadecimal(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }
    }
}
