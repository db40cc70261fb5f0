package org.example.app

import android.content.Context
import android.os.PowerManager
import dev.bolmo.Engine
import dev.bolmo.EngineOptions
import java.io.File

/** Opens the device, in power save mode a frugal one. Compiled kernels are kept, so that later starts are faster. */
suspend fun openEngine(context: Context): Engine {
    val power = context.getSystemService(PowerManager::class.java)
    return Engine.open(
        EngineOptions(
            adapter = if (power.isPowerSaveMode) "low-power" else "",
            kernelCache = File(context.cacheDir, "bolmo-kernels").path,
        ),
    )
}
