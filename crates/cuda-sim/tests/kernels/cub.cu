// Algorithms of CUB, whose code no one here chose.

#include <cub/block/block_load.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/block/block_store.cuh>
#include <cub/warp/warp_merge_sort.cuh>

constexpr int kThreads = 96, kItems = 5;

struct Larger {
    __device__ int operator()(int a, int b) const { return a > b ? a : b; }
};

struct Less {
    __device__ bool operator()(int a, int b) const { return a < b; }
};

// Loads a tile by turns, sums it, takes running maxima, and stores them by turns; `n` of the tile are there.
extern "C" __global__ void __launch_bounds__(kThreads) running_maxima(const int* x, int* maxima, int* sum, int n) {
    using Load = cub::BlockLoad<int, kThreads, kItems, cub::BLOCK_LOAD_WARP_TRANSPOSE>;
    using Store = cub::BlockStore<int, kThreads, kItems, cub::BLOCK_STORE_TRANSPOSE>;
    using Reduce = cub::BlockReduce<int, kThreads>;
    using Scan = cub::BlockScan<int, kThreads>;
    __shared__ union {
        Load::TempStorage load;
        Store::TempStorage store;
        Reduce::TempStorage reduce;
        Scan::TempStorage scan;
    } shared;
    int items[kItems];
    Load(shared.load).Load(x, items, n, 0);
    __syncthreads();
    const int total = Reduce(shared.reduce).Sum(items);
    if (threadIdx.x == 0) *sum = total;
    __syncthreads();
    Scan(shared.scan).InclusiveScan(items, items, Larger());
    __syncthreads();
    Store(shared.store).Store(maxima, items, n);
}

// Sorts a tile of keys with their values, by bits.
extern "C" __global__ void __launch_bounds__(kThreads) sort_pairs(const float* keys, const int* values, float* keys_out,
                                                                  int* values_out) {
    using Sort = cub::BlockRadixSort<float, kThreads, kItems, int>;
    __shared__ Sort::TempStorage shared;
    float key[kItems];
    int value[kItems];
    for (int i = 0; i < kItems; ++i) {
        key[i] = keys[threadIdx.x * kItems + i];
        value[i] = values[threadIdx.x * kItems + i];
    }
    Sort(shared).SortDescending(key, value);
    for (int i = 0; i < kItems; ++i) {
        keys_out[threadIdx.x * kItems + i] = key[i];
        values_out[threadIdx.x * kItems + i] = value[i];
    }
}

// Each warp sorts its own by merging.
extern "C" __global__ void __launch_bounds__(kThreads) merge_sort(int* x) {
    using Sort = cub::WarpMergeSort<int, kItems, 32>;
    __shared__ Sort::TempStorage shared[kThreads / 32];
    int items[kItems];
    for (int i = 0; i < kItems; ++i) items[i] = x[threadIdx.x * kItems + i];
    Sort(shared[threadIdx.x / 32]).Sort(items, Less());
    for (int i = 0; i < kItems; ++i) x[threadIdx.x * kItems + i] = items[i];
}
