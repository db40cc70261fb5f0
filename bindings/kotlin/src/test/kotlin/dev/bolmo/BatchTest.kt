package dev.bolmo

import kotlinx.coroutines.flow.toList
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Batches: who may use a session when, and what their ends leave. */
class BatchTest : ModelTest() {
    private val endless = GenerateOptions(maxBytes = 1_000_000, endBias = -1000f)

    private fun bytes(count: Int) = GenerateOptions(maxBytes = count, endBias = -1000f)

    @Test
    fun `a run that has ended cancels nothing`() = test {
        var cancels = 0
        val pieces = List(2) { BatchPiece(it, null) }
        val received = batchFlow({ cancels++ }) { receive -> pieces.forEach { receive(it) } }.toList()
        assertEquals(pieces, received)
        assertEquals(0, cancels)
        val failure = runCatching { batchFlow({ cancels++ }) { it(pieces[0]) }.collect { error("enough") } }
        assertEquals("enough", failure.exceptionOrNull()!!.message)
        assertEquals(1, cancels)
    }

    @Test
    fun `a second run is refused, and close ends the first one`() = test {
        val count = Bolmo.handleCount
        val session = model.session().also { it.append("def ") }
        val batch = Batch()
        batch.add(session, endless)
        var seen = 0
        batch.runBlocking {
            if (++seen == 2) {
                assertThrows(BolmoException.Busy::class.java) { batch.runBlocking { true } }
                batch.close()
            }
            seen < 1000
        }
        assertTrue(seen < 100, "$seen pieces")
        assertThrows(IllegalStateException::class.java) { batch.runBlocking { true } }
        session.append("x")
        assertEquals(3, session.generateText(bytes(3)).bytes.size)
        session.close()
        assertEquals(count, Bolmo.handleCount)
    }

    @Test
    fun `each result is there at its end, and is not replaced by an older one`() = test {
        val count = Bolmo.handleCount
        withSession("def ") { short ->
            withSession("class ") { long ->
                model.generateBatch(listOf(short, long), listOf(bytes(5), bytes(60))).collect {
                    if (it.piece == null && it.index == 0) {
                        assertEquals(5, short.lastGeneration!!.bytes.size)
                        assertEquals(3, short.generateText(bytes(3)).bytes.size)
                    }
                }
                assertEquals(3, short.lastGeneration!!.bytes.size)
                assertEquals(60, long.lastGeneration!!.bytes.size)
            }
        }
        assertEquals(count, Bolmo.handleCount)
    }

    @Test
    fun `a session's last generation is that of its batch`() = test {
        withSession("def ") { session ->
            session.generateText(bytes(7))
            Batch().use { batch ->
                batch.add(session, bytes(20))
                batch.run().collect { if (it.piece == null) assertEquals(20, session.lastGeneration!!.bytes.size) }
                assertEquals(20, session.lastGeneration!!.bytes.size)
                assertEquals(20, batch.generation(0).bytes.size)
                assertThrows(BolmoException.NotFound::class.java) { batch.generation(0) }
            }
            val more = runCatching { model.generateBatch(listOf(session), List(2) { bytes(4) }).toList() }
            assertTrue(more.exceptionOrNull() is BolmoException.InvalidArgument, "$more")
            session.append("x")
        }
    }

    @Test
    fun `one that fails doesn't affect the others`() = test {
        withSession("def ") { session ->
            model.session(bos = false).use { empty ->
                val options = List(2) { bytes(4) }
                val failure = runCatching { model.generateBatch(listOf(empty, session), options).toList() }
                assertTrue(failure.exceptionOrNull() is BolmoException.InvalidArgument, "$failure")
                assertEquals(4, session.lastGeneration!!.bytes.size)
                assertEquals(null, empty.lastGeneration)
                empty.append("abc")
            }
            val twice = runCatching { model.generateBatch(listOf(session, session)).toList() }
            assertTrue(twice.exceptionOrNull() is BolmoException.Busy, "$twice")
            session.append("x")
        }
    }

    @Test
    fun `a listener that throws or refuses ends generations, which leave nothing`() = test {
        val count = Bolmo.handleCount
        withSession("def ") { first ->
            withSession("class ") { second ->
                val sessions = listOf(first, second)
                val options = listOf(endless, endless)
                val failure = assertThrows(IllegalStateException::class.java) {
                    model.generateBatchBlocking(sessions, options) { error("enough") }
                }
                assertEquals("enough", failure.message)
                for (session in sessions) assertEquals(StopReason.CANCELLED, session.lastGeneration!!.stop)
                val pieces = IntArray(2)
                val ends = IntArray(2)
                model.generateBatchBlocking(sessions, options) {
                    if (it.piece == null) ends[it.index]++ else pieces[it.index]++
                    pieces[it.index] <= 3 * it.index
                }
                assertEquals(listOf(1, 4), pieces.toList())
                assertEquals(listOf(1, 1), ends.toList())
                sessions.forEach { it.append("x") }
            }
        }
        assertEquals(count, Bolmo.handleCount)
    }
}
