// Entry point, sums and maxima over a workgroup of 64 for adapters with subgroups, of any size.
// A team is a set of lanes that work on the same rows: here a subgroup.
const WORKGROUP: u32 = 64u;
var<workgroup> partial: array<vec4<f32>, 64>; // [subgroups]
var<private> team: u32;       // index of this lane's team in the workgroup
var<private> teams: u32;      // teams in the workgroup
var<private> team_lane: u32;  // index of this lane in its team
var<private> team_size: u32;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    team = subgroup;
    teams = subgroups;
    // Counted, since a subgroup may be partly filled and its lane numbers may have gaps.
    team_lane = subgroupExclusiveAdd(1u);
    team_size = subgroupAdd(1u);
    run(group, lane);
}

// The sum of v over this lane's team, in every lane of it.
fn team_sum(v: vec4<f32>) -> vec4<f32> {
    return subgroupAdd(v);
}

// The sum of v over the workgroup, in every lane. Must be called in uniform control flow.
fn workgroup_sum(v: vec4<f32>) -> vec4<f32> {
    let s = subgroupAdd(v);
    if team_lane == 0u {
        partial[team] = s;
    }
    workgroupBarrier();
    var total = vec4<f32>();
    for (var i = 0u; i < teams; i++) {
        total += partial[i];
    }
    workgroupBarrier();
    return total;
}

// The componentwise maximum of v over the workgroup, in every lane. Must be called in uniform control flow.
fn workgroup_max(v: vec4<f32>) -> vec4<f32> {
    let most = subgroupMax(v);
    if team_lane == 0u {
        partial[team] = most;
    }
    workgroupBarrier();
    var total = partial[0];
    for (var i = 1u; i < teams; i++) {
        total = max(total, partial[i]);
    }
    workgroupBarrier();
    return total;
}
