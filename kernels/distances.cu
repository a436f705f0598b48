// Phase A: d_bij = sqrt(max(|x_bi - y_bj|^2, min_squared)) for every query i < G and target j < T of every group b
// (spec 2.2 (1)), and the sums from which the scale follows (2): sum d w and sum w over the pairs that count, sum w
// over all, and the count of coordinates and weights that are not finite.
//
// Two rungs. Plain: squared differences are added in f32 along d; nothing cancels, so rules (i) and (iii) of spec 2.2a
// change nothing. Tensor cores, for samples in half precision: |x|^2 + |y|^2 - 2 x y with exact products, whose sums
// tensor cores cut rather than round; where that is less than a 32nd of |x|^2 + |y|^2 (or what the spec's rule asks
// for), so that more than five bits cancel, the pair is formed anew from differences, by a warp (rule (iii), with a
// wider margin for want of (i): a centred sample is no half). Samples in f32 go the same way when they are asked to,
// each rounded to TF32 in products and squares alike, so that what comes is the distance of the rounded samples. Where
// most threads of a tile have a sixteenth of near pairs, all of the tile is formed anew, by the plain product. Of the
// sums over pairs a thread adds its part of a row in f32, a few terms, and all else in f64, in a fixed order.
// Mapping: one block for 64 queries by up to 224 targets of a group, so that a group of G <= 64 and T <= 224 is one
// block and each sample is read once; queries that are among the tile's targets are not loaded twice. Two stages of 128
// bytes of each sample. Plain: 16 x 16 threads with 4 x 14 pairs each. Tensor cores: 2 x 4 warps with 32 queries each by
// a quarter of the targets. The tile then passes through shared memory, so that four neighbours of a row are stored at a
// time. Zero-sum identity: where norms come by it, all targets are queries, and the distances of those that are not
// generated go to `among`. Plain: 64 at a time, to the targets from the first of them on, in more blocks. Tensor cores:
// all pairs of up to 160 targets are one block, in 15 tiles of 32 by 32, the upper half of them, two a warp; more targets
// are 64 by all as above, and all pairs of the others. Squares of samples are then the diagonal of the products.
// Slices: where groups are few and coordinates many, a block takes a slice of the coordinates and stores its squared
// distances; `join` adds them in order.
// Cost: 3 (plain) or 2 FLOP per pair and coordinate; reads (64 + targets of the tile) D per tile, the latter alone
// where it holds its queries, writes 4 bytes a pair.
// Limits: sm_80 and later; B times the tiles at most 2^31 - 1 blocks.
#include "common.cuh"
#include "ptx/mma.cuh"
#include "stage.cuh"

namespace distances {

// The plain product: each thread has queries ty + 16 m and targets tx + 16 n.
template <typename T>
struct Plain {
    static constexpr bool kGram = false;
    static constexpr int kSide = 16, kM = kTile / kSide, kN = kMaxColumns / kSide;
    float sum[kM][kN] = {};

    static __device__ __forceinline__ void fetch(float (&to)[4], const char* stage, int row, int k) {
        if constexpr (sizeof(T) == 4) {
            widen(to, *reinterpret_cast<const uint4*>(word_of(stage, row, k / 4)), T{});
        } else {
            widen(to, *reinterpret_cast<const uint2*>(word_of(stage, row, k / 8) + k % 8 * 2), T{});
        }
    }

    __device__ __forceinline__ void add(const char* stage, int queries, int columns) {
        const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll 1
        for (int k = 0; k < kStageDim<T>; k += 4) {
            float x[kM][4];
            for (int m = 0; m < kM; ++m) fetch(x[m], stage, queries + ty + kSide * m, k);
#pragma unroll
            for (int n = 0; n < kN; ++n) {
                if (n * kSide >= columns) continue;
                float y[4];
                fetch(y, stage, tx + kSide * n, k);
                for (int m = 0; m < kM; ++m) {
                    for (int e = 0; e < 4; ++e) {
                        const float difference = x[m][e] - y[e];
                        sum[m][n] = fmaf(difference, difference, sum[m][n]);
                    }
                }
            }
        }
    }

    // Writes the squared distances into a tile.
    __device__ __forceinline__ void put(float* tile, int stride, int columns) const {
        const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int n = 0; n < kN; ++n) {
                if (n * kSide < columns) tile[(ty + kSide * m) * stride + tx + kSide * n] = sum[m][n];
            }
        }
    }
};

