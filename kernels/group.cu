// Phase B of groups that are one block: the statistics of its rows and columns, the masses, and of each temperature the
// sum of F^2 (spec 2.2 (6)), from which theta follows; F itself is not stored.
//
// Numerics: as in statistics.cuh, contraction.cu and, of the official affinity in half precision, coefficients.cuh.
// Mapping: one block a group. Its normalised distances lie in shared memory, where the stages will: a warp has four rows
// at a time, eight lanes each; a thread has a column. Of each temperature a row's affinities are added up, then formed
// again as coefficients. With those of as many temperatures as fit into shared memory the targets are multiplied, stage
// by stage; more temperatures take more passes. Stages and products as in contraction.cu.
// Norms come from the forces, or by the zero-sum identity where the plan has the distances of the targets among
// themselves: then the targets are the rows of a matrix of those, f32 in the plain rung, on tensor cores two halves.
// Cost: four exponentials a pair and temperature; 2 FLOP a pair, coordinate (by the identity: target, on tensor cores
// half of the targets twice) and temperature. Reads 4 G T bytes of distances and T D of targets a pass, by the identity
// 2 T^2 bytes of distances in the place of these.
// Limits: sm_80 and later; G <= 64, T <= 224.
#include "coefficients.cuh"
#include "statistics.cuh"

namespace contraction {

// How the lanes of a warp share rows: eight have one, four neighbouring columns of every 32 each. So three exchanges add up
// four rows, and what lies in shared memory goes by four at a time. The rows of a warp are four apart: those of
// coefficients in half precision then lie in different banks.
constexpr int kEighth = 8;

// The row of this lane among the four that have this number.
__device__ __forceinline__ int row_at(int number) {
    return number / 4 * 16 + number % 4 + static_cast<int>(threadIdx.x) % kWarp / kEighth * 4;
}

// A group's normalised distances in shared memory, [G, width]; infinite where there is no affinity.
struct Distances {
    float* data;
    int width;

    __device__ __forceinline__ float* row(int i) const { return data + i * width; }

    // Takes the distances, and gives the greatest that the thread has seen.
    template <typename T>
    __device__ __forceinline__ float take(const DriftCall& call, const DriftHead& head, const Columns& columns,
                                          int b) const {
        const int quad = threadIdx.x % kEighth * 4;
        const Unit unit = unit_of(head);
        const bool words = head.targets % 4 == 0, removes = call.mask == kMaskRemove || call.weights == kWeightLogit;
        float most = 0.0f;
#pragma unroll 1
        for (int at = threadIdx.x / kWarp; at < kTile / 4; at += kWarps) {
            const int i = row_at(at);
            if (i >= head.generated) continue;
            const float* from = head.distances;
            if (from != nullptr) from += (static_cast<long long>(b) * head.generated + i) * head.targets;
#pragma unroll 1
            for (int j = quad; j < width; j += kWarp) {
                float d[4], value[4];
                if (from == nullptr) {
                    for (int e = 0; e < 4; ++e)
                        d[e] = j + e < head.targets ? distance<T>(call, head, b, i, j + e) : 0.0f;
                } else if (words && j < head.targets) {
                    widen(d, *reinterpret_cast<const uint4*>(from + j), float{});
                } else {
                    for (int e = 0; e < 4; ++e) d[e] = j + e < head.targets ? from[j + e] : 0.0f;
                }
                const bool self = i / 4 == j / 4, edge = removes || j + 4 > head.targets;
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    most = fmaxf(most, d[e]);
                    value[e] = in_units(call, unit, d[e], self && i == j + e);
                    if (!edge) continue;
                    if (j + e >= head.targets || removed(call, i, j + e, columns.weight[j + e])) value[e] = infinity();
                }
                *reinterpret_cast<float4*>(row(i) + j) = make_float4(value[0], value[1], value[2], value[3]);
            }
        }
        return most;
    }
};

