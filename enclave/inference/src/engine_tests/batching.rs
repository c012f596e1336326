//! Many at a time.

use super::*;

#[test]
fn a_seeded_answer_does_not_depend_on_what_else_runs() {
    let engine = engine(4, 8);
    let alone = answer(&engine, sampled("the same", 7));
    let others: Vec<_> = (0..6)
        .map(|seed| {
            let (sink, events) = relay();
            engine.submit(sampled(&"other ".repeat(seed + 1), seed as u64), sink).unwrap();
            events
        })
        .collect();
    assert_eq!(answer(&engine, sampled("the same", 7)), alone);
    others.iter().for_each(|events| drop(collect(events)));
    assert_ne!(answer(&engine, sampled("the same", 8)), alone);
}

#[test]
fn running_requests_take_turns_and_a_long_prompt_does_not_hold_up_a_short_one() {
    let engine = engine(3, 3);
    let (release, first) = blocker(&engine);
    let (order, turns) = channel();
    let tagged = |tag: char| -> Sink {
        let order = order.clone();
        Box::new(move |event| {
            let last = matches!(event, GenerateEvent::Finished { .. } | GenerateEvent::Failed(_));
            order.send(if last { tag.to_ascii_uppercase() } else { tag }).unwrap();
            ControlFlow::Continue(())
        })
    };
    engine.submit(request(&"long ".repeat(40), 2), tagged('l')).unwrap(); // 4 chunks
    engine.submit(request("s", 3), tagged('s')).unwrap(); // 1 chunk
    release.send(()).unwrap();
    collect(&first);
    until_idle(&engine);
    let turns: String = turns.try_iter().collect();
    // Whichever the round began with: they alternate until the short one ends.
    let short_end = turns.find('S').unwrap();
    assert!(short_end < turns.find('L').unwrap(), "{turns}");
    assert!(!turns[..short_end].contains("lll") && turns[..short_end].contains('l'), "{turns}");
}

#[test]
fn guesses_come_true_and_change_nothing() {
    let text = "again and again and again and again";
    let plain = answer(&start(EngineConfig { speculate: false, ..config(2, 2) }), request(text, 120));
    let engine = start(config(2, 2));
    assert!(answer(&engine, request(text, 120)) == plain);
    until_idle(&engine);
    let counts = engine.counts();
    assert!(counts.drafted > 0 && counts.accepted > 0 && counts.steps < 119, "{counts:?}");
}

#[test]
fn a_client_with_many_requests_does_not_keep_others_waiting() {
    let engine = start(config(1, 20));
    let (release, first) = blocker(&engine);
    let (order, ends) = channel();
    let submit = |tag: char, client: u8| {
        let order = order.clone();
        let sink: Sink = Box::new(move |event| {
            if matches!(event, GenerateEvent::Finished { .. }) {
                order.send(tag).unwrap();
            }
            ControlFlow::Continue(())
        });
        let request = GenerateRequest { client: Some(ClientId([client; 32])), ..request("x", 5) };
        engine.submit(request, sink).unwrap();
    };
    (0..6).for_each(|_| submit('a', 1));
    submit('b', 2);
    submit('b', 2);
    release.send(()).unwrap();
    collect(&first);
    until_idle(&engine);
    let ends: String = ends.try_iter().collect();
    assert_eq!(ends.len(), 8);
    assert!(ends[..4].matches('b').count() == 2, "{ends}");
}

#[test]
fn a_step_has_no_more_rows_than_it_may() {
    let engine = start(EngineConfig { step_tokens: 16, max_running: 8, ..config(8, 8) });
    let (release, first) = blocker(&engine);
    let all: Vec<_> = (0..7)
        .map(|n| {
            let (sink, events) = relay();
            engine.submit(request(&format!("{n} {}", "long ".repeat(10)), 3), sink).unwrap();
            events
        })
        .collect();
    release.send(()).unwrap();
    collect(&first);
    all.iter().for_each(|events| assert!(matches!(collect(events).1, End::Finished { .. })));
    until_idle(&engine);
    let counts = engine.counts();
    assert!(counts.steps >= (counts.prompt_tokens + counts.completion_tokens) / 16, "{counts:?}");
}

#[test]
fn several_answers_are_each_as_if_alone_with_a_seed_of_their_own() {
    let engine = engine(8, 2);
    let sinks_of = |count: usize| (0..count).map(|_| relay()).unzip::<_, _, Vec<Sink>, Vec<_>>();
    let answers = |count: usize| {
        let (sinks, events) = sinks_of(count);
        engine.submit_choices(&sampled("hello", 7), sinks).unwrap();
        events.iter().map(collect).collect::<Vec<_>>()
    };
    let three = answers(3);
    assert!(three[0] != three[1] && three[1] != three[2] && three[0] != three[2]);
    assert_eq!(answers(3), three);
    assert_eq!(answer(&engine, sampled("hello", 7)), three[0]);
    until_idle(&engine);
    // All or none: ten fit, and no more.
    let (sinks, events) = sinks_of(10);
    engine.submit_choices(&request("hello", 30), sinks).unwrap();
    let (sinks, _none) = sinks_of(3);
    let busy = engine.submit_choices(&request("hello", 30), sinks).err();
    assert!(matches!(busy, Some(SubmitError::QueueFull { .. })), "{busy:?}");
    drop(events);
    until_idle(&engine);
    for count in [0, 11] {
        let refused = engine.submit_choices(&request("hello", 1), sinks_of(count).0).err();
        assert!(matches!(refused, Some(SubmitError::BadParameter { name: "n", .. })), "{refused:?}");
    }
}

#[test]
fn long_prompts_tell_how_far_they_are() {
    let engine = engine(2, 2);
    let (sink, events) = relay();
    let submitted = engine.submit(request(&"many words ".repeat(12), 2), sink).unwrap();
    let mut told = Vec::new();
    for event in events {
        if let GenerateEvent::Reading { read, prompt_tokens } = event {
            assert_eq!(prompt_tokens, submitted.prompt_tokens);
            told.push(read);
        }
    }
    // 48 tokens are read in a step.
    assert_eq!(
        told,
        (1..).map(|n| 48 * n).take_while(|read| *read < submitted.prompt_tokens).collect::<Vec<_>>()
    );
    assert!(!told.is_empty());
    let (sink, events) = relay();
    engine.submit(request("x", 2), sink).unwrap();
    assert!(events.iter().all(|event| !matches!(event, GenerateEvent::Reading { .. })));
}
