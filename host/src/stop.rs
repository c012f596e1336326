//! How far the program is on its way out.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::Error;

/// The phases of the program's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Serve,
    /// Accepting nothing new; what runs may finish.
    Drain,
    /// Dropping what still runs.
    Close,
}

/// Moves the program from phase to phase. Dropping it means [`Phase::Close`].
#[derive(Debug)]
pub struct Stopper(watch::Sender<Phase>);

/// Waits for a phase.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Phase>);

/// A pair that starts in [`Phase::Serve`].
#[must_use]
pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(Phase::Serve);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Enters a phase; one that lies behind is ignored.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }
}

impl Stop {
    /// Returns once `phase` or a later one is entered. Cancel safe.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the stopper is gone, and with it every reason to go on.
        let _gone = self.0.wait_for(|now| *now >= phase).await;
    }
}

/// Turns SIGTERM and SIGINT into phases: the first one drains, the next one closes at once.
///
/// The handlers are in place when this returns, so that a signal during start-up is not lost.
///
/// # Errors
///
/// When the handlers cannot be installed.
pub fn on_signals() -> Result<Stop, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let (stopper, stop) = channel();
    tokio::spawn(async move {
        for phase in [Phase::Drain, Phase::Close] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopper.enter(phase);
        }
        // Keeps the stopper, so that `Close` is entered once and by a signal only.
        std::future::pending::<()>().await;
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_move_forward() {
        let (stopper, mut stop) = channel();
        stopper.enter(Phase::Close);
        stopper.enter(Phase::Drain);
        stop.reached(Phase::Drain).await;
        stop.reached(Phase::Close).await;
    }

    #[tokio::test]
    async fn a_lost_stopper_stops() {
        let (stopper, mut stop) = channel();
        drop(stopper);
        stop.reached(Phase::Close).await;
    }
}
