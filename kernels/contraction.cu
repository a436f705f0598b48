// Phases B, second half, and C: F_bi = sum_j C_bij (y_bj - x_bi) / sigma with the coefficients of spec 2.2 (6),
// C = -A S+ for the negatives and +A S- for the positives.
//   norm_*   where a group is not one block (group.cu): one temperature a block, the sum of F^2, from which theta
//            follows.
//   force_*  all temperatures in one product, sum_R C_R / theta_R: force, gradient -2 F / (G D sigma) (spec 5), and the
//            sum of F^2 for the loss.
//
// Numerics: a row of coefficients is scaled by the power of two that brings its greatest below 2, then rounded to the
// type of the samples on tensor cores (f32 to TF32, as the samples are), and is f32 in the plain rung. The sum of what
// was rounded times x is subtracted: sum_j C_bij is 0 before rounding only, and a translation of the samples must not
// show. Products are added in f32 along the targets (the plain rung takes them relative to the group's first sample),
// sums of F^2 are f64 in a fixed order.
// Mapping: one block for 64 queries of a group and a range of coordinates. Coefficients are made from the distances,
// for one tile of targets at a time; stages of 128 bytes of each of the tile's targets pass through shared memory and
// are multiplied. Where one tile holds every target its coefficients stay, and the range is all coordinates or a slice
// of them; else the sums of 128 coordinates are kept while tiles of targets go by. Plain: 16 x 16 threads with 4
// queries and 8 bytes of coordinates each. Tensor cores: 2 x 4 warps with 32 queries and 16 coordinates each.
// Cost: 2 FLOP per pair and coordinate (and temperature, for the norms); R exponentials per pair and range. Reads T D
// per tile of queries, 4 G T bytes of distances per range.
// Limits: sm_80 and later; R B tiles of queries and ranges at most 2^31 - 1 blocks.
#include "coefficients.cuh"

