package dev.bolmo

import java.nio.file.Files
import java.nio.file.Path
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

/** A tiny training run. */
class TrainerTest {
    private val config = """
        seed = 7
        [model]
        new = { hidden_size = 32, layers = 1, heads = 2, intermediate_size = 64 }
        [data]
        [batch]
        rows = 4
        subwords = 16
        [optimiser]
        steps = 1
        rate = 1e-2
        warmup = 0.05
        [every]
        evaluate_batches = 2
    """.trimIndent()

    private fun options(folder: Path) = TrainerOptions(
        kind = TrainKind.SUBWORD,
        config = config,
        overrides = mapOf(
            "optimiser.steps" to "40",
            "out" to folder.resolve("run").toString(),
            "data.tokenizer" to repository.resolve("tests/golden/infer/subword_tokenizer").toString(),
        ),
        texts = listOf("The cat sat on the mat.\nA dog ran to the door.\n<|endoftext|>\n".repeat(60)),
        heldOutTexts = listOf("A dog ran to the door.\nThe cat sat on the mat.\n".repeat(20)),
    )

    private fun number(json: String, key: String): Double =
        Regex("\"$key\":([-0-9.eE]+)").find(json)!!.groupValues[1].toDouble()

    @Test
    fun `a run steps, stops, evaluates, saves, exports and resumes`(@TempDir folder: Path) = test {
        Engine.open(EngineOptions(adapter = adapter)).use { engine ->
            assertTrue(runCatching { Trainer.create(engine, TrainerOptions(TrainKind.SUBWORD, "x = ")) }.isFailure)
            val options = options(folder)
            Trainer.create(engine, options).use { trainer ->
                val before = number(trainer.evaluate(), "loss")
                val losses = mutableListOf<Double>()
                val stopped = runCatching { trainer.step(40) { losses += number(it, "loss"); losses.size < 5 } }
                assertTrue(stopped.exceptionOrNull() is BolmoException.Cancelled, "$stopped")
                assertEquals(5, trainer.steps)
                coroutineScope {
                    val step = async(Dispatchers.Default) {
                        runCatching {
                            trainer.step(30) {
                                trainer.cancel()
                                true
                            }
                        }
                    }
                    assertTrue(step.await().exceptionOrNull() is BolmoException.Cancelled)
                }
                assertEquals(6, trainer.steps)
                trainer.step(34)
                assertEquals(40, trainer.steps)
                assertTrue(number(trainer.evaluate(), "loss") < before)
                trainer.save()
                trainer.export(folder.resolve("model").toString())
                assertTrue(Files.exists(folder.resolve("model/config.json")))
                val other = runCatching { Trainer.create(engine, options.copy(resume = true)) }.exceptionOrNull()
                assertTrue(other is BolmoException.Busy, "$other")
            }
            Trainer.create(engine, options.copy(resume = true)).use { assertEquals(40, it.steps) }
        }
        assertEquals(0, Bolmo.handleCount)
    }
}
