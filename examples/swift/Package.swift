// swift-tools-version: 6.0

import PackageDescription

let package = Package(
    name: "generate",
    platforms: [.macOS(.v14)],
    // The name, because the folder of the repository may have any.
    dependencies: [.package(name: "Bolmo", path: "../..")],
    targets: [
        .executableTarget(name: "generate", dependencies: [.product(name: "Bolmo", package: "Bolmo")])
    ]
)
