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
// sums over pairs a lane adds its part of a row in f32, a few terms, and all else in f64, in a fixed order.
// Mapping: one block for 64 queries by up to 224 targets of a group, so that a group of G <= 64 and T <= 224 is one
// block (without the identity) and each sample is read once; queries that are among the tile's targets are not loaded
// twice. Two stages of 128 bytes of each sample. Plain: 16 x 16 threads with 4 x 14 pairs each. Tensor cores: 2 x 4
// warps with 32 queries each by a quarter of the targets. The tile then passes through shared memory, so that rows are
// stored whole. Zero-sum identity: where norms come by it, all targets are queries, 64 at a time, to the targets from
// the first of them on: more blocks, whose distances go to `among`.
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

    // Shows every pair with its squared distance.
    template <typename Put>
    __device__ __forceinline__ void each(const float*, int, int columns, Put put) const {
        const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int n = 0; n < kN; ++n) {
                if (n * kSide < columns) put(ty + kSide * m, tx + kSide * n, sum[m][n], 0.0f);
            }
        }
    }
};

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

    // Shows every pair with its squared distance, from the squares of the rows of the stage.
    template <typename Put>
    __device__ __forceinline__ void each(const float* squares, int queries, int columns, Put put) const {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m0 = warp % 2 * 32 + lane / 4, n0 = warp / 2 * (columns / 4) + lane % 4 * 2;
        float own[kM][2];
        for (int m = 0; m < kM; ++m) {
            for (int e = 0; e < 2; ++e) own[m][e] = squares[queries + m0 + 16 * m + 8 * e];
        }
#pragma unroll
        for (int n = 0; n < kN; ++n) {
            if (32 * n >= columns) continue;
            const float other[2] = {squares[n0 + 8 * n], squares[n0 + 8 * n + 1]};
#pragma unroll
            for (int m = 0; m < kM; ++m) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const float both = own[m][e / 2] + other[e % 2];
                    put(m0 + 16 * m + e / 2 * 8, n0 + 8 * n + e % 2, fmaf(-2.0f, sum[m][n][e], both), both);
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

// The sums of a finished tile or row of a block.
struct Sums {
    double weighted = 0.0, weights = 0.0, all_weights = 0.0;

    __device__ __forceinline__ void add(const DriftCall& call, float d, float w, bool self) {
        all_weights += w;
        if (call.scale_kind == kScalePaper && self) return;
        weighted += static_cast<double>(d) * w;
        weights += w;
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

// A block's tile: queries from i0 on, which lie in the stages from row `queries` on, by `columns` targets from j0 on.
struct Tile {
    int b, i0, j0, columns, queries, rows, d_begin, d_end;
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

template <typename T, typename Product>
__device__ __forceinline__ void run(const DriftCall& call) {
    extern __shared__ uint4 shared[];
    __shared__ float norms[kMaxColumns + kTile], weights[kMaxColumns];
    __shared__ const void* sources[kMaxColumns + kTile];
    __shared__ double scratch[kWarps];
    int block;
    const DriftHead& head = head_of(call, kDistances, &block);
    const int record = block;
    // For the zero-sum identity all targets are queries, to the targets that are not before them.
    const int queries_in_all = head.among != nullptr ? head.targets : head.generated;
    const int tiles_j = tiles_of(head.targets, head.columns), tiles_i = tiles_of(queries_in_all, kTile);
    int j0 = block % tiles_j * head.columns;
    block /= tiles_j;
    const int i0 = block % tiles_i * kTile;
    block /= tiles_i;
    int columns = head.columns;
    if (head.among != nullptr && i0 > 0) {
        j0 = i0;
        columns = max(kTile, tiles_of(head.targets - i0, kWarp) * kWarp);
    }
    const int slice = block % head.slices, b = block / head.slices;
    const int d_begin = slice * head.slice, d_end = d_begin + min(head.slice, head.dim - d_begin);

    // Queries are the first targets: either the tile has them, or they follow it.
    const bool within = i0 >= j0 && i0 + kTile <= j0 + columns;
    const int queries = within ? i0 - j0 : columns, rows = within ? columns : columns + kTile;
    const Tile at = {
        b,      i0, j0, columns, queries, rows, d_begin, d_end, whole_words<T>(head), reinterpret_cast<char*>(shared),
        sources};
    locate<T>(sources, head, b, j0, columns);
    if (!within) locate<T>(sources + columns, head, b, i0, kTile);

    // Each thread sees the row of the stage that has its number, and that 256 further on.
    float norm = 0.0f, norm_beyond = 0.0f;
    int nonfinite = 0;
    // The first row of tiles sees every target once.
    const bool first = i0 == 0;
    float own_weight = 0.0f;
    if (threadIdx.x < columns) {
        const int j = j0 + static_cast<int>(threadIdx.x);
        if (j < head.targets) own_weight = weight(call, head, b, j);
        weights[threadIdx.x] = own_weight;
        nonfinite += first && slice == 0 && !(own_weight <= kMaxFinite);
    }
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

    // The tile of squared distances takes the place of the stages. -1 stands for a pair to be formed from differences.
    float* tile = reinterpret_cast<float*>(shared);
    const int stride = columns + kTilePad;
    bool most = false;
    {
        Product product;
        at.multiply<T>(head, &product, see);
        if (Product::kGram) {
            if (threadIdx.x < rows) norms[threadIdx.x] = norm;
            if (threadIdx.x + kThreads < rows) norms[threadIdx.x + kThreads] = norm_beyond;
            __syncthreads();
        }
        int near = 0;
        product.each(norms, queries, columns, [&](int i, int j, float q, float both) {
            const bool cancels = Product::kGram && q < call.near * both;
            near += cancels;
            tile[i * stride + j] = cancels ? -1.0f : q;
        });
        // Of a thread's pairs, of which each warp has as many.
        const int pairs = kTile * columns / kThreads;
        if (Product::kGram) most = __syncthreads_count(16 * near > pairs) > kThreads / 2;
    }
    if (most) {
        Plain<T> product;
        at.multiply<T>(head, &product, [](const char*) {});
        product.each(norms, queries, columns, [&](int i, int j, float q, float) { tile[i * stride + j] = q; });
    }
    __syncthreads();

    const int lane = threadIdx.x % kWarp;
    const bool skips_self = call.scale_kind == kScalePaper;
    Sums sums;
    for (int row = threadIdx.x / kWarp; row < kTile; row += kWarps) {
        const int i = i0 + row;
        if (i >= queries_in_all) break;
        const bool other = i >= head.generated;
        const long long query = static_cast<long long>(b) * head.generated + i;
        float* to = head.distances;
        if (head.slices > 1) {
            to = head.partial + (slice * (static_cast<long long>(head.groups) * head.generated) + query) * head.targets;
        } else if (other) {
            to = head.among +
                 (static_cast<long long>(b) * (head.targets - head.generated) + i - head.generated) * head.targets;
        } else if (to != nullptr) {
            to += query * head.targets;
        }
        // A lane's part of a row is a few terms.
        float partial = 0.0f;
#pragma unroll 1
        for (int column = lane; column - lane < columns; column += kWarp) {
            const int j = j0 + column;
            const bool inside = j < head.targets;
            float q = inside ? tile[row * stride + column] : 0.0f;
            if (Product::kGram) {
                unsigned near = __ballot_sync(kAllLanes, q < 0.0f && !(i == j && call.constant_self));
                for (; near != 0; near &= near - 1) {
                    const int which = __ffs(static_cast<int>(near)) - 1;
                    const T *x = target<T>(head, b, i), *y = target<T>(head, b, j - lane + which);
                    float sum = 0.0f;
                    for (int d = d_begin + lane; d < d_end; d += kWarp) {
                        const float difference = to_float(x[d]) - to_float(y[d]);
                        sum = fmaf(difference, difference, sum);
                    }
                    sum = warp_sum(sum);
                    if (lane == which) q = sum;
                }
            }
            if (!inside) continue;
            const float d = head.slices > 1 ? q : finished(call, q, i == j);
            if (to != nullptr) to[j] = d;
            if (!(skips_self && i == j)) partial = fmaf(d, weights[column], partial);
        }
        if (!other) sums.weighted += partial;
    }
    // A thread has a column's weight as often as there are queries, but for the query itself.
    const int queries_here = min(kTile, head.generated - i0), own = j0 + static_cast<int>(threadIdx.x) - i0;
    if (queries_here > 0) {
        sums.all_weights = static_cast<double>(own_weight) * queries_here;
        const bool itself = skips_self && own >= 0 && own < queries_here;
        sums.weights = static_cast<double>(own_weight) * (queries_here - (itself ? 1 : 0));
    }
    if (head.slices > 1) {
        // `join` has the rest; only the count is known here alone, and counts are sums of ones in any order.
        const double count = block_sum(nonfinite, scratch);
        if (threadIdx.x == 0) head.distance_sums[static_cast<long long>(kDistanceSums) * head.records + record] = count;
        return;
    }
    sums.store(head, record, nonfinite, scratch);
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
