package androidx.lifecycle;

/** A stand-in for the interface of AndroidX. */
public interface LifecycleObserver {}
