// Runs the kernels on the CPU and compares what they write with golden files: emulate FILE..
//
// A golden file (tests/vectors/cuda) has a launch as the Rust code plans it, the buffers before it, and the buffers after it as the Rust twin
// of the kernel computes them. Format: little-endian words of 32 bits; see `enclave/inference/src/cuda/golden.rs`.
#define COCOON_EMULATE
#include "../kernels.cu"
#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

Emulated emulated;

// Threads that wait at a barrier: of the block, or of their warp.
static bool waits[1024], in_warp[1024], ended[1024];
static std::function<void()> body;

[[noreturn]] static void fail(const std::string &what) {
    fprintf(stderr, "%s\n", what.c_str());
    exit(1);
}

void emulated_barrier(bool of_warp) {
    u32 me = emulated.running;
    waits[me] = true, in_warp[me] = of_warp;
    swapcontext(&emulated.fibers[me], &emulated.scheduler);
}

static void fiber() {
    body();
    ended[emulated.running] = true;
    swapcontext(&emulated.fibers[emulated.running], &emulated.scheduler);
}

// Lets threads from `from` to `to` go if all of them are at a barrier that is for them.
static void open_barrier(u32 from, u32 to, bool of_warp) {
    u32 waiting = 0, gone = 0;
    for (u32 i = from; i < to; i++) {
        waiting += waits[i] && in_warp[i] == of_warp;
        gone += ended[i];
    }
    if (waiting == 0 || waiting + gone != to - from) return;
    if (gone > 0) fail("a barrier that not all threads reach");
    for (u32 i = from; i < to; i++) waits[i] = false;
}

// Lets a thread run to its next barrier; false if it cannot.
static bool step(u32 i) {
    if (waits[i] || ended[i]) return false;
    emulated.running = i, emulated.thread = {i, 0, 0};
    swapcontext(&emulated.scheduler, &emulated.fibers[i]);
    return true;
}

// One block; `order` is in which order threads get their turns. Either all go on together, from barrier to barrier of any kind, or each
// warp goes as far ahead of the others as barriers of the block let it.
static void run_block(u32 threads, const std::vector<u32> &order, bool ahead) {
    static const size_t STACK = 64 << 10;
    static std::vector<char> stacks(1024 * STACK);
    for (u32 i = 0; i < threads; i++) {
        waits[i] = ended[i] = false, emulated.round[i] = 0;
        getcontext(&emulated.fibers[i]);
        emulated.fibers[i].uc_stack.ss_sp = &stacks[i * STACK];
        emulated.fibers[i].uc_stack.ss_size = STACK;
        makecontext(&emulated.fibers[i], fiber, 0);
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (u32 at = 0; at < threads; at += 32) {
            for (bool warp_moved = true; warp_moved;) {
                warp_moved = false;
                for (u32 i = at; i < at + 32; i++) warp_moved |= step(order[i]);
                moved |= warp_moved;
                if (!ahead) break;
                for (u32 warp = 0; warp < threads; warp += 32) open_barrier(warp, warp + 32, true);
            }
        }
        for (u32 warp = 0; warp < threads; warp += 32) open_barrier(warp, warp + 32, true);
        open_barrier(0, threads, false);
    }
    for (u32 i = 0; i < threads; i++)
        if (!ended[i]) fail("threads wait for each other");
}

enum Kind { BF16, F32, U32 };
static const u32 GUARD = 64; // bytes around each buffer: not numbers, and nobody may change them

struct Buffer {
    Kind kind;
    u32 len;
    bool is_compared;
    std::vector<unsigned char> before, memory;
    std::vector<u32> after;

    void reset() {
        memory.assign(before.size() + 2 * GUARD, 0xff);
        std::copy(before.begin(), before.end(), memory.begin() + GUARD);
    }
    void *data() { return memory.data() + GUARD; }
};

struct Arg {
    u32 kind, value; // 0: buffer, 1: word, 2: float
};

