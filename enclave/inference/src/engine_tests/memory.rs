//! Memory for keys and values, and who gives way.

use super::*;

#[test]
fn answers_are_the_same_alone_and_among_many_that_give_way_to_each_other() {
    let plain = EngineConfig { speculate: false, ..config(1, 1) };
    let engine = start(plain);
    let alone: Vec<_> = many(32).into_iter().map(|request| answer(&engine, request)).collect();
    drop(engine);
    // Memory for little more than one whole context: nearly all have to give way at some time.
    let tight = EngineConfig { kv_bytes: Some(17 * TINY_BLOCK), ..config(32, 32) };
    let engine = start(tight);
    let (release, first) = blocker(&engine);
    let submit = |request| {
        let (sink, events) = relay();
        engine.submit(request, sink).unwrap();
        events
    };
    let all: Vec<_> = many(32).into_iter().map(submit).collect();
    release.send(()).unwrap();
    collect(&first);
    let together: Vec<_> = all.iter().map(collect).collect();
    assert!(together == alone);
    until_idle(&engine);
    assert!(engine.counts().preemptions > 5, "{:?}", engine.counts());
}

#[test]
fn a_prompt_is_found_again_by_the_same_client_only() {
    let engine = start(config(2, 2));
    let long = "a prompt that fills a few blocks of sixteen tokens each";
    let asked = |salt: Option<u8>| {
        let before = engine.counts();
        let cache_salt = salt.map(|salt| CacheSalt([salt; 32]));
        let given = answer(&engine, GenerateRequest { cache_salt, ..request(long, 5) });
        until_idle(&engine);
        let after = engine.counts();
        (given, after.cached_tokens - before.cached_tokens, after.prompt_tokens - before.prompt_tokens)
    };
    let (first, cached, computed) = asked(Some(1));
    assert_eq!(cached, 0);
    let (again, found, rest) = asked(Some(1));
    assert!(again == first && found >= 48 && found % 16 == 0 && found + rest == computed, "{found} {rest}");
    for salt in [Some(2), None, None] {
        let (other, cached, all) = asked(salt);
        assert!(other == first && cached == 0 && all == computed);
    }
}

/// Bytes of the tiny model's blocks: layers, heads, keys and values, positions, dimensions, 16 bits.
const TINY_BLOCK: usize = 2 * 2 * 2 * 16 * 16 * 2;

#[test]
fn contexts_are_as_long_as_memory_allows() {
    let with = |blocks: usize| {
        let model = Model::load(ModelBytes::from_vec(tiny_model())).unwrap();
        Engine::start(model, EngineConfig { kv_bytes: Some(blocks * TINY_BLOCK), ..config(4, 4) })
    };
    assert_eq!(with(1000).unwrap().context_length(), 256);
    assert_eq!(with(17).unwrap().context_length(), 256);
    assert!(matches!(with(16), Err(Error::BadConfig { name: "kv_bytes", .. })));
}

#[test]
fn requests_are_let_in_when_their_prompts_fit_beside_those_that_run() {
    // Room for about two of these prompts: without that care each would be read in pieces many times.
    let engine = start(EngineConfig { kv_bytes: Some(20 * TINY_BLOCK), ..config(16, 16) });
    let (release, first) = blocker(&engine);
    let submit = |n: usize| {
        let (sink, events) = relay();
        engine.submit(request(&format!("{n} {}", "long ".repeat(25)), 4), sink).unwrap();
        events
    };
    let all: Vec<_> = (0..12).map(submit).collect();
    release.send(()).unwrap();
    collect(&first);
    for events in &all {
        assert!(matches!(
            collect(events).1,
            End::Finished { completion: 4, .. } | End::Finished { completion: 1..4, .. }
        ));
    }
    until_idle(&engine);
    assert!(engine.counts().preemptions <= 2, "{:?}", engine.counts());
}

#[test]
fn who_gave_way_goes_on_while_the_engine_stops() {
    let engine = start(EngineConfig { kv_bytes: Some(17 * TINY_BLOCK), ..config(8, 8) });
    let (release, first) = blocker(&engine);
    let all: Vec<_> = (0..4)
        .map(|n| {
            let (sink, events) = relay();
            engine.submit(request(&format!("{n} {}", "some ".repeat(8)), 60), sink).unwrap();
            events
        })
        .collect();
    release.send(()).unwrap();
    collect(&first);
    let started = Instant::now();
    while engine.counts().preemptions == 0 && engine.load().running > 0 {
        assert!(started.elapsed() < PATIENCE);
    }
    engine.stop(Instant::now() + PATIENCE);
    let ends: Vec<_> = all.iter().map(|events| collect(events).1).collect();
    assert!(ends.iter().filter(|end| matches!(end, End::Finished { .. })).count() >= 2, "{ends:?}");
    assert!(ends.iter().all(|end| matches!(end, End::Finished { .. } | End::Failed(FailureKind::Stopping))));
}
