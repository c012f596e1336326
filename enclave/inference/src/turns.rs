//! Engines that share processors compute one after another: threads of two that wait for each other would only hold each other up.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Who computes next: in the order in which they asked. Clones are the same turns.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    tickets: Mutex<Tickets>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Tickets {
    given: u64,
    served: u64,
}

/// A turn, over when it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Queue);

impl Turns {
    /// Waits until those that asked before have had their turns.
    pub fn take(&self) -> Turn<'_> {
        let queue = &*self.0;
        let mut tickets = queue.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = tickets.given;
        tickets.given = tickets.given.wrapping_add(1);
        let before = |tickets: &mut Tickets| tickets.served != mine;
        let _tickets = queue.changed.wait_while(tickets, before).unwrap_or_else(PoisonError::into_inner);
        Turn(queue)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut tickets = self.0.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.served = tickets.served.wrapping_add(1);
        drop(tickets);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_at_a_time_and_nobody_twice_while_another_waits() {
        let (turns, inside) = (Turns::default(), AtomicUsize::new(0));
        let order = Mutex::new(Vec::new());
        let first = turns.take();
        std::thread::scope(|scope| {
            for name in 0..3 {
                let (turns, inside, order) = (turns.clone(), &inside, &order);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let turn = turns.take();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        order.lock().unwrap().push(name);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                    }
                });
            }
            while turns.0.tickets.lock().unwrap().given < 4 {
                std::thread::yield_now();
            }
            drop(first);
        });
        let order = order.into_inner().unwrap();
        assert_eq!(order.len(), 150);
        // All three wait from the start, and each asks again after the others did.
        let mut begin = order[..3].to_vec();
        begin.sort_unstable();
        assert_eq!(begin, [0, 1, 2], "{order:?}");
    }

    #[test]
    fn a_turn_ends_with_a_panic() {
        let turns = Turns::default();
        let panicked = std::panic::catch_unwind(|| {
            let _turn = turns.take();
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        drop(turns.take());
    }
}
