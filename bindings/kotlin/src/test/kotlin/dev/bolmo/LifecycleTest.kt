package dev.bolmo

import java.nio.file.Files
import java.nio.file.Path
import kotlin.concurrent.thread
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.withContext
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Closing, collecting, and what is left over. */
class LifecycleTest : ModelTest() {
    private val endless = GenerateOptions(maxBytes = 1_000_000, endBias = -1000f)

    @Test
    fun `close twice, and by several threads`() = test {
        val session = model.session()
        val count = Bolmo.handleCount
        List(8) { thread { session.close() } }.forEach(Thread::join)
        session.close()
        assertTrue(session.isClosed)
        assertEquals(count - 1, Bolmo.handleCount)
        val failure = assertThrows(IllegalStateException::class.java) { session.appendBlocking("x") }
        assertEquals("the Session is closed", failure.message)
        assertThrows(IllegalStateException::class.java) { session.generateBlocking() }
        session.cancel()
    }

    @Test
    fun `close in a callback ends the call`() = test {
        val count = Bolmo.handleCount
        val session = model.session().also { it.append("def ") }
        val pieces = session.generate(endless).let { flow ->
            val pieces = mutableListOf<Piece>()
            flow.collect {
                pieces += it
                if (pieces.size == 2) session.close()
            }
            pieces
        }
        assertEquals(2, pieces.size)
        assertEquals(StopReason.CANCELLED, session.lastGeneration!!.stop)
        val other = model.session().also { it.append("def ") }
        var seen = 0
        val generation = other.generateBlocking(endless) {
            seen++
            other.close()
            true
        }
        assertEquals(1, seen)
        assertEquals(StopReason.CANCELLED, generation.stop)
        val third = model.session()
        val failure = runCatching { third.append("x".repeat(50_000)) { third.close() } }.exceptionOrNull()
        assertTrue(failure is BolmoException.Cancelled, "$failure")
        assertEquals(count, Bolmo.handleCount)
    }

    @Test
    fun `close of the model and its engine in mid-stream`() = test {
        val other = Model.load(trained.toFile(), LoadOptions(engineOptions = EngineOptions(adapter = adapter)))
        val session = other.session().also { it.append("def ") }
        var pieces = 0
        session.generate(GenerateOptions(maxBytes = 30, endBias = -1000f)).collect { if (pieces++ == 0) other.close() }
        assertEquals(StopReason.BUDGET, session.lastGeneration!!.stop)
        session.generateText(maxBytes = 3)
        session.close()
        assertThrows(IllegalStateException::class.java) { other.session() }
    }

    @Test
    fun `collected objects are freed`() = test {
        val before = Bolmo.handleCount
        fun forget() = repeat(20) {
            model.session()
            Constraint.regex("a|b")
            Utf8Assembler().push(byteArrayOf(65))
        }
        forget()
        awaitCollected(before)
    }

    /** Resident memory of this process in MiB, where the system tells. */
    private fun resident(): Long {
        val status = Path.of("/proc/self/status")
        if (!Files.exists(status)) return 0
        return Files.readAllLines(status).first { it.startsWith("VmRSS") }.filter(Char::isDigit).toLong() / 1024
    }

    private fun heap(): Long {
        System.gc()
        return Runtime.getRuntime().run { totalMemory() - freeMemory() } shr 20
    }

    @Test
    fun `200 generations leave nothing`() = test {
        val handles = Bolmo.handleCount
        suspend fun generate() = withSession("def ") {
            it.generate(maxBytes = 20, stop = listOf("zzz")).toList()
            it.generateText(maxBytes = 5)
        }
        repeat(50) { generate() }
        val (heapBefore, residentBefore) = heap() to resident()
        repeat(150) {
            generate()
            assertEquals(handles, Bolmo.handleCount)
        }
        val (heapGrowth, residentGrowth) = heap() - heapBefore to resident() - residentBefore
        println("150 generations: heap +$heapGrowth MiB, resident +$residentGrowth MiB")
        assertTrue(heapGrowth <= 8, "the heap has grown by $heapGrowth MiB")
        assertTrue(residentGrowth <= 64, "memory has grown by $residentGrowth MiB")
    }

