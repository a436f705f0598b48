// What a generator does beside its products, which are cuBLAS's.
//
//   bias_silu      z += b, y = silu(z)
//   add_bias       y += b
//   silu_grad      dz *= silu'(z), and the columns of dz added up over kSumRows rows
//   column_sums    the same without SiLU
//   join_columns   the gradients of all biases from those sums
//
// Numerics: f32; the exponential is expf. Sums have a fixed order: the same bits from run to run.
// Mapping: a warp has 32 neighbouring columns of a row; a block of sums 32 columns of kSumRows rows, eight a warp.
// Cost: bias_silu reads z once and writes z and y; silu_grad reads z and dz and writes dz, [n, width] each.
// Limits: sm_80 and later; n of 2^31 / width samples.
#include "common.cuh"

namespace network {

// 1 / (1 + e^-z), from the exponential of a number <= 0.
__device__ __forceinline__ float sigmoid(float z) {
    const float e = expf(-fabsf(z));
    return (z < 0.0f ? e : 1.0f) / (1.0f + e);
}

// Adds up the columns of a tile, one number a thread and row, in a fixed order.
__device__ __forceinline__ void add_columns(float sum, bool inside, float* to) {
    __shared__ float scratch[kWarps][kWarp];
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    scratch[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || !inside) return;
    float total = scratch[0][lane];
    for (int k = 1; k < kWarps; ++k) total += scratch[k][lane];
    *to = total;
}

// The tile of columns that a block adds up.
struct Tile {
    int column, first, last;

    __device__ __forceinline__ Tile(int n, int width) {
        const int wide = tiles_of(width, kWarp), at = static_cast<int>(blockIdx.x);
        column = at % wide * kWarp + static_cast<int>(threadIdx.x) % kWarp;
        first = at / wide * kSumRows + static_cast<int>(threadIdx.x) / kWarp;
        last = at / wide * kSumRows + kSumRows;
        last = last < n ? last : n;
    }
};

}  // namespace network

extern "C" __global__ void __launch_bounds__(kThreads)
    bias_silu(long long count, int width, const float* bias, float* z, float* y) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at >= count) return;
    const float sum = z[at] + bias[at % width];
    z[at] = sum;
    y[at] = sum * network::sigmoid(sum);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    add_bias(long long count, int width, const float* bias, float* y) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < count) y[at] += bias[at % width];
}

extern "C" __global__ void __launch_bounds__(kThreads)
    silu_grad(int n, int width, const float* z, float* dz, float* sums, int columns, int first) {
    const network::Tile tile(n, width);
    const bool inside = tile.column < width;
    float sum = 0.0f;
    for (int row = tile.first; row < tile.last && inside; row += kWarps) {
        const long long at = static_cast<long long>(row) * width + tile.column;
        const float s = network::sigmoid(z[at]);
        const float grad = dz[at] * s * fmaf(z[at], 1.0f - s, 1.0f);
        dz[at] = grad;
        sum += grad;
    }
    const int stripe = static_cast<int>(blockIdx.x) / tiles_of(width, kWarp);
    network::add_columns(sum, inside, sums + static_cast<long long>(stripe) * columns + first + tile.column);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    column_sums(int n, int width, const float* dy, float* sums, int columns, int first) {
    const network::Tile tile(n, width);
    const bool inside = tile.column < width;
    float sum = 0.0f;
    for (int row = tile.first; row < tile.last && inside; row += kWarps) {
        sum += dy[static_cast<long long>(row) * width + tile.column];
    }
    const int stripe = static_cast<int>(blockIdx.x) / tiles_of(width, kWarp);
    network::add_columns(sum, inside, sums + static_cast<long long>(stripe) * columns + first + tile.column);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    join_columns(const __grid_constant__ JoinColumns call, const float* sums, float* grad) {
    int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
    int layer = 0;
    while (layer < call.layers && at >= call.count[layer]) at -= call.count[layer++];
    if (layer == call.layers) return;
    const float* from = sums + call.first[layer] + at;
    float sum = 0.0f;
    for (int tile = 0; tile < call.tiles; ++tile) sum += from[static_cast<long long>(tile) * call.columns];
    grad[call.to[layer] + at] = sum;
}
