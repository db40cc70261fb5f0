//! The tree of golden files: the full tree that `BOLMO_FIXTURES` names, or the repository's selection, with the files
//! that the selection leaves out derived from the others.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The tree of golden files.
pub fn fixtures() -> PathBuf {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| match std::env::var_os("BOLMO_FIXTURES") {
        Some(dir) => PathBuf::from(dir),
        None => assemble().expect("the golden files"),
    })
    .clone()
}

/// Unpacks the selection into the build directory.
fn assemble() -> std::io::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let built = std::env::current_exe()?.parent().map_or_else(std::env::temp_dir, Path::to_path_buf);
    let tree = built.join("golden");
    // Unpacked under a unique name, then renamed: other test programs may unpack at the same time.
    let making = built.join(format!("golden.{}", std::process::id()));
    copy_tree(&source, &making)?;
    unpack(&making)?;
    let models = making.join("infer/models");
    rounded(&models.join("nano"), &models.join("nano_bf16"), Dtype::BF16)?;
    rounded(&models.join("nano"), &models.join("nano_f16"), Dtype::F16)?;
    let _ = std::fs::remove_dir_all(&tree);
    match std::fs::rename(&making, &tree) {
        Ok(()) => Ok(tree),
        // Another program was faster; this copy is as good.
        Err(_) => Ok(making),
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Unpacks every packed file below `dir`: four planes, the bytes of which take turns.
fn unpack(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            unpack(&path)?;
        } else if let Some(name) = path.to_str().and_then(|p| p.strip_suffix(".planes.gz")) {
            let mut planes = Vec::new();
            flate2::read::GzDecoder::new(std::fs::File::open(&path)?).read_to_end(&mut planes)?;
            let quarter = planes.len() / 4;
            let bytes: Vec<u8> = (0..quarter).flat_map(|i| [0, 1, 2, 3].map(|p| planes[p * quarter + i])).collect();
            std::fs::write(name, bytes)?;
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The checkpoint `from` with its weights rounded to 16 bits.
fn rounded(from: &Path, to: &Path, dtype: Dtype) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::copy(from.join("config.json"), to.join("config.json"))?;
    let bytes = std::fs::read(from.join("model.safetensors"))?;
    let file = SafeTensors::deserialize(&bytes).map_err(std::io::Error::other)?;
    let round = |data: &[u8]| -> Vec<u8> {
        let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        match dtype {
            Dtype::BF16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
            _ => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
        }
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> =
        file.iter().map(|(name, t)| (name.to_owned(), t.shape().to_vec(), round(t.data()))).collect();
    let views = tensors
        .iter()
        .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(dtype, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(std::io::Error::other)?;
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).map_err(std::io::Error::other)
}

/// Whether the tree of golden files has `path`. The repository's selection lacks the largest files; a tree that
/// `BOLMO_FIXTURES` names must be complete.
pub fn in_tree(path: &str) -> bool {
    let there = fixtures().join(path).exists();
    assert!(there || std::env::var_os("BOLMO_FIXTURES").is_none(), "the tree that BOLMO_FIXTURES names lacks {path}");
    if !there {
        eprintln!("skipped: the repository's golden files lack {path}; set BOLMO_FIXTURES to a complete tree");
    }
    there
}
