package org.example.app

import android.app.ActivityManager
import android.content.ContentResolver
import android.content.Context
import android.database.Cursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.os.PowerManager
import android.provider.DocumentsContract
import androidx.lifecycle.LifecycleOwner
import dev.bolmo.BolmoException
import dev.bolmo.Checkpoint
import dev.bolmo.Engine
import dev.bolmo.EngineOptions
import dev.bolmo.Format
import dev.bolmo.LoadOptions
import dev.bolmo.Model
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeoutOrNull
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.FileDescriptor
import java.io.FileNotFoundException
import java.io.IOException
import java.io.RandomAccessFile
import java.util.concurrent.Executor

/** What an app needs, as README.md has it, with stand-ins for Android. */
class AppTest {
    @TempDir
    lateinit var cache: File

    private val folder = File("../../examples/demo-model")
    private val prompt = "This is a story about Mia,"
    private val owner = LifecycleOwner { throw UnsupportedOperationException() }

    /** Android, with free memory, a battery, a temperature and documents. */
    private inner class Phone(
        private val resolver: ContentResolver? = null,
        private val freeBytes: Long = 0,
        private val savesPower: Boolean = false,
    ) : Context() {
        val listeners = mutableSetOf<PowerManager.OnThermalStatusChangedListener>()

        private val activities = object : ActivityManager() {
            override fun getMemoryInfo(info: MemoryInfo) {
                info.availMem = freeBytes + 1000
                info.threshold = 1000
            }
        }

        private val power = object : PowerManager() {
            override fun isPowerSaveMode() = savesPower

            override fun addThermalStatusListener(executor: Executor, listener: OnThermalStatusChangedListener) {
                listeners.add(listener)
            }

            override fun removeThermalStatusListener(listener: OnThermalStatusChangedListener) {
                listeners.remove(listener)
            }
        }

        override fun <T> getSystemService(service: Class<T>): T =
            service.cast(if (service == PowerManager::class.java) power else activities)

        override fun getCacheDir(): File = cache

        override fun getContentResolver(): ContentResolver = resolver!!

        override fun getMainExecutor(): Executor = Executor { it.run() }
    }

    /** The documents of a provider: the files of [folder]. */
    private class Documents(private val folder: File, private val areFiles: Boolean = true) : ContentResolver() {
        var open = 0

        override fun query(
            uri: Uri,
            columns: Array<String>,
            selection: String?,
            arguments: Array<String>?,
            order: String?,
        ) = object : Cursor {
            private val files = folder.listFiles()!!
            private var row = -1

            override fun moveToNext() = ++row < files.size

            override fun getString(column: Int) = when (columns[column]) {
                DocumentsContract.Document.COLUMN_DISPLAY_NAME -> files[row].name
                else -> "id-of-" + files[row].name
            }

            override fun close() = Unit
        }

        override fun openFileDescriptor(uri: Uri, mode: String): ParcelFileDescriptor {
            val file = RandomAccessFile(File(folder, uri.toString().substringAfter("/document/id-of-")), mode)
            open++
            return object : ParcelFileDescriptor() {
                private var closed = false

                override fun getFileDescriptor(): FileDescriptor = file.fd

                override fun getStatSize() = if (areFiles) file.length() else -1

                // Called again by the stream that owns it.
                override fun close() {
                    if (closed) return
                    closed = true
                    file.close()
                    open--
                }
            }
        }
    }

    private fun load(engine: Engine) = Model.loadBlocking(folder.path, LoadOptions(engine = engine))

    @Test
    fun `the device is frugal in power save mode`() = runBlocking {
        openEngine(Phone(savesPower = true)).use { frugal ->
            val expected = Engine.adapters("low-power").single { it.isChosen }
            assertEquals(expected.name, frugal.adapter.name)
        }
        openEngine(Phone()).use { best ->
            assertEquals(Engine.adapters().single { it.isChosen }.name, best.adapter.name)
        }
    }

    @Test
    fun `the estimate holds for the model that is loaded then`() = runBlocking {
        Engine.openBlocking(EngineOptions(adapter = "cpu")).use { engine ->
            val patches = 40L
            val needed = Checkpoint.open(folder).use {
                it.deviceBytes(Format.Q8) + it.sessionBytes(patches) + it.info.workBytes
            }
            Checkpoint.open(folder).use { checkpoint ->
                assertTrue(fits(Phone(freeBytes = needed), checkpoint, Format.Q8, patches))
                assertFalse(fits(Phone(freeBytes = needed - 1), checkpoint, Format.Q8, patches))
                assertFalse(fits(Phone(freeBytes = needed), checkpoint, Format.F32, patches))
            }
            Model.loadBlocking(folder.path, LoadOptions(format = Format.Q8, engine = engine)).use { model ->
                model.session().use { session ->
                    session.append(prompt)
                    while (session.patches < patches) session.generateText(maxBytes = 4)
                    val taken = model.deviceBytes + session.deviceBytes + model.info.workBytes
                    assertTrue(taken <= needed + model.sessionBytes(1), "$taken bytes are taken, $needed were expected")
                }
            }
        }
    }

