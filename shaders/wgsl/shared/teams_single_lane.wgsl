// Entry point and sums for a workgroup of 4 lanes, each of them a team of its own: the counterpart of
// reduce_single_lane.wgsl for kernels with teams. The lanes process different rows in lockstep, as wide as CPU vectors.
const team_size: u32 = 1u;
const team_lane: u32 = 0u;
const teams: u32 = 4u; // teams in the workgroup
var<private> team: u32; // index of this lane

@compute @workgroup_size(4)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    team = lane;
    run(group, lane);
}

// The sum of v over this lane's team.
fn team_sum(v: vec4<f32>) -> vec4<f32> {
    return v;
}
