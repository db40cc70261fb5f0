// Entry point, sums and maxima for a workgroup of one lane: for adapters on CPUs without subgroups (browsers that play a GPU), where
// lanes take turns anyway, and every barrier between them costs more than what the kernels do between two.
const WORKGROUP: u32 = 1u;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3<u32>) {
    run(group, 0u);
}

// The sum of v over the workgroup.
fn workgroup_sum(v: vec4<f32>) -> vec4<f32> {
    return v;
}

// The largest of each part of v over the workgroup.
fn workgroup_max(v: vec4<f32>) -> vec4<f32> {
    return v;
}
