// A GPU for the eyes of the kernels: the threads of a block are fibers of one thread, which change only at barriers.
//
// What it shows: indices, shapes, barriers (a schedule in another order must give the same), the layout of fragments as the PTX ISA
// documents it. What it cannot show: what ptxas makes of it, and speed.
#pragma once
#include <math.h>
#include <stddef.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define SHARED static
#define UNROLL
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(emulated.shared)

struct Dim {
    u32 x, y, z;
};

struct Emulated {
    Dim thread, block, grid, block_dim;
    u32 *shared;
    u32 running; // index of the fiber
    u32 lanes[2][1024];
    u32 round[1024]; // exchanges that a thread took part in
    ucontext_t scheduler, fibers[1024];
};
extern Emulated emulated;

#define threadIdx (emulated.thread)
#define blockIdx (emulated.block)
#define gridDim (emulated.grid)
#define blockDim (emulated.block_dim)

// Waits until all threads of the block, or of the warp, are here.
void emulated_barrier(bool of_warp);

inline void __syncthreads() { emulated_barrier(false); }

inline float __uint_as_float(u32 bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline u32 __float_as_uint(float x) {
    u32 bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

// Shows `bits` to the other threads of the warp, and gives what each of them shows. Valid until the exchange after the next.
inline const u32 *emulated_exchange(u32 bits) {
    u32 me = emulated.running, *lanes = emulated.lanes[emulated.round[me]++ % 2];
    lanes[me] = bits;
    emulated_barrier(true);
    return lanes + me / 32 * 32;
}

inline u32 __shfl_xor_sync(u32, u32 bits, u32 step) {
    u32 lane = emulated.running % 32;
    return emulated_exchange(bits)[lane ^ step];
}
inline float __shfl_xor_sync(u32, float x, u32 step) {
    return __uint_as_float(__shfl_xor_sync(0, __float_as_uint(x), step));
}

// See device.cuh. Collects the matrices from the fragments of the warp and multiplies them.
inline void mma(float d[4], const u32 a[4], const u32 b[2]) {
    u32 lane = emulated.running % 32, g = lane / 4, t = 2 * (lane % 4);
    float left[16][16], right[16][8];
    auto part = [](u32 pair, u32 half) { return __uint_as_float((pair >> (16 * half)) << 16); };
    for (u32 i = 0; i < 4; i++) {
        const u32 *lanes = emulated_exchange(a[i]);
        for (u32 l = 0; l < 32; l++)
            for (u32 half = 0; half < 2; half++)
                left[l / 4 + 8 * (i % 2)][2 * (l % 4) + 8 * (i / 2) + half] = part(lanes[l], half);
    }
    for (u32 i = 0; i < 2; i++) {
        const u32 *lanes = emulated_exchange(b[i]);
        for (u32 l = 0; l < 32; l++)
            for (u32 half = 0; half < 2; half++) right[2 * (l % 4) + 8 * i + half][l / 4] = part(lanes[l], half);
    }
    for (u32 i = 0; i < 4; i++) {
        u32 row = g + 8 * (i / 2), column = t + i % 2;
        for (u32 k = 0; k < 16; k++) d[i] += left[row][k] * right[k][column];
    }
}
