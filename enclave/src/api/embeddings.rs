//! `POST /v1/embeddings`: texts become vectors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cocoon_inference::{EmbedError, Embedding, MAX_EMBED_TEXTS, SecretString};
use http::{HeaderValue, Response, StatusCode};
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};
use zeroize::Zeroizing;

use super::account::Account;
use super::answer::off_thread;
use super::error::ApiError;
use super::json::{Object, wipe};
use super::respond::{Body, Room, whole};
use super::wanted::Outcome;
use crate::model::{Embeds, Served};

/// What a client asked for.
pub(super) struct Texts {
    pub(super) model: String,
    pub(super) texts: Vec<SecretString>,
    encoding: Encoding,
    dimensions: Option<u64>,
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// As numbers.
    Float,
    /// As f32 in little endian, in base64: what OpenAI's own libraries ask for.
    Base64,
}

impl Encoding {
    /// How long an answer with so many vectors is at most: a number may be written as `-1.2345678e-12,`.
    fn most(self, vectors: usize, dimensions: usize) -> usize {
        let vector = match self {
            Self::Float => dimensions.saturating_mul(16),
            Self::Base64 => dimensions.saturating_mul(4).div_ceil(3).saturating_mul(4),
        };
        vectors.saturating_mul(vector.saturating_add(64)).saturating_add(1024)
    }
}

/// Reads a request.
pub(super) fn read(mut object: Object) -> Result<Texts, ApiError> {
    let model = object.required_text("model")?.expose().to_owned();
    let texts = input(&mut object)?;
    let encoding = match object.text("encoding_format")?.as_ref().map(SecretString::expose) {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(_) => return Err(object.wrong("encoding_format", "must be float or base64")),
    };
    let dimensions = object.count("dimensions")?;
    // A name for the end user: allowed, and used for nothing.
    object.text("user")?;
    object.finish()?;
    Ok(Texts { model, texts, encoding, dimensions })
}

/// A text, or an array of texts.
fn input(object: &mut Object) -> Result<Vec<SecretString>, ApiError> {
    const PROBLEM: &str = "must be a string or an array of strings";
    let items = match object.take("input") {
        None => return Err(object.wrong("input", "is required").code("missing_required_parameter")),
        Some(Value::Array(items)) => items,
        Some(value) => vec![value],
    };
    let mut texts = Vec::with_capacity(items.len());
    let mut refused = None;
    for mut item in items {
        match item {
            Value::String(text) if !text.is_empty() => texts.push(text.into()),
            Value::String(_) => refused = Some("must not have an empty text"),
            Value::Number(_) | Value::Array(_) => {
                wipe(&mut item);
                refused = Some("must be text: token ids are those of another model's tokenizer");
            }
            Value::Null | Value::Bool(_) | Value::Object(_) => {
                wipe(&mut item);
                refused = Some(PROBLEM);
            }
        }
    }
    match refused {
        Some(problem) => Err(object.wrong("input", problem)),
        None if texts.is_empty() => Err(object.wrong("input", PROBLEM)),
        None if texts.len() > MAX_EMBED_TEXTS => Err(object.wrong("input", "must have at most 2048 texts")),
        None => Ok(texts),
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Numbers<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers<'a> {
    Float(&'a [f32]),
    Base64(InBase64<'a>),
}

struct InBase64<'a>(&'a [f32]);

impl Serialize for InBase64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = Zeroizing::new(self.0.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        serializer.collect_str(&Base64Display::new(&bytes, &BASE64_STANDARD))
    }
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Computes it.
pub(super) async fn answer(
    served: &Arc<Served>,
    wanted: Texts,
    deadline: Instant,
    account: Account,
    connection: &Arc<Semaphore>,
) -> Result<Response<Body>, ApiError> {
    let Texts { model, texts, encoding, dimensions } = wanted;
    let embeds = served.embeds()?;
    if dimensions.is_some_and(|wanted| wanted != embeds.embedder.dimensions() as u64) {
        let message = format!("this model has {} dimensions and no others", embeds.embedder.dimensions());
        return Err(ApiError::invalid("dimensions", message));
    }
    let room = room(connection, encoding.most(texts.len(), embeds.embedder.dimensions()))?;
    let write = move |embeddings: &[Embedding]| write(embeddings, &model, encoding);
    let (answer, tokens) = compute(served, embeds, (texts, deadline), write).await?;
    let mut response = Response::new(whole(answer));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    account.settle(Outcome { prompt_tokens: tokens, completion_tokens: 0, finish_reason: "embedded" });
    response.extensions_mut().insert(account);
    response.extensions_mut().insert(room);
    Ok(response)
}

/// The body, and the tokens of all texts.
fn write(embeddings: &[Embedding], model: &str, encoding: Encoding) -> Result<(Bytes, usize), ApiError> {
    let tokens = embeddings.iter().map(Embedding::tokens).sum();
    let data = embeddings.iter().enumerate().map(|(index, embedding)| Item {
        object: "embedding",
        index,
        embedding: numbers(embedding, encoding),
    });
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    let answer = Answer { object: "list", data: data.collect(), model, usage };
    let failed = |_: serde_json::Error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed");
    Ok((Bytes::from(serde_json::to_vec(&answer).map_err(failed)?), tokens))
}

/// Room for an answer of so many bytes.
fn room(connection: &Arc<Semaphore>, bytes: usize) -> Result<Room, ApiError> {
    let kibibytes = bytes.div_ceil(1024);
    if kibibytes > Room::OF_CONNECTION {
        let message = "makes an answer of more than 16 MiB; send fewer texts, or encoding_format base64";
        return Err(ApiError::invalid("input", message));
    }
    Room::take(connection, kibibytes).ok_or_else(|| {
        let message = "too many large answers are on their way";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).code("busy").retry_after(1)
    })
}

fn numbers(embedding: &Embedding, encoding: Encoding) -> Numbers<'_> {
    match encoding {
        Encoding::Float => Numbers::Float(embedding.expose()),
        Encoding::Base64 => Numbers::Base64(InBase64(embedding.expose())),
    }
}

