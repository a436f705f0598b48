// Phase B of groups that are one block: the statistics of its rows and columns, the masses, and of each temperature the
// sum of F^2 (spec 2.2 (6)), from which theta follows; F itself is not stored.
//
// Numerics: as in statistics.cuh and contraction.cu.
// Mapping: one block a group. Its normalised distances lie in shared memory, where the stages will: a warp has every
// eighth row, its lanes along the targets; a thread has a column. Of each temperature a row's affinities then stay in
// registers, seven a lane, until they are added up and are coefficients. With those of as many temperatures as fit into
// shared memory the targets are multiplied, stage by stage; more temperatures take more passes. Stages and products as
// in contraction.cu.
// Norms come from the forces, or by the zero-sum identity where the plan has the distances of the targets among
// themselves: then the targets are the rows of a matrix of those.
// Cost: three exponentials a pair and temperature; 2 FLOP a pair, coordinate (by the identity: target) and temperature.
// Reads 4 G T bytes of distances and T D of targets a pass, by the identity 2 T^2 bytes of distances in the place of
// these.
// Limits: sm_80 and later; G <= 64, T <= 224.
#include "coefficients.cuh"
#include "statistics.cuh"

namespace contraction {

// Columns of a row that a lane has.
constexpr int kPerLane = kMaxColumns / kWarp;

// A group's normalised distances in shared memory, [G, width]; infinite where there is no affinity.
struct Distances {
    float* data;
    int width;

    __device__ __forceinline__ float* row(int i) const { return data + i * width; }

