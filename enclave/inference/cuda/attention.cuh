// Attention over keys and values in blocks of 16 tokens that belong to a sequence by its row of `tables`.
//
// Softmax is computed online: with each block, what was summed is scaled by how much the maximum rose. A block that
// the table names and the cache has not is left out, so that no table can lead outside of the cache. `window` is how many tokens a query
// sees, itself included; 0: all. `cap` is the soft cap of scores; 0: none.
#pragma once
#include "device.cuh"

__device__ inline float capped(float score, float cap) { return cap > 0 ? cap * tanhf(score / cap) : score; }

// One query token for each sequence: partial results of `split` tokens of context. Grid: splits, kv heads, sequences; 128 threads.
// Shared: group * (2 * head_dim + BLOCK + 3) floats. A partial result is head_dim sums, the maximum, and the sum of weights.
KERNEL attention_decode(float *partial, const bf16 *q, const bf16 *keys, const bf16 *values, const u32 *tables,
                        const u32 *lengths, u32 kv_heads, u32 group, u32 head_dim, u32 q_stride, u32 table_len,
                        u32 blocks, u32 split, float scale, float cap, u32 window) {
    DYNAMIC_SHARED(float, shared);
    float *query = shared;                   // [group][head_dim]
    float *sums = query + group * head_dim;  // [group][head_dim]
    float *weights = sums + group * head_dim; // [group][BLOCK]
    float *maxima = weights + group * BLOCK, *totals = maxima + group, *factors = totals + group; // [group]
    u32 kv_head = blockIdx.y, sequence = blockIdx.z, length = lengths[sequence];
    u32 first_seen = window > 0 && length > window ? length - window : 0;
    u32 begin = blockIdx.x * split, end = begin + split < length ? begin + split : length;

    const bf16 *q_row = q + (size_t)sequence * q_stride + (size_t)kv_head * group * head_dim;
    for (u32 i = threadIdx.x; i < group * head_dim; i += blockDim.x) {
        query[i] = to_float(q_row[i]);
        sums[i] = 0;
    }
    if (threadIdx.x < group) {
        maxima[threadIdx.x] = NONE;
        totals[threadIdx.x] = 0;
    }
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (u32 start = begin; start < end; start += BLOCK) {
        u32 at = start / BLOCK, block = at < table_len ? tables[(size_t)sequence * table_len + at] : blocks;
        if (block >= blocks || start + BLOCK <= first_seen) continue; // the same for all threads
        size_t tile = ((size_t)block * kv_heads + kv_head) * BLOCK * head_dim;
        __syncthreads(); // query is there; weights of the last block were used
        for (u32 token = warp; token < BLOCK; token += blockDim.x / WARP) {
            bool seen = start + token < end && start + token >= first_seen;
            for (u32 head = 0; head < group; head++) {
                float dot = 0;
                for (u32 i = lane; seen && i < head_dim; i += WARP)
                    dot += query[head * head_dim + i] * to_float(keys[tile + token * head_dim + i]);
                dot = warp_sum(dot);
                if (lane == 0) weights[head * BLOCK + token] = seen ? capped(dot * scale, cap) : NONE;
            }
        }
        __syncthreads();
        if (threadIdx.x < group) {
            float *mine = weights + threadIdx.x * BLOCK, max = maxima[threadIdx.x], total = 0;
            for (u32 token = 0; token < BLOCK; token++) max = fmaxf(max, mine[token]);
            for (u32 token = 0; token < BLOCK; token++) {
                mine[token] = mine[token] > NONE ? expf(mine[token] - max) : 0;
                total += mine[token];
            }
            factors[threadIdx.x] = expf(maxima[threadIdx.x] - max);
            totals[threadIdx.x] = totals[threadIdx.x] * factors[threadIdx.x] + total;
            maxima[threadIdx.x] = max;
        }
        __syncthreads();
        u32 tokens = end - start < BLOCK ? end - start : BLOCK; // behind the end the cache may hold anything
        for (u32 i = threadIdx.x; i < head_dim; i += blockDim.x) {
            for (u32 head = 0; head < group; head++) {
                float sum = sums[head * head_dim + i] * factors[head];
                for (u32 token = 0; token < tokens; token++) {
                    float weight = weights[head * BLOCK + token];
                    if (weight > 0) sum += weight * to_float(values[tile + token * head_dim + i]);
                }
                sums[head * head_dim + i] = sum;
            }
        }
    }
    __syncthreads();
    size_t heads = (size_t)kv_heads * group;
    for (u32 i = threadIdx.x; i < group * (head_dim + 2); i += blockDim.x) {
        u32 head = i / (head_dim + 2), column = i % (head_dim + 2);
        float value = column < head_dim    ? sums[head * head_dim + column]
                      : column == head_dim ? maxima[head]
                                           : totals[head];
        size_t row = ((size_t)sequence * heads + kv_head * group + head) * gridDim.x + blockIdx.x;
        partial[row * (head_dim + 2) + column] = value;
    }
}