/// How many tokens texts have together.
pub(super) async fn count(served: &Arc<Served>, texts: Vec<SecretString>) -> Result<usize, ApiError> {
    let count = move |served: &Served| {
        let embedder = &served.embeds()?.embedder;
        Ok(texts.iter().map(|text| embedder.count(text.expose())).sum())
    };
    off_thread(served, count).await
}

/// Ends a computation when nobody waits for it any more.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Off the threads that serve connections, pack by pack, in turn with all else that computes.
async fn compute<T: Send + 'static>(
    served: &Arc<Served>,
    embeds: &Embeds,
    (texts, deadline): (Vec<SecretString>, Instant),
    then: impl FnOnce(&[Embedding]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let internal = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine failed");
    let _place = embeds.places.try_acquire().map_err(|_full| {
        let message = "too many requests wait; try again later";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, message).code("queue_full").retry_after(1)
    })?;
    let late = || {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the answer took longer than this enclave allows")
            .code("deadline_exceeded")
    };
    let turn = Arc::clone(&embeds.running).acquire_owned();
    let turn = tokio::time::timeout_at(deadline.into(), turn).await;
    let turn = turn.map_err(|_elapsed| late())?.map_err(|_closed| internal())?;
    let waits = Arc::new(AtomicBool::new(true));
    let _waiting = Waiting(Arc::clone(&waits));
    let served = Arc::clone(served);
    let (done, computed) = oneshot::channel();
    let task = Box::new(move || {
        let go_on = || waits.load(Ordering::Relaxed) && Instant::now() < deadline;
        let embed = || then(&served.embeds()?.embedder.embed(&texts, &go_on)?);
        let _gone = done.send(embed());
        // Over when the work is, also if nobody waits for it any more.
        drop(turn);
    });
    embeds.threads.send(task).map_err(|_ended| internal())?;
    let embeddings = computed.await.map_err(|_panicked| internal())?;
    embeddings.map_err(|error: ApiError| if Instant::now() >= deadline { late() } else { error })
}

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        let message = error.to_string();
        match error {
            EmbedError::TooManyTexts { .. } => Self::invalid("input", message),
            EmbedError::TooManyBytes { .. } | EmbedError::TooLong { .. } => {
                Self::new(StatusCode::BAD_REQUEST, message).param("input").code("context_length_exceeded")
            }
            EmbedError::Stopped | _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(change: impl FnOnce(&mut Value)) -> Result<Texts, ApiError> {
        let mut body = json!({ "model": "m", "input": "secret words" });
        change(&mut body);
        read(Object::parse(body.to_string().as_bytes())?)
    }

    #[test]
    fn reads_what_openai_clients_send() {
        let one = parsed(|_| ()).ok().unwrap();
        assert_eq!((one.texts.len(), one.texts[0].expose()), (1, "secret words"));
        assert!(one.model == "m" && one.encoding == Encoding::Float && one.dimensions.is_none());
        let many = parsed(|body| {
            body["input"] = json!(["a", "b"]);
            body["encoding_format"] = "base64".into();
            body["dimensions"] = 384.into();
            body["user"] = "somebody".into();
        });
        let many = many.ok().unwrap();
        assert_eq!(many.texts.iter().map(SecretString::expose).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((many.encoding, many.dimensions), (Encoding::Base64, Some(384)));
    }

    /// A connection has so much, all have so much together, and it comes back when an answer has gone.
    #[test]
    fn large_answers_have_a_budget() {
        assert!(Encoding::Float.most(2048, 384) < 16 << 20 && Encoding::Base64.most(2048, 1024) < 16 << 20);
        let connection = Arc::new(Semaphore::new(Room::OF_CONNECTION));
        let refused = room(&connection, (16 << 20) + 1).err().unwrap().json();
        assert_eq!(
            (&refused["error"]["param"], &refused["error"]["code"]),
            (&json!("input"), &json!("invalid_value"))
        );
        let held = room(&connection, 16 << 20).ok().unwrap();
        let busy = room(&connection, 1).err().unwrap().json();
        assert_eq!(busy["error"]["code"], "busy");
        let others: Vec<_> = (0..3)
            .map(|_| room(&Arc::new(Semaphore::new(Room::OF_CONNECTION)), 16 << 20).ok().unwrap())
            .collect();
        let another = Arc::new(Semaphore::new(Room::OF_CONNECTION));
        assert!(room(&another, 1).is_err(), "all have 64 MiB");
        drop((held, others));
        assert!(room(&another, 16 << 20).is_ok() && room(&connection, 16 << 20).is_ok());
    }

    /// What serialising takes at most.
    #[test]
    fn numbers_are_no_longer_than_there_is_room_for() {
        let longest = [-1.234_567_8e-12_f32, -1.175_494_4e-38, -0.099_999_994, 1.0 / 3.0];
        for number in longest {
            assert!(serde_json::to_string(&number).unwrap().len() < 16, "{number}");
        }
    }

    #[test]
    fn every_problem_names_its_field() {
        for (field, value, param) in [
            ("input", json!(null), "input"),
            ("input", json!(""), "input"),
            ("input", json!([]), "input"),
            ("input", json!(["a", ""]), "input"),
            ("input", json!([1, 2]), "input"),
            ("input", json!([[1, 2]]), "input"),
            ("input", json!([true]), "input"),
            ("input", json!({ "text": "secret words" }), "input"),
            ("input", vec!["a"; MAX_EMBED_TEXTS + 1].into(), "input"),
            ("encoding_format", json!("int8"), "encoding_format"),
            ("encoding_format", json!(1), "encoding_format"),
            ("dimensions", json!(-1), "dimensions"),
            ("user", json!(1), "user"),
            ("model", json!(null), "model"),
            ("truncate", json!(true), "truncate"),
        ] {
            let Err(error) = parsed(|body| body[field] = value) else { panic!("{field} is taken") };
            let error = error.json();
            assert_eq!(error["error"]["param"], param, "{error}");
            assert!(!error.to_string().contains("secret words"), "{error}");
        }
        assert_eq!(
            parsed(|body| body["input"] = vec!["a"; MAX_EMBED_TEXTS].into()).ok().unwrap().texts.len(),
            2048
        );
    }
}