// Stands for the squared distance of a pair that is to be formed anew, from differences.
constexpr float kAnew = -1.0f;

// Turns products of two rows and two columns into squared distances, given the squares of these; into kAnew where less
// than a part `near` of the squares is left. Says of how many.
__device__ __forceinline__ int differences(float (&sum)[4], const float (&own)[2], float2 other, float near) {
    int count = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        const float both = own[e / 2] + (e % 2 == 0 ? other.x : other.y);
        const float q = fmaf(-2.0f, sum[e], both);
        const bool cancels = q < near * both;
        count += cancels;
        sum[e] = cancels ? kAnew : q;
    }
    return count;
}

// Inner products on tensor cores: each warp has 32 queries by columns / 4 targets.
template <typename T>
struct Tensor {
    static constexpr bool kGram = true;
    static constexpr int kM = 2, kN = kMaxColumns / 32;
    float sum[kM][kN][4] = {};

    // Without a question at every step: the number of 32 targets is fixed in the loop.
    template <int kCount>
    __device__ __forceinline__ void steps(const Lane& queries, const Lane& targets) {
#pragma unroll 1
        for (int k = 0; k < kWordsPerRow; k += 2) {
            const unsigned x_at = queries.word(k), y_at = targets.word(k);
            unsigned x[kM][4];
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                load_matrices(x[m], x_at + 16 * m * kStageRow);
                to_operands(x[m], T{});
            }
#pragma unroll
            for (int n = 0; n + 1 < kCount; n += 2) {
                unsigned y[4];
                load_matrices(y, y_at + 8 * n * kStageRow);
                to_operands(y, T{});
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    multiply(sum[m][n], x[m], y[0], y[1], T{});
                    multiply(sum[m][n + 1], x[m], y[2], y[3], T{});
                }
            }
            if (kCount % 2 == 1) {
                unsigned y[2];
                load_matrices(y, y_at + 8 * (kCount - 1) * kStageRow);
                to_operands(y, T{});
#pragma unroll
                for (int m = 0; m < kM; ++m) multiply(sum[m][kCount - 1], x[m], y[0], y[1], T{});
            }
        }
    }

    __device__ __forceinline__ void add(const char* stage, int queries, int columns) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const Lane x(stage, queries + warp % 2 * 32 + lane % 16, lane / 16);
        const Lane y(stage, warp / 2 * (columns / 4) + lane % 8 + lane / 16 * 8, lane / 8 % 2);
        static_assert(kN == 7, "a case for each");
        switch (columns / kWarp) {
            case 2:
                return steps<2>(x, y);
            case 3:
                return steps<3>(x, y);
            case 4:
                return steps<4>(x, y);
            case 5:
                return steps<5>(x, y);
            case 6:
                return steps<6>(x, y);
            default:
                return steps<7>(x, y);
        }
    }

    // Turns products into squared distances, given the squares of the rows of the stage, and says how many are kAnew.
    __device__ __forceinline__ int finish(const float* squares, int queries, int columns, float near) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m0 = queries + warp % 2 * 32 + lane / 4, n0 = warp / 2 * (columns / 4) + lane % 4 * 2;
        float own[kM][2];
        for (int m = 0; m < kM; ++m) {
            for (int e = 0; e < 2; ++e) own[m][e] = squares[m0 + 16 * m + 8 * e];
        }
        int count = 0;
#pragma unroll
        for (int n = 0; n < kN; ++n) {
            if (32 * n >= columns) continue;
            const float2 other = *reinterpret_cast<const float2*>(squares + n0 + 8 * n);
#pragma unroll
            for (int m = 0; m < kM; ++m) count += differences(sum[m][n], own[m], other, near);
        }
        return count;
    }

    // Writes them into a tile, two neighbours at a time: then no rows of a fragment share a bank.
    __device__ __forceinline__ void put(float* tile, int stride, int columns) const {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m0 = warp % 2 * 32 + lane / 4, n0 = warp / 2 * (columns / 4) + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < kN; ++n) {
            if (32 * n >= columns) continue;
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                for (int e = 0; e < 4; e += 2) {
                    float* to = tile + (m0 + 16 * m + 4 * e) * stride + n0 + 8 * n;
                    *reinterpret_cast<float2*>(to) = make_float2(sum[m][n][e], sum[m][n][e + 1]);
                }
            }
        }
    }
};

