package org.example.app

import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.io.path.Path
import kotlin.io.path.extension
import kotlin.io.path.listDirectoryEntries
import kotlin.io.path.name
import kotlin.io.path.readText

/** The code for apps in README.md is that of the files in this folder, which are compiled and tested. */
class ReadmeTest {
    @Test
    fun `README has the code that is tested here`() {
        val readme = Path("README.md").readText()
        val files = Path("src/test/kotlin/org/example/app").listDirectoryEntries()
            .filter { it.extension == "kt" && !it.name.endsWith("Test.kt") }
        assertTrue(files.size >= 5, "expected the files of the README's code, found $files")
        for (file in files) {
            val lines = file.readText().lines()
            val code = lines.dropWhile { it.isEmpty() || it.startsWith("package ") || it.startsWith("import ") }
            assertTrue("```kotlin\n${code.joinToString("\n")}```" in readme, "README.md lacks the code of ${file.name}")
        }
    }
}
