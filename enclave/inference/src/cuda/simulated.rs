//! A device for tests on machines without a GPU: memory of the process, and the twins instead of kernels. What is recorded is done when it is
//! repeated, not before. Whatever would be an error of ours is a panic here.

use super::launch::{Kind, Launch, Number, Parameter, problem};
use super::plan::{self, Heads, Norm, Rope, Run, Scores};
use super::twin;
use crate::backend::Activation;
use crate::error::Error;
use half::bf16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use zeroize::{Zeroize, Zeroizing};

/// What a buffer may hold.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    const KIND: Kind;
    fn to_bits(self) -> u32;
    fn from_bits(bits: u32) -> Self;
}

impl Element for bf16 {
    const KIND: Kind = Kind::Half;
    fn to_bits(self) -> u32 {
        Self::to_bits(self).into()
    }
    fn from_bits(bits: u32) -> Self {
        Self::from_bits(u16::try_from(bits).unwrap())
    }
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
    fn to_bits(self) -> u32 {
        Self::to_bits(self)
    }
    fn from_bits(bits: u32) -> Self {
        Self::from_bits(bits)
    }
}

impl Element for u32 {
    const KIND: Kind = Kind::Word;
    fn to_bits(self) -> u32 {
        self
    }
    fn from_bits(bits: u32) -> Self {
        bits
    }
}

/// Values by their bits.
type Memory = Arc<Mutex<Vec<u32>>>;

/// Some values.
#[derive(Clone)]
struct View {
    memory: Memory,
    start: usize,
    len: usize,
}

impl View {
    fn get<T: Element>(&self) -> Vec<T> {
        let memory = self.memory.lock().unwrap();
        memory[self.start..self.start + self.len].iter().map(|bits| T::from_bits(*bits)).collect()
    }

    fn set<T: Element>(&self, values: &[T]) {
        let mut memory = self.memory.lock().unwrap();
        let places = memory[self.start..self.start + self.len].iter_mut();
        assert_eq!(places.len(), values.len());
        places.zip(values).for_each(|(place, value)| *place = value.to_bits());
    }
}

pub(crate) struct Buffer<T: Element> {
    view: View,
    device: Shared,
    values: std::marker::PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(crate) fn len(&self) -> usize {
        self.view.len
    }

    pub(crate) fn part(&self, start: usize, len: usize) -> Result<Self, Error> {
        if start + len > self.len() {
            return Err(Error::Compute("a buffer has no such part".to_owned()));
        }
        let view = View { start: self.view.start + start, len, ..self.view.clone() };
        Ok(Self { view, device: Arc::clone(&self.device), values: self.values })
    }

    pub(crate) fn write(&mut self, values: &[T]) -> Result<(), Error> {
        assert!(self.device.lock().unwrap().recorded.is_none(), "host memory cannot be recorded");
        self.view.set(values);
        Ok(())
    }

    pub(crate) fn copy(&mut self, from: &Self) -> Result<(), Error> {
        self.device.lock().unwrap().ask(Work::Copy(self.view.clone(), from.view.clone()))
    }

    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        assert!(self.device.lock().unwrap().recorded.is_none());
        self.view.set(&vec![T::default(); self.len()]);
        Ok(())
    }

    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<T>>, Error>
    where
        T: Zeroize,
    {
        assert!(self.device.lock().unwrap().recorded.is_none());
        Ok(Zeroizing::new(self.view.get()))
    }

    pub(super) fn read_into(&self, values: &mut [T]) -> Result<(), Error> {
        values.copy_from_slice(&self.view.get());
        Ok(())
    }

    pub(crate) fn shared(&self) -> Pointer {
        Pointer { view: self.view.clone(), parameter: Parameter { kind: T::KIND, is_written: false } }
    }

    pub(crate) fn exclusive(&mut self) -> Pointer {
        Pointer { view: self.view.clone(), parameter: Parameter { kind: T::KIND, is_written: true } }
    }
}

pub(crate) struct Pointer {
    view: View,
    parameter: Parameter,
}

