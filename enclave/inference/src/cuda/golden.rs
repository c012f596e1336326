//! Golden files: a launch, its buffers before, and after as the twin says. `scripts/cuda-kernels --emulate` runs the kernels against them on the
//! CPU, and the tests of feature `cuda` on a GPU.
//!
//! Words of 32 bits, little-endian: the mark `CDA1`; length and text of the kernel's name, padded; grid, threads, shared bytes, tolerance in
//! millionths; the number of arguments and for each its kind (0 buffer, 1 word, 2 float) and value; the number of buffers and for each its kind (0 BF16, 1
//! f32, 2 u32), whether it is compared, its length, its values before, and after if it is. Two BF16 are in one word.

use super::launch::{BLOCK, KERNELS, Kind, Launch, Number, Parameter, parameters};
use super::plan::{self, Heads, Norm, Rope, Run, Scores};
use super::twin::{self, Cache};
use crate::backend::Activation;
use half::bf16;
use std::path::PathBuf;

const MARK: u32 = u32::from_le_bytes(*b"CDA1");

/// Values of a buffer.
#[derive(Clone, PartialEq)]
pub(crate) enum Values {
    Half(Vec<bf16>),
    Float(Vec<f32>),
    Word(Vec<u32>),
}

impl From<Vec<bf16>> for Values {
    fn from(values: Vec<bf16>) -> Self {
        Self::Half(values)
    }
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        Self::Float(values)
    }
}

impl From<Vec<u32>> for Values {
    fn from(values: Vec<u32>) -> Self {
        Self::Word(values)
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Half(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Word(values) => values.len(),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Half(_) => Kind::Half,
            Self::Float(_) => Kind::Float,
            Self::Word(_) => Kind::Word,
        }
    }

    fn words(&self) -> Vec<u32> {
        match self {
            Self::Half(values) => {
                let word = |two: &[bf16]| {
                    let high = two.get(1).map_or(0, |value| u32::from(value.to_bits()));
                    u32::from(two[0].to_bits()) | high << 16
                };
                values.chunks(2).map(word).collect()
            }
            Self::Float(values) => values.iter().map(|value| value.to_bits()).collect(),
            Self::Word(values) => values.clone(),
        }
    }

    fn zeros(&self) -> Self {
        match self {
            Self::Half(values) => vec![bf16::ZERO; values.len()].into(),
            Self::Float(values) => vec![0_f32; values.len()].into(),
            Self::Word(values) => vec![0_u32; values.len()].into(),
        }
    }
}

/// A buffer of a launch.
pub(crate) struct Buffer {
    pub(crate) before: Values,
    /// What the twin says, if the kernel writes it.
    pub(crate) after: Option<Values>,
}

fn input(values: impl Into<Values>) -> Buffer {
    Buffer { before: values.into(), after: None }
}

fn output(values: impl Into<Values>) -> Buffer {
    let after = values.into();
    Buffer { before: after.zeros(), after: Some(after) }
}

fn in_place(before: impl Into<Values>, after: impl Into<Values>) -> Buffer {
    Buffer { before: before.into(), after: Some(after.into()) }
}

/// One golden file.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) launch: Launch,
    /// Of a value `v` may be off by that many millionths of `|v| + 0.05`.
    pub(crate) tolerance: u32,
    pub(crate) buffers: Vec<Buffer>,
}

/// One step of BF16 is 7,812 millionths.
const ROUNDING: u32 = 8_000;
/// Weights of a softmax are rounded too, and in another order.
const ATTENTION: u32 = 40_000;
const FLOAT: u32 = 20;

impl Case {
    fn encode(&self) -> Vec<u8> {
        let launch = &self.launch;
        let word = |n: usize| u32::try_from(n).unwrap();
        let mut words = vec![MARK, word(launch.kernel.len())];
        let letters = launch.kernel.as_bytes().chunks(4);
        words.extend(letters.map(|four| (0..).zip(four).map(|(i, c)| u32::from(*c) << (8 * i)).sum::<u32>()));
        words.extend(launch.grid);
        words.extend([launch.threads, launch.shared, self.tolerance]);
        let lens: Vec<usize> = self.buffers.iter().map(|buffer| buffer.before.len()).collect();
        assert_eq!(launch.buffers, lens, "{}", self.name);
        words.push(word(lens.len() + launch.numbers.len()));
        words.extend((0..word(lens.len())).flat_map(|buffer| [0, buffer]));
        for number in &launch.numbers {
            words.extend(match number {
                Number::Word(value) => [1, *value],
                Number::Float(value) => [2, value.to_bits()],
            });
        }
        words.push(word(self.buffers.len()));
        for Buffer { before, after } in &self.buffers {
            words.extend([before.kind() as u32, u32::from(after.is_some()), word(before.len())]);
            words.extend(before.words());
            words.extend(after.iter().flat_map(Values::words));
        }
        words.into_iter().flat_map(u32::to_le_bytes).collect()
    }
}

