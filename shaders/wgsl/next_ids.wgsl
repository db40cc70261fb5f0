// The probabilities of the next ids, given the bytes of an unfinished subword, from the logits of a subword model.
// Subwords are sorted by their bytes, so that subwords with a common prefix are contiguous. A trie over them has a node
// per prefix; the children of a node are the possible next ids, each with a contiguous range of subwords. An id that
// ends a subword is a fused id. Rows of out without a place and ids without a child are left unchanged. One workgroup
// per row.
struct Params {
    rows: u32,
    n: u32,          // ids
    vocabulary: u32, // logits of a row, below 32768 in the single-lane variant (`Reduce::SingleLane`)
    first: u32,      // row of the subword model in row 0 of logits
    count: u32,      // rows of logits; places in other rows are skipped
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;          // [count, vocabulary]
@group(0) @binding(2) var<storage, read> order: array<u32>;           // [subwords], sorted by their bytes
@group(0) @binding(3) var<storage, read> starts: array<u32>;          // [nodes + 1], first child of each node
@group(0) @binding(4) var<storage, read> children: array<vec4<u32>>;  // [children, 4]: id, first and count in order, 0
@group(0) @binding(5) var<storage, read> place: array<vec2<u32>>;     // [rows, 2]: subword row, node or NOWHERE
@group(0) @binding(6) var<storage, read_write> out: array<f32>;       // [rows, n]

const NOWHERE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.0e38;

fn run(group: vec3<u32>, lane: u32) {
    let row = group.x;
    if halted(row) {
        return;
    }
    let at = place[row];
    if at.y == NOWHERE || at.x < p.first || at.x >= p.first + p.count {
        return;
    }
    let base = (at.x - p.first) * p.vocabulary;
    let child0 = starts[at.y];
    let child1 = starts[at.y + 1u];
    // The ranges of the children are contiguous too.
    let begin = children[child0].y;
    let end = children[child1 - 1u].y + children[child1 - 1u].z;
    var most = vec4<f32>(LOWEST);
    for (var i = begin + lane; i < end; i += WORKGROUP) {
        most.x = max(most.x, logits[base + order[i]]);
    }
    most = workgroup_max(most);
    var sum = vec4<f32>();
    for (var i = begin + lane; i < end; i += WORKGROUP) {
        sum.x += exp_accurate(logits[base + order[i]] - most.x);
    }
    sum = workgroup_sum(sum);
    // Children differ widely in size: all lanes together sum a large child, one lane alone sums a small one.
    for (var c = child0; c < child1; c++) {
        let child = children[c];
        if child.z > WORKGROUP {
            var part = vec4<f32>();
            for (var i = child.y + lane; i < child.y + child.z; i += WORKGROUP) {
                part.x += exp_accurate(logits[base + order[i]] - most.x);
            }
            part = workgroup_sum(part);
            if lane == 0u {
                out[row * p.n + child.x] = part.x / sum.x;
            }
        }
    }
    for (var c = child0 + lane; c < child1; c += WORKGROUP) {
        let child = children[c];
        if child.z > WORKGROUP {
            continue;
        }
        var part = 0.0;
        for (var i = child.y; i < child.y + child.z; i++) {
            part += exp_accurate(logits[base + order[i]] - most.x);
        }
        out[row * p.n + child.x] = part / sum.x;
    }
}
