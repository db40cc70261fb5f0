//! What an adapter is, and how to choose one.

/// [`AdapterInfo::kind`] of drivers that play a GPU on the CPU.
pub(super) const SOFTWARE: &str = "software";
/// [`AdapterInfo::kind`] of the CPU device.
pub(super) const CPU: &str = "cpu";

/// How to choose an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AdapterChoice {
    /// The best one: a discrete GPU, else an integrated one, else a virtual one, else the CPU device. In
    /// browsers, what the build has: the browser's adapter with the feature `gpu`, else the CPU device.
    #[default]
    Auto,
    /// The one that takes the least power: an integrated GPU, else the CPU device, else a virtual GPU, else a discrete
    /// one. In browsers, the adapter that the browser chooses for this purpose.
    LowPower,
    /// The adapter at this index of [`adapters`].
    Index(usize),
    /// The best adapter whose name, driver or backend contains this text, ignoring case.
    Name(String),
    /// A driver that emulates a GPU on the CPU, for tests of the shaders.
    Software,
    /// The CPU device: the kernels in vector instructions, on several threads. No driver is needed. In browsers it
    /// has one thread.
    Cpu,
}

impl AdapterChoice {
    /// Parses a user's choice: nothing or `auto`, `low-power`, an index, `cpu`, `software`, or a part of a name.
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "" | "auto" => Self::Auto,
            "low-power" => Self::LowPower,
            "software" => Self::Software,
            "cpu" => Self::Cpu,
            other => other.parse().map_or_else(|_| Self::Name(other.to_owned()), Self::Index),
        }
    }
}

/// The description of an adapter, and whether it was chosen.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// Index in the list, for [`AdapterChoice::Index`].
    pub index: usize,
    /// Name reported by the driver.
    pub name: String,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `software`, `other` or `cpu`.
    pub kind: &'static str,
    /// `vulkan`, `metal`, `dx12`, `webgpu` or `cpu`.
    pub backend: String,
    /// Name and version of the driver.
    pub driver: String,
    /// Largest binding in bytes. Larger matrices are split by rows.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Smallest and largest subgroup size, if kernels can use subgroups.
    pub subgroup_sizes: Option<(u32, u32)>,
    /// Whether shaders can compute in f16.
    pub shader_f16: bool,
    /// Largest workgroup in lanes.
    pub workgroup_lanes: u32,
    /// Whether the adapter supports cooperative matrices.
    pub cooperative_matrix: bool,
    /// Sizes of the square cooperative matrices that multiply f16 and accumulate in f32.
    pub cooperative_sides: Vec<u32>,
    /// Whether the adapter supports timestamps.
    pub timestamps: bool,
    /// The missing capability, if the adapter cannot be used.
    pub unusable: Option<String>,
    /// Whether this adapter was chosen.
    pub chosen: bool,
    /// Why it was or was not chosen.
    pub reason: String,
}

impl AdapterInfo {
    /// Whether a driver emulates a GPU on the CPU, which is slow.
    pub fn is_software(&self) -> bool {
        self.kind == SOFTWARE
    }

    /// Whether it is the CPU device.
    pub fn is_cpu(&self) -> bool {
        self.kind == CPU
    }

    /// Whether its memory is the host's.
    pub fn has_host_memory(&self) -> bool {
        self.is_cpu() || self.is_software()
    }
}
