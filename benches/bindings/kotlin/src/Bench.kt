// For each line of standard input, generates from one state, and prints the process's CPU time per byte in seconds.
// usage: Bench MODEL_FOLDER BYTES

import com.sun.management.OperatingSystemMXBean
import dev.bolmo.EngineOptions
import dev.bolmo.GenerateOptions
import dev.bolmo.LoadOptions
import dev.bolmo.Model
import java.lang.management.ManagementFactory
import java.util.Locale
import kotlin.io.path.Path

private val process = ManagementFactory.getPlatformMXBean(OperatingSystemMXBean::class.java)

suspend fun main(arguments: Array<String>) {
    val (folder, bytes) = arguments
    val options = GenerateOptions(maxBytes = bytes.toInt(), endBias = -1000f)
    Model.load(Path(folder), LoadOptions(engineOptions = EngineOptions(adapter = "cpu"))).use { model ->
        model.session().use { session ->
            session.append("This is a story about Mia,")
            session.checkpoint().use { start ->
                while (readlnOrNull() != null) {
                    session.rewind(start)
                    var received = 0
                    val begin = process.processCpuTime
                    session.generate(options).collect { received += it.bytes.size }
                    val seconds = 1e-9 * (process.processCpuTime - begin)
                    println("%.9f".format(Locale.ROOT, seconds / received))
                }
            }
        }
    }
}
