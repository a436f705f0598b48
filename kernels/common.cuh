// What the drift kernels share: operands, normalised distances, kernels, sums.
#pragma once

#include "params.h"
#include "ptx/convert.cuh"

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
// Threads of a block, of every kernel here.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
// Rows and columns of a block's tile; each thread has four by four.
constexpr int kTile = 64;
constexpr int kSide = 16;
constexpr int kPer = kTile / kSide;
static_assert(kSide * kSide == kThreads, "the threads of a block form a square");

__device__ __forceinline__ int tiles_of(int n) { return (n + kTile - 1) / kTile; }

// Target j of group b: generated, then negatives, then positives.
template <typename T>
__device__ __forceinline__ const T* target(const DriftParams& p, int b, int j) {
    const long long dim = p.dim;
    if (j < p.generated) {
        return static_cast<const T*>(p.generated_data) + (static_cast<long long>(b) * p.generated + j) * dim;
    }
    j -= p.generated;
    if (j < p.negatives) {
        return static_cast<const T*>(p.negative_data) + (static_cast<long long>(b) * p.negatives + j) * dim;
    }
    j -= p.negatives;
    return static_cast<const T*>(p.positive_data) + (static_cast<long long>(b) * p.positives + j) * dim;
}

// The weight of target j of group b. One that is negative or not finite is NaN: the host cannot see it, the results do.
__device__ __forceinline__ float weight(const DriftParams& p, int b, int j) {
    const float* weights = p.generated_weight;
    int n = p.generated;
    if (j >= p.generated + p.negatives) {
        weights = p.positive_weight;
        n = p.positives;
        j -= p.generated + p.negatives;
    } else if (j >= p.generated) {
        weights = p.negative_weight;
        n = p.negatives;
        j -= p.generated;
    }
    if (p.weights == kWeightIgnored || weights == nullptr) return 1.0f;
    const float w = weights[static_cast<long long>(b) * n + j];
    return w >= 0.0f && w <= 3.4028235e38f ? w : __uint_as_float(0x7fffffffu);
}

// max(x, floor) that keeps a NaN, as every clip of the specification does.
template <typename T>
__device__ __forceinline__ T clip_min(T x, T floor) {
    return x < floor ? floor : x;
}

// The lesser of two, or NaN where one of them is.
__device__ __forceinline__ float least(float a, float b) { return b < a || b != b ? b : a; }

// Is the pair without affinity? Spec 2.5: the paper removes self pairs, and columns whose weight is 0.
__device__ __forceinline__ bool removed(const DriftParams& p, int i, int j, float w) {
    return (p.mask == kMaskRemove && i == j) || (p.weights == kWeightLogit && w == 0.0f);
}

// Distance i, j of a group in units of the scale, with the self mask: spec 2.2 (4), (5).
__device__ __forceinline__ float normalized(const DriftParams& p, float distance, float unit, int i, int j) {
    const float n = distance / unit;
    if (i != j) return n;
    return p.mask == kMaskAdd ? n + p.mask_value : p.mask == kMaskSet ? p.mask_value : n;
}

// log k(n) - log k(m), from the difference, so that nothing cancels where both are far below 0. Spec 1.2.
__device__ __forceinline__ float log_ratio(KernelKind kernel, float n, float m, float rate) {
    const float a = rate * (n - m);
    switch (kernel) {
        case kLaplace:
            return -a;
        case kGaussian:
            return -a * (n + m);
        case kMatern32:
            return log1pf(a / (1.0f + rate * m)) - a;
        default: {
            const float u = rate * n, v = rate * m;
            return log1pf((a + a * (u + v) * (1.0f / 3.0f)) / (1.0f + v + v * v * (1.0f / 3.0f))) - a;
        }
    }
}

// What the affinity of a pair needs of its row and its column, for one temperature.
struct Norms {
    float row_least, column_least, row_log, column_log;
};

// A of spec 2.2 (6): sqrt of row softmax times column softmax, clipped, weighted.
__device__ __forceinline__ float affinity(const DriftParams& p, float n, float w, float rate, const Norms& norms) {
    float l = 0.5f * (log_ratio(p.kernel, n, norms.row_least, rate) + log_ratio(p.kernel, n, norms.column_least, rate)) -
              0.5f * (norms.row_log + norms.column_log);
    if (p.floor_kind == kFloorNormalizer) {
        // K / sqrt(max(row sum * column sum, floor)): the sums themselves, in logarithms.
        float half = 0.5f * (log_ratio(p.kernel, norms.row_least, 0.0f, rate) +
                             log_ratio(p.kernel, norms.column_least, 0.0f, rate) + norms.row_log + norms.column_log);
        if (p.weights == kWeightLogit) half += 0.5f * logf(w);
        const float excess = 0.5f * logf(p.affinity_floor) - half;
        l -= excess > 0.0f ? excess : 0.0f;
    }
    float a = expf(l);
    if (p.weights == kWeightLogit) a *= sqrtf(w);
    if (p.floor_kind == kFloorProduct) a = clip_min(a, sqrtf(p.affinity_floor));
    return p.weights == kWeightAffinity ? a * w : a;
}

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
