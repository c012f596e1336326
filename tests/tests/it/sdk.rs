//! The SDK: several enclaves behind one handle, chats, raw requests.

use std::time::Duration;

use bytes::Bytes;
use cocoon_client::{
    ChatEvent, ChatRequest, Client, Error, FinishReason, Message, ModelKind, Policy, ReceiptBundle,
    ResponseFormat, Role, Tool, ToolCall, ToolChoice, connect,
};
use cocoon_tests::enclave::InProcess;
use cocoon_tests::programs::{EnclaveProcess, contains, memory};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower_service::Service;

/// Nothing that occurs by chance.
const CANARY: &str = "serengeti-lantern-7741";

fn policy(enclave: &EnclaveProcess) -> Policy {
    Policy::from_toml(&enclave.policy_text()).unwrap()
}

fn question(tokens: u32) -> ChatRequest {
    let mut request = ChatRequest::new("m", "What is a rainbow?");
    request.temperature = Some(0.0);
    request.max_tokens = Some(tokens);
    request
}

/// Without the tokens that end an answer.
fn endless() -> ChatRequest {
    let mut request = question(4000);
    request.logit_bias.extend([(0, -100.0), (2, -100.0)]);
    request
}

/// Whether a receipt is signed by the enclave that it names, for that many tokens.
fn holds(receipt: &ReceiptBundle, tokens: u64) -> bool {
    let receipt = receipt.signed.verify(&receipt.statement).unwrap();
    receipt.completion_tokens == tokens
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_whole_and_streamed_with_receipts() {
    let enclave = InProcess::with_model().await;
    let client =
        Client::builder().policy(enclave.policy()).endpoint(&enclave.address).connect().await.unwrap();
    let model = client.models().await.unwrap().remove(0);
    assert_eq!((model.id.as_str(), model.context_length), ("m", Some(8192)));
    assert_eq!((model.kind, model.dimensions), (ModelKind::Chat, None));
    let unknown = client.complete(&ChatRequest::new("no-such", "Hello")).await.err().unwrap();
    assert!(matches!(unknown, Error::NoSuchModel), "{unknown}");
    let status = client.endpoints().remove(0);
    assert!(status.is_usable && status.report.unwrap().accepted && status.message.is_none());

    let whole = client.complete(&question(8)).await.unwrap();
    assert!(whole.text.contains("rainbow") && whole.finish_reason == FinishReason::Length);
    assert!(whole.usage.completion_tokens == 8 && whole.logprobs.is_empty() && holds(&whole.receipt, 8));

    let mut stream = client.chat(&question(8)).await.unwrap();
    assert_eq!(client.endpoints()[0].requests, 1);
    let (mut text, mut events) = (String::new(), Vec::new());
    while let Some(event) = stream.next().await.unwrap() {
        match event {
            ChatEvent::Text(more) => text.push_str(&more),
            ChatEvent::Finished(reason) => events.push(reason.as_str().to_owned()),
            ChatEvent::Usage(usage) => events.push(usage.completion_tokens.to_string()),
            _ => {}
        }
    }
    assert!(text == whole.text && events == ["length", "8"], "{events:?}");
    assert!(holds(stream.receipt().unwrap(), 8));
    assert_eq!(client.endpoints()[0].requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_reaches_the_engine() {
    let enclave = InProcess::with_model().await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap().without_padding();
    let mut request = question(6);
    (request.logprobs, request.top_logprobs) = (true, Some(2));
    let first = session.complete(&request).await.unwrap();
    assert_eq!((first.logprobs.len(), first.logprobs[0].top_logprobs.len()), (6, 2));
    assert_eq!(first.logprobs.iter().map(|token| token.token.as_str()).collect::<String>(), first.text);
    assert!(first.logprobs[0].logprob <= 0.0 && first.logprobs[0].bytes.is_some());

    // Until what it would say first is said; with another conversation, something else.
    request.stop.push(first.logprobs[2].token.clone());
    let stopped = session.complete(&request).await.unwrap();
    assert!(stopped.finish_reason == FinishReason::Stop && first.text.starts_with(&stopped.text));
    let mut talk = ChatRequest::of("m", [Message::new(Role::System, "You only ever say: no.")]);
    talk.push(Role::User, "Is it raining?").push(Role::Assistant, "no").push(Role::User, "Is it snowing?");
    talk.max_tokens = Some(4);
    (talk.temperature, talk.top_k, talk.top_p, talk.min_p) = (Some(0.5), Some(20), Some(0.9), Some(0.01));
    (talk.presence_penalty, talk.frequency_penalty, talk.repetition_penalty) =
        (Some(0.1), Some(0.1), Some(1.1));
    talk.seed = Some(7);
    talk.logit_bias.insert(5, -100.0);
    let (one, two) = (session.complete(&talk).await.unwrap(), session.complete(&talk).await.unwrap());
    assert!(one.text == two.text && one.usage.prompt_tokens > first.usage.prompt_tokens);

    // The enclave says which field is wrong, and not what was in it.
    for (change, param) in [
        (&(|r: &mut ChatRequest| r.temperature = Some(2.5)) as &dyn Fn(&mut ChatRequest), "temperature"),
        (&|r: &mut ChatRequest| r.top_p = Some(0.0), "top_p"),
        (&|r: &mut ChatRequest| r.repetition_penalty = Some(0.0), "repetition_penalty"),
        (&|r: &mut ChatRequest| drop(r.more.insert(CANARY.to_owned(), json!(true))), ""),
    ] {
        let mut wrong = question(1);
        change(&mut wrong);
        let Err(Error::Api { status: 400, message, .. }) = session.complete(&wrong).await else {
            panic!("{param} was taken")
        };
        assert!(message.contains(param), "{message}");
    }
}

fn city() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["city", "degrees"],
        "properties": { "city": { "enum": ["Paris", "Rome"] }, "degrees": { "type": "integer", "minimum": -9, "maximum": 40 } },
    })
}

