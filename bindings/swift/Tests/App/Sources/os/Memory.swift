import Foundation

/// What ``os_proc_available_memory()`` returns.
public nonisolated(unsafe) var availableMemory = 1 << 40

/// Stands in for the function of this name in iOS: bytes that the app may still allocate.
public func os_proc_available_memory() -> Int { availableMemory }
