import CBolmo

/// A device of this machine that could run a model.
public struct Adapter: Sendable, Hashable {
    /// Name.
    public let name: String
    /// "discrete GPU", "integrated GPU", "virtual GPU", "software", "other" or "cpu".
    public let kind: String
    /// "vulkan", "metal", "dx12" or "cpu".
    public let backend: String
    /// Driver and version.
    public let driver: String
    /// Why the adapter would be used, or why not.
    public let reason: String
    /// Whether this is the adapter that would be used.
    public let isChosen: Bool
    /// Whether the library can run on it.
    public let isUsable: Bool
    /// Whether it runs on the CPU.
    public let isSoftware: Bool
    /// Largest binding, in bytes.
    public let maxBindingBytes: UInt64
    /// Largest buffer, in bytes.
    public let maxBufferBytes: UInt64
    /// Workgroup memory, in bytes.
    public let workgroupBytes: UInt64
    /// Lanes of the smallest subgroup; 0 if kernels cannot use subgroups.
    public let minSubgroup: UInt64
    /// Lanes of the largest subgroup; 0 if kernels cannot use subgroups.
    public let maxSubgroup: UInt64
    /// Whether shaders can compute in f16.
    public let hasShaderF16: Bool

    /// Lists the adapters of this machine, and marks the one that ``Engine``
    /// with the same choice would use. An empty list is not a failure.
    public static func list(choice: String = "") async throws -> [Adapter] {
        try await blocking("adapters") {
            let list = try withBytes(of: choice) { text, size in
                try Handle("the list", delete: bolmo_adapters_delete) { bolmo_adapters_list(text, size, $0) }
            }
            return try list.use { raw in
                try (0..<read(0) { bolmo_adapters_count(raw, $0) }).map { index in
                    try Adapter(
                        text: { which in try readText { bolmo_adapters_text(raw, index, which, $0, $1) } },
                        number: { which in try read(0) { bolmo_adapters_number(raw, index, which, $0) } })
                }
            }
        }
    }

    init(text: (Int32) throws -> String, number: (Int32) throws -> UInt64) throws {
        name = try text(Int32(BOLMO_ADAPTER_NAME.rawValue))
        kind = try text(Int32(BOLMO_ADAPTER_KIND.rawValue))
        backend = try text(Int32(BOLMO_ADAPTER_BACKEND.rawValue))
        driver = try text(Int32(BOLMO_ADAPTER_DRIVER.rawValue))
        reason = try text(Int32(BOLMO_ADAPTER_REASON.rawValue))
        isChosen = try number(Int32(BOLMO_ADAPTER_CHOSEN.rawValue)) != 0
        isUsable = try number(Int32(BOLMO_ADAPTER_USABLE.rawValue)) != 0
        isSoftware = try number(Int32(BOLMO_ADAPTER_SOFTWARE.rawValue)) != 0
        maxBindingBytes = try number(Int32(BOLMO_ADAPTER_MAX_BINDING_BYTES.rawValue))
        maxBufferBytes = try number(Int32(BOLMO_ADAPTER_MAX_BUFFER_BYTES.rawValue))
        workgroupBytes = try number(Int32(BOLMO_ADAPTER_WORKGROUP_BYTES.rawValue))
        minSubgroup = try number(Int32(BOLMO_ADAPTER_MIN_SUBGROUP.rawValue))
        maxSubgroup = try number(Int32(BOLMO_ADAPTER_MAX_SUBGROUP.rawValue))
        hasShaderF16 = try number(Int32(BOLMO_ADAPTER_SHADER_F16.rawValue)) != 0
    }
}
