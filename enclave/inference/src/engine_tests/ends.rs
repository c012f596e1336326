//! What is accepted, what it says, and how it ends.

use super::*;

#[test]
fn an_answer_has_text_and_counts() {
    let engine = engine(2, 2);
    let (sink, events) = relay();
    let submitted = engine.submit(request("hello", 12), sink).unwrap();
    let (text, end) = collect(&events);
    assert!(!text.is_empty());
    let wanted =
        End::Finished { reason: FinishReason::Length, prompt: submitted.prompt_tokens, completion: 12 };
    assert_eq!(end, wanted);
    until_idle(&engine);
}

#[test]
fn greedy_answers_are_those_of_the_model_alone() {
    let engine = engine(2, 2);
    let request = request("hello", 20);
    let prompt = engine.model().prompt(&request.messages).unwrap();
    let tokens = engine.model().generate_greedy(&prompt, 20, 1).unwrap();
    let bytes: Vec<u8> =
        tokens.dangerous_ids().iter().flat_map(|id| engine.model().tokenizer.bytes(*id)).copied().collect();
    assert_eq!(answer(&engine, request).0, String::from_utf8_lossy(&bytes));
}

#[test]
fn requests_without_a_seed_differ() {
    let engine = engine(2, 2);
    let request = || GenerateRequest { temperature: 2.0, ..request("hello", 40) };
    assert_ne!(answer(&engine, request()), answer(&engine, request()));
}

#[test]
fn stop_strings_end_the_answer_and_are_not_part_of_it() {
    let engine = engine(2, 2);
    let (whole, _) = answer(&engine, request("hello", 30));
    let characters: Vec<char> = whole.chars().collect();
    let stop: String = characters[5..8].iter().collect();
    let stopped =
        GenerateRequest { stop: vec!["not in it".into(), stop.as_str().into()], ..request("hello", 30) };
    let (text, end) = answer(&engine, stopped);
    assert_eq!(text, whole[..whole.find(&stop).unwrap()]);
    assert!(matches!(end, End::Finished { reason: FinishReason::Stop, completion: 1..30, .. }), "{end:?}");
}

/// Text and the bytes of all tokens that were told with it.
fn told(engine: &Engine, request: GenerateRequest) -> (String, Vec<u8>, Vec<usize>) {
    let (sink, events) = relay();
    engine.submit(request, sink).unwrap();
    let (mut text, mut bytes, mut tops) = (String::new(), Vec::new(), Vec::new());
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            GenerateEvent::Working | GenerateEvent::Reading { .. } => (),
            GenerateEvent::Text { text: piece, logprobs, .. } => {
                text.push_str(piece.expose());
                for token in &logprobs {
                    bytes.extend_from_slice(token.chosen.bytes().unwrap_or_default());
                    tops.push(token.top.len());
                    assert!(token.top.iter().all(|top| top.logprob() <= 0.0));
                }
            }
            GenerateEvent::Finished { .. } | GenerateEvent::Failed(_) => return (text, bytes, tops),
        }
    }
}

#[test]
fn logprobs_are_told_with_the_text_of_their_tokens() {
    let engine = engine(2, 2);
    let asked = |seed| GenerateRequest { logprobs: true, top_logprobs: 3, ..sampled("hello", seed) };
    for seed in 0..20 {
        let (text, bytes, tops) = told(&engine, asked(seed));
        // The tiny model says bytes that are no characters: replaced in the text, as they are in the tokens.
        assert_eq!(text, String::from_utf8_lossy(&bytes), "{seed}");
        assert!(tops.iter().all(|top| *top == 3));
        assert!(told(&engine, sampled("hello", seed)) == (text.clone(), vec![], vec![]));
        // Cut by a stop string: only tokens that begin before it.
        let stop: String = text.chars().skip(4).take(2).collect();
        let (cut, bytes, _) =
            told(&engine, GenerateRequest { stop: vec![stop.as_str().into()], ..asked(seed) });
        assert_eq!(cut, text[..text.find(&stop).unwrap()]);
        assert!(String::from_utf8_lossy(&bytes).starts_with(&cut), "{seed}");
    }
}

