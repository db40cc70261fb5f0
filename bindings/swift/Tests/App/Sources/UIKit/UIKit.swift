@_exported import Foundation  // as UIKit does

/// Stands in for UIKit's class of this name.
@MainActor
public final class UIApplication {
    public nonisolated static let didEnterBackgroundNotification = Notification.Name("didEnterBackground")
    public nonisolated static let willEnterForegroundNotification = Notification.Name("willEnterForeground")
    public nonisolated static let didReceiveMemoryWarningNotification = Notification.Name("didReceiveMemoryWarning")
}

/// What Foundation has on Apple systems only.
extension URL {
    /// The folders that the user has picked.
    public nonisolated(unsafe) static var picked: Set<URL> = []
    /// How many folders are open to the app.
    public nonisolated(unsafe) static var accessed = 0

    public func startAccessingSecurityScopedResource() -> Bool {
        guard Self.picked.contains(self) else { return false }
        Self.accessed += 1
        return true
    }

    public func stopAccessingSecurityScopedResource() { Self.accessed -= 1 }
}

extension ProcessInfo {
    public enum ThermalState: Int, Sendable {
        case nominal
        case fair
        case serious
        case critical
    }

    /// What ``thermalState`` and ``isLowPowerModeEnabled`` return.
    public nonisolated(unsafe) static var heat = ThermalState.nominal
    public nonisolated(unsafe) static var savesPower = false

    public var thermalState: ThermalState { Self.heat }
    public var isLowPowerModeEnabled: Bool { Self.savesPower }
}
