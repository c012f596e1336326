//! What only a simulated GPU shows: that it breaks when it shall, and what was asked of it.

use super::tests::{config, plain, tiny_on_gpu};
use crate::engine_tests::{End, answer, collect, relay, until_idle};
use crate::testing::Tiny;
use crate::{Breakdown, Engine, FailureKind, SubmitError};

/// What runs and waits fails, what comes is refused, and the engine says why.
#[test]
fn a_broken_gpu_ends_all_streams_and_the_engine() {
    for launches in [0, 7, 60, 300] {
        let model = tiny_on_gpu(&Tiny::default()).unwrap();
        let engine = Engine::start(model, config(2, None)).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        engine.on_breakdown(move |why| tell.send(why).unwrap());
        engine.model().device().unwrap().break_after(launches);
        let submit = |seed| {
            let (sink, events) = relay();
            engine.submit(plain(seed), sink).map(|_submitted| events)
        };
        let events: Vec<_> = (0..5).map_while(|seed| submit(seed).ok()).collect();
        for events in &events {
            assert_eq!(collect(events).1, End::Failed(FailureKind::Internal), "after {launches}");
        }
        until_idle(&engine);
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [Breakdown::Gpu]);
        assert_eq!(engine.breakdown(), Some(Breakdown::Gpu));
        assert!(matches!(submit(9).unwrap_err(), SubmitError::Broken));
    }
}

/// Steps of a shape that comes again are recorded and repeated.
#[test]
fn what_comes_again_is_repeated() {
    let engine = Engine::start(tiny_on_gpu(&Tiny::default()).unwrap(), config(2, None)).unwrap();
    answer(&engine, plain(1));
    until_idle(&engine);
    let repeated = engine.model().device().unwrap().repeated();
    // 24 tokens behind the first: one as it comes, then all are repeated.
    assert_eq!(repeated, 23);
}