    @Test
    fun `a listener that throws leaves nothing but its result`() = test {
        withSession("def ") { session ->
            val count = Bolmo.handleCount
            val failure = runCatching { session.generateBlocking(endless) { error("enough") } }.exceptionOrNull()
            assertEquals("enough", failure!!.message)
            assertEquals(StopReason.CANCELLED, session.lastGeneration!!.stop)
            assertTrue(session.lastGeneration!!.bytes.isNotEmpty())
            assertEquals(count, Bolmo.handleCount)
            // An exception that reaches the native side, as one of the JVM may.
            val native = runCatching {
                session.withHandle { handle ->
                    endless.native { Native.sessionGenerate(handle, it) { _, _, _, _ -> error("enough") } }
                }
            }
            assertEquals("enough", native.exceptionOrNull()!!.message)
            assertEquals(count, Bolmo.handleCount)
            // At the end of the work, when there is a result.
            val atEnd = ProgressListener { if (it.done == it.total) error("enough") }
            assertEquals("enough", runCatching { model.score("abc", onProgress = atEnd) }.exceptionOrNull()?.message)
            assertEquals(count, Bolmo.handleCount)
            val ids = intArrayOf(1, 104, 105, 106)
            assertEquals("enough", runCatching { model.scoreIds(ids, onProgress = atEnd) }.exceptionOrNull()?.message)
            assertEquals(count, Bolmo.handleCount)
            val options = LoadOptions(engine = engine)
            assertEquals("enough", runCatching { Model.load(trained, options, atEnd) }.exceptionOrNull()?.message)
            assertEquals(count, Bolmo.handleCount)
        }
    }

    @Test
    fun `a listener that refuses a piece gets no more`() = test {
        withSession("def ") { session ->
            // Only beginnings of characters: the text has one that is cut at its end.
            val options = GenerateOptions(maxBytes = 20, byteBias = mapOf(0xC3 to 1000f), endBias = -1000f)
            var seen = 0
            val generation = session.generateBlocking(options) {
                seen++
                false
            }
            assertEquals(1, seen)
            assertEquals(0xC3.toByte(), generation.bytes.last())
        }
    }

    @Test
    fun `a session counts as closed before its call is cancelled`() {
        val session = model.session()
        var closed: Boolean? = null
        session.enter(Call(request = { closed = session.isClosed }, withdraw = {}))
        session.close()
        assertEquals(true, closed)
    }

    @Test
    fun `an object in use is not collected`() = test {
        val before = Bolmo.handleCount
        val options = GenerateOptions(maxBytes = 8, endBias = -1000f)
        var count = 0L
        // Nobody but the call has the session.
        fun generate() = model.session().also { it.appendBlocking("def ") }.generateBlocking(options) {
            if (count == 0L) count = Bolmo.handleCount
            repeat(3) {
                System.gc()
                Thread.sleep(20)
            }
            assertEquals(count, Bolmo.handleCount)
            true
        }
        assertEquals(8, generate().bytes.size)
        assertTrue(count > before)
        awaitCollected(before)
    }

    /** Waits until no more than [count] objects are left. */
    private fun awaitCollected(count: Long) {
        repeat(200) {
            if (Bolmo.handleCount == count) return
            System.gc()
            Thread.sleep(50)
        }
        assertEquals(count, Bolmo.handleCount)
    }

    @Test
    fun `8 coroutines over one model`() = test {
        val prompts = List(8) { "def function_$it(" }
        val alone = prompts.map { withSession(it) { s -> s.generateText(maxBytes = 30).text } }
        val together = coroutineScope {
            prompts.map { prompt ->
                async(Dispatchers.Default) {
                    withSession(prompt) { s -> s.generate(maxBytes = 30).toList().joinToString("") { it.text } }
                }
            }.awaitAll()
        }
        assertEquals(alone, together)
    }

    @Test
    fun `the work is never done on the caller's thread`() = test {
        withContext(Dispatchers.Default) {
            withSession("def ") { session ->
                val threads = mutableSetOf<Thread>()
                session.append("x") { threads += Thread.currentThread() }
                session.generateText(GenerateOptions(maxBytes = 4)) { threads.add(Thread.currentThread()) }
                assertTrue(threads.isNotEmpty())
                assertTrue(threads.all { it.isDaemon && it.name.startsWith("bolmo-") }, "$threads")
            }
        }
    }

    @Test
    fun `a model whose load is cancelled leaves nothing`() = test {
        val before = Bolmo.handleCount
        val options = LoadOptions(engine = engine)
        val failure = runCatching { Model.load(trained, options) { error("enough ${it.fraction}") } }
        assertTrue(failure.exceptionOrNull()!!.message!!.startsWith("enough "))
        assertEquals(before, Bolmo.handleCount)
    }
}
