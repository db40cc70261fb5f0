//! Bindings, parameter blocks and constants in Rust match naga's reflection of every variant.

use crate::common;
use bolmo_shaders::table::{Access, KERNELS};
use bolmo_shaders::{Kernel, Reduce, Tiles, Variant, sizes};
use naga::{AddressSpace, GlobalVariable, Module, ScalarKind, StorageAccess, TypeInner};

/// WebGPU's default limit of storage buffers per stage.
const MAX_STORAGE_BUFFERS: usize = 8;
/// WebGPU's default limit of workgroup memory, in bytes.
const MAX_WORKGROUP_MEMORY: u32 = 16384;

/// The resources of a module, sorted by binding number.
fn resources(module: &Module) -> Vec<(u32, &GlobalVariable)> {
    let mut resources: Vec<_> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| variable.binding.map(|binding| (binding, variable)))
        .map(|(binding, variable)| {
            assert_eq!(binding.group, 0);
            (binding.binding, variable)
        })
        .collect();
    resources.sort_by_key(|&(number, _)| number);
    resources
}

#[test]
fn bindings_match_the_table() {
    for (kernel, variant, name) in common::variants() {
        let (module, _) = common::module(kernel, variant);
        let resources = resources(&module);
        assert!(resources.len() <= MAX_STORAGE_BUFFERS + 1, "{name}: too many storage buffers");
        let (own, fixed): (Vec<_>, Vec<_>) =
            resources.into_iter().partition(|&(number, _)| number < sizes::GUARD_BINDING);
        let fixed: Vec<_> = fixed.iter().map(|&(number, variable)| (number, variable.name.as_deref())).collect();
        let guard = kernel.guard.then_some((sizes::GUARD_BINDING, Some("halt")));
        let has_scales = variant.weights.is_some_and(|format| format.has_scales());
        let scales = has_scales.then_some((sizes::SCALES_BINDING, Some("w_scales")));
        assert_eq!(fixed, guard.into_iter().chain(scales).collect::<Vec<_>>(), "{name}: fixed bindings");
        assert_eq!(own.len(), kernel.bindings.len() + 1, "{name}: bindings");
        for (at, &(number, variable)) in own.iter().enumerate() {
            assert_eq!(number as usize, at, "{name}: binding numbers are not contiguous");
            let (expected_name, expected_space) = match at.checked_sub(1).map(|at| &kernel.bindings[at]) {
                None => ("p", AddressSpace::Uniform),
                Some(binding) => {
                    let access = match binding.access {
                        Access::Read => StorageAccess::LOAD,
                        Access::ReadWrite => StorageAccess::LOAD | StorageAccess::STORE,
                    };
                    (binding.name, AddressSpace::Storage { access })
                }
            };
            assert_eq!(variable.name.as_deref(), Some(expected_name), "{name}: name of binding {number}");
            assert_eq!(variable.space, expected_space, "{name}: class of {expected_name}");
            let is_array = matches!(module.types[variable.ty].inner, TypeInner::Array { .. });
            assert_eq!(is_array, at > 0, "{name}: type of {expected_name}");
        }
    }
}

#[test]
fn parameter_blocks_match_the_structs() {
    for (kernel, variant, name) in common::variants() {
        let (module, _) = common::module(kernel, variant);
        let block = &module.types[resources(&module)[0].1.ty];
        assert_eq!(block.name.as_deref(), Some("Params"), "{name}: type of binding 0");
        let TypeInner::Struct { members, span } = &block.inner else { panic!("{name}: Params is not a struct") };
        let found: Vec<(&str, &str, usize)> = members
            .iter()
            .map(|member| {
                let kind = match module.types[member.ty].inner {
                    TypeInner::Scalar(scalar) if scalar.width == 4 => match scalar.kind {
                        ScalarKind::Uint => "u32",
                        ScalarKind::Sint => "i32",
                        ScalarKind::Float => "f32",
                        other => panic!("{name}: unsupported parameter type {other:?}"),
                    },
                    ref other => panic!("{name}: unsupported parameter type {other:?}"),
                };
                (member.name.as_deref().expect("a named field"), kind, member.offset as usize)
            })
            .collect();
        assert_eq!(found, kernel.params.fields, "{name}: fields");
        assert_eq!(*span as usize, kernel.params.size, "{name}: size");
    }
}

