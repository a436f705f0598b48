// Noise and data of a training step, with the bits of src/rng.rs and src/data.rs.
//
//   normals        standard normals, four a thread, from one block of Philox
//   points         rows of a set of points, drawn with replacement
//   toy_points     a toy distribution in the plane, a point a thread; the swiss roll's before they are brought to size
//   swiss_roll     what is then left to do
//   load_classes   loads a step's data into the buffers of their classes (src/train/classes.rs)
//   choose_labels  labels, guidance scales, and the weights of negatives
//   choose_data    the data that each label has, a block for its positives and one for its negatives
//   gather         copies them
//
// Numerics: integers, and IEEE operations that are never fused, in the order of src/rng.rs. The greatest coordinate of
// the swiss roll is the same in every order.
// Cost: writes the samples once; 10 rounds of Philox for four integers.
// Limits: sm_80 and later.
#include "common.cuh"
#include "turns.cuh"

namespace noise {

struct Integers {
    unsigned at[4];
};

__device__ __forceinline__ unsigned element(const Integers& block, unsigned long long at) {
    const int k = static_cast<int>(at % 4);
    return k == 0 ? block.at[0] : k == 1 ? block.at[1] : k == 2 ? block.at[2] : block.at[3];
}

// Philox4x32-10 of block `block` of the stream of a purpose at a step.
__device__ __forceinline__ Integers philox(const unsigned (&key)[2], unsigned purpose, unsigned long long step,
                                           unsigned long long block) {
    const unsigned long long upper = (step & (~0ull >> 8)) | static_cast<unsigned long long>(purpose) << 56;
    unsigned c[4] = {static_cast<unsigned>(block), static_cast<unsigned>(block >> 32), static_cast<unsigned>(upper),
                     static_cast<unsigned>(upper >> 32)};
    unsigned key0 = key[0], key1 = key[1];
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned long long a = static_cast<unsigned long long>(c[0]) * 0xd2511f53u;
        const unsigned long long b = static_cast<unsigned long long>(c[2]) * 0xcd9e8d57u;
        const unsigned c1 = c[1], c3 = c[3];
        c[0] = static_cast<unsigned>(b >> 32) ^ c1 ^ key0;
        c[1] = static_cast<unsigned>(b);
        c[2] = static_cast<unsigned>(a >> 32) ^ c3 ^ key1;
        c[3] = static_cast<unsigned>(a);
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return {{c[0], c[1], c[2], c[3]}};
}

// At the step that comes.
__device__ __forceinline__ Integers philox(const RandomStream& stream, unsigned long long block) {
    return philox(stream.key, stream.purpose, stream.progress->step + 1, block);
}

// Integer `at` of a stream.
__device__ __forceinline__ unsigned integer(const unsigned (&key)[2], unsigned purpose, unsigned long long step,
                                            unsigned long long at) {
    return element(philox(key, purpose, step, at / 4), at);
}

__device__ __forceinline__ float uniform(unsigned bits) {
    return __fmul_rn(static_cast<float>(bits >> 8), 1.0f / 16777216.0f);
}

// Uniform over 0 to n - 1.
__device__ __forceinline__ long long index(unsigned bits, long long n) {
    return static_cast<long long>((static_cast<unsigned long long>(bits) * static_cast<unsigned long long>(n)) >> 32);
}

__device__ __forceinline__ float ln(float u) {
    const unsigned bits = __float_as_uint(u);
    int exponent = static_cast<int>(bits >> 23) - 127;
    float m = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
    if (m > 1.41421356f) {
        m = __fmul_rn(m, 0.5f);
        exponent += 1;
    }
    const float s = __fdiv_rn(__fsub_rn(m, 1.0f), __fadd_rn(m, 1.0f));
    const float s2 = __fmul_rn(s, s);
    float series = __fadd_rn(__fdiv_rn(s2, 9.0f), 1.0f / 7.0f);
    series = __fadd_rn(__fmul_rn(series, s2), 0.2f);
    series = __fadd_rn(__fmul_rn(series, s2), 1.0f / 3.0f);
    const float rest = __fmul_rn(2.0f, __fadd_rn(s, __fmul_rn(__fmul_rn(s, s2), series)));
    return __fadd_rn(__fmul_rn(static_cast<float>(exponent), 0.693147181f), rest);
}

__device__ __forceinline__ float exp(float x) {
    const float power = roundf(__fmul_rn(x, 1.44269504f));
    const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(power, 0.6933594f)), __fmul_rn(power, -2.1219444e-4f));
    constexpr float kSeries[] = {1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f};
    float value = 1.0f / 720.0f;
