package androidx.lifecycle;

/** A stand-in for the class of AndroidX, with what the examples use. */
public abstract class Lifecycle {
    public abstract void addObserver(LifecycleObserver observer);
}
