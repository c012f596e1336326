//! Products of activations and weights, by cuBLASLt.
#![expect(unsafe_code, reason = "cuBLASLt has a C interface; each block says why it is sound")]

use super::buffer::{Buffer, Pointer, failed};
use super::launch::Kind;
use super::plan;
use crate::error::Error;
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::CudaStream;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

/// Scratch memory, as NVIDIA recommends it for Hopper.
const WORKSPACE: usize = 32 << 20;

/// Rows, inputs, outputs of a product, and whether its result is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    rows: u64,
    inputs: u64,
    outputs: u64,
    is_float: bool,
}

/// cuBLASLt on one stream. What it finds out about a shape is kept: asking takes longer than a small product.
pub(super) struct Gemm {
    handle: Handle,
    stream: Arc<CudaStream>,
    workspace: Buffer<u32>,
    products: Mutex<HashMap<Shape, Product>>,
}

impl Gemm {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self, Error> {
        let workspace = Buffer::zeros(stream, WORKSPACE / size_of::<u32>())?;
        let handle = Handle(result::create_handle().map_err(broken)?);
        Ok(Self { handle, stream: Arc::clone(stream), workspace, products: Mutex::default() })
    }

    /// Overwrites what products leave in the scratch memory.
    pub(super) fn wipe(&self) -> Result<(), Error> {
        self.workspace.part(0, self.workspace.len())?.clear()
    }

    /// `out[r][o] = sum over i of x[r][i] * weights[o][i]`, summed in f32. `out` is BF16 or f32.
    pub(super) fn multiply(
        &self,
        out: &Pointer<'_>,
        x: &Pointer<'_>,
        weights: &Pointer<'_>,
        shape: [usize; 3],
    ) -> Result<(), Error> {
        let buffers = [out, x, weights].map(|buffer| (buffer.len, buffer.parameter));
        let is_float = plan::gemm(buffers, shape)? == Kind::Float;
        let [rows, inputs, outputs] = shape.map(|n| n as u64);
        let shape = Shape { rows, inputs, outputs, is_float };
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        let product = match products.entry(shape) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(Product::new(&self.handle, shape)?),
        };
        self.run(product, out, x, weights)
    }

    fn run(
        &self,
        product: &Product,
        out: &Pointer<'_>,
        x: &Pointer<'_>,
        weights: &Pointer<'_>,
    ) -> Result<(), Error> {
        self.stream.context().bind_to_thread().map_err(failed)?;
        let (one, zero) = (1_f32, 0_f32);
        let workspace = self.workspace.shared().address;
        let address = |pointer: &Pointer<'_>| pointer.address as *const c_void;
        // SAFETY: the descriptors are alive and for this shape; `multiply` checked that the buffers have its sizes and kinds;
        // alpha and beta are f32 on the host, as the description says; with beta 0 the output is not read. The buffers are borrowed
        // until the product is queued, and what comes later on the one stream comes after it, products that use the same
        // workspace too.
        let multiplied = unsafe {
            result::matmul(
                self.handle.0,
                product.description.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                address(weights),
                product.weights.0,
                address(x),
                product.x.0,
                address(out),
                product.out.0,
                out.address as *mut c_void,
                product.out.0,
                &raw const product.algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        };
        multiplied.map_err(broken)
    }
}

/// What cuBLASLt has to know about a shape.
struct Product {
    description: Description,
    weights: Layout,
    x: Layout,
    out: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Product {
    /// cuBLASLt counts columns first: our rows are its columns, so it computes the transpose of the result from weights that it transposes.
    fn new(handle: &Handle, shape: Shape) -> Result<Self, Error> {
        let Shape { rows, inputs, outputs, is_float } = shape;
        let half = sys::cudaDataType_t::CUDA_R_16BF;
        let result_type = if is_float { sys::cudaDataType_t::CUDA_R_32F } else { half };
        let weights = Layout::new(half, inputs, outputs)?;
        let x = Layout::new(half, inputs, rows)?;
        let out = Layout::new(result_type, outputs, rows)?;
        let description = Description::new()?;
        let preference = Preference::new()?;
        // SAFETY: all descriptors are alive.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                handle.0,
                description.0,
                weights.0,
                x.0,
                out.0,
                out.0,
                preference.0,
            )
        };
        let algorithm = found.map_err(broken)?.algo;
        Ok(Self { description, weights, x, out, algorithm })
    }
}

struct Handle(sys::cublasLtHandle_t);

// SAFETY: NVIDIA documents that a handle may be used from any thread, and from several at once.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}
// SAFETY: descriptors are plain memory of the library, used by one thread at a time: a mutex is around them.
unsafe impl Send for Product {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `create_handle`, and nobody has it any more.
        let _gone = unsafe { result::destroy_handle(self.0) };
    }
}

struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    /// A matrix without gaps.
    fn new(kind: sys::cudaDataType, rows: u64, columns: u64) -> Result<Self, Error> {
        let stride = rows.cast_signed();
        result::create_matrix_layout(kind, rows, columns, stride).map(Self).map_err(broken)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `create_matrix_layout`, and nobody has it any more.
        let _gone = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    /// Sums in f32, the left matrix transposed.
    fn new() -> Result<Self, Error> {
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F);
        let description = Self(description.map_err(broken)?);
        let transposed = 1_i32; // CUBLAS_OP_T
        // SAFETY: the attribute is an operation, which is copied.
        let set = unsafe {
            result::set_matmul_desc_attribute(
                description.0,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of_val(&transposed),
            )
        };
        set.map_err(broken)?;
        Ok(description)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_desc`, and nobody has it any more.
        let _gone = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new() -> Result<Self, Error> {
        let preference = Self(result::create_matmul_pref().map_err(broken)?);
        let most = WORKSPACE;
        // SAFETY: the attribute is a number of bytes, which is copied.
        let set = unsafe {
            result::set_matmul_pref_attribute(
                preference.0,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const most).cast(),
                size_of_val(&most),
            )
        };
        set.map_err(broken)?;
        Ok(preference)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `create_matmul_pref`, and nobody has it any more.
        let _gone = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn broken(error: CublasError) -> Error {
    Error::Gpu(format!("a matrix product: {error:?}"))
}
