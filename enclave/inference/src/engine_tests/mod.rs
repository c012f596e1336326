//! The engine on a tiny model.

mod batching;
mod ends;
mod memory;

use crate::testing::{Tiny, tiny_model};
use crate::{
    CacheSalt, ClientId, Engine, EngineConfig, Error, FailureKind, FinishReason, GenerateEvent,
    GenerateRequest, Load, Message, Model, ModelBytes, Role, Sink, SubmitError, TemplateError, TokenMask,
    TokenSet,
};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn engine_of(bytes: Vec<u8>, max_running: usize, max_waiting: usize) -> Engine {
    let model = Model::load(ModelBytes::from_vec(bytes)).unwrap();
    Engine::start(
        model,
        EngineConfig { threads: 2, max_running, max_waiting, step_tokens: 48, ..EngineConfig::default() },
    )
    .unwrap()
}

fn engine(max_running: usize, max_waiting: usize) -> Engine {
    engine_of(tiny_model(), max_running, max_waiting)
}

pub(crate) fn request(text: &str, max_tokens: usize) -> GenerateRequest {
    let mut request = GenerateRequest::new(vec![Message::new(Role::User, text)]);
    request.max_tokens = Some(max_tokens);
    request.temperature = 0.0;
    request
}

/// How a request ended, and with what text.
#[derive(Debug, PartialEq, Clone)]
pub(crate) enum End {
    Finished { reason: FinishReason, prompt: usize, completion: usize },
    Failed(FailureKind),
}

/// Passes all events on; ends when nobody listens.
pub(crate) fn relay() -> (Sink, Receiver<GenerateEvent>) {
    let (sender, receiver) = channel();
    let sink = Box::new(move |event| match sender.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_gone) => ControlFlow::Break(()),
    });
    (sink, receiver)
}

pub(crate) fn collect(events: &Receiver<GenerateEvent>) -> (String, End) {
    let mut answer = String::new();
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            GenerateEvent::Working | GenerateEvent::Reading { .. } => (),
            GenerateEvent::Text { text, .. } => {
                assert!(!text.is_empty());
                answer.push_str(text.expose());
            }
            GenerateEvent::Finished { reason, prompt_tokens, completion_tokens } => {
                let end = End::Finished { reason, prompt: prompt_tokens, completion: completion_tokens };
                return (answer, end);
            }
            GenerateEvent::Failed(kind) => return (answer, End::Failed(kind)),
        }
    }
}

pub(crate) fn answer(engine: &Engine, request: GenerateRequest) -> (String, End) {
    let (sink, events) = relay();
    engine.submit(request, sink).unwrap();
    collect(&events)
}

/// Holds the engine's thread at its first event until something is sent.
fn blocker(engine: &Engine) -> (Sender<()>, Receiver<GenerateEvent>) {
    let (release, gate) = channel::<()>();
    let (mut sink, events) = relay();
    let mut held = false;
    let (reached, at_gate) = channel();
    let blocking: Sink = Box::new(move |event| {
        if !held {
            held = true;
            reached.send(()).unwrap();
            let _released = gate.recv_timeout(PATIENCE);
        }
        sink(event)
    });
    engine.submit(request("block", 3), blocking).unwrap();
    at_gate.recv_timeout(PATIENCE).unwrap();
    (release, events)
}

pub(crate) fn until_idle(engine: &Engine) {
    let started = Instant::now();
    while engine.load() != (Load { running: 0, waiting: 0 }) {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn sampled(text: &str, seed: u64) -> GenerateRequest {
    GenerateRequest { temperature: 1.5, top_p: 0.95, seed: Some(seed), ..request(text, 40) }
}

/// Different requests, greedy and seeded, of two clients and of none.
fn many(count: usize) -> Vec<GenerateRequest> {
    let one = |n: usize| {
        let text = format!("request {n} {}", "of some length ".repeat(n % 5));
        let mut request = if n.is_multiple_of(2) { request(&text, 40) } else { sampled(&text, n as u64) };
        request.client = (!n.is_multiple_of(3)).then(|| ClientId([u8::try_from(n % 3).unwrap(); 32]));
        request.cache_salt = request.client.map(|client| CacheSalt(client.0));
        request
    };
    (0..count).map(one).collect()
}

fn config(max_running: usize, max_waiting: usize) -> EngineConfig {
    EngineConfig { threads: 2, max_running, max_waiting, step_tokens: 48, ..EngineConfig::default() }
}

fn start(config: EngineConfig) -> Engine {
    Engine::start(Model::load(ModelBytes::from_vec(tiny_model())).unwrap(), config).unwrap()
}