impl Pointer {
    pub(super) fn in_place(self) -> [Self; 2] {
        let parameter = Parameter { is_written: false, ..self.parameter };
        let input = Self { view: self.view.clone(), parameter };
        [self, input]
    }
}

#[derive(Clone)]
enum Work {
    Launch(Launch, Vec<View>),
    /// Whether the result is f32; out, x, weights; rows, inputs, outputs.
    Product(bool, [View; 3], [usize; 3]),
    Copy(View, View),
}

#[derive(Default)]
struct Queue {
    recorded: Option<Vec<Work>>,
    /// Launches and products left until the device breaks, if it shall.
    left: Option<usize>,
}

type Shared = Arc<Mutex<Queue>>;

impl Queue {
    fn ask(&mut self, work: Work) -> Result<(), Error> {
        if let Some(recorded) = &mut self.recorded {
            recorded.push(work);
            return Ok(());
        }
        if let Some(left) = &mut self.left {
            *left =
                left.checked_sub(1).ok_or_else(|| Error::Gpu("CUDA_ERROR_ECC_UNCORRECTABLE".to_owned()))?;
        }
        work.run();
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Device {
    queue: Shared,
    repeated: Arc<AtomicU64>,
}

impl Device {
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self::default())
    }

    /// As much as any test needs.
    pub(crate) fn memory(&self) -> Result<(usize, usize), Error> {
        Ok((64 << 20, 64 << 20))
    }

    /// From the `launches`th launch on, everything fails.
    pub(crate) fn break_after(&self, launches: usize) {
        self.queue.lock().unwrap().left = Some(launches);
    }

    /// How often recordings were repeated.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    pub(crate) fn zeros<T: Element>(&self, len: usize) -> Result<Buffer<T>, Error> {
        let memory = Arc::new(Mutex::new(vec![0; len]));
        let view = View { memory, start: 0, len };
        Ok(Buffer { view, device: Arc::clone(&self.queue), values: std::marker::PhantomData })
    }

    pub(crate) fn upload<T: Element>(&self, values: &[T]) -> Result<Buffer<T>, Error> {
        let buffer = self.zeros(values.len())?;
        buffer.view.set(values);
        Ok(buffer)
    }

    pub(crate) fn record(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<Recording, Error> {
        self.queue.lock().unwrap().recorded = Some(Vec::new());
        let worked = work();
        let work = self.queue.lock().unwrap().recorded.take().unwrap();
        worked?;
        Ok(Recording { work, queue: Arc::clone(&self.queue), repeated: Arc::clone(&self.repeated) })
    }

    /// There is none.
    pub(crate) fn wipe_scratch(&self) -> Result<(), Error> {
        Ok(())
    }

    pub(super) fn launch(&self, launch: &Launch, buffers: &[Pointer]) -> Result<(), Error> {
        launch.check(&buffers.iter().map(|b| (b.view.len, b.parameter)).collect::<Vec<_>>())?;
        let views = buffers.iter().map(|buffer| buffer.view.clone()).collect();
        self.queue.lock().unwrap().ask(Work::Launch(launch.clone(), views))
    }

    pub(super) fn multiply(
        &self,
        out: &Pointer,
        x: &Pointer,
        weights: &Pointer,
        shape: [usize; 3],
    ) -> Result<(), Error> {
        let buffers = [out, x, weights].map(|buffer| (buffer.view.len, buffer.parameter));
        let is_float = plan::gemm(buffers, shape)? == Kind::Float;
        let views = [out, x, weights].map(|buffer| buffer.view.clone());
        self.queue.lock().unwrap().ask(Work::Product(is_float, views, shape))
    }
}

pub(crate) struct Recording {
    work: Vec<Work>,
    queue: Shared,
    repeated: Arc<AtomicU64>,
}

impl Recording {
    pub(crate) fn repeat(&self) -> Result<(), Error> {
        self.repeated.fetch_add(1, Ordering::Relaxed);
        let mut queue = self.queue.lock().unwrap();
        assert!(queue.recorded.is_none());
        self.work.iter().try_for_each(|work| queue.ask(work.clone()))
    }
}

