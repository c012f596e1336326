//! The moments at which cells of padded answers leave: the same for all answers, and kept to some microseconds.
//!
//! A timer is late by up to two milliseconds, by how much depends on what processors do meanwhile, and so would tell a host for how long the
//! engine was at work on an answer. Here somebody is awake before each moment, for all answers: it costs one thread two of 50
//! milliseconds. Even then the sending of a cell takes some 30 µs more or less while the engine computes, from which a classifier tells
//! the length at 0.8: so each moment is up to 10 ms late by chance, which hides that. (Not from a host that has an answer of its own running and compares; such a host
//! sees the engine at work anyway.)

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::{error::Unspecified, hmac};
use tokio::time::{Instant, Sleep, sleep_until};

/// From one moment to the next, but for chance.
const TICK: Duration = Duration::from_millis(50);
/// A moment is late by less than twice this, the more rarely the nearer to the ends.
const HALF_LATE: Duration = Duration::from_millis(5);
/// How long before a moment to be awake: timers of tokio are late by up to 2 ms, and then a thread has to wake.
const EARLY: Duration = Duration::from_millis(3);

/// All moments since boot.
pub(crate) struct Moments {
    start: Instant,
    /// Decides how late each is. A key of its own: what it signs is numbers of moments only, and no signature leaves.
    key: hmac::Key,
    watch: Mutex<Watch>,
}

/// Who waits for the next moment.
#[derive(Default)]
struct Watch {
    /// Somebody is awake for it, and wakes these.
    awake: bool,
    asleep: Vec<Waker>,
}

impl Moments {
    /// # Errors
    /// Without randomness.
    pub(crate) fn new() -> Result<Self, Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Self { start: Instant::now(), key, watch: Mutex::default() })
    }

    /// The first one after `now`.
    fn after(&self, now: Instant) -> Instant {
        let past = now.saturating_duration_since(self.start).as_nanos();
        let number = past / TICK.as_nanos();
        let row = now - nanos(past % TICK.as_nanos());
        let this = row + self.late(number);
        if this > now { this } else { row + TICK + self.late(number + 1) }
    }

    /// Two throws of dice: no moment is so late, or so early, that it must have been one of a busy machine.
    fn late(&self, number: u128) -> Duration {
        let chance = hmac::sign(&self.key, &number.to_be_bytes());
        let throw = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        let sum: u128 = chance.as_ref().chunks(4).take(2).map(throw).sum();
        nanos((HALF_LATE.as_nanos() * sum) >> 32)
    }

    /// Ready at `moment`, the next of these, which is less than [`EARLY`] away: one who waits for it stays awake.
    fn poll(&self, moment: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let is_over = || std::time::Instant::now() >= moment.into_std();
        if is_over() {
            return Poll::Ready(());
        }
        let mut watch = self.watch();
        if watch.awake {
            watch.asleep.push(cx.waker().clone());
            return Poll::Pending;
        }
        watch.awake = true;
        drop(watch);
        while !is_over() {
            std::hint::spin_loop();
        }
        let mut watch = self.watch();
        watch.awake = false;
        let asleep = std::mem::take(&mut watch.asleep);
        drop(watch);
        asleep.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos(n: u128) -> Duration {
    Duration::from_nanos(u64::try_from(n).unwrap_or_default()) // of a tick at most
}

/// Ticks of one answer: the first at once, each other at the next moment.
#[derive(Default)]
pub(crate) struct Ticks(Option<Next>);

struct Next {
    moment: Instant,
    nearly: Pin<Box<Sleep>>,
}

impl Ticks {
    /// Ready when the next tick is so near that what is sent then should be made now.
    pub(crate) fn poll_nearly(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(next) => next.nearly.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }

    /// Ready at the tick, after [`Self::poll_nearly`] was. Moments that were missed are left out.
    pub(crate) fn poll(&mut self, moments: &Moments, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(next) = &self.0 {
            ready!(moments.poll(next.moment, cx));
        }
        let moment = moments.after(Instant::now());
        self.0 = Some(Next { moment, nearly: Box::pin(sleep_until(moment - EARLY)) });
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;

    #[test]
    fn moments_follow_each_other_in_a_tick_but_for_chance() {
        let moments = Moments::new().unwrap();
        let mut moment = moments.start;
        let mut lates = Vec::new();
        for number in 0..1000 {
            let next = moments.after(moment);
            assert!(next > moment && moments.after(next - nanos(1)) == next);
            let late = next.duration_since(moments.start + TICK * number);
            assert!(late < 2 * HALF_LATE);
            lates.push(late);
            moment = next;
        }
        let mean = lates.iter().sum::<Duration>() / 1000;
        assert!(mean > HALF_LATE * 9 / 10 && mean < HALF_LATE * 11 / 10, "{mean:?}");
        let ends = lates.iter().filter(|late| **late < HALF_LATE / 5 || **late > HALF_LATE * 9 / 5).count();
        assert!(ends < 100, "{ends}"); // 40, where even chances would make 200
    }

    async fn tick(ticks: &mut Ticks, moments: &Moments) {
        poll_fn(|cx| {
            ready!(ticks.poll_nearly(cx));
            ticks.poll(moments, cx)
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_missed_is_left_out() {
        let moments = Moments::new().unwrap();
        let mut ticks = Ticks::default();
        tick(&mut ticks, &moments).await; // at once
        let first = ticks.0.as_ref().unwrap().moment;
        tick(&mut ticks, &moments).await;
        assert!(Instant::now() >= first);
        std::thread::sleep(3 * TICK);
        let now = Instant::now();
        tick(&mut ticks, &moments).await;
        assert!(ticks.0.unwrap().moment > now);
    }

    /// More who wait than threads: each gets every moment, nobody early, and nobody is forgotten.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_wait_for_the_same_moments() {
        let moments = Arc::new(Moments::new().unwrap());
        let wait = |moments: Arc<Moments>| async move {
            let mut ticks = Ticks::default();
            tick(&mut ticks, &moments).await;
            for _ in 0..5 {
                let moment = ticks.0.as_ref().unwrap().moment;
                assert_eq!(moments.after(moment - nanos(1)), moment);
                tick(&mut ticks, &moments).await;
                assert!(Instant::now() >= moment);
            }
        };
        let all: Vec<_> = (0..50).map(|_| tokio::spawn(wait(moments.clone()))).collect();
        for one in all {
            one.await.unwrap();
        }
        assert!(moments.watch().asleep.is_empty() && !moments.watch().awake);
    }
}
