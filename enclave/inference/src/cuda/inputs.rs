//! What of a step comes from the host: one copy of words. In confidential-computing mode every copy is dear.

use super::Buffer;
use super::plan::{Run, tiles};
use crate::backend::{BLOCK_TOKENS, Batch, Span};
use crate::error::Error;
use zeroize::Zeroizing;

/// Entries of tables, and slots, for what is nowhere.
const NOWHERE: u32 = u32::MAX;
/// Tokens of context are counted in these, and then in powers of two of them, where a step may be repeated.
const CONTEXT: usize = 256;

/// The shape of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) rows: usize,
    /// The first so many rows are alone in their sequences, or taken so: each has a table.
    pub(super) alone: usize,
    /// Tokens that the longest of those may see.
    pub(super) context: usize,
    /// Other sequences: they have tables behind those.
    pub(super) others: usize,
    /// Tiles of the rows of others.
    pub(super) tiles: usize,
    /// Blocks of a table.
    pub(super) table: usize,
    /// Rows whose scores are wanted.
    pub(super) wanted: usize,
    /// Whether it is likely to come again: every row is alone, and wanted.
    pub(super) comes_again: bool,
}

/// The words of a step on the GPU, where its shape says.
pub(super) struct Inputs {
    words: Buffer<u32>,
    pub(super) shape: Shape,
}

/// The words of a step on their way.
struct Words {
    tokens: Zeroizing<Vec<u32>>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    lengths: Vec<u32>,
    wanted: Vec<u32>,
    tables: Vec<u32>,
    tiles: Vec<u32>,
}

impl Inputs {
    pub(super) fn new(words: Buffer<u32>) -> Self {
        let shape = Shape {
            rows: 0,
            alone: 0,
            context: 0,
            others: 0,
            tiles: 0,
            table: 0,
            wanted: 0,
            comes_again: false,
        };
        Self { words, shape }
    }

    /// How many words there may be, for sequences of up to `longest` tokens.
    pub(super) fn most(rows: usize, longest: usize) -> usize {
        let rows = round_up(rows);
        rows * (5 + 4 + context(longest) / BLOCK_TOKENS)
    }