    @Test
    fun `a model is loaded from a folder that was picked`() = runBlocking {
        val documents = Documents(folder)
        val phone = Phone(documents)
        Engine.openBlocking(EngineOptions(adapter = "cpu")).use { engine ->
            val expected = load(engine).use { model -> model.session().use { generate(it) } }
            val model = PickedFolder(phone.contentResolver, Uri.parse("content://provider/tree/models")).use { picked ->
                picked.checkpoint().use { Model.load(it, LoadOptions(engine = engine)) }
            }
            assertEquals(0, documents.open)
            assertEquals(expected, model.use { it.session().use { session -> generate(session) } })
        }
    }

    @Test
    fun `a folder without a model, and one that is not files`() {
        val tree = Uri.parse("content://provider/tree/models")
        PickedFolder(Documents(cache), tree).use {
            assertThrows(FileNotFoundException::class.java) { it.checkpoint() }
        }
        val pipes = Documents(folder, areFiles = false)
        PickedFolder(pipes, tree).use { assertThrows(IOException::class.java) { it.checkpoint() } }
        assertEquals(0, pipes.open)
    }

    @Test
    fun `a generation waits while the app is in the background`() = runBlocking {
        val engine = Engine.openBlocking(EngineOptions(adapter = "cpu"))
        val callbacks = EngineCallbacks(engine) { throw AssertionError("the device was not lost") }
        load(engine).use { model ->
            val expected = model.session().use { generate(it) }
            model.session().use { session ->
                session.append(prompt)
                val other = model.session()
                val started = CompletableDeferred<Unit>()
                var pieces = 0
                val job = launch {
                    session.generate(maxBytes = 60).collect {
                        pieces++
                        started.complete(Unit)
                    }
                }
                started.await()
                callbacks.onStop(owner)
                delay(100)
                val before = pieces
                delay(300)
                assertEquals(before, pieces)
                assertThrows(BolmoException.Suspended::class.java) { other.appendBlocking(prompt) }
                assertThrows(BolmoException.Suspended::class.java) { model.session() }
                callbacks.onTrimMemory(android.content.ComponentCallbacks2.TRIM_MEMORY_BACKGROUND)
                assertTrue(job.isActive)
                callbacks.onStart(owner)
                job.join()
                assertEquals(expected, session.lastGeneration!!.text)
                assertEquals(expected, other.use { generate(it) })
            }
        }
        callbacks.onLowMemory()
        engine.close()
    }

    @Test
    fun `a device that was lost in the background is reported`() {
        var lost = 0
        Engine.openBlocking(EngineOptions(adapter = "cpu")).use { engine ->
            val callbacks = EngineCallbacks(engine) { lost++ }
            callbacks.onStop(owner)
            engine.destroyDevice()
            callbacks.onStart(owner)
        }
        assertEquals(1, lost)
    }

    @Test
    fun `a device that was lost before the background is reported`() {
        var lost = 0
        Engine.openBlocking(EngineOptions(adapter = "cpu")).use { engine ->
            val callbacks = EngineCallbacks(engine) { lost++ }
            engine.destroyDevice()
            callbacks.onStop(owner)
            callbacks.onStart(owner)
        }
        assertEquals(1, lost)
    }

    @Test
    fun `a hot phone holds the generation`() = runBlocking {
        val phone = Phone()
        Engine.openBlocking(EngineOptions(adapter = "cpu")).use { engine ->
            load(engine).use { model ->
                model.session().use { session ->
                    session.append(prompt)
                    Thermal(phone).use { thermal ->
                        phone.listeners.single().onThermalStatusChanged(PowerManager.THERMAL_STATUS_SEVERE)
                        val held = withTimeoutOrNull(300) { thermal.limit(session.generate(maxBytes = 20)).toList() }
                        assertNull(held)
                        phone.listeners.single().onThermalStatusChanged(PowerManager.THERMAL_STATUS_LIGHT)
                        val pieces = thermal.limit(session.generate(maxBytes = 20)).toList()
                        assertEquals(20, pieces.sumOf { it.bytes.size })
                    }
                    assertTrue(phone.listeners.isEmpty())
                }
            }
        }
    }

    private suspend fun generate(session: dev.bolmo.Session): String {
        if (session.length <= 1) session.append(prompt)
        return session.generateText(maxBytes = 60).text
    }
}
