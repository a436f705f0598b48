// Cooperative groups: tiles, coalesced threads, partitions, their collectives, asynchronous copies, barriers, grids.
//
// Every kernel takes x, y and n; its name says the family, the type and the extents, its template what lies in y.

#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

#include <cuda/atomic>
#include <cuda/barrier>

#include "conformance.cuh"

namespace cg = cooperative_groups;

// ---------------------------------------------------------------------------------------------------------------------
// Votes and shuffles

// What a group says of a value of each of its threads.
template <typename Group>
__device__ void collectives(const Group& group, i32 value, i32* y) {
    const u32 size = group.size(), rank = group.thread_rank();
    int equal;
    y[0] = size;
    y[1] = rank;
    y[2] = group.meta_group_rank();
    y[3] = group.meta_group_size();
    y[4] = group.shfl(value, (3 * rank + 1) % size);
    y[5] = group.shfl_up(value, 1);
    y[6] = group.shfl_down(value, 2);
    y[7] = group.ballot(value & 1);
    y[8] = group.any(value % 16 == 3);
    y[9] = group.all(value % 16 != 5);
    y[10] = group.match_any(value % 4);
    y[11] = group.match_all(value % 16 == 5, equal);
    y[12] = equal;
    group.sync();
}

constexpr int kWords = 13;

// Of tiles of a block.
template <int kThreads, int kSize>
__device__ void tile(i32* x, i32* y, int) {
    const auto group = cg::tiled_partition<kSize>(cg::this_thread_block());
    collectives(group, x[threadIdx.x], y + kWords * threadIdx.x);
    y[kWords * kThreads + threadIdx.x] = group.shfl_xor(x[threadIdx.x], kSize - 1);
}

KERNEL(tile_i32_96x1, 96, i32, i32, tile<96, 1>)
KERNEL(tile_i32_64x2, 64, i32, i32, tile<64, 2>)
KERNEL(tile_i32_96x4, 96, i32, i32, tile<96, 4>)
KERNEL(tile_i32_40x8, 40, i32, i32, tile<40, 8>)
KERNEL(tile_i32_96x16, 96, i32, i32, tile<96, 16>)
KERNEL(tile_i32_128x32, 128, i32, i32, tile<128, 32>)

// Of tiles of four in tiles of sixteen, whose numbers begin anew in each of these.
__device__ void tile_of_tile(i32* x, i32* y, int) {
    const auto outer = cg::tiled_partition<16>(cg::this_thread_block());
    collectives(cg::tiled_partition<4>(outer), x[threadIdx.x], y + kWords * threadIdx.x);
}

KERNEL(tile_of_tile_i32_96x4, 96, i32, i32, tile_of_tile)

// Values of more than a word, by a shuffle to the next thread of a tile of eight.
template <typename T>
__device__ void tile_shuffle(T* x, T* y, int) {
    const auto group = cg::tiled_partition<8>(cg::this_thread_block());
    y[threadIdx.x] = group.shfl(x[threadIdx.x], (group.thread_rank() + 1) % 8);
}

KERNEL(tile_shuffle_affine_64x8, 64, affine, affine, tile_shuffle<affine>)
KERNEL(tile_shuffle_f64_40x8, 40, f64, f64, tile_shuffle<f64>)
KERNEL(tile_shuffle_u8_96x8, 96, u8, u8, tile_shuffle<u8>)

// Which threads of a tile have the same upper half of a value, and whether all have, but for its lowest bit.
template <int kThreads>
__device__ void match_long(u64* x, u32* y, int) {
    const auto group = cg::tiled_partition<8>(cg::this_thread_block());
    int equal;
    y[threadIdx.x] = group.match_any(x[threadIdx.x] >> 32 << 32);
    y[kThreads + threadIdx.x] = group.match_all(x[threadIdx.x] >> 33 << 33, equal) + 256 * equal;
}

KERNEL(match_long_u64_96x8, 96, u64, u32, match_long<96>)

// Of the threads that take each side of a branch.
__device__ void coalesced(i32* x, i32* y, int n) {
    const i32 value = x[threadIdx.x];
    y += kWords * threadIdx.x;
    if (value % n == 0) {
        collectives(cg::coalesced_threads(), value, y);
    } else {
        collectives(cg::coalesced_threads(), value, y);
    }
}