#[test]
fn workgroups_have_the_expected_size_and_memory() {
    for (kernel, variant, name) in common::variants() {
        let (module, _) = common::module(kernel, variant);
        let [entry] = &module.entry_points[..] else { panic!("{name}: expected one entry point") };
        assert_eq!(entry.name, "main", "{name}: entry point");
        assert_eq!(entry.stage, naga::ShaderStage::Compute, "{name}: stage");
        // A size given by an override is 1 until the override is resolved.
        let lanes = match variant.tiles {
            _ if entry.workgroup_size_overrides.is_some() => 1,
            Some(Tiles::Subgroup) => sizes::SUBGROUP_LANES,
            Some(Tiles::SingleLane) => sizes::SINGLE_LANE_TEAMS,
            None if kernel.fusion && variant.reduce == Some(Reduce::SingleLane) => sizes::SINGLE_LANE_TEAMS,
            _ => variant.reduce.map_or(sizes::WORKGROUP, Reduce::lanes),
        };
        assert_eq!(entry.workgroup_size, [lanes, 1, 1], "{name}: workgroup");
        let memory: u32 = module
            .global_variables
            .iter()
            .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
            .map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx()).next_multiple_of(16))
            .sum();
        assert!(memory <= MAX_WORKGROUP_MEMORY, "{name}: {memory} bytes of workgroup memory");
    }
}

#[test]
fn constants_match_the_shaders() {
    let mut seen = std::collections::BTreeMap::new();
    for (kernel, variant, name) in common::variants() {
        let (module, _) = common::module(kernel, variant);
        for (_, constant) in module.constants.iter() {
            let expected = match constant.name.as_deref() {
                Some("WORKGROUP") => variant.reduce.map_or(sizes::WORKGROUP, Reduce::lanes),
                Some("CHUNK") => sizes::MLSTM_CHUNK,
                Some("SLICE4") => sizes::COPY_SLICE4,
                Some("TILE") => sizes::MLSTM_CHUNK_OUT_TILE,
                Some("TRANSPOSE_TILE") => sizes::TRANSPOSE_TILE,
                Some("MAX_GROUPS") => sizes::MAX_GROUPS,
                _ => continue,
            };
            let found = &module.global_expressions[constant.init];
            let expected = naga::Expression::Literal(naga::Literal::U32(expected));
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{name}: {:?}", constant.name);
            *seen.entry(constant.name.clone().expect("a name")).or_insert(0) += 1;
        }
    }
    let named = |kernel: &Kernel, variant: &Variant| {
        // Single-lane teams do not define WORKGROUP.
        kernel.reduce && !(kernel.fusion && variant.reduce == Some(Reduce::SingleLane))
    };
    let kernels = KERNELS.iter();
    let reduced = kernels.flat_map(|kernel| kernel.variants().into_iter().map(move |variant| (kernel, variant)));
    let reduced = reduced.filter(|(kernel, variant)| named(kernel, variant)).count();
    let expected = [
        ("CHUNK", 4),      // both texts of mlstm_chunk_out, its gradient, mlstm_chunk_scores
        ("MAX_GROUPS", 2), // adamw, round_f16
        ("SLICE4", 1),
        ("TILE", 2), // both texts of mlstm_chunk_out
        ("TRANSPOSE_TILE", 1),
        ("WORKGROUP", reduced),
    ];
    let expected = expected.map(|(name, count)| (name.to_owned(), count)).into();
    assert_eq!(seen, expected, "a constant has a different name in the shaders");
}

#[test]
fn vec4_grid_covers_all_values() {
    let most = sizes::MAX_GROUPS as usize;
    for groups in [1, 2, most - 1, most, most + 1, 3 * most, 3 * most + 1] {
        for count4 in [64 * groups - 63, 64 * groups] {
            let [x, y, z] = sizes::vec4_grid(count4);
            assert!(x <= most && y <= most && z == 1, "{count4}: {x} {y} {z}");
            // The rows of the grid are contiguous, and only the last row is partly used.
            assert!(y == 1 || x == most, "{count4}: {x} {y}");
            assert!(64 * x * y >= count4 && 64 * x * (y - 1) < count4, "{count4}: {x} {y}");
        }
    }
}
