import CBolmo

/// What a generation may write, byte by byte: a pattern that the whole text must match, whatever the model prefers.
///
/// Bytes that the constraint determines are not sampled. If the byte budget allows for any match, the text is completed
/// in time.
///
/// ```swift
/// let answer = try Constraint.regex("(yes|no), because [a-z ]{10,60}\\.")
/// for try await piece in session.generate(constraint: answer) { print(piece.text) }
/// ```
public final class Constraint: Sendable {
    let handle: Handle

    private init(_ handle: Handle) { self.handle = handle }

    /// A regular expression in the syntax of Rust's regex crate. `^` and `$` around it are implied. `(?-u)` switches to
    /// single bytes, so `(?s-u:.)` is any byte.
    ///
    /// - Throws: ``BolmoError`` with `invalidArgument` if the expression is malformed or matches nothing, `unsupported`
    ///   if it is too large.
    public static func regex(_ pattern: String) throws -> Constraint {
        try withBytes(of: pattern) { pattern, size in
            try Constraint(
                Handle("the constraint", delete: bolmo_constraint_delete) {
                    bolmo_constraint_create_regex(pattern, size, $0)
                })
        }
    }

    /// A JSON schema; the common subset of keywords is supported. The text is one JSON document that is valid against
    /// the schema, without white space except single spaces after `:` and `,`. Members come in the order of
    /// `properties`.
    ///
    /// - Throws: ``BolmoError`` with `invalidArgument` if this is not a schema or nothing is valid against it,
    ///   `unsupported` if it has an unsupported keyword or is too large. The message names the place in the schema.
    public static func jsonSchema(_ schema: String) throws -> Constraint {
        try withBytes(of: schema) { schema, size in
            try Constraint(
                Handle("the constraint", delete: bolmo_constraint_delete) {
                    bolmo_constraint_create_json_schema(schema, size, $0)
                })
        }
    }

    /// Whether a whole text matches.
    public func matches(_ text: String) throws -> Bool { try matches(Array(text.utf8)) }

    /// Whether the bytes of a whole text match.
    public func matches(_ bytes: [UInt8]) throws -> Bool {
        try handle.use { raw in try read(false) { bolmo_constraint_matches(raw, bytes, bytes.count, $0) } }
    }

    /// Length of the shortest matching text, in bytes.
    public var shortest: Int {
        get throws { try handle.use { raw in try read(0) { bolmo_constraint_shortest(raw, $0) } } }
    }

    /// A matcher at the start of a text.
    public func matcher() throws -> Matcher {
        try Matcher(
            handle.use { raw in
                try Handle("the matcher", delete: bolmo_matcher_delete) { bolmo_matcher_create(raw, $0) }
            })
    }

    /// Closes the constraint. Options and matchers that the library has made from it keep working. Closing it again
    /// does nothing.
    public func close() { handle.close() }
}

/// Follows a text within a match, for programs that choose bytes themselves.
///
/// Of several calls at once, all but one throw `busy`.
public final class Matcher: Sendable {
    private let handle: Handle

    init(_ handle: Handle) { self.handle = handle }

    /// What may follow: ``ByteID/candidates`` flags, 1 or 0, one for each byte, and at 256 whether the text may end
    /// here.
    ///
    /// With `remaining` above 0, a byte is allowed only if a match can be completed within that many bytes; if no byte
    /// qualifies, `remaining` is ignored.
    public func allowed(remaining: Int = 0) throws -> [UInt8] {
        try handle.use { raw in
            var flags = [UInt8](repeating: 0, count: ByteID.candidates)
            try check(bolmo_matcher_allowed(raw, size(remaining, "remaining"), &flags))
            return flags
        }
    }

    /// Takes the next bytes of the text.
    ///
    /// - Throws: ``BolmoError`` with `invalidArgument` if one of them is not allowed; the matcher is unchanged.
    public func advance(_ bytes: [UInt8]) throws {
        try handle.use { try check(bolmo_matcher_advance($0, bytes, bytes.count)) }
    }

    /// Takes the next characters of the text. Otherwise as with bytes.
    public func advance(_ text: String) throws { try advance(Array(text.utf8)) }

    /// Whether the whole text so far matches.
    public var isMatch: Bool {
        get throws { try handle.use { raw in try read(false) { bolmo_matcher_is_match(raw, $0) } } }
    }

    /// An independent matcher at the same place.
    public func clone() throws -> Matcher {
        try Matcher(
            handle.use { raw in
                try Handle("the matcher", delete: bolmo_matcher_delete) { bolmo_matcher_clone(raw, $0) }
            })
    }

    /// Closes the matcher. Closing it again does nothing.
    public func close() { handle.close() }
}
