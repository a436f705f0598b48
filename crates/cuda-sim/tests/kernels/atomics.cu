// Atomic operations of every kind, on global and shared memory.

#include <cuda_fp16.h>

// Every thread applies its value to each of the cells; the results do not depend on the order.
extern "C" __global__ void all_kinds(const int* x, int* cells, unsigned long long* longs, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const int v = x[i];
    const unsigned u = static_cast<unsigned>(v);
    atomicAdd(&cells[0], v);
    atomicSub(&cells[1], v);
    atomicMin(&cells[2], v);
    atomicMax(&cells[3], v);
    atomicAnd(&cells[4], v | 0xff);
    atomicOr(&cells[5], v & 0xf0f0);
    atomicXor(&cells[6], v);
    atomicMin(reinterpret_cast<unsigned*>(&cells[7]), u);
    atomicMax(reinterpret_cast<unsigned*>(&cells[8]), u);
    atomicInc(reinterpret_cast<unsigned*>(&cells[9]), 16);
    atomicDec(reinterpret_cast<unsigned*>(&cells[10]), 22);
    // Each value is handed on exactly once, so the sum of what was taken out and what is left is known.
    atomicAdd(&cells[12], atomicExch(&cells[11], v));
    int old = cells[13], seen;
    do {
        seen = old;
        old = atomicCAS(&cells[13], seen, seen + 3);
    } while (old != seen);
    atomicAdd(&longs[0], static_cast<unsigned long long>(v) << 20);
    atomicMax(reinterpret_cast<long long*>(&longs[1]), static_cast<long long>(v) << 20);
    atomicMin(&longs[2], static_cast<unsigned long long>(u) << 20);
    atomicXor(&longs[3], static_cast<unsigned long long>(v) << 20);
    atomicOr(&longs[4], 1ull << (u % 64));
    unsigned long long seen_long, old_long = longs[5];
    do {
        seen_long = old_long;
        old_long = atomicCAS(&longs[5], seen_long, seen_long + 5);
    } while (old_long != seen_long);
    atomicAdd(&longs[7], atomicExch(&longs[6], static_cast<unsigned long long>(u)));
}

// Reductions that return nothing, as PTX spells them; a compiler would leave it to ptxas to find them.
extern "C" __global__ void reductions(const int* x, int* cells, float* sum, int n) {
    __shared__ int most;
    if (threadIdx.x == 0) most = -1000;
    __syncthreads();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        asm volatile("red.global.add.u32 [%0], %1;" ::"l"(cells), "r"(x[i]) : "memory");
        asm volatile("red.relaxed.gpu.global.max.s32 [%0], %1;" ::"l"(cells + 1), "r"(x[i]) : "memory");
        asm volatile("red.global.or.b32 [%0+8], %1;" ::"l"(cells), "r"(x[i] & 0x3c) : "memory");
        asm volatile("red.global.add.f32 [%0], %1;" ::"l"(sum), "f"(0.5f * x[i]) : "memory");
        asm volatile("red.shared.max.s32 [%0], %1;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(&most))), "r"(x[i])
                     : "memory");
    }
    __syncthreads();
    if (threadIdx.x == 0) asm volatile("red.max.s32 [%0], %1;" ::"l"(cells + 3), "r"(most) : "memory");
}

// Sums of small whole numbers, which are exact in any order.
extern "C" __global__ void floats(const int* x, float* f, double* d, __half2* h, float* from_shared, int n) {
    __shared__ float sum;
    __shared__ double sum_double;
    if (threadIdx.x == 0) sum = 0.0f, sum_double = 0.0;
    __syncthreads();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        atomicAdd(f, static_cast<float>(x[i]));
        atomicAdd(d, static_cast<double>(x[i]));
        atomicAdd(h, __floats2half2_rn(1.0f, static_cast<float>(x[i] % 2)));
        atomicAdd(&sum, static_cast<float>(x[i]));
        atomicAdd(&sum_double, 0.5);
    }
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(from_shared, sum + static_cast<float>(sum_double));
}

// Keeps the positive values: one atomic a warp, lanes take places by their rank among the voters.
extern "C" __global__ void compact(const int* x, int* out, int* count, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || x[i] <= 0) return;
    const unsigned active = __activemask(), lane = threadIdx.x % 32;
    const int leader = __ffs(active) - 1;
    int base;
    if (lane == leader) base = atomicAdd(count, __popc(active));
    base = __shfl_sync(active, base, leader);
    out[base + __popc(active & ((1u << lane) - 1))] = x[i];
}

// Blocks take turns by a lock; what it guards is read and written without atomics.
extern "C" __global__ void locked(int* lock, volatile int* sum, volatile int* trips) {
    if (threadIdx.x != 0) return;
    while (atomicCAS(lock, 0, 1) != 0) {}
    __threadfence();
    *sum = *sum + blockIdx.x;
    *trips = *trips + 1;
    __threadfence();
    atomicExch(lock, 0);
}

// Odd blocks write pairs and quadruples of equal numbers, even ones count those that they see torn.
extern "C" __global__ void whole_words(unsigned* pair, unsigned long long* wide, int* torn, int rounds) {
    for (int i = 0; i < rounds; ++i) {
        const unsigned number = blockIdx.x * rounds + i;
        const unsigned long long twice = number * 0x100000001ull;
        if (blockIdx.x % 2 == 1) {
            asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %1};" ::"l"(pair), "r"(number) : "memory");
            asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %1};" ::"l"(wide), "l"(twice) : "memory");
        } else {
            unsigned a, b;
            unsigned long long c, d;
            asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(a), "=r"(b) : "l"(pair) : "memory");
            asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(c), "=l"(d) : "l"(wide) : "memory");
            if (a != b) atomicAdd(torn, 1);
            if (c != d || static_cast<unsigned>(c) != static_cast<unsigned>(c >> 32)) atomicAdd(torn + 1, 1);
        }
    }
}
