package dev.bolmo

import java.util.concurrent.atomic.AtomicBoolean
import kotlin.concurrent.thread
import kotlin.math.max
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.withTimeoutOrNull
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Every means to cancel, in prefill and in decode: how soon the native side is idle, and whether the session works. */
class CancelTest : ModelTest() {
    /** Number of ids of "def ". */
    private val promptIds = 5
    private val endless = GenerateOptions(maxBytes = 1_000_000, endBias = -1000f)
    private val line = "    for line in self.lines: yield line.rstrip()\n"
    private val long = line.repeat(200_000 / line.length)

    /** Starts, lets the work go on for a while, asks for its end, and returns the milliseconds until it has ended. */
    private suspend fun measured(start: suspend () -> Unit, ask: (Job) -> Unit): Double = coroutineScope {
        val job = launch(Dispatchers.Default) { start() }
        delay((60 * slowFactor).toLong())
        assertTrue(job.isActive, "the work ended by itself")
        val asked = System.nanoTime()
        ask(job)
        job.join()
        (System.nanoTime() - asked) / 1e6
    }

    /** The bound in milliseconds: 100, or two of the longest submissions where the machine is busy. */
    private fun bound(longest: Double): Double = max(100 * slowFactor, 2 * longest)

    /** The longest time between two reports of progress. */
    private suspend fun longestChunk(): Double = model.session().use { session ->
        var last = System.nanoTime()
        var longest = 0.0
        session.append(long.take(10_000)) {
            val now = System.nanoTime()
            longest = max(longest, (now - last) / 1e6)
            last = now
        }
        longest
    }

    /** The session continues as one with the same ids does, of which the first [appended] were appended. */
    private suspend fun assertUsable(session: Session, what: String, appended: Int = session.length.toInt()) {
        val ids = session.ids()
        val options = GenerateOptions(maxBytes = 12, endBias = -1000f)
        session.append("\ndef ")
        val text = session.generateText(options)
        model.session(bos = false).use { fresh ->
            fresh.appendIds(ids.take(appended).map { it % FUSED_OFFSET }.toIntArray())
            if (appended < ids.size) fresh.logits()
            ids.drop(appended).forEach { fresh.push(it.toInt()) }
            fresh.append("\ndef ")
            val expected = fresh.generateText(options)
            assertEquals(12, text.bytes.size, what)
            assertEquals(expected.text, text.text, what)
            assertEquals(fresh.ids().toList(), session.ids().toList(), what)
        }
    }

    /** Up to three rounds, since other programs may take the processors for a while. */
    private suspend fun inTime(what: String, round: suspend () -> Double) {
        val times = mutableListOf<Double>()
        repeat(3) {
            times += round()
            val limit = if (times.last() <= 100 * slowFactor) 100 * slowFactor else bound(longestChunk())
            if (times.last() <= limit) {
                println("$what: the native side was idle after ${"%.1f".format(times.last())} ms (at most $limit)")
                return
            }
        }
        throw AssertionError("$what: took $times ms")
    }

    @Test
    fun `cancelled in prefill`() = test {
        inTime("append, job cancelled") {
            model.session().use { session ->
                val time = measured({ session.append(long) }, Job::cancel)
                assertTrue(session.length in 1 until long.length)
                assertUsable(session, "append, job cancelled")
                time
            }
        }
        inTime("append, withTimeout") {
            model.session().use { session ->
                val wanted = (60 * slowFactor).toLong()
                val start = System.nanoTime()
                assertEquals(null, withTimeoutOrNull(wanted) { session.append(long) })
                val time = (System.nanoTime() - start) / 1e6 - wanted
                assertUsable(session, "append, withTimeout")
                time
            }
        }
        inTime("append, Session.cancel") {
            model.session().use { session ->
                var failure: Throwable? = null
                val append = suspend { failure = runCatching { session.append(long) }.exceptionOrNull() }
                val time = measured(append) { session.cancel() }
                assertTrue(failure is BolmoException.Cancelled, "$failure")
                assertUsable(session, "append, Session.cancel")
                time
            }
        }
        inTime("append, exception in the listener") {
            model.session().use { session ->
                var asked = 0L
                val failure = runCatching {
                    session.append(long) {
                        if (it.done > 2000) {
                            asked = System.nanoTime()
                            error("enough")
                        }
                    }
                }.exceptionOrNull()
                val time = (System.nanoTime() - asked) / 1e6
                assertEquals("enough", failure?.message)
                assertUsable(session, "append, exception in the listener")
                time
            }
        }
    }

    @Test
    fun `a session that is cancelled or closed says so`() = test {
        coroutineScope {
            val session = model.session()
            val append = async(Dispatchers.Default) { runCatching { session.append(long) }.exceptionOrNull() }
            delay(60)
            session.cancel()
            assertTrue(append.await() is BolmoException.Cancelled)
            val again = async(Dispatchers.Default) { runCatching { session.append(long) }.exceptionOrNull() }
            delay(60)
            session.close()
            val failure = again.await()
            assertTrue(failure is BolmoException.Cancelled, "$failure")
            assertThrows(IllegalStateException::class.java) { session.length }
        }
    }

