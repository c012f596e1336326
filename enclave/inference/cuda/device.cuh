// What the kernels are made of: BF16, sums over warps and blocks, one tensor core instruction.
//
// The same bodies are compiled twice: by nvcc for GPUs, and by a C++ compiler over `emulate/device.h`, which runs the
// threads of a block as fibers. So no header of CUDA is included, and nothing is used that is not defined here.
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;

#ifdef COCOON_EMULATE
#include "emulate/device.h"
#else
#define SHARED __shared__
// Fragments are in registers only if their indices are known when compiling.
#define UNROLL _Pragma("unroll")
// The block's dynamic shared memory, in bytes given at launch.
extern __shared__ __align__(16) unsigned char dynamic_shared[];
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(dynamic_shared)
#endif

#define KERNEL extern "C" __global__ void

static constexpr u32 WARP = 32;
static constexpr u32 ALL = 0xffffffffu;
// Keys and values are kept in blocks of this many tokens: [block][kv head][16][head dim].
static constexpr u32 BLOCK = 16;
// A score that no token has: finite, so that differences of two are not NaN.
static constexpr float NONE = -1e30f;

// The upper half of an f32.
struct bf16 {
    u16 bits;
};

__device__ inline float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// Rounds to the nearest, ties to even. A NaN stays one.
__device__ inline bf16 to_bf16(float x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{(u16)((bits >> 16) | 0x40)};
    return bf16{(u16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
}

// Moved as one: 16 bytes.
struct alignas(16) Eight {
    u32 words[4];
};

__device__ inline u32 pack(bf16 low, bf16 high) { return (u32)low.bits | ((u32)high.bits << 16); }
__device__ inline u32 pack(float low, float high) { return pack(to_bf16(low), to_bf16(high)); }

__device__ inline bool is_finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

__device__ inline float warp_sum(float x) {
    for (u32 step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL, x, step);
    return x;
}

__device__ inline float warp_max(float x) {
    for (u32 step = WARP / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, step));
    return x;
}

// The sum over all threads of the block, for each of them. `scratch` has one place per warp.
__device__ inline float block_sum(float x, float *scratch) {
    x = warp_sum(x);
    __syncthreads(); // scratch may still be read from the last time
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0;
    for (u32 warp = 0; warp < blockDim.x / WARP; warp++) sum += scratch[warp];
    return sum;
}

// d += a * b for a warp: a is 16 x 16, b is 16 x 8, d is 16 x 8. Which element is where: PTX ISA, "Matrix fragments for
// mma.m16n8k16". With g = lane / 4 and t = 2 * (lane % 4): a[0] has (g, t) and (g, t + 1), a[1] the same of row g + 8, a[2] and
// a[3] these with t + 8; b[0] has (t, g) and (t + 1, g), b[1] these with t + 8; d has (g, t), (g, t + 1) and the same of g + 8.
#ifndef COCOON_EMULATE
__device__ inline void mma(float d[4], const u32 a[4], const u32 b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
