// Kernels over rows of activations.
#pragma once
#include "device.cuh"

// out = x / rms(x) * (offset + weight), in place if out is x. Grid: rows of `stride` values, groups of `width` values in a row from
// `start` (1, or heads). `offset` is 1 for Gemma, which keeps weights less 1.
KERNEL rms_norm(bf16 *out, const bf16 *x, const bf16 *weight, u32 width, u32 stride, u32 start, float eps,
                float offset) {
    SHARED float scratch[WARP];
    size_t first = (size_t)blockIdx.x * stride + start + blockIdx.y * width;
    float squares = 0;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) squares += to_float(x[first + i]) * to_float(x[first + i]);
    float scale = 1.0f / sqrtf(block_sum(squares, scratch) / (float)width + eps);
    for (u32 i = threadIdx.x; i < width; i += blockDim.x)
        out[first + i] = to_bf16(to_float(x[first + i]) * scale * (offset + to_float(weight[i])));
}

// residual += x, rounded; out = the norm of it. Grid: rows.
KERNEL add_rms_norm(bf16 *out, bf16 *residual, const bf16 *x, const bf16 *weight, u32 width, float eps, float offset) {
    SHARED float scratch[WARP];
    size_t start = (size_t)blockIdx.x * width;
    float squares = 0;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        bf16 sum = to_bf16(to_float(residual[start + i]) + to_float(x[start + i]));
        residual[start + i] = sum;
        squares += to_float(sum) * to_float(sum);
    }
    float scale = 1.0f / sqrtf(block_sum(squares, scratch) / (float)width + eps);
    // Each thread reads what it wrote itself.
    for (u32 i = threadIdx.x; i < width; i += blockDim.x)
        out[start + i] = to_bf16(to_float(residual[start + i]) * scale * (offset + to_float(weight[i])));
}

// x += y. Grid: enough for `n` values.
KERNEL add(bf16 *x, const bf16 *y, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = to_bf16(to_float(x[i]) + to_float(y[i]));
}

// x += bias in each row. Grid: enough for `n` values.
KERNEL add_bias(bf16 *x, const bf16 *bias, u32 width, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = to_bf16(to_float(x[i]) + to_float(bias[i % width]));
}

// out = silu(gate) * up; a row of `gate_up` is gate and then up. Grid: enough for `n` values of out.
KERNEL silu_mul(bf16 *out, const bf16 *gate_up, u32 width, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const bf16 *row = gate_up + (size_t)(i / width) * 2 * width + i % width;
    float gate = to_float(row[0]);
    out[i] = to_bf16(gate / (1.0f + expf(-gate)) * to_float(row[width]));
}

// The same with gelu in its tanh form.
KERNEL gelu_mul(bf16 *out, const bf16 *gate_up, u32 width, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const bf16 *row = gate_up + (size_t)(i / width) * 2 * width + i % width;
    float gate = to_float(row[0]);
    float inner = 0.7978845608f * (gate + 0.044715f * gate * gate * gate);
    out[i] = to_bf16(0.5f * gate * (1.0f + tanhf(inner)) * to_float(row[width]));
}

// A row of the table for each token, times `scale`; zeros for an id outside of the table. Grid: tokens.
KERNEL embed(bf16 *out, const bf16 *table, const u32 *tokens, u32 width, u32 vocabulary, float scale) {
    u32 token = tokens[blockIdx.x];
    bf16 *to = out + (size_t)blockIdx.x * width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x)
        to[i] = token < vocabulary ? to_bf16(to_float(table[(size_t)token * width + i]) * scale) : bf16{0};
}

// Row `rows[i]` of x as row i of out; zeros for a row that x has not. Grid: rows of out.
KERNEL gather_rows(bf16 *out, const bf16 *x, const u32 *rows, u32 width, u32 height) {
    u32 row = rows[blockIdx.x];
    bf16 *to = out + (size_t)blockIdx.x * width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x)
        to[i] = row < height ? x[(size_t)row * width + i] : bf16{0};
}

// x = cap * tanh(x / cap). Grid: enough for `n` values.
KERNEL softcap(float *x, float cap, u32 n) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = cap * tanhf(x[i] / cap);
}

// Turns queries and keys by their positions, in place, and writes keys and values to the cache. A row of `qkv` is query heads, key
// heads, value heads. `turns` has the cosine and then the sine of each pair, for each position. Pairs are (i, i + rotary / 2), or
// (2i, 2i + 1) if `interleaved`. A slot outside of the cache is not written. Grid: tokens, all heads.
KERNEL rope_kv(bf16 *qkv, bf16 *keys, bf16 *values, const float *turns, const u32 *positions, const u32 *slots,
               u32 query_heads, u32 kv_heads, u32 head_dim, u32 rotary, u32 interleaved, u32 context, u32 blocks) {
    u32 token = blockIdx.x, head = blockIdx.y, heads = query_heads + 2 * kv_heads;
    bf16 *x = qkv + ((size_t)token * heads + head) * head_dim;
    u32 position = positions[token], slot = slots[token];
    if (head < query_heads + kv_heads && position < context) {
        const float *turn = turns + (size_t)position * rotary;
        for (u32 pair = threadIdx.x; pair < rotary / 2; pair += blockDim.x) {
            u32 first = interleaved ? 2 * pair : pair;
            u32 second = interleaved ? 2 * pair + 1 : pair + rotary / 2;
            float a = to_float(x[first]), b = to_float(x[second]);
            float cosine = turn[2 * pair], sine = turn[2 * pair + 1];
            x[first] = to_bf16(a * cosine - b * sine);
            x[second] = to_bf16(b * cosine + a * sine);
        }
    }
    __syncthreads();
    if (head < query_heads || slot / BLOCK >= blocks) return;
    bool is_key = head < query_heads + kv_heads;
    u32 kv_head = is_key ? head - query_heads : head - query_heads - kv_heads;
    size_t at = (((size_t)(slot / BLOCK) * kv_heads + kv_head) * BLOCK + slot % BLOCK) * head_dim;
    bf16 *cache = (is_key ? keys : values) + at;
    for (u32 i = threadIdx.x; i < head_dim; i += blockDim.x) cache[i] = x[i];
}