    @Test
    fun `cancelled in decode`() = test {
        for ((name, work) in listOf<Pair<String, suspend (Session) -> Unit>>(
            "generate" to { it.generate(endless).collect {} },
            "generate with a slow collector" to { it.generate(endless).collect { delay(5) } },
            "generateText" to { it.generateText(endless) },
        )) {
            inTime("$name, job cancelled") {
                withSession("def ") { session ->
                    measured({ work(session) }, Job::cancel).also { assertUsable(session, name, promptIds) }
                }
            }
            inTime("$name, withTimeout") {
                withSession("def ") { session ->
                    val start = System.nanoTime()
                    assertEquals(null, withTimeoutOrNull(50) { work(session) })
                    val time = (System.nanoTime() - start) / 1e6 - 50
                    assertEquals(StopReason.CANCELLED, session.lastGeneration!!.stop)
                    assertUsable(session, name, promptIds)
                    time
                }
            }
            inTime("$name, Session.cancel") {
                withSession("def ") { session ->
                    val time = measured({ work(session) }) { session.cancel() }
                    assertUsable(session, name, promptIds)
                    time
                }
            }
            inTime("$name, Session.close") {
                val session = model.session().also { it.append("def ") }
                measured({ work(session) }) { session.close() }
            }
        }
    }

    @Test
    fun `a collector that leaves has what the session holds`() = test {
        withSession("def ") { session ->
            val before = session.length
            val first = session.generate(endless).first()
            assertEquals(before + first.bytes.size, session.length)
            val taken = session.generate(endless).take(3).toList()
            assertEquals(before + first.bytes.size + taken.sumOf { it.bytes.size }, session.length)
            assertEquals(StopReason.CANCELLED, session.lastGeneration!!.stop)
            val failure = runCatching { session.generate(endless).collect { error("enough") } }.exceptionOrNull()
            assertEquals("enough", failure?.message)
            assertUsable(session, "exception in the collector", promptIds)
        }
    }

    @Test
    fun `the native side waits for the collector`() = test {
        withSession("def ") { session ->
            val before = session.length
            var bytes = 0
            session.generate(GenerateOptions(maxBytes = 40, endBias = -1000f)).collect {
                bytes += it.bytes.size
                delay(20)
                // Nothing was generated meanwhile; what is progress is readable while the session is in use.
                assertTrue(session.progress.done <= bytes, "${session.progress} after $bytes")
            }
            assertEquals(before + bytes, session.length)
        }
    }

    @Test
    fun `a cancel without a call, or after one, is not kept for the next`() = test {
        withSession("def ") { session ->
            session.cancel()
            assertEquals(StopReason.BUDGET, session.generateText(GenerateOptions(maxBytes = 5, endBias = -1000f)).stop)
            val cancelling = thread {
                repeat(2000) {
                    session.cancel()
                    Thread.sleep(0, 50_000)
                }
            }
            var cancelled = 0
            repeat(200) {
                try {
                    session.append("c")
                } catch (_: BolmoException.Cancelled) {
                    cancelled++
                }
            }
            cancelling.join()
            println("$cancelled of 200 short calls were cancelled")
            session.append("x")
            assertEquals(StopReason.BUDGET, session.generateText(GenerateOptions(maxBytes = 5, endBias = -1000f)).stop)
        }
    }

    @Test
    fun `a call that is cancelled before it begins says so`() = test {
        withSession("def ") { session ->
            val call = session.newCall()
            call.cancel()
            assertThrows(BolmoException.Cancelled::class.java) { session.enter(call) }
            val cancelling = AtomicBoolean(true)
            val other = thread { while (cancelling.get()) session.cancel() }
            val options = GenerateOptions(maxBytes = 1, endBias = -1000f)
            try {
                // No exception, whenever it is cancelled.
                repeat(500) {
                    session.generate(options).collect {}
                    val stop = session.generateBlocking(options).stop
                    assertTrue(stop == StopReason.CANCELLED || stop == StopReason.BUDGET, "$stop")
                }
            } finally {
                cancelling.set(false)
                other.join()
            }
            assertEquals(StopReason.BUDGET, session.generateText(options).stop)
        }
    }

    @Test
    fun `a second call is refused, and doesn't end the first`() = test {
        withSession("def ") { session ->
            coroutineScope {
                val started = CompletableDeferred<Unit>()
                val first = async(Dispatchers.Default) {
                    session.generate(GenerateOptions(maxBytes = 40, endBias = -1000f)).onEach { started.complete(Unit) }
                        .toList().sumOf { it.bytes.size }
                }
                started.await()
                val failure = runCatching { session.append("x") }.exceptionOrNull()
                assertTrue(failure is BolmoException.Busy || first.isCompleted, "$failure")
                assertEquals(40, first.await())
            }
        }
        withSession("def ") { session ->
            session.generate(maxBytes = 8).collect {
                assertTrue(runCatching { session.append("x") }.exceptionOrNull() is BolmoException.Busy)
            }
        }
    }
}