    template <typename T>
    __device__ __forceinline__ void take(const DriftCall& call, const DriftHead& head, const Columns& columns,
                                         int b) const {
        const int lane = threadIdx.x % kWarp;
        const Unit unit = unit_of(head);
        for (int i = threadIdx.x / kWarp; i < head.generated; i += kWarps) {
            for (int j = lane; j < width; j += kWarp) row(i)[j] = pair<T>(call, head, unit, b, i, j, columns.weight[j]);
        }
    }
};

// The statistics of the rows, by their warps, whose distances lie in `n`.
template <bool kOfficial>
__device__ __forceinline__ void rows_of(const DriftCall& call, const DriftHead& head, const Distances& n,
                                        const Columns& columns, int b) {
    const int lane = threadIdx.x % kWarp;
    for (int i = threadIdx.x / kWarp; i < head.generated; i += kWarps) {
        const float* row = n.row(i);
        float least_n = infinity();
        for (int j = lane; j < n.width; j += kWarp) least_n = least(least_n, row[j]);
        least_n = warp_least(least_n);
        const long long at = static_cast<long long>(b) * head.generated + i;
#pragma unroll 1
        for (int k = 0; k < call.temperatures; ++k) {
            float sum = 0.0f;
            for (int j = lane; j < n.width; j += kWarp) {
                // Without any pair every difference is none.
                if (row[j] == infinity()) continue;
                const float factor = !kOfficial && call.weights == kWeightLogit ? columns.weight[j] : 1.0f;
                sum += factor * kernel_ratio<kOfficial>(call, k, row[j], least_n);
            }
            sum = warp_sum(sum);
            if (lane == 0) head.row_log[at * call.temperatures + k] = logf(sum);
        }
        if (lane == 0) head.row_least[at] = least_n;
    }
}

// The statistics of the columns, a thread each, for this block and for the force.
template <bool kOfficial>
__device__ __forceinline__ void columns_of(const DriftCall& call, const DriftHead& head, const Distances& n,
                                           const Columns& columns, int b) {
    const int j = threadIdx.x;
    if (j >= head.targets) return;
    float least_n = infinity();
    for (int i = 0; i < head.generated; ++i) least_n = least(least_n, n.row(i)[j]);
    const long long at = static_cast<long long>(b) * head.targets + j;
    head.column_least[at] = columns.least[j] = least_n;
#pragma unroll 1
    for (int k = 0; k < call.temperatures; ++k) {
        float sum = 0.0f;
#pragma unroll 4
        for (int i = 0; i < head.generated; ++i) {
            const float value = n.row(i)[j];
            if (value == infinity()) continue;
            sum += kernel_ratio<kOfficial>(call, k, value, least_n);
        }
        head.column_log[at * call.temperatures + k] = columns.log[k * columns.width + j] = logf(sum);
    }
}

// The coefficients of temperatures r, r + 1, ..., each in a slot of its own, by the rows' warps; and the rows' masses.
template <bool kOfficial, typename C>
__device__ __forceinline__ void couple(const DriftCall& call, const DriftHead& head, const Distances& n,
                                       const Columns& columns, const Coefficients<C>& c, Rows* rows,
                                       statistics::RowSums* row_sums, int b, int r, int slots) {
    const int lane = threadIdx.x % kWarp;
    const int attracting = head.generated + head.negatives;
#pragma unroll 1
    for (int at = threadIdx.x / kWarp; at < slots * kTile; at += kWarps) {
        const int slot = at / kTile, i = at % kTile, k = r + slot;
        C* to = c.row(slot, i);
        if (i >= head.generated) {
            for (int j = lane; j < c.width; j += kWarp) round_to(to + j, 0.0f);
            if (lane == 0) {
                rows->unit[slot][i] = 1.0f;
                rows->rest[slot][i] = 0.0f;
            }
            continue;
        }
        const long long query = static_cast<long long>(b) * head.generated + i;
        const float row_least = head.row_least[query], row_log = head.row_log[query * call.temperatures + k];
        statistics::Masses masses;
        float a[kPerLane];
#pragma unroll
        for (int m = 0; m < kPerLane; ++m) {
            const int j = lane + m * kWarp;
            a[m] = 0.0f;
            if (m * kWarp >= c.width) continue;
            const float value = n.row(i)[j];
            if (value == infinity()) continue;
            a[m] = affinity_of<kOfficial>(call, k, value, columns.weight[j], columns.norms(j, k, row_least, row_log));
            masses.add(a[m], j >= attracting);
        }
        masses.reduce();
        if (lane == 0) masses.store(call, head, query, k, row_sums);
        float inverse;
        const float power = power_below(masses.peak(), &inverse);
        const float pull = masses.negative * inverse, push = -masses.positive * inverse;
        float rest = 0.0f;
#pragma unroll
        for (int m = 0; m < kPerLane; ++m) {
            const int j = lane + m * kWarp;
            if (m * kWarp >= c.width) continue;
            round_to(to + j, a[m] * (j >= attracting ? pull : push));
            rest += to_float(to[j]);
        }
        rest = warp_sum(rest);
        if (lane == 0) {
            rows->unit[slot][i] = power;
            rows->rest[slot][i] = rest;
        }
    }
}

// Fills a stage with 32 columns of the matrix of the zero-sum identity, from column k on: U with x U x = x K x, where K
// is half of what the square of the mean distance exceeds those of the targets by. Any constant would do, for
// coefficients of a row add up to 0; with the mean most of K is small.
__device__ __forceinline__ void fill_identity(char* stage, const DriftHead& head, float mean, int b, int width, int k) {
    const int word = threadIdx.x % kWordsPerRow;
    const int others = head.targets - head.generated;
    for (int j = threadIdx.x / kWordsPerRow; j < width; j += kThreads / kWordsPerRow) {
        const float* distances =
            j < head.generated ? head.distances + (static_cast<long long>(b) * head.generated + j) * head.targets
                               : head.among + (static_cast<long long>(b) * others + j - head.generated) * head.targets;
        float value[kWordDim<float>];
        for (int e = 0; e < kWordDim<float>; ++e) {
            const int column = k + word * kWordDim<float> + e;
            value[e] = 0.0f;
            // A pair stands in the upper half for both.
            if (j >= head.targets || column >= head.targets || column < j) continue;
            value[e] = column == j ? 0.5f * mean : fmaf(-distances[column], distances[column], mean);
        }
        *reinterpret_cast<float4*>(word_of(stage, j, word)) = make_float4(value[0], value[1], value[2], value[3]);
    }
}

// What the passes of a group share.
struct Group {
    char* stages;
    int width, slots, b;
    Rows* rows;
    statistics::RowSums* row_sums;
    double* scratch;
};

// The coefficients of as many temperatures as have slots, and their norms, pass by pass: from the forces, or by the
// zero-sum identity |F_i|^2 = -1/2 sum_jk C_ij C_ik |y_j - y_k|^2 (spec 2.3), for which coefficients are f32 and the
// targets are the rows of a matrix of their distances.
template <typename T, typename Product, bool kIdentity>
__device__ __forceinline__ void norms(const DriftCall& call, const DriftHead& head, const Group& group,
                                      const Distances& n, const Columns& columns) {
    using C = typename Product::Coefficient;
    constexpr int kDim = kIdentity ? kStageDim<float> : kStageDim<T>;
    const int extent = kIdentity ? head.targets : head.dim, b = group.b, stage_bytes = group.width * kStageRow;
    const bool words = whole_words<T>(head);
    const Coefficients<C> c(group.stages + kStages * stage_bytes, group.width);
    const float mean_squared = static_cast<float>(head.scalars->mean * head.scalars->mean);
    const auto load = [&](int d, int step) {
        char* stage = group.stages + step % kStages * stage_bytes;
        if (kIdentity) {
            fill_identity(stage, head, mean_squared, b, group.width, d);
        } else {
            fill<T>(stage, head, words, b, 0, group.width, d);
            copy_commit();
        }
    };
#pragma unroll 1
    for (int r = 0; r < call.temperatures; r += group.slots) {
        const int slots = min(group.slots, call.temperatures - r);
        // All are done with the columns, or with the stages and the coefficients of the pass before.
        __syncthreads();
        if (r > 0) {
            n.take<T>(call, head, columns, b);
            __syncwarp();
        }
        if (call.official) {
            couple<true>(call, head, n, columns, c, group.rows, group.row_sums, b, r, slots);
        } else {
            couple<false>(call, head, n, columns, c, group.rows, group.row_sums, b, r, slots);
        }
        __syncthreads();
        load(0, 0);
        Product product;
        double squares[Product::kSlots] = {};
#pragma unroll 1
        for (int d = 0, step = 0; d < extent; d += kDim, ++step) {
            copy_wait();
            __syncthreads();
            if (d + kDim < extent) load(d + kDim, step + 1);
            const char* stage = group.stages + step % kStages * stage_bytes;
            if constexpr (kIdentity) {
                product.from_nowhere();
            } else {
                product.at(head, b, d);
            }
            product.add(0, slots, false, c, stage);
            float sums[Product::kSlots] = {};
            product.drain(
                0, slots,
                [&](int row, int at) {
                    // Queries are the first rows of the stage, and zeros beyond the coordinates.
                    return !kIdentity && row < head.generated ? pair_of<T>(stage, row, at) : make_float2(0.0f, 0.0f);
                },
                [&](int s, int row, int at, float2 sum, float2 x) {
                    // Rows beyond the queries have no coefficients, and no sample either.
                    if (row >= head.generated) return;
                    if (kIdentity) {
                        const C* own = c.row(s, row) + d + at;
                        const float unit = group.rows->unit[s][row];
                        sums[s] += fmaf(sum.x, to_float(own[0]), sum.y * to_float(own[1])) * unit * unit;
                    } else {
                        const float2 f = group.rows->force(s, row, sum, x);
                        sums[s] = fmaf(f.x, f.x, fmaf(f.y, f.y, sums[s]));
                    }
                });
#pragma unroll
            for (int s = 0; s < Product::kSlots; ++s) squares[s] += sums[s];
        }
#pragma unroll
        for (int s = 0; s < Product::kSlots; ++s) {
            if (s >= slots) continue;
            double total = block_sum(squares[s], group.scratch);
            // Of forces that cancel, rounding may leave less than nothing.
            if (kIdentity) total = clip_min(total * (static_cast<double>(group.rows->scale) * group.rows->scale), 0.0);
            if (threadIdx.x == 0) head.norm_sums[static_cast<long long>(r + s) * head.groups + b] = total;
        }
    }
}

template <typename T, typename Product>
__device__ __forceinline__ void group(const DriftCall& call) {
    extern __shared__ uint4 shared[];
    __shared__ Rows rows;
    __shared__ statistics::RowSums row_sums;
    __shared__ double scratch[kWarps];
    int b;
    const DriftHead& head = head_of(call, kNorms, &b);
    const int width = head.width;
    char* stages = reinterpret_cast<char*>(shared);
    char* behind = stages + kStages * width * kStageRow;
    const bool identity = head.among != nullptr;
    const int slots = identity ? call.identity_slots : call.slots;
    const Columns columns(identity ? Coefficients<float>(behind, width).end(slots)
                                   : Coefficients<typename Product::Coefficient>(behind, width).end(slots),
                          width);
    static_assert(kTile * sizeof(float) == kStages * kStageRow, "distances take the place of the stages");
    const Distances n = {reinterpret_cast<float*>(stages), width};
    const Group shape = {stages, width, slots, b, &rows, &row_sums, scratch};

    rows.start(call, head, false);
    row_sums.clear();
    columns.weigh(call, head, b, 0);
    __syncthreads();
    n.take<T>(call, head, columns, b);
    __syncwarp();
    if (call.official) {
        rows_of<true>(call, head, n, columns, b);
        __syncthreads();
        columns_of<true>(call, head, n, columns, b);
    } else {
        rows_of<false>(call, head, n, columns, b);
        __syncthreads();
        columns_of<false>(call, head, n, columns, b);
    }
    if (identity) {
        norms<T, Plain<float, kMaxSlots / 2>, true>(call, head, shape, n, columns);
    } else {
        norms<T, Product, false>(call, head, shape, n, columns);
    }
    row_sums.store(call, head, b, head.groups);
}

}  // namespace contraction

// BLOCKS: that a multiprocessor holds at least, as far as registers go. The plain rung on halves, which is there to be
// compared with, is not held to two.
#define GROUP(TYPE, RUNG, SLOTS, BLOCKS, NAME)                          \
    extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS)      \
        group_##NAME(const __grid_constant__ DriftCall call) {          \
        contraction::group<TYPE, contraction::RUNG<TYPE, SLOTS>>(call); \
    }

GROUP(float, Plain, kMaxSlots, 2, f32)
GROUP(Half, Plain, kMaxSlots / 2, 1, f16)
GROUP(Bfloat, Plain, kMaxSlots / 2, 1, bf16)
GROUP(float, Tensor, kMaxSlots, 2, f32_tensor)
GROUP(Half, Tensor, kMaxSlots, 2, f16_tensor)
GROUP(Bfloat, Tensor, kMaxSlots, 2, bf16_tensor)
