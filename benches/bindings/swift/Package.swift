// swift-tools-version: 6.0

import PackageDescription

let package = Package(
    name: "bench",
    platforms: [.macOS(.v14)],
    // The name, because the folder of the repository may have any.
    dependencies: [.package(name: "Bolmo", path: "../../..")],
    targets: [
        .executableTarget(name: "Bench", dependencies: [.product(name: "Bolmo", package: "Bolmo")])
    ]
)
