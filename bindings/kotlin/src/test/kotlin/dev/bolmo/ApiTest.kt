package dev.bolmo

import java.lang.reflect.Modifier
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardOpenOption
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch
import kotlin.concurrent.thread
import kotlin.math.abs
import kotlin.math.ln
import kotlinx.coroutines.flow.toList
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

/** The rest of the API, once over. */
class ApiTest : ModelTest() {
    @Test
    fun `every native method is there`() {
        val declared = Native::class.java.declaredMethods.filter { Modifier.isNative(it.modifiers) }
        assertEquals(declared.size, Native.methodCount())
        assertEquals(declared.size, declared.map { it.name }.toSet().size)
    }

    @Test
    fun `adapters and engines`() {
        assertTrue(Engine.adapters("cpu").single { it.isChosen }.kind == "cpu")
        assertTrue(Engine.adapters("low-power").any { it.isChosen })
        assertTrue(engine.adapter.isUsable && engine.adapter.name.isNotEmpty() && engine.adapter.maxBufferBytes > 0)
        assertEquals(NativeLibrary.VERSION, Bolmo.version)
    }

    @Test
    fun `a kernel cache`(@TempDir folder: Path) = test {
        Engine.open(EngineOptions(adapter = adapter, kernelCache = folder.toString(), threads = 2)).use { engine ->
            Model.load(trained, LoadOptions(engine = engine)).use { model ->
                model.session().use { it.append("abc"); it.generateText(maxBytes = 3) }
            }
        }
        if (adapter != "cpu") assertTrue(Files.list(folder).use { it.count() } > 0)
    }

