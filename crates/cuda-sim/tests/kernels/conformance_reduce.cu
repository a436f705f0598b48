// Reductions and scans of CUB, by blocks and by warps.
//
// Every kernel takes x, y and n; its name says the family, the algorithm, the type and the extents, its template what
// lies in y.

#include <cooperative_groups.h>

#include <cub/agent/single_pass_scan_operators.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_reduce.cuh>
#include <cub/warp/warp_reduce_batched.cuh>
#include <cub/warp/warp_scan.cuh>

#include "conformance.cuh"

using plus = cuda::std::plus<>;
using maximum = cuda::maximum<>;

// ---------------------------------------------------------------------------------------------------------------------
// Blocks

namespace reduce {
constexpr auto raking = cub::BLOCK_REDUCE_RAKING, commutative = cub::BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY,
               warps = cub::BLOCK_REDUCE_WARP_REDUCTIONS, atomic = cub::BLOCK_REDUCE_WARP_REDUCTIONS_NONDETERMINISTIC;
}

// All items, and the first items of n threads.
template <typename T, int kThreads, int kItems, cub::BlockReduceAlgorithm kAlgorithm, typename Op>
__device__ void block_reduce(const T* x, T* y, int n) {
    using Reduce = cub::BlockReduce<T, kThreads, kAlgorithm>;
    __shared__ typename Reduce::TempStorage storage;
    T items[kItems];
    load(x, items);
    const T all = Reduce(storage).Reduce(items, Op());
    __syncthreads();
    const T some = Reduce(storage).Reduce(items[0], Op(), n);
    if (threadIdx.x == 0) {
        y[0] = all;
        y[1] = some;
    }
}

#define BLOCK_REDUCE(algorithm, op, T, threads, items)                                       \
    KERNEL(block_reduce_##algorithm##_##op##_##T##_##threads##x##items, threads, const T, T, \
           block_reduce<T, threads, items, reduce::algorithm, op>)

BLOCK_REDUCE(raking, plus, i32, 128, 4)
BLOCK_REDUCE(raking, plus, u8, 37, 3)
BLOCK_REDUCE(raking, compose, affine, 96, 2)
BLOCK_REDUCE(commutative, plus, u64, 256, 2)
BLOCK_REDUCE(commutative, plus, f32, 96, 4)
BLOCK_REDUCE(commutative, maximum, i32, 37, 1)
BLOCK_REDUCE(warps, plus, f64, 96, 3)
BLOCK_REDUCE(warps, compose, affine, 37, 4)
BLOCK_REDUCE(warps, maximum, i16, 256, 1)
BLOCK_REDUCE(warps, plus, u32, 128, 5)
BLOCK_REDUCE(atomic, plus, i32, 96, 3)
BLOCK_REDUCE(atomic, plus, f32, 128, 2)
BLOCK_REDUCE(atomic, plus, u64, 64, 2)
BLOCK_REDUCE(atomic, plus, f64, 96, 1)

namespace scan {
constexpr auto raking = cub::BLOCK_SCAN_RAKING, memoize = cub::BLOCK_SCAN_RAKING_MEMOIZE,
               warps = cub::BLOCK_SCAN_WARP_SCANS;
}

// The inclusive scan, the exclusive one that begins with x[0], and what all threads have as the aggregate.
template <typename T, int kThreads, int kItems, cub::BlockScanAlgorithm kAlgorithm, typename Op>
__device__ void block_scan(const T* x, T* y, int) {
    using Scan = cub::BlockScan<T, kThreads, kAlgorithm>;
    __shared__ typename Scan::TempStorage storage;
    T items[kItems], scanned[kItems], aggregate;
    load(x, items);
    Scan(storage).InclusiveScan(items, scanned, Op());
    store(y, scanned);
    __syncthreads();
    Scan(storage).ExclusiveScan(items, scanned, x[0], Op(), aggregate);
    store(y + kThreads * kItems, scanned);
    y[2 * kThreads * kItems + threadIdx.x] = aggregate;
}

#define BLOCK_SCAN(algorithm, op, T, threads, items)                                       \
    KERNEL(block_scan_##algorithm##_##op##_##T##_##threads##x##items, threads, const T, T, \
           block_scan<T, threads, items, scan::algorithm, op>)

