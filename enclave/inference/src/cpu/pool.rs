//! Threads that share the work of a step: they spin while it lasts, so that handing them work takes less than a microsecond, and
//! sleep between steps, so that an idle engine costs nothing.
#![expect(unsafe_code, reason = "a borrowed closure on other threads; parts of one matrix for several")]

use crate::error::Error;
use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Looks at a flag before the processor is offered to other threads: less than a millisecond.
const SPINS: u32 = 20_000;

/// Bits of a round: whether it is open; those below count workers, those from [`NUMBER`] on are its number.
const OPEN: u64 = 1 << 31;
const NUMBER: u32 = 32;

/// The threads. The caller's is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One caller at a time.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Shared {
    /// The round of work: its number, [`OPEN`] while workers may join it, and how many are in it. A worker that comes late, because
    /// others have the processor, does not hold up a round that is done.
    round: AtomicU64,
    work: Mutex<Option<Work>>,
    next: AtomicUsize,
    /// Whether a step lasts: then workers do not sleep.
    awake: AtomicBool,
    ending: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleeping: Mutex<()>,
    wake: Condvar,
}

/// A closure that lives as long as the round lasts.
#[derive(Clone, Copy)]
struct Work {
    task: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: the closure is `Sync`, and `Pool::run` does not return before all workers are done with it.
unsafe impl Send for Work {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // what it holds is replaced as a whole
}

impl Pool {
    /// `threads` with the caller's; at least 1.
    pub(crate) fn new(threads: usize) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let mut pool = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("inference-{index}"));
            let worker =
                builder.spawn(move || shared.serve()).map_err(|error| Error::Threads(error.to_string()))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Keeps the threads awake until the result is dropped.
    pub(crate) fn step(&self) -> Step {
        self.shared.awake.store(true, Ordering::Release);
        self.shared.wake_all();
        Step(Arc::clone(&self.shared))
    }

