// The barycentre of all data by way of landmarks (spec 8.11; src/projection.rs), relative to the queries:
//
//   projected  (k(x, U) C_y + mean m) / max(m, least) - x,   m = k(x, U) C_1
//
// Numerics: distances from differences, all in f32. C is of data relative to their mean, for its products cancel.
// Mapping: a block has 32 queries and 256 coordinates of the result, a thread one coordinate of all 32. Landmarks go by,
// 32 at a time: their kernels come from tiles of 32 coordinates, a thread four pairs, and lie in shared memory while rows
// of C go by. Neighbouring threads read neighbouring numbers; what all of a warp want is one word.
// Cost: 2 n M D fused multiply-adds, half of them for distances, which are formed anew for every 256 coordinates.
// Reads U and C for every 32 queries, and U and the queries for every 256 coordinates again, from L2 but for the first time;
// no [n, M] leaves the block.
// Limits: sm_80 and later; extents below 2^31.
#include "common.cuh"

namespace landmarks {

constexpr int kSide = kProjectedSide;
// Queries of a warp: its part of a tile of kernels is four words of each landmark.
constexpr int kOwn = kSide / kWarps;
static_assert(kOwn == 4 && kSide == kWarp, "a thread has four queries and one landmark");
// Rows of four words more fall into different banks, eight lanes at a time.
constexpr int kStride = kSide + 4;

}  // namespace landmarks

extern "C" __global__ void __launch_bounds__(kThreads) projected(const __grid_constant__ ProjectedCall call) {
    using namespace landmarks;
    __shared__ float queries[kSide][kSide + 1], points[kSide][kSide + 1];
    __shared__ __align__(16) float kernels[kSide * kStride];
    __shared__ float masses[kSide];
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    const int columns = tiles_of(call.dim, kThreads);
    const int first = static_cast<int>(blockIdx.x) / columns * kSide;
    const int column = static_cast<int>(blockIdx.x) % columns * kThreads + static_cast<int>(threadIdx.x);
    const long long width = call.dim + 1;
    float sums[kSide], mass[kOwn];
#pragma unroll
    for (int q = 0; q < kSide; ++q) sums[q] = 0.0f;
#pragma unroll
    for (int q = 0; q < kOwn; ++q) mass[q] = 0.0f;

    for (int start = 0; start < call.landmarks; start += kSide) {
        float squares[kOwn] = {};
        for (int from = 0; from < call.dim; from += kSide) {
            __syncthreads();
            const int d = from + lane;
            for (int row = warp; row < kSide; row += kWarps) {
                const int q = first + row, m = start + row;
                const bool x = q < call.queries && d < call.dim, u = m < call.landmarks && d < call.dim;
                queries[row][lane] = x ? call.x[static_cast<long long>(q) * call.dim + d] : 0.0f;
                points[row][lane] = u ? call.points[static_cast<long long>(m) * call.dim + d] : 0.0f;
            }
            __syncthreads();
            const int count = min(kSide, call.dim - from);
            for (int k = 0; k < count; ++k) {
                const float u = points[lane][k];
#pragma unroll
                for (int q = 0; q < kOwn; ++q) {
                    const float difference = queries[kOwn * warp + q][k] - u;
                    squares[q] = fmaf(difference, difference, squares[q]);
                }
            }
        }
        const bool there = start + lane < call.landmarks;
        const float share = there ? call.folded[(start + lane) * width + call.dim] : 0.0f;
        float k[kOwn];
#pragma unroll
        for (int q = 0; q < kOwn; ++q) {
            k[q] = there ? expf(log_ratio(call, sqrt_fast(squares[q]), 0.0f, call.rate)) : 0.0f;
            mass[q] = fmaf(k[q], share, mass[q]);
        }
        // The rows of C before have been used: a barrier has come since.
        *reinterpret_cast<float4*>(kernels + lane * kStride + kOwn * warp) = {k[0], k[1], k[2], k[3]};
        __syncthreads();
        if (column < call.dim) {
            const int count = min(kSide, call.landmarks - start);
            for (int m = 0; m < count; ++m) {
                const float c = call.folded[(start + m) * width + column];
                const float4* row = reinterpret_cast<const float4*>(kernels + m * kStride);
#pragma unroll
                for (int q = 0; q < kSide / 4; ++q) {
                    const float4 of = row[q];
                    sums[4 * q] = fmaf(of.x, c, sums[4 * q]);
                    sums[4 * q + 1] = fmaf(of.y, c, sums[4 * q + 1]);
                    sums[4 * q + 2] = fmaf(of.z, c, sums[4 * q + 2]);
                    sums[4 * q + 3] = fmaf(of.w, c, sums[4 * q + 3]);
                }
            }
        }
    }
#pragma unroll
    for (int q = 0; q < kOwn; ++q) {
        const float all = warp_sum(mass[q]);
        if (lane == 0) masses[kOwn * warp + q] = all;
    }
    __syncthreads();
    if (column >= call.dim) return;
    const float mean = call.mean[column];
#pragma unroll
    for (int q = 0; q < kSide; ++q) {
        if (first + q >= call.queries) break;
        const long long at = static_cast<long long>(first + q) * call.dim + column;
        const float all = fmaf(mean, masses[q], sums[q]);
        call.result[at] = all / clip_min(masses[q], call.least) - call.x[at];
    }
}
