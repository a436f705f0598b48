// Phases B, second half, and C: F_bi = sum_j C_bij (y_bj - x_bi) / sigma with the coefficients of spec 2.2 (6),
// C = -A S+ for the negatives and +A S- for the positives.
//   group_*  where a group is one block: the statistics of its rows and columns, the masses, and of each temperature
//            the sum of F^2, from which theta follows; F itself is not stored.
//   norm_*   elsewhere: one temperature a block, the sum of F^2.
//   force_*  all temperatures in one product, sum_R C_R / theta_R: force, gradient -2 F / (G D sigma) (spec 5), and the
//            sum of F^2 for the loss.
//
// Numerics: a row of coefficients is scaled by the power of two that brings its greatest below 2, then rounded to the
// type of the samples on tensor cores, and is f32 in the plain rung. The sum of what was rounded times x is subtracted:
// sum_j C_bij is 0 before rounding only, and a translation of the samples must not show. Products are added in f32 along
// the targets (the plain rung takes them relative to the group's first sample), sums of F^2 are f64 in a fixed order.
// Mapping: one block for 64 queries of a group and a range of coordinates. Coefficients are made from the distances, for
// one tile of targets at a time; stages of 128 bytes of each of the tile's targets pass through shared memory and are
// multiplied. Where one tile holds every target its coefficients stay, and the range is all coordinates; else the sums
// of 128 coordinates are kept while tiles of targets go by. Plain: 16 x 16 threads with 4 queries and
// 8 bytes of coordinates each. Tensor cores: 2 x 4 warps with 32 queries and 16 coordinates each.
// Cost: 2 FLOP per pair and coordinate (and temperature, for the norms); R exponentials per pair and range, and four
// times that in group_*. Reads T D per tile of queries and pass (a pass of group_* serves as many temperatures as fit
// into shared memory), 4 G T bytes of distances per range.
// Limits: sm_80 and later; R B tiles of queries and ranges at most 2^31 - 1 blocks.
#include "common.cuh"
#include "ptx/mma.cuh"
#include "stage.cuh"
#include "statistics.cuh"

namespace contraction {

// Coefficients of 64 queries by a tile of targets, for several temperatures: rows of `stride` elements.
template <typename C>
struct Coefficients {
    C* data;
    int stride, width;

    __device__ __forceinline__ C* row(int slot, int i) const {
        return data + (static_cast<long long>(slot) * kTile + i) * stride;
    }
};

// The plain product: each thread has queries ty + 16 m and as many coordinates from 8 bytes tx on as those hold.
template <typename T, int kSums>
struct Plain {
    using Coefficient = float;
    static constexpr int kSlots = kSums;
    static constexpr int kSide = 16, kM = kTile / kSide, kN = 8 / static_cast<int>(sizeof(T));
    float sum[kSums][kM][kN] = {};

    // The group's first sample at this thread's coordinates, which is subtracted from all others.
    float origin[kN];

    __device__ __forceinline__ void at(const DriftHead& head, int b, int d0) {
        const int tx = threadIdx.x % kSide;
        for (int n = 0; n < kN; ++n) {
            const int d = d0 + tx * kN + n;
            origin[n] = d < head.dim ? to_float(target<T>(head, b, 0)[d]) : 0.0f;
        }
    }

    // Adds to the sums `begin` to `end` the products of the coefficients in their slots, or of those in the first slot.
    __device__ __forceinline__ void add(int begin, int end, bool shared, const Coefficients<float>& c, const char* stage) {
        const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll 1
        for (int j = 0; j < c.width; j += 4) {
            float y[4][kN];
            for (int e = 0; e < 4; ++e) {
                widen(y[e], *reinterpret_cast<const uint2*>(word_of(stage, j + e, tx / 2) + tx % 2 * 8), T{});
                for (int n = 0; n < kN; ++n) y[e][n] -= origin[n];
            }
#pragma unroll
            for (int s = 0; s < kSums; ++s) {
                if (s < begin || s >= end) continue;
                for (int m = 0; m < kM; ++m) {
                    const float4 four = *reinterpret_cast<const float4*>(c.row(shared ? 0 : s, ty + kSide * m) + j);
                    const float a[4] = {four.x, four.y, four.z, four.w};
                    for (int e = 0; e < 4; ++e) {
                        for (int n = 0; n < kN; ++n) sum[s][m][n] = fmaf(a[e], y[e][n], sum[s][m][n]);
                    }
                }
            }
        }
    }

