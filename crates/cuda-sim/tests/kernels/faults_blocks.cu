// Planted faults between blocks, in global memory; with FAULT=0 their correct twins.

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
