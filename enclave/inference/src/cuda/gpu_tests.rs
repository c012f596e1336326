//! The kernels on a GPU, if there is one.

use super::buffer::{Buffer, Element, Pointer};
use super::device::{Device, Module, module_for, only_one};
use super::golden::{Case, Values, cases};
use crate::error::Error;
use half::bf16;

/// Says what a run was worth, so that nobody takes a skipped test for a passed one.
#[expect(clippy::disallowed_macros, reason = "for people who run the tests with --nocapture")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// The GPU, or nothing where there is no driver.
fn device() -> Option<Device> {
    match Device::open() {
        Ok(device) => {
            say(&format!("on {}", device.name()));
            Some(device)
        }
        Err(Error::NoGpu(problem)) if problem.contains("no NVIDIA driver") => {
            say("skipped: no NVIDIA driver");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

enum OnGpu {
    Half(Buffer<bf16>),
    Float(Buffer<f32>),
    Word(Buffer<u32>),
}

impl OnGpu {
    fn new(device: &Device, values: &Values) -> Self {
        match values {
            Values::Half(values) => Self::Half(device.upload(values).unwrap()),
            Values::Float(values) => Self::Float(device.upload(values).unwrap()),
            Values::Word(values) => Self::Word(device.upload(values).unwrap()),
        }
    }

    fn pointer(&mut self, is_written: bool) -> Pointer<'_> {
        fn of<T: Element>(buffer: &mut Buffer<T>, is_written: bool) -> Pointer<'_> {
            if is_written { buffer.exclusive() } else { buffer.shared() }
        }
        match self {
            Self::Half(buffer) => of(buffer, is_written),
            Self::Float(buffer) => of(buffer, is_written),
            Self::Word(buffer) => of(buffer, is_written),
        }
    }

    fn read(&self) -> Values {
        match self {
            Self::Half(buffer) => halves(buffer).into(),
            Self::Float(buffer) => buffer.read().unwrap().to_vec().into(),
            Self::Word(buffer) => buffer.read().unwrap().to_vec().into(),
        }
    }
}

fn halves(buffer: &Buffer<bf16>) -> Vec<bf16> {
    let mut values = vec![bf16::ZERO; buffer.len()];
    buffer.read_into(&mut values).unwrap();
    values
}

fn run(device: &Device, case: &Case) {
    let mut buffers: Vec<OnGpu> = case.buffers.iter().map(|b| OnGpu::new(device, &b.before)).collect();
    let pointers: Vec<Pointer<'_>> =
        buffers.iter_mut().zip(&case.buffers).map(|(on_gpu, b)| on_gpu.pointer(b.after.is_some())).collect();
    device.launch(&case.launch, &pointers).unwrap();
    drop(pointers);
    for (on_gpu, buffer) in buffers.iter().zip(&case.buffers) {
        let wanted = buffer.after.as_ref().unwrap_or(&buffer.before);
        let tolerance = if buffer.after.is_some() { f64::from(case.tolerance) / 1e6 } else { 0.0 };
        compare(case.name, &on_gpu.read(), wanted, tolerance);
    }
}

fn compare(name: &str, got: &Values, wanted: &Values, tolerance: f64) {
    let near = |a: f32, b: f32| {
        let (x, y) = (f64::from(a), f64::from(b));
        a.to_bits() == b.to_bits() || (x - y).abs() <= tolerance * (y.abs() + 0.05)
    };
    match (got, wanted) {
        (Values::Half(got), Values::Half(wanted)) => {
            assert!(got.iter().zip(wanted).all(|(a, b)| near(a.to_f32(), b.to_f32())), "{name}");
        }
        (Values::Float(got), Values::Float(wanted)) => {
            assert!(got.iter().zip(wanted).all(|(a, b)| near(*a, *b)), "{name}");
        }
        (Values::Word(got), Values::Word(wanted)) => assert_eq!(got, wanted, "{name}"),
        _ => panic!("{name}: another kind"),
    }
}

#[test]
fn the_kernels_do_what_their_twins_do() {
    let Some(device) = device() else { return };
    cases().iter().for_each(|case| run(&device, case));
}

#[test]
fn products_are_products() {
    let Some(device) = device() else { return };
    for [rows, inputs, outputs] in [[1, 64, 32], [5, 576, 192], [70, 96, 1536]] {
        let value = |i: usize| bf16::from_f32((i as f32 * 0.37).sin());
        let x: Vec<bf16> = (0..rows * inputs).map(value).collect();
        let weights: Vec<bf16> = (0..outputs * inputs).map(|i| value(i + 7)).collect();
        let wanted: Vec<f32> = x
            .chunks(inputs)
            .flat_map(|x| weights.chunks(inputs).map(move |w| (x, w)))
            .map(|(x, w)| x.iter().zip(w).map(|(a, b)| a.to_f32() * b.to_f32()).sum())
            .collect();
        let (x, weights) = (device.upload(&x).unwrap(), device.upload(&weights).unwrap());
        let mut floats = device.zeros::<f32>(rows * outputs).unwrap();
        let mut halves = device.zeros::<bf16>(rows * outputs).unwrap();
        device.gemm(&mut floats, &x, &weights, [rows, inputs, outputs]).unwrap();
        device.gemm(&mut halves, &x, &weights, [rows, inputs, outputs]).unwrap();
        assert!(device.gemm(&mut floats, &x, &weights, [rows, inputs, outputs + 1]).is_err());
        compare("gemm f32", &OnGpu::Float(floats).read(), &wanted.clone().into(), 1e-3);
        let rounded: Vec<bf16> = wanted.into_iter().map(bf16::from_f32).collect();
        compare("gemm bf16", &OnGpu::Half(halves).read(), &rounded.into(), 8e-3);
    }
}

/// The libraries are looked for before cudarc would panic.
#[test]
fn without_a_driver_there_is_an_error_that_says_so() {
    match crate::describe_gpu() {
        Ok(gpu) => assert!(gpu.contains("MiB free"), "{gpu}"),
        Err(error) => assert!(error.to_string().starts_with("no GPU that this engine can use: "), "{error}"),
    }
}

#[test]
fn a_gpu_is_one_and_a_hopper_or_later() {
    assert!(only_one(1).is_ok());
    for gpus in [0, 2, 8] {
        assert!(matches!(only_one(gpus), Err(Error::NoGpu(_))), "{gpus}");
    }
    assert!(matches!(module_for((9, 0)), Ok(Module::Compiled)));
    for later in [(10, 0), (10, 3), (12, 0)] {
        assert!(matches!(module_for(later), Ok(Module::ToBeCompiled)), "{later:?}");
    }
    for earlier in [(7, 0), (8, 0), (8, 9)] {
        assert!(matches!(module_for(earlier), Err(Error::NoGpu(_))), "{earlier:?}");
    }
}
