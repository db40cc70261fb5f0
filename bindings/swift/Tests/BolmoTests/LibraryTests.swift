@testable import Bolmo
import Foundation
import XCTest

/// The library itself: its version, its log, its adapters, and that the package uses all of it.
final class LibraryTests: BolmoTestCase {
    func testVersions() {
        XCTAssertEqual(Bolmo.version.split(separator: ".").count, 3)
        XCTAssertGreaterThanOrEqual(Bolmo.abiVersion, 5)
    }

    func testAdapters() async throws {
        let adapters = try await Adapter.list(choice: adapterName)
        XCTAssertEqual(adapters.filter(\.isChosen).count, 1)
        let chosen = try XCTUnwrap(adapters.first(where: \.isChosen))
        XCTAssert(chosen.isUsable)
        XCTAssertFalse(chosen.name.isEmpty)
        let engine = try await Engine(adapter: adapterName, threads: 2)
        XCTAssertEqual(engine.adapter.name, chosen.name)
        XCTAssertEqual(engine.adapter.backend, chosen.backend)
        XCTAssertGreaterThan(engine.adapter.maxBufferBytes, 0)
    }

    func testTheLog() async throws {
        let lines = Locked<[(LogLevel, String)]>([])
        try setLogHandler(.trace) { level, text in lines.withLock { $0.append((level, text)) } }
        _ = try await Adapter.list(choice: "software")
        try setLogHandler(.off, nil)
        let count = lines.withLock { $0.count }
        XCTAssertGreaterThan(count, 0)
        XCTAssert(lines.withLock { $0 }.allSatisfy { $0.0 > .off && !$0.1.isEmpty })
        _ = try await Adapter.list(choice: "software")
        XCTAssertEqual(lines.withLock { $0.count }, count)
    }

    /// Functions of the ABI that the package has no use for, with the reason.
    private let unused: [String: String] = [:]

    func testEveryFunctionIsUsed() throws {
        let abi = try String(
            contentsOf: repository.appendingPathComponent("ffi/abi.txt"), encoding: .utf8)
        let functions = abi.split(separator: "\n").filter { !$0.hasPrefix("//") && !$0.hasPrefix("#") }
            .compactMap { line in line.firstMatch(of: /\b(bolmo_[a-z0-9_]+)\(/).map { String($0.1) } }
        XCTAssertGreaterThan(functions.count, 100)
        let folder = repository.appendingPathComponent("bindings/swift/Sources/Bolmo")
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".swift") }
        let code = try names.map { name in
            try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8)
                .split(separator: "\n").filter { !$0.drop(while: { $0 == " " }).hasPrefix("//") }
                .joined(separator: "\n")
        }.joined(separator: "\n")
        let used = Set(code.matches(of: /\bbolmo_[a-z0-9_]+/).map { String($0.0) })
        for function in functions where !used.contains(function) {
            XCTAssertNotNil(unused[function], "\(function) is not used: use it, or say in the table why not")
        }
        for (function, _) in unused {
            XCTAssert(functions.contains(function), "\(function) does not exist")
            XCTAssertFalse(used.contains(function), "\(function) is used: remove it from the table")
        }
    }
}
