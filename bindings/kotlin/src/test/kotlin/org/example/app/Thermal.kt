package org.example.app

import android.content.Context
import android.os.PowerManager
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach

/** Slows generations down on a phone that is warm, and holds them on one that is hot. Needs API level 29. */
class Thermal(context: Context) : AutoCloseable {
    private val power = context.getSystemService(PowerManager::class.java)
    private val status = MutableStateFlow(PowerManager.THERMAL_STATUS_NONE)
    private val listener = PowerManager.OnThermalStatusChangedListener { status.value = it }

    init {
        power.addThermalStatusListener(context.mainExecutor, listener)
    }

    /** Back-pressure: the next piece is generated when the collector has taken this one. */
    fun <T> limit(pieces: Flow<T>): Flow<T> = pieces.onEach {
        if (status.value >= PowerManager.THERMAL_STATUS_MODERATE) delay(50)
        status.first { it < PowerManager.THERMAL_STATUS_SEVERE }
    }

    override fun close() = power.removeThermalStatusListener(listener)
}
