// Planted races, too early reads of asynchronous copies, and reads of what nothing has written. Compiled with FAULT=1,
// and with FAULT=0 as the correct twin; `// FAULT name` marks a line that may be reported for the kernel of that name
// (of a race, whichever access comes second).

constexpr bool kFault = FAULT;

#define KERNEL extern "C" __global__ void

// Where the memory is fresh, whoever comes too early reads what nothing has written.
KERNEL read_before_write(const float* x, float* out) {
    __shared__ float tile[128];
    tile[threadIdx.x] = x[threadIdx.x];  // FAULT read_before_write
    if (!kFault) __syncthreads();
    out[threadIdx.x] = tile[127 - threadIdx.x];  // FAULT read_before_write
}

KERNEL read_after_write(const float* x, float* out) {
    __shared__ float tile[128];
    tile[threadIdx.x] = 0.0f;
    __syncthreads();
    tile[threadIdx.x] = x[threadIdx.x];  // FAULT read_after_write
    if (!kFault) __syncthreads();
    out[threadIdx.x] = tile[127 - threadIdx.x];  // FAULT read_after_write
}

KERNEL write_after_read(const float* x, float* out, int rounds) {
    __shared__ float tile[128];
    float sum = 0.0f;
    for (int r = 0; r < rounds; ++r) {
        tile[threadIdx.x] = x[r * 128 + threadIdx.x];  // FAULT write_after_read
        __syncthreads();
        sum += tile[127 - threadIdx.x];  // FAULT write_after_read
        if (!kFault) __syncthreads();
    }
    out[threadIdx.x] = sum;
}

KERNEL double_buffer(const float* x, float* out, int rounds) {
    __shared__ float buffer[2][128];
    float sum = 0.0f;
    buffer[1][threadIdx.x] = 0.0f;
    buffer[0][threadIdx.x] = x[threadIdx.x];
    if (kFault) __syncthreads();
    for (int r = 0; r < rounds; ++r) {
        if (!kFault) __syncthreads();
        if (r + 1 < rounds)
            buffer[(r + 1) % 2][threadIdx.x] = x[(r + 1) * 128 + threadIdx.x];  // FAULT double_buffer
        sum += buffer[r % 2][127 - threadIdx.x];  // FAULT double_buffer
        // One barrier for two rounds is too few.
        if (kFault && r % 2 == 1) __syncthreads();
    }
    out[threadIdx.x] = sum;
}

KERNEL neighbour_lane(const float* x, float* out) {
    __shared__ float row[32];
    row[threadIdx.x] = x[threadIdx.x];  // FAULT neighbour_lane
    if (!kFault) __syncwarp();
    out[threadIdx.x] = row[threadIdx.x ^ 1];  // FAULT neighbour_lane
}

// A reduction as it was written before lanes had program counters of their own. The compiler is kept in order; the
// lanes are not.
KERNEL warp_tree(const float* x, float* out) {
    __shared__ float row[64];
    const int t = threadIdx.x;
    row[t] = x[t];
    row[t + 32] = x[t + 32];
    __syncwarp();
    for (int d = 32; d > 0; d /= 2) {
        const float other = row[t + d];  // FAULT warp_tree
        if (kFault) asm volatile("" ::: "memory");
        else __syncwarp();
        row[t] += other;  // FAULT warp_tree
        if (kFault) asm volatile("" ::: "memory");
        else __syncwarp();
    }
    if (t == 0) *out = row[0];
}

KERNEL lanes_disagree(const int* x, int* out) {
    __shared__ int word;
    if (kFault || threadIdx.x == 0) word = x[threadIdx.x];  // FAULT lanes_disagree
    __syncthreads();
    out[threadIdx.x] = word;
}

KERNEL warps_disagree(const int* x, int* out) {
    __shared__ int word;
    if (kFault ? threadIdx.x % 32 == 0 : threadIdx.x == 0) word = x[threadIdx.x];  // FAULT warps_disagree
    __syncthreads();
    out[threadIdx.x] = word;
}