    // Hands out the sums of a slot, and clears them.
    template <typename Take>
    __device__ __forceinline__ void take(int slot, Take take) {
        const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll
        for (int s = 0; s < kSums; ++s) {
            if (s != slot) continue;
            for (int m = 0; m < kM; ++m) {
                for (int n = 0; n < kN; ++n) {
                    take(ty + kSide * m, tx * kN + n, sum[s][m][n], origin[n]);
                    sum[s][m][n] = 0.0f;
                }
            }
        }
    }
};

// On tensor cores: each warp has 32 queries by 16 coordinates.
template <typename T, int kSums>
struct Tensor {
    using Coefficient = T;
    static constexpr int kSlots = kSums;
    static constexpr int kM = 2, kN = 2;
    float sum[kSums][kM][kN][4] = {};

    // Samples in half precision have no digits to lose to a translation that f32 sums do not keep.
    __device__ __forceinline__ void at(const DriftHead&, int, int) {}

    __device__ __forceinline__ void add(int begin, int end, bool shared, const Coefficients<T>& c, const char* stage) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m0 = warp % 2 * 32 + lane % 16, word = warp / 2 * 2 + lane / 16;
#pragma unroll 1
        for (int j = 0; j < c.width; j += 16) {
            unsigned y[4];
            load_matrices_transposed(y, word_of(stage, j + lane % 16, word));
#pragma unroll
            for (int s = 0; s < kSums; ++s) {
                if (s < begin || s >= end) continue;
                for (int m = 0; m < kM; ++m) {
                    unsigned a[4];
                    load_matrices(a, c.row(shared ? 0 : s, m0 + 16 * m) + j + lane / 16 * 8);
                    multiply(sum[s][m][0], a, y[0], y[1], T{});
                    multiply(sum[s][m][1], a, y[2], y[3], T{});
                }
            }
        }
    }

    template <typename Take>
    __device__ __forceinline__ void take(int slot, Take take) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m0 = warp % 2 * 32 + lane / 4, n0 = warp / 2 * 16 + lane % 4 * 2;
#pragma unroll
        for (int s = 0; s < kSums; ++s) {
            if (s != slot) continue;
            for (int m = 0; m < kM; ++m) {
                for (int n = 0; n < kN; ++n) {
                    for (int e = 0; e < 4; ++e) {
                        take(m0 + 16 * m + e / 2 * 8, n0 + 8 * n + e % 2, sum[s][m][n][e], 0.0f);
                        sum[s][m][n][e] = 0.0f;
                    }
                }
            }
        }
    }
};

// What turns sums into forces: of a row, the power of two that its coefficients were divided by, and the sum of what was
// rounded; of all, 1 / sigma, and what turns a force into a gradient.
struct Rows {
    float unit[kMaxSlots][kTile], rest[kMaxSlots][kTile];
    float scale, slope;

    // One thread divides for all, in f64.
    __device__ __forceinline__ void start(const DriftHead& head) {
        if (threadIdx.x != 0) return;
        const double sigma = head.scalars->sigma;
        scale = static_cast<float>(1.0 / sigma);
        slope = static_cast<float>(-2.0 / (static_cast<double>(head.generated) * head.dim * sigma));
    }
};

// The power of two next below x, and its inverse; 1 where there is none.
__device__ __forceinline__ float power_below(float x, float* inverse) {
    const unsigned bits = __float_as_uint(x) & 0x7f800000u;
    const bool usable = bits > 0u && bits < 0x7f000000u;
    *inverse = usable ? __uint_as_float(0x7f000000u - bits) : 1.0f;
    return usable ? __uint_as_float(bits) : 1.0f;
}

