// Phase B, first half, of groups that are more than one block: statistics.cuh row by row and column by column.
//
// Mapping: rows and masses, one warp a row, lanes along the targets. Columns, one block for 32 columns: lanes along the
// targets, eight warps along the queries, joined through shared memory.
// Cost: R exponentials a pair for rows, for columns and for masses; distances are read 2 + 3 ceil(R / 3) times, or
// formed anew as often where they are not stored (D <= 8). Bound by instructions.
// Limits: sm_80 and later.
#include "statistics.cuh"

namespace statistics {

template <typename T>
__device__ __forceinline__ void all_rows(const DriftCall& call) {
    int block;
    const DriftHead& head = head_of(call, kRows, &block);
    Row at;
    if (!row_of(head, block, &at)) return;
    if (call.official) {
        row<T, true>(call, head, at.b, at.i);
    } else {
        row<T, false>(call, head, at.b, at.i);
    }
}

template <typename T>
__device__ __forceinline__ void all_masses(const DriftCall& call) {
    __shared__ RowSums rows;
    int block;
    const DriftHead& head = head_of(call, kRows, &block);
    rows.clear();
    Row at;
    if (row_of(head, block, &at)) {
        if (call.official) {
            masses<T, true>(call, head, at.b, at.i, &rows);
        } else {
            masses<T, false>(call, head, at.b, at.i, &rows);
        }
    }
    rows.store(call, head, block, row_blocks(head));
}

template <typename T, bool kOfficial>
__device__ __forceinline__ void columns(const DriftCall& call) {
    __shared__ float partial[kAtOnce][kWarps][kWarp];
    int block;
    const DriftHead& head = head_of(call, kColumns, &block);
    const Column own = column_of(head, block);
    const int b = own.b, j = own.j;
    const bool inside = own.inside;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const float w = !kOfficial && inside ? weight(call, head, b, j) : 0.0f;
    const Unit unit = unit_of(head);
    float least_n = infinity();
    if (inside) {
        over_column<T>(call, head, unit, b, j, [&](int i, float n) {
            if (kOfficial || !removed(call, i, j, w)) least_n = least(least_n, n);
        });
    }
    partial[0][warp][lane] = least_n;
    __syncthreads();
    for (int k = 0; k < kWarps; ++k) least_n = least(least_n, partial[0][k][lane]);
    const long long at = static_cast<long long>(b) * head.targets + j;
#pragma unroll 1
    for (int r0 = 0; r0 < call.temperatures; r0 += kAtOnce) {
        float sum[kAtOnce] = {};
        if (inside) {
            over_column<T>(call, head, unit, b, j, [&](int i, float n) {
                if (!kOfficial && removed(call, i, j, w)) return;
#pragma unroll
                for (int k = 0; k < kAtOnce; ++k) {
                    if (r0 + k >= call.temperatures) break;
                    sum[k] += kernel_ratio<kOfficial>(call, r0 + k, n, least_n);
                }
            });
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) partial[k][warp][lane] = sum[k];
        __syncthreads();
        if (warp < kAtOnce && r0 + warp < call.temperatures && inside) {
            float total = 0.0f;
            for (int k = 0; k < kWarps; ++k) total += partial[warp][k][lane];
            head.column_log[at * call.temperatures + r0 + warp] = logf(total);
        }
    }
    if (warp == 0 && inside) head.column_least[at] = least_n;
}

}  // namespace statistics

#define STATISTICS(TYPE, NAME)                                                                                         \
    extern "C" __global__ void __launch_bounds__(kThreads, 2) rows_##NAME(const __grid_constant__ DriftCall call) {    \
        statistics::all_rows<TYPE>(call);                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kThreads, 2) columns_##NAME(const __grid_constant__ DriftCall call) { \
        if (call.official) {                                                                                           \
            statistics::columns<TYPE, true>(call);                                                                     \
        } else {                                                                                                       \
            statistics::columns<TYPE, false>(call);                                                                    \
        }                                                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kThreads, 2) masses_##NAME(const __grid_constant__ DriftCall call) {  \
        statistics::all_masses<TYPE>(call);                                                                            \
    }

STATISTICS(float, f32)
STATISTICS(Half, f16)
STATISTICS(Bfloat, bf16)
