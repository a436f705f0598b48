// What the drift kernels share: operands, normalised distances, kernels, sums.
#pragma once

#include "params.h"
#include "ptx/convert.cuh"
#include "ptx/exp2.cuh"
#include "ptx/sqrt.cuh"

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarps = kThreads / kWarp;
constexpr float kMaxFinite = 3.4028235e38f;

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }

__device__ __forceinline__ int tiles_of(int n, int tile) { return (n + tile - 1) / tile; }

// A value that the compiler takes for a new one, so that what follows from it is not kept in registers from before a
// loop.
__device__ __forceinline__ int here(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

// The head that this block belongs to, in shared memory, for its fields would take a third of the registers; and the
// block's number among those of the head. Every warp counts the heads that have begun, 32 at a time.
__device__ __forceinline__ const DriftHead& head_of(const DriftCall& call, Launch launch, int* block) {
    __shared__ DriftHead head;
    const DriftHead* from = &call.head;
    *block = static_cast<int>(blockIdx.x);
    if (call.table != nullptr) {
        int which = -1;
        for (int k = 0; k < call.heads; k += kWarp) {
            const int at = k + static_cast<int>(threadIdx.x) % kWarp;
            const bool begun = at < call.heads && call.table[at].first[launch] <= blockIdx.x;
            which += __popc(__ballot_sync(kAllLanes, begun));
        }
        from = call.table + which;
        *block -= static_cast<int>(from->first[launch]);
    }
    constexpr int kWords = sizeof(DriftHead) / sizeof(unsigned long long);
    static_assert(kWords <= kThreads && kWords * sizeof(unsigned long long) == sizeof(DriftHead),
                  "a thread copies a word");
    if (threadIdx.x < kWords) {
        reinterpret_cast<unsigned long long*>(&head)[threadIdx.x] =
            reinterpret_cast<const unsigned long long*>(from)[threadIdx.x];
    }
    __syncthreads();
    return head;
}

// The kind of a target, generated, negative or positive; and its number among those.
__device__ __forceinline__ int kind_of(const DriftHead& head, int j, int* number) {
    const int kind = (j >= head.generated) + (j >= head.generated + head.negatives);
    *number = j - (kind > 0 ? head.generated : 0) - (kind > 1 ? head.negatives : 0);
    return kind;
}

// Target j of group b: generated, then negatives, then positives.
template <typename T>
__device__ __forceinline__ const T* target(const DriftHead& head, int b, int j) {
    int number;
    const Samples& samples = head.samples[kind_of(head, j, &number)];
    return static_cast<const T*>(samples.data) + b * samples.group + number * samples.sample;
}

// The weight of target j of group b. One that is negative or not finite is NaN: the host cannot see it, the results do.
__device__ __forceinline__ float weight(const DriftCall& call, const DriftHead& head, int b, int j) {
    int number;
    const int kind = kind_of(head, j, &number);
    const float* weights = head.sample_weights[kind];
    if (call.weights == kWeightIgnored || weights == nullptr) return 1.0f;
    const int count = kind == 0 ? head.generated : kind == 1 ? head.negatives : head.positives;
    const float w = weights[static_cast<long long>(b) * count + number];
    return w >= 0.0f && w <= kMaxFinite ? w : __uint_as_float(0x7fffffffu);
}

// max(x, floor) that keeps a NaN, as every clip of the specification does.
template <typename T>
__device__ __forceinline__ T clip_min(T x, T floor) {
    return x < floor ? floor : x;
}

// The lesser of two, or NaN where one of them is.
__device__ __forceinline__ float least(float a, float b) { return b < a || b != b ? b : a; }

// Is the pair without affinity? Spec 2.5: the paper removes self pairs, and columns whose weight is 0.
__device__ __forceinline__ bool removed(const DriftCall& call, int i, int j, float w) {
    return (call.mask == kMaskRemove && i == j) || (call.weights == kWeightLogit && w == 0.0f);
}

// 1 / scale in two floats, so that neither it nor a division costs digits: it moves every exponent alike.
struct Unit {
    float high, low;
};

__device__ __forceinline__ Unit unit_of(const DriftHead& head) {
    const double inverse = head.scalars->inverse;
    const float high = static_cast<float>(inverse);
    return {high, static_cast<float>(inverse - high)};
}

// log k(n) - log k(m), from the difference, so that nothing cancels where both are far below 0. Spec 1.2. A call has its
// kernel and the kernel's polynomial.
template <typename Call>
__device__ __forceinline__ float log_ratio(const Call& call, float n, float m, float rate) {
    const float a = rate * (n - m);
    switch (call.kernel) {
        case kLaplace:
            return -a;
        case kGaussian:
            return -a * (n + m);
        case kPlummer: {
            // By the nearer of the two, since a quotient near -1 would cost its logarithm digits.
            const float near = rate * fminf(n, m);
            const float excess = 0.5f * log1pf(fabsf(a) * (rate * (n + m)) / fmaf(near, near, 1.0f));
            return n < m ? excess : -excess;
        }
        default: {
            const float u = rate * n, v = rate * m;
            // From 1e9 on the logarithm is below the last digit, and its argument may not be a number.
            if (fmaxf(u, v) > 1e9f) return -a;
            // P(v), and (P(u) - P(v)) / a, by Horner's rule. Coefficients of powers that are not there are 0.
            float at = 0.0f, slope = 0.0f;
#pragma unroll
            for (int power = kPowers - 1; power > 0; power--) {
                at = fmaf(at, v, call.polynomial[power]);
                slope = fmaf(slope, u, at);
            }
            return log1pf(a * slope / fmaf(at, v, 1.0f)) - a;
        }
    }
}

// What the affinity of a pair needs of its row and its column, for one temperature.
struct Norms {
    float row_least, column_least, row_log, column_log;
};

// A of spec 2.2 (6): sqrt of row softmax times column softmax, clipped, weighted. The row's alone where the coupling
// says so: it then stands for the column's too, and a weight in the logits counts in both.
__device__ __forceinline__ float affinity(const DriftCall& call, float n, float w, float rate, const Norms& norms) {
    // Of a row with mass 1 (couplings.cu) the column has a potential.
    if (call.coupled) {
        return expf(log_ratio(call, n, norms.row_least, rate) + (norms.column_log - norms.row_log));
    }
    const bool alone = call.coupling == kRowOnly;
    const float column_least = alone ? norms.row_least : norms.column_least;
    const float column_log = alone ? norms.row_log : norms.column_log;
    float l =
        0.5f * (log_ratio(call, n, norms.row_least, rate) + log_ratio(call, n, column_least, rate)) -
        0.5f * (norms.row_log + column_log);
    if (call.floor_kind == kFloorNormalizer) {
        // K / sqrt(max(row sum * column sum, floor)): the sums themselves, in logarithms.
        float half = 0.5f * (log_ratio(call, norms.row_least, 0.0f, rate) +
                             log_ratio(call, column_least, 0.0f, rate) + norms.row_log + column_log);
        if (call.weights == kWeightLogit && !alone) half += 0.5f * logf(w);
        const float excess = call.affinity_floor - half;
        l -= excess > 0.0f ? excess : 0.0f;
    }
    float a = expf(l);
    if (call.weights == kWeightLogit) a *= alone ? w : sqrtf(w);
    if (call.floor_kind == kFloorProduct) a = clip_min(a, call.affinity_floor);
    return call.weights == kWeightAffinity ? a * w : a;
}

// k(n) / k(m), and the affinity: for any call, or for those with the official affinity, in powers of two and with
// nothing to choose. Where few values matter both have the digits of f32: exponents far below 0 belong to what does
// not.
template <bool kOfficial>
__device__ __forceinline__ float kernel_ratio(const DriftCall& call, int k, float n, float m) {
    return kOfficial ? exp2_fast(-call.rate2[k] * (n - m)) : expf(log_ratio(call, n, m, call.rate[k]));
}

constexpr float kHalfLog2e = 0.72134752f;

template <bool kOfficial>
__device__ __forceinline__ float affinity_of(const DriftCall& call, int k, float n, float w, const Norms& norms) {
    if (!kOfficial) return affinity(call, n, w, call.rate[k], norms);
    const float exponent = -0.5f * call.rate2[k] * ((n - norms.row_least) + (n - norms.column_least));
    const float a = exp2_fast(fmaf(-kHalfLog2e, norms.row_log + norms.column_log, exponent));
    return clip_min(a, call.affinity_floor) * w;
}

// A distance from its square: spec 2.2 (1), and rule (ii) of 2.2a.
__device__ __forceinline__ float finished(const DriftCall& call, float q, bool self) {
    return sqrt_fast(self && call.constant_self ? call.min_squared : clip_min(q, call.min_squared));
}

// Distance i, j of group b, stored or formed anew, before any mask.
template <typename T>
__device__ __forceinline__ float distance(const DriftCall& call, const DriftHead& head, int b, int i, int j) {
    if (head.distances != nullptr) {
        return head.distances[(static_cast<long long>(b) * head.generated + i) * head.targets + j];
    }
    const T *x = target<T>(head, b, i), *y = target<T>(head, b, j);
    float sum = 0.0f;
#pragma unroll 1
    for (int d = 0; d < head.dim; ++d) {
        const float difference = to_float(x[d]) - to_float(y[d]);
        sum = fmaf(difference, difference, sum);
    }
    return finished(call, sum, i == j);
}

// Distances of a few coordinates are formed anew from one sample in registers and another that goes by.
constexpr int kFew = 8;

template <typename T>
struct Sample {
    float at[kFew];

    __device__ __forceinline__ void take(const DriftHead& head, const T* x) {
#pragma unroll
        for (int d = 0; d < kFew; ++d) at[d] = d < head.dim ? to_float(x[d]) : 0.0f;
    }

    // In the order of the coordinates, as wherever else distances are formed.
    __device__ __forceinline__ float distance(const DriftCall& call, const DriftHead& head, const T* y,
                                              bool self) const {
        float sum = 0.0f;
#pragma unroll
        for (int d = 0; d < kFew; ++d) {
            if (d >= head.dim) break;
            const float difference = at[d] - to_float(y[d]);
            sum = fmaf(difference, difference, sum);
        }
        return finished(call, sum, self);
    }
};

// A distance in units of the scale, with the self mask: spec 2.2 (4), (5).
__device__ __forceinline__ float in_units(const DriftCall& call, const Unit& unit, float d, bool self) {
    const float n = fmaf(d, unit.high, d * unit.low);
    if (!self) return n;
    return call.mask == kMaskAdd ? n + call.mask_value : call.mask == kMaskSet ? call.mask_value : n;
}

// The unit of a query's distances: that of all, over its own bandwidth where it has one.
__device__ __forceinline__ Unit row_unit(const DriftCall& call, const DriftHead& head, int i) {
    Unit unit = unit_of(head);
    if (call.field != kNoField && head.bandwidths != nullptr) {
        const float inverse = 1.0f / head.bandwidths[i];
        unit.high *= inverse;
        unit.low *= inverse;
    }
    return unit;
}

// Is the target the query's own among the references q, and left out?
__device__ __forceinline__ bool left_out(const DriftCall& call, const DriftHead& head, int i, int j) {
    return call.leave_out && j == i + (head.negatives > 0 ? head.generated : 0);
}

// (2k-1) P_k / P_(k-1) of a Matern kernel's polynomials, and (2k+1) P_(k+1) / P_k, which never overflow, by
// P_k = P_(k-1) + z^2 P_(k-2) / ((2k-1) (2k-3)).
struct Quotients {
    float at, after;
};

__device__ __forceinline__ Quotients matern_quotients(KernelKind kernel, float z) {
    const int order = kernel - kMatern32 + 1;
    float at = 1.0f, after = 1.0f + z;
    for (int k = 2; k <= order + 1; k++) {
        at = after;
        after = fmaf(z * (z / at), 1.0f / static_cast<float>((2 * k - 1) * (2 * k - 3)), 1.0f);
    }
    return {static_cast<float>(2 * order - 1) * at, static_cast<float>(2 * order + 1) * after};
}

// b(n) = psi'(n) / n of a kernel with this rate, spec 1.3; 0 for Laplace at 0.
__device__ __forceinline__ float score_weight(KernelKind kernel, float n, float rate) {
    const float z = n * rate;
    switch (kernel) {
        case kLaplace:
            return n > 0.0f ? rate / n : n - n;
        case kGaussian:
            return 2.0f * rate;
        case kPlummer:
            return rate / fmaf(z, z, 1.0f) * rate;
        default:
            return rate / matern_quotients(kernel, z).at * rate;
    }
}

// That of a pair.
template <typename T>
__device__ __forceinline__ float normalized(const DriftCall& call, const DriftHead& head, const Unit& unit, int b,
                                            int i, int j) {
    return in_units(call, unit, distance<T>(call, head, b, i, j), i == j);
}

// Blocks that have a row for each of their warps.
__device__ __forceinline__ long long row_blocks(const DriftHead& head) {
    return (static_cast<long long>(head.groups) * head.generated + kWarps - 1) / kWarps;
}

// Over so many neighbouring lanes.
template <int kLanes>
__device__ __forceinline__ float lanes_sum(float x) {
    for (int lane = kLanes / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(kAllLanes, x, lane);
    return x;
}

template <int kLanes>
__device__ __forceinline__ float lanes_least(float x) {
    for (int lane = kLanes / 2; lane > 0; lane /= 2) x = least(x, __shfl_xor_sync(kAllLanes, x, lane));
    return x;
}

// Of what is a number.
template <int kLanes>
__device__ __forceinline__ float lanes_most(float x) {
    for (int lane = kLanes / 2; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lane));
    return x;
}

__device__ __forceinline__ float warp_sum(float x) { return lanes_sum<kWarp>(x); }

__device__ __forceinline__ float warp_least(float x) { return lanes_least<kWarp>(x); }

__device__ __forceinline__ double shuffle_xor(double x, int lane) {
    const long long bits = __double_as_longlong(x);
    const int low = __shfl_xor_sync(kAllLanes, static_cast<int>(bits), lane);
    const int high = __shfl_xor_sync(kAllLanes, static_cast<int>(bits >> 32), lane);
    return __longlong_as_double((static_cast<long long>(high) << 32) | static_cast<unsigned>(low));
}

__device__ __forceinline__ double warp_sum(double x) {
    for (int lane = kWarp / 2; lane > 0; lane /= 2) x += shuffle_xor(x, lane);
    return x;
}

// The sum over a block in a fixed order, in every thread of the first warp. `scratch` holds kWarps doubles; a barrier
// precedes its next use.
__device__ __forceinline__ double block_sum(double x, double* scratch) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
    __syncthreads();
    return warp_sum(threadIdx.x < kWarps ? scratch[threadIdx.x % kWarps] : 0.0);
}
