package dev.bolmo

/**
 * A pattern that a whole text must match. A generation with a constraint writes only texts that match it. It is
 * compiled once, and any number of threads may use it at once.
 */
public class Constraint private constructor(handle: Long) : NativeHandle(handle, Native::constraintDelete) {
    /** Length of the shortest text that matches, in bytes. */
    public val shortest: Long = Native.constraintShortest(handle)

    /** Whether [text] matches. */
    public fun matches(text: String): Boolean = matches(utf8(text, "text"))

    /** Whether [bytes] match. */
    public fun matches(bytes: ByteArray): Boolean = withHandle { Native.constraintMatches(it, bytes) }

    /** A matcher at the start of a text. */
    public fun matcher(): Matcher = Matcher(withHandle(Native::matcherCreate))

    /** Kinds of constraints. */
    public companion object {
        /**
         * A regular expression in the syntax of Rust's regex crate. The whole text must match it: `^` and `$` around it
         * are implied. `(?-u)` switches to single bytes, so `(?s-u:.)` is any byte.
         *
         * @throws BolmoException.InvalidArgument if it is malformed, or matches nothing
         * @throws BolmoException.Unsupported if it is too large
         */
        @JvmStatic
        public fun regex(pattern: String): Constraint {
            NativeLibrary.load()
            return Constraint(Native.constraintCreateRegex(utf8(pattern, "pattern")))
        }

        /**
         * A JSON schema; the common subset of keywords is supported. The text must be one JSON document that is valid
         * against it, without white space except single spaces after ':' and ','.
         *
         * @throws BolmoException.InvalidArgument if this is not a schema, or nothing is valid against it
         * @throws BolmoException.Unsupported if it has an unsupported keyword or is too large
         */
        @JvmStatic
        public fun jsonSchema(schema: String): Constraint {
            NativeLibrary.load()
            return Constraint(Native.constraintCreateJsonSchema(utf8(schema, "schema")))
        }
    }
}

/** The state of a text within a match, for programs that choose bytes themselves. For one thread at a time. */
public class Matcher internal constructor(handle: Long) : NativeHandle(handle, Native::matcherDelete) {
    /** Whether the whole text so far matches. */
    public val isMatch: Boolean get() = withHandle(Native::matcherIsMatch)

    /**
     * What may follow: a flag for each byte, and at 256 whether the text may end here. With [remaining] above 0, a byte
     * is allowed only if a match can be completed within that many bytes; if none qualifies, [remaining] is ignored.
     */
    @JvmOverloads
    public fun allowed(remaining: Long = 0): BooleanArray =
        booleans(withHandle { Native.matcherAllowed(it, remaining) })

    /**
     * Takes the next bytes of the text.
     *
     * @throws BolmoException.InvalidArgument if they may not follow; the matcher is unchanged
     */
    public fun advance(bytes: ByteArray): Unit = withHandle { Native.matcherAdvance(it, bytes) }

    /** As above. */
    public fun advance(text: String): Unit = advance(utf8(text, "text"))

    /** An independent matcher at the same place. */
    public fun fork(): Matcher = Matcher(withHandle(Native::matcherClone))
}
