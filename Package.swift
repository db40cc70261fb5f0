// swift-tools-version: 6.0

import PackageDescription

// The C library under the package. Elsewhere than on Apple systems it is the installed one, which pkg-config finds
// (`make install-lib`). On Apple systems it is an XCFramework: the one that BOLMO_XCFRAMEWORK_URL and
// BOLMO_XCFRAMEWORK_CHECKSUM name, else the one that scripts/xcframework.sh makes in this repository.
#if canImport(Darwin)
let environment = Context.environment
let library: Target =
    if let url = environment["BOLMO_XCFRAMEWORK_URL"], let checksum = environment["BOLMO_XCFRAMEWORK_CHECKSUM"] {
        .binaryTarget(name: "CBolmo", url: url, checksum: checksum)
    } else {
        .binaryTarget(name: "CBolmo", path: "bindings/swift/CBolmo.xcframework")
    }
#else
let library: Target = .systemLibrary(name: "CBolmo", path: "bindings/swift/Sources/CBolmo", pkgConfig: "bolmo")
#endif

let package = Package(
    name: "Bolmo",
    platforms: [.macOS(.v14), .iOS(.v17)],
    products: [.library(name: "Bolmo", targets: ["Bolmo"])],
    targets: [
        library,
        .target(name: "Bolmo", dependencies: ["CBolmo"], path: "bindings/swift/Sources/Bolmo"),
        .testTarget(name: "BolmoTests", dependencies: ["Bolmo", "CBolmo"], path: "bindings/swift/Tests/BolmoTests"),
    ],
    swiftLanguageModes: [.v6]
)
