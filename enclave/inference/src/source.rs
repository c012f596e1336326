//! Metadata and tensors of a model, by name, with errors that name what is wrong.
//!
//! Names are those of GGUF, whatever format the model came in: a reader of another format translates.

use crate::error::Error;
use crate::tokenizer::Vocabulary;
use crate::weights::RawTensor;
use candle_core::quantized::gguf_file::Value;
use std::collections::{BTreeMap, HashMap};

/// What a model consists of. Tensors are taken out one by one: what is left in the end was not understood.
pub(crate) struct Source<'a> {
    metadata: HashMap<String, Value>,
    tensors: BTreeMap<String, RawTensor<'a>>,
    vocabulary: Option<Vocabulary>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(metadata: HashMap<String, Value>, tensors: BTreeMap<String, RawTensor<'a>>) -> Self {
        Self { metadata, tensors, vocabulary: None }
    }

    /// With a tokenizer that the metadata do not describe.
    pub(crate) fn with_vocabulary(mut self, vocabulary: Vocabulary) -> Self {
        self.vocabulary = Some(vocabulary);
        self
    }

    /// The tokenizer, if the metadata do not describe it.
    pub(crate) fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    pub(crate) fn string(&self, key: &str) -> Result<&str, Error> {
        self.optional_string(key)?.ok_or_else(|| missing(key))
    }

    pub(crate) fn optional_string(&self, key: &str) -> Result<Option<&str>, Error> {
        self.read(key, "not a string", |value| value.to_string().ok().map(String::as_str))
    }

    /// A count or an id.
    pub(crate) fn number(&self, key: &str) -> Result<usize, Error> {
        self.optional_number(key)?.ok_or_else(|| missing(key))
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<usize>, Error> {
        self.read(key, "not a count", |value| value.to_u64().ok().and_then(|n| usize::try_from(n).ok()))
    }

    pub(crate) fn optional_float(&self, key: &str) -> Result<Option<f32>, Error> {
        self.read(key, "not a finite number", |value| value.to_f32().ok().filter(|x| x.is_finite()))
    }

    pub(crate) fn optional_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.read(key, "not true or false", |value| value.to_bool().ok())
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Vec<&str>, Error> {
        self.array(key, "not an array of strings", |value| value.to_string().ok().map(String::as_str))
    }

    pub(crate) fn floats(&self, key: &str) -> Result<Vec<f32>, Error> {
        self.array(key, "not an array of numbers", |value| value.to_f32().ok())
    }

    pub(crate) fn integers(&self, key: &str) -> Result<Vec<i64>, Error> {
        self.array(key, "not an array of integers", |value| {
            let signed = value.to_i32().ok().map(i64::from);
            signed.or_else(|| value.to_u64().ok().and_then(|n| i64::try_from(n).ok()))
        })
    }

    /// Whether a tensor is there to be taken.
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes a tensor out of the model. `shape` is outermost dimension first.
    pub(crate) fn raw_tensor(&mut self, name: &str, shape: &[usize]) -> Result<RawTensor<'a>, Error> {
        let tensor = self.tensors.remove(name);
        let tensor = tensor.ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        if tensor.shape != shape {
            return Err(Error::BadTensor {
                name: name.to_owned(),
                got: tensor.shape,
                wanted: shape.to_vec(),
            });
        }
        Ok(tensor)
    }

    /// Takes a vector of weights as numbers.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.raw_tensor(name, &[len])?.numbers()
    }

    /// Refuses a model with tensors that nobody took: what is not computed would silently change it.
    pub(crate) fn finish(self) -> Result<(), Error> {
        match self.tensors.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::Unsupported {
                what: "tensor",
                name,
                supported: "those of the model's architecture",
            }),
        }
    }

    fn read<'v, T>(
        &'v self,
        key: &str,
        problem: &str,
        convert: impl Fn(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        convert(value).map_or_else(|| Err(bad(key, problem)), |converted| Ok(Some(converted)))
    }

    fn array<'v, T>(
        &'v self,
        key: &str,
        problem: &str,
        convert: impl Fn(&'v Value) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let values = self.read(key, problem, |value| value.to_vec().ok())?.ok_or_else(|| missing(key))?;
        values.iter().map(|value| convert(value).ok_or_else(|| bad(key, problem))).collect()
    }
}

fn missing(key: &str) -> Error {
    Error::MissingMetadata { key: key.to_owned() }
}

/// An error about the value of a metadata key.
pub(crate) fn bad(key: &str, problem: &str) -> Error {
    Error::BadMetadata { key: key.to_owned(), problem: problem.to_owned() }
}
