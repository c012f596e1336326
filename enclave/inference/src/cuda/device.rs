//! One NVIDIA GPU: finding it, and launching kernels on it.
#![expect(unsafe_code, reason = "loading the driver and launching kernels; each block says why it is sound")]

use super::buffer::{Buffer, Element, Pointer, failed};
use super::gemm::Gemm;
use super::launch::{KERNELS, Launch, Number, problem};
use crate::error::Error;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaGraph, CudaStream, LaunchConfig, PushKernelArg, result as driver,
};
use cudarc::nvrtc::Ptx;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// Compiled for Hopper.
const CUBIN: &[u8] = include_bytes!("../../cuda/kernels.cubin");
/// For the driver to compile, on later GPUs.
const PTX: &str = include_str!("../../cuda/kernels.ptx");

/// A GPU with our kernels. Everything asked of it happens in order, on one stream.
pub(crate) struct Device {
    stream: Arc<CudaStream>,
    kernels: BTreeMap<&'static str, CudaFunction>,
    gemm: Gemm,
    name: String,
    /// The memory of what is being recorded.
    recording: Mutex<Option<Vec<Arc<dyn Any + Send + Sync>>>>,
}

impl Device {
    /// The GPU of this machine. An error says what is missing; nothing panics where there is no driver.
    pub(crate) fn open() -> Result<Self, Error> {
        check_libraries()?;
        let count = CudaContext::device_count().map_err(|error| Error::NoGpu(format!("{error:?}")))?;
        only_one(count)?;
        let context = CudaContext::new(0).map_err(failed)?;
        let module = match module_for(context.compute_capability().map_err(failed)?)? {
            Module::Compiled => Ptx::from_binary(CUBIN.to_vec()),
            Module::ToBeCompiled => Ptx::from_src(PTX),
        };
        // SAFETY: tracking is for buffers that several streams use. There is one stream, which no function gives away, and
        // buffers live on it from allocation to release.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(failed)?;
        let module = context.load_module(module).map_err(failed)?;
        let mut kernels = BTreeMap::new();
        for (kernel, _) in KERNELS {
            kernels.insert(kernel, module.load_function(kernel).map_err(failed)?);
        }
        let gemm = Gemm::new(&stream)?;
        let name = context.name().map_err(failed)?;
        Ok(Self { stream, kernels, gemm, name, recording: Mutex::default() })
    }

    /// What the GPU calls itself.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that are free, and bytes that there are.
    pub(crate) fn memory(&self) -> Result<(usize, usize), Error> {
        self.stream.context().mem_get_info().map_err(failed)
    }

    pub(crate) fn zeros<T: Element>(&self, len: usize) -> Result<Buffer<T>, Error> {
        Buffer::zeros(&self.stream, len)
    }

    pub(crate) fn upload<T: Element>(&self, values: &[T]) -> Result<Buffer<T>, Error> {
        let mut buffer = self.zeros(values.len())?;
        buffer.write(values)?;
        Ok(buffer)
    }

    /// Records what `work` asks for, without doing it. It may ask for launches and products of shapes that were there before, and for copies
    /// within the GPU.
    pub(crate) fn record(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<Recording, Error> {
        *self.recording.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        let begun = self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
        let panicked = |_| Err(Error::Gpu("recording a step broke off".to_owned()));
        let worked = begun
            .map_err(failed)
            .and_then(|()| catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked));
        let ended = self.stream.end_capture(CUgraphInstantiate_flags(0)).map_err(failed);
        let memory = self.recording.lock().unwrap_or_else(PoisonError::into_inner).take();
        worked?;
        let graph = ended?.ok_or_else(|| Error::Gpu("it recorded nothing".to_owned()))?;
        Ok(Recording { graph: Graph(graph), _memory: memory.unwrap_or_default() })
    }

