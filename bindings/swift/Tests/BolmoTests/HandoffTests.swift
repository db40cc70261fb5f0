@testable import Bolmo
import Foundation
import XCTest

/// What a stream and a native thread have in common.
final class HandoffTests: BolmoTestCase {
    /// Of two that wait for the same element, one is refused.
    func testTwoWaitForOneElement() async throws {
        let handoff = Handoff<Int>()
        let results = Locked<[BolmoError.Kind?]>([])
        let readers = (0..<2).map { _ in
            Task {
                let kind = try await errorKind { try await handoff.next() }
                results.withLock { $0.append(kind) }
            }
        }
        let isRefused = await eventually { results.withLock { $0 } == [.busy] }
        XCTAssert(isRefused)
        handoff.finish(nil)
        for reader in readers { try await reader.value }
        XCTAssertEqual(results.withLock { $0 }, [.busy, nil])
    }

    /// What would cancel the native call isn't kept if the reader has left before it begins.
    func testAReaderThatHasLeftKeepsNothing() {
        let handoff = Handoff<Int>()
        handoff.abandon()
        weak var weakKept: Kept?
        do {
            let kept = Kept()
            weakKept = kept
            XCTAssertFalse(handoff.begin { kept.use() })
        }
        XCTAssertNil(weakKept)
    }
}

private final class Kept: Sendable {
    func use() {}
}