// The statistics of the rows, of which a lane has a share.
template <bool kOfficial>
__device__ __forceinline__ void rows_of(const DriftCall& call, const DriftHead& head, const Distances& n,
                                        const Columns& columns, int b) {
    const int quad = threadIdx.x % kEighth * 4;
    const bool weighs = !kOfficial && call.weights == kWeightLogit;
#pragma unroll 1
    for (int number = threadIdx.x / kWarp; number < kTile / 4; number += kWarps) {
        const int i = row_at(number);
        // A row that is none goes with the last, for all lanes exchange.
        const float* row = n.row(min(i, head.generated - 1)) + quad;
        float least_n = infinity();
#pragma unroll 1
        for (int j = 0; j < n.width; j += kWarp) {
            const float4 four = *reinterpret_cast<const float4*>(row + j);
            least_n = least(least(least_n, four.x), least(four.y, least(four.z, four.w)));
        }
        least_n = lanes_least<kEighth>(least_n);
        const bool stores = i < head.generated && quad == 0;
        const long long at = static_cast<long long>(b) * head.generated + i;
#pragma unroll 1
        for (int k = 0; k < call.temperatures; ++k) {
            float sum = 0.0f;
#pragma unroll 1
            for (int j = 0; j < n.width; j += kWarp) {
                const float4 four = *reinterpret_cast<const float4*>(row + j);
                const float value[4] = {four.x, four.y, four.z, four.w};
                for (int e = 0; e < 4; ++e) {
                    // Without any pair every difference is none.
                    if (!kOfficial && value[e] == infinity()) continue;
                    const float ratio = kernel_ratio<kOfficial>(call, k, value[e], least_n);
                    sum += weighs ? columns.weight[quad + j + e] * ratio : ratio;
                }
            }
            sum = lanes_sum<kEighth>(sum);
            const float log = logf(sum);
            if (stores) head.row_log[at * call.temperatures + k] = log;
        }
        if (stores) head.row_least[at] = least_n;
    }
}

// The statistics of the columns, a thread each, for this block and for the force.
template <bool kOfficial, typename C>
__device__ __forceinline__ void columns_of(const DriftCall& call, const DriftHead& head, const Distances& n,
                                           const Columns& columns, int b) {
    const int j = threadIdx.x;
    if (j >= n.width) return;
    // No target is nothing to any row.
    if (j >= head.targets) {
        for (int k = 0; k < call.temperatures; ++k) columns.log[k * columns.width + j] = 0.0f;
        columns.least[j] = 0.0f;
        return;
    }
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
            if (!kOfficial && value == infinity()) continue;
            sum += kernel_ratio<kOfficial>(call, k, value, least_n);
        }
        const float log = logf(sum);
        head.column_log[at * call.temperatures + k] = log;
        columns.log[k * columns.width + j] = kShort<kOfficial, C> ? half_exponent(call, k, least_n, log) : log;
    }
}

// Four coefficients, rounded, and their sum.
template <typename C>
__device__ __forceinline__ float round_four(C* to, const float (&value)[4]) {
    float sum = 0.0f;
    if constexpr (sizeof(C) == 2) {
        const uint2 bits = make_uint2(round_both(value[0], value[1], C{}), round_both(value[2], value[3], C{}));
        *reinterpret_cast<uint2*>(to) = bits;
        const float2 first = to_floats(bits.x, C{}), second = to_floats(bits.y, C{});
        sum = (first.x + first.y) + (second.x + second.y);
    } else {
        C rounded[4];
        for (int e = 0; e < 4; ++e) {
            round_to(&rounded[e], value[e]);
            sum += to_float(rounded[e]);
        }
        *reinterpret_cast<float4*>(to) =
            make_float4(to_float(rounded[0]), to_float(rounded[1]), to_float(rounded[2]), to_float(rounded[3]));
    }
    return sum;
}

