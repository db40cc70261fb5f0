// Entry point, sums and maxima over a workgroup of 64 for adapters without subgroups (browsers among them).
// A team is a set of lanes that work on the same rows: here 8 consecutive lanes.
const WORKGROUP: u32 = 64u;
const TEAM: u32 = 8u;
var<workgroup> partial: array<vec4<f32>, 64>; // [lanes]
var<private> local_lane: u32;
var<private> team: u32;       // index of this lane's team in the workgroup
var<private> team_lane: u32;  // index of this lane in its team
// Constants, since browsers reject a barrier in a loop whose bound is a private variable.
const team_size: u32 = TEAM;
const teams: u32 = WORKGROUP / TEAM; // teams in the workgroup

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    local_lane = lane;
    team = lane / TEAM;
    team_lane = lane % TEAM;
    run(group, lane);
}

// The sum of v over this lane's team, in every lane of it. Must be called in uniform control flow.
fn team_sum(v: vec4<f32>) -> vec4<f32> {
    partial[local_lane] = v;
    workgroupBarrier();
    var total = vec4<f32>();
    for (var i = 0u; i < TEAM; i++) {
        total += partial[team * TEAM + i];
    }
    workgroupBarrier();
    return total;
}

// The sum of v over the workgroup, in every lane. Must be called in uniform control flow.
fn workgroup_sum(v: vec4<f32>) -> vec4<f32> {
    partial[local_lane] = v;
    workgroupBarrier();
    if local_lane < TEAM {
        var s = vec4<f32>();
        for (var i = 0u; i < TEAM; i++) {
            s += partial[local_lane + i * TEAM];
        }
        partial[local_lane] = s;
    }
    workgroupBarrier();
    var total = vec4<f32>();
    for (var i = 0u; i < TEAM; i++) {
        total += partial[i];
    }
    workgroupBarrier();
    return total;
}

// The componentwise maximum of v over the workgroup, in every lane. Must be called in uniform control flow.
fn workgroup_max(v: vec4<f32>) -> vec4<f32> {
    partial[local_lane] = v;
    workgroupBarrier();
    if local_lane < TEAM {
        var most = v;
        for (var i = 1u; i < TEAM; i++) {
            most = max(most, partial[local_lane + i * TEAM]);
        }
        partial[local_lane] = most;
    }
    workgroupBarrier();
    var total = partial[0];
    for (var i = 1u; i < TEAM; i++) {
        total = max(total, partial[i]);
    }
    workgroupBarrier();
    return total;
}