    /// Calls `task` with each number below `tasks`, on all threads; returns when all have ended. Panics if one did.
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || tasks <= 1 {
            return (0..tasks).for_each(task);
        }
        let turn = lock(&self.turn);
        // SAFETY: only the lifetime changes. Workers use it between here and the end of `Round`, which is dropped before this
        // function ends, whether it returns or unwinds.
        let forever = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync + 'static)>(
                task,
            )
        };
        *lock(&self.shared.panic) = None;
        *lock(&self.shared.work) = Some(Work { task: forever, tasks });
        self.shared.next.store(0, Ordering::Relaxed);
        let number = (self.shared.round.load(Ordering::Relaxed) >> NUMBER) + 1;
        let round = Round(&self.shared); // before the round is open: nothing may unwind without it
        self.shared.round.store(number << NUMBER | OPEN, Ordering::Release);
        if !self.shared.awake.load(Ordering::Acquire) {
            self.shared.wake_all();
        }
        self.shared.take_tasks(task, tasks);
        drop(round);
        let panic = lock(&self.shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Cuts a matrix of rows of `width` into tiles: at `row_bounds` (ascending, from 0 to the number of rows) and every `columns`
    /// columns. Calls `task` with each: the number of its rows' part, the number of its columns' part, and the tile.
    pub(crate) fn tiles<T: Send>(
        &self,
        matrix: &mut [T],
        width: usize,
        row_bounds: &[usize],
        columns: usize,
        task: impl Fn(usize, usize, Tile<'_, T>) + Sync,
    ) {
        let parts = row_bounds.len().saturating_sub(1);
        let rows = row_bounds.last().copied().unwrap_or(0);
        assert!(
            row_bounds.is_sorted() && rows * width <= matrix.len() && columns > 0,
            "tiles of another matrix"
        );
        let base = Base(matrix.as_mut_ptr());
        let across = width.div_ceil(columns);
        self.run(parts * across, &|index| {
            let (part, column) = (index / across, index % across);
            let (top, bottom) = (row_bounds[part], row_bounds[part + 1]);
            let left = column * columns;
            // SAFETY: within the matrix, as checked above. Tiles with different numbers do not overlap, and each number is used
            // once.
            let base = unsafe { base.at(top * width + left) };
            let columns = columns.min(width - left);
            task(
                part,
                column,
                Tile { base, stride: width, rows: bottom - top, columns, matrix: PhantomData },
            );
        });
    }

    /// Calls `task` with the number of each item and the item.
    pub(crate) fn each<T: Send>(&self, items: &mut [T], task: impl Fn(usize, &mut T) + Sync) {
        let bounds: Vec<usize> = (0..=items.len()).collect();
        self.tiles(items, 1, &bounds, 1, |index, _, mut tile| {
            if let [item] = tile.row(0) {
                task(index, item);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        self.shared.wake_all();
        for worker in self.workers.drain(..) {
            let _ended = worker.join(); // panics of tasks were caught
        }
    }
}

/// While it lives, the threads of a pool are awake.
pub(crate) struct Step(Arc<Shared>);

impl Drop for Step {
    fn drop(&mut self) {
        self.0.awake.store(false, Ordering::Release);
    }
}

/// Ends a round when it is dropped: lets no worker join any more, and waits for those that did.
struct Round<'a>(&'a Shared);

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.0.round.fetch_and(!OPEN, Ordering::AcqRel);
        spin_until(|| self.0.round.load(Ordering::Acquire) & (OPEN - 1) == 0);
    }
}

/// Looks until `done`, after a while giving way to other threads in between.
fn spin_until(done: impl Fn() -> bool) {
    let mut spins = 0;
    while !done() {
        if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

impl Shared {
    fn wake_all(&self) {
        drop(lock(&self.sleeping)); // a worker that is about to sleep does so before, or sees what changed
        self.wake.notify_all();
    }

    fn take_tasks(&self, task: &(dyn Fn(usize) + Sync), tasks: usize) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            task(index);
        }
    }

    /// What a worker does until the pool ends.
    fn serve(&self) {
        let mut seen = 0;
        while let Some(round) = self.wait(seen) {
            seen = round >> NUMBER;
            if round & OPEN == 0 {
                continue;
            }
            if self.round.compare_exchange(round, round + 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
                seen = seen.wrapping_sub(1); // another worker joined, or the round ended
                continue;
            }
            let work = *lock(&self.work);
            if let Some(Work { task, tasks }) = work {
                // SAFETY: this worker is in the round, which does not end before it has left: see `Pool::run`.
                let task = unsafe { &*task };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_tasks(task, tasks))) {
                    *lock(&self.panic) = Some(panic);
                }
            }
            self.round.fetch_sub(1, Ordering::Release);
        }
    }

    /// Until there is a round after `seen`: awake while a step lasts, asleep otherwise. `None` at the end of the pool.
    fn wait(&self, seen: u64) -> Option<u64> {
        let new = || self.round.load(Ordering::Acquire) >> NUMBER != seen;
        let ending = || self.ending.load(Ordering::Acquire);
        loop {
            spin_until(|| new() || ending() || !self.awake.load(Ordering::Acquire));
            if ending() {
                return None;
            }
            if new() {
                return Some(self.round.load(Ordering::Acquire));
            }
            let idle = |(): &mut ()| !new() && !ending() && !self.awake.load(Ordering::Acquire);
            drop(self.wake.wait_while(lock(&self.sleeping), idle).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Where a matrix begins.
struct Base<T>(*mut T);

// SAFETY: only used for tiles that do not overlap; each gives one thread the numbers in it, which are `Send`.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    /// # Safety
    /// `offset` is within the matrix, or just behind it.
    unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// Some rows and columns of a matrix, to be written by one thread.
pub(crate) struct Tile<'a, T> {
    base: *mut T,
    stride: usize,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [T]>,
}

impl<'a, T> Tile<'a, T> {
    /// All of a matrix of rows of `width`.
    pub(crate) fn whole(matrix: &'a mut [T], width: usize) -> Self {
        let rows = matrix.len() / width;
        Self { base: matrix.as_mut_ptr(), stride: width, rows, columns: width, matrix: PhantomData }
    }
}

impl<T> Tile<'_, T> {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The part of one row that lies in the tile.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "a row of another tile");
        // SAFETY: within the tile, which nobody else has.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(row * self.stride), self.columns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for tasks in [0, 1, 2, 100] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                let _step = pool.step();
                pool.run(tasks, &|index| {
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn tiles_cover_a_matrix_once() {
        let pool = Pool::new(3).unwrap();
        let mut matrix = vec![0; 7 * 10];
        pool.tiles(&mut matrix, 10, &[0, 2, 3, 7], 4, |part, column, mut tile| {
            for row in 0..tile.rows() {
                tile.row(row).iter_mut().for_each(|x| *x += 1 + 10 * part + column);
            }
        });
        let wanted = |row: usize, column: usize| 1 + 10 * [0, 0, 1, 2, 2, 2, 2][row] + column / 4;
        assert!(matrix.iter().enumerate().all(|(i, x)| *x == wanted(i / 10, i % 10)));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2).unwrap();
        for _ in 0..20 {
            let run = || pool.run(8, &|index| assert!(index != 5, "task five"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            pool.run(8, &|_| ());
        }
    }

    #[test]
    fn threads_sleep_between_steps() {
        let pool = Pool::new(2).unwrap();
        drop(pool.step());
        pool.run(2, &|_| ());
        let state = || {
            std::fs::read_dir("/proc/self/task").unwrap().flatten().find_map(|task| {
                let text = std::fs::read_to_string(task.path().join("stat")).ok()?;
                let fields = text.rsplit(')').next()?.split_whitespace().collect::<Vec<_>>();
                text.contains("(inference-1)").then(|| fields[0].to_owned())
            })
        };
        let started = Instant::now();
        while state().as_deref() != Some("S") {
            assert!(started.elapsed() < Duration::from_secs(20), "a worker spins without a step");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