BLOCK_SCAN(raking, plus, i32, 96, 3)
BLOCK_SCAN(raking, compose, affine, 37, 2)
BLOCK_SCAN(raking, plus, f64, 128, 1)
BLOCK_SCAN(memoize, plus, u64, 128, 4)
BLOCK_SCAN(memoize, maximum, f32, 96, 5)
BLOCK_SCAN(memoize, plus, u8, 37, 4)
BLOCK_SCAN(warps, plus, f32, 256, 2)
BLOCK_SCAN(warps, compose, affine, 96, 3)
BLOCK_SCAN(warps, maximum, i32, 37, 3)
BLOCK_SCAN(warps, plus, u8, 128, 1)

// Carries what came before from one tile of a block to the next.
template <typename T, typename Op>
struct carry {
    T before;
    __device__ T operator()(T aggregate) {
        const T old = before;
        before = Op()(before, aggregate);
        return old;
    }
};

// The exclusive scan of n items after x[0], tile after tile; the last tile is not full.
template <typename T, int kThreads, int kItems, cub::BlockScanAlgorithm kAlgorithm, typename Op>
__device__ void carried_scan(const T* x, T* y, int n) {
    using Scan = cub::BlockScan<T, kThreads, kAlgorithm>;
    __shared__ typename Scan::TempStorage storage;
    carry<T, Op> carried{x[0]};
    for (int tile = 0; tile < n; tile += kThreads * kItems) {
        const int begin = tile + threadIdx.x * kItems;
        T items[kItems];
        for (int i = 0; i < kItems; ++i) items[i] = x[min(begin + i, n - 1)];
        Scan(storage).ExclusiveScan(items, items, Op(), carried);
        for (int i = 0; i < kItems; ++i) {
            if (begin + i < n) y[begin + i] = items[i];
        }
        __syncthreads();
    }
}

#define CARRIED_SCAN(algorithm, op, T, threads, items)                                       \
    KERNEL(carried_scan_##algorithm##_##op##_##T##_##threads##x##items, threads, const T, T, \
           carried_scan<T, threads, items, scan::algorithm, op>)

CARRIED_SCAN(raking, plus, u64, 96, 2)
CARRIED_SCAN(memoize, maximum, i32, 128, 3)
CARRIED_SCAN(warps, compose, affine, 37, 2)

// The inclusive scan of n items, a tile for each block of a grid; the blocks look back at each other's sums.
template <typename T, int kThreads, int kItems, typename Op>
__device__ void grid_scan(const T* x, T* y, int n) {
    using State = cub::ScanTileState<T>;
    using Prefix = cub::TilePrefixCallbackOp<T, Op, State>;
    using Scan = cub::BlockScan<T, kThreads, cub::BLOCK_SCAN_WARP_SCANS>;
    __shared__ struct {
        typename Prefix::TempStorage prefix;
        typename Scan::TempStorage scan;
    } storage;
    __device__ alignas(16) static char states[4096];
    State state;
    state.Init(gridDim.x, states, sizeof(states));
    state.InitializeStatus(gridDim.x);
    cooperative_groups::this_grid().sync();
    const int begin = (blockIdx.x * kThreads + threadIdx.x) * kItems;
    T items[kItems], aggregate;
    for (int i = 0; i < kItems; ++i) items[i] = x[min(begin + i, n - 1)];
    if (blockIdx.x == 0) {
        Scan(storage.scan).InclusiveScan(items, items, Op(), aggregate);
        if (threadIdx.x == 0) state.SetInclusive(0, aggregate);
    } else {
        Prefix prefix(state, storage.prefix, Op());
        Scan(storage.scan).InclusiveScan(items, items, Op(), prefix);
    }
    for (int i = 0; i < kItems; ++i) {
        if (begin + i < n) y[begin + i] = items[i];
    }
}

