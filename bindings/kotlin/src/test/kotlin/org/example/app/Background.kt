package org.example.app

import android.content.ComponentCallbacks2
import android.content.res.Configuration
import androidx.lifecycle.DefaultLifecycleObserver
import androidx.lifecycle.LifecycleOwner
import dev.bolmo.BolmoException
import dev.bolmo.Engine

/** Leaves the GPU alone while the app is in the background, and gives memory back when it runs low. */
class EngineCallbacks(private val engine: Engine, private val onLost: () -> Unit) :
    DefaultLifecycleObserver, ComponentCallbacks2 {
    // Waits for what the GPU is doing, a few milliseconds.
    override fun onStop(owner: LifecycleOwner) = try {
        engine.suspend()
    } catch (_: BolmoException.DeviceLost) {
        // Nothing runs on it. `resume` says so again, when the app is back.
    }

    override fun onStart(owner: LifecycleOwner) = try {
        engine.resume()
    } catch (_: BolmoException.DeviceLost) {
        onLost() // open the engine again, load the model again, restore sessions from snapshots
    }

    override fun onTrimMemory(level: Int) {
        engine.trim()
    }

    override fun onLowMemory() {
        engine.trim()
    }

    override fun onConfigurationChanged(configuration: Configuration) = Unit
}
