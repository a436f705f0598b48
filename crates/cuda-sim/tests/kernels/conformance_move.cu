// Loads, stores, exchanges, differences, runs and histograms of CUB, by blocks and by warps.
//
// Every kernel takes x, y and n; its name says the family, the type and the extents, its template what lies in y.

#include <cub/block/block_adjacent_difference.cuh>
#include <cub/block/block_discontinuity.cuh>
#include <cub/block/block_exchange.cuh>
#include <cub/block/block_histogram.cuh>
#include <cub/block/block_load.cuh>
#include <cub/block/block_run_length_decode.cuh>
#include <cub/block/block_shuffle.cuh>
#include <cub/block/block_store.cuh>
#include <cub/warp/warp_exchange.cuh>
#include <cub/warp/warp_load.cuh>
#include <cub/warp/warp_store.cuh>

#include "conformance.cuh"

// Twelve bytes, so that no vector instruction takes one whole.
struct triple {
    u32 a, b, c;
};

// ---------------------------------------------------------------------------------------------------------------------
// Loads and stores

// n items, to each of which the thread that holds it adds its number.
template <typename T, int kThreads, int kItems, cub::BlockLoadAlgorithm kLoad, cub::BlockStoreAlgorithm kStore>
__device__ void load_store(T* x, T* y, int n) {
    using Load = cub::BlockLoad<T, kThreads, kItems, kLoad>;
    using Store = cub::BlockStore<T, kThreads, kItems, kStore>;
    __shared__ union {
        typename Load::TempStorage load;
        typename Store::TempStorage store;
    } storage;
    T items[kItems];
    if (n == kThreads * kItems) {
        Load(storage.load).Load(x, items);
    } else {
        Load(storage.load).Load(x, items, n, T(0));
    }
    for (int i = 0; i < kItems; ++i) items[i] += T(threadIdx.x);
    __syncthreads();
    if (n == kThreads * kItems) {
        Store(storage.store).Store(y, items);
    } else {
        Store(storage.store).Store(y, items, n);
    }
}