// Makes the coefficients of a tile: of temperatures r, r + 1, ... each in a slot of its own, or of all temperatures in
// one slot, each divided by its theta. A warp has every eighth row, the lanes go along the targets.
template <typename T, typename C, bool kNorm>
__device__ __forceinline__ void build(const DriftCall& call, const DriftHead& head, const Coefficients<C>& c, Rows* rows,
                                      int b, int i0, int j0, int r, int slots) {
    const int lane = threadIdx.x % kWarp;
    const float unit = static_cast<float>(head.scalars->distance);
#pragma unroll 1
    for (int at = threadIdx.x / kWarp; at < slots * kTile; at += kWarps) {
        const int slot = at / kTile, row = at % kTile, i = i0 + row;
        const bool inside = i < head.generated;
        const long long query = static_cast<long long>(b) * head.generated + (inside ? i : 0);
        const int begin = kNorm ? r + slot : 0, end = kNorm ? begin + 1 : call.temperatures;
        float bound = 0.0f;
#pragma unroll 1
        for (int k = begin; k < end; ++k) {
            const float peak = head.mass[3 * (query * call.temperatures + k) + 2];
            bound += kNorm ? peak : peak / static_cast<float>(head.scalars->theta[k]);
        }
        float inverse;
        const float power = power_below(bound, &inverse);
        const float row_least = head.row_least[query];
        float rest = 0.0f;
        C* to = c.row(slot, row);
#pragma unroll 1
        for (int column = lane; column < c.width; column += kWarp) {
            const int j = j0 + column;
            float sum = 0.0f;
            if (inside && j < head.targets) {
                const float w = weight(call, head, b, j);
                if (!removed(call, i, j, w)) {
                    const float n = normalized(call, distance<T>(call, head, b, i, j), unit, i, j);
                    const long long target = static_cast<long long>(b) * head.targets + j;
                    const float column_least = head.column_least[target];
                    const bool attracts = j >= head.generated + head.negatives;
#pragma unroll 1
                    for (int k = begin; k < end; ++k) {
                        const Norms norms = {row_least, column_least, head.row_log[query * call.temperatures + k],
                                             head.column_log[target * call.temperatures + k]};
                        const float a = affinity(call, n, w, call.rate[k], norms);
                        const float* mass = head.mass + 3 * (query * call.temperatures + k);
                        const float coefficient = (attracts ? a * mass[0] : -a * mass[1]) * inverse;
                        sum += kNorm ? coefficient : coefficient / static_cast<float>(head.scalars->theta[k]);
                    }
                }
            }
            round_to(to + column, sum);
            rest += to_float(to[column]);
        }
        rest = warp_sum(rest);
        if (lane == 0) {
            rows->unit[slot][row] = power;
            // The same warp has the row in every tile.
            rows->rest[slot][row] = j0 == 0 ? rest : rows->rest[slot][row] + rest;
        }
    }
}

// A stage of a block: a stretch of coordinates, a tile of targets, a stage along the stretch, in that order.
struct Step {
    int d0, tile, lane;

    __device__ __forceinline__ void advance(int lanes, int tiles, int stretch) {
        if (++lane < lanes) return;
        lane = 0;
        if (++tile < tiles) return;
        tile = 0;
        d0 += stretch;
    }
};

// A force from its sum: minus what the rounding left over, times the row's power of two.
template <typename T>
__device__ __forceinline__ float force(const DriftHead& head, const Rows& rows, int b, int i0, int slot, int row, int d,
                                       float sum, float origin) {
    const float x = to_float(target<T>(head, b, i0 + row)[d]) - origin;
    return (sum - rows.rest[slot][row] * x) * (rows.unit[slot][row] * rows.scale);
}

