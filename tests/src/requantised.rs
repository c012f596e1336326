//! The small real model in other encodings: made of the file at hand, for comparisons in which both sides read the same file.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, write};
use candle_core::quantized::{GgmlDType, QTensor};

/// An encoding of matrices, by its name in file names.
///
/// # Errors
/// For a name that is not among `F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0`.
pub fn encoding(name: &str) -> anyhow::Result<GgmlDType> {
    Ok(match name {
        "F16" => GgmlDType::F16,
        "Q4_0" => GgmlDType::Q4_0,
        "Q4_1" => GgmlDType::Q4_1,
        "Q5_0" => GgmlDType::Q5_0,
        "Q5_1" => GgmlDType::Q5_1,
        "Q8_0" => GgmlDType::Q8_0,
        other => anyhow::bail!("no encoding `{other}` here: F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0"),
    })
}

/// `model` with its matrices in another encoding, in a file of its own in `folder`, which is used again if it is there. Embeddings
/// that are also the output stay as they are, unless everything becomes 16 bits.
///
/// # Errors
/// When the model cannot be read or the file not be written.
pub fn requantised(model: &Path, name: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let to = encoding(name)?;
    let path = folder.join(format!("requantised-{name}.gguf"));
    if path.exists() {
        return Ok(path);
    }
    let bytes = std::fs::read(model).with_context(|| format!("cannot read {}", model.display()))?;
    let mut reader = Cursor::new(&bytes);
    let content = Content::read(&mut reader)?;
    let mut tensors = Vec::new();
    let mut names: Vec<_> = content.tensor_infos.keys().collect();
    names.sort();
    for name in names {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu)?;
        let is_matrix = tensor.shape().rank() == 2;
        let stays = name == "token_embd.weight" && to != GgmlDType::F16;
        tensors.push((name.as_str(), if is_matrix && !stays { encode(&tensor, to)? } else { tensor }));
    }
    let metadata: Vec<_> = content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    write(&mut file, &metadata, &tensors)?;
    std::fs::create_dir_all(folder)?;
    // Under its name only once it is whole.
    let unfinished = path.with_extension(std::process::id().to_string());
    std::fs::write(&unfinished, file.into_inner())?;
    std::fs::rename(&unfinished, &path)?;
    Ok(path)
}

fn encode(tensor: &QTensor, to: GgmlDType) -> anyhow::Result<QTensor> {
    Ok(QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, to)?)
}