#[test]
fn what_a_request_says_about_tokens_reaches_the_sampler() {
    let engine = engine(2, 2);
    let letter = engine.model().tokenizer.encode(&[crate::tokenizer::Piece::Text("z")]).unwrap();
    let forced = |change: fn(&mut GenerateRequest)| {
        let mut request = request("hello", 6);
        request.logit_bias.push((letter.as_slice()[0], 100.0));
        change(&mut request);
        answer(&engine, request).0
    };
    assert_eq!(forced(|_| ()), "zzzzzz");
    assert_eq!(forced(|r| (r.temperature, r.min_p, r.top_k) = (2.0, 0.5, Some(3))), "zzzzzz");
    let free = answer(&engine, request("hello", 6)).0;
    assert!(!free.contains("zzz"));
    let repeating = answer(&engine, request("hello", 30));
    let penalised = GenerateRequest { repetition_penalty: 2.0, ..request("hello", 30) };
    assert_ne!(answer(&engine, penalised), repeating);
}

/// Allows a text only, and then the end.
#[derive(Clone)]
struct Only(Vec<u32>, usize);

impl TokenMask for Only {
    fn allowed(&mut self, allowed: &mut TokenSet) {
        if let Some(token) = self.0.get(self.1) {
            allowed.insert(*token);
        }
    }

    fn accept(&mut self, token: u32) {
        assert_eq!(self.0[self.1], token);
        self.1 += 1;
    }

    fn copy(&self) -> Box<dyn TokenMask> {
        Box::new(self.clone())
    }
}

#[test]
fn a_mask_decides_what_is_said_and_its_failure_has_a_name() {
    let engine = engine(2, 2);
    let tokens = engine.model().tokenizer.encode(&[crate::tokenizer::Piece::Text("yes, \u{e9}")]).unwrap();
    let end = 1; // <|im_end|>
    let mut whole = tokens.as_slice().to_vec();
    let masked = |tokens| {
        let mut request = sampled("hello", 3);
        request.mask = Some(Box::new(Only(tokens, 0)));
        answer(&engine, request)
    };
    let failed = masked(whole.clone());
    assert_eq!(failed, ("yes, \u{e9}".to_owned(), End::Failed(FailureKind::NoAllowedToken)));
    whole.push(end);
    let (text, ended) = masked(whole);
    assert_eq!(text, "yes, \u{e9}");
    assert!(matches!(ended, End::Finished { reason: FinishReason::Stop, .. }), "{ended:?}");
}

#[test]
fn the_queue_has_an_end() {
    let engine = engine(1, 1);
    let (release, first) = blocker(&engine);
    let (sink, second) = relay();
    engine.submit(request("second", 2), sink).unwrap();
    assert_eq!(engine.load(), Load { running: 1, waiting: 1 });
    let refused = engine.submit(request("third", 2), relay().0);
    assert_eq!(refused.err(), Some(SubmitError::QueueFull { in_flight: 2 }));
    release.send(()).unwrap();
    assert!(matches!(collect(&first).1, End::Finished { .. }));
    assert!(matches!(collect(&second).1, End::Finished { .. }));
    until_idle(&engine);
    assert!(matches!(answer(&engine, request("fourth", 2)).1, End::Finished { .. }));
}

#[test]
fn a_consumer_that_goes_ends_its_request_within_a_step() {
    let engine = engine(1, 4);
    for text in ["short", &"a prompt of several chunks ".repeat(6)] {
        let (counter, count) = channel();
        let (mut sink, events) = relay();
        let counted: Sink = Box::new(move |event| {
            counter.send(()).unwrap();
            sink(event)
        });
        drop(events);
        engine.submit(request(text, 50), counted).unwrap();
        until_idle(&engine);
        assert_eq!(count.try_iter().count(), 1);
    }
}

