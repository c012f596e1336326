//! Vectors of texts.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cocoon_attestation::receipt::ReceiptBundle;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::error::Error;
use crate::pool::Client;
use crate::session::AttestedSession;

const PATH: &str = "/v1/embeddings";
/// 2048 vectors of 8192 numbers, in base64.
const MAX_ANSWER: usize = 96 << 20;

/// Vectors of texts, whose receipt was verified. A vector tells much of its text.
#[derive(Clone)]
#[non_exhaustive]
#[expect(missing_debug_implementations, reason = "answers must not be printable by accident")]
pub struct Embeddings {
    /// One for each text, in order; the sum of the squares of its numbers is 1.
    pub vectors: Vec<Zeroizing<Vec<f32>>>,
    /// Tokens of all texts, as the enclave counted them.
    pub prompt_tokens: u64,
    /// What the enclave signed for this request and this answer.
    pub receipt: ReceiptBundle,
}

#[derive(Deserialize)]
struct Body {
    data: Vec<Item>,
    usage: Usage,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
}

impl Client {
    /// The vectors of texts, by a model for that, once their receipt was verified. At most 2048 texts; none is cut.
    ///
    /// # Errors
    /// As [`Client::post`], [`Error::Api`], [`Error::BadAnswer`] and [`Error::Receipt`].
    pub async fn embed(&self, model: &str, texts: &[&str]) -> Result<Embeddings, Error> {
        read(self.post(PATH, &request(model, texts)).await?, texts.len()).await
    }
}

impl AttestedSession {
    /// As [`Client::embed`], of this enclave.
    ///
    /// # Errors
    /// As [`AttestedSession::post`], [`Error::Api`], [`Error::BadAnswer`] and [`Error::Receipt`].
    pub async fn embed(&self, model: &str, texts: &[&str]) -> Result<Embeddings, Error> {
        read(self.post(PATH, &request(model, texts)).await?, texts.len()).await
    }
}

fn request(model: &str, texts: &[&str]) -> Zeroizing<Vec<u8>> {
    let request = json!({ "model": model, "input": texts, "encoding_format": "base64" });
    Zeroizing::new(request.to_string().into_bytes())
}

async fn read(mut answer: Answer, texts: usize) -> Result<Embeddings, Error> {
    if answer.status != StatusCode::OK {
        return Err(answer.into_error().await);
    }
    let body = answer.collect(MAX_ANSWER).await?;
    let receipt = answer.body.receipt().cloned().ok_or(Error::BadAnswer("it has no receipt"))?;
    let (vectors, prompt_tokens) = parse(&body, texts)?;
    Ok(Embeddings { vectors, prompt_tokens, receipt })
}

type Vectors = Vec<Zeroizing<Vec<f32>>>;

fn parse(body: &[u8], texts: usize) -> Result<(Vectors, u64), Error> {
    let bad = || Error::BadAnswer("it is no list of vectors");
    let body: Body = serde_json::from_slice(body).map_err(|_other| bad())?;
    let in_order = body.data.iter().map(|item| item.index).eq(0..texts);
    let vectors = body.data.iter().map(|item| vector(&item.embedding).ok_or_else(bad));
    let vectors = vectors.collect::<Result<Vectors, _>>()?;
    let alike = vectors.windows(2).all(|pair| matches!(pair, [a, b] if a.len() == b.len()));
    if in_order && alike { Ok((vectors, body.usage.prompt_tokens)) } else { Err(bad()) }
}

/// f32 in little endian, in base64.
fn vector(text: &str) -> Option<Zeroizing<Vec<f32>>> {
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
    let (numbers, rest) = bytes.as_chunks();
    let finite = |number: &f32| number.is_finite();
    let vector = Zeroizing::new(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect::<Vec<_>>());
    (rest.is_empty() && !vector.is_empty() && vector.iter().all(finite)).then_some(vector)
}

/// For fuzzing.
pub(crate) fn fuzz(body: &[u8]) {
    let _any = parse(body, 1).is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(items: &[(usize, &[f32])]) -> Vec<u8> {
        let item = |(index, numbers): &(usize, &[f32])| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            json!({ "object": "embedding", "index": index, "embedding": BASE64_STANDARD.encode(bytes) })
        };
        let data: Vec<_> = items.iter().map(item).collect();
        json!({ "object": "list", "data": data, "model": "m", "usage": { "prompt_tokens": 7, "total_tokens": 7 } })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn vectors_are_read_in_order() {
        let (vectors, tokens) = parse(&body(&[(0, &[1.0, -2.5]), (1, &[0.0, 3.0])]), 2).ok().unwrap();
        assert_eq!(
            (vectors[0].as_slice(), vectors[1].as_slice(), tokens),
            (&[1.0, -2.5][..], &[0.0, 3.0][..], 7)
        );
    }

    #[test]
    fn what_is_no_list_of_vectors_is_refused() {
        let one = body(&[(0, &[1.0])]);
        for (bad, texts) in [
            (one.clone(), 2),
            (one.clone(), 0),
            (body(&[(1, &[1.0])]), 1),
            (body(&[(1, &[1.0]), (0, &[1.0])]), 2),
            (body(&[(0, &[1.0]), (1, &[1.0, 2.0])]), 2),
            (body(&[(0, &[])]), 1),
            (body(&[(0, &[f32::NAN])]), 1),
            (String::from_utf8(one.clone()).unwrap().replace("AACA", "AAC").into_bytes(), 1),
            (String::from_utf8(one).unwrap().replace("AACAPw==", "AACAPwAA").into_bytes(), 1),
            (b"{}".to_vec(), 0),
        ] {
            assert!(
                matches!(parse(&bad, texts), Err(Error::BadAnswer(_))),
                "{}",
                String::from_utf8_lossy(&bad)
            );
        }
    }
}
