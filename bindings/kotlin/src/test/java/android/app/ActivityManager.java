package android.app;

/** A stand-in for the class of Android, with what the examples use. */
public abstract class ActivityManager {
    public abstract void getMemoryInfo(MemoryInfo info);

    /** A stand-in for the class of Android, with what the examples use. */
    public static class MemoryInfo {
        public long availMem;
        public long threshold;
        public long totalMem;
        public boolean lowMemory;
    }
}