impl Work {
    fn run(&self) {
        match self {
            Self::Launch(launch, views) => Twin { launch, views }.run(),
            Self::Copy(to, from) => {
                let (start, end) = (from.start, from.start + from.len);
                let bits = from.memory.lock().unwrap()[start..end].to_vec();
                to.memory.lock().unwrap()[to.start..to.start + to.len].copy_from_slice(&bits);
            }
            Self::Product(is_float, [out, x, weights], [_, inputs, _]) => {
                let weights: Vec<bf16> = weights.get();
                let weights: Vec<f32> = weights.into_iter().map(bf16::to_f32).collect();
                let x: Vec<f32> = x.get::<bf16>().into_iter().map(bf16::to_f32).collect();
                let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(a, b)| a * b).sum::<f32>();
                let rows = x.chunks(*inputs);
                let values = rows.flat_map(|x| weights.chunks(*inputs).map(move |w| dot(x, w)));
                if *is_float {
                    out.set(&values.collect::<Vec<f32>>());
                } else {
                    out.set(&values.map(bf16::from_f32).collect::<Vec<_>>());
                }
            }
        }
    }
}

/// A launch, for which its twin stands in.
struct Twin<'a> {
    launch: &'a Launch,
    views: &'a [View],
}

impl Twin<'_> {
    fn halves(&self, index: usize) -> Vec<bf16> {
        self.views[index].get()
    }

    fn words(&self, index: usize) -> Vec<u32> {
        self.views[index].get()
    }

    fn set<T: Element>(&self, index: usize, values: &[T]) {
        self.views[index].set(values);
    }

    fn word(&self, index: usize) -> usize {
        match self.launch.numbers[index] {
            Number::Word(word) => word as usize,
            Number::Float(_) => panic!("{}", problem(self.launch.kernel, "has a float there")),
        }
    }

    fn float(&self, index: usize) -> f32 {
        match self.launch.numbers[index] {
            Number::Float(float) => float,
            Number::Word(_) => panic!("{}", problem(self.launch.kernel, "has a word there")),
        }
    }

    fn run(&self) {
        match self.launch.kernel {
            "rms_norm" | "add_rms_norm" | "add" | "add_bias" | "softcap" => self.rows(),
            "silu_mul" => self.set(0, &twin::gated(Activation::Silu, &self.halves(1), self.word(0))),
            "gelu_mul" => self.set(0, &twin::gated(Activation::GeluTanh, &self.halves(1), self.word(0))),
            "embed" => {
                let rows = twin::rows_of(&self.halves(1), &self.words(2), self.word(0), self.float(2));
                self.set(0, &rows);
            }
            "gather_rows" => {
                self.set(0, &twin::rows_of(&self.halves(1), &self.words(2), self.word(0), 1.0));
            }
            "wipe_blocks" => {
                self.set(0, &twin::wipe_blocks(&self.halves(0), &self.words(1), self.word(0)));
            }
            "rope_kv" => self.rope_kv(),
            "attention_decode" => self.attention_decode(),
            "attention_combine" => self.attention_combine(),
            name if name.starts_with("attention_prefill_") => self.attention_prefill(),
            "top_k" | "argmax" => self.best(),
            "advance" => {
                let [positions, lengths, slots] = twin::advance(&self.words(0), &self.words(3));
                [positions, lengths, slots].iter().enumerate().for_each(|(i, values)| self.set(i, values));
            }
            name => panic!("no twin for {name}"),
        }
    }

    fn rows(&self) {
        match self.launch.kernel {
            "rms_norm" => {
                let [rows, groups, _] = self.launch.grid.map(|n| n as usize);
                let (width, stride, start) = (self.word(0), self.word(1), self.word(2));
                let (eps, offset) = (self.float(3), self.float(4));
                let norm = Norm { rows, stride, start, groups, width, eps, offset };
                self.set(0, &twin::rms_norm(&self.halves(1), &self.halves(2), &norm));
            }
            "add_rms_norm" => {
                let (residual, x, weight) = (self.halves(1), self.halves(2), self.halves(3));
                let (out, sum) = twin::add_rms_norm(&residual, &x, &weight, self.float(1), self.float(2));
                self.set(0, &out);
                self.set(1, &sum);
            }
            "softcap" => self.set(0, &twin::softcap(&self.views[0].get::<f32>(), self.float(0))),
            _ => self.set(0, &twin::add(&self.halves(0), &self.halves(1))),
        }
    }

    fn rope_kv(&self) {
        let (query, kv, dim) = (self.word(0), self.word(1), self.word(2));
        let heads = Heads { query, kv, dim, blocks: self.word(6) };
        let rope = Rope { rotary: self.word(3), interleaved: self.word(4) == 1 };
        let (qkv, caches) = twin::rope_kv(
            &self.halves(0),
            [&self.halves(1), &self.halves(2)],
            &self.views[3].get::<f32>(),
            &self.words(4),
            &self.words(5),
            &heads,
            &rope,
        );
        self.set(0, &qkv);
        caches.iter().enumerate().for_each(|(i, values)| self.set(1 + i, values));
    }

    /// The whole result of each head in its first partial result, as if there were no others.
    fn attention_decode(&self) {
        let (kv, group, dim) = (self.word(0), self.word(1), self.word(2));
        let heads = Heads { query: kv * group, kv, dim, blocks: self.word(5) };
        let scores = Scores { scale: self.float(7), cap: self.float(8), window: self.word(9) };
        let (keys, values, tables, lengths) = (self.halves(2), self.halves(3), self.words(4), self.words(5));
        let cache = twin::Cache { keys: &keys, values: &values, tables: &tables, sequences: lengths.len() };
        let out = twin::attention_decode(&self.halves(1), &lengths, &cache, &heads, &scores);
        let mut partial = vec![0_f32; self.views[0].len];
        let splits = self.launch.grid[0] as usize;
        for (partial, head) in partial.chunks_mut(splits * (dim + 2)).zip(out.chunks(dim)) {
            partial.iter_mut().zip(head).for_each(|(to, value)| *to = value.to_f32());
            partial[dim + 1] = 1.0;
        }
        self.set(0, &partial);
    }

    fn attention_combine(&self) {
        let (dim, splits) = (self.word(0), self.word(1));
        let partial: Vec<f32> = self.views[1].get();
        let rows = partial.chunks(splits * (dim + 2));
        let out: Vec<bf16> = rows.flat_map(|row| row[..dim].iter().map(|x| bf16::from_f32(*x))).collect();
        self.set(0, &out);
    }

    fn attention_prefill(&self) {
        let (kv, group, row) = (self.word(0), self.word(1), self.word(2));
        let heads = Heads { query: kv * group, kv, dim: row / (kv * group + 2 * kv), blocks: self.word(4) };
        let scores = Scores { scale: self.float(5), cap: self.float(6), window: self.word(7) };
        let (keys, values, tables) = (self.halves(2), self.halves(3), self.words(4));
        let sequences = tables.len() / self.word(3).max(1);
        let run =
            |tile: &[u32]| Run { sequence: tile[0], first_row: tile[1], rows: tile[2], position: tile[3] };
        let runs: Vec<Run> = self.words(5).chunks(4).map(run).collect();
        let cache = twin::Cache { keys: &keys, values: &values, tables: &tables, sequences };
        let computed = twin::attention_prefill(&self.halves(1), &runs, &cache, &heads, &scores);
        let (mut out, width) = (self.halves(0), heads.query * heads.dim);
        for run in runs {
            let rows = run.first_row as usize * width..(run.first_row + run.rows) as usize * width;
            out[rows.clone()].copy_from_slice(&computed[rows]); // other rows stay as they are
        }
        self.set(0, &out);
    }

    fn best(&self) {
        let logits: Vec<f32> = self.views.last().unwrap().get();
        let rows = self.launch.grid[0] as usize;
        if self.launch.kernel == "argmax" {
            self.set(0, &twin::top_k(&logits, rows, 1).1);
        } else {
            let (scores, ids) = twin::top_k(&logits, rows, self.word(1));
            self.set(0, &scores);
            self.set(1, &ids);
        }
    }
}
