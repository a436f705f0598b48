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

// Slots from one to another, known to the compiler.
template <int kBegin, int kEnd>
struct Slots {
    static constexpr int begin = kBegin, end = kEnd;
};

// Calls `f` with the slots `begin` to `end`: one of at most kSums where they share coefficients, else all from the
// first.
template <int kSums, int kAt = 0, typename F>
__device__ __forceinline__ void each_slots(int begin, int end, bool shared, F f) {
    if constexpr (kAt + 1 < kSums) {
        if (shared ? begin > kAt : end > kAt + 1) return each_slots<kSums, kAt + 1>(begin, end, shared, f);
    }
    if (shared) {
        f(Slots<kAt, kAt + 1>{});
    } else {
        f(Slots<0, kAt + 1>{});
    }
}

// The plain product: each thread has queries ty + 16 m and as many coordinates from 8 bytes tx on as those hold.
template <typename T, int kSums>
struct Plain {
    using Coefficient = float;
    static constexpr bool kTensor = false;
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

    // Of a row a thread has so many pairs of neighbouring coordinates, pair p from this one of the stage on.
    static constexpr int kPairs = kN / 2;
    static __device__ __forceinline__ int pair(int p) { return static_cast<int>(threadIdx.x) % kSide * kN + 2 * p; }

    // Hands out the sums `begin` to `end` of each row, and clears them; `x_of` says what the query has at a pair.
    template <typename X, typename Take>
    __device__ __forceinline__ void drain(int begin, int end, X x_of, Take take) {
        const int ty = threadIdx.x / kSide;
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            const int row = ty + kSide * m;
            float2 x[kPairs];
            for (int p = 0; p < kPairs; ++p) {
                x[p] = x_of(row, pair(p));
                x[p] = make_float2(x[p].x - origin[2 * p], x[p].y - origin[2 * p + 1]);
            }
#pragma unroll
            for (int s = 0; s < kSums; ++s) {
                if (s < begin || s >= end) continue;
                float2 sums[kPairs];
                for (int p = 0; p < kPairs; ++p) {
                    sums[p] = make_float2(sum[s][m][2 * p], sum[s][m][2 * p + 1]);
                    sum[s][m][2 * p] = sum[s][m][2 * p + 1] = 0.0f;
                }
                take(s, row, sums, x);
            }
        }
    }
};

// On tensor cores: each warp has 32 queries by 16 coordinates, of f32 in TF32 by 8 (below).
template <typename T, int kSums>
struct Tensor {
    using Coefficient = T;
    static constexpr bool kTensor = true;
    static constexpr int kSlots = kSums;
    static constexpr int kM = 2, kN = 2;
    float sum[kSums][kM][kN][4] = {};

    // What is rounded has no digits to lose to a translation that f32 sums do not keep.
    __device__ __forceinline__ void at(const DriftHead&, int, int) {}

    __device__ __forceinline__ void add(int begin, int end, bool shared, const Coefficients<T>& c, const char* stage) {
        each_slots<kSums>(begin, end, shared,
                          [&](auto slots) { steps<slots.begin, slots.end, 1>(shared, c, stage, 0, c.width); });
    }

    // Adds to the sums of so many slots the products with the first `targets` rows of two stages, which lie so many bytes
    // apart.
    __device__ __forceinline__ void add_both(int slots, const Coefficients<T>& c, const char* stage, int bytes,
                                             int targets) {
        each_slots<kSums>(0, slots, false,
                          [&](auto slots) { steps<0, slots.end, 2>(false, c, stage, bytes, targets); });
    }