    /// What a recording uses stays as long as the recording.
    fn keep(&self, buffers: &[&Pointer<'_>]) {
        let mut recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = recording.as_mut() {
            memory.extend(buffers.iter().map(|buffer| Arc::clone(&buffer.memory)));
        }
    }

    /// Overwrites what products leave behind.
    pub(crate) fn wipe_scratch(&self) -> Result<(), Error> {
        self.gemm.wipe()
    }

    /// See [`Gemm::multiply`].
    pub(super) fn multiply(
        &self,
        out: &Pointer<'_>,
        x: &Pointer<'_>,
        weights: &Pointer<'_>,
        shape: [usize; 3],
    ) -> Result<(), Error> {
        self.keep(&[out, x, weights]);
        self.gemm.multiply(out, x, weights, shape)
    }

    /// Launches a kernel on buffers of the sizes and kinds that its plan is for.
    pub(super) fn launch(&self, launch: &Launch, buffers: &[Pointer<'_>]) -> Result<(), Error> {
        launch.check(&buffers.iter().map(|b| (b.len, b.parameter)).collect::<Vec<_>>())?;
        self.keep(&buffers.iter().collect::<Vec<_>>());
        let kernel =
            self.kernels.get(launch.kernel).ok_or_else(|| problem(launch.kernel, "names no kernel"))?;
        let mut arguments = self.stream.launch_builder(kernel);
        for buffer in buffers {
            arguments.arg(&buffer.address);
        }
        for number in &launch.numbers {
            match number {
                Number::Word(word) => arguments.arg(word),
                Number::Float(float) => arguments.arg(float),
            };
        }
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared,
        };
        // SAFETY: launches come from `plan`, which checks that a kernel with these numbers stays within buffers of these sizes; the
        // buffers have them, and the kinds that the kernel takes. `Pointer` borrows each buffer, exclusively if it is written, until
        // the launch is queued; what comes later on the one stream comes after it. Golden files hold the number and
        // order of arguments against the kernels' own signatures.
        unsafe { arguments.launch(config) }.map_err(failed)?;
        Ok(())
    }
}

/// What was asked for once, to be repeated. Holds all memory that it uses.
pub(crate) struct Recording {
    graph: Graph,
    _memory: Vec<Arc<dyn Any + Send + Sync>>,
}

struct Graph(CudaGraph);

// SAFETY: NVIDIA documents that a graph may be used from any thread, by one at a time; nothing here takes a shared reference to
// another thread, for `Recording` is not `Sync`.
unsafe impl Send for Graph {}

impl Recording {
    /// Does it all again, on what the buffers hold now.
    pub(crate) fn repeat(&self) -> Result<(), Error> {
        self.graph.0.launch().map_err(failed)
    }
}

/// Copies to, from and within the GPU, in order with everything else.
pub(super) struct Transfer(pub(super) Arc<CudaStream>);

impl Transfer {
    pub(super) fn write<T: Element>(&self, to: &Pointer<'_>, values: &[T]) -> Result<(), Error> {
        same_len(to.len, values.len())?;
        self.0.context().bind_to_thread().map_err(failed)?;
        // SAFETY: the buffer is alive and has as many values of this type; so are the values, until the stream has come to the end.
        unsafe { driver::memcpy_htod_async(to.address, values, self.0.cu_stream()) }.map_err(failed)?;
        self.0.synchronize().map_err(failed)
    }

    pub(super) fn read<T: Element>(&self, from: &Pointer<'_>, values: &mut [T]) -> Result<(), Error> {
        same_len(values.len(), from.len)?;
        self.0.context().bind_to_thread().map_err(failed)?;
        // SAFETY: the buffer is alive and has as many values of this type, all bits of which are values; they are there once the
        // stream has come to the end, before which nobody sees them.
        unsafe { driver::memcpy_dtoh_async(values, from.address, self.0.cu_stream()) }.map_err(failed)?;
        self.0.synchronize().map_err(failed)
    }

    /// `size`: bytes of a value.
    pub(super) fn copy(&self, to: &Pointer<'_>, from: &Pointer<'_>, size: usize) -> Result<(), Error> {
        same_len(to.len, from.len)?;
        let bytes = (to.len * size) as u64;
        if to.address.abs_diff(from.address) < bytes {
            return Err(Error::Compute("a copy within the GPU onto itself".to_owned()));
        }
        self.0.context().bind_to_thread().map_err(failed)?;
        // SAFETY: both buffers are alive, have so many bytes, and do not overlap.
        unsafe { driver::memcpy_dtod_async(to.address, from.address, to.len * size, self.0.cu_stream()) }
            .map_err(failed)
    }

    /// `size`: bytes of a value.
    pub(super) fn clear(&self, buffer: &Pointer<'_>, size: usize) -> Result<(), Error> {
        self.0.context().bind_to_thread().map_err(failed)?;
        // SAFETY: the buffer is alive and has so many bytes, for which zero is a value.
        unsafe { driver::memset_d8_async(buffer.address, 0, buffer.len * size, self.0.cu_stream()) }
            .map_err(failed)
    }
}

fn same_len(to: usize, from: usize) -> Result<(), Error> {
    if to == from {
        return Ok(());
    }
    Err(Error::Compute("a buffer of the GPU has another size than its new values".to_owned()))
}

/// More would be of no use: the engine computes on one.
pub(super) fn only_one(gpus: i32) -> Result<(), Error> {
    match gpus {
        1 => Ok(()),
        0 => Err(Error::NoGpu("the driver has none: pass one to the machine".to_owned())),
        _ => Err(Error::NoGpu(format!(
            "the driver has {gpus}, this engine takes one: pass one to the machine"
        ))),
    }
}

/// What is loaded onto a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Module {
    Compiled,
    ToBeCompiled,
}

/// By the compute capability of a GPU.
pub(super) fn module_for((major, minor): (i32, i32)) -> Result<Module, Error> {
    match (major, minor) {
        (9, 0) => Ok(Module::Compiled),
        (10.., _) => Ok(Module::ToBeCompiled),
        _ => Err(Error::NoGpu(format!("its compute capability is {major}.{minor}, the kernels need 9.0"))),
    }
}

/// The driver and cuBLASLt are looked for first: cudarc panics where they are missing.
fn check_libraries() -> Result<(), Error> {
    // SAFETY: this loads the library under its name and with it runs its initialisers: NVIDIA's, of the machine's own driver.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(Error::NoGpu("there is no NVIDIA driver (libcuda.so.1)".to_owned()));
    }
    // SAFETY: as above.
    if !unsafe { cudarc::cublaslt::sys::is_culib_present() } {
        return Err(Error::NoGpu(
            "there is no cuBLASLt (libcublasLt.so.13), which comes with CUDA 13".to_owned(),
        ));
    }
    Ok(())
}
