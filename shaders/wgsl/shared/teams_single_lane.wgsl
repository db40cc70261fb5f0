// Entry point and sums for a workgroup of 4 lanes, each of them a *team* by itself: what kernels with teams have where reduce_one_lane.wgsl is for
// the others. Lanes go through different rows in step, as wide as the CPU's vectors are.
const team_size: u32 = 1u;
const team_lane: u32 = 0u;
const teams: u32 = 4u; // teams in the workgroup
var<private> team: u32; // which of them this lane is

@compute @workgroup_size(4)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    team = lane;
    run(group, lane);
}

// The sum of v over this lane's team.
fn team_sum(v: vec4<f32>) -> vec4<f32> {
    return v;
}