/// Numbers for inputs, the same each time.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / 8_388_608.0 - 1.0 // -1 to 1
    }

    fn halves(&mut self, n: usize) -> Vec<bf16> {
        (0..n).map(|_| bf16::from_f32(2.0 * self.next())).collect()
    }

    fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| scale * self.next()).collect()
    }
}

fn case<const N: usize>(name: &'static str, launch: Launch, tolerance: u32, buffers: [Buffer; N]) -> Case {
    Case { name, launch, tolerance, buffers: Vec::from(buffers) }
}

/// All golden files.
pub(crate) fn cases() -> Vec<Case> {
    let mut numbers = Numbers(1);
    let mut cases = row_cases(&mut numbers);
    cases.extend([
        rope_case("rope_kv", &mut numbers, 16, false),
        rope_case("rope_kv_part", &mut numbers, 8, true),
    ]);
    cases.extend(decode_cases(&mut numbers));
    for (name, dim, window, cap) in [
        ("prefill_64", 64, 0, 0.0),
        ("prefill_64_window", 64, 21, 5.0),
        ("prefill_96", 96, 0, 0.0),
        ("prefill_128", 128, 0, 0.0),
        ("prefill_256", 256, 30, 0.0),
    ] {
        cases.push(prefill_case(name, &mut numbers, dim, window, cap));
    }
    cases.extend(token_cases(&mut numbers));
    cases
}

fn row_cases(numbers: &mut Numbers) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, norm) in [
        ("rms_norm", Norm { rows: 3, stride: 288, start: 0, groups: 1, width: 288, eps: 1e-5, offset: 0.0 }),
        (
            "rms_norm_heads",
            Norm { rows: 3, stride: 160, start: 32, groups: 3, width: 32, eps: 1e-6, offset: 1.0 },
        ),
    ] {
        let (x, weight) = (numbers.halves(norm.rows * norm.stride), numbers.halves(norm.width));
        let mut out = twin::rms_norm(&x, &weight, &norm);
        let launch = plan::rms_norm([x.len(), x.len(), weight.len()], &norm).unwrap();
        // Out of place, what is not normalised is not written.
        for row in out.chunks_mut(norm.stride) {
            row[..norm.start].fill(bf16::ZERO);
            row[norm.start + norm.groups * norm.width..].fill(bf16::ZERO);
        }
        cases.push(case(name, launch, ROUNDING, [output(out), input(x), input(weight)]));
    }
    let (residual, x, weight) = (numbers.halves(2 * 96), numbers.halves(2 * 96), numbers.halves(96));
    let (out, sum) = twin::add_rms_norm(&residual, &x, &weight, 1e-5, 0.0);
    let launch = plan::add_rms_norm([192, 192, 192, 96], 2, 1e-5, 0.0).unwrap();
    let buffers = [output(out), in_place(residual, sum), input(x), input(weight)];
    cases.push(case("add_rms_norm", launch, ROUNDING, buffers));

    let (x, y, bias) = (numbers.halves(300), numbers.halves(300), numbers.halves(100));
    let buffers = [in_place(x.clone(), twin::add(&x, &y)), input(y)];
    cases.push(case("add", plan::add([300, 300]).unwrap(), 0, buffers));
    let buffers = [in_place(x.clone(), twin::add(&x, &bias)), input(bias)];
    cases.push(case("add_bias", plan::add_bias([300, 100], 3).unwrap(), 0, buffers));
    for (name, activation) in [("silu_mul", Activation::Silu), ("gelu_mul", Activation::GeluTanh)] {
        let gate_up: Vec<bf16> = numbers.floats(3 * 2 * 100, 6.0).into_iter().map(bf16::from_f32).collect();
        let out = twin::gated(activation, &gate_up, 100);
        let launch = plan::gated(activation, [out.len(), gate_up.len()], 3, 100).unwrap();
        cases.push(case(name, launch, ROUNDING, [output(out), input(gate_up)]));
    }
    let (table, tokens) = (numbers.halves(7 * 72), vec![6_u32, 0, 7, 3, u32::MAX]);
    let out = twin::rows_of(&table, &tokens, 72, 8.5);
    let launch = plan::embed([out.len(), table.len(), tokens.len()], 72, 8.5).unwrap();
    cases.push(case("embed", launch, 0, [output(out), input(table.clone()), input(tokens.clone())]));
    let out = twin::rows_of(&table, &tokens, 72, 1.0);
    let launch = plan::gather_rows([out.len(), table.len(), tokens.len()], 72).unwrap();
    cases.push(case("gather_rows", launch, 0, [output(out), input(table), input(tokens)]));
    let x = numbers.floats(300, 90.0);
    let after = twin::softcap(&x, 30.0);
    cases.push(case("softcap", plan::softcap(300, 30.0).unwrap(), FLOAT, [in_place(x, after)]));
    cases
}

