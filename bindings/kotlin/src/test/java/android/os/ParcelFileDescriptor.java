package android.os;

import java.io.Closeable;
import java.io.FileDescriptor;
import java.io.IOException;

/** A stand-in for the class of Android, with what the examples use. */
public abstract class ParcelFileDescriptor implements Closeable {
    public abstract FileDescriptor getFileDescriptor();

    public abstract long getStatSize();

    @Override
    public abstract void close() throws IOException;
}
