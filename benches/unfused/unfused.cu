// The official drift (spec 2.2; every weight 1) without fusion, as the published implementations have it: cuBLAS
// forms the products, and each kernel here reads arrays of all pairs [B, G, T] and writes others. It stands for nothing
// but the other side of a comparison (`cargo xtask counters`).
//
// Compiled with SAMPLE, the type of the samples: float or Half. Blocks are warps of which each has a row, where nothing
// else is said; rows are read along their elements, so that every sector is whole.
#include "ptx/convert.cuh"
#include "ptx/sqrt.cuh"

using Sample = SAMPLE;

constexpr int kLanes = 32;
constexpr int kMaxWarps = 32;
constexpr float kLowest = -3e38f;

// Numbers that all groups share, in the order of the array `scalars`.
enum Scalar { kScale, kSigma, kTheta };

struct Extents {
    int groups, generated, negatives, positives, dim;

    __device__ int targets() const { return generated + negatives + positives; }
    __device__ int queries() const { return groups * generated; }
};

#define KERNEL extern "C" __global__ void

__device__ __forceinline__ float warp_sum(float x) {
    for (int d = kLanes / 2; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int d = kLanes / 2; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
    return x;
}

// The sum over a block, for all its threads.
__device__ __forceinline__ double block_sum(double x) {
    __shared__ double parts[kMaxWarps];
    for (int d = kLanes / 2; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    if (thread % kLanes == 0) parts[thread / kLanes] = x;
    __syncthreads();
    double sum = 0.0;
    for (unsigned w = 0; w < blockDim.x * blockDim.y / kLanes; ++w) sum += parts[w];
    return sum;
}

__device__ __forceinline__ int row_of_warp() { return blockIdx.x * blockDim.y + threadIdx.y; }

// What the spec calls -n / R, of a distance; `self`: is the target the query?
__device__ __forceinline__ float logit(float distance, bool self, const float* scalars, float temperature) {
    const float scale = scalars[kScale];
    return (distance + (self ? 100.0f * scale : 0.0f)) * (-1.0f / (scale * temperature));
}

// Targets one after another, y [B, T, D], and their squared norms [B, T].
KERNEL targets(Extents e, const Sample* __restrict__ generated, const Sample* __restrict__ negatives,
               const Sample* __restrict__ positives, Sample* __restrict__ y, float* __restrict__ squares) {
    const int row = row_of_warp(), b = row / e.targets(), j = row % e.targets();
    if (b >= e.groups) return;
    const int n = j - e.generated, p = n - e.negatives;
    const Sample* from = n < 0   ? generated + (static_cast<long long>(b) * e.generated + j) * e.dim
                         : p < 0 ? negatives + (static_cast<long long>(b) * e.negatives + n) * e.dim
                                 : positives + (static_cast<long long>(b) * e.positives + p) * e.dim;
    Sample* to = y + static_cast<long long>(row) * e.dim;
    float sum = 0.0f;
#pragma unroll 4
    for (int k = threadIdx.x; k < e.dim; k += kLanes) {
        const Sample sample = from[k];
        to[k] = sample;
        sum += to_float(sample) * to_float(sample);
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) squares[row] = sum;
}

// Distances [B, G, T] in the place of inner products, and their sum by blocks.
KERNEL distances(Extents e, float* __restrict__ d, const float* __restrict__ squares, double* __restrict__ parts) {
    const int row = row_of_warp(), t = e.targets();
    float sum = 0.0f;
    if (row < e.queries()) {
        squares += static_cast<long long>(row / e.generated) * t;
        d += static_cast<long long>(row) * t;
        const float own = squares[row % e.generated];
#pragma unroll 4
        for (int j = threadIdx.x; j < t; j += kLanes) {
            const float distance = sqrt_fast(fmaxf(own + squares[j] - 2.0f * d[j], 1e-8f));
            d[j] = distance;
            sum += distance;
        }
    }
    const double whole = block_sum(sum);
    if (threadIdx.x == 0 && threadIdx.y == 0) parts[blockIdx.x] = whole;
}

// The mean distance and the scale of coordinates; one block.
KERNEL scale(Extents e, const double* __restrict__ parts, int count, float* __restrict__ scalars) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
    const float mean = static_cast<float>(block_sum(sum) / (static_cast<double>(e.queries()) * e.targets()));
    if (threadIdx.x != 0) return;
    scalars[kScale] = fmaxf(mean, 1e-3f);
    scalars[kSigma] = fmaxf(mean / sqrtf(static_cast<float>(e.dim)), 1e-3f);
}

// The softmax over targets; a row waits in shared memory.
KERNEL row_softmax(Extents e, const float* __restrict__ d, const float* __restrict__ scalars, float temperature,
                   float* __restrict__ out) {
    extern __shared__ float shared[];
    const int row = row_of_warp(), t = e.targets();
    if (row >= e.queries()) return;
    float* const values = shared + threadIdx.y * t;
    d += static_cast<long long>(row) * t;
    out += static_cast<long long>(row) * t;
    float top = kLowest, sum = 0.0f;
#pragma unroll 4
    for (int j = threadIdx.x; j < t; j += kLanes) {
        values[j] = logit(d[j], j == row % e.generated, scalars, temperature);
        top = fmaxf(top, values[j]);
    }
    top = warp_max(top);
#pragma unroll 4
    for (int j = threadIdx.x; j < t; j += kLanes) {
        values[j] = __expf(values[j] - top);
        sum += values[j];
    }
    const float factor = 1.0f / warp_sum(sum);
#pragma unroll 4
    for (int j = threadIdx.x; j < t; j += kLanes) out[j] = values[j] * factor;
}

// The softmax over queries; a block has some columns of a group, which wait in shared memory.
KERNEL column_softmax(Extents e, const float* __restrict__ d, const float* __restrict__ scalars, float temperature,
                      float* __restrict__ out) {
    extern __shared__ float shared[];
    __shared__ float parts[kLanes * kMaxWarps];
    const int t = e.targets(), width = blockDim.x, strips = (t + width - 1) / width;
    const int j = blockIdx.x % strips * width + threadIdx.x;
    const long long first = static_cast<long long>(blockIdx.x / strips) * e.generated * t + j;
    float* const values = shared + threadIdx.x;
    float* const own = parts + threadIdx.x;
    float top = kLowest, sum = 0.0f;
    if (j < t) {
#pragma unroll 4
        for (int i = threadIdx.y; i < e.generated; i += blockDim.y) {
            const float l = logit(d[first + static_cast<long long>(i) * t], i == j, scalars, temperature);
            values[i * width] = l;
            top = fmaxf(top, l);
        }
    }
    own[threadIdx.y * width] = top;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.y; ++i) top = fmaxf(top, own[i * width]);
    __syncthreads();
    if (j < t) {
#pragma unroll 4
        for (int i = threadIdx.y; i < e.generated; i += blockDim.y) {
            values[i * width] = __expf(values[i * width] - top);
            sum += values[i * width];
        }
    }
    own[threadIdx.y * width] = sum;
    __syncthreads();
    sum = 0.0f;
    for (unsigned i = 0; i < blockDim.y; ++i) sum += own[i * width];
    const float factor = 1.0f / sum;
    if (j >= t) return;
#pragma unroll 4
    for (int i = threadIdx.y; i < e.generated; i += blockDim.y) {
        out[first + static_cast<long long>(i) * t] = values[i * width] * factor;
    }
}