fn rope_case(name: &'static str, numbers: &mut Numbers, rotary: usize, interleaved: bool) -> Case {
    let heads = Heads { query: 4, kv: 2, dim: 16, blocks: 3 };
    let rope = Rope { rotary, interleaved };
    let angle = |i: usize| (i / rotary) as f32 * 0.3 / (1.0 + (i % rotary / 2) as f32);
    let turns: Vec<f32> =
        (0..40 * rotary).map(|i| if i % 2 == 0 { angle(i).cos() } else { angle(i).sin() }).collect();
    // The last ones are outside of the cache, and of the context.
    let (positions, slots) = (vec![0_u32, 7, 39, 3, 40], vec![5_u32, 47, 16, u32::MAX, 48]);
    let qkv = numbers.halves(positions.len() * heads.row());
    let caches = [numbers.halves(3 * 2 * 16 * 16), numbers.halves(3 * 2 * 16 * 16)];
    let (after, [keys, values]) =
        twin::rope_kv(&qkv, [&caches[0], &caches[1]], &turns, &positions, &slots, &heads, &rope);
    let lens = [qkv.len(), keys.len(), values.len(), turns.len(), positions.len(), slots.len()];
    let launch = plan::rope_kv(lens, &heads, &rope).unwrap();
    let [keys_before, values_before] = caches;
    let buffers = [
        in_place(qkv, after),
        in_place(keys_before, keys),
        in_place(values_before, values),
        input(turns),
        input(positions),
        input(slots),
    ];
    case(name, launch, ROUNDING, buffers)
}

/// A cache whose unused places hold what is no number, and tables with blocks in any order.
fn cache(numbers: &mut Numbers, heads: &Heads, lengths: &[u32], table_len: usize) -> [Values; 3] {
    let size = heads.blocks * heads.kv * BLOCK * heads.dim;
    let (mut keys, mut values) = (vec![bf16::NAN; size], vec![bf16::NAN; size]);
    let mut tables = vec![u32::MAX; lengths.len() * table_len];
    let mut free: Vec<u32> = (0..u32::try_from(heads.blocks).unwrap()).rev().step_by(2).collect();
    free.extend((0..u32::try_from(heads.blocks).unwrap() - 1).rev().step_by(2));
    for (table, length) in tables.chunks_mut(table_len).zip(lengths) {
        for (at, entry) in table.iter_mut().enumerate().take((*length as usize).div_ceil(BLOCK)) {
            *entry = free.pop().unwrap();
            for token in (0..BLOCK).filter(|token| at * BLOCK + token < *length as usize) {
                for kv in 0..heads.kv {
                    let place = ((*entry as usize * heads.kv + kv) * BLOCK + token) * heads.dim;
                    keys[place..place + heads.dim].copy_from_slice(&numbers.halves(heads.dim));
                    values[place..place + heads.dim].copy_from_slice(&numbers.halves(heads.dim));
                }
            }
        }
    }
    [keys.into(), values.into(), tables.into()]
}

fn halves(values: &Values) -> &[bf16] {
    match values {
        Values::Half(values) => values,
        Values::Float(_) | Values::Word(_) => panic!("another kind"),
    }
}

fn table(values: &Values) -> &[u32] {
    match values {
        Values::Word(values) => values,
        Values::Float(_) | Values::Half(_) => panic!("another kind"),
    }
}

