//! Many streams through the whole product (client, relay, attested channel, API, engine), against the same engine driven in process.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Context;
use cocoon_client::{AttestedSession, ChatEvent, ChatRequest, Policy, connect};
use cocoon_inference::{
    CacheSalt, ClientId, Engine, EngineConfig, GenerateEvent, GenerateRequest, Message, Model, Role,
    read_model,
};
use cocoon_tests::programs::HostProcess;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::pairs::alternate;
use crate::report::{Better, Row};

/// Streams at a time, each on its own connection.
const STREAMS: usize = 64;
/// Tokens of each answer.
const ANSWER: u32 = 64;
/// Odd, so that the median is one of the pairs.
const PAIRS: usize = 5;

/// Measures everything about serving.
///
/// # Errors
/// When a program does not start or an answer breaks off.
pub fn measure() -> anyhow::Result<Vec<Row>> {
    let model = Model::load(read_model(&cocoon_tests::model(), None, |_, _| ())?)?;
    let engine = Engine::start(model, EngineConfig::default())?;
    let host = HostProcess::start(&[]);
    let runtime = Runtime::new()?;
    let policy = Policy::from_toml(&std::fs::read_to_string(host.policy())?)?;
    let sessions = runtime.block_on(sessions(&host.address, &policy))?;
    let models = runtime.block_on(sessions[0].models())?;
    let model = &models.first().context("the enclave has no model")?.id;
    let all = alternate(
        PAIRS,
        || Ok(Figures::of(&in_process(&engine)?).all()),
        || Ok(Figures::of(&runtime.block_on(through_everything(&sessions, model))?).all()),
    )?;
    let names = [
        ("tokens of all streams together", Better::Higher, "tokens/s"),
        ("first token, median stream", Better::Lower, "ms"),
        ("between tokens, median", Better::Lower, "ms"),
        ("between tokens, 99 of 100", Better::Lower, "ms"),
    ];
    let rows = names.into_iter().zip(all).map(|((what, better, unit), pairs)| Row {
        what: format!("{STREAMS} streams: {what}"),
        baseline: "same engine, in process".to_owned(),
        better,
        unit,
        pairs,
        note: String::new(),
    });
    Ok(rows.collect())
}

/// When a stream was asked for, and when each of its pieces came.
struct Stream {
    asked: Instant,
    pieces: Vec<Instant>,
    tokens: u64,
}

struct Figures {
    tokens_per_second: f64,
    first: f64,
    between: f64,
    between_99: f64,
}

impl Figures {
    fn of(streams: &[Stream]) -> Self {
        let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        let start = streams.iter().map(|stream| stream.asked).min();
        let end = streams.iter().filter_map(|stream| stream.pieces.last().copied()).max();
        let seconds = start.zip(end).map_or(f64::NAN, |(start, end)| ms(start, end) / 1e3);
        let tokens: u64 = streams.iter().map(|stream| stream.tokens).sum();
        let mut firsts: Vec<f64> =
            streams.iter().filter_map(|stream| Some(ms(stream.asked, *stream.pieces.first()?))).collect();
        let mut betweens: Vec<f64> = streams
            .iter()
            .flat_map(|stream| stream.pieces.windows(2).map(|two| ms(two[0], two[1])))
            .collect();
        firsts.sort_by(f64::total_cmp);
        betweens.sort_by(f64::total_cmp);
        let share = |sorted: &[f64], hundredths: usize| sorted[(sorted.len() - 1) * hundredths / 100];
        Self {
            tokens_per_second: tokens as f64 / seconds,
            first: share(&firsts, 50),
            between: share(&betweens, 50),
            between_99: share(&betweens, 99),
        }
    }

    fn all(&self) -> [f64; 4] {
        [self.tokens_per_second, self.first, self.between, self.between_99]
    }
}

fn prompt(stream: usize) -> String {
    format!("Write a long story about the number {stream} and its friends.")
}

fn in_process(engine: &Engine) -> anyhow::Result<Vec<Stream>> {
    let (done, ends) = std::sync::mpsc::channel();
    for stream in 0..STREAMS {
        let message = Message::new(Role::User, prompt(stream));
        let mut request = GenerateRequest::new(vec![message]);
        request.max_tokens = Some(usize::try_from(ANSWER)?);
        request.seed = Some(stream as u64);
        // As the enclave tells connections apart: a stream finds its own prompt of the round before in the cache, on both sides.
        let client = [u8::try_from(stream)?; 32];
        (request.client, request.cache_salt) = (Some(ClientId(client)), Some(CacheSalt(client)));
        let (done, asked, mut pieces) = (done.clone(), Instant::now(), Vec::new());
        let sink = move |event: GenerateEvent| {
            match event {
                GenerateEvent::Text { .. } => pieces.push(Instant::now()),
                GenerateEvent::Finished { completion_tokens, .. } => {
                    let (pieces, tokens) = (std::mem::take(&mut pieces), completion_tokens as u64);
                    let _gone = done.send(Ok(Stream { asked, pieces, tokens }));
                }
                GenerateEvent::Failed(kind) => {
                    let _gone = done.send(Err(anyhow::anyhow!("{kind:?}")));
                }
                GenerateEvent::Working | GenerateEvent::Reading { .. } => (),
            }
            ControlFlow::Continue(())
        };
        engine.submit(request, Box::new(sink))?;
    }
    drop(done);
    ends.iter().collect()
}

async fn sessions(address: &str, policy: &Policy) -> anyhow::Result<Vec<AttestedSession>> {
    let mut sessions = Vec::new();
    for _ in 0..STREAMS {
        sessions.push(connect(address, policy.clone()).await?.without_padding());
    }
    Ok(sessions)
}

async fn through_everything(sessions: &[AttestedSession], model: &str) -> anyhow::Result<Vec<Stream>> {
    let mut clients = JoinSet::new();
    for (stream, session) in sessions.iter().enumerate() {
        let (session, model) = (session.clone(), model.to_owned());
        clients.spawn(async move {
            let mut request = ChatRequest::new(model, prompt(stream));
            request.max_tokens = Some(ANSWER);
            request.seed = Some(stream as u64);
            let asked = Instant::now();
            let mut answer = session.chat(&request).await?;
            let (mut pieces, mut tokens) = (Vec::new(), 0);
            while let Some(event) = answer.next().await? {
                match event {
                    ChatEvent::Text(_) => pieces.push(Instant::now()),
                    ChatEvent::Usage(usage) => tokens = usage.completion_tokens,
                    _ => (),
                }
            }
            Ok::<_, anyhow::Error>(Stream { asked, pieces, tokens })
        });
    }
    let mut all = Vec::new();
    while let Some(stream) = clients.join_next().await {
        all.push(stream??);
    }
    Ok(all)
}
