// Phase B, first half: the softmax statistics of rows and columns for every temperature, and of each row the masses
// S- = sum of A over the negatives, S+ = sum over the positives (spec 2.2 (6)), and its greatest coefficient.
//
// Numerics: of a row or column the least normalised distance m is found first, then sum_j exp(log k(n_j) - log k(m)),
// so that the targets that matter never underflow. Sums are f32 over at most T / 32 terms a lane, then a tree. A row
// without any pair has m = inf and the logarithm -inf; none of its affinities is asked for. NaN reaches every sum.
#pragma once

#include "common.cuh"

namespace statistics {

// Temperatures that a thread keeps sums of at a time: as many as published calls have.
constexpr int kAtOnce = 3;

// Shows the targets of a query to the lanes of a warp, kind by kind: the target, its kind, its number among those, its
// normalised distance.
template <typename T, typename F>
__device__ __forceinline__ void over_row(const DriftCall& call, const DriftHead& head, const Unit& unit, int b, int i,
                                         F f) {
    const int lane = threadIdx.x % kWarp;
    const float* stored = nullptr;
    Sample<T> x;
    const bool few = head.dim <= kFew;
    if (head.distances != nullptr) {
        stored = head.distances + (static_cast<long long>(b) * head.generated + i) * head.targets;
    } else if (few) {
        x.take(head, target<T>(head, b, i));
    }
    int first = 0;
#pragma unroll 1
    for (int kind = 0; kind < 3; ++kind) {
        const int count = kind == 0 ? head.generated : kind == 1 ? head.negatives : head.positives;
        const Samples& samples = head.samples[kind];
        const long long step = samples.sample * kWarp;
        const T* y = static_cast<const T*>(samples.data) + b * samples.group + lane * samples.sample;
#pragma unroll 1
        for (int k = lane; k < count; k += kWarp, y += step) {
            const int j = first + k;
            const float d = stored != nullptr ? stored[j]
                            : few             ? x.distance(call, head, y, i == j)
                                              : distance<T>(call, head, b, i, j);
            f(j, kind, k, in_units(call, unit, d, i == j));
        }
        first += count;
    }
}

// The row of this warp, or nothing.
struct Row {
    int b, i;
};

__device__ __forceinline__ bool row_of(const DriftHead& head, int block, Row* row) {
    const long long at = static_cast<long long>(block) * kWarps + threadIdx.x / kWarp;
    *row = {static_cast<int>(at / head.generated), static_cast<int>(at % head.generated)};
    return at < static_cast<long long>(head.groups) * head.generated;
}

// The column of this lane, which may be beyond the last: a block has 32 of a group.
struct Column {
    int b, j;
    bool inside;
};

__device__ __forceinline__ Column column_of(const DriftHead& head, int block) {
    const int tiles = tiles_of(head.targets, kWarp);
    const int j = block % tiles * kWarp + static_cast<int>(threadIdx.x) % kWarp;
    return {block / tiles, j, j < head.targets};
}

// Shows a target's queries to its warp's share of the block: the query and the normalised distance.
template <typename T, typename F>
__device__ __forceinline__ void over_column(const DriftCall& call, const DriftHead& head, const Unit& unit, int b,
                                            int j, F f) {
    const int warp = threadIdx.x / kWarp;
    const float* stored = nullptr;
    Sample<T> y;
    const bool few = head.dim <= kFew;
    if (head.distances != nullptr) {
        stored = head.distances + (static_cast<long long>(b) * head.generated + warp) * head.targets + j;
    } else if (few) {
        y.take(head, target<T>(head, b, j));
    }
    const Samples& samples = head.samples[0];
    const T* x = static_cast<const T*>(samples.data) + b * samples.group + warp * samples.sample;
    const long long step = samples.sample * kWarps, row = static_cast<long long>(head.targets) * kWarps;
#pragma unroll 1
    for (int i = warp; i < head.generated; i += kWarps, x += step) {
        const float d = stored != nullptr ? *stored
                        : few             ? y.distance(call, head, x, i == j)
                                          : distance<T>(call, head, b, i, j);
        if (stored != nullptr) stored += row;
        f(i, in_units(call, unit, d, i == j));
    }
}

// A row, by a warp: lanes along the targets. Of the official affinity no pair is removed and none weighted here.
template <typename T, bool kOfficial>
__device__ __forceinline__ void row(const DriftCall& call, const DriftHead& head, int b, int i) {
    const int lane = threadIdx.x % kWarp;
    const Unit unit = unit_of(head);
    float least_n = infinity();
    over_row<T>(call, head, unit, b, i, [&](int j, int, int, float n) {
        if (!kOfficial && removed(call, i, j, weight(call, head, b, j))) return;
        least_n = least(least_n, n);
    });
    least_n = warp_least(least_n);
    const long long at = static_cast<long long>(b) * head.generated + i;
#pragma unroll 1
    for (int r0 = 0; r0 < call.temperatures; r0 += kAtOnce) {
        float sum[kAtOnce] = {};
        over_row<T>(call, head, unit, b, i, [&](int j, int, int, float n) {
            float factor = 1.0f;
            if (!kOfficial) {
                const float w = weight(call, head, b, j);
                if (removed(call, i, j, w)) return;
                if (call.weights == kWeightLogit) factor = w;
            }
#pragma unroll
            for (int k = 0; k < kAtOnce; ++k) {
                if (r0 + k >= call.temperatures) break;
                const float ratio = kernel_ratio<kOfficial>(call, r0 + k, n, least_n);
                sum[k] += kOfficial ? ratio : factor * ratio;
            }
        });
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

    // Adds what rows of this warp have.
    __device__ __forceinline__ void add(int r, float negative, float positive, float effective_negative,
                                        float effective_positive) {
        double(*of)[kWarps] = sums[r];
        const int warp = threadIdx.x / kWarp;
        of[0][warp] += negative;
        of[1][warp] += positive;
        of[2][warp] += effective_negative;
        of[3][warp] += effective_positive;
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

    // Adds up over so many neighbouring lanes. An affinity that is no number shows in the sums.
    template <int kLanes = kWarp>
    __device__ __forceinline__ void reduce() {
        negative = lanes_sum<kLanes>(negative);
        positive = lanes_sum<kLanes>(positive);
        squares_negative = lanes_sum<kLanes>(squares_negative);
        squares_positive = lanes_sum<kLanes>(squares_positive);
        peak_negative = lanes_most<kLanes>(peak_negative);
        peak_positive = lanes_most<kLanes>(peak_positive);
    }

    // The greatest coefficient.
    __device__ __forceinline__ float peak() const { return fmaxf(peak_negative * positive, peak_positive * negative); }

    __device__ __forceinline__ void store(const DriftCall& call, const DriftHead& head, long long query, int r) const {
        float* mass = head.mass + 3 * (query * call.temperatures + r);
        mass[0] = negative;
        mass[1] = positive;
        mass[2] = peak();
    }

    // Stores them and adds them to those of other rows, by one lane.
    __device__ __forceinline__ void store(const DriftCall& call, const DriftHead& head, long long query, int r,
                                          RowSums* rows) const {
        store(call, head, query, r);
        rows->add(r, negative, positive, effective(negative, squares_negative), effective(positive, squares_positive));
    }

    // The same of a row in every kLanes lanes, where there `is` one.
    template <int kLanes>
    __device__ __forceinline__ void store(const DriftCall& call, const DriftHead& head, long long query, int r,
                                          RowSums* rows, bool is) const {
        const int lane = threadIdx.x % kWarp;
        if (is && lane % kLanes == 0) store(call, head, query, r);
        float sums[kRowSums] = {negative, positive, effective(negative, squares_negative),
                                effective(positive, squares_positive)};
        for (int k = 0; k < kRowSums; ++k) {
            if (!is) sums[k] = 0.0f;
            for (int far = kLanes; far < kWarp; far *= 2) sums[k] += __shfl_xor_sync(kAllLanes, sums[k], far);
        }
        if (lane == 0) rows->add(r, sums[0], sums[1], sums[2], sums[3]);
    }
};

// The masses of a row, by a warp, when the statistics of the row and of all columns are there.
template <typename T, bool kOfficial>
__device__ __forceinline__ void masses(const DriftCall& call, const DriftHead& head, int b, int i, RowSums* rows) {
    const int lane = threadIdx.x % kWarp;
    const Unit unit = unit_of(head);
    const long long at = static_cast<long long>(b) * head.generated + i;
    const float row_least = head.row_least[at];
    const float* column_least = head.column_least + static_cast<long long>(b) * head.targets;
    const float* column_log = head.column_log + static_cast<long long>(b) * head.targets * call.temperatures;
    const bool coupled = !kOfficial && call.coupled;
#pragma unroll 1
    for (int r0 = 0; r0 < call.temperatures; r0 += kAtOnce) {
        // Where rows have mass 1, of the negatives and of the positives.
        float row_log[kAtOnce] = {}, other_log[kAtOnce] = {};
        for (int k = 0; k < kAtOnce; ++k) {
            if (r0 + k >= call.temperatures) break;
            const float* log = head.row_log + (coupled ? 2 : 1) * (at * call.temperatures + r0 + k);
            row_log[k] = log[0];
            if (coupled) other_log[k] = log[1];
        }
        Masses masses[kAtOnce];
        over_row<T>(call, head, unit, b, i, [&](int j, int kind, int, float n) {
            const float w = weight(call, head, b, j);
            if (!kOfficial && removed(call, i, j, w)) return;
            const float least_n = coupled ? 0.0f : column_least[j];
            const float* log = column_log + static_cast<long long>(j) * call.temperatures + r0;
#pragma unroll
            for (int k = 0; k < kAtOnce; ++k) {
                if (r0 + k >= call.temperatures) break;
                const float own = coupled && kind == 2 ? other_log[k] : row_log[k];
                const float a = affinity_of<kOfficial>(call, r0 + k, n, w, Norms{row_least, least_n, own, log[k]});
                if (kind == 2) {
                    masses[k].attract(a);
                } else {
                    masses[k].repel(a);
                }
            }
        });
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
            if (r0 + k >= call.temperatures) break;
            masses[k].reduce();
            if (lane == 0) masses[k].store(call, head, at, r0 + k, rows);
        }
    }
}

}  // namespace statistics
