//! One NVIDIA GPU: finding it, and launching kernels on it.
#![expect(unsafe_code, reason = "loading the driver and launching kernels; each block says why it is sound")]

use super::buffer::{Buffer, Element, Pointer, failed};
use super::gemm::Gemm;
use super::launch::{KERNELS, Launch, Number, problem};
use crate::error::Error;
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Compiled for Hopper.
const CUBIN: &[u8] = include_bytes!("../../cuda/kernels.cubin");
/// For the driver to compile, on later GPUs.
const PTX: &str = include_str!("../../cuda/kernels.ptx");

/// A GPU with our kernels. Everything asked of it happens in order, on one stream.
pub(crate) struct Device {
    stream: Arc<CudaStream>,
    kernels: BTreeMap<&'static str, CudaFunction>,
    pub(super) gemm: Gemm,
    name: String,
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
        Ok(Self { stream, kernels, gemm, name })
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
        Buffer::from_slice(&self.stream, values)
    }

    /// Waits until everything is done that was asked for.
    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        self.stream.synchronize().map_err(failed)
    }

    /// Launches a kernel on buffers of the sizes and kinds that its plan is for.
    pub(super) fn launch(&self, launch: &Launch, buffers: &[Pointer<'_>]) -> Result<(), Error> {
        launch.check(&buffers.iter().map(|b| (b.len, b.parameter)).collect::<Vec<_>>())?;
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