#pragma unroll
    for (int k = 0; k < 6; ++k) value = __fadd_rn(__fmul_rn(value, r), kSeries[k]);
    return __fmul_rn(value, __uint_as_float(static_cast<unsigned>(static_cast<int>(power) + 127) << 23));
}

// Two standard normals of two integers: Box-Muller.
__device__ __forceinline__ float2 normals(unsigned first, unsigned second) {
    const float u = __fmul_rn(__fadd_rn(static_cast<float>(first), 0.5f), 1.0f / 4294967296.0f);
    const float radius = __fsqrt_rn(__fmul_rn(-2.0f, ln(u)));
    const float2 turn = sin_cos_turns(uniform(second));
    return {__fmul_rn(radius, turn.y), __fmul_rn(radius, turn.x)};
}

// The integers of a stream from one of them on.
class Reader {
public:
    __device__ __forceinline__ Reader(const RandomStream& stream, unsigned long long at) : stream_(stream), at_(at) {
        block_ = philox(stream, at / 4);
    }

    __device__ __forceinline__ unsigned next() {
        const unsigned bits = element(block_, at_);
        if (++at_ % 4 == 0) block_ = philox(stream_, at_ / 4);
        return bits;
    }

    __device__ __forceinline__ float2 normals() {
        const unsigned first = next();
        return noise::normals(first, next());
    }

private:
    const RandomStream& stream_;
    unsigned long long at_;
    Integers block_;
};

// Integers that a point of a toy distribution takes.
__device__ __forceinline__ int integers(ToyKind toy) {
    return toy == kSwissRoll ? 1 : toy == kCheckerboard ? 5 : toy == kTwoMoons ? 4 : 3;
}

// center + noise.
__device__ __forceinline__ float blurred(float center, float width, float normal) {
    return __fadd_rn(center, __fmul_rn(width, normal));
}

__device__ __forceinline__ float2 toy_point(ToyKind toy, Reader& stream) {
    switch (toy) {
        case kSwissRoll: {
            const float turns = __fadd_rn(0.25f, __fmul_rn(2.0f, uniform(stream.next())));
            const float2 turn = sin_cos_turns(turns);
            return {__fmul_rn(turns, turn.y), __fmul_rn(turns, turn.x)};
        }
        case kCheckerboard: {
            const unsigned bits = stream.next();
            const float u = uniform(stream.next()), v = uniform(stream.next());
            const float2 noise = stream.normals();
            const auto at = [&](unsigned cell, float u) {
                const float sum = __fadd_rn(__fmul_rn(2.0f, static_cast<float>(cell)), static_cast<float>(bits & 1));
                return __fmul_rn(__fsub_rn(__fadd_rn(sum, u), 2.0f), 0.5f);
            };
            return {blurred(at(bits >> 1 & 1, u), 0.05f, noise.x), blurred(at(bits >> 2 & 1, v), 0.05f, noise.y)};
        }
        case kTwoMoons: {
            const float side = (stream.next() & 1) == 0 ? 1.0f : -1.0f;
            const float2 turn = sin_cos_turns(__fmul_rn(0.5f, uniform(stream.next())));
            const float2 noise = stream.normals();
            const auto at = [&](float center, float v) {
                return __fmul_rn(side, __fadd_rn(center, __fmul_rn(v, 2.0f / 3.0f)));
            };
            return {blurred(at(-1.0f / 3.0f, turn.y), 0.03f, noise.x),
                    blurred(at(-1.0f / 6.0f, turn.x), 0.03f, noise.y)};
        }
        default: {
            const float2 turn = sin_cos_turns(__fdiv_rn(static_cast<float>(index(stream.next(), 6)), 6.0f));
            const float2 noise = stream.normals();
            return {blurred(__fmul_rn(0.8f, turn.y), 0.08f, noise.x),
                    blurred(__fmul_rn(0.8f, turn.x), 0.08f, noise.y)};
        }
    }
}

// The greatest of a block's numbers, none of them negative, in every thread. `scratch` holds kWarps.
__device__ __forceinline__ float block_greatest(float x, float* scratch) {
    for (int lane = kWarp / 2; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lane));
    __syncthreads();
    if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
    __syncthreads();
    x = scratch[threadIdx.x % kWarps];
    for (int lane = kWarps / 2; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lane));
    return x;
}

// Purposes of src/rng.rs.
enum Purpose { kLoader = 7, kLabels = 8, kGuidance = 9, kPositives = 10, kNegatives = 11 };

