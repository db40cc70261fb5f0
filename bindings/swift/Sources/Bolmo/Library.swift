import CBolmo

/// Version of the native library, such as "0.1.0".
public var version: String { String(cString: bolmo_version()) }
