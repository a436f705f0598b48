// What a generator does beside its products, which are cuBLAS's.
//
//   narrow          the operand of a product, in bfloat16
//   bias_silu       z += b, with what class and guidance scale add; y = silu(z)
//   add_bias        y += b, and to it what goes past a block
//   normalize       y = gain x / rms(x), of each sample
//   normalize_grad  the gradient by x
//   gain_sums       that by the gains, added up over kSumRows rows
//   silu_grad       dz *= silu'(z), and the columns of dz added up over kSumRows rows
//   column_sums     the same without SiLU
//   join_columns    the gradients of all biases and gains from those sums
//   condition_grad  the gradients of the vectors of classes and guidance scale
//
// Numerics: f32; the exponential is expf. Sums have a fixed order: the same bits from run to run.
// Mapping: a warp has 32 neighbouring columns of a row, or in normalisations a row; a block of sums 32 columns of
// kSumRows rows, eight a warp; a block of condition_grad 32 columns of a class, all samples.
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

// Added to the mean square of what is normalised.
constexpr float kNormFloor = 1e-6f;

}  // namespace network

extern "C" __global__ void __launch_bounds__(kThreads) narrow(long long count, const float* from, Bfloat* to) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < count) round_to(to + at, from[at]);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    bias_silu(long long count, int width, const float* bias, const __grid_constant__ Conditions conditions, float* z,
              float* y) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at >= count) return;
    const int column = static_cast<int>(at % width);
    float sum = z[at];
    if (conditions.labels != nullptr) {
        const int slot = static_cast<int>(at / width / conditions.rows);
        // What is no class gives NaN: the host cannot see it, the results do.
        const float label = conditions.labels[slot];
        const bool known = label >= 0.0f && label < static_cast<float>(conditions.classes);
        sum += known ? conditions.table[static_cast<long long>(label) * width + column] : __uint_as_float(0x7fffffffu);
        if (conditions.vector != nullptr) sum = fmaf(conditions.guidance[slot], conditions.vector[column], sum);
    }
    sum += bias[column];
    z[at] = sum;
    y[at] = sum * network::sigmoid(sum);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    add_bias(long long count, int width, const float* bias, const float* past, float* y) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at >= count) return;
    const float sum = y[at] + bias[at % width];
    y[at] = past != nullptr ? sum + past[at] : sum;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    normalize(long long n, int width, const float* gain, const float* x, float* inverse, float* y) {
    const long long row = static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (row >= n) return;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    x += row * width;
    y += row * width;
    float sum = 0.0f;
    for (int d = lane; d < width; d += kWarp) sum = fmaf(x[d], x[d], sum);
    const float factor = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(width) + network::kNormFloor);
    for (int d = lane; d < width; d += kWarp) y[d] = gain[d] * x[d] * factor;
    if (lane == 0) inverse[row] = factor;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    normalize_grad(long long n, int width, const float* gain, const float* x, const float* inverse, const float* dy,
                   float* dx, int add) {
    const long long row = static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
    if (row >= n) return;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    x += row * width;
    dy += row * width;
    dx += row * width;
    float sum = 0.0f;
    for (int d = lane; d < width; d += kWarp) sum = fmaf(dy[d] * gain[d], x[d], sum);
    const float factor = inverse[row];
    const float along = warp_sum(sum) * factor * factor / static_cast<float>(width);
    for (int d = lane; d < width; d += kWarp) {
        const float slope = factor * fmaf(-along, x[d], dy[d] * gain[d]);
        dx[d] = add ? dx[d] + slope : slope;
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    gain_sums(int n, int width, const float* x, const float* inverse, const float* dy, float* sums, int columns,
              int first) {
    const network::Tile tile(n, width);
    const bool inside = tile.column < width;
    float sum = 0.0f;
    for (int row = tile.first; row < tile.last && inside; row += kWarps) {
        const long long at = static_cast<long long>(row) * width + tile.column;
        sum = fmaf(dy[at] * x[at], inverse[row], sum);
    }
    const int stripe = static_cast<int>(blockIdx.x) / tiles_of(width, kWarp);
    network::add_columns(sum, inside, sums + static_cast<long long>(stripe) * columns + first + tile.column);
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
    int vector = 0;
    while (vector < call.vectors && at >= call.count[vector]) at -= call.count[vector++];
    if (vector == call.vectors) return;
    const float* from = sums + call.first[vector] + at;
    float sum = 0.0f;
    for (int tile = 0; tile < call.tiles; ++tile) sum += from[static_cast<long long>(tile) * call.columns];
    grad[call.to[vector] + at] = sum;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    condition_grad(int n, int classes, int width, const __grid_constant__ Conditions conditions, const float* dz,
                   float* by_class, float* by_vector) {
    const int wide = tiles_of(width, kWarp), which = static_cast<int>(blockIdx.x) / wide;
    const int column = static_cast<int>(blockIdx.x) % wide * kWarp + static_cast<int>(threadIdx.x) % kWarp;
    const bool inside = column < width;
    float sum = 0.0f;
    for (int slot = 0; slot * conditions.rows < n; ++slot) {
        // The block after those of the classes has the guidance scale.
        const bool guidance = which == classes;
        if (!guidance && conditions.labels[slot] != static_cast<float>(which)) continue;
        const float factor = guidance ? conditions.guidance[slot] : 1.0f;
        for (int k = static_cast<int>(threadIdx.x) / kWarp; k < conditions.rows && inside; k += kWarps) {
            sum = fmaf(factor, dz[(static_cast<long long>(slot) * conditions.rows + k) * width + column], sum);
        }
    }
    float* to = which == classes ? by_vector : by_class + static_cast<long long>(which) * width;
    network::add_columns(sum, inside, to + column);
}
