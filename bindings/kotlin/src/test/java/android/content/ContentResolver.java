package android.content;

import android.database.Cursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import java.io.FileNotFoundException;

/** A stand-in for the class of Android, with what the examples use. */
public abstract class ContentResolver {
    public abstract Cursor query(Uri uri, String[] columns, String selection, String[] arguments, String order);

    public abstract ParcelFileDescriptor openFileDescriptor(Uri uri, String mode) throws FileNotFoundException;
}