struct Case {
    std::string kernel;
    u32 grid[3], threads, shared, tolerance;
    std::vector<Arg> args;
    std::vector<Buffer> buffers;
};

template <typename T> struct Take;
template <typename T> struct Take<T *> {
    static T *from(Case &c, const Arg &arg) {
        if (arg.kind != 0) fail("not a buffer");
        Kind wanted = sizeof(T) == 2 ? BF16 : std::is_same<std::remove_const_t<T>, float>::value ? F32 : U32;
        if (c.buffers.at(arg.value).kind != wanted) fail("a buffer of another kind");
        return static_cast<T *>(c.buffers.at(arg.value).data());
    }
};
template <> struct Take<u32> {
    static u32 from(Case &, const Arg &arg) { return arg.kind == 1 ? arg.value : (fail("not a word"), 0); }
};
template <> struct Take<float> {
    static float from(Case &, const Arg &arg) {
        return arg.kind == 2 ? __uint_as_float(arg.value) : (fail("not a float"), 0.0f);
    }
};

template <typename... A, size_t... I> static std::function<void()> bound(void (*kernel)(A...), Case &c, std::index_sequence<I...>) {
    if (c.args.size() != sizeof...(A)) fail("another number of arguments");
    std::tuple<A...> args(Take<A>::from(c, c.args[I])...);
    return [=] { std::apply(kernel, args); };
}
using Binder = std::function<std::function<void()>(Case &)>;
template <typename... A> static Binder binder(void (*kernel)(A...)) {
    return [=](Case &c) { return bound(kernel, c, std::index_sequence_for<A...>{}); };
}

#define NAMED(kernel) {#kernel, binder(kernel)}
static const std::map<std::string, Binder> KERNELS = {
    NAMED(rms_norm), NAMED(add_rms_norm), NAMED(add), NAMED(add_bias), NAMED(silu_mul), NAMED(gelu_mul), NAMED(embed),
    NAMED(gather_rows), NAMED(softcap), NAMED(rope_kv), NAMED(attention_decode), NAMED(attention_combine),
    NAMED(attention_prefill_64), NAMED(attention_prefill_96), NAMED(attention_prefill_128), NAMED(attention_prefill_256),
    NAMED(top_k), NAMED(argmax), NAMED(advance), NAMED(wipe_blocks),
};

static void run(Case &c, const std::vector<u32> &order, bool ahead) {
    std::vector<u32> shared(c.shared / 4 + 1024 / 4);
    for (Buffer &buffer : c.buffers) buffer.reset();
    body = KERNELS.at(c.kernel)(c);
    emulated.grid = {c.grid[0], c.grid[1], c.grid[2]};
    emulated.block_dim = {c.threads, 1, 1};
    emulated.shared = shared.data();
    for (u32 z = 0; z < c.grid[2]; z++)
        for (u32 y = 0; y < c.grid[1]; y++)
            for (u32 x = 0; x < c.grid[0]; x++) {
                std::fill(shared.begin(), shared.end(), 0xffffffffu);
                emulated.block = {x, y, z};
                run_block(c.threads, order, ahead);
            }
    for (u32 i = c.shared / 4; i < shared.size(); i++)
        if (shared[i] != 0xffffffffu) fail(c.kernel + ": writes behind its shared memory");
}