// The official affinities of four neighbouring columns to a row, from `column` on.
template <typename C>
__device__ __forceinline__ void affinities(const DriftCall& call, const Columns& columns, int k, const float* row,
                                           int column, float row_least, float row_log, float half_row, float (&a)[4]) {
    const float4 distances = *reinterpret_cast<const float4*>(row + column);
    const float4 weights = *reinterpret_cast<const float4*>(columns.weight + column);
    const float n[4] = {distances.x, distances.y, distances.z, distances.w};
    const float w[4] = {weights.x, weights.y, weights.z, weights.w};
    if (kShort<true, C>) {
        const float4 logs = *reinterpret_cast<const float4*>(columns.log + k * columns.width + column);
        const float half[4] = {logs.x, logs.y, logs.z, logs.w};
        for (int e = 0; e < 4; ++e) {
            const float raw = exp2_fast(fmaf(-call.rate2[k], n[e], half_row + half[e]));
            a[e] = clip_min(raw, call.affinity_floor) * w[e];
        }
    } else {
        for (int e = 0; e < 4; ++e) {
            a[e] = affinity_of<true>(call, k, n[e], w[e], columns.norms(column + e, k, row_least, row_log));
        }
    }
}

// The coefficients of temperatures r, r + 1, ..., each in a slot of its own; and the rows' masses. Affinities are formed
// twice, for the masses and for the coefficients: in registers they would take the place of what loops keep there.
// Balanced, what is rounded adds up to nothing, as the identity wants it: the query's own coefficient, which pulls
// nowhere, makes up for the others.
template <bool kBalanced, typename C>
__device__ __forceinline__ void couple(const DriftCall& call, const DriftHead& head, const Distances& n,
                                       const Columns& columns, const Coefficients<C>& c, Rows* rows,
                                       statistics::RowSums* row_sums, int b, int r, int slots) {
    constexpr int kRows = kTile / 4;
    const int quad = here(static_cast<int>(threadIdx.x) % kEighth * 4);
    const int attracting = head.generated + head.negatives;
#pragma unroll 1
    for (int at = here(threadIdx.x / kWarp); at < slots * kRows; at += kWarps) {
        const int slot = at / kRows, i = row_at(at % kRows), k = r + slot;
        const bool is = i < head.generated;
        // A row that is none goes with the last, for all lanes exchange, and comes to nothing.
        const int own = min(i, head.generated - 1);
        const long long query = static_cast<long long>(b) * head.generated + own;
        const float row_least = head.row_least[query], row_log = head.row_log[query * call.temperatures + k];
        const float half_row = half_exponent(call, k, row_least, row_log), *row = n.row(own);
        C* to = c.row(slot, i);
        statistics::Masses masses;
#pragma unroll 1
        for (int column = quad; column < c.width; column += kWarp) {
            float a[4];
            affinities<C>(call, columns, k, row, column, row_least, row_log, half_row, a);
            // Targets of a kind mostly come in whole warps of lanes.
            const int first = column - quad;
            if (first + kWarp <= attracting) {
                for (int e = 0; e < 4; ++e) masses.repel(a[e]);
            } else if (first >= attracting) {
                for (int e = 0; e < 4; ++e) masses.attract(a[e]);
            } else {
                for (int e = 0; e < 4; ++e) masses.add(a[e], column + e >= attracting);
            }
        }
        masses.reduce<kEighth>();
        masses.store<kEighth>(call, head, query, k, row_sums, is);
        float inverse;
        const float power = power_below(masses.peak(), &inverse);
        if (!is) inverse = 0.0f;
        const float pull = masses.negative * inverse, push = -masses.positive * inverse;
        float rest = 0.0f;
#pragma unroll 1
        for (int column = quad; column < c.width; column += kWarp) {
            float a[4];
            affinities<C>(call, columns, k, row, column, row_least, row_log, half_row, a);
            for (int e = 0; e < 4; ++e) a[e] *= column + e >= attracting ? pull : push;
            rest += round_four(to + column, a);
        }
        rest = lanes_sum<kEighth>(rest);
        if (kBalanced && is && i % kWarp / 4 * 4 == quad) round_to(to + i, to_float(to[i]) - rest);
        if (quad == 0) {
            rows->unit[slot][i] = is ? power : 1.0f;
            rows->rest[slot][i] = rest;
        }
    }
}

