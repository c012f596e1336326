//! The moments at which cells of padded answers leave: the same for all answers, and kept to some microseconds.
//!
//! A timer wakes up to two milliseconds late, later when processors slept than when they computed, and so would tell a host for how long
//! the engine was at work on an answer. Here whoever waits is awake before the moment; as answers share the moments, that costs a thread
//! two milliseconds of fifty at most. What is left is that a cell takes some 30 µs more to send while caches are full of weights:
//! each moment is up to 5 ms late by chance, which hides that.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ring::{hmac, rand::SystemRandom};
use tokio::time::{Instant, Sleep, sleep_until};

/// From one moment to the next, but for chance.
const TICK: Duration = Duration::from_millis(50);
/// A moment is late by less than this.
const LATEST: Duration = Duration::from_millis(5);
/// How long before a moment to be awake: what a timer of tokio is late at most.
const EARLY: Duration = Duration::from_millis(2);

/// All moments since boot.
pub(crate) struct Moments {
    start: Instant,
    /// Decides how late each is.
    key: hmac::Key,
}

impl Moments {
    /// None without randomness.
    pub(crate) fn new() -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        Some(Self { start: Instant::now(), key })
    }

    /// The first one after `now`.
    fn after(&self, now: Instant) -> Instant {
        let past = now.saturating_duration_since(self.start).as_nanos();
        let number = past / TICK.as_nanos();
        let row = now - nanos(past % TICK.as_nanos());
        let this = row + self.late(number);
        if this > now { this } else { row + TICK + self.late(number + 1) }
    }

    fn late(&self, number: u128) -> Duration {
        let chance = hmac::sign(&self.key, &number.to_be_bytes());
        let chance = chance.as_ref().iter().take(4).fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        nanos((LATEST.as_nanos() * chance) >> 32)
    }
}

fn nanos(n: u128) -> Duration {
    Duration::from_nanos(u64::try_from(n).unwrap_or_default()) // of a tick at most
}

/// Ticks of one answer: the first at once, each other at the next moment.
pub(crate) struct Ticks {
    next: Instant,
    awake: Pin<Box<Sleep>>,
}

impl Ticks {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { next: now, awake: Box::pin(sleep_until(now)) }
    }

    /// Ready at the next of `moments`. Those that were missed are left out.
    pub(crate) fn poll(&mut self, moments: &Moments, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.awake.as_mut().poll(cx));
        while Instant::now() < self.next {
            std::hint::spin_loop();
        }
        self.next = moments.after(Instant::now());
        self.awake.as_mut().reset(self.next - EARLY);
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[test]
    fn moments_follow_each_other_in_a_tick_but_for_chance() {
        let moments = Moments::new().unwrap();
        let mut moment = moments.start;
        let mut lates = Vec::new();
        for number in 0..1000 {
            let next = moments.after(moment);
            assert!(next > moment && moments.after(next - nanos(1)) == next);
            let late = next.duration_since(moments.start + TICK * number);
            assert!(late < LATEST);
            lates.push(late);
            moment = next;
        }
        let mean = lates.iter().sum::<Duration>() / 1000;
        assert!(mean > LATEST * 4 / 10 && mean < LATEST * 6 / 10, "{mean:?}");
    }

    #[tokio::test]
    async fn answers_share_moments_and_none_is_early() {
        let moments = Moments::new().unwrap();
        let (mut one, mut other) = (Ticks::new(), Ticks::new());
        poll_fn(|cx| one.poll(&moments, cx)).await; // at once
        poll_fn(|cx| other.poll(&moments, cx)).await;
        for _ in 0..3 {
            let moment = one.next;
            poll_fn(|cx| one.poll(&moments, cx)).await;
            assert!(Instant::now() >= moment);
        }
        // What was missed is left out.
        let missed = one.next;
        std::thread::sleep(3 * TICK);
        poll_fn(|cx| one.poll(&moments, cx)).await;
        assert!(one.next > missed + TICK * 2);
        // Both wait for one of the same row.
        poll_fn(|cx| other.poll(&moments, cx)).await;
        assert!([one.next, other.next].iter().all(|next| moments.after(*next - nanos(1)) == *next));
    }
}
