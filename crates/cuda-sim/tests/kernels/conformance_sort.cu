// Sorts and ranks of CUB, by blocks and by warps.
//
// Every kernel takes x, y and n; its name says the family, the type and the extents, its template what lies in x and y.

#include <cuda_fp16.h>

#include <cub/block/block_exchange.cuh>
#include <cub/block/block_load.cuh>
#include <cub/block/block_merge_sort.cuh>
#include <cub/block/block_radix_rank.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_store.cuh>
#include <cub/warp/warp_merge_sort.cuh>

#include "conformance.cuh"

using i64 = long long;
using f16 = __half;

// Ordered by high, then by low.
struct record {
    u32 high;
    short low, other;
};

struct parts {
    __device__ cuda::std::tuple<u32&, short&> operator()(record& r) const { return {r.high, r.low}; }
};

struct before {
    template <typename T>
    __device__ bool operator()(T a, T b) const {
        return a < b;
    }
    __device__ bool operator()(record a, record b) const {
        return a.high < b.high || (a.high == b.high && a.low < b.low);
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// By digits

// x ascending, y descending.
template <typename T, int kThreads, int kItems, int kBits, bool kMemoize, cub::BlockScanAlgorithm kScan>
__device__ void radix_sort(T* x, T* y, int) {
    using Sort = cub::BlockRadixSort<T, kThreads, kItems, cub::NullType, kBits, kMemoize, kScan>;
    __shared__ typename Sort::TempStorage storage;
    T up[kItems], down[kItems];
    load(x, up);
    load(x, down);
    Sort(storage).Sort(up);
    __syncthreads();
    Sort(storage).SortDescendingBlockedToStriped(down);
    store(x, up);
    cub::StoreDirectStriped<kThreads>(threadIdx.x, y, down);
}

#define RADIX_SORT(T, threads, items)                           \
    KERNEL(radix_sort_##T##_##threads##x##items, threads, T, T, \
           radix_sort<T, threads, items, 4, true, cub::BLOCK_SCAN_WARP_SCANS>)

RADIX_SORT(u8, 96, 3)
RADIX_SORT(u16, 37, 4)
RADIX_SORT(i32, 128, 4)
RADIX_SORT(f32, 96, 5)
RADIX_SORT(f16, 128, 2)
RADIX_SORT(f64, 37, 3)
KERNEL(radix_sort_raking_u64_128x2, 128, u64, u64, radix_sort<u64, 128, 2, 5, false, cub::BLOCK_SCAN_RAKING>)

// x by its bits from n to n + 13.
template <typename T, int kThreads, int kItems>
__device__ void radix_sort_bits(T* x, T* y, int n) {
    using Sort = cub::BlockRadixSort<T, kThreads, kItems>;
    __shared__ typename Sort::TempStorage storage;
    T items[kItems];
    load(x, items);
    Sort(storage).Sort(items, n, n + 13);
    store(y, items);
}

KERNEL(radix_sort_bits_u32_96x4, 96, u32, u32, radix_sort_bits<u32, 96, 4>)

// x with the place of each key before in y.
template <typename T, int kThreads, int kItems, bool kDescending, typename Value>
__device__ void radix_sort_pairs(T* x, Value* y, int) {
    using Sort = cub::BlockRadixSort<T, kThreads, kItems, Value>;
    __shared__ typename Sort::TempStorage storage;
    T keys[kItems];
    Value values[kItems];
    load(x, keys);
    for (int i = 0; i < kItems; ++i) values[i] = threadIdx.x * kItems + i;
    if (kDescending) {
        Sort(storage).SortDescending(keys, values);
    } else {
        Sort(storage).Sort(keys, values);
    }
    store(x, keys);
    store(y, values);
}

KERNEL(radix_sort_pairs_i32_96x3, 96, i32, u16, radix_sort_pairs<i32, 96, 3, false, u16>)
KERNEL(radix_sort_pairs_f32_37x5, 37, f32, i32, radix_sort_pairs<f32, 37, 5, false, i32>)
KERNEL(radix_sort_pairs_down_u8_128x4, 128, u8, i32, radix_sort_pairs<u8, 128, 4, true, i32>)
KERNEL(radix_sort_pairs_down_f64_96x2, 96, f64, i64, radix_sort_pairs<f64, 96, 2, true, i64>)

// x ascending, y descending, by the members that count.
template <int kThreads, int kItems>
__device__ void radix_sort_records(record* x, record* y, int) {
    using Sort = cub::BlockRadixSort<record, kThreads, kItems>;
    __shared__ typename Sort::TempStorage storage;
    record up[kItems], down[kItems];
    load(x, up);
    load(x, down);
    Sort(storage).Sort(up, parts());
    __syncthreads();
    Sort(storage).SortDescending(down, parts());
    store(x, up);
    store(y, down);
}

KERNEL(radix_sort_records_record_96x2, 96, record, record, radix_sort_records<96, 2>)

// For each key, its place by the five bits from n on. Ranking by matches takes keys striped by warps.
template <typename Rank, int kItems, bool kStriped>
__device__ void radix_rank(u32* x, i32* y, int n) {
    __shared__ typename Rank::TempStorage storage;
    const cub::BFEDigitExtractor<u32> digit(n, 5);
    u32 keys[kItems];
    i32 ranks[kItems];
    if (kStriped) {
        cub::LoadDirectWarpStriped(threadIdx.x, x, keys);
    } else {
        load(x, keys);
    }
    Rank(storage).RankKeys(keys, ranks, digit);
    if (kStriped) {
        cub::StoreDirectWarpStriped(threadIdx.x, y, ranks);
    } else {
        store(y, ranks);
    }
}

using basic = cub::BlockRadixRank<37, 5, false, false>;
using memoized = cub::BlockRadixRank<96, 5, true, true, cub::BLOCK_SCAN_RAKING>;
using match = cub::BlockRadixRankMatch<96, 5, false>;
using match_down = cub::BlockRadixRankMatch<128, 5, true>;
using early = cub::BlockRadixRankMatchEarlyCounts<128, 5, false, cub::BLOCK_SCAN_WARP_SCANS, cub::WARP_MATCH_ANY>;
using early_or =
    cub::BlockRadixRankMatchEarlyCounts<64, 5, false, cub::BLOCK_SCAN_WARP_SCANS, cub::WARP_MATCH_ATOMIC_OR>;

KERNEL(radix_rank_u32_37x6, 37, u32, i32, radix_rank<basic, 6, false>)
KERNEL(radix_rank_down_u32_96x3, 96, u32, i32, radix_rank<memoized, 3, false>)
KERNEL(radix_rank_match_u32_96x4, 96, u32, i32, radix_rank<match, 4, true>)
KERNEL(radix_rank_match_down_u32_128x3, 128, u32, i32, radix_rank<match_down, 3, true>)
KERNEL(radix_rank_early_u32_128x2, 128, u32, i32, radix_rank<early, 2, true>)
KERNEL(radix_rank_early_or_u32_64x5, 64, u32, i32, radix_rank<early_or, 5, true>)

// ---------------------------------------------------------------------------------------------------------------------
// By comparison

// The first n of x; y has the place of each before. Beyond n stand copies of x[n - 1], which no key is behind.
template <typename T, int kThreads, int kItems>
__device__ void merge_sort(T* x, i32* y, int n) {
    using Sort = cub::BlockMergeSort<T, kThreads, kItems, i32>;
    __shared__ typename Sort::TempStorage storage;
    T keys[kItems];
    i32 values[kItems];
    const int begin = threadIdx.x * kItems;
    for (int i = 0; i < kItems; ++i) {
        keys[i] = x[min(begin + i, n - 1)];
        values[i] = begin + i;
    }
    if (n == kThreads * kItems) {
        Sort(storage).StableSort(keys, values, before());
    } else {
        Sort(storage).StableSort(keys, values, before(), n, x[n - 1]);
    }
    for (int i = 0; i < kItems; ++i) {
        if (begin + i < n) {
            x[begin + i] = keys[i];
            y[begin + i] = values[i];
        }
    }
}

#define MERGE_SORT(T, threads, items) \
    KERNEL(merge_sort_##T##_##threads##x##items, threads, T, i32, merge_sort<T, threads, items>)

MERGE_SORT(i32, 128, 3)
MERGE_SORT(record, 64, 4)
MERGE_SORT(f64, 256, 1)
MERGE_SORT(u8, 32, 7)

// Each logical warp's keys, with the place of each before.
template <typename T, int kThreads, int kItems, int kLanes>
__device__ void warp_merge_sort(T* x, i32* y, int) {
    using Sort = cub::WarpMergeSort<T, kItems, kLanes, i32>;
    __shared__ typename Sort::TempStorage storage[kThreads / kLanes];
    T keys[kItems];
    i32 values[kItems];
    load(x, keys);
    for (int i = 0; i < kItems; ++i) values[i] = threadIdx.x * kItems + i;
    Sort(storage[threadIdx.x / kLanes]).StableSort(keys, values, before());
    store(x, keys);
    store(y, values);
}

#define WARP_MERGE_SORT(T, threads, items, lanes)                                \
    KERNEL(warp_merge_sort_##T##_##threads##x##items##x##lanes, threads, T, i32, \
           warp_merge_sort<T, threads, items, lanes>)

WARP_MERGE_SORT(i32, 96, 3, 32)
WARP_MERGE_SORT(u64, 64, 4, 16)
WARP_MERGE_SORT(f32, 40, 5, 8)
