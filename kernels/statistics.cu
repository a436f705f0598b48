// Phase B, first half: the softmax statistics of rows and columns for every temperature, and the masses
// S- = sum of A over the negatives, S+ = sum over the positives, of every row (spec 2.2 (6)).
//
// Numerics: of a row or column the least normalised distance m is found first, then sum_j exp(log k(n_j) - log k(m)), so
// that the targets that matter never underflow. Sums are f32 over at most T / 32 terms a lane, then a tree. A row
// without any pair has m = inf and the logarithm -inf; none of its affinities is asked for. NaN reaches every sum.
// Mapping: rows and masses, one warp a row, lanes along the targets. Columns, one block for 32 columns: lanes along the
// targets, eight warps along the queries, joined through shared memory.
// Cost: R exponentials a pair for rows, for columns and for masses, and three reads of the distances; bound by special
// functions.
// Limits: sm_80 and later.
#include "common.cuh"

namespace statistics {

__device__ __forceinline__ float warp_least(float x) {
    for (int lane = kWarp / 2; lane > 0; lane /= 2) x = least(x, __shfl_xor_sync(kAllLanes, x, lane));
    return x;
}

__device__ __forceinline__ float warp_sum_float(float x) {
    for (int lane = kWarp / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(kAllLanes, x, lane);
    return x;
}

// The row of this warp, or nothing.
struct Row {
    int b, i;
    const float* distances;
};

__device__ __forceinline__ bool row_of(const DriftParams& p, Row* row) {
    const long long at = static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (at >= static_cast<long long>(p.groups) * p.generated) return false;
    *row = {static_cast<int>(at / p.generated), static_cast<int>(at % p.generated), p.distances + at * p.targets};
    return true;
}

}  // namespace statistics

extern "C" __global__ void __launch_bounds__(kThreads, 2) row_statistics(const __grid_constant__ DriftParams p) {
    statistics::Row row;
    if (!statistics::row_of(p, &row)) return;
    const int lane = threadIdx.x % kWarp;
    const float unit = static_cast<float>(p.scalars->distance);
    float least_n = __uint_as_float(0x7f800000u);
    for (int j = lane; j < p.targets; j += kWarp) {
        if (removed(p, row.i, j, weight(p, row.b, j))) continue;
        least_n = least(least_n, normalized(p, row.distances[j], unit, row.i, j));
    }
    least_n = statistics::warp_least(least_n);
    float sum[kMaxTemperatures] = {};
    for (int j = lane; j < p.targets; j += kWarp) {
        const float w = weight(p, row.b, j);
        if (removed(p, row.i, j, w)) continue;
        const float n = normalized(p, row.distances[j], unit, row.i, j);
        const float factor = p.weights == kWeightLogit ? w : 1.0f;
        for (int r = 0; r < kMaxTemperatures; ++r) {
            if (r < p.temperatures) sum[r] += factor * expf(log_ratio(p.kernel, n, least_n, p.rate[r]));
        }
    }
    const long long at = static_cast<long long>(row.b) * p.generated + row.i;
    for (int r = 0; r < kMaxTemperatures; ++r) {
        if (r >= p.temperatures) break;
        const float total = statistics::warp_sum_float(sum[r]);
        if (lane == 0) p.row_log[at * p.temperatures + r] = logf(total);
    }
    if (lane == 0) p.row_least[at] = least_n;
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) column_statistics(const __grid_constant__ DriftParams p) {
    __shared__ float partial[kWarps][kWarp];
    const int tiles = (p.targets + kWarp - 1) / kWarp;
    const int b = blockIdx.x / tiles, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int j = blockIdx.x % tiles * kWarp + lane;
    const bool inside = j < p.targets;
    const float w = inside ? weight(p, b, j) : 0.0f;
    const float* column = p.distances + static_cast<long long>(b) * p.generated * p.targets + j;
    const float unit = static_cast<float>(p.scalars->distance);
    float least_n = __uint_as_float(0x7f800000u);
    for (int i = warp; inside && i < p.generated; i += kWarps) {
        if (removed(p, i, j, w)) continue;
        least_n = least(least_n, normalized(p, column[static_cast<long long>(i) * p.targets], unit, i, j));
    }
    partial[warp][lane] = least_n;
    __syncthreads();
    for (int k = 0; k < kWarps; ++k) least_n = least(least_n, partial[k][lane]);
    const long long at = static_cast<long long>(b) * p.targets + j;
    float sum[kMaxTemperatures] = {};
    for (int i = warp; inside && i < p.generated; i += kWarps) {
        if (removed(p, i, j, w)) continue;
        const float n = normalized(p, column[static_cast<long long>(i) * p.targets], unit, i, j);
        for (int r = 0; r < kMaxTemperatures; ++r) {
            if (r < p.temperatures) sum[r] += expf(log_ratio(p.kernel, n, least_n, p.rate[r]));
        }
    }
    for (int r = 0; r < kMaxTemperatures; ++r) {
        if (r >= p.temperatures) break;
        __syncthreads();
        partial[warp][lane] = sum[r];
        __syncthreads();
        if (warp == 0 && inside) {
            float total = 0.0f;
            for (int k = 0; k < kWarps; ++k) total += partial[k][lane];
            p.column_log[at * p.temperatures + r] = logf(total);
        }
    }
    if (warp == 0 && inside) p.column_least[at] = least_n;
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) masses(const __grid_constant__ DriftParams p) {
    statistics::Row row;
    if (!statistics::row_of(p, &row)) return;
    const int lane = threadIdx.x % kWarp;
    const float unit = static_cast<float>(p.scalars->distance);
    const long long at = static_cast<long long>(row.b) * p.generated + row.i;
    const float row_least = p.row_least[at];
    float negative[kMaxTemperatures] = {}, positive[kMaxTemperatures] = {};
    for (int j = lane; j < p.targets; j += kWarp) {
        const float w = weight(p, row.b, j);
        if (removed(p, row.i, j, w)) continue;
        const float n = normalized(p, row.distances[j], unit, row.i, j);
        const long long column = static_cast<long long>(row.b) * p.targets + j;
        const float column_least = p.column_least[column];
        const bool attracts = j >= p.generated + p.negatives;
#pragma unroll
        for (int r = 0; r < kMaxTemperatures; ++r) {
            if (r >= p.temperatures) continue;
            const Norms norms = {row_least, column_least, p.row_log[at * p.temperatures + r],
                                 p.column_log[column * p.temperatures + r]};
            const float a = affinity(p, n, w, p.rate[r], norms);
            negative[r] += attracts ? 0.0f : a;
            positive[r] += attracts ? a : 0.0f;
        }
    }
    for (int r = 0; r < kMaxTemperatures; ++r) {
        if (r >= p.temperatures) break;
        const float minus = statistics::warp_sum_float(negative[r]), plus = statistics::warp_sum_float(positive[r]);
        if (lane == 0) {
            p.mass[2 * (at * p.temperatures + r)] = minus;
            p.mass[2 * (at * p.temperatures + r) + 1] = plus;
        }
    }
}
