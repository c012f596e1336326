//! Answers of an engine to random schemas, looked at by a library that knows nothing of ours. Through the engine and not the API:
//! the way from a request's `response_format` to these rules is tested in `tests/tests/it/formats.rs`.

use super::random;
use crate::engine_tests::{End, collect, relay};
use crate::testing::Tiny;
use crate::{
    Engine, EngineConfig, FinishReason, GenerateEvent, GenerateRequest, Message, Model, ModelBytes, Role,
    Rules,
};
use serde_json::Value;
use std::ops::Range;
use std::sync::mpsc::Receiver;

/// What came of the schemas.
#[derive(Default, Debug)]
struct Tally {
    finished: usize,
    cut_off: usize,
    /// A schema, and what is wrong with the answer to it.
    wrong: Vec<String>,
}

fn engine(model: Model) -> Engine {
    let mut config = EngineConfig::default();
    (config.max_running, config.threads) = (32, 2);
    Engine::start(model, config).unwrap()
}

/// A model of random weights would hardly ever end a string, or an array.
fn biases(model: &Model) -> Vec<(u32, f32)> {
    let bias = |token: &[u8]| match token {
        b"\"" | b"}" | b"]" => 3.0,
        b"," => 1.0,
        b" " | b"\n" | b"\\" => -2.0,
        _ => 0.0,
    };
    let all = (0..u32::try_from(model.tokenizer.vocabulary()).unwrap())
        .map(|id| (id, bias(model.tokenizer.bytes(id))));
    all.filter(|(_, bias)| *bias != 0.0).collect()
}

fn ask(engine: &Engine, schema: &Value, request: GenerateRequest) -> Result<Receiver<GenerateEvent>, String> {
    let rules = Rules::Schema(schema.clone());
    let grammar = engine.model().grammar(&rules).map_err(|error| format!("refused: {error}"))?;
    let (sink, events) = relay();
    engine.submit(GenerateRequest { mask: Some(Box::new(grammar)), ..request }, sink).unwrap();
    Ok(events)
}

/// What is wrong with a finished answer.
fn fault(schema: &Value, answer: &str) -> Option<String> {
    let validator = match jsonschema::options().should_validate_formats(true).build(schema) {
        Ok(validator) => validator,
        Err(error) => return Some(format!("the schema is wrong: {error}")),
    };
    match serde_json::from_str::<Value>(answer) {
        Ok(value) => {
            validator.validate(&value).err().map(|error| format!("{error} at {}", error.instance_path()))
        }
        // 1e999 is JSON all the same, and no schema here that leaves such numbers out allows an exponent.
        Err(error) => (!error.to_string().starts_with("number out of range")).then(|| error.to_string()),
    }
}

/// Asks for an answer to each of these schemas, many at a time.
fn try_all(engine: &Engine, numbers: Range<u64>, request: impl Fn(u64) -> GenerateRequest) -> Tally {
    let mut tally = Tally::default();
    let numbers: Vec<u64> = numbers.collect();
    for batch in numbers.chunks(64) {
        let asked = batch.iter().map(|number| {
            let schema = random::schema(*number);
            let events = ask(engine, &schema, request(*number));
            (*number, schema, events)
        });
        for (number, schema, events) in asked.collect::<Vec<_>>() {
            let fault = match events.map(|events| collect(&events)) {
                Ok((answer, End::Finished { reason: FinishReason::Stop, .. })) => {
                    tally.finished += 1;
                    fault(&schema, &answer).map(|fault| format!("{fault}\n{answer}"))
                }
                Ok((_, End::Finished { reason: FinishReason::Length, .. })) => {
                    tally.cut_off += 1;
                    None
                }
                Ok((answer, End::Failed(kind))) => Some(format!("failed: {kind:?}\n{answer}")),
                Err(refused) => Some(refused),
            };
            tally.wrong.extend(fault.map(|fault| format!("schema {number}: {fault}\n{schema}")));
        }
    }
    tally
}

fn request(number: u64, max_tokens: usize) -> GenerateRequest {
    let mut request = GenerateRequest::new(vec![Message::new(Role::User, "Anything, in JSON, but short.")]);
    request.max_tokens = Some(max_tokens);
    request.temperature = 0.8 + (number % 7) as f32 / 10.0;
    request.seed = Some(number);
    request
}

#[test]
fn five_hundred_random_schemas_are_kept_to() {
    let tiny = Tiny::default().with_number("llama.context_length", 2048).build();
    let engine = engine(Model::load(ModelBytes::from_vec(tiny)).unwrap());
    let biases = biases(engine.model());
    let tally = try_all(&engine, 0..500, |number| GenerateRequest {
        logit_bias: biases.clone().into(),
        ..request(number, 800)
    });
    assert!(tally.wrong.is_empty(), "{} wrong:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    assert!(tally.finished >= 400, "{} finished, {} were cut off", tally.finished, tally.cut_off);
}

#[test]
#[ignore = "minutes, by hand: the same with the small real model, which `scripts/model fetch` puts there"]
fn random_schemas_are_kept_to_by_a_real_model() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let engine = engine(Model::load(crate::read_model(path.as_ref(), None, |_, _| ()).unwrap()).unwrap());
    let tally = try_all(&engine, 1000..1060, |number| request(number, 300));
    assert!(tally.wrong.is_empty(), "{} wrong:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    assert!(tally.finished >= 40, "{} finished, {} were cut off", tally.finished, tally.cut_off);
}