KERNEL(coalesced_i32_96x32, 96, i32, i32, coalesced)
KERNEL(coalesced_i32_37x32, 37, i32, i32, coalesced)

// Of tiles of four of the threads that take a branch; the others write zeros.
__device__ void coalesced_tile(i32* x, i32* y, int n) {
    const i32 value = x[threadIdx.x];
    y += kWords * threadIdx.x;
    if (value % n == 0) {
        collectives(cg::tiled_partition(cg::coalesced_threads(), 4), value, y);
    } else {
        for (int i = 0; i < kWords; ++i) y[i] = 0;
    }
}

KERNEL(coalesced_tile_i32_64x4, 64, i32, i32, coalesced_tile)

// Of the two parts of a tile.
template <int kSize>
__device__ void binary_partition(i32* x, i32* y, int n) {
    const auto tile = cg::tiled_partition<kSize>(cg::this_thread_block());
    const i32 value = x[threadIdx.x];
    collectives(cg::binary_partition(tile, value % n == 0), value, y + kWords * threadIdx.x);
}

KERNEL(binary_partition_i32_96x32, 96, i32, i32, binary_partition<32>)
KERNEL(binary_partition_i32_64x8, 64, i32, i32, binary_partition<8>)

// Of the parts with equal labels.
template <int kSize>
__device__ void labeled_partition(i32* x, i32* y, int n) {
    const auto tile = cg::tiled_partition<kSize>(cg::this_thread_block());
    const i32 value = x[threadIdx.x];
    collectives(cg::labeled_partition(tile, value % n), value, y + kWords * threadIdx.x);
}

KERNEL(labeled_partition_i32_96x32, 96, i32, i32, labeled_partition<32>)
KERNEL(labeled_partition_i32_64x16, 64, i32, i32, labeled_partition<16>)

// y[0] is the sum of all, to which one thread of each labelled part adds the part's; the others hear of it.
__device__ void invoke_one(i32* x, i32* y, int n) {
    const i32 value = x[threadIdx.x];
    const auto block = cg::this_thread_block();
    const auto part = cg::labeled_partition(cg::tiled_partition<32>(block), value % n);
    if (block.thread_rank() == 0) y[0] = 0;
    block.sync();
    const i32 sum = cg::reduce(part, value, cg::plus<i32>());
    cg::invoke_one(part, [&] { atomicAdd(y, sum); });
    y[1 + threadIdx.x] = cg::invoke_one_broadcast(part, [&] { return 2 * sum; });
}

KERNEL(invoke_one_i32_96x32, 96, i32, i32, invoke_one)

// ---------------------------------------------------------------------------------------------------------------------
// Reductions and scans

// Of tiles, then of the threads of a warp that take each side of a branch.
template <typename T, int kThreads, int kSize, typename Op>
__device__ void reduce(T* x, T* y, int) {
    const auto group = cg::tiled_partition<kSize>(cg::this_thread_block());
    const T value = x[threadIdx.x];
    y[threadIdx.x] = cg::reduce(group, value, Op());
    if (threadIdx.x % 3 == 0) {
        y[kThreads + threadIdx.x] = cg::reduce(cg::coalesced_threads(), value, Op());
    } else {
        y[kThreads + threadIdx.x] = cg::reduce(cg::coalesced_threads(), value, Op());
    }
}