/// Decoding in splits, and how their results are put together: the partial results of the first are the input of the second.
fn decode_cases(numbers: &mut Numbers) -> Vec<Case> {
    let mut cases = Vec::new();
    for (names, heads, lengths, window, cap) in [
        (
            ["decode", "combine"],
            Heads { query: 6, kv: 2, dim: 32, blocks: 23 },
            vec![17_u32, 1, 300, 0],
            0,
            0.0,
        ),
        (
            ["decode_window", "combine_window"],
            Heads { query: 2, kv: 1, dim: 48, blocks: 21 },
            vec![290_u32, 16],
            40,
            4.0,
        ),
        // Heads that are not loaded in pieces of eight, and ones of which few tokens fit at a time.
        (
            ["decode_20", "combine_20"],
            Heads { query: 4, kv: 1, dim: 20, blocks: 9 },
            vec![70_u32, 33],
            0,
            0.0,
        ),
        (
            ["decode_256", "combine_256"],
            Heads { query: 8, kv: 1, dim: 256, blocks: 4 },
            vec![40_u32],
            30,
            0.0,
        ),
    ] {
        let (scores, context, sequences) = (Scores { scale: 0.125, cap, window }, 300, lengths.len());
        let q = numbers.halves(lengths.len() * heads.row());
        let [keys, values, tables] = cache(numbers, &heads, &lengths, 19);
        let view = Cache {
            keys: halves(&keys),
            values: halves(&values),
            tables: table(&tables),
            sequences: lengths.len(),
        };
        let partial = partial(&q, &lengths, &view, &heads, &scores, context);
        let out = twin::attention_decode(&q, &lengths, &view, &heads, &scores);
        let lens = [partial.len(), q.len(), keys.len(), values.len(), tables.len(), lengths.len()];
        let launch = plan::attention_decode(lens, &heads, &scores, context).unwrap();
        let buffers =
            [output(partial.clone()), input(q), input(keys), input(values), input(tables), input(lengths)];
        cases.push(case(names[0], launch, 200, buffers));
        let launch = plan::attention_combine([out.len(), partial.len()], &heads, sequences, context).unwrap();
        cases.push(case(names[1], launch, ROUNDING, [output(out), input(partial)]));
    }
    cases
}

/// Partial results in f32: of each split the weighted sum, the maximum and the sum of weights.
fn partial(
    q: &[bf16],
    lengths: &[u32],
    cache: &Cache<'_>,
    heads: &Heads,
    scores: &Scores,
    context: usize,
) -> Vec<f32> {
    let table_len = cache.tables.len() / cache.sequences;
    let mut out = Vec::new();
    for (sequence, (row, length)) in q.chunks(heads.row()).zip(lengths).enumerate() {
        let length = *length as usize;
        let first = if scores.window == 0 { 0 } else { length.saturating_sub(scores.window) };
        for (head, query) in row.chunks(heads.dim).take(heads.query).enumerate() {
            let kv = head / (heads.query / heads.kv);
            for start in (0..context).step_by(plan::SPLIT) {
                let place = |token: usize| {
                    let block = cache.tables[sequence * table_len + token / BLOCK] as usize;
                    ((block * heads.kv + kv) * BLOCK + token % BLOCK) * heads.dim
                };
                let tokens = start.max(first)..(start + plan::SPLIT).min(length);
                let score = |at: usize| {
                    let keys = &cache.keys[at..at + heads.dim];
                    let dot: f32 = query.iter().zip(keys).map(|(q, k)| q.to_f32() * k.to_f32()).sum();
                    let score = dot * scores.scale;
                    if scores.cap > 0.0 { scores.cap * (score / scores.cap).tanh() } else { score }
                };
                let seen: Vec<(usize, f32)> = tokens.map(place).map(|at| (at, score(at))).collect();
                let max = seen.iter().map(|(_, score)| *score).fold(-1e30, f32::max);
                let sum = |i: usize| -> f32 {
                    seen.iter().map(|(at, s)| (s - max).exp() * cache.values[at + i].to_f32()).sum()
                };
                out.extend((0..heads.dim).map(sum));
                out.extend([max, seen.iter().map(|(_, s)| (s - max).exp()).sum()]);
            }
        }
    }
    out
}

fn prefill_case(name: &'static str, numbers: &mut Numbers, dim: usize, window: usize, cap: f32) -> Case {
    let heads = Heads { query: 2, kv: 1, dim, blocks: if dim == 64 { 10 } else { 7 } };
    let scores = Scores { scale: 1.0 / (dim as f32).sqrt(), cap, window };
    // A chunk behind 37 tokens that has two tiles if heads are small; a whole prompt; a single token. Row 0 is in none.
    let first = if dim == 64 { 70 } else { 19 };
    let runs = [
        Run { sequence: 1, first_row: 1, rows: first, position: 37 },
        Run { sequence: 0, first_row: 1 + first, rows: 5, position: 0 },
        Run { sequence: 2, first_row: 6 + first, rows: 1, position: 15 },
    ];
    let rows = first as usize + 7;
    let q = numbers.halves(rows * heads.row());
    let [keys, values, tables] = cache(numbers, &heads, &[5, 37 + first, 16], 8);
    let view = Cache { keys: halves(&keys), values: halves(&values), tables: table(&tables), sequences: 3 };
    let out = twin::attention_prefill(&q, &runs, &view, &heads, &scores);
    let tiles = plan::tiles(&runs, rows, 3).unwrap();
    let lens = [out.len(), q.len(), keys.len(), values.len(), tables.len(), tiles.len()];
    let launch = plan::attention_prefill(lens, &heads, &scores, rows, 3).unwrap();
    let buffers = [output(out), input(q), input(keys), input(values), input(tables), input(tiles)];
    case(name, launch, ATTENTION, buffers)
}