    @Test
    fun `checkpoints from a folder, memory and readers are the same`() = test {
        val expected = withSession("def ") { it.generateText(maxBytes = 20).text }
        val config = Files.readAllBytes(trained.resolve("config.json"))
        val file = trained.resolve("model.safetensors")
        val tokenizer = trained.resolve("tokenizer.json").takeIf { Files.exists(it) }
            ?.let { Tokenizer.Contents(Files.readAllBytes(it)) }
        FileChannel.open(file, StandardOpenOption.READ).use { channel ->
            val mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size())
            val sources = mapOf(
                "mapped" to Weights.memory("m", mapped),
                "array" to Weights.memory("m", ByteBuffer.wrap(Files.readAllBytes(file))),
                "channel" to Weights.channel("m", channel),
                "few bytes at a time" to Weights.reader("m", channel.size()) { offset, destination ->
                    if (destination.remaining() > 4096) destination.limit(destination.position() + 4096)
                    channel.read(destination, offset)
                },
            )
            for ((name, weights) in sources) {
                Checkpoint.open(config, listOf(weights), tokenizer).use { checkpoint ->
                    assertEquals(model.info.parameters, checkpoint.info.parameters)
                    val reports = mutableListOf<Progress>()
                    val loaded = Model.load(checkpoint, LoadOptions(engine = engine)) { reports += it }
                    loaded.use {
                        assertEquals(model.fingerprint, it.fingerprint, name)
                        it.session().use { session ->
                            session.append("def ")
                            assertEquals(expected, session.generateText(maxBytes = 20).text, name)
                        }
                    }
                    assertEquals(1.0, reports.last().fraction)
                }
            }
        }
        Checkpoint.open(trained).use { checkpoint ->
            assertEquals(model.deviceBytes, checkpoint.deviceBytes(Format.F32))
            assertEquals(model.mappedBytes, checkpoint.mappedBytes(model.engine, Format.F32))
            assertTrue(checkpoint.deviceBytes(Format.F16) < checkpoint.deviceBytes(Format.F32))
            assertTrue(model.sessionBytes(100) <= checkpoint.sessionBytes(100))
            assertTrue(model.info.workBytes in 1..checkpoint.info.workBytes)
            assertTrue(checkpoint.sessionBytes(1000) > checkpoint.sessionBytes(10))
            assertTrue("\"hidden_size\"" in checkpoint.configJson)
            assertEquals(model.warnings, checkpoint.warnings)
        }
    }

    @Test
    fun `the memory of a session is what was said`() = test {
        withSession("def f(x): return x\n".repeat(40)) { session ->
            val said = model.sessionBytes(session.patches)
            assertTrue(session.deviceBytes <= said, "${session.deviceBytes} of ${session.patches} patches, said $said")
        }
    }

    @Test
    fun `formats, parts and tokenizers`() = test {
        val tokenizer = repository.resolve("tests/golden/infer/subword_tokenizer")
        val options = LoadOptions.Builder().engine(engine).format(Format.Q8).partFormat(Part.LOCAL, Format.F16)
            .tokenizer(Tokenizer.Path(tokenizer.toString())).build()
        Model.load(trained, options).use { other ->
            assertTrue(other.deviceBytes < model.deviceBytes)
            assertTrue(other.fingerprint != model.fingerprint)
        }
        val contents = Tokenizer.Contents(Files.readAllBytes(tokenizer.resolve("tokenizer.json")))
        val other = LoadOptions(engine = engine, tokenizer = contents, ropeTheta = 10_000.0, ropeScaling = "none")
        Model.load(trained, other).use { it.session().use { s -> s.append("a") } }
    }

    @Test
    fun constraints() = test {
        Constraint.regex("(yes|no), because [a-z ]{3,9}\\.").use { constraint ->
            assertEquals(16, constraint.shortest)
            assertTrue(constraint.matches("yes, because abcd."))
            withSession("well: ") { session ->
                val generation = session.generateText(maxBytes = 40, constraint = constraint)
                assertTrue(generation.matched)
                assertTrue(constraint.matches(generation.bytes))
                assertEquals(StopReason.COMPLETE, generation.stop)
            }
            constraint.matcher().use { matcher ->
                val allowed = matcher.allowed()
                assertEquals(setOf('y'.code, 'n'.code), allowed.indices.filter { allowed[it] }.toSet())
                matcher.advance("yes, because abc")
                matcher.fork().use { it.advance("."); assertTrue(it.isMatch) }
                assertTrue(!matcher.isMatch)
            }
        }
        val schema = """{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}"""
        Constraint.jsonSchema(schema).use {
            withSession("{") { session ->
                val generation = session.generateText(GenerateOptions(maxBytes = 30, constraint = it))
                assertTrue(it.matches(generation.text), generation.text)
            }
        }
    }

    @Test
    fun `stop strings and reasons`() = test {
        withSession("def f(x):\n    return") { session ->
            val free = session.fork().use { it.generateText(maxBytes = 40).text }
            val stop = free.substring(8, 11)
            val generation = session.generateText(maxBytes = 40, stop = listOf(stop))
            assertEquals(StopReason.STOP_STRING, generation.stop)
            assertEquals("stop-string", generation.stop.toString())
            assertEquals(free.substringBefore(stop), generation.text)
        }
    }

    @Test
    fun `log-probabilities`() = test {
        val text = "def f(x):\n    return x\n"
        val score = model.score(text)
        assertEquals(text.length.toLong(), score.bytes)
        assertEquals(text.length, score.jointLogprobs.size)
        assertTrue(abs(score.jointLogprobs.sum() - score.logLikelihoodJoint) < 1e-3 * text.length)
        assertTrue(abs(score.foldedLogprobs.sum() - score.logLikelihoodFolded) < 1e-3 * text.length)
        assertEquals(score.bitsPerByteFolded, -score.logLikelihoodFolded / ln(2.0) / text.length, 1e-6)
        assertTrue(score.tensors.isEmpty())
        val full = model.score(text.encodeToByteArray(), ScoreOptions(tensors = true))
        val hidden = model.info.hiddenSize
        assertEquals(hidden, full.tensors.getValue(TensorKind.ENCODER_OUT).columns)
        assertEquals(520, full.tensors.getValue(TensorKind.LOGITS).columns)
        val patches = full.tensors.getValue(TensorKind.PATCH_EMBEDDINGS).rows
        assertEquals(patches, full.tensors.getValue(TensorKind.GLOBAL_OUT).rows)
        val every = BooleanArray(text.length) { true }
        assertTrue(model.score(text.encodeToByteArray(), ScoreOptions(boundaries = every)).patches > score.patches)
        assertEquals(3, model.scoreIds(intArrayOf(1, 104, 105, 106)).bytes)
        withSession(text) { session ->
            val generation = session.generateText(GenerateOptions(maxBytes = 10, logprobs = true))
            assertEquals(generation.ids.size, generation.jointLogprobs!!.size)
            val pairs = generation.foldedLogprobs!!.zip(generation.jointLogprobs)
            assertTrue(pairs.all { (folded, joint) -> folded <= 1e-4f && folded >= joint - 1e-3f }, pairs.toString())
            assertEquals(null, session.generateText(maxBytes = 2).jointLogprobs)
        }
        val failure = runCatching { model.score("x".repeat(20_000)) { error("enough") } }.exceptionOrNull()
        assertEquals("enough", failure!!.message)
    }

    @Test
    fun `the log`() = test {
        val lines = ConcurrentLinkedQueue<String>()
        Bolmo.setLogger(LogLevel.TRACE) { level, message -> lines += "$level $message" }
        Engine.open(EngineOptions(adapter = adapter)).use { engine ->
            Model.load(trained, LoadOptions(engine = engine)).use { it.session().use { s -> s.append("abc") } }
        }
        Bolmo.setLogger(LogLevel.OFF, null)
        val count = lines.size
        assertTrue(count > 0)
        withSession("abc") { it.generateText(maxBytes = 3) }
        assertEquals(count, lines.size)
    }

    @Test
    fun `a logger that another one replaces while it does the same`() = test {
        val (called, replacing) = List(2) { CountDownLatch(1) }
        var failure: Throwable? = null
        Bolmo.setLogger(LogLevel.TRACE) { _, _ ->
            if (called.count > 0) {
                called.countDown()
                replacing.await()
                Thread.sleep(100)
                failure = runCatching { Bolmo.setLogger(LogLevel.OFF, null) }.exceptionOrNull()
            }
        }
        val work = thread {
            val options = LoadOptions(engineOptions = EngineOptions(adapter = adapter))
            Model.loadBlocking(trained, options).use { it.session().use { s -> s.appendBlocking("abc") } }
        }
        called.await()
        val other = thread(isDaemon = true) {
            replacing.countDown()
            Bolmo.setLogger(LogLevel.OFF, null)
        }
        for (thread in listOf(work, other)) thread.join(20_000)
        assertTrue(failure is BolmoException.Busy, "$failure")
        assertTrue(!work.isAlive && !other.isAlive)
    }

    @Test
    fun `progress is readable while a session is in use`() = test {
        withSession("x") { session ->
            var seen = 0L
            session.append("def f(x): return x\n".repeat(300)) {
                seen = maxOf(seen, session.progress.done)
                assertEquals(5700, session.progress.total)
                assertTrue(session.length > 0 && session.patches >= 0 && session.deviceBytes > 0)
            }
            assertTrue(seen > 0)
            assertEquals(5700, session.progress.done)
        }
    }

    @Test
    fun `ids and text of pieces`() = test {
        withSession("Größe: €") { session ->
            val pieces = session.generate(maxBytes = 30).toList()
            for (piece in pieces) {
                assertEquals(piece.bytes.size, piece.ids.size)
                for ((byte, id) in piece.bytes.zip(piece.ids.toList())) assertEquals(byte.toInt() and 255, id % 260 - 4)
                assertEquals(piece.endsPatch, piece.ids.lastOrNull().let { it != null && it >= 260 })
            }
        }
    }

    @Test
    fun batches() = test {
        val prompts = List(4) { "def function_$it(" }
        val options = List(4) { GenerateOptions(maxBytes = 10 + 5 * it, endBias = -1000f) }
        val alone = prompts.zip(options).map { (p, o) -> withSession(p) { it.generateText(o).text } }
        val sessions = prompts.map { prompt -> model.session().also { it.append(prompt) } }
        val pieces = model.generateBatch(sessions, options).toList()
        val together = List(4) { i -> pieces.filter { it.index == i }.joinToString("") { it.piece?.text ?: "" } }
        assertEquals(alone, together)
        assertEquals(4, pieces.count { it.piece == null })
        assertEquals(alone, sessions.map { it.lastGeneration!!.text })
        sessions.forEach { it.close() }

        Batch().use { batch ->
            val joining = prompts.map { prompt -> model.session().also { it.append(prompt) } }
            assertEquals(0, batch.add(joining[0], options[0]))
            assertTrue(runCatching { joining[0].append("x") }.exceptionOrNull() is BolmoException.Busy)
            assertTrue(runCatching { batch.generation(0) }.exceptionOrNull() is BolmoException.Busy)
            var added = 1
            // The others join while the first one runs, and the second is cancelled.
            batch.run().collect {
                if (added < 4) assertEquals(added, batch.add(joining[added], options[added++]))
                if (it.index == 1) joining[1].cancel()
                if (it.index == 0 && it.piece == null) joining[0].push(5)
            }
            val results = List(4) { batch.generation(it) }
            assertEquals(listOf(alone[0], alone[2], alone[3]), listOf(0, 2, 3).map { results[it].text })
            assertEquals(StopReason.CANCELLED, results[1].stop)
            assertTrue(runCatching { batch.generation(0) }.exceptionOrNull() is BolmoException.NotFound)
            joining.forEach { it.generateText(maxBytes = 2) }
            // A batch that is never run, and one whose collector leaves.
            batch.add(joining[0])
            batch.add(joining[1], GenerateOptions(maxBytes = 1_000_000, endBias = -1000f))
            assertNotNull(runCatching { batch.run().collect { error("enough") } }.exceptionOrNull())
            joining.take(2).forEach { it.append("x") }
            batch.add(joining[2])
            batch.close()
            joining[2].append("x")
            joining.forEach { it.close() }
        }
    }

    @Test
    fun `suspend, resume and trim`() = test {
        withSession("def ") { session ->
            val expected = session.fork().use { it.generateText(maxBytes = 20).text }
            engine.suspend()
            engine.suspend()
            val calls = listOf<suspend () -> Any>(
                { session.append("x") },
                { session.generateText() },
                { session.logits() },
            )
            for (call in calls) {
                val failure = runCatching { call() }.exceptionOrNull()
                assertTrue(failure is BolmoException.Suspended, "$failure")
            }
            engine.resume()
            assertEquals(expected, session.generateText(maxBytes = 20).text)
            assertTrue(engine.trim() >= 0)
            session.append("x")
        }
    }

    @Test
    fun merging(@TempDir folder: Path) = test {
        val base = "/nowhere/base"
        val options = MergeOptions(trained.toString(), base, "/nowhere/post", alpha = 0.5f, embeddings = true)
        val failure = runCatching { merge(options, folder.resolve("out").toString()) }.exceptionOrNull()
        assertTrue(failure is BolmoException.NotFound && "/nowhere/" in failure.message!!, "$failure")
    }

    @Test
    fun `snapshots are bytes`() = test {
        val snapshot = withSession("abc") { it.snapshot() }
        assertArrayEquals(snapshot, withSession("abc") { it.snapshotBlocking() })
        val copy = Files.createTempFile("session", ".bolmo")
        Files.write(copy, snapshot)
        model.restoreBlocking(Files.readAllBytes(copy)).use { assertEquals(4, it.length) }
        Files.delete(copy)
    }
}
