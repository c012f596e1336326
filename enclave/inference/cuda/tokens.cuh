// From scores to tokens, without the host.
#pragma once
#include "device.cuh"

struct Best {
    float score;
    u32 id;
};

// The higher score; of equal ones the lower id.
__device__ inline bool is_better(Best a, Best b) { return a.score > b.score || (a.score == b.score && a.id < b.id); }

// The best over the block, for each thread. `scratch` has one place per warp.
__device__ inline Best block_best(Best mine, Best *scratch) {
    for (u32 step = WARP / 2; step > 0; step /= 2) {
        Best other;
        other.score = __shfl_xor_sync(ALL, mine.score, step);
        other.id = __shfl_xor_sync(ALL, mine.id, step);
        if (is_better(other, mine)) mine = other;
    }
    __syncthreads(); // scratch may still be read from the last time
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = mine;
    __syncthreads();
    Best best = scratch[0];
    for (u32 warp = 1; warp < blockDim.x / WARP; warp++)
        if (is_better(scratch[warp], best)) best = scratch[warp];
    return best;
}

// The `k` best tokens of each row, best first, and their scores; what is no finite number is never among them. Places that no
// token takes have the id ALL. Grid: rows.
KERNEL top_k(float *scores, u32 *ids, const float *logits, u32 vocabulary, u32 k) {
    SHARED Best scratch[WARP];
    const float *row = logits + (size_t)blockIdx.x * vocabulary;
    Best last = {INFINITY, 0};
    for (u32 place = 0; place < k; place++) {
        Best mine = {-INFINITY, ALL};
        for (u32 id = threadIdx.x; id < vocabulary; id += blockDim.x) {
            Best candidate = {row[id], id};
            if (is_finite(candidate.score) && is_better(last, candidate) && is_better(candidate, mine)) mine = candidate;
        }
        last = block_best(mine, scratch);
        if (threadIdx.x == 0) {
            scores[(size_t)blockIdx.x * k + place] = last.score;
            ids[(size_t)blockIdx.x * k + place] = last.id;
        }
    }
}

// The best token of each row, as input of the next step. Grid: rows.
KERNEL argmax(u32 *tokens, const float *logits, u32 vocabulary) {
    SHARED Best scratch[WARP];
    const float *row = logits + (size_t)blockIdx.x * vocabulary;
    Best mine = {-INFINITY, ALL};
    for (u32 id = threadIdx.x; id < vocabulary; id += blockDim.x) {
        Best candidate = {row[id], id};
        if (is_finite(candidate.score) && is_better(candidate, mine)) mine = candidate;
    }
    Best best = block_best(mine, scratch);
    if (threadIdx.x == 0) tokens[blockIdx.x] = best.id;
}

// Moves every sequence on by one token: its position, its length, and the slot of the cache that the token gets; a slot
// outside of the cache if its table ends. Grid: enough for `n` sequences.
KERNEL advance(u32 *positions, u32 *lengths, u32 *slots, const u32 *tables, u32 table_len, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u32 position = positions[i] + 1, at = position / BLOCK;
    positions[i] = position;
    lengths[i] = position + 1;
    u32 block = at < table_len ? tables[(size_t)i * table_len + at] : ALL;
    slots[i] = block < ALL / BLOCK ? block * BLOCK + position % BLOCK : ALL;
}

// Overwrites blocks of the cache, of `block_len` values each, with zeros. An id outside of the cache is left out. Grid: ids.
KERNEL wipe_blocks(bf16 *cache, const u32 *ids, u32 block_len, u32 blocks) {
    u32 id = ids[blockIdx.x];
    if (id >= blocks) return;
    for (u32 i = threadIdx.x; i < block_len; i += blockDim.x) cache[(size_t)id * block_len + i] = bf16{0};
}