#define GRID_SCAN(op, T, threads, items, blocks) \
    KERNEL(grid_scan_##op##_##T##_##threads##x##items##x##blocks, threads, const T, T, grid_scan<T, threads, items, op>)

GRID_SCAN(plus, i32, 128, 3, 9)
GRID_SCAN(maximum, f64, 96, 2, 40)
GRID_SCAN(compose, affine, 64, 2, 35)

// ---------------------------------------------------------------------------------------------------------------------
// Logical warps

// Of each logical warp: all items, the items of the first n lanes, their largest. Then of each thread: its segment's
// sum where it is the first of one that begins at every fifth thread, the same where it is the first of one that ends
// there; else x.
template <typename T, int kThreads, int kLanes, typename Op>
__device__ void warp_reduce(const T* x, T* y, int n) {
    using Reduce = cub::WarpReduce<T, kLanes>;
    constexpr int kWarps = kThreads / kLanes;
    __shared__ typename Reduce::TempStorage storage[kWarps];
    const int t = threadIdx.x, warp = t / kLanes, lane = t % kLanes;
    Reduce reduce(storage[warp]);
    const T all = reduce.Reduce(x[t], Op());
    __syncwarp();
    const T some = reduce.Reduce(x[t], Op(), n);
    __syncwarp();
    const T head = reduce.HeadSegmentedReduce(x[t], t % 5 == 0, Op());
    __syncwarp();
    const T tail = reduce.TailSegmentedReduce(x[t], t % 5 == 0, Op());
    if (lane == 0) {
        y[warp] = all;
        y[kWarps + warp] = some;
    }
    y[2 * kWarps + t] = lane == 0 || t % 5 == 0 ? head : x[t];
    y[2 * kWarps + kThreads + t] = lane == 0 || t % 5 == 1 ? tail : x[t];
}

#define WARP_REDUCE(op, T, threads, lanes) \
    KERNEL(warp_reduce_##op##_##T##_##threads##x##lanes, threads, const T, T, warp_reduce<T, threads, lanes, op>)

WARP_REDUCE(plus, i32, 96, 32)
WARP_REDUCE(maximum, u8, 64, 16)
WARP_REDUCE(plus, f64, 128, 8)
WARP_REDUCE(compose, affine, 96, 16)
WARP_REDUCE(plus, u64, 64, 32)
WARP_REDUCE(plus, f32, 40, 4)
WARP_REDUCE(plus, i32, 12, 12)

// Of each logical warp: what is summed over its lanes of each of the items that a lane has.
template <typename T, int kThreads, int kItems, int kLanes, typename Op>
__device__ void warp_reduce_batched(const T* x, T* y, int) {
    using Reduce = cub::WarpReduceBatched<T, kItems, kLanes>;
    constexpr int kOut = (kItems + kLanes - 1) / kLanes;
    __shared__ typename Reduce::TempStorage storage[kThreads / kLanes];
    const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
    T items[kItems], out[kOut];
    load(x, items);
    Reduce(storage[warp]).ReduceToStriped(items, out, Op());
    for (int i = 0; i < kOut; ++i) {
        const int batch = i * kLanes + lane;
        if (batch < kItems) y[warp * kItems + batch] = out[i];
    }
}

#define WARP_REDUCE_BATCHED(op, T, threads, items, lanes)                                       \
    KERNEL(warp_reduce_batched_##op##_##T##_##threads##x##items##x##lanes, threads, const T, T, \
           warp_reduce_batched<T, threads, items, lanes, op>)

WARP_REDUCE_BATCHED(plus, i32, 96, 5, 32)
WARP_REDUCE_BATCHED(maximum, f64, 64, 9, 8)

// Inclusive, exclusive after x[0], then inclusive of the first n lanes (else x), then the aggregate in each thread.
template <typename T, int kThreads, int kLanes, typename Op>
__device__ void warp_scan(const T* x, T* y, int n) {
    using Scan = cub::WarpScan<T, kLanes>;
    __shared__ typename Scan::TempStorage storage[kThreads / kLanes];
    const int t = threadIdx.x, lane = t % kLanes;
    Scan scan(storage[t / kLanes]);
    T inclusive, exclusive, partial, aggregate;
    scan.InclusiveScan(x[t], inclusive, Op(), aggregate);
    __syncwarp();
    scan.ExclusiveScan(x[t], exclusive, x[0], Op());
    __syncwarp();
    scan.InclusiveScanPartial(x[t], partial, Op(), n);
    y[t] = inclusive;
    y[kThreads + t] = exclusive;
    y[2 * kThreads + t] = lane < n ? partial : x[t];
    y[3 * kThreads + t] = aggregate;
}

#define WARP_SCAN(op, T, threads, lanes) \
    KERNEL(warp_scan_##op##_##T##_##threads##x##lanes, threads, const T, T, warp_scan<T, threads, lanes, op>)

WARP_SCAN(plus, i32, 96, 32)
WARP_SCAN(plus, u8, 64, 8)
WARP_SCAN(compose, affine, 96, 32)
WARP_SCAN(maximum, f64, 64, 16)
WARP_SCAN(plus, f32, 64, 32)
WARP_SCAN(plus, u64, 128, 8)
WARP_SCAN(compose, affine, 21, 21)
