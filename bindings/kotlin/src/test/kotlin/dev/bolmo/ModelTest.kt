package dev.bolmo

import java.io.File
import java.nio.file.Files
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlin.math.max
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.jupiter.api.AfterAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.TestInstance

/** The root of the repository. */
val repository: Path = generateSequence(Path.of("").toAbsolutePath()) { it.parent }
    .first { Files.isDirectory(it.resolve("tests/golden")) }

/** The adapter under test: "cpu", "software" or a GPU. */
val adapter: String = System.getProperty("bolmo.test.adapter", "cpu")

/** The small trained model that all tests but those of equality use, or another one, to measure how it is cancelled. */
val trained: Path = repository.resolve(System.getProperty("bolmo.test.model", "tests/golden/infer/models/nano_trained"))

/** How many times slower than usual this machine may be, as in the tests of the C ABI. */
val slowFactor: Double = System.getenv("BOLMO_SLOW_FACTOR")?.toDouble() ?: 1.0

/** Runs a test that suspends. One that hangs fails. */
fun test(block: suspend () -> Unit) {
    runBlocking { withTimeout((300_000 * max(1.0, slowFactor)).toLong()) { block() } }
}

/** Tests with the trained model on an adapter. Nothing of them may be left at the end. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
abstract class ModelTest(val choice: String = adapter) {
    lateinit var engine: Engine
    lateinit var model: Model

    @BeforeAll
    fun load(): Unit = test {
        assertEquals(0, Bolmo.handleCount, "before ${javaClass.simpleName}")
        assumeTrue(Engine.adapters(choice).any { it.isChosen && it.isUsable }, "there is no adapter $choice")
        engine = Engine.open(EngineOptions(adapter = choice))
        model = Model.load(trained, LoadOptions(engine = engine))
    }

    @AfterAll
    fun close() {
        if (::model.isInitialized) {
            model.close()
            engine.close()
        }
        assertEquals(0, Bolmo.handleCount, "after ${javaClass.simpleName}")
    }

    /** Runs [block] with a session that has [prompt]. */
    suspend fun <T> withSession(prompt: String, block: suspend (Session) -> T): T = model.session().use {
        it.append(prompt)
        block(it)
    }
}

/** Runs a program and returns what it wrote. */
fun output(vararg command: String): ByteArray {
    val errors = File.createTempFile("bolmo", ".txt")
    try {
        val process = ProcessBuilder(*command).redirectError(errors).start()
        process.outputStream.close()
        val bytes = process.inputStream.readBytes()
        check(process.waitFor(10, TimeUnit.SECONDS) && process.exitValue() == 0) {
            "${command.joinToString(" ")} failed: ${errors.readText()}"
        }
        return bytes
    } finally {
        errors.delete()
    }
}
