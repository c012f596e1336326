//! How fast the GPU reads and writes its memory: what decoding is compared with.

use super::Device;
use crate::error::Error;
use std::time::Instant;

/// More than the caches of any GPU of today hold.
const WORDS: usize = if cfg!(feature = "cuda") { 256 << 20 } else { 1 << 10 };
const PASSES: usize = 4;

/// Bytes per second, read and written, of copies within the GPU; the best of some.
pub(crate) fn copy_bandwidth(device: &Device) -> Result<f64, Error> {
    let (from, mut to) = (device.zeros::<u32>(WORDS)?, device.zeros::<u32>(WORDS)?);
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let _before = to.part(0, 1)?.read()?;
        let started = Instant::now();
        to.copy(&from)?;
        let _done = to.part(0, 1)?.read()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok((2 * WORDS * size_of::<u32>()) as f64 / best)
}