    template <int kBegin, int kEnd, int kParts>
    __device__ __forceinline__ void steps(bool shared, const Coefficients<T>& c, const char* stage, int bytes,
                                          int targets) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        // Targets go by sixteen at a time, so that a lane's word is swapped alike in all of its rows.
        unsigned y_at = shared_address(word_of(stage, lane % 16, warp / 2 * 2 + lane / 16));
        const int row_bytes = c.stride * static_cast<int>(sizeof(T)), slot_bytes = shared ? 0 : kTile * row_bytes;
        unsigned c_at = shared_address(c.data) + (warp % 2 * 32 + lane % 16) * row_bytes + lane / 16 * kWord;
#pragma unroll 1
        for (int j = 0; j < targets; j += 16, y_at += 16 * kStageRow, c_at += 16 * static_cast<int>(sizeof(T))) {
            unsigned y[kParts][4];
            for (int k = 0; k < kParts; ++k) load_matrices_transposed(y[k], y_at + k * bytes);
#pragma unroll
            for (int s = kBegin; s < kEnd; ++s) {
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    unsigned a[4];
                    load_matrices(a, c_at + s * slot_bytes + 16 * m * row_bytes);
                    for (int k = 0; k < kParts; ++k) {
                        multiply(sum[s][m][0], a, y[k][0], y[k][1], T{});
                        multiply(sum[s][m][1], a, y[k][2], y[k][3], T{});
                    }
                }
            }
        }
    }

    static constexpr int kPairs = kN;
    static __device__ __forceinline__ int pair(int p) {
        return static_cast<int>(threadIdx.x) / kWarp / 2 * 16 + static_cast<int>(threadIdx.x) % 4 * 2 + 8 * p;
    }

    template <typename X, typename Take>
    __device__ __forceinline__ void drain(int begin, int end, X x_of, Take take) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                const int row = warp % 2 * 32 + lane / 4 + 16 * m + 4 * e;
                float2 x[kPairs];
                for (int p = 0; p < kPairs; ++p) x[p] = x_of(row, pair(p));
#pragma unroll
                for (int s = 0; s < kSums; ++s) {
                    if (s < begin || s >= end) continue;
                    float2 sums[kPairs];
                    for (int p = 0; p < kPairs; ++p) {
                        sums[p] = make_float2(sum[s][m][p][e], sum[s][m][p][e + 1]);
                        sum[s][m][p][e] = sum[s][m][p][e + 1] = 0.0f;
                    }
                    take(s, row, sums, x);
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
    static constexpr bool kTensor = true;
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
        each_slots<kSums>(begin, end, shared, [&](auto slots) { steps<slots.begin, slots.end>(shared, c, stage); });
    }

    template <int kBegin, int kEnd>
    __device__ __forceinline__ void steps(bool shared, const Coefficients<Tf32>& c, const char* stage) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
        const int d = coordinate(lane / 4);
        // Targets go by eight at a time, so that a lane's words are swapped alike in all of its rows.
        const char* y_at[2];
        for (int e = 0; e < 2; ++e) {
            y_at[e] = word_of(stage, lane % 4 + 4 * e, d / kWordDim<float>) + d % kWordDim<float> * sizeof(float);
        }
        const int row_bytes = c.stride * static_cast<int>(sizeof(float)), slot_bytes = shared ? 0 : kTile * row_bytes;
        unsigned c_at = shared_address(c.data) + (warp % 2 * 32 + lane % 16) * row_bytes + lane / 16 * kWord;
#pragma unroll 1
        for (int j = 0; j < c.width; j += 8, c_at += 8 * static_cast<int>(sizeof(float))) {
            unsigned y[2];
            for (int e = 0; e < 2; ++e) {
                y[e] = __float_as_uint(operand(*reinterpret_cast<const float*>(y_at[e])));
                y_at[e] += 8 * kStageRow;
            }
#pragma unroll
            for (int s = kBegin; s < kEnd; ++s) {
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    unsigned a[4];
                    load_matrices(a, c_at + s * slot_bytes + 16 * m * row_bytes);
                    multiply(sum[s][m], a, y[0], y[1], float{});
                }
            }
        }
    }

    static constexpr int kPairs = 1;
    static __device__ __forceinline__ int pair(int) { return coordinate(static_cast<int>(threadIdx.x) % 4 * 2); }

    template <typename X, typename Take>
    __device__ __forceinline__ void drain(int begin, int end, X x_of, Take take) {
        const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
            for (int e = 0; e < 4; e += 2) {
                const int row = warp % 2 * 32 + lane / 4 + 16 * m + 4 * e;
                float2 x[1] = {x_of(row, pair(0))};
                x[0] = make_float2(operand(x[0].x), operand(x[0].y));
#pragma unroll
                for (int s = 0; s < kSums; ++s) {
                    if (s < begin || s >= end) continue;
                    const float2 sums[1] = {make_float2(sum[s][m][e], sum[s][m][e + 1])};
                    sum[s][m][e] = sum[s][m][e + 1] = 0.0f;
                    take(s, row, sums, x);
                }
            }
        }
    }
};

}  // namespace contraction
