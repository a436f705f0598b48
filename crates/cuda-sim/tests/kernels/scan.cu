// Inclusive prefix sums of u32: a block's by shuffles, a grid's in three launches; and the work-efficient tree.

constexpr int kBlock = 256;

__device__ unsigned block_scan(unsigned x) {
    __shared__ unsigned totals[kBlock / 32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (unsigned d = 1; d < 32; d *= 2) {
        const unsigned other = __shfl_up_sync(~0u, x, d);
        if (lane >= d) x += other;
    }
    if (lane == 31) totals[warp] = x;
    __syncthreads();
    if (warp == 0) {
        unsigned total = lane < kBlock / 32 ? totals[lane] : 0;
        for (unsigned d = 1; d < kBlock / 32; d *= 2) {
            const unsigned other = __shfl_up_sync(~0u, total, d);
            if (lane >= d) total += other;
        }
        if (lane < kBlock / 32) totals[lane] = total;
    }
    __syncthreads();
    return warp == 0 ? x : x + totals[warp - 1];
}

extern "C" __global__ void __launch_bounds__(kBlock) scan_blocks(const unsigned* x, unsigned* y, unsigned* sums, int n) {
    const int i = blockIdx.x * kBlock + threadIdx.x;
    const unsigned sum = block_scan(i < n ? x[i] : 0);
    if (i < n) y[i] = sum;
    if (threadIdx.x == kBlock - 1) sums[blockIdx.x] = sum;
}

extern "C" __global__ void add_sums(unsigned* y, const unsigned* sums, int n) {
    const int i = blockIdx.x * kBlock + threadIdx.x;
    if (i < n && blockIdx.x > 0) y[i] += sums[blockIdx.x - 1];
}

// Exclusive sums of 2 * kBlock values in place, up and down a tree in shared memory.
extern "C" __global__ void scan_tree(unsigned* x) {
    __shared__ unsigned tree[2 * kBlock];
    const int t = threadIdx.x;
    tree[2 * t] = x[2 * t];
    tree[2 * t + 1] = x[2 * t + 1];
    for (int d = 1; d < 2 * kBlock; d *= 2) {
        __syncthreads();
        const int i = (2 * t + 2) * d - 1;
        if (i < 2 * kBlock) tree[i] += tree[i - d];
    }
    __syncthreads();
    if (t == 0) tree[2 * kBlock - 1] = 0;
    for (int d = kBlock; d > 0; d /= 2) {
        __syncthreads();
        const int i = (2 * t + 2) * d - 1;
        if (i < 2 * kBlock) {
            const unsigned left = tree[i - d];
            tree[i - d] = tree[i];
            tree[i] += left;
        }
    }
    __syncthreads();
    x[2 * t] = tree[2 * t];
    x[2 * t + 1] = tree[2 * t + 1];
}