/// Whether this is JSON of that schema.
fn is_city(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap();
    ["Paris", "Rome"].contains(&value["city"].as_str().unwrap()) && value["degrees"].is_i64()
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_and_told_their_results() {
    let enclave = InProcess::with_model().await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap().without_padding();
    let mut request = ChatRequest::new("m", "What is the weather in Paris?");
    (request.temperature, request.max_tokens) = (Some(0.0), Some(300));
    request.tools = vec![Tool::new("weather", "In a city", city()), Tool::new("population", "", city())];
    request.tool_choice = Some(ToolChoice::Function("population".to_owned()));
    let called = session.complete(&request).await.unwrap();
    assert!(called.finish_reason == FinishReason::ToolCalls && called.text.is_empty());
    let [call] = called.tool_calls.as_slice() else { panic!("{} calls", called.tool_calls.len()) };
    assert!(call.id.starts_with("call_") && call.name == "population" && is_city(&call.arguments));

    request.tool_choice = Some(ToolChoice::Required);
    request.parallel_tool_calls = Some(true);
    let mut stream = session.chat(&request).await.unwrap();
    let (mut calls, mut finished) = (Vec::<ToolCall>::new(), None);
    while let Some(event) = stream.next().await.unwrap() {
        match event {
            ChatEvent::ToolCall(call) => calls.push(call),
            ChatEvent::Finished(reason) => finished = Some(reason),
            ChatEvent::Text(text) => panic!("{text}"),
            _ => {}
        }
    }
    assert!(finished.is_some() && !calls.is_empty());
    assert!(calls.iter().all(|call| is_city(&call.arguments) && !call.id.is_empty()));

    // The conversation goes on behind the call and its result.
    let more = [called.message(), Message::result(&call.id, "Two million people")];
    request.messages_mut().extend(more);
    request.tool_choice = Some(ToolChoice::Auto);
    let answered = session.complete(&request).await.unwrap();
    assert!(answered.usage.prompt_tokens > called.usage.prompt_tokens + 10);
    request.messages_mut().push(Message::result("call_of_nobody", "Nothing"));
    let Err(Error::Api { message, .. }) = session.complete(&request).await else { panic!("answered") };
    assert!(message.contains("the id of a call"), "{message}");

    // A call that is cut off is none.
    request.messages_mut().truncate(1);
    request.tool_choice = Some(ToolChoice::Function("weather".to_owned()));
    for tokens in (4..32).step_by(4) {
        request.max_tokens = Some(tokens);
        let cut = session.complete(&request).await.unwrap();
        let is_cut = cut.finish_reason == FinishReason::Length;
        assert!(is_cut || cut.tool_calls.len() == 1);
        assert!(cut.tool_calls.iter().all(|call| is_city(&call.arguments)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_to_a_format_and_several_are_refused() {
    let enclave = InProcess::with_model().await;
    let session = connect(&enclave.address, enclave.policy()).await.unwrap().without_padding();
    let mut request = question(200);
    request.response_format = Some(ResponseFormat::JsonSchema { name: "city".to_owned(), schema: city() });
    let answer = session.complete(&request).await.unwrap();
    assert!(answer.finish_reason == FinishReason::Stop && is_city(&answer.text), "{}", answer.text);
    request.response_format = Some(ResponseFormat::JsonObject);
    let answer = session.complete(&request).await.unwrap();
    assert!(answer.text.trim_start().starts_with('{'), "{}", answer.text);

    let mut several = question(4);
    several.more.insert("n".to_owned(), json!(2));
    let error = session.complete(&several).await.err().unwrap();
    assert!(matches!(&error, Error::Misuse(why) if why.contains("Client::post")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_ends_the_request() {
    let enclave = InProcess::with_model().await;
    let client =
        Client::builder().policy(enclave.policy()).endpoint(&enclave.address).padding(false).build().unwrap();
    let mut stream = client.chat(&endless()).await.unwrap();
    assert!(stream.next().await.unwrap().is_some());
    assert_eq!(client.endpoints()[0].requests, 1);
    drop(stream);
    assert_eq!(client.endpoints()[0].requests, 0);
    // The next one has the engine to itself: it would come last in thousands of tokens otherwise.
    assert!(client.complete(&question(4)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_limited_where_the_caller_says_so() {
    let enclave = InProcess::with_model().await;
    let builder = || Client::builder().policy(enclave.policy()).endpoint(&enclave.address);
    let late = |error: Error| matches!(error, Error::Timeout(_));

    let client = builder().timeout(Duration::from_millis(400)).connect().await.unwrap();
    let mut stream = client.chat(&endless()).await.unwrap();
    let error = loop {
        match stream.next().await {
            Ok(event) => assert!(event.is_some(), "the answer is whole"),
            Err(error) => break error,
        }
    };
    assert!(late(error));
    assert!(late(client.complete(&endless()).await.err().unwrap()));

    let client = builder().first_byte_timeout(Duration::from_millis(1)).connect().await.unwrap();
    // Cutting so much text into tokens takes longer.
    let long = ChatRequest::new("m", "Rainbows are words. ".repeat(20_000));
    assert!(late(client.chat(&long).await.err().unwrap()));
    assert!(client.endpoints()[0].is_usable, "slow is not gone");

    // Somebody who accepts connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let client = Client::builder().policy(enclave.policy()).endpoint(&address);
    let error = client.connect_timeout(Duration::from_millis(200)).connect().await.unwrap_err();
    assert!(error.to_string().contains("in time") && !error.is_rejection(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_enclave_dies_another_verified_one_answers_and_no_other_is_sent_anything() {
    let (mut first, second) = (EnclaveProcess::start(&[]), EnclaveProcess::start(&[]));
    let other = EnclaveProcess::start(&["--max-running", "3"]); // another configuration: not accepted
    let client = Client::builder().policy(policy(&first)).padding(false);
    let client = client.endpoint(&other.address).endpoint(&first.address).endpoint(&second.address);
    let client = client.connect().await.unwrap();
    let refused = client.verify().await;
    assert_eq!((refused.len(), &refused[0].endpoint), (1, &other.address));
    let failed: Vec<&str> =
        refused[0].report.as_ref().unwrap().failures().map(|factor| factor.name).collect();
    assert_eq!(failed, ["claims.config"]);

    let model = client.models().await.unwrap().remove(0).id;
    let ask = || async {
        let mut request = ChatRequest::new(&model, format!("What is a rainbow? {CANARY}"));
        request.max_tokens = Some(4);
        client.complete(&request).await
    };
    ask().await.unwrap();
    first.program.terminate();
    first.program.wait();
    for _ in 0..3 {
        ask().await.unwrap();
    }
    let usable: Vec<bool> = client.endpoints().iter().map(|status| status.is_usable).collect();
    assert_eq!(usable, [false, false, true]);

    // As long as one cannot be used, nobody knows whether it has the model.
    let unknown = client.complete(&ChatRequest::new("no-such", CANARY)).await.err().unwrap();
    assert!(matches!(unknown, Error::NoneVerified(_)) && unknown.is_rejection(), "{unknown}");
    assert!(unknown.to_string().contains("does not serve this model"), "{unknown}");
    drop(second);
    let error = loop {
        match ask().await {
            Err(error @ Error::NoneVerified(_)) => break error,
            Err(Error::Unreachable { .. } | Error::Ended(_) | Error::BadAnswer(_)) => {}
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("answered by nobody"),
        }
    };
    assert!(error.is_rejection() && error.report().is_some(), "{error}");
    assert!(error.to_string().contains("claims.config") && !error.to_string().contains(CANARY), "{error}");
    assert!(!contains(&memory(other.program.pid()), CANARY.as_bytes()));
    assert!(!other.program.events("report").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_requests_go_through_the_service() {
    async fn call(
        service: &mut impl Service<
            Request<Full<Bytes>>,
            Response = http::Response<cocoon_client::ResponseBody>,
            Error = Error,
        >,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value, bool) {
        std::future::poll_fn(|context| service.poll_ready(context)).await.unwrap();
        let request = Request::builder().method(method).uri(format!("https://api.example{path}"));
        let request = request.header("authorization", "Bearer x").body(Full::new(body.to_string().into()));
        let mut response = service.call(request.unwrap()).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(frame) = response.body_mut().frame().await {
            bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        let receipt = response.body().receipt().is_some();
        (response.status(), serde_json::from_slice(&bytes).unwrap(), receipt)
    }

    let enclave = InProcess::with_model().await;
    let mut client = Client::builder().policy(enclave.policy()).endpoint(&enclave.address).build().unwrap();
    let mut session = connect(&enclave.address, enclave.policy()).await.unwrap();
    let hello =
        json!({ "model": "m", "max_tokens": 2, "messages": [{ "role": "user", "content": "Hello" }] });
    let chat = "/v1/chat/completions";
    for (status, answer, receipt) in [
        call(&mut client, Method::POST, chat, &hello).await,
        call(&mut session, Method::POST, chat, &hello).await,
    ] {
        assert_eq!((status, &answer["object"], receipt), (StatusCode::OK, &json!("chat.completion"), true));
    }
    for (status, answer, receipt) in [
        call(&mut client, Method::GET, "/v1/models?x=y", &Value::Null).await,
        call(&mut session, Method::GET, "/v1/models", &Value::Null).await,
    ] {
        assert_eq!((status, &answer["data"][0]["id"], receipt), (StatusCode::OK, &json!("m"), false));
    }
    let (status, error, receipt) = call(&mut session, Method::POST, chat, &json!({})).await;
    assert_eq!((status, receipt), (StatusCode::BAD_REQUEST, false), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_finds_its_session_ended_is_sent_on_a_new_one() {
    let enclave = InProcess::with_model().await;
    let mut client = Client::builder().policy(enclave.policy()).endpoint(&enclave.address).build().unwrap();
    client.complete(&question(2)).await.unwrap();
    let old_key = enclave.node.current().identity.spki();
    while enclave.node.current().identity.spki() == old_key {
        enclave.node.rotate().unwrap();
    }
    // By this the client hears of the new epoch; with its old key the enclave does not attest again.
    let models = Request::get("/v1/models").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(client.call(models).await.unwrap().status(), StatusCode::OK);
    client.complete(&question(2)).await.unwrap();
    assert!(client.endpoints()[0].is_usable);
}
