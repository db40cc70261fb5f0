@testable import Bolmo
import Foundation
import XCTest

/// Scores and their tensors.
final class ScoreTests: BolmoTestCase {
    private let text = "def main():\n    return 0\n"

    func testAScoreAgreesWithItself() async throws {
        let model = try await loadTrained()
        let updates = Locked<[ProgressUpdate]>([])
        let score = try await model.score(text, tensors: true) { update in updates.withLock { $0.append(update) } }
        XCTAssertEqual(updates.withLock { $0.last?.fraction }, 1)
        XCTAssertEqual(score.bytes, text.utf8.count)
        let bytes = Double(score.bytes)
        XCTAssertEqual(score.bitsPerByteJoint, -score.logLikelihoodJoint / log(2) / bytes, accuracy: 1e-6)
        XCTAssertEqual(score.bitsPerByteFolded, -score.logLikelihoodFolded / log(2) / bytes, accuracy: 1e-6)
        XCTAssertLessThan(score.bitsPerByteFolded, score.bitsPerByteJoint)
        XCTAssertEqual(score.boundaries.count(where: { $0 }), score.patches)
        let logprobs = try score.logprobs
        XCTAssertEqual(logprobs.joint.count, score.bytes)
        XCTAssertEqual(logprobs.joint.reduce(0) { $0 + Double($1) }, score.logLikelihoodJoint, accuracy: 1e-2)
        XCTAssertEqual(logprobs.folded.reduce(0) { $0 + Double($1) }, score.logLikelihoodFolded, accuracy: 1e-2)
        for name in Score.TensorName.allCases {
            let tensor = try score.tensor(name)
            XCTAssertEqual(tensor.values.count, tensor.rows * tensor.columns)
            XCTAssert(tensor.values.allSatisfy(\.isFinite), "\(name)")
        }
        XCTAssertEqual(try score.tensor(.logits).columns, ByteID.count)
        XCTAssertEqual(try score.tensor(.boundaryLogprobs).columns, 1)
        XCTAssertEqual(try score.tensor(.finalHidden).columns, model.info.hiddenSize)
    }

    func testTextBytesAndIdsAreScoredAlike() async throws {
        let model = try await loadTrained()
        let ofText = try await model.score(text)
        let ofBytes = try await model.score(Array(text.utf8), boundaries: ofText.boundaries)
        await refuses(.invalidArgument, saying: "nil") { _ = try await model.score(self.text, boundaries: []) }
        XCTAssertEqual(ofText.logLikelihoodJoint, ofBytes.logLikelihoodJoint)
        let ids = [UInt32(ByteID.end)] + (Array(text.utf8) + [0x0A]).map { UInt32(ByteID.id($0)) }
        let ofIds = try await model.score(ids: ids)
        XCTAssertEqual(ofIds.bytes, ofText.bytes + 1)
        await refuses(.notFound) { _ = try ofText.tensor(.logits) }
        await refuses(.invalidArgument) { _ = try await model.score(self.text, boundaries: [true]) }
        await refuses(.invalidArgument) { _ = try await model.score(ids: [1]) }
        await refuses(.invalidArgument) { _ = try await model.score(ids: [1, 2, 3]) }
        await refuses(.invalidArgument) { _ = try await model.score("") }
    }

    /// Tensors are copied from the library's memory, which closing frees.
    func testClosingAScoreWhileItsTensorsAreCopied() async throws {
        let model = try await loadTrained()
        let text = String(repeating: self.text, count: 12)
        let expected = try await model.score(text, tensors: true).tensor(.logits)
        for delay in 0..<20 {
            let score = try await model.score(text, tensors: true)
            let copying = Locked(0)
            let readers = (0..<2).map { _ in
                Task.detached {
                    while true {
                        copying.withLock { $0 += 1 }
                        do {
                            guard try score.tensor(.logits) == expected else { return false }
                        } catch let error as BolmoError where error.kind == .closed {
                            return true
                        }
                    }
                }
            }
            while copying.withLock({ $0 }) < 4 { await Task.yield() }
            usleep(UInt32(delay * 20))
            score.close()
            for reader in readers {
                let unchanged = try await reader.value
                XCTAssert(unchanged, "a copied tensor has other values")
            }
            XCTAssertThrowsError(try score.logprobs)
        }
    }
}