// The largest difference, in units of what the file tolerates.
static double compare(Case &c) {
    double worst = 0, unit = c.tolerance / 1e6;
    for (u32 b = 0; b < c.buffers.size(); b++) {
        Buffer &buffer = c.buffers[b];
        for (u32 i = 0; i < GUARD; i++)
            if (buffer.memory[i] != 0xff || buffer.memory[buffer.memory.size() - 1 - i] != 0xff)
                fail(c.kernel + ": writes outside of buffer " + std::to_string(b));
        if (!buffer.is_compared) {
            if (memcmp(buffer.data(), buffer.before.data(), buffer.before.size())) fail(c.kernel + ": changes an input");
            continue;
        }
        for (u32 i = 0; i < buffer.len; i++) {
            u32 got, wanted = buffer.after[i];
            if (buffer.kind == BF16) got = (u32)static_cast<u16 *>(buffer.data())[i] << 16, wanted <<= 16;
            else got = static_cast<u32 *>(buffer.data())[i];
            if (got == wanted) continue;
            double x = __uint_as_float(got), y = __uint_as_float(wanted);
            double off = buffer.kind == U32 ? INFINITY : fabs(x - y) / (unit * (fabs(y) + 0.05));
            if (!(off <= 1))
                fail(c.kernel + ": buffer " + std::to_string(b) + " has at " + std::to_string(i) + " " +
                     std::to_string(x) + ", not " + std::to_string(y));
            worst = std::max(worst, off);
        }
    }
    return worst;
}

static Case read(const char *path) {
    std::vector<u32> words;
    FILE *file = fopen(path, "rb");
    if (!file) fail(std::string("cannot read ") + path);
    for (u32 word; fread(&word, 4, 1, file) == 1;) words.push_back(word);
    fclose(file);
    size_t at = 0;
    auto next = [&] { return words.at(at++); };
    auto halves = [&](u32 n) { // two in a word
        std::vector<u16> out;
        for (u32 i = 0; i < n; i += 2) {
            u32 word = next();
            out.push_back(word & 0xffff), out.push_back(word >> 16);
        }
        out.resize(n);
        return out;
    };
    Case c;
    if (next() != 0x31414443) fail(std::string(path) + " is no golden file");
    for (u32 n = next(); n > 0; n -= n < 4 ? n : 4) {
        u32 word = next();
        for (u32 i = 0; i < (n < 4 ? n : 4); i++) c.kernel += (char)(word >> (8 * i));
    }
    for (u32 &n : c.grid) n = next();
    c.threads = next(), c.shared = next(), c.tolerance = next();
    c.args.resize(next());
    for (Arg &arg : c.args) arg.kind = next(), arg.value = next();
    c.buffers.resize(next());
    for (Buffer &b : c.buffers) {
        b.kind = (Kind)next(), b.is_compared = next(), b.len = next();
        if (b.kind == BF16) {
            std::vector<u16> before = halves(b.len);
            b.before.assign((unsigned char *)before.data(), (unsigned char *)(before.data() + b.len));
            if (b.is_compared)
                for (u16 bits : halves(b.len)) b.after.push_back(bits);
        } else {
            for (u32 i = 0; i < b.len; i++) {
                u32 word = next();
                b.before.insert(b.before.end(), (unsigned char *)&word, (unsigned char *)(&word + 1));
            }
            for (u32 i = 0; b.is_compared && i < b.len; i++) b.after.push_back(next());
        }
    }
    if (at != words.size()) fail(std::string(path) + " has words left over");
    return c;
}

int main(int count, char **paths) {
    for (int i = 1; i < count; i++) {
        Case c = read(paths[i]);
        if (!KERNELS.count(c.kernel)) fail("no kernel " + c.kernel);
        std::vector<u32> forward(c.threads), apart(c.threads);
        std::iota(forward.begin(), forward.end(), 0);
        // A multiple of a number that has no factor in common with that of threads: all of them, far apart.
        for (u32 k = 0; k < c.threads; k++) apart[k] = k * 37 % c.threads;
        std::vector<u32> backward(forward.rbegin(), forward.rend());
        double worst = 0;
        for (auto [order, ahead] : {std::pair(&forward, false), std::pair(&backward, false), std::pair(&apart, false),
                                    std::pair(&forward, true), std::pair(&backward, true)}) {
            run(c, *order, ahead);
            worst = std::max(worst, compare(c));
        }
        const char *name = strrchr(paths[i], '/') ? strrchr(paths[i], '/') + 1 : paths[i];
        printf("%-36s within %.2f of the tolerance\n", name, worst);
    }
    printf("%d golden files: the kernels do what their twins do\n", count - 1);
}
