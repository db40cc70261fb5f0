package android.os;

import java.io.Closeable;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.IOException;

/** A stand-in for the class of Android, with what the examples use. */
public abstract class ParcelFileDescriptor implements Closeable {
    public abstract FileDescriptor getFileDescriptor();

    public abstract long getStatSize();

    @Override
    public abstract void close() throws IOException;

    /** A stand-in for the class of Android. */
    public static class AutoCloseInputStream extends FileInputStream {
        private final ParcelFileDescriptor descriptor;

        public AutoCloseInputStream(ParcelFileDescriptor descriptor) {
            super(descriptor.getFileDescriptor());
            this.descriptor = descriptor;
        }

        @Override
        public void close() throws IOException {
            super.close();
            descriptor.close();
        }
    }
}
