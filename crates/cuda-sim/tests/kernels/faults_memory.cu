// Planted faults of addressing. Compiled with FAULT=1, and with FAULT=0 as the correct twin; `// FAULT name` marks the
// line that must be reported for the kernel of that name.

constexpr bool kFault = FAULT;

#define KERNEL extern "C" __global__ void

KERNEL index_one_off(float* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (kFault ? i <= n : i < n) out[i] = i;  // FAULT index_one_off
}

KERNEL index_before(const float* x, float* out, int n) {
    const int i = threadIdx.x;
    if (i >= n) return;
    const float left = kFault || i > 0 ? x[i - 1] : 0.0f;  // FAULT index_before
    out[i] = left;
}

// The results have room for whole blocks, what is read has not.
KERNEL tail_unguarded(const float* x, float* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (!kFault && i >= n) return;
    out[i] = 2.0f * x[i];  // FAULT tail_unguarded
}

KERNEL wrong_predicate(const float* x, float* out, int rows, int columns) {
    const int i = blockIdx.y * blockDim.y + threadIdx.y, j = blockIdx.x * blockDim.x + threadIdx.x;
    if (kFault ? i < columns && j < columns : i < rows && j < columns)
        out[i * columns + j] = 2.0f * x[i * columns + j];  // FAULT wrong_predicate
}

KERNEL index_overflow(float* out, int stride) {
    const int i = threadIdx.x;
    if (kFault) out[i * stride / 65536] = i;  // FAULT index_overflow
    else out[static_cast<long long>(i) * stride / 65536] = i;
}

KERNEL vector_tail(const float4* x, float* out, int n) {
    const int i = threadIdx.x;
    if (kFault ? i * 4 < n : i * 4 + 3 < n) {
        const float4 v = x[i];  // FAULT vector_tail
        out[i] = v.x + v.y + v.z + v.w;
    }
}

KERNEL atomic_outside(int* counts, const int* x) {
    const int bin = x[threadIdx.x] / 10;
    atomicAdd(&counts[kFault ? bin + 1 : bin], 1);  // FAULT atomic_outside
}

KERNEL async_copy_outside(const float* x, float* out, int n) {
    __shared__ __align__(16) float tile[128];
    const int i = threadIdx.x * 4;
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(tile + i));
    const int bytes = kFault ? 16 : max(0, min(16, (n - i) * 4));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"  // FAULT async_copy_outside
                 ::"r"(to), "l"(bytes > 0 ? x + i : x), "r"(bytes) : "memory");
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

KERNEL shared_one_off(const float* x, float* out) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    const int next = kFault ? threadIdx.x + 1 : (threadIdx.x + 1) % 64;
    out[threadIdx.x] = tile[next];  // FAULT shared_one_off
}

extern __shared__ float pool[];

KERNEL shared_dynamic_one_off(const float* x, float* out, int n) {
    for (int i = threadIdx.x; kFault ? i <= n : i < n; i += blockDim.x)
        pool[i] = x[i % n];  // FAULT shared_dynamic_one_off
    __syncthreads();
    if (threadIdx.x < n) out[threadIdx.x] = pool[n - 1 - threadIdx.x];
}

KERNEL local_one_off(const int* x, int* out) {
    int values[8];
    for (int i = 0; i < 8; ++i) values[i] = x[i] * threadIdx.x;
    const int last = kFault ? x[8] : x[8] - 1;
    out[threadIdx.x] = values[last];  // FAULT local_one_off
}

KERNEL use_after_free(const float* x, float* out) {
    out[threadIdx.x] = x[threadIdx.x];  // FAULT use_after_free
}

KERNEL misaligned_global(const float* x, float* out) {
    const float4 v = *reinterpret_cast<const float4*>(x + threadIdx.x * 4 + (kFault ? 1 : 4));  // FAULT misaligned_global
    out[threadIdx.x] = v.x + v.w;
}

KERNEL misaligned_shared(const float* x, float* out) {
    __shared__ __align__(16) float tile[68];
    tile[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x < 4) tile[64 + threadIdx.x] = 0.0f;
    __syncthreads();
    const float2 v = *reinterpret_cast<const float2*>(&tile[threadIdx.x / 2 * 2 + (kFault ? 1 : 2)]);  // FAULT misaligned_shared
    out[threadIdx.x] = v.x + v.y;
}

KERNEL stray_pointer(const float* x, float* out) {
    out[threadIdx.x] = x[threadIdx.x];  // FAULT stray_pointer
}

__constant__ float scales[32];

KERNEL write_to_constant(float* p) {
    const float scale = scales[threadIdx.x];
    p[threadIdx.x] = scale + 1.0f;  // FAULT write_to_constant
}
