@testable import Bolmo
import CBolmo
import Foundation
import XCTest

/// What a stream costs beside the C function.
final class OverheadTests: BolmoTestCase {
    /// BOLMO_OVERHEAD_MODEL names a model to measure with, such as one of `bolmo init --preset mid`. Its generations
    /// through the C function and through the stream alternate; the processor time of each is compared.
    func testAStreamCostsAtMostTwoPercent() async throws {
        guard let folder = ProcessInfo.processInfo.environment["BOLMO_OVERHEAD_MODEL"] else {
            throw XCTSkip("BOLMO_OVERHEAD_MODEL names no model to measure with")
        }
        let engine = try await Engine(adapter: adapterName)
        let model = try await Model(folder: folder, engine: engine)
        let options = GenerateOptions(maxBytes: 64, endBias: -1000)
        var inC: [Double] = []
        var inSwift: [Double] = []
        for round in 0..<11 {
            var times = [0.0, 0.0]
            var texts = [[UInt8](), []]
            // Which of them comes first alternates, too.
            for way in round % 2 == 0 ? [0, 1] : [1, 0] {
                let session = try await session(model)
                let begin = processorTime()
                texts[way] =
                    way == 0
                    ? try generateInC(session, options) : try await collect(session.generate(options)).bytes
                times[way] = processorTime() - begin
            }
            XCTAssertEqual(texts[0], texts[1])
            // The first round warms caches up.
            if round > 0 {
                inC.append(times[0])
                inSwift.append(times[1])
            }
        }
        let c = median(inC)
        let overhead = median(zip(inC, inSwift).map { $1 - $0 })
        print("""
            \(String(format: "%.1f", c / 64 * 1e6)) µs of processor time per byte in C, \
            \(String(format: "%+.2f", 100 * overhead / c)) % through the stream
            """)
        XCTAssertLessThanOrEqual(overhead / c, 0.02 * slowFactor)
    }

    private func median(_ numbers: [Double]) -> Double { numbers.sorted()[numbers.count / 2] }

    /// Seconds of processor time of all threads.
    private func processorTime() -> Double { Double(clock()) / Double(CLOCKS_PER_SEC) }

    private final class Bytes { var all: [UInt8] = [] }

    private func generateInC(_ session: Session, _ options: GenerateOptions) throws -> [UInt8] {
        let bytes = Bytes()
        let native = try options.native()
        try withExtendedLifetime(bytes) {
            let status = bolmo_session_generate(
                session.gate.handle.raw, native.raw,
                { data, size, _, user in
                    guard let user else { return 1 }
                    let bytes = Unmanaged<Bytes>.fromOpaque(user).takeUnretainedValue()
                    bytes.all += UnsafeBufferPointer(start: data, count: size)
                    return 0
                }, Unmanaged.passUnretained(bytes).toOpaque(), nil)
            try check(status)
        }
        return bytes.all
    }
}
