package android.database;

import java.io.Closeable;

/** A stand-in for the interface of Android, with what the examples use. */
public interface Cursor extends Closeable {
    boolean moveToNext();

    String getString(int column);

    @Override
    void close();
}