// The same with any other affinity: a warp has every eighth row, and a row's affinities stay in registers.
template <bool kBalanced, typename C>
__device__ __forceinline__ void couple_general(const DriftCall& call, const DriftHead& head, const Distances& n,
                                               const Columns& columns, const Coefficients<C>& c, Rows* rows,
                                               statistics::RowSums* row_sums, int b, int r, int slots) {
    const int lane = here(threadIdx.x % kWarp);
    const int attracting = head.generated + head.negatives;
#pragma unroll 1
    for (int at = here(threadIdx.x / kWarp); at < slots * kTile; at += kWarps) {
        const int slot = at / kTile, i = at % kTile, k = r + slot;
        C* to = c.row(slot, i) + lane;
        if (i >= head.generated) {
            for (int j = lane; j < c.width; j += kWarp) round_to(to + j - lane, 0.0f);
            if (lane == 0) {
                rows->unit[slot][i] = 1.0f;
                rows->rest[slot][i] = 0.0f;
            }
            continue;
        }
        const long long query = static_cast<long long>(b) * head.generated + i;
        const float row_least = head.row_least[query], row_log = head.row_log[query * call.temperatures + k];
        const float *row = n.row(i) + lane, *weights = columns.weight + lane;
        statistics::Masses masses;
        float a[kPerLane];
#pragma unroll
        for (int m = 0; m < kPerLane; ++m) {
            a[m] = 0.0f;
            if (m * kWarp >= c.width) continue;
            const float value = row[m * kWarp];
            if (value == infinity()) continue;
            const Norms norms = columns.norms(lane + m * kWarp, k, row_least, row_log);
            a[m] = affinity(call, value, weights[m * kWarp], call.rate[k], norms);
            // Targets of a kind mostly come in whole warps of lanes.
            if ((m + 1) * kWarp <= attracting) {
                masses.repel(a[m]);
            } else if (m * kWarp >= attracting) {
                masses.attract(a[m]);
            } else {
                masses.add(a[m], lane + m * kWarp >= attracting);
            }
        }
        masses.reduce();
        if (lane == 0) masses.store(call, head, query, k, row_sums);
        float inverse;
        const float power = power_below(masses.peak(), &inverse);
        const float pull = masses.negative * inverse, push = -masses.positive * inverse;
        float rest = 0.0f;
#pragma unroll
        for (int m = 0; m < kPerLane; ++m) {
            if (m * kWarp >= c.width) continue;
            C coefficient;
            round_to(&coefficient, a[m] * (lane + m * kWarp >= attracting ? pull : push));
            to[m * kWarp] = coefficient;
            rest += to_float(coefficient);
        }
        rest = warp_sum(rest);
        if (kBalanced && lane == i % kWarp) {
            C* own = to + i / kWarp * kWarp;
            round_to(own, to_float(*own) - rest);
        }
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

// Where a block keeps what: it follows from the stages, of which there are two, and the number of slots alone.
template <typename C>
struct Room {
    Coefficients<C> c;
    Columns columns;
    Distances n;

    __device__ __forceinline__ Room(char* stages, int width, int slots)
        : c(stages + kStages * width * kStageRow, width),
          columns(c.end(slots), width),
          n{reinterpret_cast<float*>(stages), width} {}
};

// One type or another.
template <bool kFirst, typename First, typename Second>
struct Choice {
    using Type = First;
};

template <typename First, typename Second>
struct Choice<false, First, Second> {
    using Type = Second;
};

// What the passes of a group share.
struct Group {
    char* stages;
    int width, slots, b;
    const void** sources;
    Rows* rows;
    statistics::RowSums* row_sums;
    double* scratch;
};

// The coefficients of any affinity but the official one: apart, so that its registers are not those of the products,
// and from values alone, so that none goes by way of memory.
template <bool kBalanced, typename C>
__device__ __noinline__ void couple_any(const DriftCall& call, const DriftHead& head, char* stages, int width,
                                        int all_slots, Rows* rows, statistics::RowSums* row_sums, int b, int r,
                                        int slots) {
    const Room<C> room(stages, width, all_slots);
    couple_general<kBalanced>(call, head, room.n, room.columns, room.c, rows, row_sums, b, r, slots);
}

// The coefficients of as many temperatures as have slots, and their norms, pass by pass: from the forces, or by the
// zero-sum identity |F_i|^2 = -1/2 sum_jk C_ij C_ik |y_j - y_k|^2 (spec 2.3), for which coefficients are f32 and the
// targets are the rows of a matrix of their distances.
template <typename T, typename Product, bool kIdentity>
__device__ __forceinline__ void norms(const DriftCall& call, const DriftHead& head, const Group& group) {
    using C = typename Product::Coefficient;
    constexpr int kDim = kIdentity ? kStageDim<float> : kStageDim<T>;
    const int extent = kIdentity ? head.targets : head.dim, b = group.b;
    const bool words = whole_words<T>(head);
    const float mean_squared = static_cast<float>(head.scalars->mean * head.scalars->mean);
#pragma unroll 1
    for (int r = 0; r < call.temperatures; r += group.slots) {
        const int slots = min(group.slots, call.temperatures - r), width = here(group.width);
        const int stage_bytes = width * kStageRow;
        // Found again, for registers are for the sums.
        const Room<C> room(group.stages, width, group.slots);
        const Coefficients<C>& c = room.c;
        const auto load = [&](int d, int step) {
            char* stage = group.stages + step % kStages * stage_bytes;
            if (kIdentity) {
                fill_identity(stage, head, mean_squared, b, width, d);
            } else {
                fill<T>(stage, group.sources, head, words, width, d);
                copy_commit();
            }
        };
        // All are done with the columns, or with the stages and the coefficients of the pass before.
        __syncthreads();
        if (r > 0) {
            room.n.template take<T>(call, head, room.columns, b);
            __syncthreads();
        }
        if (call.official) {
            couple<false>(call, head, room.n, room.columns, c, group.rows, group.row_sums, b, r, slots);
        } else {
            couple_any<false, C>(call, head, group.stages, width, group.slots, group.rows, group.row_sums, b, r, slots);
        }
        __syncthreads();
        load(0, 0);
        Product product;
        // Of a few coordinates of a few rows, all above 0: their rounding is lost among those of the other threads.
        float squares[Product::kSlots] = {};
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
            product.drain(
                0, slots,
                [&](int row, int at) {
                    // Queries are the first rows of the stage, and zeros beyond the coordinates.
                    return !kIdentity && row < head.generated ? pair_of<T>(stage, row, at) : make_float2(0.0f, 0.0f);
                },
                // Rows beyond the queries have no coefficients, and no sample either.
                [&](int s, int row, const float2(&both)[Product::kPairs], const float2(&x)[Product::kPairs]) {
                    float sum = 0.0f, factor = group.rows->factor(s, row);
                    if (kIdentity) {
                        for (int p = 0; p < Product::kPairs; ++p) {
                            const C* own = c.row(s, row) + d + Product::pair(p);
                            sum = fmaf(both[p].x, to_float(own[0]), fmaf(both[p].y, to_float(own[1]), sum));
                        }
                        factor = group.rows->unit[s][row];
                    } else {
                        const float rest = group.rows->rest[s][row];
                        for (int p = 0; p < Product::kPairs; ++p) {
                            const float2 f = without(rest, both[p], x[p]);
                            sum = fmaf(f.x, f.x, fmaf(f.y, f.y, sum));
                        }
                    }
                    squares[s] = fmaf(sum * factor, factor, squares[s]);
                });
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

// The matrix of the identity on tensor cores: K with x U x = x K x as above, times `unit`, a power of two that takes the
// farthest of targets to a few thousands, so that halves hold all of it. No two targets are more than twice as far from
// each other as the farthest is from a query.
struct Form {
    float unit, constant, farthest[kWarps];

    __device__ __forceinline__ void see(float distance) {
        distance = lanes_most<kWarp>(distance);
        if (threadIdx.x % kWarp == 0) farthest[threadIdx.x / kWarp] = distance;
    }

    // By one thread, when all have seen.
    __device__ __forceinline__ void start(const DriftHead& head) {
        float most = farthest[0];
        for (int k = 1; k < kWarps; ++k) most = fmaxf(most, farthest[k]);
        const float mean = static_cast<float>(head.scalars->mean);
        float inverse;
        power_below(most * most, &inverse);
        unit = 4096.0f * inverse;
        constant = fminf(mean * mean, most * most) * unit;
    }
};

// Fills 64 columns of it from column k on, in two stages: rounded to half precision, and what that leaves, for terms may
// cancel. A pair stands in the upper half for both, but in the squares of 16 on the diagonal, which are halved. What lies
// below these nobody reads.
__device__ __forceinline__ void fill_form(char* stages, const DriftHead& head, const Form& form, int b, int width,
                                          int k) {
    const int thread = here(static_cast<int>(threadIdx.x)), word = thread % kWordsPerRow;
    const int column = k + 8 * word, end = column / 16 * 16 + 16;
    if (column >= width) return;
    const bool whole = head.targets % 4 == 0;
    const int others = head.targets - head.generated;
    const float* generated = head.distances + static_cast<long long>(b) * head.generated * head.targets + column;
    const float* rest = head.among + (static_cast<long long>(b) * others - head.generated) * head.targets + column;
#pragma unroll 1
    for (int row = thread / kWordsPerRow; row < end; row += kThreads / kWordsPerRow) {
        const float* from = (row < head.generated ? generated : rest) + static_cast<long long>(row) * head.targets;
        const int count = row < head.targets ? head.targets - column : 0;
        float d[8];
#pragma unroll
        for (int e = 0; e < 8; e += 4) {
            if (whole && e < count) {
                widen(reinterpret_cast<float (&)[4]>(d[e]), *reinterpret_cast<const uint4*>(from + e), float{});
            } else {
                for (int n = e; n < e + 4; ++n) d[n] = n < count ? from[n] : 0.0f;
            }
        }
        const bool diagonal = row / 16 == column / 16;
        const float part = diagonal ? 0.5f : 1.0f, unit = -part * form.unit, constant = part * form.constant;
        unsigned high[4], low[4];
#pragma unroll
        for (int e = 0; e < 8; e += 2) {
            float value[2];
            for (int n = 0; n < 2; ++n) {
                value[n] = fmaf(d[e + n] * unit, d[e + n], constant);
                if (diagonal && column + e + n == row) value[n] = constant;
            }
            high[e / 2] = round_both(value[0], value[1], Half{});
            const float2 rounded = to_floats(high[e / 2], Half{});
            low[e / 2] = round_both(value[0] - rounded.x, value[1] - rounded.y, Half{});
        }
        char* to = word_of(stages, row, word);
        *reinterpret_cast<uint4*>(to) = make_uint4(high[0], high[1], high[2], high[3]);
        *reinterpret_cast<uint4*>(to + width * kStageRow) = make_uint4(low[0], low[1], low[2], low[3]);
    }
}

// Norms by the identity on tensor cores. Coefficients are rounded to half precision whatever the samples are. Apart, and
// from values alone, as above.
template <typename T>
__device__ __noinline__ void quadratic(const DriftCall& call, const DriftHead& head, char* stages, int all_slots,
                                       const Form* form, Rows* rows, statistics::RowSums* row_sums, double* scratch,
                                       int b) {
    using Product = Tensor<Half, kMaxSlots>;
#pragma unroll 1
    for (int r = 0; r < call.temperatures; r += all_slots) {
        const int slots = min(all_slots, call.temperatures - r), width = here(head.width);
        const Room<Half> room(stages, width, all_slots);
        const Coefficients<Half>& c = room.c;
        __syncthreads();
        if (r > 0) {
            room.n.template take<T>(call, head, room.columns, b);
            __syncthreads();
        }
        if (call.official) {
            couple<true>(call, head, room.n, room.columns, c, rows, row_sums, b, r, slots);
        } else {
            couple_any<true, Half>(call, head, stages, width, all_slots, rows, row_sums, b, r, slots);
        }
        Product product;
        float squares[kMaxSlots] = {};
#pragma unroll 1
        for (int k = 0; k < width; k += kStageDim<Half>) {
            // All are done with the distances, or with the stages.
            __syncthreads();
            fill_form(stages, head, *form, b, width, k);
            __syncthreads();
            const int column = k + static_cast<int>(threadIdx.x) / kWarp / 2 * 16;
            if (column >= width) continue;
            product.add_both(slots, c, stages, width * kStageRow, column + 16);
            product.drain(
                0, slots, [](int, int) { return make_float2(0.0f, 0.0f); },
                [&](int s, int row, const float2(&both)[Product::kPairs], const float2(&)[Product::kPairs]) {
                    float sum = 0.0f;
                    for (int p = 0; p < Product::kPairs; ++p) {
                        const Half* own = c.row(s, row) + k + Product::pair(p);
                        const float2 two = to_floats(*reinterpret_cast<const unsigned*>(own), Half{});
                        sum = fmaf(both[p].x, two.x, fmaf(both[p].y, two.y, sum));
                    }
                    const float factor = rows->unit[s][row];
                    squares[s] = fmaf(sum * factor, factor, squares[s]);
                });
        }
        const double scale = rows->scale, factor = scale * scale / form->unit;
#pragma unroll
        for (int s = 0; s < kMaxSlots; ++s) {
            if (s >= slots) continue;
            // Of forces that cancel, rounding may leave less than nothing.
            const double total = clip_min(block_sum(squares[s], scratch) * factor, 0.0);
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
    __shared__ Form form;
    __shared__ const void* sources[kMaxColumns];
    int b;
    const DriftHead& head = head_of(call, kNorms, &b);
    const int width = head.width;
    char* stages = reinterpret_cast<char*>(shared);
    using C = typename Product::Coefficient;
    // By the identity coefficients are halves on tensor cores, else f32.
    constexpr bool kTensor = Product::kTensor;
    using Own = typename Choice<kTensor, Half, float>::Type;
    const bool identity = head.among != nullptr;
    const int slots = identity ? call.identity_slots : call.slots;
    const Columns columns = identity ? Room<Own>(stages, width, slots).columns : Room<C>(stages, width, slots).columns;
    static_assert(kTile * sizeof(float) == kStages * kStageRow, "distances take the place of the stages");
    const Distances n = {reinterpret_cast<float*>(stages), width};
    const Group shape = {stages, width, slots, b, sources, &rows, &row_sums, scratch};
    if (!identity) locate<T>(sources, head, b, 0, width);

    rows.start(call, head, false);
    row_sums.clear();
    columns.weigh(call, head, b, 0);
    __syncthreads();
    const float farthest = n.take<T>(call, head, columns, b);
    if (kTensor && identity) form.see(farthest);
    __syncthreads();
    if (call.official) {
        rows_of<true>(call, head, n, columns, b);
        __syncthreads();
        if (identity) {
            columns_of<true, Own>(call, head, n, columns, b);
        } else {
            columns_of<true, C>(call, head, n, columns, b);
        }
    } else {
        rows_of<false>(call, head, n, columns, b);
        __syncthreads();
        columns_of<false, float>(call, head, n, columns, b);
    }
    if (!identity) {
        norms<T, Product, false>(call, head, shape);
    } else if constexpr (kTensor) {
        if (threadIdx.x == 0) form.start(head);
        quadratic<T>(call, head, stages, slots, &form, &rows, &row_sums, scratch, b);
    } else {
        norms<T, Plain<float, kFewSlots>, true>(call, head, shape);
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
GROUP(Half, Plain, kFewSlots, 1, f16)
GROUP(Bfloat, Plain, kFewSlots, 1, bf16)
GROUP(float, Tensor, kMaxSlots, 2, f32_tensor)
GROUP(Half, Tensor, kMaxSlots, 2, f16_tensor)
GROUP(Bfloat, Tensor, kMaxSlots, 2, bf16_tensor)
