package dev.bolmo

import java.io.IOException
import java.nio.ByteBuffer
import java.nio.file.Files
import java.nio.file.Path
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.toList
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertSame
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

/** Bad input: an exception of the right class, with the message of the library, and nothing else. */
class BadInputTest : ModelTest() {
    private inline fun <reified E : Throwable> fails(vararg says: String, block: () -> Unit): E {
        val failure = runCatching(block).exceptionOrNull()
        assertTrue(failure is E, "expected ${E::class.simpleName}, found $failure")
        for (part in says) assertTrue(part in failure!!.message!!, "\"${failure.message}\" does not say \"$part\"")
        return failure as E
    }

    @Test
    fun `missing and damaged checkpoints`(@TempDir folder: Path) = test {
        fails<BolmoException.NotFound>("/nowhere/at all") { Model.load("/nowhere/at all") }
        fails<BolmoException.NotFound>("config.json") { Model.load(folder) }
        fails<BolmoException.InvalidArgument>("empty") { Checkpoint.open("") }
        for (name in listOf("config.json", "model.safetensors", "tokenizer.json")) {
            if (Files.exists(trained.resolve(name))) Files.copy(trained.resolve(name), folder.resolve(name))
        }
        val weights = folder.resolve("model.safetensors")
        val bytes = Files.readAllBytes(weights)
        Files.write(weights, bytes.copyOf(bytes.size / 2))
        fails<BolmoException.BadCheckpoint>("model.safetensors") { Checkpoint.open(folder).close() }
        Files.write(weights, "not a safetensors file".encodeToByteArray())
        fails<BolmoException.BadCheckpoint>("model.safetensors") { Checkpoint.open(folder).close() }
        Files.write(weights, bytes)
        Files.writeString(folder.resolve("config.json"), "{\"hidden_size\": ")
        fails<BolmoException.BadCheckpoint>("config.json") { Checkpoint.open(folder).close() }
    }

    @Test
    fun `adapters that don't exist, and options out of range`() = test {
        fails<BolmoException.NotFound>("no such adapter at all") {
            Engine.open(EngineOptions(adapter = "no such adapter at all"))
        }
        fails<BolmoException.InvalidArgument>("threads") { Engine.open(EngineOptions(adapter = "cpu", threads = 5000)) }
        fails<BolmoException.InvalidArgument>("threads", "-1") { Engine.open(EngineOptions(threads = -1)) }
        fails<BolmoException.InvalidArgument>("boundaries", "null") {
            model.score("abc", ScoreOptions(boundaries = BooleanArray(0)))
        }
        // More than a long can hold.
        assertEquals(Long.MAX_VALUE, model.sessionBytes(Long.MAX_VALUE))
        withSession("a") { session ->
            val ranges = mapOf(
                "max_bytes" to GenerateOptions(maxBytes = 0),
                "max_bytes " to GenerateOptions(maxBytes = -7),
                "temperature" to GenerateOptions(temperature = -1f),
                "temperature " to GenerateOptions(temperature = Float.NaN),
                "top_k" to GenerateOptions(topK = -1),
                "top_p" to GenerateOptions(topP = 1.5f),
                "min_p" to GenerateOptions(minP = -0.1f),
                "penalty" to GenerateOptions(repetitionPenalty = 0f),
                "byte" to GenerateOptions(byteBias = mapOf(256 to 1f)),
                "stop" to GenerateOptions(stop = listOf("")),
            )
            for ((name, options) in ranges) {
                fails<BolmoException.InvalidArgument>(name.trim()) { session.generateText(options) }
                fails<BolmoException.InvalidArgument>(name.trim()) { session.generate(options).collect() }
            }
            fails<BolmoException.InvalidArgument> { session.push(2) }
            fails<BolmoException.InvalidArgument> { session.push(-5) }
            fails<BolmoException.InvalidArgument> { session.appendIds(intArrayOf(300)) }
            fails<BolmoException.InvalidArgument> { session.appendIds(intArrayOf(-1)) }
            // The session is unchanged by all of that.
            assertEquals(2, session.length)
        }
        fails<BolmoException.InvalidArgument>("rope") {
            Model.load(trained, LoadOptions(engine = engine, ropeTheta = 0.5))
        }
        model.session(bos = false).use { session ->
            fails<BolmoException.InvalidArgument>("text") { session.generateText() }
            fails<BolmoException.InvalidArgument>("text") { session.logits() }
        }
        Sampler().use { sampler ->
            withSession("a") { session ->
                fails<BolmoException.InvalidArgument> { sampler.choose(session, FloatArray(3)) }
                fails<BolmoException.InvalidArgument>("257") {
                    sampler.choose(session, session.logits(), BooleanArray(9))
                }
            }
        }
    }

    @Test
    fun `messages name what this package has`() {
        val source = Files.readString(repository.resolve("ffi/src/status.rs"))
        val hints = source.substringAfter("fn with_hint(").substringBefore("\n}\n")
        val texts = Regex("\"(bolmo_[^\"]+)\"").findAll(hints).map { it.groupValues[1] }.toList()
        assertTrue(texts.size >= 3, "$texts")
        for (text in texts) {
            val message = BolmoException.of(5, "too large ($text)").message!!
            assertTrue("bolmo_" !in message && Regex("[A-Z][A-Za-z]+\\.[a-z]").containsMatchIn(message), message)
        }
    }