// Inner products of all pairs of 64 to 160 targets on tensor cores, in tiles of 32 by 32, of which those on the diagonal
// and above it do for all. A warp has at most two, which share a side, so that it loads no more than three: x with itself
// and with the next in the round; the warps behind these x with the next but one, and of five with the one after that.
template <typename T>
struct AllPairs {
    static constexpr int kM = 2, kN = 4;
    int x, y[2];
    float sum[2][kM][kN][4] = {};

    __device__ __forceinline__ explicit AllPairs(int tiles) {
        const int warp = threadIdx.x / kWarp, beyond = warp - tiles;
        x = beyond < 0 ? warp : beyond;
        y[0] = x + (beyond < 0 ? 0 : 2);
        y[1] = y[0] + 1;
        if (beyond >= 0) {
            if (tiles <= 3 || y[0] >= tiles) y[0] = kNone;
            if (tiles <= 4 || y[1] >= tiles) y[1] = kNone;
        } else if (y[1] == tiles) {
            y[1] = tiles > 2 ? 0 : kNone;
        }
    }

    // Where there is no tile; and floats from a row of a warp's own tile in shared memory to the next.
    static constexpr int kNone = -1, kOwnStride = kWarp + kTilePad;
    static_assert(kWarps * kWarp * kOwnStride * sizeof(float) <= kStages * kMaxAllPairs * kStageRow,
                  "every warp's tile takes the place of stages");

    // Sixteen rows of a tile, as the left side of a product; the halves of that are what the right side asks for.
    static __device__ __forceinline__ void fetch(unsigned (&to)[4], unsigned at, int m) {
        load_matrices(to, at + 16 * m * kStageRow);
        to_operands(to, T{});
    }

    // Adds the products with sixteen rows of the other side. Of a tile on the diagonal the lower quarter is the upper one.
    template <bool kItself>
    static __device__ __forceinline__ void multiply_by(float (&to)[kM][kN][4], const unsigned (&a)[kM][4],
                                                       const unsigned (&b)[4], int half) {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            if (kItself && half < m) continue;
            for (int n = 0; n < 2; ++n) multiply(to[m][2 * half + n], a[m], b[n], b[n + 2], T{});
        }
    }

    template <bool kItself, bool kTwo>
    __device__ __forceinline__ void steps(const Lane& at) {
        constexpr int kTileBytes = kWarp * kStageRow;
        const int x_at = x * kTileBytes, y_at[2] = {y[0] * kTileBytes, y[1] * kTileBytes};
#pragma unroll 1
        for (int k = 0; k < kWordsPerRow; k += 2) {
            const unsigned word = at.word(k);
            unsigned a[kM][4], b[4];
            for (int m = 0; m < kM; ++m) fetch(a[m], word + x_at, m);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                if (kItself) {
                    multiply_by<true>(sum[0], a, a[half], half);
                } else {
                    fetch(b, word + y_at[0], half);
                    multiply_by<false>(sum[0], a, b, half);
                }
                if (kTwo) {
                    fetch(b, word + y_at[1], half);
                    multiply_by<false>(sum[1], a, b, half);
                }
            }
        }
    }

    __device__ __forceinline__ void add(const char* stage, int, int) {
        const int lane = threadIdx.x % kWarp;
        const Lane at(stage, lane % 16, lane / 16);
        if (x == y[0]) return y[1] != kNone ? steps<true, true>(at) : steps<true, false>(at);
        if (y[0] != kNone) return y[1] != kNone ? steps<false, true>(at) : steps<false, false>(at);
    }

    // The squares of the rows, which lie on the diagonal.
    __device__ __forceinline__ void squares(float* to) const {
        const int row = threadIdx.x % kWarp / 4, column = threadIdx.x % 4 * 2;
        if (x != y[0] || row / 2 * 2 != column) return;
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            for (int e = 0; e < 2; ++e) {
                const float (&both)[4] = sum[0][m][2 * m + e];
                to[x * kWarp + 16 * m + 8 * e + row] = row % 2 == 0 ? both[2 * e] : both[2 * e + 1];
            }
        }
    }

    // As of the product above; a sample and itself do not count.
    __device__ __forceinline__ int finish(const float* squares, float near) {
        const int row = threadIdx.x % kWarp / 4, column = threadIdx.x % 4 * 2;
        int count = 0;
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            if (y[k] == kNone) continue;
            float own[kM][2];
            for (int m = 0; m < kM; ++m) {
                for (int e = 0; e < 2; ++e) own[m][e] = squares[x * kWarp + 16 * m + 8 * e + row];
            }
#pragma unroll
            for (int n = 0; n < kN; ++n) {
                const float2 other = *reinterpret_cast<const float2*>(squares + y[k] * kWarp + 8 * n + column);
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    if (k == 0 && n < 2 * m && x == y[0]) continue;
                    count += differences(sum[k][m][n], own[m], other, near);
                }
            }
        }
        return x == y[0] && row / 2 * 2 == column ? count - 4 : count;
    }

    // Writes a tile, of rows of side x or the other way about; of one on the diagonal, whose lower quarter was left out,
    // the upper quarter both ways.
    template <int kWhich>
    __device__ __forceinline__ void put(float* tile, bool turned) const {
        const int row = threadIdx.x % kWarp / 4, column = threadIdx.x % 4 * 2;
        const bool itself = kWhich == 0 && x == y[0];
        if (!turned) {
            float* to = tile + row * kOwnStride + column;
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                for (int n = 0; n < kN; ++n) {
                    if (kWhich == 0 && n < 2 * m && itself) continue;
                    for (int e = 0; e < 4; e += 2) {
                        *reinterpret_cast<float2*>(to + (16 * m + 4 * e) * kOwnStride + 8 * n) =
                            make_float2(sum[kWhich][m][n][e], sum[kWhich][m][n][e + 1]);
                    }
                }
            }
        }
        if (turned || itself) {
            float* to = tile + column * kOwnStride + row;
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                for (int n = 0; n < kN; ++n) {
                    if (kWhich == 0 && (m > 0 || n < 2) && itself) continue;
                    for (int e = 0; e < 4; ++e) {
                        to[(8 * n + e % 2) * kOwnStride + 16 * m + e / 2 * 8] = sum[kWhich][m][n][e];
                    }
                }
            }
        }
    }
};