#define REDUCE(op, T, threads, size) \
    KERNEL(reduce_##op##_##T##_##threads##x##size, threads, T, T, reduce<T, threads, size, cg::op<T>>)

REDUCE(plus, i32, 96, 32)
REDUCE(plus, u8, 64, 16)
REDUCE(plus, f32, 40, 8)
REDUCE(plus, u64, 96, 32)
REDUCE(less, i32, 96, 16)
REDUCE(less, f64, 64, 32)
REDUCE(greater, u32, 96, 32)
REDUCE(greater, i16, 64, 4)
REDUCE(bit_and, u32, 96, 32)
REDUCE(bit_or, i32, 64, 16)
REDUCE(bit_xor, u64, 96, 8)

// As of reduce: inclusive of tiles, exclusive of tiles; inclusive and exclusive of the threads of a branch. The
// exclusive one has no first element where it is not a sum: x.
template <typename T, int kThreads, int kSize, typename Op, bool kSum>
__device__ void scan(T* x, T* y, int) {
    const T value = x[threadIdx.x];
    y += threadIdx.x;
    const auto both = [&](const auto& group) {
        y[0] = cg::inclusive_scan(group, value, Op());
        const T before = cg::exclusive_scan(group, value, Op());
        y[kThreads] = kSum || group.thread_rank() > 0 ? before : value;
        y += 2 * kThreads;
    };
    both(cg::tiled_partition<kSize>(cg::this_thread_block()));
    if (threadIdx.x % 3 == 0) {
        both(cg::coalesced_threads());
    } else {
        both(cg::coalesced_threads());
    }
}

KERNEL(scan_plus_i32_96x32, 96, i32, i32, scan<i32, 96, 32, cg::plus<i32>, true>)
KERNEL(scan_plus_u64_64x8, 64, u64, u64, scan<u64, 64, 8, cg::plus<u64>, true>)
KERNEL(scan_plus_f32_40x4, 40, f32, f32, scan<f32, 40, 4, cg::plus<f32>, true>)
KERNEL(scan_greater_i32_96x16, 96, i32, i32, scan<i32, 96, 16, cg::greater<i32>, false>)
KERNEL(scan_compose_affine_64x32, 64, affine, affine, scan<affine, 64, 32, compose, false>)

// Each thread's part of n in all, handed out by an atomic counter that every tile advances once.
__device__ void scan_update(i32* x, i32* y, int n) {
    __shared__ cuda::atomic<i32, cuda::thread_scope_block> taken;
    const auto block = cg::this_thread_block();
    const auto tile = cg::tiled_partition<8>(block);
    if (block.thread_rank() == 0) new (&taken) cuda::atomic<i32, cuda::thread_scope_block>(n);
    block.sync();
    const i32 place = cg::exclusive_scan_update(tile, taken, x[threadIdx.x], cg::plus<i32>());
    block.sync();
    // A tile's places follow each other; in which order the tiles came is open.
    y[threadIdx.x] = place - tile.shfl(place, 0);
    if (block.thread_rank() == 0) y[64] = taken.load();
}

KERNEL(scan_update_i32_64x8, 64, i32, i32, scan_update)

// The sum of all tiles, added up in shared memory.
__device__ void reduce_update(i32* x, i32* y, int n) {
    __shared__ cuda::atomic<i32, cuda::thread_scope_block> sum;
    const auto block = cg::this_thread_block();
    if (block.thread_rank() == 0) new (&sum) cuda::atomic<i32, cuda::thread_scope_block>(n);
    block.sync();
    cg::reduce_update_async(cg::tiled_partition<16>(block), sum, x[threadIdx.x], cg::plus<i32>());
    block.sync();
    y[threadIdx.x] = sum.load();
}

KERNEL(reduce_update_i32_96x16, 96, i32, i32, reduce_update)

// ---------------------------------------------------------------------------------------------------------------------
// Copies and barriers

// A block copies x from its third element on and hands it back in reverse.
template <typename T, int kThreads, int kItems>
__device__ void copy(T* x, T* y, int) {
    constexpr int kCount = kThreads * kItems - 3;
    __shared__ alignas(16) T buffer[kThreads * kItems];
    const auto block = cg::this_thread_block();
    cg::memcpy_async(block, buffer + 3, x + 3, sizeof(T) * kCount);
    cg::wait(block);
    for (int i = threadIdx.x; i < kCount; i += kThreads) y[i] = buffer[3 + kCount - 1 - i];
}

KERNEL(copy_u8_96x5, 96, u8, u8, copy<u8, 96, 5>)
KERNEL(copy_i16_37x4, 37, i16, i16, copy<i16, 37, 4>)
KERNEL(copy_i32_64x3, 64, i32, i32, copy<i32, 64, 3>)
KERNEL(copy_f64_96x2, 96, f64, f64, copy<f64, 96, 2>)

// Copies sixteen bytes at a time, stage after stage with the next one under way, and sums by columns.
template <int kThreads>
__device__ void staged_copy(f32* x, f32* y, int n) {
    __shared__ alignas(16) f32 stages[2][kThreads];
    const auto block = cg::this_thread_block();
    const auto bytes = cuda::aligned_size_t<16>(sizeof(f32) * kThreads);
    cg::memcpy_async(block, stages[0], x, bytes);
    f32 sum = 0;
    for (int stage = 0; stage < n; ++stage) {
        if (stage + 1 < n) {
            cg::memcpy_async(block, stages[(stage + 1) % 2], x + (stage + 1) * kThreads, bytes);
            cg::wait_prior<1>(block);
        } else {
            cg::wait(block);
        }
        sum += stages[stage % 2][threadIdx.x];
        block.sync();
    }
    y[threadIdx.x] = sum;
}

KERNEL(staged_copy_f32_96x5, 96, f32, f32, staged_copy<96>)

// Each tile copies n elements of its own.
template <int kThreads, int kSize>
__device__ void tile_copy(i32* x, i32* y, int n) {
    __shared__ alignas(16) i32 buffer[kThreads * 3];
    const auto tile = cg::tiled_partition<kSize>(cg::this_thread_block());
    i32* const part = buffer + tile.meta_group_rank() * kSize * 3;
    const int offset = tile.meta_group_rank() * n;
    cg::memcpy_async(tile, part, x + offset, sizeof(i32) * n);
    cg::wait(tile);
    for (int i = tile.thread_rank(); i < n; i += kSize) y[offset + i] = part[n - 1 - i];
}

KERNEL(tile_copy_i32_96x32, 96, i32, i32, tile_copy<96, 32>)
KERNEL(tile_copy_i32_64x8, 64, i32, i32, tile_copy<64, 8>)

// Passes values on around the block, n times, between arrival and waiting.
template <int kThreads>
__device__ void barrier(i32* x, i32* y, int n) {
    __shared__ i32 values[2][kThreads];
    const auto block = cg::this_thread_block();
    const int t = block.thread_rank();
    i32 value = x[t];
    for (int round = 0; round < n; ++round) {
        values[round % 2][t] = value;
        auto token = block.barrier_arrive();
        value *= 3;
        block.barrier_wait(std::move(token));
        value += values[round % 2][(t + 1) % kThreads];
    }
    y[t] = value;
}

KERNEL(barrier_i32_96x1, 96, i32, i32, barrier<96>)
KERNEL(barrier_i32_37x1, 37, i32, i32, barrier<37>)

// ---------------------------------------------------------------------------------------------------------------------
// Grids

// n rounds of y[i] = 3 y[i] + y[i + 1] on a ring, every thread an element; the blocks meet twice a round.
__device__ void grid_rounds(i32* x, i32* y, int n) {
    const auto grid = cg::this_grid();
    const int i = grid.thread_rank(), size = grid.size();
    y[i] = x[i];
    for (int round = 0; round < n; ++round) {
        grid.sync();
        const i32 next = y[(i + 1) % size];
        auto token = grid.barrier_arrive();
        const i32 mine = 3 * y[i];
        grid.barrier_wait(std::move(token));
        y[i] = mine + next;
    }
}

KERNEL(grid_rounds_i32_64x7, 64, i32, i32, grid_rounds)

// The sum of all: tiles, blocks, the grid.
__device__ void grid_sum(i32* x, i32* y, int n) {
    __shared__ i32 parts[3];
    const auto grid = cg::this_grid();
    const auto block = cg::this_thread_block();
    const auto warp = cg::tiled_partition<32>(block);
    i32 sum = 0;
    for (int i = grid.thread_rank(); i < n; i += grid.size()) sum += x[i];
    sum = cg::reduce(warp, sum, cg::plus<i32>());
    cg::invoke_one(warp, [&] { parts[warp.meta_group_rank()] = sum; });
    block.sync();
    if (block.thread_rank() == 0) y[1 + grid.block_rank()] = parts[0] + parts[1] + parts[2];
    grid.sync();
    if (grid.thread_rank() == 0) {
        sum = 0;
        for (int b = 0; b < grid.num_blocks(); ++b) sum += y[1 + b];
        y[0] = sum;
    }
}

KERNEL(grid_sum_i32_96x5, 96, i32, i32, grid_sum)
