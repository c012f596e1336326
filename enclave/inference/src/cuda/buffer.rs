//! Memory of the GPU.

use super::device::Transfer;
use super::launch::{Kind, Parameter};
use crate::error::Error;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DeviceRepr, DriverError, ValidAsZeroBits};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// What a buffer may hold.
pub(crate) trait Element:
    DeviceRepr + ValidAsZeroBits + Copy + Default + Send + Sync + 'static
{
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

/// Wiped when nobody has it any more, behind everything that was asked of it before.
struct Memory<T: Element>(CudaSlice<T>);

impl<T: Element> Drop for Memory<T> {
    fn drop(&mut self) {
        let stream = Arc::clone(self.0.stream());
        let _wiped = stream.memset_zeros(&mut self.0); // if that fails the GPU is gone
    }
}

/// Values on the GPU, or some of those of another buffer.
pub(crate) struct Buffer<T: Element> {
    memory: Arc<Memory<T>>,
    start: usize,
    len: usize,
}

impl<T: Element> Buffer<T> {
    pub(super) fn zeros(stream: &Arc<CudaStream>, len: usize) -> Result<Self, Error> {
        let slice = stream.alloc_zeros(len.max(1)).map_err(failed)?; // nothing cannot be allocated
        Ok(Self { memory: Arc::new(Memory(slice)), start: 0, len })
    }

    /// How many values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Some of the values, in the same memory.
    pub(crate) fn part(&self, start: usize, len: usize) -> Result<Self, Error> {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Error::Compute("a buffer of the GPU has no such part".to_owned()));
        }
        Ok(Self { memory: Arc::clone(&self.memory), start: self.start + start, len })
    }

    /// Replaces all values.
    pub(crate) fn write(&mut self, values: &[T]) -> Result<(), Error> {
        self.transfer().write(&self.exclusive(), values)
    }

    /// Replaces all values by those of another buffer.
    pub(crate) fn copy(&mut self, from: &Self) -> Result<(), Error> {
        self.transfer().copy(&self.exclusive(), &from.shared(), size_of::<T>())
    }

    /// Replaces all values by zeros.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        self.transfer().clear(&self.exclusive(), size_of::<T>())
    }

    /// The values, once everything is done that was asked for before.
    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<T>>, Error>
    where
        T: Zeroize,
    {
        let mut values = Zeroizing::new(vec![T::default(); self.len]);
        self.read_into(&mut values)?;
        Ok(values)
    }

    pub(super) fn read_into(&self, values: &mut [T]) -> Result<(), Error> {
        self.transfer().read(&self.shared(), values)
    }

    fn transfer(&self) -> Transfer {
        Transfer(Arc::clone(self.memory.0.stream()))
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
        let (address, _nothing_to_track) = self.memory.0.device_ptr(self.memory.0.stream());
        let address = address + (self.start * size_of::<T>()) as u64;
        let parameter = Parameter { kind: T::KIND, is_written };
        let memory = Arc::clone(&self.memory);
        Pointer { address, len: self.len, parameter, memory, buffer: PhantomData }
    }
}

/// A buffer as an argument.
pub(crate) struct Pointer<'a> {
    pub(super) address: u64,
    pub(super) len: usize,
    pub(super) parameter: Parameter,
    /// For what is recorded: it stays as long as it may be repeated.
    pub(super) memory: Arc<dyn Any + Send + Sync>,
    buffer: PhantomData<&'a ()>,
}

impl Pointer<'_> {
    /// Output and input of a kernel of which each thread reads a value before it writes it, and no other thread reads it later.
    pub(super) fn in_place(self) -> [Self; 2] {
        let parameter = Parameter { is_written: false, ..self.parameter };
        let input = Self { parameter, memory: Arc::clone(&self.memory), ..self };
        [self, input]
    }
}

/// Whatever fails on a GPU, from memory that runs out to an Xid, is one kind of error.
pub(super) fn failed(error: DriverError) -> Error {
    let is_full = error.0 == cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    Error::Gpu(if is_full {
        "its memory is full; take a smaller model or less --kv-memory".to_owned()
    } else {
        format!("{error:?}; look for an Xid in the kernel's log, and start again")
    })
}