// Shows the coordinates of a row of a stage.
template <typename T, typename See>
__device__ __forceinline__ void each_of(const char* stage, int row, See see) {
    for (int word = 0; word < kWordsPerRow; ++word) {
        float x[kWordDim<T>];
        widen(x, *reinterpret_cast<const uint4*>(word_of(stage, row, word)), T{});
        for (int e = 0; e < kWordDim<T>; ++e) see(x[e]);
    }
}

// The sum of the squares of a row, or of what tensor cores make of f32.
template <typename T, bool kRounded>
__device__ __forceinline__ float squares(const char* stage, int row) {
    float sum = 0.0f;
    each_of<T>(stage, row, [&](float x) {
        if (kRounded) x = operand(x);
        sum = fmaf(x, x, sum);
    });
    return sum;
}

template <typename T>
__device__ __noinline__ int count_nonfinite(const char* stage, int row) {
    int count = 0;
    each_of<T>(stage, row, [&](float x) { count += !(fabsf(x) <= kMaxFinite); });
    return count;
}

template <typename T>
__device__ __noinline__ int count_nonfinite(const T* sample, int dim) {
    int count = 0;
    for (int d = 0; d < dim; ++d) count += !(fabsf(to_float(sample[d])) <= kMaxFinite);
    return count;
}

// A block's tile: 64 queries, which lie in the stages from row `queries` on, by `columns` targets from j0 on.
struct Tile {
    int b, j0, columns, queries, rows, d_begin, d_end;
    bool words;
    char* stages;
    const void** sources;

    template <typename T>
    __device__ __forceinline__ void load(const DriftHead& head, int d, int step) const {
        fill<T>(stages + step % kStages * rows * kStageRow, sources, head, words, rows, d);
        copy_commit();
    }

    // Passes the coordinates by a product, stage by stage, and shows each stage to `see` first.
    template <typename T, typename Product, typename See>
    __device__ __forceinline__ void multiply(const DriftHead& head, Product* product, See see) const {
        load<T>(head, d_begin, 0);
#pragma unroll 1
        for (int d = d_begin, step = 0; d < d_end; d += kStageDim<T>, ++step) {
            copy_wait();
            __syncthreads();
            if (d_end - d > kStageDim<T>) load<T>(head, d + kStageDim<T>, step + 1);
            const char* stage = stages + step % kStages * rows * kStageRow;
            see(stage);
            product->add(stage, queries, columns);
        }
        __syncthreads();
    }
};

// The sums of a finished tile or row of a block.
struct Sums {
    double weighted = 0.0, weights = 0.0, all_weights = 0.0;

