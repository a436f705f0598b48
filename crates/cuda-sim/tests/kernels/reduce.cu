// Reductions: a block's by shuffles, a grid's by the last block to arrive.

__device__ float warp_sum(float x) {
    for (int d = 16; d > 0; d /= 2) x += __shfl_down_sync(~0u, x, d);
    return x;
}

__device__ float block_sum(float x) {
    __shared__ float partial[32];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x < (blockDim.x + 31) / 32 ? partial[threadIdx.x] : 0.0f;
    if (threadIdx.x < 32) x = warp_sum(x);
    return x;
}

// sums[b] = sum of the block's share of x; blockDim.x is a multiple of 32.
extern "C" __global__ void sum_blocks(const float* __restrict__ x, float* __restrict__ sums, int n) {
    float sum = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The largest element and the first place where it lies, one block: a butterfly, then shared memory.
extern "C" __global__ void arg_max(const float* __restrict__ x, float* __restrict__ value, int* __restrict__ place,
                                   int n) {
    __shared__ float values[32];
    __shared__ int places[32];
    float best = -INFINITY;
    int at = n;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        if (x[i] > best) best = x[i], at = i;
    auto butterfly = [&] {
        for (int d = 16; d > 0; d /= 2) {
            const float other = __shfl_xor_sync(~0u, best, d);
            const int other_at = __shfl_xor_sync(~0u, at, d);
            if (other > best || (other == best && other_at < at)) best = other, at = other_at;
        }
    };
    butterfly();
    if (threadIdx.x % 32 == 0) values[threadIdx.x / 32] = best, places[threadIdx.x / 32] = at;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    const bool mine = threadIdx.x < blockDim.x / 32;
    best = mine ? values[threadIdx.x] : -INFINITY;
    at = mine ? places[threadIdx.x] : n;
    butterfly();
    if (threadIdx.x == 0) *value = best, *place = at;
}

__device__ unsigned arrived;

// The sum of all of x in one launch: each block leaves its sum, the last one to arrive adds them up.
extern "C" __global__ void sum_all(const float* __restrict__ x, volatile float* sums, float* result, int n) {
    __shared__ bool last;
    float sum = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
        __threadfence();
        last = atomicInc(&arrived, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    sum = 0.0f;
    for (int i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *result = sum;
}
