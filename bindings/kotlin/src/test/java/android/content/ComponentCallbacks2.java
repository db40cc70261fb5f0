package android.content;

/** A stand-in for the interface of Android. */
public interface ComponentCallbacks2 extends ComponentCallbacks {
    int TRIM_MEMORY_UI_HIDDEN = 20;
    int TRIM_MEMORY_BACKGROUND = 40;

    void onTrimMemory(int level);
}