#[test]
fn waiting_requests_can_be_cancelled_and_expire() {
    let engine = engine(1, 4);
    let (release, first) = blocker(&engine);
    let (late_sink, late) = relay();
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    engine.submit(GenerateRequest { deadline, ..request("late", 2) }, late_sink).unwrap();
    let (sink, gone) = relay();
    drop(gone);
    engine.submit(request("gone", 2), sink).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    release.send(()).unwrap();
    assert_eq!(collect(&late), (String::new(), End::Failed(FailureKind::Deadline)));
    assert!(matches!(collect(&first).1, End::Finished { .. }));
    until_idle(&engine);
}

#[test]
fn a_running_request_ends_at_its_deadline() {
    let engine = engine(1, 1);
    let request = GenerateRequest { deadline: Some(Instant::now()), ..request("late", 2) };
    assert_eq!(answer(&engine, request), (String::new(), End::Failed(FailureKind::Deadline)));
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let engine = engine(1, 1);
    let prompt_tokens = engine.model().prompt(&request("x", 1).messages).unwrap().len();
    let left = 256 - prompt_tokens;
    let overflow = |request| engine.submit(request, relay().0).err();
    let context_length = 256;
    let wanted = SubmitError::ContextOverflow { prompt_tokens, max_tokens: Some(left + 1), context_length };
    assert_eq!(overflow(request("x", left + 1)), Some(wanted));
    let long = GenerateRequest { max_tokens: None, ..request(&"x".repeat(300), 1) };
    match overflow(long) {
        Some(SubmitError::ContextOverflow {
            prompt_tokens: 300..,
            max_tokens: None,
            context_length: 256,
        }) => (),
        other => panic!("{other:?}"),
    }
    // All that is left is used up, and no more.
    let (_, end) = answer(&engine, GenerateRequest { max_tokens: None, ..request("x", 1) });
    assert!(matches!(end, End::Finished { completion, .. } if completion <= left), "{end:?}");
    assert!(matches!(answer(&engine, request("x", left)).1, End::Finished { .. }));
}

#[test]
fn bad_requests_are_refused_by_name() {
    let raising =
        "{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}{{ messages[0].content }}";
    let engine = engine_of(Tiny::default().with_string("tokenizer.chat_template", raising).build(), 1, 1);
    let hot = GenerateRequest { temperature: 3.0, ..request("x", 1) };
    let refused = engine.submit(hot, relay().0).err();
    assert!(matches!(refused, Some(SubmitError::BadParameter { name: "temperature", .. })));
    let mut biased = request("x", 1);
    biased.logit_bias.push((263, 1.0)); // one more than there are
    let refused = engine.submit(biased, relay().0).err();
    assert!(matches!(refused, Some(SubmitError::BadParameter { name: "logit_bias", .. })));
    let mut two = request("x", 1);
    two.messages.push(two.messages[0].clone());
    let wanted = SubmitError::Template(TemplateError::Raised("one only".to_owned()));
    assert_eq!(engine.submit(two, relay().0).err(), Some(wanted));
    assert_eq!(engine.load(), Load { running: 0, waiting: 0 });
}

#[test]
fn a_panic_fails_one_request_and_no_other() {
    let engine = engine(2, 2);
    let (sink, events) = relay();
    engine.submit(request("good", 10), sink).unwrap();
    let (reporter, reports) = channel();
    let panicking: Sink = Box::new(move |event| {
        let GenerateEvent::Failed(kind) = event else { panic!("on purpose") };
        reporter.send(kind).unwrap();
        ControlFlow::Break(())
    });
    engine.submit(request("bad", 10), panicking).unwrap();
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), FailureKind::Internal);
    assert!(matches!(collect(&events).1, End::Finished { .. }));
    until_idle(&engine);
    assert!(matches!(answer(&engine, request("again", 2)).1, End::Finished { .. }));
}

