// Entry point, sums and maxima for a workgroup of a single lane: for adapters on CPUs without subgroups (browsers that
// emulate a GPU), where lanes run in turn and a barrier costs more than the work between two barriers.
const WORKGROUP: u32 = 1u;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    run(group, 0u);
}

// The sum of v over the workgroup.
fn workgroup_sum(v: vec4<f32>) -> vec4<f32> {
    return v;
}

// The componentwise maximum of v over the workgroup.
fn workgroup_max(v: vec4<f32>) -> vec4<f32> {
    return v;
}
