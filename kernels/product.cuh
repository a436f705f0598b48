// Products of coefficients with the targets of a stage, in two rungs, for group.cu and contraction.cu.
#pragma once

#include "common.cuh"
#include "ptx/mma.cuh"
#include "stage.cuh"

namespace contraction {

// Coefficients of 64 queries by a tile of targets, for several temperatures: rows of `stride` elements.
template <typename C>
struct Coefficients {
    C* data;
    int stride, width;

    __device__ __forceinline__ Coefficients(void* at, int width_)
        : data(static_cast<C*>(at)), stride(width_ + kCoefficientPad / static_cast<int>(sizeof(C))), width(width_) {}

    __device__ __forceinline__ C* row(int slot, int i) const { return data + (slot * kTile + i) * stride; }

    // What lies behind so many slots.
    __device__ __forceinline__ float* end(int slots) const { return reinterpret_cast<float*>(row(slots, 0)); }
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

    __device__ __forceinline__ void from_nowhere() {
        for (int n = 0; n < kN; ++n) origin[n] = 0.0f;
    }

    // Adds to the sums `begin` to `end` the products of the coefficients in their slots, or of those in the first slot.
    __device__ __forceinline__ void add(int begin, int end, bool shared, const Coefficients<float>& c,
                                        const char* stage) {
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

    // Hands out the sums `begin` to `end`, two neighbours at a time, and clears them; `x_of` says what the query has at
    // the two coordinates.
    template <typename X, typename Take>
    __device__ __forceinline__ void drain(int begin, int end, X x_of, Take take) {
        const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int n = 0; n < kN; n += 2) {
                const int row = ty + kSide * m, d = tx * kN + n;
                float2 x = x_of(row, d);
                x.x -= origin[n];
                x.y -= origin[n + 1];
#pragma unroll
                for (int s = 0; s < kSums; ++s) {
                    if (s < begin || s >= end) continue;
                    take(s, row, d, make_float2(sum[s][m][n], sum[s][m][n + 1]), x);
                    sum[s][m][n] = sum[s][m][n + 1] = 0.0f;
                }
            }
        }
    }
};

// On tensor cores: each warp has 32 queries by 16 coordinates, of f32 in TF32 by 8 (below).
template <typename T, int kSums>
struct Tensor {
    using Coefficient = T;
    static constexpr int kSlots = kSums;
    static constexpr int kM = 2, kN = 2;
    float sum[kSums][kM][kN][4] = {};

    // What is rounded has no digits to lose to a translation that f32 sums do not keep.
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

    template <typename X, typename Take>
    __device__ __forceinline__ void drain(int begin, int end, X x_of, Take take) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m0 = warp % 2 * 32 + lane / 4, n0 = warp / 2 * 16 + lane % 4 * 2;
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int n = 0; n < kN; ++n) {
#pragma unroll
                for (int e = 0; e < 4; e += 2) {
                    const int row = m0 + 16 * m + 4 * e, d = n0 + 8 * n;
                    const float2 x = x_of(row, d);
#pragma unroll
                    for (int s = 0; s < kSums; ++s) {
                        if (s < begin || s >= end) continue;
                        take(s, row, d, make_float2(sum[s][m][n][e], sum[s][m][n][e + 1]), x);
                        sum[s][m][n][e] = sum[s][m][n][e + 1] = 0.0f;
                    }
                }
            }
        }
    }
};

// In TF32. A warp's eight coordinates are two words that lie four apart: those of four targets in turn then lie in
// different banks.
template <int kSums>
struct Tensor<float, kSums> {
    using Coefficient = Tf32;
    static constexpr int kSlots = kSums;
    static constexpr int kM = 2;
    float sum[kSums][kM][4] = {};

    // Where the warp's coordinate n lies in a row of a stage.
    static __device__ __forceinline__ int coordinate(int n) {
        return (static_cast<int>(threadIdx.x) / kWarp / 2 + n / 4 * 4) * kWordDim<float> + n % 4;
    }

    __device__ __forceinline__ void at(const DriftHead&, int, int) {}

    __device__ __forceinline__ void add(int begin, int end, bool shared, const Coefficients<Tf32>& c,
                                        const char* stage) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m0 = warp % 2 * 32 + lane % 16, d = coordinate(lane / 4);
#pragma unroll 1
        for (int j = 0; j < c.width; j += 8) {
            unsigned y[2];
            for (int e = 0; e < 2; ++e) {
                const char* word = word_of(stage, j + lane % 4 + 4 * e, d / kWordDim<float>);
                const float sample = reinterpret_cast<const float*>(word)[d % kWordDim<float>];
                y[e] = __float_as_uint(operand(sample));
            }
#pragma unroll
            for (int s = 0; s < kSums; ++s) {
                if (s < begin || s >= end) continue;
                for (int m = 0; m < kM; ++m) {
                    unsigned a[4];
                    load_matrices(a, c.row(shared ? 0 : s, m0 + 16 * m) + j + lane / 16 * 4);
                    multiply(sum[s][m], a, y[0], y[1], float{});
                }
            }
        }
    }

    template <typename X, typename Take>
    __device__ __forceinline__ void drain(int begin, int end, X x_of, Take take) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int m0 = warp % 2 * 32 + lane / 4, d = coordinate(lane % 4 * 2);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                const int row = m0 + 16 * m + 4 * e;
                float2 x = x_of(row, d);
                x.x = operand(x.x);
                x.y = operand(x.y);
#pragma unroll
                for (int s = 0; s < kSums; ++s) {
                    if (s < begin || s >= end) continue;
                    take(s, row, d, make_float2(sum[s][m][e], sum[s][m][e + 1]), x);
                    sum[s][m][e] = sum[s][m][e + 1] = 0.0f;
                }
            }
        }
    }
};

}  // namespace contraction
