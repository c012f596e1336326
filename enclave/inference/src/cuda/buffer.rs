//! Memory of the GPU.

use super::launch::{Kind, Parameter};
use crate::error::Error;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DeviceRepr, DriverError, ValidAsZeroBits};
use std::marker::PhantomData;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// What a buffer may hold.
pub(crate) trait Element: DeviceRepr + ValidAsZeroBits {
    const KIND: Kind;
}

impl Element for half::bf16 {
    const KIND: Kind = Kind::Half;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
}

impl Element for u32 {
    const KIND: Kind = Kind::Word;
}

/// Values on the GPU. Wiped when dropped, behind everything that was asked of them before.
pub(crate) struct Buffer<T: Element> {
    slice: CudaSlice<T>,
}

impl<T: Element> Buffer<T> {
    pub(super) fn zeros(stream: &Arc<CudaStream>, len: usize) -> Result<Self, Error> {
        Ok(Self { slice: stream.alloc_zeros(len).map_err(failed)? })
    }

    pub(super) fn from_slice(stream: &Arc<CudaStream>, values: &[T]) -> Result<Self, Error> {
        Ok(Self { slice: stream.clone_htod(values).map_err(failed)? })
    }

    /// How many values.
    pub(crate) fn len(&self) -> usize {
        self.slice.len()
    }

    /// Replaces all values.
    pub(crate) fn write(&mut self, values: &[T]) -> Result<(), Error> {
        if values.len() != self.len() {
            return Err(Error::Compute(
                "a buffer of the GPU has another size than its new values".to_owned(),
            ));
        }
        let stream = Arc::clone(self.slice.stream());
        stream.memcpy_htod(values, &mut self.slice).map_err(failed)
    }

    /// The values, once everything is done that was asked for before.
    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<T>>, Error>
    where
        T: Zeroize,
    {
        self.insecure_read().map(Zeroizing::new)
    }

    /// The same, as values that nobody wipes.
    pub(super) fn insecure_read(&self) -> Result<Vec<T>, Error> {
        let stream = self.slice.stream();
        let values = stream.clone_dtoh(&self.slice).map_err(failed)?;
        stream.synchronize().map_err(failed)?;
        Ok(values)
    }

    /// For a kernel that only reads it.
    pub(crate) fn shared(&self) -> Pointer<'_> {
        self.pointer(false)
    }

    /// For a kernel that writes it.
    pub(crate) fn exclusive(&mut self) -> Pointer<'_> {
        self.pointer(true)
    }

    fn pointer(&self, is_written: bool) -> Pointer<'_> {
        let (address, _nothing_to_track) = self.slice.device_ptr(self.slice.stream());
        let parameter = Parameter { kind: T::KIND, is_written };
        Pointer { address, len: self.len(), parameter, buffer: PhantomData }
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        let stream = Arc::clone(self.slice.stream());
        let _wiped = stream.memset_zeros(&mut self.slice); // if that fails the GPU is gone
    }
}

/// A buffer as an argument. While it is there, nobody else writes the buffer, or uses it at all if a kernel writes it.
pub(crate) struct Pointer<'a> {
    pub(super) address: u64,
    pub(super) len: usize,
    pub(super) parameter: Parameter,
    buffer: PhantomData<&'a ()>,
}

impl Pointer<'_> {
    /// Output and input of a kernel of which each thread reads a value before it writes it, and no other thread reads it later.
    pub(super) fn in_place(self) -> [Self; 2] {
        let parameter = Parameter { is_written: false, ..self.parameter };
        let input = Self { parameter, ..self };
        [self, input]
    }
}

/// Whatever fails on a GPU, from memory that runs out to an Xid, is one kind of error.
pub(super) fn failed(error: DriverError) -> Error {
    let is_full = error.0 == cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    Error::Gpu(if is_full { "its memory is full".to_owned() } else { format!("{error:?}") })
}
