//! Every variant translates to the languages of the drivers: SPIR-V, MSL, HLSL and GLSL.

use crate::common;
use bolmo_shaders::{Tiles, Variant};
use naga::back::pipeline_constants::process_overrides;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};

/// Translates every variant that the language supports, with its overrides resolved to their defaults.
fn each(supports: impl Fn(Variant) -> bool, translate: impl Fn(&Module, &ModuleInfo, Variant) -> Result<(), String>) {
    for (kernel, variant, name) in common::variants().filter(|&(_, variant, _)| supports(variant)) {
        let (module, info) = common::module(kernel, variant);
        let (module, info) =
            process_overrides(&module, &info, Some((ShaderStage::Compute, "main")), &Default::default())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        translate(&module, &info, variant).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// HLSL and GLSL do not support cooperative matrices, nor do their adapters.
fn without_matrices(variant: Variant) -> bool {
    !variant.cooperative()
}

fn all(_: Variant) -> bool {
    true
}

/// Metal's matrices are 8 x 8.
fn small_matrices(variant: Variant) -> bool {
    variant.tiles != Some(Tiles::Cooperative16)
}

#[test]
fn overrides_can_be_set() {
    for (kernel, variant, name) in common::variants() {
        let (module, info) = common::module(kernel, variant);
        let names: Vec<_> =
            module.overrides.iter().map(|(_, constant)| constant.name.clone().expect("a name")).collect();
        let expected = match kernel.stem {
            "matvec" => vec!["ROWS", "TEAM_ROWS", "AHEAD"],
            "mlstm_cell" | "sample" => vec!["LANES"],
            "matmul" if variant.cooperative() => vec!["LANES"],
            _ => vec![],
        };
        assert_eq!(names, expected, "{name}");
        let value = |name: &str| match name {
            "LANES" => 128.0,
            "AHEAD" => 1.0,
            _ => 4.0,
        };
        let values = names.into_iter().map(|name| (name.clone(), value(&name))).collect();
        process_overrides(&module, &info, Some((ShaderStage::Compute, "main")), &values)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn every_variant_translates_to_spir_v() {
    each(all, |module, info, variant| {
        // Subgroup operations need SPIR-V 1.3, that is, Vulkan 1.1.
        let lang_version = if variant.subgroups() { (1, 3) } else { (1, 0) };
        let options = spv::Options { lang_version, ..Default::default() };
        let entry = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".to_owned() };
        let words = spv::write_vec(module, info, &options, Some(&entry)).map_err(|error| error.to_string())?;
        assert_eq!(words[0], 0x0723_0203);
        Ok(())
    });
}

#[test]
fn every_variant_translates_to_metal() {
    each(small_matrices, |module, info, variant| {
        let lang_version = match (variant.cooperative(), variant.subgroups()) {
            (true, _) => (2, 3),
            (_, true) => (2, 1),
            _ => (2, 0),
        };
        let options = msl::Options { lang_version, ..Default::default() };
        let (text, found) = msl::write_string(module, info, &options, &msl::PipelineOptions::default())
            .map_err(|error| error.to_string())?;
        assert!(text.contains("kernel void "));
        found.entry_point_names.into_iter().try_for_each(|name| name.map(drop).map_err(|error| error.to_string()))
    });
}

#[test]
fn every_variant_translates_to_hlsl() {
    use hlsl::ShaderModel::{V5_1, V6_0, V6_6};
    each(without_matrices, |module, info, variant| {
        // The compiler that ships with Windows supports 5.1; wave operations need 6.0.
        let models = if variant.subgroups() { [V6_0, V6_6] } else { [V5_1, V6_0] };
        for shader_model in models {
            let options = hlsl::Options { shader_model, ..Default::default() };
            let mut text = String::new();
            let found = hlsl::Writer::new(&mut text, &options, &Default::default())
                .write(module, info, None)
                .map_err(|error| error.to_string())?;
            let lanes = module.entry_points[0].workgroup_size[0];
            assert!(text.contains(&format!("[numthreads({lanes}, 1, 1)]")));
            found
                .entry_point_names
                .into_iter()
                .try_for_each(|name| name.map(drop).map_err(|error| error.to_string()))?;
        }
        Ok(())
    });
}

#[test]
fn every_variant_translates_to_glsl() {
    each(without_matrices, |module, info, variant| {
        for version in [glsl::Version::new_gles(310), glsl::Version::Desktop(430)] {
            let options = glsl::Options { version, ..Default::default() };
            let entry = glsl::PipelineOptions {
                shader_stage: ShaderStage::Compute,
                entry_point: "main".to_owned(),
                multiview: None,
            };
            let mut text = String::new();
            glsl::Writer::new(&mut text, module, info, &options, &entry, BoundsCheckPolicies::default())
                .and_then(|mut writer| writer.write())
                .map_err(|error| format!("{version}: {error}"))?;
            // Subgroups are a GLSL extension that only variants with subgroup operations may require.
            assert_eq!(text.contains("GL_KHR_shader_subgroup_arithmetic : require"), variant.subgroups());
        }
        Ok(())
    });
}