namespace contraction {

// What a warp's row has: its least distance, and of each temperature the logarithm of its sum, and what an affinity to
// a positive and to a negative is multiplied by.
struct RowFactors {
    float log[kMaxTemperatures], half[kMaxTemperatures], pull[kMaxTemperatures], push[kMaxTemperatures], least;
    // The logarithm for positives, where rows have mass 1.
    float other[kMaxTemperatures];
};

// Makes the coefficients of a tile: of temperature r, or of all temperatures, each divided by its theta. A warp has
// every eighth row, the lanes go along the targets.
template <typename T, typename C, bool kNorm, bool kOfficial>
__device__ __forceinline__ void build(const DriftCall& call, const DriftHead& head, const Coefficients<C>& c,
                                      const Columns& columns, Rows* rows, RowFactors* all_factors, const char* stage,
                                      int b, int i0, int j0, int r) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    RowFactors& factors = all_factors[warp];
    const int begin = kNorm ? r : 0, end = kNorm ? r + 1 : call.temperatures;
    const int attracting = head.generated + head.negatives - j0;
#pragma unroll 1
    for (int row = warp; row < kTile; row += kWarps) {
        const int i = i0 + row;
        C* to = c.row(0, row);
        if (i >= head.generated) {
            for (int column = lane; column < c.width; column += kWarp) round_to(to + column, 0.0f);
            if (lane == 0) {
                rows->unit[0][row] = 1.0f;
                rows->rest[0][row] = 0.0f;
            }
            continue;
        }
        const long long query = static_cast<long long>(b) * head.generated + i;
        // A lane looks after a temperature.
        const int mine = begin + lane;
        const bool has = mine < end;
        const float* mass = head.mass + 3 * (query * call.temperatures + (has ? mine : begin));
        const bool field = !kNorm && !kOfficial && call.field != kNoField;
        const Unit unit = field ? row_unit(call, head, i) : unit_of(head);
        const float inverse_theta = kNorm || !has || field ? 1.0f : rows->inverse_theta[mine];
        float inverse, greatest = 0.0f;
        if (has) {
            greatest = !field ? mass[2] * inverse_theta : call.field == kShift ? 1.0f : fmaxf(mass[0], mass[1]);
        }
        const float power = power_below(warp_sum(greatest), &inverse);
        if (lane == 0) {
            rows->unit[0][row] = power;
            if (field && call.field == kScore && head.bandwidths != nullptr) {
                // b is in units of the bandwidth.
                rows->unit[0][row] = power / (head.bandwidths[i] * head.bandwidths[i]);
            }
            factors.least = head.row_least[query];
        }
        if (has) {
            const float* log = head.row_log + (call.coupled ? 2 : 1) * (query * call.temperatures + mine);
            factors.log[mine] = log[0];
            factors.other[mine] = log[call.coupled ? 1 : 0];
            factors.half[mine] = half_exponent(call, mine, head.row_least[query], factors.log[mine]);
            factors.pull[mine] = mass[0] * inverse * inverse_theta;
            factors.push[mine] = -mass[1] * inverse * inverse_theta;
            if (field) {
                factors.pull[mine] = call.side == kTowardsQ ? 0.0f : inverse;
                factors.push[mine] = call.side == kTowardsQ ? inverse : call.side == kTowardsP ? 0.0f : -inverse;
            }
        }
        __syncwarp();
        float rest = 0.0f;
        const auto finish = [&](C* at, float sum) {
            C coefficient;
            round_to(&coefficient, sum);
            *at = coefficient;
            rest += to_float(coefficient);
        };
        if (kOfficial) {
            const float* stored = head.distances == nullptr ? nullptr : head.distances + query * head.targets + j0;
            // In half precision registers are short, and few coordinates seldom.
            const bool few = sizeof(T) == sizeof(float) && head.dim <= kFew;
            Sample<T> x;
            if (stored == nullptr && few) x.take(head, target<T>(head, b, i));
            float n[kPerLane], sum[kPerLane] = {};
#pragma unroll
            for (int m = 0; m < kPerLane; ++m) {
                const int column = lane + m * kWarp, j = j0 + column;
                if (m * kWarp >= c.width) continue;
                // What is no target is too far for any affinity but the floor, and has no weight.
                n[m] = infinity();
                if (j < head.targets) {
                    float d;
                    if (stored != nullptr) {
                        d = stored[column];
                    } else if (few) {
                        // The first stage holds all that there is of the targets.
                        T y[kFew];
                        constexpr int kWords = kFew / kWordDim<T>;
                        for (int k = 0; k < kWords; ++k) {
                            const uint4 word = *reinterpret_cast<const uint4*>(word_of(stage, column, k));
                            reinterpret_cast<uint4*>(y)[k] = word;
                        }
                        d = x.distance(call, head, y, i == j);
                    } else {
                        d = distance<T>(call, head, b, i, j);
                    }
                    n[m] = in_units(call, unit, d, i == j);
                }
            }
#pragma unroll 1
            for (int k = begin; k < end; ++k) {
                const float pull = factors.pull[k], push = factors.push[k];
#pragma unroll
                for (int m = 0; m < kPerLane; ++m) {
                    if (m * kWarp >= c.width) continue;
                    float a;
                    if (kShort<kOfficial, C>) {
                        const float half = factors.half[k] + columns.log[k * columns.width + lane + m * kWarp];
                        a = clip_min(exp2_fast(fmaf(-call.rate2[k], n[m], half)), call.affinity_floor);
                    } else {
                        const Norms norms = columns.norms(lane + m * kWarp, k, factors.least, factors.log[k]);
                        a = affinity_of<true>(call, k, n[m], 1.0f, norms);
                    }
                    sum[m] = fmaf(a, lane + m * kWarp >= attracting ? pull : push, sum[m]);
                }
            }
#pragma unroll
            for (int m = 0; m < kPerLane; ++m) {
                if (m * kWarp >= c.width) continue;
                finish(to + lane + m * kWarp, sum[m] * columns.weight[lane + m * kWarp]);
            }
        } else {
#pragma unroll 1
            for (int column = lane; column < c.width; column += kWarp) {
                const float w = columns.weight[column];
                float n = pair<T>(call, head, unit, b, i, j0 + column, w);
                if (field && left_out(call, head, i, j0 + column)) n = infinity();
                const float slope = field && call.field == kScore ? score_weight(call.kernel, n, call.rate[0]) : 1.0f;
                float sum = 0.0f;
#pragma unroll 1
                for (int k = begin; n != infinity() && k < end; ++k) {
                    const bool attracts = column >= attracting;
                    const float log = attracts ? factors.other[k] : factors.log[k];
                    const float a = affinity_of<kOfficial>(call, k, n, w, columns.norms(column, k, factors.least, log));
                    sum = fmaf(a * slope, attracts ? factors.pull[k] : factors.push[k], sum);
                }
                finish(to + column, sum);
            }
        }
        rest = warp_sum(rest);
        // The same warp has the row in every tile.
        if (lane == 0) rows->rest[0][row] = j0 == 0 ? rest : rows->rest[0][row] + rest;
        __syncwarp();
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

// Two neighbouring results, or the first of them; as one where all pairs begin at eight bytes.
__device__ __forceinline__ void put(float* to, float2 values, bool second, bool pairs) {
    if (pairs) {
        *reinterpret_cast<float2*>(to) = values;
        return;
    }
    to[0] = values.x;
    if (second) to[1] = values.y;
}

// The norm of one temperature, or the force of all.
template <typename T, typename Product, bool kNorm>
__device__ __forceinline__ void run(const DriftCall& call) {
    using C = typename Product::Coefficient;
    extern __shared__ uint4 shared[];
    __shared__ Rows rows;
    __shared__ RowFactors factors[kWarps];
    __shared__ const void* sources[kMaxColumns];
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
    const Coefficients<C> c(stages + kStages * stage_bytes, head.width);
    const Columns columns(c.end(1), head.width);
    rows.start(call, head, !kNorm && call.field == kNoField);

    // Tiles of targets go by for so many stages along the coordinates at a time.
    const int wide = tiles_j > 1 ? min(Product::kSlots, tiles_of(d_end - d_begin, kStageDim<T>)) : 1;
    const auto load = [&](const Step& step, int stage) {
        const bool fresh = step.lane == 0 && (tiles_j > 1 || step.d0 == d_begin);
        if (fresh) locate<T>(sources, head, b, step.tile * head.width, head.width);
        fill<T>(stages + stage * stage_bytes, sources, head, words, head.width, step.d0 + step.lane * kStageDim<T>);
        copy_commit();
    };
    Product product;
    double squares = 0.0;
    Step step = {d_begin, 0, 0};
    int buffer = 0;
    load(step, buffer);
#pragma unroll 1
    for (; step.d0 < d_end; step.advance(wide, tiles_j, wide * kStageDim<T>), buffer ^= 1) {
        copy_wait();
        __syncthreads();
        Step next = step;
        next.advance(wide, tiles_j, wide * kStageDim<T>);
        if (next.d0 < d_end) load(next, buffer ^ 1);
        const char* stage = stages + buffer * stage_bytes;
        if (step.lane == 0 && (tiles_j > 1 || step.d0 == d_begin)) {
            columns.take(call, head, b, step.tile * head.width, call.official && sizeof(C) == 2);
            __syncthreads();
            if (call.official) {
                build<T, C, kNorm, true>(call, head, c, columns, &rows, factors, stage, b, i0, step.tile * head.width,
                                         r);
            } else {
                build<T, C, kNorm, false>(call, head, c, columns, &rows, factors, stage, b, i0, step.tile * head.width,
                                          r);
            }
            __syncthreads();
        }
        const int d0 = step.d0 + step.lane * kStageDim<T>;
        product.at(head, b, d0);
        product.add(step.lane, step.lane + 1, true, c, stage);
        if (step.tile + 1 < tiles_j) continue;
        const auto begins = [](const float* array) { return reinterpret_cast<unsigned long long>(array); };
        const bool pairs = head.dim % 2 == 0 && (begins(head.force) | begins(head.gradient)) % sizeof(float2) == 0;
        float sum = 0.0f;
        product.drain(
            step.lane, step.lane + 1,
            [&](int row, int at) {
                if (i0 + row >= head.generated) return make_float2(0.0f, 0.0f);
                // A tile that holds every target holds the queries.
                if (tiles_j == 1) return pair_of<T>(stage, i0 + row, at);
                const int d = d0 + at;
                if (d >= d_end) return make_float2(0.0f, 0.0f);
                const T* x = target<T>(head, b, i0 + row) + d;
                return make_float2(to_float(x[0]), d + 1 < d_end ? to_float(x[1]) : 0.0f);
            },
            [&](int, int row, const float2(&both)[Product::kPairs], const float2(&x)[Product::kPairs]) {
                if (i0 + row >= head.generated) return;
                const float rest = rows.rest[0][row], factor = rows.factor(0, row);
                const long long first = (static_cast<long long>(b) * head.generated + i0 + row) * head.dim + d0;
#pragma unroll
                for (int p = 0; p < Product::kPairs; ++p) {
                    const int at = Product::pair(p);
                    if (d0 + at >= d_end) continue;
                    float2 f = without(rest, both[p], x[p]);
                    f = make_float2(f.x * factor, f.y * factor);
                    const bool second = d0 + at + 1 < d_end;
                    if (!second) f.y = 0.0f;
                    sum = fmaf(f.x, f.x, fmaf(f.y, f.y, sum));
                    if (kNorm) continue;
                    if (head.force != nullptr) put(head.force + first + at, f, second, pairs);
                    if (head.gradient != nullptr)
                        put(head.gradient + first + at, make_float2(rows.slope * f.x, rows.slope * f.y), second, pairs);
                }
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

// BLOCKS: as in group.cu.
#define CONTRACTION(TYPE, RUNG, BLOCKS, NAME)                                                   \
    extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS)                              \
        norm_##NAME(const __grid_constant__ DriftCall call) {                                   \
        contraction::run<TYPE, contraction::RUNG<TYPE, kRange / kStageDim<TYPE>>, true>(call);  \
    }                                                                                           \
    extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS)                              \
        force_##NAME(const __grid_constant__ DriftCall call) {                                  \
        contraction::run<TYPE, contraction::RUNG<TYPE, kRange / kStageDim<TYPE>>, false>(call); \
    }

CONTRACTION(float, Plain, 2, f32)
CONTRACTION(Half, Plain, 1, f16)
CONTRACTION(Bfloat, Plain, 1, bf16)
CONTRACTION(float, Tensor, 2, f32_tensor)
CONTRACTION(Half, Tensor, 2, f16_tensor)
CONTRACTION(Bfloat, Tensor, 2, bf16_tensor)