    __device__ __forceinline__ void add(const DriftCall& call, float d, float w, bool self) {
        all_weights += w;
        if (call.scale_kind == kScalePaper && self) return;
        weighted += static_cast<double>(d) * w;
        weights += w;
    }

    // Adds the weights of a tile whose first query is i0: a thread has a column's as often as there are queries, but for
    // the query itself.
    __device__ __forceinline__ void weigh(const DriftCall& call, const DriftHead& head, const Tile& at, int i0,
                                          float own) {
        const int queries = min(kTile, head.generated - i0), column = at.j0 + static_cast<int>(threadIdx.x) - i0;
        if (queries <= 0) return;
        const bool itself = call.scale_kind == kScalePaper && column >= 0 && column < queries;
        all_weights = static_cast<double>(own) * queries;
        weights = static_cast<double>(own) * (queries - (itself ? 1 : 0));
    }

    __device__ __forceinline__ void store(const DriftHead& head, int record, double nonfinite, double* scratch) const {
        double* to = head.distance_sums + static_cast<long long>(kDistanceSums) * record;
        const double sums[kDistanceSums] = {weighted, weights, all_weights, nonfinite};
        for (int k = 0; k < kDistanceSums; ++k) {
            const double sum = block_sum(sums[k], scratch);
            if (threadIdx.x == 0) to[k] = sum;
        }
    }
};

// Ends four neighbouring pairs (i, j), (i, j + 1), ... of a tile of 32 by 32, and gives the sum of their weighted
// distances. The lanes of a warp have eight times four pairs each of four rows. Those that are to be formed anew are, by
// the whole warp.
template <typename T, bool kGram>
__device__ __forceinline__ float end(const DriftCall& call, const DriftHead& head, const Tile& at, float* to, int i,
                                     int j, bool diagonal, const float* from, const float* weights) {
    const float4 four = *reinterpret_cast<const float4*>(from), weight = *reinterpret_cast<const float4*>(weights);
    float q[4] = {four.x, four.y, four.z, four.w}, w[4] = {weight.x, weight.y, weight.z, weight.w};
    if (diagonal) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            if (i != j + e) continue;
            if (call.constant_self) q[e] = call.min_squared;
            if (call.scale_kind == kScalePaper) w[e] = 0.0f;
        }
    }
    if (kGram && __any_sync(kAllLanes, fminf(fminf(q[0], q[1]), fminf(q[2], q[3])) < 0.0f)) {
        const int lane = threadIdx.x % kWarp;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            unsigned anew = __ballot_sync(kAllLanes, q[e] < 0.0f && i < head.targets && j + e < head.targets);
            for (; anew != 0; anew &= anew - 1) {
                const int which = __ffs(static_cast<int>(anew)) - 1;
                const T* x = target<T>(head, at.b, i - lane / 8 + which / 8);
                const T* y = target<T>(head, at.b, j + e + (which % 8 - lane % 8) * 4);
                float distance = 0.0f;
                for (int d = at.d_begin + lane; d < at.d_end; d += kWarp) {
                    const float difference = to_float(x[d]) - to_float(y[d]);
                    distance = fmaf(difference, difference, distance);
                }
                distance = warp_sum(distance);
                if (lane == which) q[e] = distance;
            }
        }
    }
    if (head.slices == 1) {
        for (int e = 0; e < 4; ++e) q[e] = sqrt_fast(clip_min(q[e], call.min_squared));
    }
    float sum = 0.0f;
    if (j + 4 <= head.targets) {
        for (int e = 0; e < 4; ++e) sum = fmaf(q[e], w[e], sum);
        if (to == nullptr) return sum;
        if (head.targets % 4 == 0) {
            *reinterpret_cast<float4*>(to + j) = make_float4(q[0], q[1], q[2], q[3]);
        } else {
            for (int e = 0; e < 4; ++e) to[j + e] = q[e];
        }
        return sum;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        if (j + e >= head.targets) break;
        sum = fmaf(q[e], w[e], sum);
        if (to != nullptr) to[j + e] = q[e];
    }
    return sum;
}

// Where a query's distances go, or nowhere: those of targets that are not generated to `among`.
__device__ __forceinline__ float* row_of(const DriftHead& head, int b, int i, int slice) {
    if (i < head.generated) {
        float* to = head.distances;
        if (head.slices > 1) {
            to = head.partial + static_cast<long long>(slice) * head.groups * head.generated * head.targets;
        }
        return to == nullptr ? to : to + (static_cast<long long>(b) * head.generated + i) * head.targets;
    }
    if (head.among == nullptr || i >= head.targets) return nullptr;
    const int others = head.targets - head.generated;
    return head.among + (static_cast<long long>(b) * others + i - head.generated) * head.targets;
}

