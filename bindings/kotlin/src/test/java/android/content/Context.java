package android.content;

import java.io.File;
import java.util.concurrent.Executor;

/** A stand-in for the class of Android, with what the examples use. */
public abstract class Context {
    public abstract <T> T getSystemService(Class<T> service);

    public abstract File getCacheDir();

    public abstract ContentResolver getContentResolver();

    public abstract Executor getMainExecutor();
}
