//! Where quantised weights lie: those of a model side by side, in huge pages if the kernel has some. A step reads all of them once, and that
//! is what it waits for: with small pages it also waits for the addresses of tens of thousands.

use super::simd::Line;
use memmap2::{Advice, MmapMut};
use std::ops::Deref;
use std::sync::Arc;

/// Lines of one matrix.
pub(crate) enum Lines {
    Alone(Vec<Line>),
    Gathered { all: Arc<MmapMut>, start: usize, len: usize },
}

impl Default for Lines {
    fn default() -> Self {
        Self::Alone(Vec::new())
    }
}

impl From<Vec<Line>> for Lines {
    fn from(lines: Vec<Line>) -> Self {
        Self::Alone(lines)
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match self {
            Self::Alone(lines) => lines,
            Self::Gathered { all, start, len } => {
                all.as_chunks().0.get(*start..start + len).unwrap_or_default()
            }
        }
    }
}

/// Puts lines side by side. Each is copied and then given up, so that never more than one is there twice. They stay where they are if
/// there is no memory.
pub(super) fn gather(parts: Vec<&mut Lines>) {
    let bytes = parts.iter().map(|lines| lines.len() * size_of::<Line>()).sum();
    let Ok(mut all) = MmapMut::map_anon(bytes) else { return };
    let _small_pages_do = all.advise(Advice::HugePage);
    let (room, _) = all.as_chunks_mut();
    let mut start = 0;
    let mut places = Vec::with_capacity(parts.len());
    for lines in parts {
        let len = lines.len();
        room[start..start + len].copy_from_slice(&std::mem::take(lines));
        places.push((lines, start, len));
        start += len;
    }
    let all = Arc::new(all);
    for (lines, start, len) in places {
        *lines = Lines::Gathered { all: Arc::clone(&all), start, len };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_lines_are_what_they_were() {
        let lines = |first: u8, len: usize| Lines::from(vec![[first; 64]; len]);
        let mut all = [lines(1, 3), lines(2, 0), lines(3, 70_000), lines(4, 1)];
        gather(all.iter_mut().collect());
        let is = |lines: &Lines, first: u8, len: usize| {
            lines.len() == len && lines.iter().all(|line| *line == [first; 64])
        };
        assert!(is(&all[0], 1, 3) && is(&all[1], 2, 0) && is(&all[2], 3, 70_000) && is(&all[3], 4, 1));
        assert!(all.iter().all(|lines| matches!(lines, Lines::Gathered { .. })));
        gather(Vec::new());
    }
}