fn token_cases(numbers: &mut Numbers) -> Vec<Case> {
    let mut logits = numbers.floats(3 * 1500, 10.0);
    // Ties at the top, what is no number, and a row with fewer numbers than asked for.
    for (at, value) in [(7, 11.0), (1400, 11.0), (3, f32::NAN), (4, f32::INFINITY), (1500 + 1499, 10.5)] {
        logits[at] = value;
    }
    logits[3002..].fill(f32::NEG_INFINITY);
    let (scores, ids) = twin::top_k(&logits, 3, 20);
    let best: Vec<u32> = ids.chunks(20).map(|row| row[0]).collect();
    let launch = plan::top_k([60, 60, logits.len()], 3, 20).unwrap();
    let buffers = [output(scores), output(ids), input(logits.clone())];
    let top_k = case("top_k", launch, 0, buffers);
    let launch = plan::argmax([3, logits.len()]).unwrap();
    let argmax = case("argmax", launch, 0, [output(best), input(logits)]);

    let (positions, tables) = (vec![0_u32, 14, 15, 31, 15], vec![9_u32, 4, 8, 3, 7, 2, 6, 1, 5, u32::MAX]);
    let [next, lengths, slots] = twin::advance(&positions, &tables);
    let launch = plan::advance([5, 5, 5, 10]).unwrap();
    let buffers = [in_place(positions, next), output(lengths), output(slots), input(tables)];
    let advance = case("advance", launch, 0, buffers);

    let heads = Heads { query: 2, kv: 2, dim: 16, blocks: 5 };
    let (before, ids) = (numbers.halves(5 * 2 * BLOCK * 16), vec![4_u32, 1, 5, u32::MAX]);
    let after = twin::wipe_blocks(&before, &ids, 2 * BLOCK * 16);
    let launch = plan::wipe_blocks([before.len(), ids.len()], &heads).unwrap();
    vec![top_k, argmax, advance, case("wipe_blocks", launch, 0, [in_place(before, after), input(ids)])]
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/cuda")
}

#[test]
fn golden_files_are_what_the_twins_say() {
    let cases = cases();
    for case in &cases {
        let path = folder().join(format!("{}.golden", case.name));
        let bytes = std::fs::read(&path).unwrap();
        // Not the bits of sine and exponential of another machine's library.
        assert!(close(&bytes, &case.encode()), "{}: run scripts/cuda-kernels --golden", path.display());
    }
    assert_eq!(std::fs::read_dir(folder()).unwrap().count(), cases.len(), "a file that no case writes");
}

#[test]
fn every_kernel_has_a_case_with_the_buffers_that_it_takes() {
    let cases = cases();
    for (kernel, _) in KERNELS {
        assert!(cases.iter().any(|case| case.launch.kernel == kernel), "{kernel}");
    }
    for case in &cases {
        let is = |b: &Buffer| Parameter { kind: b.before.kind(), is_written: b.after.is_some() };
        assert!(case.buffers.iter().map(is).eq(parameters(case.launch.kernel)), "{}", case.name);
    }
    let source = std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cuda/kernels.ptx")).unwrap();
    let source = String::from_utf8(source).unwrap();
    let entries: Vec<&str> =
        source.lines().filter_map(|line| line.strip_prefix(".visible .entry ")).collect();
    assert_eq!(entries.len(), KERNELS.len());
    assert!(KERNELS.iter().all(|(name, _)| entries.contains(&format!("{name}(").as_str())));
}

/// Equal but for the last bits of floats.
fn close(a: &[u8], b: &[u8]) -> bool {
    let word = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    let near = |x: u32, y: u32| {
        let (a, b) = (f32::from_bits(x), f32::from_bits(y));
        x == y || (a - b).abs() <= 1e-5 * (a.abs() + 0.05) || (x ^ y) & 0xfffe_fffe == 0
    };
    a.len() == b.len() && a.chunks_exact(4).zip(b.chunks_exact(4)).all(|(x, y)| near(word(x), word(y)))
}

#[test]
#[ignore = "writes the golden files"]
fn write_golden_files() {
    for case in cases() {
        std::fs::write(folder().join(format!("{}.golden", case.name)), case.encode()).unwrap();
    }
}