// The order of an epoch: a Feistel network, walked until it is below the number of data.
__device__ __forceinline__ unsigned datum(const ClassCall& call, unsigned long long at) {
    const unsigned count = static_cast<unsigned>(call.count);
    const Integers keys = philox(call.key, kLoader, at / count, 0);
    int bits = (kWarp - __clz(count - 1) + 1) / 2;
    if (count <= 1 || bits < 1) bits = 1;
    const unsigned mask = (1u << bits) - 1;
    unsigned value = static_cast<unsigned>(at % count);
    do {
        unsigned left = value >> bits, right = value & mask;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            unsigned mixed = (right ^ keys.at[k]) * 0x9e3779b1u;
            mixed = (mixed ^ mixed >> 15) * 0x85ebca77u;
            const unsigned next = left ^ (mixed >> 13 & mask);
            left = right;
            right = next;
        }
        value = left << bits | right;
    } while (value >= count);
    return value;
}

// Data loaded before the step that comes, and with it.
__device__ __forceinline__ unsigned long long loaded(const ClassCall& call, bool with) {
    return static_cast<unsigned long long>(call.count) + (call.progress->step + with) * call.loaded;
}

// Calls `take(k, number)` for each of the `n` of `count` things that have the least random keys, the k-th least, or with
// replacement where there are fewer; by all threads of a block. `keys` has room for `count`.
template <typename Take>
__device__ __forceinline__ void choose(const ClassCall& call, Purpose purpose, unsigned long long slot, int room,
                                       int count, int n, unsigned* keys, Take take) {
    const unsigned long long step = call.progress->step + 1, first = slot * room;
    if (count < n) {
        for (int k = static_cast<int>(threadIdx.x); k < n; k += kThreads) {
            take(k, static_cast<unsigned>(index(integer(call.key, purpose, step, first + k), count)));
        }
        return;
    }
    for (int k = static_cast<int>(threadIdx.x); k < count; k += kThreads) {
        keys[k] = integer(call.key, purpose, step, first + k);
    }
    __syncthreads();
    for (int k = static_cast<int>(threadIdx.x); k < count; k += kThreads) {
        const unsigned key = keys[k];
        int before = 0;
        for (int other = 0; other < count; ++other) before += keys[other] < key || (keys[other] == key && other < k);
        if (before < n) take(before, static_cast<unsigned>(k));
    }
}

}  // namespace noise

extern "C" __global__ void __launch_bounds__(kThreads) normals(const RandomStream stream, long long count, float* to) {
    const long long block = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (block * 4 >= count) return;
    const noise::Integers bits = noise::philox(stream, block);
    const float2 a = noise::normals(bits.at[0], bits.at[1]), b = noise::normals(bits.at[2], bits.at[3]);
    if (block * 4 + 4 <= count) {
        reinterpret_cast<float4*>(to)[block] = {a.x, a.y, b.x, b.y};
        return;
    }
    const float z[3] = {a.x, a.y, b.x};
    for (int k = 0; block * 4 + k < count; ++k) to[block * 4 + k] = z[k];
}

extern "C" __global__ void __launch_bounds__(kThreads)
    points(const RandomStream stream, long long n, long long dim, const float* from, long long count, float* to) {
    // A warp a row: its lanes draw the same integer.
    const long long row = static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (row >= n) return;
    noise::Reader reader(stream, row);
    const float* x = from + noise::index(reader.next(), count) * dim;
    for (long long d = threadIdx.x % kWarp; d < dim; d += kWarp) to[row * dim + d] = x[d];
}

