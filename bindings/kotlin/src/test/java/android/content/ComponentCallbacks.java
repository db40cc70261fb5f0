package android.content;

import android.content.res.Configuration;

/** A stand-in for the interface of Android. */
public interface ComponentCallbacks {
    void onConfigurationChanged(Configuration configuration);

    void onLowMemory();
}
