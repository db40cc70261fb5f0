// Entry point, sums and maxima for a workgroup that is one subgroup of 8 lanes: for adapters on CPUs, where a barrier
// costs more than the work between two barriers. Incorrect for any other subgroup size.
const WORKGROUP: u32 = 8u;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    run(group, lane);
}

// The sum of v over the workgroup, in every lane.
fn workgroup_sum(v: vec4<f32>) -> vec4<f32> {
    return subgroupAdd(v);
}

// The componentwise maximum of v over the workgroup, in every lane.
fn workgroup_max(v: vec4<f32>) -> vec4<f32> {
    return subgroupMax(v);
}