    /// Takes a batch, after which `ahead` tokens more are computed. `tiled`: whether several rows of a sequence are computed together.
    pub(super) fn take(&mut self, batch: &Batch<'_>, ahead: usize, tiled: bool) -> Result<(), Error> {
        let shape = shape(batch, ahead, tiled)?;
        let words = Words::new(batch, shape)?;
        let shape = Shape { tiles: words.tiles.len() / 4, ..shape };
        let Words { tokens, positions, slots, lengths, wanted, tables, tiles } = words;
        let parts = [&*tokens, &positions, &slots, &lengths, &wanted, &tables, &tiles];
        // As large as it gets, so that no part of it is left behind where it was.
        let mut all = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        parts.into_iter().for_each(|part| all.extend_from_slice(part));
        self.words.part(0, all.len())?.write(&all)?;
        self.shape = shape;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &Buffer<u32> {
        &self.words
    }

    #[cfg(test)]
    pub(super) fn all_mut(&mut self) -> &mut Buffer<u32> {
        &mut self.words
    }

    pub(super) fn clear(&mut self) -> Result<(), Error> {
        self.words.clear()
    }

    fn part(&self, index: usize) -> Result<Buffer<u32>, Error> {
        let Shape { rows, alone, others, tiles, table, wanted, .. } = self.shape;
        let lens = [rows, rows, rows, alone, wanted, alone * table, others * table, 4 * tiles];
        self.words.part(lens.iter().take(index).sum(), lens.get(index).copied().unwrap_or_default())
    }

    pub(super) fn tokens(&self) -> Result<Buffer<u32>, Error> {
        self.part(0)
    }

    pub(super) fn positions(&self) -> Result<Buffer<u32>, Error> {
        self.part(1)
    }

    /// Where keys and values go.
    pub(super) fn slots(&self) -> Result<Buffer<u32>, Error> {
        self.part(2)
    }

    /// Tokens that rows see that are alone.
    pub(super) fn lengths(&self) -> Result<Buffer<u32>, Error> {
        self.part(3)
    }

    pub(super) fn wanted(&self) -> Result<Buffer<u32>, Error> {
        self.part(4)
    }

    /// Tables of rows that are alone.
    pub(super) fn tables(&self) -> Result<Buffer<u32>, Error> {
        self.part(5)
    }

    pub(super) fn others_tables(&self) -> Result<Buffer<u32>, Error> {
        self.part(6)
    }

    pub(super) fn tiles(&self) -> Result<Buffer<u32>, Error> {
        self.part(7)
    }
}

/// The shape, without tiles.
fn shape(batch: &Batch<'_>, ahead: usize, tiled: bool) -> Result<Shape, Error> {
    let rows = batch.tokens.len();
    let single = batch.spans.iter().take_while(|span| span.rows == 1).count();
    let all_single = single == batch.spans.len();
    let comes_again = all_single && batch.wanted.iter().copied().eq(0..rows);
    let alone = if tiled { single } else { rows };
    let others = if tiled { batch.spans.len() - single } else { 0 };
    let end = |span: &Span<'_>| span.position + span.rows + ahead;
    let longest = batch.spans.iter().map(end).max().unwrap_or_default();
    if ahead > 0 && !comes_again {
        return Err(Error::Compute("going on with sequences that have several rows".to_owned()));
    }
    let rows = if comes_again { round_up(rows) } else { rows };
    Ok(Shape {
        rows,
        alone: if comes_again { rows } else { alone },
        context: context(longest),
        others,
        tiles: 0,
        table: context(longest) / BLOCK_TOKENS,
        wanted: if comes_again { rows } else { batch.wanted.len() },
        comes_again,
    })
}

impl Words {
    fn new(batch: &Batch<'_>, shape: Shape) -> Result<Self, Error> {
        let mut words = Self {
            tokens: Zeroizing::new(Vec::with_capacity(shape.rows)),
            positions: Vec::new(),
            slots: Vec::new(),
            lengths: Vec::new(),
            wanted: Vec::new(),
            tables: Vec::with_capacity((shape.alone + shape.others) * shape.table),
            tiles: Vec::new(),
        };
        words.tokens.extend(batch.tokens);
        let mut runs = Vec::new();
        for span in batch.spans {
            for offset in 0..span.rows {
                let position = span.position + offset;
                let block = span.table.get(position / BLOCK_TOKENS).copied();
                let block =
                    block.ok_or_else(|| Error::Compute("a sequence has too few blocks".to_owned()))?;
                words.positions.push(word(position)?);
                words.slots.push(word(block as usize * BLOCK_TOKENS + position % BLOCK_TOKENS)?);
                if words.lengths.len() < shape.alone {
                    words.lengths.push(word(position + 1)?);
                    words.table(span, shape);
                }
            }
            if words.positions.len() > shape.alone {
                let (sequence, first_row) = (word(runs.len())?, word(span.row)?);
                let (rows, position) = (word(span.rows)?, word(span.position)?);
                runs.push(Run { sequence, first_row, rows, position });
                words.table(span, shape);
            }
        }
        if words.positions.len() != batch.tokens.len() {
            return Err(Error::Compute("rows without a sequence".to_owned()));
        }
        // Rows that only fill the shape up: they see nothing and write nothing.
        words.tokens.resize(shape.rows, 0);
        words.positions.resize(shape.rows, 0);
        words.slots.resize(shape.rows, NOWHERE);
        words.lengths.resize(shape.alone, 0);
        words.tables.resize((shape.alone + shape.others) * shape.table, NOWHERE);
        words.tiles = tiles(&runs, shape.rows, shape.others)?;
        words.wanted = batch.wanted.iter().map(|row| word(*row)).collect::<Result<_, _>>()?;
        words.wanted.resize(shape.wanted, 0);
        Ok(words)
    }

    fn table(&mut self, span: &Span<'_>, shape: Shape) {
        let end = self.tables.len() + shape.table;
        self.tables.extend(span.table.iter().take(shape.table));
        self.tables.resize(end, NOWHERE);
    }
}

/// So many rows are computed where fewer are there, so that shapes come again.
fn round_up(rows: usize) -> usize {
    if rows <= 8 { rows.next_power_of_two() } else { rows.next_multiple_of(8) }
}

fn context(longest: usize) -> usize {
    longest.next_power_of_two().max(CONTEXT)
}

fn word(value: usize) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_large| Error::Compute("a number above 32 bits".to_owned()))
}
