package android.content.res;

/** A stand-in for the class of Android. */
public class Configuration {}