// Ends the tiles `begin` to `end` of 32 rows of a block's tile, whose first row is query i0, from the first column on
// or from that of the diagonal.
template <typename T, bool kGram>
__device__ __forceinline__ void end_rows(const DriftCall& call, const DriftHead& head, const Tile& at, int slice,
                                         const float* tile, const float* weights, int i0, int begin, int end_,
                                         bool whole, Sums* sums) {
    const int quad = threadIdx.x % 8 * 4;
#pragma unroll 1
    for (int r = begin; r < end_; ++r) {
        const int row = kWarp * r + threadIdx.x / 8, i = i0 + row;
        float* to = row_of(head, at.b, i, slice);
        float sum = 0.0f;
#pragma unroll 1
        for (int column = whole ? 0 : i0 + kWarp * r - at.j0; column < at.columns; column += kWarp) {
            sum += end<T, kGram>(call, head, at, to, i, at.j0 + column + quad, i0 + kWarp * r == at.j0 + column,
                                 tile + row * (at.columns + kTilePad) + column + quad, weights + column + quad);
        }
        if (i < head.generated) sums->weighted += sum;
    }
}

// Ends a warp's own tile, whose sides are these tiles of targets.
template <typename T>
__device__ __forceinline__ void end_own(const DriftCall& call, const DriftHead& head, const Tile& at, const float* tile,
                                        const float* weights, int rows, int columns, Sums* sums) {
    const int quad = threadIdx.x % 8 * 4, row = threadIdx.x % kWarp / 8;
    const float* from = tile + row * AllPairs<T>::kOwnStride + quad;
    float sum = 0.0f;
#pragma unroll 1
    for (int k = 0; k < kWarp; k += 4, from += 4 * AllPairs<T>::kOwnStride) {
        const int i = at.j0 + rows * kWarp + row + k;
        const float part = end<T, true>(call, head, at, row_of(head, at.b, i, 0), i, at.j0 + columns * kWarp + quad,
                                        rows == columns, from, weights + columns * kWarp + quad);
        if (i < head.generated) sum += part;
    }
    sums->weighted += sum;
}

// A number that the compiler knows.
template <int kValue>
struct Which {
    static constexpr int value = kValue;
};

// What the threads of a block share.
struct Shared {
    float norms[kMaxColumns + kTile], weights[kMaxColumns];
    const void* sources[kMaxColumns + kTile];
    double scratch[kWarps];
    // What is asked for at the end alone: the number of the block's record.
    int record;
};

// Takes the weights of a tile's targets.
__device__ __forceinline__ void weigh(const DriftCall& call, const DriftHead& head, const Tile& at, float* weights) {
    const int j = at.j0 + static_cast<int>(threadIdx.x);
    if (threadIdx.x < at.columns) weights[threadIdx.x] = j < head.targets ? weight(call, head, at.b, j) : 0.0f;
}