// Affinities in the place of the row softmax, and each query's sums of both kinds [B, G, 2].
KERNEL affinities(Extents e, float* __restrict__ a, const float* __restrict__ columns, float2* __restrict__ masses) {
    const int row = row_of_warp(), t = e.targets(), negative = e.generated + e.negatives;
    if (row >= e.queries()) return;
    a += static_cast<long long>(row) * t;
    columns += static_cast<long long>(row) * t;
    float minus = 0.0f, plus = 0.0f;
#pragma unroll 4
    for (int j = threadIdx.x; j < t; j += kLanes) {
        a[j] = sqrt_fast(fmaxf(a[j] * columns[j], 1e-6f));
        (j < negative ? minus : plus) += a[j];
    }
    minus = warp_sum(minus);
    plus = warp_sum(plus);
    if (threadIdx.x == 0) masses[row] = make_float2(minus, plus);
}

// Coefficients, as the product takes them, and each query's sum of these.
KERNEL coefficients(Extents e, const float* __restrict__ a, const float2* __restrict__ masses, Sample* __restrict__ c,
                    float* __restrict__ sums) {
    const int row = row_of_warp(), t = e.targets(), negative = e.generated + e.negatives;
    if (row >= e.queries()) return;
    a += static_cast<long long>(row) * t;
    c += static_cast<long long>(row) * t;
    const float minus = masses[row].x, plus = masses[row].y;
    float sum = 0.0f;
#pragma unroll 4
    for (int j = threadIdx.x; j < t; j += kLanes) {
        Sample rounded;
        round_to(&rounded, a[j] * (j < negative ? -plus : minus));
        c[j] = rounded;
        sum += to_float(rounded);
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) sums[row] = sum;
}

