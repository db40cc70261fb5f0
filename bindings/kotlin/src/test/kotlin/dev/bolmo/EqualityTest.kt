package dev.bolmo

import java.nio.file.Files
import kotlinx.coroutines.flow.toList
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test

/** What is generated equals what the reference and the command generate, on the adapter under test. */
class EqualityTest : EqualityTests(adapter)

/** The same on a driver that emulates a GPU on the CPU. */
class SoftwareEqualityTest : EqualityTests("software")

/** What is generated equals what the reference and the command generate. */
abstract class EqualityTests(choice: String) : ModelTest(choice) {
    /** The table of the C tests: numbers of prompt ids, of emitted ids and of reliable ids, then the ids. */
    private fun table(): List<Triple<IntArray, List<Int>, Int>> =
        Files.readAllLines(repository.resolve("ffi/tests/c/generations.txt")).chunked(3) { (sizes, prompt, emitted) ->
            val numbers = { line: String -> line.split(" ").map(String::toInt) }
            Triple(numbers(prompt).toIntArray(), numbers(emitted), numbers(sizes)[2])
        }

    @Test
    fun `greedy ids are those of the reference`() = test {
        val cases = table()
        assertTrue(cases.size >= 4)
        for ((prompt, emitted, reliable) in cases) {
            model.session(bos = false).use { session ->
                session.appendIds(prompt)
                val pieces = session.generate(maxBytes = emitted.size - 1).toList()
                val generation = session.lastGeneration!!
                // The first id is the decision about the prompt's last byte.
                val ids = session.ids(prompt.size - 1L).take(1) + generation.ids.toList()
                val safe = minOf(reliable, ids.size)
                assertEquals(emitted.take(safe), ids.take(safe).map(Short::toInt))
                assertArrayEquals(generation.bytes, pieces.flatMap { it.bytes.toList() }.toByteArray())
                val pieceIds = pieces.flatMap { it.ids.toList() }
                assertEquals(generation.ids.take(pieceIds.size), pieceIds)
                assertEquals(generation.text, pieces.joinToString("") { it.text })
                assertEquals(generation.ids.count { it >= 260 }.toLong(), generation.patches)
                assertTrue(pieces.any(Piece::endsPatch))
            }
        }
    }

    @Test
    fun `text equals the command's`() = test {
        val command = System.getProperty("bolmo.command") ?: repository.resolve("target/debug/bolmo").toString()
        assumeTrue(Files.isExecutable(java.nio.file.Path.of(command)), "there is no command $command")
        val demo = repository.resolve("examples/demo-model")
        Model.load(demo, LoadOptions(engine = engine)).use { model ->
            for (prompt in listOf("Once upon a time", "def main():", "Größe: €")) {
                for (temperature in listOf("0", "0.8")) {
                    val expected = output(
                        command, "generate", "--model", demo.toString(), "--adapter", choice, "--max-bytes", "80",
                        "--temperature", temperature, "--seed", "7", prompt,
                    )
                    model.session().use { session ->
                        session.append(prompt)
                        val options = GenerateOptions(maxBytes = 80, temperature = temperature.toFloat(), seed = 7)
                        val generation = session.generateText(options)
                        // The command ends a text with a newline on a terminal only.
                        assertArrayEquals(expected, generation.bytes, "$prompt at $temperature")
                    }
                }
            }
        }
    }

    @Test
    fun `every way to generate gives the same`() = test {
        val options = GenerateOptions(
            maxBytes = 60,
            temperature = 0.9f,
            topK = 40,
            topP = 0.95f,
            minP = 0.01f,
            repetitionPenalty = 1.2f,
            repetitionWindow = 20,
            byteBias = mapOf('e'.code to -0.5f),
            endBias = -3f,
            boundaryBias = 0.5f,
            seed = 42,
            stop = listOf("\n\n"),
        )
        val texts = mutableListOf<String>()
        withSession("class A:") { texts += it.generate(options).toList().joinToString("") { piece -> piece.text } }
        withSession("class A:") { texts += it.generateText(options).text }
        withSession("class A:") { texts += it.generateBlocking(options).text }
        withSession("class A:") { session ->
            val builder = GenerateOptions.Builder().maxBytes(60).temperature(0.9f).topK(40).topP(0.95f).minP(0.01f)
            builder.repetitionPenalty(1.2f, 20).byteBias('e'.code, -0.5f).endBias(-3f).boundaryBias(0.5f).seed(42)
            texts += session.generateText(builder.stop("\n\n").build()).text
        }
        assertEquals(1, texts.toSet().size, texts.toString())
        assertTrue(texts[0].isNotEmpty())
    }

    @Test
    fun `appending in chunks, snapshots, forks and checkpoints give the same`() = test {
        val expected = withSession("def f(x):\n    return") { it.generateText(maxBytes = 40).text }
        model.session().use { session ->
            "def f(x):\n    return".encodeToByteArray().toList().chunked(3).forEach { session.append(it.toByteArray()) }
            val mark = session.checkpoint()
            val snapshot = session.snapshot()
            val fork = session.fork()
            assertEquals(expected, session.generateText(maxBytes = 40).text)
            mark.use { session.rewind(it) }
            assertEquals(expected, session.generateText(maxBytes = 40).text)
            fork.use { assertEquals(expected, it.generateText(maxBytes = 40).text) }
            model.restore(snapshot).use { assertEquals(expected, it.generateText(maxBytes = 40).text) }
        }
    }

    @Test
    fun `a loop of one's own gives the same`() = test {
        val options = GenerateOptions(maxBytes = 30, temperature = 0.7f, seed = 3)
        val expected = withSession("for i in") { it.generateText(options) }
        withSession("for i in") { session ->
            Sampler(options).use { sampler ->
                val ids = mutableListOf<Short>()
                while (ids.size < expected.ids.size) {
                    val id = sampler.choose(session, session.logits())
                    ids += id.toShort()
                    if (id % FUSED_OFFSET == 1) break
                    session.push(id)
                }
                assertEquals(expected.ids.toList(), ids)
            }
        }
    }
}
