// Phase A: d_bij = sqrt(max(|x_bi - y_bj|^2, min_squared)) for every query i < G and target j < T of every group b
// (spec 2.2 (1)), and the sums from which the scale follows (2): sum d w, sum w over pairs, and the count of coordinates
// that are not finite.
//
// Numerics: squared differences are added in f32 along d; nothing cancels, so rules (i) and (iii) of spec 2.2a change
// nothing here. Sums over pairs are f64, in a fixed order.
// Mapping: one block for 64 queries by 64 targets of a group; each of 16 x 16 threads has 4 x 4 pairs, 16 apart, so that
// lanes read neighbouring targets. Per step 16 coordinates of both tiles lie in shared memory, transposed: 8.7 KiB.
// Cost: 2 FLOP per pair and coordinate beyond the difference (3 G T D a group); reads (G + T) D per tile, writes 4 G T
// bytes. Bound by FMA from D = 16 on.
// Limits: sm_80 and later; B tiles of G and T at most 2^31 - 1 blocks.
#include "common.cuh"

namespace distances {

constexpr int kDepth = 16;
// Five words of padding: the transposing stores of a warp, 16 apart in d, fall into different banks two by two at most.
constexpr int kPad = 5;

template <typename T>
__device__ __forceinline__ void run(const DriftParams& p) {
    __shared__ float xs[kDepth][kTile + kPad], ys[kDepth][kTile + kPad];
    __shared__ double scratch[kWarps];
    const int tiles_i = tiles_of(p.generated), tiles_j = tiles_of(p.targets);
    const int b = blockIdx.x / (tiles_i * tiles_j), tile = blockIdx.x % (tiles_i * tiles_j);
    const int i0 = tile / tiles_j * kTile, j0 = tile % tiles_j * kTile;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;

    float sum[kPer][kPer] = {};
    int nonfinite = 0;
    for (int d0 = 0; d0 < p.dim; d0 += kDepth) {
        for (int at = threadIdx.x; at < kTile * kDepth; at += kThreads) {
            const int row = at / kDepth, d = at % kDepth;
            const bool inside = d0 + d < p.dim;
            xs[d][row] = inside && i0 + row < p.generated ? to_float(target<T>(p, b, i0 + row)[d0 + d]) : 0.0f;
            const float y = inside && j0 + row < p.targets ? to_float(target<T>(p, b, j0 + row)[d0 + d]) : 0.0f;
            ys[d][row] = y;
            // The first row of tiles sees every target once.
            if (i0 == 0) nonfinite += !(fabsf(y) <= 3.4028235e38f);
        }
        __syncthreads();
        for (int d = 0; d < kDepth; ++d) {
            float x[kPer], y[kPer];
            for (int k = 0; k < kPer; ++k) {
                x[k] = xs[d][ty + kSide * k];
                y[k] = ys[d][tx + kSide * k];
            }
            for (int m = 0; m < kPer; ++m) {
                for (int n = 0; n < kPer; ++n) {
                    const float difference = x[m] - y[n];
                    sum[m][n] = fmaf(difference, difference, sum[m][n]);
                }
            }
        }
        __syncthreads();
    }

    double weighted = 0.0, weights = 0.0;
    const float self = sqrtf(p.min_squared);
    for (int n = 0; n < kPer; ++n) {
        const int j = j0 + tx + kSide * n;
        if (j >= p.targets) continue;
        const float w = weight(p, b, j);
        for (int m = 0; m < kPer; ++m) {
            const int i = i0 + ty + kSide * m;
            if (i >= p.generated) continue;
            float d = sqrtf(clip_min(sum[m][n], p.min_squared));
            if (i == j && p.constant_self) d = self;
            p.distances[(static_cast<long long>(b) * p.generated + i) * p.targets + j] = d;
            if (p.scale_kind == kScalePaper && i == j) continue;
            weighted += static_cast<double>(d) * w;
            weights += w;
        }
    }
    const double total = block_sum(weighted, scratch);
    const double weight_total = block_sum(weights, scratch);
    const double count = block_sum(nonfinite, scratch);
    if (threadIdx.x == 0) {
        double* sums = p.distance_sums + 3LL * blockIdx.x;
        sums[0] = total;
        sums[1] = weight_total;
        sums[2] = count;
    }
}

}  // namespace distances

extern "C" __global__ void __launch_bounds__(kThreads, 2) distances_f32(const __grid_constant__ DriftParams p) {
    distances::run<float>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) distances_f16(const __grid_constant__ DriftParams p) {
    distances::run<Half>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) distances_bf16(const __grid_constant__ DriftParams p) {
    distances::run<Bfloat>(p);
}
