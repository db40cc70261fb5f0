import dev.bolmo.BolmoException
import dev.bolmo.EngineOptions
import dev.bolmo.LoadOptions
import dev.bolmo.Model
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.runBlocking
import java.io.FileDescriptor
import java.io.FileOutputStream
import java.io.IOException
import java.nio.file.Path
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.io.path.Path
import kotlin.system.exitProcess

private const val USAGE = """usage: java -jar generate.jar [OPTION…] PROMPT
  --model DIR        folder of the model (examples/demo-model)
  --max-bytes N      number of bytes to generate at most (256)
  --temperature T    0, the default, takes the most probable id
  --seed N           seed of the random numbers (0)
  --adapter NAME     part of a GPU's name, a number in `bolmo devices`, cpu, software or low-power"""

private class UsageException(message: String) : Exception(message)

private class Options(
    val prompt: String,
    val model: Path,
    val maxBytes: Int,
    val temperature: Float,
    val seed: Long,
    val adapter: String,
)

private fun parse(arguments: Array<String>): Options {
    val names = setOf("--model", "--max-bytes", "--temperature", "--seed", "--adapter")
    val values = mutableMapOf<String, String>()
    val prompts = mutableListOf<String>()
    val rest = arguments.iterator()
    while (rest.hasNext()) {
        val argument = rest.next()
        when {
            argument in names ->
                values[argument] = if (rest.hasNext()) rest.next() else throw UsageException("$argument needs a value")
            argument.startsWith("--") -> throw UsageException("unknown option $argument")
            else -> prompts += argument
        }
    }
    fun <T> number(name: String, default: T, convert: String.() -> T?): T = when (val text = values[name]) {
        null -> default
        else -> text.convert() ?: throw UsageException("$name: expected a number, found $text")
    }
    return Options(
        prompts.singleOrNull() ?: throw UsageException("expected one PROMPT, found ${prompts.size}"),
        Path(values["--model"] ?: "examples/demo-model"),
        number("--max-bytes", 256) { toIntOrNull() },
        number("--temperature", 0f) { toFloatOrNull() },
        number("--seed", 0L) { toLongOrNull() },
        values["--adapter"] ?: "",
    )
}

private suspend fun generate(options: Options) {
    // System.out has a buffer of its own, and hides errors.
    val output = FileOutputStream(FileDescriptor.out)
    val load = LoadOptions(engineOptions = EngineOptions(adapter = options.adapter))
    Model.load(options.model, load).use { model ->
        model.session().use { session ->
            session.append(options.prompt)
            session.generate(
                maxBytes = options.maxBytes,
                temperature = options.temperature,
                seed = options.seed,
            ).collect { output.write(it.bytes) }
        }
    }
}

fun main(arguments: Array<String>) {
    val options = try {
        parse(arguments)
    } catch (e: UsageException) {
        System.err.println("error: ${e.message}\n$USAGE")
        exitProcess(2)
    }
    val work = CoroutineScope(Dispatchers.Default).async { generate(options) }
    val finished = CountDownLatch(1)
    // On Ctrl-C the JVM starts to exit, with status 130, and runs this first.
    Runtime.getRuntime().addShutdownHook(
        Thread {
            work.cancel()
            finished.await(10, TimeUnit.SECONDS)
        },
    )
    val status = try {
        runBlocking { work.await() }
        0
    } catch (_: CancellationException) {
        System.err.println("\ncancelled")
        null
    } catch (e: BolmoException) {
        System.err.println("error: ${e.message}")
        1
    } catch (e: IOException) {
        System.err.println("error: standard output: ${e.message}")
        1
    } finally {
        // Also after an exception that is not expected: the hook waits for this.
        finished.countDown()
    }
    // A program that is exiting already must not ask for it again.
    if (status != null) exitProcess(status)
}