// All pairs of the targets from j0 on, at most kMaxAllPairs of them.
template <typename T>
__device__ __forceinline__ void all_pairs(const DriftCall& call, const DriftHead& head, int b, int j0, char* stages,
                                          Shared* shared) {
    const int columns = max(kTile, tiles_of(head.targets - j0, kWarp) * kWarp);
    Tile at = {b, j0, columns, 0, columns, 0, head.dim, whole_words<T>(head), stages, shared->sources};
    locate<T>(shared->sources, head, b, j0, columns);
    weigh(call, head, at, shared->weights);
    float* norms = shared->norms;
    AllPairs<T> product(columns / kWarp);
    at.multiply<T>(head, &product, [](const char*) {});
    product.squares(norms);
    __syncthreads();
    // Of the threads that have pairs.
    const int tiles = (product.y[0] >= 0) + (product.y[1] >= 0), near = product.finish(norms, call.near);
    const int most = __syncthreads_count(16 * near > kTile / 2 * tiles);
    Sums sums;
    if (2 * most > __syncthreads_count(tiles > 0)) {
        float* tile = reinterpret_cast<float*>(stages);
#pragma unroll 1
        for (int begin = 0; begin < columns; begin += kTile) {
            at.queries = min(begin, columns - kTile);
            Plain<T> plain;
            at.multiply<T>(head, &plain, [](const char*) {});
            plain.put(tile, columns + kTilePad, columns);
            __syncthreads();
            end_rows<T, false>(call, head, at, 0, tile, shared->weights, j0 + at.queries, (begin - at.queries) / kWarp,
                               (min(begin + kTile, columns) - at.queries) / kWarp, j0 + begin == 0, &sums);
            __syncthreads();
        }
    } else {
        float* tile = reinterpret_cast<float*>(stages) + threadIdx.x / kWarp * (kWarp * AllPairs<T>::kOwnStride);
        const int x = product.x;
        const auto save = [&](auto which, bool turned) {
            const int y = product.y[which.value];
            __syncwarp();
            product.template put<which.value>(tile, turned);
            __syncwarp();
            end_own<T>(call, head, at, tile, shared->weights, turned ? y : x, turned ? x : y, &sums);
        };
        if (tiles > 0) save(Which<0>{}, false);
        if (tiles > 1) save(Which<1>{}, product.y[1] < x);
        // Queries have all of their distances.
        if (j0 == 0 && x == 0 && product.y[1] == 1) save(Which<1>{}, true);
    }
    const float own_weight = threadIdx.x < columns ? shared->weights[threadIdx.x] : 0.0f;
    sums.weigh(call, head, at, j0, own_weight);
    int nonfinite = 0;
    if (j0 == 0 && threadIdx.x < columns) {
        nonfinite += !(own_weight <= kMaxFinite);
        if (!(norms[threadIdx.x] <= kMaxFinite)) {
            nonfinite += count_nonfinite(target<T>(head, b, static_cast<int>(threadIdx.x)), head.dim);
        }
    }
    sums.store(head, shared->record, nonfinite, shared->scratch);
}

// The distances of 64 queries from i0 on to a tile of targets, over a slice of the coordinates.
template <typename T, typename Product>
__device__ __forceinline__ void one_tile(const DriftCall& call, const DriftHead& head, int b, int i0, int j0,
                                         int columns, int slice, char* stages, Shared* shared) {
    const int d_begin = slice * head.slice, d_end = d_begin + min(head.slice, head.dim - d_begin);
    const void** sources = shared->sources;
    float* norms = shared->norms;

    // Queries are the first targets: either the tile has them, or they follow it.
    const bool within = i0 >= j0 && i0 + kTile <= j0 + columns;
    const int queries = within ? i0 - j0 : columns, rows = within ? columns : columns + kTile;
    const Tile at = {b, j0, columns, queries, rows, d_begin, d_end, whole_words<T>(head), stages, sources};
    locate<T>(sources, head, b, j0, columns);
    if (!within) locate<T>(sources + columns, head, b, i0, kTile);

    // The first row of tiles sees every target once.
    const bool first = i0 == 0;
    weigh(call, head, at, shared->weights);
    int nonfinite = 0;
    // Each thread sees the row of the stage that has its number, and that 256 further on.
    float norm = 0.0f, norm_beyond = 0.0f;
    constexpr bool kRounded = Product::kGram && sizeof(T) == sizeof(float);
    const auto see = [&](const char* stage) {
        const int row = threadIdx.x;
        if (row < rows) {
            const float sum = squares<T, kRounded>(stage, row);
            norm += sum;
            if (first && row < columns && !(sum <= kMaxFinite)) nonfinite += count_nonfinite<T>(stage, row);
        }
        if (Product::kGram && row + kThreads < rows) norm_beyond += squares<T, kRounded>(stage, row + kThreads);
    };

    // The tile of squared distances takes the place of the stages.
    float* tile = reinterpret_cast<float*>(stages);
    const int stride = columns + kTilePad;
    bool most = false;
    {
        Product product;
        at.multiply<T>(head, &product, see);
        if constexpr (Product::kGram) {
            if (threadIdx.x < rows) norms[threadIdx.x] = norm;
            if (threadIdx.x + kThreads < rows) norms[threadIdx.x + kThreads] = norm_beyond;
            __syncthreads();
            // Of a thread's pairs, of which each warp has as many.
            const int near = product.finish(norms, queries, columns, call.near), pairs = kTile * columns / kThreads;
            most = __syncthreads_count(16 * near > pairs) > kThreads / 2;
        }
        if (!most) product.put(tile, stride, columns);
    }
    if (most) {
        Plain<T> product;
        at.multiply<T>(head, &product, [](const char*) {});
        product.put(tile, stride, columns);
    }
    __syncthreads();

    const int queries_in_all = head.among != nullptr ? head.targets : head.generated;
    Sums sums;
    end_rows<T, Product::kGram>(call, head, at, slice, tile, shared->weights, i0, 0,
                                min(kTile / kWarp, tiles_of(queries_in_all - i0, kWarp)), true, &sums);
    const float own_weight = threadIdx.x < columns ? shared->weights[threadIdx.x] : 0.0f;
    sums.weigh(call, head, at, i0, own_weight);
    nonfinite += first && slice == 0 && !(own_weight <= kMaxFinite);
    if (head.slices > 1) {
        // `join` has the rest; only the count is known here alone, and counts are sums of ones in any order.
        const double count = block_sum(nonfinite, shared->scratch);
        double* counts = head.distance_sums + static_cast<long long>(kDistanceSums) * head.records;
        if (threadIdx.x == 0) counts[shared->record] = count;
        return;
    }
    sums.store(head, shared->record, nonfinite, shared->scratch);
}

