package android.os;

import java.util.concurrent.Executor;

/** A stand-in for the class of Android, with what the examples use. */
public abstract class PowerManager {
    public static final int THERMAL_STATUS_NONE = 0;
    public static final int THERMAL_STATUS_LIGHT = 1;
    public static final int THERMAL_STATUS_MODERATE = 2;
    public static final int THERMAL_STATUS_SEVERE = 3;
    public static final int THERMAL_STATUS_CRITICAL = 4;

    public abstract boolean isPowerSaveMode();

    public abstract void addThermalStatusListener(Executor executor, OnThermalStatusChangedListener listener);

    public abstract void removeThermalStatusListener(OnThermalStatusChangedListener listener);

    /** A stand-in for the interface of Android. */
    public interface OnThermalStatusChangedListener {
        void onThermalStatusChanged(int status);
    }
}