// Forces of a temperature in the place of the product, in scaled coordinates, and the sum of their squares by blocks.
KERNEL forces(Extents e, float* __restrict__ f, const Sample* __restrict__ generated, const float* __restrict__ sums,
              const float* __restrict__ scalars, double* __restrict__ parts) {
    const int row = row_of_warp();
    float sum = 0.0f;
    if (row < e.queries()) {
        f += static_cast<long long>(row) * e.dim;
        generated += static_cast<long long>(row) * e.dim;
        const float factor = 1.0f / scalars[kSigma], mass = sums[row];
#pragma unroll 4
        for (int k = threadIdx.x; k < e.dim; k += kLanes) {
            const float force = (f[k] - mass * to_float(generated[k])) * factor;
            f[k] = force;
            sum += force * force;
        }
    }
    const double whole = block_sum(sum);
    if (threadIdx.x == 0 && threadIdx.y == 0) parts[blockIdx.x] = whole;
}

// The root of the mean square; one block.
KERNEL theta(Extents e, const double* __restrict__ parts, int count, float* __restrict__ scalars) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += parts[i];
    const float f2 = static_cast<float>(block_sum(sum) / (static_cast<double>(e.queries()) * e.dim));
    if (threadIdx.x == 0) scalars[kTheta] = sqrtf(fmaxf(f2, 1e-8f));
}

// Adds the forces of a temperature to the sum; the first begins it.
KERNEL accumulate(Extents e, const float* __restrict__ f, const float* __restrict__ scalars, int first,
                  float* __restrict__ total) {
    const int row = row_of_warp();
    if (row >= e.queries()) return;
    f += static_cast<long long>(row) * e.dim;
    total += static_cast<long long>(row) * e.dim;
    const float factor = 1.0f / scalars[kTheta];
#pragma unroll 4
    for (int k = threadIdx.x; k < e.dim; k += kLanes) total[k] = (first ? 0.0f : total[k]) + f[k] * factor;
}

// The gradient of the losses' sum in the place of the forces, and the loss of each group; a block has one.
KERNEL loss(Extents e, float* __restrict__ gradient, const float* __restrict__ scalars, float* __restrict__ losses) {
    const int count = e.generated * e.dim;
    gradient += static_cast<long long>(blockIdx.x) * count;
    const float factor = -2.0f / (static_cast<float>(count) * scalars[kSigma]);
    float sum = 0.0f;
#pragma unroll 4
    for (int k = threadIdx.x; k < count; k += blockDim.x) {
        sum += gradient[k] * gradient[k];
        gradient[k] *= factor;
    }
    const double whole = block_sum(sum);
    if (threadIdx.x == 0) losses[blockIdx.x] = static_cast<float>(whole / count);
}