KERNEL count_without_atomic(const int* x, int* out) {
    __shared__ int bins[8];
    if (threadIdx.x < 8) bins[threadIdx.x] = 0;
    __syncthreads();
    if (kFault) bins[x[threadIdx.x]] += 1;  // FAULT count_without_atomic
    else atomicAdd(&bins[x[threadIdx.x]], 1);
    __syncthreads();
    if (threadIdx.x < 8) out[threadIdx.x] = bins[threadIdx.x];
}

KERNEL other_barrier(const int* x, int* out) {
    __shared__ int values[64];
    const int t = threadIdx.x;
    values[t] = 0;
    __syncthreads();
    values[t] = x[t];  // FAULT other_barrier
    // Each warp waits for itself alone, or for the other.
    if (kFault) asm volatile("bar.sync %0, 32;" ::"r"(1 + t / 32) : "memory");
    else asm volatile("bar.sync 1, 64;" ::: "memory");
    out[t] = values[63 - t];  // FAULT other_barrier
}

__device__ void copy_async(float* to, const float* from) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(from) : "memory");  // FAULT async_no_barrier
}

__device__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// The thread reads its own bytes, so that nothing but the wait is in question.
KERNEL async_no_wait(const float* x, float* out) {
    __shared__ float tile[64];
    copy_async(&tile[threadIdx.x], x + threadIdx.x);
    commit();
    if (!kFault) asm volatile("cp.async.wait_group 0;" ::: "memory");
    out[threadIdx.x] = tile[threadIdx.x];  // FAULT async_no_wait
}

KERNEL async_wait_weak(const float* x, float* out, int rounds) {
    __shared__ float tile[2][64];
    float sum = 0.0f;
    copy_async(&tile[0][threadIdx.x], x + threadIdx.x);
    commit();
    for (int r = 0; r < rounds; ++r) {
        if (r + 1 < rounds) copy_async(&tile[(r + 1) % 2][threadIdx.x], x + (r + 1) * 64 + threadIdx.x);
        if (r + 1 < rounds || !kFault) commit();
        // After the last copy no group is committed, so that one may not stay pending.
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        sum += tile[r % 2][threadIdx.x];  // FAULT async_wait_weak
    }
    out[threadIdx.x] = sum;
}

KERNEL async_no_commit(const float* x, float* out) {
    __shared__ float tile[64];
    copy_async(&tile[threadIdx.x], x + threadIdx.x);
    if (!kFault) commit();
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    out[threadIdx.x] = tile[threadIdx.x];  // FAULT async_no_commit
}

// Everyone waits for its own copies; only a barrier says that the others have, too.
KERNEL async_no_barrier(const float* x, float* out) {
    __shared__ float tile[64];
    tile[threadIdx.x] = 0.0f;
    __syncthreads();
    copy_async(&tile[threadIdx.x], x + threadIdx.x);  // FAULT async_no_barrier
    commit();
    asm volatile("cp.async.wait_group 0;" ::: "memory");  // FAULT async_no_barrier
    if (!kFault) __syncthreads();
    out[threadIdx.x] = tile[63 - threadIdx.x];  // FAULT async_no_barrier
}

KERNEL shared_half_written(const float* x, float* out) {
    __shared__ float tile[64];
    if (!kFault || threadIdx.x < 48) tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = tile[63 - threadIdx.x];  // FAULT shared_half_written
}

// The tail of a tile must be zeroed where there is nothing to load.
KERNEL tile_tail(const float* x, float* out, int n) {
    __shared__ float tile[32];
    float sum = 0.0f;
    for (int i0 = 0; i0 < n; i0 += 32) {
        const int i = i0 + threadIdx.x;
        if (i < n) tile[threadIdx.x] = x[i];
        else if (!kFault) tile[threadIdx.x] = 0.0f;
        __syncthreads();
        for (int j = 0; j < 32; ++j) sum += tile[j];  // FAULT tile_tail
        __syncthreads();
    }
    out[threadIdx.x] = sum;
}

KERNEL global_half_written(const float* x, float* out) {
    out[threadIdx.x] = 2.0f * x[threadIdx.x];  // FAULT global_half_written
}

KERNEL sum_not_zeroed(const float* x, float* sum) {
    atomicAdd(sum, x[threadIdx.x]);  // FAULT sum_not_zeroed
}
