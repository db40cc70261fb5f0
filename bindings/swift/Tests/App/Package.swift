// swift-tools-version: 6.0

import PackageDescription

// The code that ../../README.md has for apps, on a system that is not Apple's: scripts/test-swift.sh copies this folder
// and puts the code into Sources/App, and a link to the repository beside the copy. The other modules stand in for
// those of Apple.
let package = Package(
    name: "App",
    dependencies: [.package(path: "../bolmo")],
    targets: [
        .target(name: "os"),
        .target(name: "UIKit"),
        .executableTarget(name: "App", dependencies: [.product(name: "Bolmo", package: "bolmo"), "os", "UIKit"]),
    ]
)