#define LOAD_STORE(algorithm, ALGORITHM, T, threads, items)                   \
    KERNEL(load_store_##algorithm##_##T##_##threads##x##items, threads, T, T, \
           load_store<T, threads, items, cub::BLOCK_LOAD_##ALGORITHM, cub::BLOCK_STORE_##ALGORITHM>)

LOAD_STORE(direct, DIRECT, u8, 37, 3)
LOAD_STORE(striped, STRIPED, i32, 96, 3)
LOAD_STORE(vectorize, VECTORIZE, f32, 128, 4)
LOAD_STORE(vectorize, VECTORIZE, u8, 96, 8)
LOAD_STORE(transpose, TRANSPOSE, u64, 37, 4)
LOAD_STORE(warp_transpose, WARP_TRANSPOSE, i16, 96, 5)
LOAD_STORE(timesliced, WARP_TRANSPOSE_TIMESLICED, f64, 128, 3)

// As above, a tile for each logical warp; to the items is added the lane. The last warp has n left.
template <typename T, int kThreads, int kItems, int kLanes, cub::WarpLoadAlgorithm kLoad,
          cub::WarpStoreAlgorithm kStore>
__device__ void warp_load_store(T* x, T* y, int n) {
    using Load = cub::WarpLoad<T, kItems, kLoad, kLanes>;
    using Store = cub::WarpStore<T, kItems, kStore, kLanes>;
    __shared__ typename Load::TempStorage load[kThreads / kLanes];
    __shared__ typename Store::TempStorage store[kThreads / kLanes];
    const int warp = threadIdx.x / kLanes, offset = warp * kLanes * kItems;
    const int left = warp + 1 < kThreads / kLanes ? kLanes * kItems : n;
    T items[kItems];
    Load(load[warp]).Load(x + offset, items, left, T(0));
    for (int i = 0; i < kItems; ++i) items[i] += T(threadIdx.x % kLanes);
    Store(store[warp]).Store(y + offset, items, left);
}

#define WARP_LOAD_STORE(algorithm, ALGORITHM, T, threads, items, lanes)                      \
    KERNEL(warp_load_store_##algorithm##_##T##_##threads##x##items##x##lanes, threads, T, T, \
           warp_load_store<T, threads, items, lanes, cub::WARP_LOAD_##ALGORITHM, cub::WARP_STORE_##ALGORITHM>)

WARP_LOAD_STORE(striped, STRIPED, u64, 64, 3, 16)
WARP_LOAD_STORE(transpose, TRANSPOSE, i32, 96, 4, 32)
WARP_LOAD_STORE(transpose, TRANSPOSE, u8, 64, 5, 8)

// ---------------------------------------------------------------------------------------------------------------------
// Exchanges

// A permutation: the step is a prime that divides no tile here.
template <int kTile>
__device__ int scattered(int k) {
    return (k * 1009 + 7) % kTile;
}

// From blocked to striped, back, scattered to blocked, scattered to striped; then from blocked to striped by warps and
// back, where all warps are full.
template <typename T, int kThreads, int kItems, bool kSlices>
__device__ void exchange(T* x, T* y, int) {
    using Exchange = cub::BlockExchange<T, kThreads, kItems, kSlices>;
    constexpr int kTile = kThreads * kItems;
    __shared__ typename Exchange::TempStorage storage;
    T items[kItems], out[kItems];
    int places[kItems];
    load(x, items);
    for (int i = 0; i < kItems; ++i) places[i] = scattered<kTile>(threadIdx.x * kItems + i);
    Exchange(storage).BlockedToStriped(items, out);
    store(y, out);
    __syncthreads();
    Exchange(storage).StripedToBlocked(items, out);
    store(y + kTile, out);
    __syncthreads();
    Exchange(storage).ScatterToBlocked(items, out, places);
    store(y + 2 * kTile, out);
    __syncthreads();
    Exchange(storage).ScatterToStriped(items, out, places);
    store(y + 3 * kTile, out);
    if constexpr (kThreads % 32 == 0) {
        __syncthreads();
        Exchange(storage).BlockedToWarpStriped(items, out);
        store(y + 4 * kTile, out);
        __syncthreads();
        Exchange(storage).WarpStripedToBlocked(items, out);
        store(y + 5 * kTile, out);
    }
}

#define EXCHANGE(T, threads, items) \
    KERNEL(exchange_##T##_##threads##x##items, threads, T, T, exchange<T, threads, items, false>)

EXCHANGE(u8, 96, 4)
EXCHANGE(i32, 37, 3)
EXCHANGE(triple, 64, 2)
EXCHANGE(f64, 128, 3)
KERNEL(exchange_timesliced_u64_96x4, 96, u64, u64, exchange<u64, 96, 4, true>)

// By logical warps: from blocked to striped, and back; then scattered to striped, unless by shuffles, which cannot.
template <typename T, int kThreads, int kItems, int kLanes, cub::WarpExchangeAlgorithm kAlgorithm>
__device__ void warp_exchange(T* x, T* y, int) {
    using Exchange = cub::WarpExchange<T, kItems, kLanes, kAlgorithm>;
    constexpr int kTile = kThreads * kItems;
    __shared__ typename Exchange::TempStorage storage[kThreads / kLanes];
    Exchange exchange(storage[threadIdx.x / kLanes]);
    T items[kItems], out[kItems];
    load(x, items);
    exchange.BlockedToStriped(items, out);
    store(y, out);
    __syncwarp();
    exchange.StripedToBlocked(items, out);
    store(y + kTile, out);
    if constexpr (kAlgorithm == cub::WARP_EXCHANGE_SMEM) {
        int places[kItems];
        for (int i = 0; i < kItems; ++i) {
            places[i] = scattered<kLanes * kItems>(threadIdx.x % kLanes * kItems + i);
        }
        __syncwarp();
        exchange.ScatterToStriped(items, out, places);
        store(y + 2 * kTile, out);
    }
}

#define WARP_EXCHANGE(algorithm, ALGORITHM, T, threads, items, lanes)                      \
    KERNEL(warp_exchange_##algorithm##_##T##_##threads##x##items##x##lanes, threads, T, T, \
           warp_exchange<T, threads, items, lanes, cub::WARP_EXCHANGE_##ALGORITHM>)

WARP_EXCHANGE(smem, SMEM, i32, 96, 3, 32)
WARP_EXCHANGE(smem, SMEM, u8, 64, 5, 8)
WARP_EXCHANGE(shuffle, SHUFFLE, f32, 64, 16, 16)
WARP_EXCHANGE(shuffle, SHUFFLE, u64, 32, 8, 8)

// Each thread's first item from n threads on, and with the block as a ring; then all items up and down by one. What
// nothing arrives for is x[0].
template <typename T, int kThreads, int kItems>
__device__ void shuffle(T* x, T* y, int n) {
    using Shuffle = cub::BlockShuffle<T, kThreads>;
    __shared__ typename Shuffle::TempStorage storage;
    T items[kItems], out[kItems], one = x[0];
    load(x, items);
    Shuffle(storage).Offset(items[0], one, n);
    y[threadIdx.x] = one;
    __syncthreads();
    Shuffle(storage).Rotate(items[0], one, n);
    y[kThreads + threadIdx.x] = one;
    y += 2 * kThreads;
    for (int i = 0; i < kItems; ++i) out[i] = x[0];
    __syncthreads();
    Shuffle(storage).Up(items, out);
    store(y, out);
    for (int i = 0; i < kItems; ++i) out[i] = x[0];
    __syncthreads();
    Shuffle(storage).Down(items, out);
    store(y + kThreads * kItems, out);
}

KERNEL(shuffle_i32_96x3, 96, i32, i32, shuffle<i32, 96, 3>)
KERNEL(shuffle_u8_37x2, 37, u8, u8, shuffle<u8, 37, 2>)
KERNEL(shuffle_triple_64x4, 64, triple, triple, shuffle<triple, 64, 4>)

// ---------------------------------------------------------------------------------------------------------------------
// Neighbours

struct different {
    template <typename T>
    __device__ bool operator()(const T& a, const T& b) const {
        return a != b;
    }
};

// Flags where an item differs from the one before, from the one behind, and (1 and 2) both with neighbours n.
template <typename T, int kThreads, int kItems>
__device__ void discontinuity(T* x, i32* y, int n) {
    using Flag = cub::BlockDiscontinuity<T, kThreads>;
    constexpr int kTile = kThreads * kItems;
    __shared__ typename Flag::TempStorage storage;
    T items[kItems];
    i32 heads[kItems], tails[kItems];
    load(x, items);
    Flag(storage).FlagHeads(heads, items, different());
    store(y, heads);
    __syncthreads();
    Flag(storage).FlagTails(tails, items, different());
    store(y + kTile, tails);
    __syncthreads();
    Flag(storage).FlagHeadsAndTails(heads, T(n), tails, T(n), items, different());
    for (int i = 0; i < kItems; ++i) heads[i] += 2 * tails[i];
    store(y + 2 * kTile, heads);
}

KERNEL(discontinuity_i32_96x3, 96, i32, i32, discontinuity<i32, 96, 3>)
KERNEL(discontinuity_u8_37x4, 37, u8, i32, discontinuity<u8, 37, 4>)
KERNEL(discontinuity_f64_128x1, 128, f64, i32, discontinuity<f64, 128, 1>)

struct minus {
    template <typename T>
    __device__ T operator()(const T& a, const T& b) const {
        return a - b;
    }
};

// Differences to the left, to the left where n items are there and x[0] is before them, to the right with x[0] behind,
// to the right where n are there.
template <typename T, int kThreads, int kItems>
__device__ void difference(T* x, T* y, int n) {
    using Difference = cub::BlockAdjacentDifference<T, kThreads>;
    constexpr int kTile = kThreads * kItems;
    __shared__ typename Difference::TempStorage storage;
    T items[kItems], out[kItems];
    load(x, items);
    Difference(storage).SubtractLeft(items, out, minus());
    store(y, out);
    __syncthreads();
    Difference(storage).SubtractLeftPartialTile(items, out, minus(), n, x[0]);
    store(y + kTile, out);
    __syncthreads();
    Difference(storage).SubtractRight(items, out, minus(), x[0]);
    store(y + 2 * kTile, out);
    __syncthreads();
    Difference(storage).SubtractRightPartialTile(items, out, minus(), n);
    store(y + 3 * kTile, out);
}

KERNEL(difference_u64_96x3, 96, u64, u64, difference<u64, 96, 3>)
KERNEL(difference_f32_37x2, 37, f32, f32, difference<f32, 37, 2>)
KERNEL(difference_i16_128x4, 128, i16, i16, difference<i16, 128, 4>)

// The first n runs decoded: values, eight-fold, with the place in the run. A run is a value and, modulo six, a length.
template <typename T, int kThreads, int kRuns, int kDecoded>
__device__ void run_length(u32* x, u32* y, int n) {
    using Decode = cub::BlockRunLengthDecode<T, kThreads, kRuns, kDecoded>;
    __shared__ typename Decode::TempStorage storage;
    T values[kRuns], items[kDecoded];
    u32 lengths[kRuns], places[kDecoded], total;
    for (int i = 0; i < kRuns; ++i) {
        const int run = threadIdx.x * kRuns + i;
        values[i] = T(x[run] >> 8);
        lengths[i] = run < n ? 1 + x[run] % 6 : 0;
    }
    Decode decode(storage, values, lengths, total);
    for (u32 from = 0; from < total; from += kThreads * kDecoded) {
        decode.RunLengthDecode(items, places, from);
        for (int i = 0; i < kDecoded; ++i) {
            const u32 at = from + threadIdx.x * kDecoded + i;
            if (at < total) y[at] = u32(items[i]) * 8 + places[i];
        }
    }
}

KERNEL(run_length_u8_96x2, 96, u32, u32, run_length<u8, 96, 2, 4>)
KERNEL(run_length_u64_37x3, 37, u32, u32, run_length<u64, 37, 3, 2>)

// Counts of each value below kBins; then with the items counted once more.
template <typename T, int kThreads, int kItems, int kBins, cub::BlockHistogramAlgorithm kAlgorithm>
__device__ void histogram(T* x, u32* y, int) {
    using Histogram = cub::BlockHistogram<T, kThreads, kItems, kBins, kAlgorithm>;
    __shared__ typename Histogram::TempStorage storage;
    __shared__ u32 bins[kBins];
    T items[kItems];
    load(x, items);
    Histogram(storage).Histogram(items, bins);
    __syncthreads();
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) y[bin] = bins[bin];
    __syncthreads();
    // The sort leaves the items in another order.
    load(x, items);
    Histogram(storage).Composite(items, bins);
    __syncthreads();
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) y[kBins + bin] = bins[bin];
}

#define HISTOGRAM(algorithm, ALGORITHM, T, threads, items, bins)               \
    KERNEL(histogram_##algorithm##_##T##_##threads##x##items, threads, T, u32, \
           histogram<T, threads, items, bins, cub::BLOCK_HISTO_##ALGORITHM>)

HISTOGRAM(sort, SORT, u8, 96, 4, 256)
HISTOGRAM(sort, SORT, i32, 37, 3, 50)
HISTOGRAM(atomic, ATOMIC, u8, 128, 3, 256)
HISTOGRAM(atomic, ATOMIC, i16, 37, 5, 10)