template <typename T, typename Product>
__device__ __forceinline__ void run(const DriftCall& call) {
    extern __shared__ uint4 dynamic[];
    __shared__ Shared shared;
    char* stages = reinterpret_cast<char*>(dynamic);
    int b;
    const DriftHead& head = head_of(call, kDistances, &b);
    if (threadIdx.x == 0) shared.record = b;
    int i0 = 0, j0 = 0, columns = head.columns, slice = 0;
    if (Product::kGram && head.among != nullptr) {
        // For the zero-sum identity all targets are queries: in one block, or those behind the first 64 in a second.
        const int blocks = head.targets > kMaxAllPairs ? 2 : 1;
        const int which = b % blocks;
        b /= blocks;
        if (blocks == 1 || which == 1) return all_pairs<T>(call, head, b, which * kTile, stages, &shared);
    } else {
        // For the identity in the plain rung they are, 64 at a time, to the targets that are not before them.
        const int queries = head.among != nullptr ? head.targets : head.generated;
        const int tiles_j = tiles_of(head.targets, columns), tiles_i = tiles_of(queries, kTile);
        j0 = b % tiles_j * columns;
        b /= tiles_j;
        i0 = b % tiles_i * kTile;
        b /= tiles_i;
        if (head.among != nullptr && i0 > 0) {
            j0 = i0;
            columns = max(kTile, tiles_of(head.targets - i0, kWarp) * kWarp);
        }
        slice = b % head.slices;
        b /= head.slices;
    }
    one_tile<T, Product>(call, head, b, i0, j0, columns, slice, stages, &shared);
}

}  // namespace distances

// One warp a row of distances: adds the slices.
extern "C" __global__ void __launch_bounds__(kThreads, 2) join(const __grid_constant__ DriftCall call) {
    __shared__ double scratch[kWarps];
    int block;
    const DriftHead& head = head_of(call, kJoin, &block);
    const long long rows = static_cast<long long>(head.groups) * head.generated;
    const long long row = static_cast<long long>(block) * kWarps + threadIdx.x / kWarp;
    distances::Sums sums;
    if (row < rows) {
        const int b = static_cast<int>(row / head.generated), i = static_cast<int>(row % head.generated);
        for (int j = threadIdx.x % kWarp; j < head.targets; j += kWarp) {
            float q = 0.0f;
            for (int slice = 0; slice < head.slices; ++slice)
                q += head.partial[(slice * rows + row) * head.targets + j];
            const float d = finished(call, q, i == j);
            head.distances[row * head.targets + j] = d;
            sums.add(call, d, weight(call, head, b, j), i == j);
        }
    }
    sums.store(head, block, 0.0, scratch);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) distances_f32(const __grid_constant__ DriftCall call) {
    distances::run<float, distances::Plain<float>>(call);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) distances_f16(const __grid_constant__ DriftCall call) {
    distances::run<Half, distances::Plain<Half>>(call);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) distances_bf16(const __grid_constant__ DriftCall call) {
    distances::run<Bfloat, distances::Plain<Bfloat>>(call);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) distances_f32_tensor(const __grid_constant__ DriftCall call) {
    distances::run<float, distances::Tensor<float>>(call);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) distances_f16_tensor(const __grid_constant__ DriftCall call) {
    distances::run<Half, distances::Tensor<Half>>(call);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    distances_bf16_tensor(const __grid_constant__ DriftCall call) {
    distances::run<Bfloat, distances::Tensor<Bfloat>>(call);
}