// Puts the partial results of a head together. Grid: heads, sequences; one thread per value or fewer.
KERNEL attention_combine(bf16 *out, const float *partial, u32 head_dim, u32 splits) {
    const float *rows = partial + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * splits * (head_dim + 2);
    float max = NONE, total = 0;
    for (u32 split = 0; split < splits; split++) max = fmaxf(max, rows[split * (head_dim + 2) + head_dim]);
    for (u32 split = 0; split < splits; split++) {
        const float *row = rows + split * (head_dim + 2);
        total += row[head_dim + 1] * expf(row[head_dim] - max);
    }
    bf16 *to = out + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * head_dim;
    for (u32 i = threadIdx.x; i < head_dim; i += blockDim.x) {
        float sum = 0;
        for (u32 split = 0; split < splits; split++) {
            const float *row = rows + split * (head_dim + 2);
            sum += row[i] * expf(row[head_dim] - max);
        }
        to[i] = total > 0 ? to_bf16(sum / total) : bf16{0};
    }
}

// Rows of one tile: 16 for each of 4 warps.
static constexpr u32 TILE = 64;

// Query tokens of many sequences, in tiles of up to 64 that follow each other in one sequence. `tiles` has for each: its sequence, its
// first row in q and out, how many rows, and the position of the first. Keys and values of these tokens are in the cache already; each token
// sees itself and what is before it. Grid: tiles, query heads; 128 threads. Shared: 2 * BLOCK * (D + 8) BF16.
template <u32 D>
__device__ void attention_prefill(bf16 *out, const bf16 *q, const bf16 *keys, const bf16 *values, const u32 *tables,
                                  const u32 *tiles, u32 kv_heads, u32 group, u32 q_stride, u32 table_len, u32 blocks,
                                  float scale, float cap, u32 window) {
    constexpr u32 STRIDE = D + 8; // rows begin in different banks
    DYNAMIC_SHARED(bf16, shared);
    bf16 *key = shared, *value = shared + BLOCK * STRIDE;
    const u32 *tile = tiles + 4 * blockIdx.x;
    u32 sequence = tile[0], first_row = tile[1], rows = tile[2] < TILE ? tile[2] : TILE, position = tile[3];
    if (rows == 0) return;
    u32 head = blockIdx.y, heads = kv_heads * group, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 g = lane / 4, t = 2 * (lane % 4);

    // Rows of this thread's fragments, and the queries in them; rows behind the end are read as the last.
    u32 row[2] = {16 * warp + g, 16 * warp + g + 8};
    u32 queries[D / 16][4];
    UNROLL
    for (u32 half = 0; half < 2; half++) {
        u32 at = row[half] < rows ? row[half] : rows - 1;
        const bf16 *from = q + (size_t)(first_row + at) * q_stride + head * D;
        UNROLL
        for (u32 k = 0; k < D / 16; k++) {
            queries[k][half] = pack(from[16 * k + t], from[16 * k + t + 1]);
            queries[k][half + 2] = pack(from[16 * k + t + 8], from[16 * k + t + 9]);
        }
    }
    float sums[D / 8][4] = {}, max[2] = {NONE, NONE}, total[2] = {0, 0};
    u32 last = position + rows - 1;
    u32 start = window > 0 && position + 1 > window ? (position + 1 - window) / BLOCK * BLOCK : 0;
    for (; start <= last; start += BLOCK) {
        u32 at = start / BLOCK, block = at < table_len ? tables[(size_t)sequence * table_len + at] : blocks;
        if (block >= blocks) continue; // the same for all threads
        size_t from = ((size_t)block * kv_heads + head / group) * BLOCK * D;
        __syncthreads();
        for (u32 i = threadIdx.x; i < BLOCK * D; i += blockDim.x) {
            u32 to = i / D * STRIDE + i % D;
            bool there = start + i / D <= last; // behind it the cache may hold anything
            key[to] = there ? keys[from + i] : bf16{0};
            value[to] = there ? values[from + i] : bf16{0};
        }
        __syncthreads();

        // Scores of 16 queries and 16 keys: two fragments of 8 keys.
        float scores[2][4] = {};
        UNROLL
        for (u32 n = 0; n < 2; n++) {
            const bf16 *of = key + (8 * n + g) * STRIDE + t;
            UNROLL
            for (u32 k = 0; k < D / 16; k++) {
                u32 b[2] = {pack(of[16 * k], of[16 * k + 1]), pack(of[16 * k + 8], of[16 * k + 9])};
                mma(scores[n], queries[k], b);
            }
        }
        float factor[2];
        UNROLL
        for (u32 half = 0; half < 2; half++) {
            u32 me = position + row[half];
            float most = max[half];
            UNROLL
            for (u32 n = 0; n < 2; n++) {
                UNROLL
                for (u32 c = 0; c < 2; c++) {
                    u32 token = start + 8 * n + t + c;
                    bool seen = row[half] < rows && token <= me && (window == 0 || token + window > me);
                    float *score = &scores[n][2 * half + c];
                    *score = seen ? capped(*score * scale, cap) : NONE;
                    most = fmaxf(most, *score);
                }
            }
            most = fmaxf(most, __shfl_xor_sync(ALL, most, 1)); // four threads share a row
            most = fmaxf(most, __shfl_xor_sync(ALL, most, 2));
            factor[half] = expf(max[half] - most);
            max[half] = most;
            float sum = 0;
            UNROLL
            for (u32 n = 0; n < 2; n++) {
                UNROLL
                for (u32 c = 0; c < 2; c++) {
                    float *score = &scores[n][2 * half + c];
                    *score = *score > NONE ? expf(*score - most) : 0;
                    sum += *score;
                }
            }
            total[half] = total[half] * factor[half] + sum;
        }
        // Weights as the left operand: 16 queries, 16 tokens.
        u32 weights[4] = {pack(scores[0][0], scores[0][1]), pack(scores[0][2], scores[0][3]),
                          pack(scores[1][0], scores[1][1]), pack(scores[1][2], scores[1][3])};
        UNROLL
        for (u32 n = 0; n < D / 8; n++) {
            UNROLL
            for (u32 c = 0; c < 4; c++) sums[n][c] *= factor[c / 2];
            const bf16 *of = value + t * STRIDE + 8 * n + g;
            u32 b[2] = {pack(of[0], of[STRIDE]), pack(of[8 * STRIDE], of[9 * STRIDE])};
            mma(sums[n], weights, b);
        }
    }
    UNROLL
    for (u32 half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(ALL, total[half], 1);
        total[half] += __shfl_xor_sync(ALL, total[half], 2);
        if (row[half] >= rows) continue;
        bf16 *to = out + ((size_t)(first_row + row[half]) * heads + head) * D;
        float inverse = total[half] > 0 ? 1.0f / total[half] : 0;
        UNROLL
        for (u32 n = 0; n < D / 8; n++) {
            UNROLL
            for (u32 c = 0; c < 2; c++) to[8 * n + t + c] = to_bf16(sums[n][2 * half + c] * inverse);
        }
    }
}

#define PREFILL(D)                                                                                                 \
    KERNEL attention_prefill_##D(bf16 *out, const bf16 *q, const bf16 *keys, const bf16 *values, const u32 *tables, \
                                 const u32 *tiles, u32 kv_heads, u32 group, u32 q_stride, u32 table_len, u32 blocks, \
                                 float scale, float cap, u32 window) {                                              \
        attention_prefill<D>(out, q, keys, values, tables, tiles, kv_heads, group, q_stride, table_len, blocks,     \
                             scale, cap, window);                                                                   \
    }

PREFILL(64)
PREFILL(96)
PREFILL(128)
PREFILL(256)
