package androidx.lifecycle;

/** A stand-in for the interface of AndroidX, with what the examples use. */
public interface DefaultLifecycleObserver extends LifecycleObserver {
    default void onStart(LifecycleOwner owner) {}

    default void onStop(LifecycleOwner owner) {}
}
