import CBolmo

/// Chooses ids from logits, with its own stream of random numbers, for programs that generate step by step.
///
/// ```swift
/// let sampler = try Sampler(GenerateOptions(temperature: 0.8))
/// for _ in 0..<100 {
///     let logits = try await session.logits()
///     let id = try await session.choose(with: sampler, from: logits)
///     guard let byte = ByteID.byte(id) else { break }
///     try await session.push(id)
///     output.append(byte)
/// }
/// ```
public final class Sampler: Sendable {
    let handle: Handle

    /// Creates a sampler at the start of its seed's random numbers. It uses the sampling options only: not budget, stop
    /// strings and constraint.
    public init(_ options: GenerateOptions = GenerateOptions()) throws {
        let options = try options.native()
        handle = try Handle("the sampler", delete: bolmo_sampler_delete) { bolmo_sampler_create(options.raw, $0) }
    }

    /// Closes the sampler. Closing it again does nothing.
    public func close() { handle.close() }
}

extension Session {
    /// The logits of the next id, ``ByteID/count`` of them: one for each plain and fused id.
    ///
    /// After appended text this first decides whether its last byte ends a patch, with `boundaryBias` added to the
    /// logit of ending one.
    ///
    /// - Throws: ``BolmoError`` with `invalidArgument` if the session has no text yet.
    public nonisolated func logits(boundaryBias: Float = 0) async throws -> [Float] {
        try await run { raw in
            var logits = [Float](repeating: 0, count: ByteID.count)
            try check(bolmo_session_logits(raw, boundaryBias, &logits, logits.count))
            return logits
        }
    }

    /// Appends a chosen id: 1, 4 to 259, or one of them plus 260. The model processes it in the next call that needs
    /// logits.
    public nonisolated func push(_ id: UInt16) async throws {
        try await run { try check(bolmo_session_push($0, id)) }
    }

    /// Chooses the id that follows the session's text: that of a byte, or 1 or 261 for the end.
    ///
    /// - Parameters:
    ///   - sampler: Has the options and the random numbers.
    ///   - logits: ``ByteID/count`` numbers, as from ``logits(boundaryBias:)``.
    ///   - allowed: ``ByteID/candidates`` flags, as from ``Matcher/allowed(remaining:)``. Where one is 0, neither the
    ///     plain nor the fused id is chosen.
    public nonisolated func choose(
        with sampler: Sampler, from logits: [Float], allowed: [UInt8]? = nil
    ) async throws -> UInt16 {
        if let allowed, allowed.count != ByteID.candidates {
            throw BolmoError(
                .invalidArgument, "allowed has \(allowed.count) flags: expected \(ByteID.candidates)")
        }
        return try await run { raw in
            try sampler.handle.use { sampler in
                var id: UInt16 = 0
                if let allowed {
                    try check(bolmo_sampler_choose(sampler, raw, logits, logits.count, allowed, &id))
                } else {
                    try check(bolmo_sampler_choose(sampler, raw, logits, logits.count, nil, &id))
                }
                return id
            }
        }
    }
}
