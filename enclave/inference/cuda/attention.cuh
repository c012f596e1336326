// Attention over keys and values in blocks of 16 tokens that belong to a sequence by its row of `tables`.
//
// Softmax is computed online: with each block, what was summed is scaled by how much the maximum rose. A block that
// the table names and the cache has not is left out, so that no table can lead outside of the cache. `window` is how many tokens a query
// sees, itself included; 0: all. `cap` is the soft cap of scores; 0: none.
#pragma once
#include "device.cuh"

__device__ inline float capped(float score, float cap) { return cap > 0 ? cap * tanhf(score / cap) : score; }

// The numbers of the cache's blocks for `chunk` tokens from `start`; `blocks` where there is none. To be followed by __syncthreads().
__device__ inline void find_blocks(u32 *ids, u32 chunk, u32 start, u32 end, const u32 *table, u32 table_len,
                                   u32 blocks) {
    if (threadIdx.x >= chunk / BLOCK) return;
    u32 at = start / BLOCK + threadIdx.x, id = at * BLOCK < end && at < table_len ? table[at] : blocks;
    ids[threadIdx.x] = id < blocks ? id : blocks;
}

// Rows of `chunk` tokens of one head into shared memory, in steps of `stride`, with as many loads at a time as threads have room
// for. Zeros from the token `tokens` on, behind which the cache may hold anything, and where there is no block.
__device__ inline void load_rows(bf16 *to, u32 stride, const bf16 *cache, const u32 *ids, u32 chunk, u32 tokens, u32 head,
                                 u32 heads, u32 dim, u32 blocks) {
    if (dim % 8 > 0) {
        for (u32 i = threadIdx.x; i < chunk * dim; i += blockDim.x) {
            u32 token = i / dim, id = ids[token / BLOCK];
            size_t from = (((size_t)id * heads + head) * BLOCK + token % BLOCK) * dim + i % dim;
            to[token * stride + i % dim] = id < blocks && token < tokens ? cache[from] : bf16{0};
        }
        return;
    }
    constexpr u32 AT_A_TIME = 4;
    u32 pieces = dim / 8, all = chunk * pieces;
    for (u32 first = threadIdx.x; first < all; first += AT_A_TIME * blockDim.x) {
        Eight loaded[AT_A_TIME];
        UNROLL
        for (u32 n = 0; n < AT_A_TIME; n++) {
            u32 i = first + n * blockDim.x, token = i / pieces, id = i < all ? ids[token / BLOCK] : blocks;
            size_t from = (((size_t)id * heads + head) * BLOCK + token % BLOCK) * dim + i % pieces * 8;
            loaded[n] = id < blocks && token < tokens ? *reinterpret_cast<const Eight *>(cache + from) : Eight{};
        }
        UNROLL
        for (u32 n = 0; n < AT_A_TIME; n++) {
            u32 i = first + n * blockDim.x;
            if (i < all) *reinterpret_cast<Eight *>(to + i / pieces * stride + i % pieces * 8) = loaded[n];
        }
    }
}

__device__ inline float dot(const float *query, const bf16 *key, u32 dim) {
    float sum = 0;
    if (dim % 8 > 0) {
        for (u32 i = 0; i < dim; i++) sum += query[i] * to_float(key[i]);
        return sum;
    }
    for (u32 i = 0; i < dim; i += 8) {
        Eight keys = *reinterpret_cast<const Eight *>(key + i);
        UNROLL
        for (u32 pair = 0; pair < 4; pair++) {
            u32 both = keys.words[pair];
            sum += query[i + 2 * pair] * __uint_as_float(both << 16);
            sum += query[i + 2 * pair + 1] * __uint_as_float(both & 0xffff0000u);
        }
    }
    return sum;
}

