// Planted faults in global memory, between blocks and between threads of one; with FAULT=0 their correct twins.

#include <cooperative_groups.h>

constexpr bool kFault = FAULT;

#define KERNEL extern "C" __global__ void

// Smooths in place: what a neighbour writes must not be read in the same launch.
KERNEL smooth_in_place(float* x, float* y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float left = i > 0 ? x[i - 1] : 0.0f;  // FAULT smooth_in_place
    (kFault ? x : y)[i] = 0.5f * (left + x[i]);  // FAULT smooth_in_place
}

// Every block writes the total instead of its own part.
KERNEL same_place(const float* x, float* out) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < 64; i += 32) sum += x[blockIdx.x * 64 + i];
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (threadIdx.x == 0) out[kFault ? 0 : blockIdx.x] = sum;  // FAULT same_place
}

// Blocks that count together and look before all have counted.
KERNEL look_too_early(unsigned* count, unsigned* out) {
    if (threadIdx.x == 0) atomicAdd(count, 1u);  // FAULT look_too_early
    if (kFault && threadIdx.x == 0) out[blockIdx.x] = *count;  // FAULT look_too_early
}

// The last block adds up what the others wrote before they counted; without the fence nothing says that it was written.
KERNEL last_block_adds(const float* x, float* parts, unsigned* count, float* sum) {
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = x[blockIdx.x];
        if (!kFault) __threadfence();
        if (atomicAdd(count, 1u) == gridDim.x - 1) {
            if (!kFault) __threadfence();
            float total = 0.0f;
            for (unsigned b = 0; b < gridDim.x; ++b) total += parts[b];  // FAULT last_block_adds
            *sum = total;
        }
    }
}

// A stage for another block's data, by an asynchronous copy, one tile too far.
KERNEL tile_too_far(float* x) {
    __shared__ float4 tile[8];
    const int from = blockIdx.x + (kFault && blockIdx.x + 1 < gridDim.x ? 1 : 0);
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(tile + threadIdx.x));
    const float4* source = reinterpret_cast<const float4*>(x) + from * 8 + threadIdx.x;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(source) : "memory");  // FAULT tile_too_far
    asm volatile("cp.async.wait_all;" ::: "memory");
    const float4 v = tile[threadIdx.x];
    reinterpret_cast<float4*>(x)[blockIdx.x * 8 + threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);  // FAULT tile_too_far
}

// Rounds on a ring: blocks meet between writing and reading.
KERNEL ring_without_meeting(float* x, float* y, int n, int rounds) {
    const cooperative_groups::grid_group grid = cooperative_groups::this_grid();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    for (int r = 0; r < rounds; ++r) {
        if (i < n) y[i] = x[(i + 1) % n];  // FAULT ring_without_meeting
        if (!kFault) grid.sync();
        float* swap = x;
        x = y;
        y = swap;
    }
}

// Every thread of a block counts that it was there.
KERNEL count_twice(int* counts) {
    if (kFault || threadIdx.x == 0) counts[blockIdx.x] = counts[blockIdx.x] + 1;  // FAULT count_twice
}

// Turns a part of an array round, in place.
KERNEL reverse_in_place(float* x) {
    x += blockIdx.x * blockDim.x;
    const float v = x[blockDim.x - 1 - threadIdx.x];  // FAULT reverse_in_place
    if (!kFault) __syncthreads();
    x[threadIdx.x] = v;  // FAULT reverse_in_place
}

// Halves that lie in the same words are written by different threads, as they may be; but not twice.
KERNEL halves_overlap(const unsigned short* x, unsigned short* out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[kFault ? i / 2 : i] = x[i];  // FAULT halves_overlap
}

// A warp hands its sum to another through global memory.
KERNEL hand_over(const float* x, float* sums, float* out) {
    float sum = x[threadIdx.x];
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;  // FAULT hand_over
    if (kFault)
        __syncwarp();
    else
        __syncthreads();
    if (threadIdx.x == 0) *out = sums[0] + sums[1];  // FAULT hand_over
}