    @Test
    fun `foreign and damaged snapshots`() = test {
        val snapshot = withSession("abc") { it.snapshot() }
        fails<BolmoException.BadCheckpoint> { model.restore(ByteArray(0)) }
        fails<BolmoException.BadCheckpoint> { model.restore("nothing of the kind".encodeToByteArray()) }
        fails<BolmoException.BadCheckpoint> { model.restore(snapshot.copyOf(snapshot.size - 9)) }
        Model.load(trained, LoadOptions(engine = engine, format = Format.F16)).use { other ->
            fails<BolmoException.InvalidArgument> { other.restore(snapshot) }
            withSession("abc") { session ->
                other.session().use { foreign ->
                    session.checkpoint().use { mark -> fails<BolmoException.InvalidArgument> { foreign.rewind(mark) } }
                }
            }
        }
    }

    @Test
    fun `lone surrogates are refused, and invalid UTF-8 is shown`() = test {
        for ((text, index) in listOf("ab\uD800" to 2, "\uDC00" to 0, "x\uD83D\uDE00\uDE00" to 3)) {
            withSession("") { session ->
                fails<BolmoException.InvalidArgument>("lone surrogate", "index $index") { session.append(text) }
                fails<BolmoException.InvalidArgument>("lone surrogate") {
                    session.generateText(GenerateOptions(stop = listOf(text)))
                }
                assertEquals(1, session.length)
            }
            fails<BolmoException.InvalidArgument>("lone surrogate") { Constraint.regex(text) }
            fails<BolmoException.InvalidArgument>("lone surrogate") { Checkpoint.open(text) }
            fails<BolmoException.InvalidArgument>("lone surrogate") { model.score(text) }
        }
        // Bytes are the truth: these are kept as they are, and text is a view that never cuts a character.
        val bytes = listOf(0xC3, 0xE2, 0x82, 0xAC, 0xF0, 0x9F).map(Int::toByte)
        val constraint = Constraint.regex("(?s-u:\\xC3\\xE2\\x82\\xAC\\xF0\\x9F)")
        withSession("x") { session ->
            val pieces = session.generate(GenerateOptions(maxBytes = 9, constraint = constraint)).toList()
            assertEquals(bytes, pieces.flatMap { it.bytes.toList() })
            assertEquals("\uFFFD€\uFFFD", pieces.joinToString("") { it.text })
            assertEquals("\uFFFD€\uFFFD", session.lastGeneration!!.text)
        }
        constraint.close()
        Utf8Assembler().use { assembler ->
            val texts = "€a".encodeToByteArray().map { assembler.push(byteArrayOf(it)) }
            assertEquals(listOf("", "", "€", "a"), texts)
            assertEquals("", assembler.finish())
        }
    }

    @Test
    fun `constraints that can't be`() = test {
        fails<BolmoException.InvalidArgument> { Constraint.regex("(") }
        fails<BolmoException.InvalidArgument> { Constraint.jsonSchema("{") }
        fails<BolmoException> { Constraint.jsonSchema("""{"type": "object", "unevaluatedProperties": {}}""") }
        Constraint.regex("ab*").use { constraint ->
            constraint.matcher().use { matcher ->
                fails<BolmoException.InvalidArgument> { matcher.advance("x") }
                matcher.advance("ab")
                assertTrue(matcher.isMatch)
            }
        }
    }

    @Test
    fun `readers that fail`() = test {
        val config = Files.readAllBytes(trained.resolve("config.json"))
        val bytes = Files.readAllBytes(trained.resolve("model.safetensors"))
        val trouble = IOException("the card was pulled out")
        val broken = Weights.reader("weights", bytes.size.toLong()) { _, _ -> throw trouble }
        val failure = fails<BolmoException.Io>("weights", "pulled out") { Checkpoint.open(config, listOf(broken)) }
        assertSame(trouble, failure.cause)
        // Headers can be read, weights can't.
        val half = Weights.reader("weights", bytes.size.toLong()) { offset, destination ->
            if (offset > bytes.size / 2) throw trouble
            val count = minOf(destination.remaining(), bytes.size - offset.toInt())
            destination.put(bytes, offset.toInt(), count)
            count
        }
        Checkpoint.open(config, listOf(half), tokenizer()).use { checkpoint ->
            val options = LoadOptions(engine = engine)
            val late = fails<BolmoException.Io>("pulled out") { Model.load(checkpoint, options) }
            // Coroutines copy exceptions when assertions are on, and the copy's cause is the original.
            assertSame(trouble, generateSequence<Throwable>(late) { it.cause }.last())
        }
        val generous = Weights.reader("generous", bytes.size.toLong()) { _, destination -> destination.remaining() + 1 }
        fails<BolmoException.Io>("generous", "it returned") { Checkpoint.open(config, listOf(generous)) }
        fails<BolmoException> { Checkpoint.open(config, listOf(Weights.memory("empty", ByteBuffer.allocateDirect(0)))) }
        fails<BolmoException.BadCheckpoint> { Checkpoint.open("{}".encodeToByteArray(), emptyList()) }
    }

    private fun tokenizer(): Tokenizer.Contents? = trained.resolve("tokenizer.json").takeIf { Files.exists(it) }
        ?.let { Tokenizer.Contents(Files.readAllBytes(it)) }

    @Test
    fun `a device that is gone`() = test {
        val other = Engine.open(EngineOptions(adapter = adapter))
        val model = Model.load(trained, LoadOptions(engine = other))
        val session = model.session().also { it.append("abc") }
        other.destroyDevice()
        fails<BolmoException.DeviceLost> { session.generateText(maxBytes = 3) }
        fails<BolmoException.DeviceLost> { session.generate(maxBytes = 3).collect() }
        fails<BolmoException.DeviceLost> { model.session().append("x") }
        session.close()
        model.close()
        other.close()
    }
}
