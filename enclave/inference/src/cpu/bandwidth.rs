//! How fast this machine reads from memory: what decoding is compared with.

use super::pool::Pool;
use super::simd::{Kernel, LANES, Level, Simd};
use crate::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// More than the caches of any processor of today hold.
const BYTES: usize = 512 << 20;
const PASSES: usize = 3;

/// Bytes per second that `threads` read together, the best of some passes.
pub(crate) fn read_bandwidth(threads: usize) -> Result<f64, Error> {
    let numbers = vec![[1.0_f32; LANES]; BYTES / size_of::<[f32; LANES]>()];
    let pool = Pool::new(threads)?;
    let level = Level::detect();
    let piece = numbers.len() / (threads * 16);
    let _awake = pool.step();
    // So that no pass is left out as useless.
    let seen = AtomicU32::new(0);
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let started = Instant::now();
        pool.run(threads * 16, &|task| {
            let sum = level.run(Sum(&numbers[task * piece..][..piece]));
            seen.fetch_max(sum.to_bits(), Ordering::Relaxed);
        });
        best = best.min(started.elapsed().as_secs_f64());
    }
    let bytes = piece * threads * 16 * size_of::<[f32; LANES]>();
    Ok(if seen.into_inner() == 0 { 0.0 } else { bytes as f64 / best })
}

struct Sum<'a>(&'a [[f32; LANES]]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 8];
        for eight in self.0.as_chunks::<8>().0 {
            for n in 0..8 {
                sums[n] = s.add(sums[n], s.load(&eight[n]));
            }
        }
        s.sum(sums.into_iter().fold(s.splat(0.0), |a, b| s.add(a, b)))
    }
}