extern "C" __global__ void __launch_bounds__(kThreads)
    toy_points(const RandomStream stream, ToyKind toy, int n, float2* to, float* greatest) {
    __shared__ float scratch[kWarps];
    const int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
    float2 point = {0.0f, 0.0f};
    if (at < n) {
        noise::Reader reader(stream, static_cast<unsigned long long>(at) * noise::integers(toy));
        point = noise::toy_point(toy, reader);
        to[at] = point;
    }
    if (toy != kSwissRoll) return;
    const float most = noise::block_greatest(fmaxf(fabsf(point.x), fabsf(point.y)), scratch);
    if (threadIdx.x == 0) greatest[blockIdx.x] = most;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    swiss_roll(const RandomStream stream, int n, float2* to, const float* greatest, int blocks) {
    __shared__ float scratch[kWarps];
    float most = 0.0f;
    for (int k = static_cast<int>(threadIdx.x); k < blocks; k += kThreads) most = fmaxf(most, greatest[k]);
    most = noise::block_greatest(most, scratch);
    const int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
    if (at >= n) return;
    noise::Reader reader(stream, static_cast<unsigned long long>(n) + 2ull * at);
    const float2 noise = reader.normals(), point = to[at];
    to[at] = {noise::blurred(__fdiv_rn(point.x, most), 0.03f, noise.x),
              noise::blurred(__fdiv_rn(point.y, most), 0.03f, noise.y)};
}

// One block. Its threads find the data, then one a class puts them away in order.
extern "C" __global__ void __launch_bounds__(kThreads) load_classes(const __grid_constant__ ClassCall call) {
    __shared__ unsigned data[kThreads], labels[kThreads];
    const unsigned long long first = noise::loaded(call, false);
    for (int begin = 0; begin < call.loaded; begin += kThreads) {
        const int thread = static_cast<int>(threadIdx.x), here = begin + thread;
        __syncthreads();
        if (here < call.loaded) {
            data[thread] = noise::datum(call, first + here);
            labels[thread] = call.data_labels[data[thread]];
        }
        __syncthreads();
        const int count = call.loaded - begin < kThreads ? call.loaded - begin : kThreads;
        for (int label = thread; label < call.classes; label += kThreads) {
            unsigned long long held = call.counts[label];
            for (int k = 0; k < count; ++k) {
                if (labels[k] != static_cast<unsigned>(label)) continue;
                call.of_class[static_cast<long long>(label) * call.class_buffer + held % call.class_buffer] = data[k];
                ++held;
            }
            call.counts[label] = held;
        }
    }
}

// One block.
extern "C" __global__ void __launch_bounds__(kThreads) choose_labels(const __grid_constant__ ClassCall call) {
    __shared__ unsigned keys[kMaxChoice];
    const unsigned long long end = noise::loaded(call, true);
    const auto take = [&](int slot, unsigned back) {
        call.step_labels[slot] = static_cast<float>(call.data_labels[noise::datum(call, end - 1 - back)]);
    };
    noise::choose(call, noise::kLabels, 0, call.loaded, call.loaded, call.labels, keys, take);
    const unsigned long long step = call.progress->step + 1;
    for (int slot = static_cast<int>(threadIdx.x); slot < call.labels; slot += kThreads) {
        const auto draw = [&](int k) {
            return noise::uniform(noise::integer(call.key, noise::kGuidance, step, 2ull * slot + k));
        };
        float log = 0.0f, alpha = 1.0f;
        if (!(draw(1) < call.unguided)) {
            log = __fadd_rn(call.from, __fmul_rn(draw(0), call.by));
            if (call.over != 0.0f) log = __fdiv_rn(noise::ln(log), call.over);
            alpha = noise::exp(log);
        }
        call.guidance[slot] = log;
        const float others = static_cast<float>(call.generated) - 1.0f;
        const float negatives = static_cast<float>(call.negatives > 1 ? call.negatives : 1);
        const float weight = __fdiv_rn(__fmul_rn(__fsub_rn(alpha, 1.0f), others), negatives);
        for (int k = 0; k < call.negatives; ++k) call.weights[static_cast<long long>(slot) * call.negatives + k] = weight;
    }
}

extern "C" __global__ void __launch_bounds__(kThreads) choose_data(const __grid_constant__ ClassCall call) {
    __shared__ unsigned keys[kMaxChoice];
    const int slot = static_cast<int>(blockIdx.x) / 2;
    if (blockIdx.x % 2 == 0) {
        const long long label = static_cast<long long>(call.step_labels[slot]);
        const unsigned* buffer = call.of_class + label * call.class_buffer;
        const unsigned long long held = call.counts[label];
        const int count = held < call.class_buffer ? static_cast<int>(held) : call.class_buffer;
        const int room = call.class_buffer > call.positives ? call.class_buffer : call.positives;
        unsigned* to = call.chosen_positives + static_cast<long long>(slot) * call.positives;
        const auto take = [&](int k, unsigned at) { to[k] = buffer[at]; };
        noise::choose(call, noise::kPositives, slot, room, count, call.positives, keys, take);
        return;
    }
    const unsigned long long end = noise::loaded(call, true);
    const int count = end < call.buffer ? static_cast<int>(end) : call.buffer;
    const int room = call.buffer > call.negatives ? call.buffer : call.negatives;
    unsigned* to = call.chosen_negatives + static_cast<long long>(slot) * call.negatives;
    const auto take = [&](int k, unsigned back) { to[k] = noise::datum(call, end - 1 - back); };
    noise::choose(call, noise::kNegatives, slot, room, count, call.negatives, keys, take);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    gather(long long n, long long dim, const float* from, const unsigned* numbers, float* to) {
    const long long row = static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (row >= n) return;
    const float* x = from + numbers[row] * dim;
    for (long long d = threadIdx.x % kWarp; d < dim; d += kWarp) to[row * dim + d] = x[d];
}
