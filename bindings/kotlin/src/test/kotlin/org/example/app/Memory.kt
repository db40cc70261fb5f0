package org.example.app

import android.app.ActivityManager
import android.content.Context
import dev.bolmo.Checkpoint
import dev.bolmo.Format

/** Whether a model fits together with a session of [patches] patches. GPUs of phones use the memory of the apps. */
fun fits(context: Context, checkpoint: Checkpoint, format: Format, patches: Long): Boolean {
    val memory = ActivityManager.MemoryInfo()
    context.getSystemService(ActivityManager::class.java).getMemoryInfo(memory)
    // With less than the threshold, the system ends processes.
    val available = memory.availMem - memory.threshold
    val needed = checkpoint.deviceBytes(format) + checkpoint.sessionBytes(patches) + checkpoint.info.workBytes
    return needed <= available
}