// The statistics of a group, then the norms.
template <typename T, typename Product>
__device__ __forceinline__ void group(const DriftCall& call) {
    using C = typename Product::Coefficient;
    extern __shared__ uint4 shared[];
    __shared__ Rows rows;
    __shared__ statistics::RowSums row_sums;
    __shared__ double scratch[kWarps];
    char* stages = reinterpret_cast<char*>(shared);
    int b;
    const DriftHead& head = head_of(call, kNorms, &b);
    const bool words = whole_words<T>(head);
    const int stage_bytes = head.width * kStageRow;
    rows.start(head);

    for (int i = threadIdx.x / kWarp; i < head.generated; i += kWarps) statistics::row<T>(call, head, b, i);
    if (threadIdx.x < head.targets) statistics::column<T>(call, head, b, threadIdx.x);
    __syncthreads();
    row_sums.clear();
    for (int i = threadIdx.x / kWarp; i < head.generated; i += kWarps) {
        statistics::masses<T>(call, head, b, i, &row_sums);
    }
    row_sums.store(call, head, b, head.groups);
    __syncthreads();

    const Coefficients<C> c = {reinterpret_cast<C*>(stages + kStages * stage_bytes),
                               head.width + kCoefficientPad / static_cast<int>(sizeof(C)), head.width};
#pragma unroll 1
    for (int r0 = 0; r0 < call.temperatures; r0 += call.slots) {
        const int slots = min(call.slots, call.temperatures - r0);
        const auto load = [&](int d, int step) {
            fill<T>(stages + step % kStages * stage_bytes, head, words, b, 0, head.width, d);
            copy_commit();
        };
        // All of the pass before are done with the stages and the coefficients.
        __syncthreads();
        load(0, 0);
        build<T, C, true>(call, head, c, &rows, b, 0, 0, r0, slots);
        Product product;
        double squares[Product::kSlots] = {};
#pragma unroll 1
        for (int d0 = 0, step = 0; d0 < head.dim; d0 += kStageDim<T>, ++step) {
            copy_wait();
            __syncthreads();
            if (d0 + kStageDim<T> < head.dim) load(d0 + kStageDim<T>, step + 1);
            product.at(head, b, d0);
            product.add(0, slots, false, c, stages + step % kStages * stage_bytes);
#pragma unroll
            for (int s = 0; s < Product::kSlots; ++s) {
                if (s >= slots) continue;
                float sum = 0.0f;
                product.take(s, [&](int row, int d, float f, float origin) {
                    if (row >= head.generated || d0 + d >= head.dim) return;
                    f = force<T>(head, rows, b, 0, s, row, d0 + d, f, origin);
                    sum = fmaf(f, f, sum);
                });
                squares[s] += sum;
            }
        }
#pragma unroll
        for (int s = 0; s < Product::kSlots; ++s) {
            if (s >= slots) continue;
            const double total = block_sum(squares[s], scratch);
            if (threadIdx.x == 0) head.norm_sums[static_cast<long long>(r0 + s) * head.groups + b] = total;
        }
    }
}