// One query token for each sequence: partial results of `split` tokens of context, `chunk` of which are in shared memory at a time. Grid:
// splits, kv heads, sequences; 128 threads. Shared, with rows of head_dim rounded up to 8, and 8 more: 2 * chunk rows of BF16,
// group * (2 * head_dim + chunk + 3) floats, chunk / BLOCK words. A partial result is head_dim sums, the maximum, and the sum of weights.
KERNEL attention_decode(float *partial, const bf16 *q, const bf16 *keys, const bf16 *values, const u32 *tables,
                        const u32 *lengths, u32 kv_heads, u32 group, u32 head_dim, u32 q_stride, u32 table_len,
                        u32 blocks, u32 split, float scale, float cap, u32 window, u32 chunk) {
    DYNAMIC_SHARED(bf16, shared);
    u32 stride = (head_dim + 7) / 8 * 8 + 8; // rows begin in different banks
    bf16 *key = shared, *value = key + chunk * stride;
    float *query = reinterpret_cast<float *>(value + chunk * stride); // [group][head_dim]
    float *sums = query + group * head_dim;                           // [group][head_dim]
    float *weights = sums + group * head_dim;                         // [group][chunk]
    float *maxima = weights + group * chunk, *totals = maxima + group, *factors = totals + group; // [group]
    u32 *ids = reinterpret_cast<u32 *>(factors + group);
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
    for (u32 start = begin; start < end; start += chunk) {
        if (start + chunk <= first_seen) continue; // the same for all threads
        __syncthreads();                           // what was loaded last was used
        find_blocks(ids, chunk, start, end, tables + (size_t)sequence * table_len, table_len, blocks);
        __syncthreads();
        load_rows(key, stride, keys, ids, chunk, end - start, kv_head, kv_heads, head_dim, blocks);
        load_rows(value, stride, values, ids, chunk, end - start, kv_head, kv_heads, head_dim, blocks);
        __syncthreads();
        for (u32 i = threadIdx.x; i < group * chunk; i += blockDim.x) {
            u32 head = i / chunk, token = i % chunk;
            bool seen = start + token < end && start + token >= first_seen && ids[token / BLOCK] < blocks;
            float score = seen ? dot(query + head * head_dim, key + token * stride, head_dim) : 0;
            weights[i] = seen ? capped(score * scale, cap) : NONE;
        }
        __syncthreads();
        for (u32 head = warp; head < group; head += blockDim.x / WARP) {
            float *mine = weights + head * chunk, max = NONE, total = 0;
            for (u32 token = lane; token < chunk; token += WARP) max = fmaxf(max, mine[token]);
            max = fmaxf(warp_max(max), maxima[head]);
            for (u32 token = lane; token < chunk; token += WARP) {
                mine[token] = mine[token] > NONE ? expf(mine[token] - max) : 0;
                total += mine[token];
            }
            total = warp_sum(total);
            if (lane == 0) {
                factors[head] = expf(maxima[head] - max);
                totals[head] = totals[head] * factors[head] + total;
                maxima[head] = max;
            }
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < group * head_dim; i += blockDim.x) {
            const float *mine = weights + i / head_dim * chunk;
            const bf16 *column = value + i % head_dim;
            float sum = sums[i] * factors[i / head_dim];
            for (u32 token = 0; token < chunk; token++) {
                float weight = mine[token];
                if (weight > 0) sum += weight * to_float(column[token * stride]);
            }
            sums[i] = sum;
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

// Puts the partial results of a head together. Grid: heads, sequences; 128 threads.
KERNEL attention_combine(bf16 *out, const float *partial, u32 head_dim, u32 splits) {
    SHARED float factors[128], scratch[4];
    u32 row = head_dim + 2;
    const float *rows = partial + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * splits * row;
    float max = NONE;
    for (u32 split = threadIdx.x; split < splits; split += blockDim.x) max = fmaxf(max, rows[split * row + head_dim]);
    max = warp_max(max);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = max;
    __syncthreads();
    for (u32 warp = 0; warp < blockDim.x / WARP; warp++) max = fmaxf(max, scratch[warp]);
    bf16 *to = out + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * head_dim;
    for (u32 column = threadIdx.x; column / blockDim.x * blockDim.x < head_dim; column += blockDim.x) {
        float sum = 0, total = 0;
        for (u32 base = 0; base < splits; base += blockDim.x) {
            __syncthreads(); // the factors before were used
            u32 split = base + threadIdx.x;
            float factor = split < splits ? expf(rows[split * row + head_dim] - max) : 0;
            factors[threadIdx.x] = factor;
            if (split < splits) total += factor * rows[split * row + head_dim + 1];
            __syncthreads();
            u32 here = splits - base < blockDim.x ? splits - base : blockDim.x;
            for (u32 n = 0; column < head_dim && n < here; n++) sum += factors[n] * rows[(base + n) * row + column];
        }
        total = block_sum(total, scratch);
        if (column < head_dim) to[column] = total > 0 ? to_bf16(sum / total) : bf16{0};
    }
}

// Rows of one tile: 16 for each of 4 warps.
static constexpr u32 TILE = 64;

// Query tokens of many sequences, in tiles of up to 64 that follow each other in one sequence. `tiles` has for each: its sequence, its
// first row in q and out, how many rows, and the position of the first. Keys and values of these tokens are in the cache already; each token
// sees itself and what is before it. Grid: tiles, query heads; 128 threads. Shared: 2 * CHUNK * (D + 8) BF16, CHUNK 64, or 32 for D = 256.
template <u32 D>
__device__ void attention_prefill(bf16 *out, const bf16 *q, const bf16 *keys, const bf16 *values, const u32 *tables,
                                  const u32 *tiles, u32 kv_heads, u32 group, u32 q_stride, u32 table_len, u32 blocks,
                                  float scale, float cap, u32 window) {
    constexpr u32 STRIDE = D + 8; // rows begin in different banks
    constexpr u32 CHUNK = D > 128 ? 32 : 64;
    DYNAMIC_SHARED(bf16, shared);
    SHARED u32 ids[CHUNK / BLOCK];
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
    for (u32 piece = 0; start <= last; start += BLOCK, piece = (piece + 1) % (CHUNK / BLOCK)) {
        if (piece == 0) {
            __syncthreads(); // what was loaded last was used
            find_blocks(ids, CHUNK, start, last + 1, tables + (size_t)sequence * table_len, table_len, blocks);
            __syncthreads();
            u32 kv_head = head / group, tokens = last + 1 - start;
            load_rows(shared, STRIDE, keys, ids, CHUNK, tokens, kv_head, kv_heads, D, blocks);
            load_rows(shared + CHUNK * STRIDE, STRIDE, values, ids, CHUNK, tokens, kv_head, kv_heads, D, blocks);
            __syncthreads();
        }
        // No row of this warp sees what is behind its last.
        if (ids[piece] >= blocks || start > position + 16 * warp + 15) continue;
        const bf16 *key = shared + piece * BLOCK * STRIDE, *value = key + CHUNK * STRIDE;

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
