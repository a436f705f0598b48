// Phase B, first half: the softmax statistics of rows and columns for every temperature, and of each row the masses
// S- = sum of A over the negatives, S+ = sum over the positives (spec 2.2 (6)), and its greatest coefficient.
//
// Numerics: of a row or column the least normalised distance m is found first, then sum_j exp(log k(n_j) - log k(m)),
// so that the targets that matter never underflow. Sums are f32 over at most T / 32 terms a lane, then a tree. A row
// without any pair has m = inf and the logarithm -inf; none of its affinities is asked for. NaN reaches every sum.
#pragma once

#include "common.cuh"

namespace statistics {

// Temperatures that a thread keeps sums of at a time.
constexpr int kAtOnce = 4;

// A row, by a warp: lanes along the targets.
template <typename T>
__device__ __forceinline__ void row(const DriftCall& call, const DriftHead& head, int b, int i) {
    const int lane = threadIdx.x % kWarp;
    const Unit unit = unit_of(head);
    float least_n = infinity();
    for (int j = lane; j < head.targets; j += kWarp) {
        if (removed(call, i, j, weight(call, head, b, j))) continue;
        least_n = least(least_n, normalized<T>(call, head, unit, b, i, j));
    }
    least_n = warp_least(least_n);
    const long long at = static_cast<long long>(b) * head.generated + i;
    for (int r0 = 0; r0 < call.temperatures; r0 += kAtOnce) {
        float sum[kAtOnce] = {};
        for (int j = lane; j < head.targets; j += kWarp) {
            const float w = weight(call, head, b, j);
            if (removed(call, i, j, w)) continue;
            const float n = normalized<T>(call, head, unit, b, i, j);
            const float factor = call.weights == kWeightLogit ? w : 1.0f;
#pragma unroll
            for (int k = 0; k < kAtOnce; ++k) {
                if (r0 + k < call.temperatures) {
                    sum[k] += factor * kernel_ratio<false>(call, r0 + k, n, least_n);
                }
            }
        }
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
            const float total = warp_sum(sum[k]);
            if (lane == 0 && r0 + k < call.temperatures) head.row_log[at * call.temperatures + r0 + k] = logf(total);
        }
    }
    if (lane == 0) head.row_least[at] = least_n;
}

// The sums over the rows of a block, each warp's apart.
struct RowSums {
    double sums[kMaxTemperatures][kRowSums][kWarps];

    __device__ __forceinline__ void clear() {
        for (int k = threadIdx.x; k < kMaxTemperatures * kRowSums * kWarps; k += kThreads) (&sums[0][0][0])[k] = 0.0;
        __syncthreads();
    }

    // Stores the block's record, one of `records` for each temperature.
    __device__ __forceinline__ void store(const DriftCall& call, const DriftHead& head, long long record,
                                          long long records) {
        __syncthreads();
        if (threadIdx.x >= call.temperatures * kRowSums) return;
        const int r = threadIdx.x / kRowSums, which = threadIdx.x % kRowSums;
        double sum = 0.0;
        for (int k = 0; k < kWarps; ++k) sum += sums[r][which][k];
        head.row_sums[(r * records + record) * kRowSums + which] = sum;
    }
};

// Affinities are squared times this, so that squares of 1e-31 are no zeros yet and those of 1e6 finite.
constexpr float kRaise = 1099511627776.0f;

// The effective sample size from a mass and its raised squares; 0 without mass.
__device__ __forceinline__ float effective(float mass, float squares) {
    const float raised = mass * kRaise;
    return squares == 0.0f ? 0.0f : raised * (raised / squares);
}

// The masses of a row for one temperature: each lane adds up its affinities, then the lanes.
struct Masses {
    float negative = 0.0f, positive = 0.0f, squares_negative = 0.0f, squares_positive = 0.0f;
    float peak_negative = 0.0f, peak_positive = 0.0f;

    __device__ __forceinline__ void attract(float a) {
        const float raised = a * kRaise;
        positive += a;
        squares_positive = fmaf(raised, raised, squares_positive);
        peak_positive = fmaxf(peak_positive, a);
    }

    __device__ __forceinline__ void repel(float a) {
        const float raised = a * kRaise;
        negative += a;
        squares_negative = fmaf(raised, raised, squares_negative);
        peak_negative = fmaxf(peak_negative, a);
    }

    __device__ __forceinline__ void add(float a, bool attracts) {
        if (attracts) {
            attract(a);
        } else {
            repel(a);
        }
    }

    __device__ __forceinline__ void reduce() {
        negative = warp_sum(negative);
        positive = warp_sum(positive);
        squares_negative = warp_sum(squares_negative);
        squares_positive = warp_sum(squares_positive);
        peak_negative = -warp_least(-peak_negative);
        peak_positive = -warp_least(-peak_positive);
    }

    // The greatest coefficient.
    __device__ __forceinline__ float peak() const { return fmaxf(peak_negative * positive, peak_positive * negative); }

    // Stores them, by one lane.
    __device__ __forceinline__ void store(const DriftCall& call, const DriftHead& head, long long query, int r,
                                          RowSums* rows) const {
        float* mass = head.mass + 3 * (query * call.temperatures + r);
        mass[0] = negative;
        mass[1] = positive;
        mass[2] = peak();
        double(*sums)[kWarps] = rows->sums[r];
        const int warp = threadIdx.x / kWarp;
        sums[0][warp] += negative;
        sums[1][warp] += positive;
        sums[2][warp] += effective(negative, squares_negative);
        sums[3][warp] += effective(positive, squares_positive);
    }
};

// The masses of a row, by a warp, when the statistics of the row and of all columns are there.
template <typename T>
__device__ __forceinline__ void masses(const DriftCall& call, const DriftHead& head, int b, int i, RowSums* rows) {
    const int lane = threadIdx.x % kWarp;
    const Unit unit = unit_of(head);
    const long long at = static_cast<long long>(b) * head.generated + i;
    const float row_least = head.row_least[at];
#pragma unroll 1
    for (int r = 0; r < call.temperatures; ++r) {
        const float row_log = head.row_log[at * call.temperatures + r];
        Masses masses;
        for (int j = lane; j < head.targets; j += kWarp) {
            const float w = weight(call, head, b, j);
            if (removed(call, i, j, w)) continue;
            const float n = normalized<T>(call, head, unit, b, i, j);
            const long long column = static_cast<long long>(b) * head.targets + j;
            const Norms norms = {row_least, head.column_least[column], row_log,
                                 head.column_log[column * call.temperatures + r]};
            masses.add(affinity(call, n, w, call.rate[r], norms), j >= head.generated + head.negatives);
        }
        masses.reduce();
        if (lane == 0) masses.store(call, head, at, r, rows);
    }
}

}  // namespace statistics
