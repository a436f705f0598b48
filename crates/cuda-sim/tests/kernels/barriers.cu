// Named barriers: one warp produces, the others consume, two buffers, bar.sync and bar.arrive.

constexpr int kWarps = 4, kThreads = kWarps * 32, kWidth = 96;

__device__ void sync(int barrier) { asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory"); }
__device__ void arrive(int barrier) { asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(kThreads) : "memory"); }

// out[r] = sum of x[r, :] weighted by consumer. Barriers 1 and 2: buffer full; 3 and 4: buffer empty.
extern "C" __global__ void __launch_bounds__(kThreads) pipeline(const int* x, int* out, int rows) {
    __shared__ int buffer[2][kWidth];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp == 0) {
        for (int r = 0; r < rows; ++r) {
            if (r >= 2) sync(3 + r % 2);
            for (int j = lane; j < kWidth; j += 32) buffer[r % 2][j] = x[r * kWidth + j];
            arrive(1 + r % 2);
        }
    } else {
        const int consumer = threadIdx.x - 32;
        for (int r = 0; r < rows; ++r) {
            sync(1 + r % 2);
            out[r * kWidth + consumer] = buffer[r % 2][consumer] + buffer[r % 2][kWidth - 1 - consumer];
            if (r + 2 < rows) arrive(3 + r % 2);
        }
    }
}

// Two halves of the block that meet separately, then together.
extern "C" __global__ void halves(const int* x, int* out) {
    __shared__ int values[128];
    const int t = threadIdx.x, half = t / 64;
    values[t] = x[t];
    asm volatile("bar.sync %0, 64;" ::"r"(half + 1) : "memory");
    const int other = values[half * 64 + 63 - t % 64];
    __syncthreads();
    values[t] = other;
    __syncthreads();
    out[t] = values[127 - t];
}

// Barriers that also vote.
extern "C" __global__ void voting(const int* x, int* out) {
    const int v = x[threadIdx.x];
    const int count = __syncthreads_count(v > 0), some = __syncthreads_or(v > 98), every = __syncthreads_and(v > -98);
    out[threadIdx.x] = count * 100 + some * 10 + every;
}