// The norm of one temperature, or the force of all.
template <typename T, typename Product, bool kNorm>
__device__ __forceinline__ void run(const DriftCall& call) {
    using C = typename Product::Coefficient;
    extern __shared__ uint4 shared[];
    __shared__ Rows rows;
    __shared__ double scratch[kWarps];
    char* stages = reinterpret_cast<char*>(shared);
    int block;
    const DriftHead& head = head_of(call, kNorm ? kNorms : kForce, &block);
    const int record = block;
    const int tiles_i = tiles_of(head.generated, kTile), tiles_j = tiles_of(head.targets, head.width);
    const int d_begin = block % head.ranges * head.range;
    const int d_end = d_begin + min(head.range, head.dim - d_begin);
    block /= head.ranges;
    const int i0 = block % tiles_i * kTile;
    block /= tiles_i;
    const int b = block % head.groups, r = block / head.groups;
    const bool words = whole_words<T>(head);
    const int stage_bytes = head.width * kStageRow;
    const Coefficients<C> c = {reinterpret_cast<C*>(stages + kStages * stage_bytes),
                               head.width + kCoefficientPad / static_cast<int>(sizeof(C)), head.width};
    rows.start(head);

    // Tiles of targets go by for so many stages along the coordinates at a time.
    const int wide = tiles_j > 1 ? min(Product::kSlots, tiles_of(d_end - d_begin, kStageDim<T>)) : 1;
    const auto load = [&](const Step& step, int stage) {
        const int d = step.d0 + step.lane * kStageDim<T>;
        fill<T>(stages + stage * stage_bytes, head, words, b, step.tile * head.width, head.width, d);
        copy_commit();
    };
    Product product;
    double squares = 0.0;
    Step step = {d_begin, 0, 0}, next = step;
    int stage = 0;
    load(step, stage);
#pragma unroll 1
    for (; step.d0 < d_end; step = next, stage ^= 1) {
        copy_wait();
        __syncthreads();
        next.advance(wide, tiles_j, wide * kStageDim<T>);
        if (next.d0 < d_end) load(next, stage ^ 1);
        if (step.lane == 0 && (tiles_j > 1 || step.d0 == d_begin)) {
            build<T, C, kNorm>(call, head, c, &rows, b, i0, step.tile * head.width, r, 1);
            __syncthreads();
        }
        const int d0 = step.d0 + step.lane * kStageDim<T>;
        product.at(head, b, d0);
        product.add(step.lane, step.lane + 1, true, c, stages + stage * stage_bytes);
        if (step.tile + 1 < tiles_j) continue;
        float sum = 0.0f;
        product.take(step.lane, [&](int row, int d, float f, float origin) {
            if (i0 + row >= head.generated || d0 + d >= d_end) return;
            f = force<T>(head, rows, b, i0, 0, row, d0 + d, f, origin);
            sum = fmaf(f, f, sum);
            if (kNorm) return;
            const long long at = (static_cast<long long>(b) * head.generated + i0 + row) * head.dim + d0 + d;
            if (head.force != nullptr) head.force[at] = f;
            if (head.gradient != nullptr) head.gradient[at] = rows.slope * f;
        });
        squares += sum;
    }
    const double total = block_sum(squares, scratch);
    if (threadIdx.x != 0) return;
    if (kNorm) {
        head.norm_sums[record] = total;
    } else if (tiles_i * head.ranges > 1) {
        head.loss_sums[record] = total;
    } else if (head.loss != nullptr) {
        head.loss[b] = static_cast<float>(total / (static_cast<double>(head.generated) * head.dim));
    }
}

}  // namespace contraction

// BLOCKS: that a multiprocessor holds at least. The plain rung on halves, which is there to be compared with, has room
// for no second one.
#define CONTRACTION(TYPE, RUNG, SLOTS, BLOCKS, NAME)                                                                   \
    extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) group_##NAME(                                       \
        const __grid_constant__ DriftCall call) {                                                                      \
        contraction::group<TYPE, contraction::RUNG<TYPE, SLOTS>>(call);                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) norm_##NAME(const __grid_constant__ DriftCall call) { \
        contraction::run<TYPE, contraction::RUNG<TYPE, kRange / kStageDim<TYPE>>, true>(call);                         \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) force_##NAME(                                       \
        const __grid_constant__ DriftCall call) {                                                                      \
        contraction::run<TYPE, contraction::RUNG<TYPE, kRange / kStageDim<TYPE>>, false>(call);                        \
    }

CONTRACTION(float, Plain, kMaxSlots, 2, f32)
CONTRACTION(Half, Plain, kMaxSlots / 2, 1, f16)
CONTRACTION(Bfloat, Plain, kMaxSlots / 2, 1, bf16)
CONTRACTION(Half, Tensor, kMaxSlots, 2, f16_tensor)
CONTRACTION(Bfloat, Tensor, kMaxSlots, 2, bf16_tensor)
