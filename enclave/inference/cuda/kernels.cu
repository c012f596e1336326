// All kernels of the CUDA device, in one module. Built by scripts/cuda-kernels.
#include "attention.cuh"
#include "rows.cuh"
#include "tokens.cuh"