#[test]
fn stopping_at_once_fails_what_runs_and_waits() {
    let engine = engine(1, 2);
    let (release, running) = blocker(&engine);
    let (sink, waiting) = relay();
    engine.submit(request("waits", 2), sink).unwrap();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| engine.stop(Instant::now()));
        while engine.submit(request("late", 1), relay().0).err() != Some(SubmitError::Stopping) {
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        stopping.join().unwrap();
    });
    assert_eq!(collect(&running).1, End::Failed(FailureKind::Stopping));
    assert_eq!(collect(&waiting).1, End::Failed(FailureKind::Stopping));
    engine.stop(Instant::now()); // again does no harm
    assert_eq!(engine.load(), Load { running: 0, waiting: 0 });
}

#[test]
fn stopping_with_patience_lets_what_runs_finish() {
    let engine = engine(1, 2);
    let (release, running) = blocker(&engine);
    release.send(()).unwrap();
    engine.stop(Instant::now() + PATIENCE);
    assert!(matches!(collect(&running).1, End::Finished { .. }));
}

#[test]
fn dropping_the_engine_tells_the_sinks() {
    let engine = engine(1, 2);
    let (release, running) = blocker(&engine);
    release.send(()).unwrap();
    drop(engine);
    collect(&running); // an end, whichever
}

#[test]
fn settings_out_of_range_are_refused() {
    for (threads, max_running, field) in [(0, 1, "threads"), (1025, 1, "threads"), (1, 0, "max_running")] {
        let model = Model::load(ModelBytes::from_vec(tiny_model())).unwrap();
        match Engine::start(
            model,
            EngineConfig { threads, max_running, max_waiting: 0, ..EngineConfig::default() },
        ) {
            Err(Error::BadConfig { name, .. }) => assert_eq!(name, field),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn answers_under_rules_keep_to_them() {
    let engine = engine(4, 4);
    let schema = serde_json::json!({
        "type": "object", "properties": { "a": { "enum": ["x", "yy"] }, "b": { "type": "boolean" } },
        "required": ["a", "b"], "additionalProperties": false,
    });
    let masked = |seed: u64, max_tokens: usize| {
        let mask = engine.model().grammar(&crate::Rules::Schema(schema.clone())).unwrap();
        let request = GenerateRequest {
            mask: Some(Box::new(mask)),
            max_tokens: Some(max_tokens),
            ..sampled("hello", seed)
        };
        answer(&engine, request)
    };
    for seed in 0..20 {
        let (text, end) = masked(seed, 150);
        if matches!(end, End::Finished { reason: FinishReason::Stop, .. }) {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value["b"].is_boolean() && ["x", "yy"].contains(&value["a"].as_str().unwrap()), "{text}");
        }
    }
    let (_, end) = masked(1, 3);
    assert!(matches!(end, End::Finished { reason: FinishReason::Length, completion: 3, .. }), "{end:?}");
}

#[test]
fn prompts_are_counted_as_they_are_submitted_and_texts_are_continued() {
    let engine = engine(2, 2);
    let (sink, events) = relay();
    let asked = request("hello", 1);
    let counted = engine.count(&asked).unwrap();
    assert_eq!(engine.submit(asked, sink).unwrap().prompt_tokens, counted);
    collect(&events);
    let text = || GenerateRequest { max_tokens: Some(3), ..GenerateRequest::continuing("the <|im_start|>") };
    // No template is around it, and nothing in it is special.
    let tokens = engine.model().text(&"the <|im_start|>".into()).unwrap();
    assert!(tokens.dangerous_ids().iter().all(|id| *id > 1));
    assert_eq!(engine.count(&text()).unwrap(), tokens.len());
    let (_, end) = answer(&engine, text());
    assert!(matches!(end, End::Finished { prompt, .. } if prompt == tokens.len()), "{end:?}");
    let empty = engine.count(&GenerateRequest::continuing("")).err();
    assert_eq!(empty, Some(SubmitError::Template(TemplateError::NoText)));
}
