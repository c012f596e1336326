//! GGUF files. Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use crate::error::Error;
use crate::header;
use crate::source::Source;
use crate::weights::{Encoding, RawTensor};
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use std::borrow::Cow;
use std::io::Cursor;

/// Takes a file in memory apart.
pub(crate) fn parse(bytes: &[u8]) -> Result<Source<'_>, Error> {
    header::check(bytes)?;
    let content =
        Content::read(&mut Cursor::new(bytes)).map_err(|error| Error::Malformed(error.to_string()))?;
    let start = content.tensor_data_offset;
    let tensors = content.tensor_infos.into_iter();
    let tensors = tensors.map(|(name, info)| Ok((name.clone(), raw(&name, &info, start, bytes)?)));
    Ok(Source::new(content.metadata, tensors.collect::<Result<_, Error>>()?))
}

fn raw<'a>(name: &str, info: &TensorInfo, start: u64, bytes: &'a [u8]) -> Result<RawTensor<'a>, Error> {
    let encoding = Encoding::of_candle(info.ggml_dtype)?;
    let shape = info.shape.dims().to_vec();
    let range = || {
        let first = usize::try_from(start.checked_add(info.offset)?).ok()?;
        let len = (info.shape.elem_count() / encoding.block()).checked_mul(encoding.block_bytes())?;
        bytes.get(first..first.checked_add(len)?)
    };
    let bytes = range().ok_or_else(|| Error::Malformed(format!("tensor `{name}` lies outside the file")))?;
    Ok(RawTensor { encoding, shape, bytes: Cow::Borrowed(bytes) })
}
