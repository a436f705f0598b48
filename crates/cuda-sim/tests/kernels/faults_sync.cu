// Planted faults of barriers and warp-level instructions, and kernels that stop or never end. Compiled with FAULT=1, and
// with FAULT=0 as the correct twin; `// FAULT name` marks a line that may be reported for the kernel of that name.

#include <assert.h>
#include <cooperative_groups.h>

constexpr bool kFault = FAULT;

#define KERNEL extern "C" __global__ void

KERNEL barrier_after_exit(const int* x, int* out, int n) {
    __shared__ int values[128];
    const int t = threadIdx.x;
    if (kFault && t >= n) return;  // FAULT barrier_after_exit
    values[t] = t < n ? x[t] : 0;
    __syncthreads();  // FAULT barrier_after_exit
    if (t < n) out[t] = values[n - 1 - t];
}

KERNEL barrier_in_branch(int* out) {
    __shared__ int value;
    const int t = threadIdx.x;
    if (t < 48) {
        if (t == 0) value = 5;
        if (kFault) __syncthreads();  // FAULT barrier_in_branch
    }
    if (!kFault) __syncthreads();
    out[t] = t < 48 ? 0 : value + t;
    if (kFault) __syncthreads();  // FAULT barrier_in_branch
}

KERNEL barrier_counts_differ(const int* x, int* out) {
    const int warp = threadIdx.x / 32, rounds = kFault ? 2 + warp : 3;
    int sum = 0;
    for (int r = 0; r < rounds; ++r) {
        sum += x[r];
        __syncthreads();  // FAULT barrier_counts_differ
    }
    out[threadIdx.x] = sum;
}  // FAULT barrier_counts_differ

KERNEL barrier_never_reached(const int* x, int* out) {
    __shared__ int values[32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp == 0) {
        values[lane] = x[lane];
        if (!kFault) asm volatile("bar.arrive 1, 64;" ::: "memory");
    } else {
        asm volatile("bar.sync 1, 64;" ::: "memory");  // FAULT barrier_never_reached
        out[lane] = values[31 - lane];
    }
}

// Lanes that have exited are excused from a mask; these have not.
KERNEL shuffle_lanes_missing(const int* x, int* out) {
    const int t = threadIdx.x;
    int v = x[t];
    if (t < 16) v += __shfl_down_sync(kFault ? 0xffffffffu : 0x0000ffffu, v, 8, 16);  // FAULT shuffle_lanes_missing
    __syncwarp();
    out[t] = v;
}

KERNEL vote_lanes_missing(const int* x, unsigned* out, int n) {
    const int t = threadIdx.x;
    unsigned votes = 0;
    if (t < n) votes = __ballot_sync(kFault ? 0xffffffffu : (1u << n) - 1, x[t] > 0);  // FAULT vote_lanes_missing
    __syncwarp();
    out[t] = votes;
}

KERNEL mask_without_self(const int* x, int* out) {
    __shared__ int values[32];
    const int t = threadIdx.x;
    values[t] = x[t];
    __syncwarp(kFault ? 0x0000ffffu : 0xffffffffu);  // FAULT mask_without_self
    out[t] = values[t ^ 1];
}

KERNEL matrix_lanes_missing(const unsigned* x, unsigned* out) {
    const int t = threadIdx.x;
    unsigned d0 = 0, d1 = 0;
    if (!kFault || t != 31)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, %1};"  // FAULT matrix_lanes_missing
                     : "+r"(d0), "+r"(d1) : "r"(x[t]), "r"(x[t + 32]), "r"(x[t + 64]));
    out[t] = d0 ^ d1;
}

KERNEL trap(const int* x, int* out, int limit) {
    const int v = x[threadIdx.x];
    if (v > limit) __trap();  // FAULT trap
    out[threadIdx.x] = v;
}

KERNEL assertion(const int* x, int* out, int limit) {
    const int v = x[threadIdx.x];
    assert(v <= limit);  // FAULT assertion
    out[threadIdx.x] = v;
}

// The grid's barrier has no place to count where the launch is not cooperative.
KERNEL grid_barrier(int* out) {
    cooperative_groups::this_grid().sync();  // FAULT grid_barrier
    if (threadIdx.x == 0) out[blockIdx.x] = gridDim.x;
}

KERNEL spin(volatile int* flag, int* out) {
    if (!kFault && blockIdx.x == 0 && threadIdx.x == 0) *flag = 1;
    while (*flag == 0) {}  // FAULT spin
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}
