// Dynamic shared memory, beyond the 48 KiB that need no opting in, beside a static part.

extern __shared__ __align__(16) unsigned char pool[];

// y = x reversed; all of x lies in shared memory at once.
extern "C" __global__ void reverse(const float* __restrict__ x, float* __restrict__ y, int n) {
    float* values = reinterpret_cast<float*>(pool);
    for (int i = threadIdx.x; i < n; i += blockDim.x) values[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = values[n - 1 - i];
}

// Splits x into the negative and the others, in order, with two arrays in the pool and a static counter.
extern "C" __global__ void partition(const int* __restrict__ x, int* __restrict__ y, int n) {
    __shared__ int negatives;
    int* values = reinterpret_cast<int*>(pool);
    short* flags = reinterpret_cast<short*>(values + n);
    if (threadIdx.x == 0) negatives = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        values[i] = x[i];
        flags[i] = x[i] < 0;
        if (x[i] < 0) atomicAdd(&negatives, 1);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        int before = 0;
        for (int j = 0; j < i; ++j) before += flags[j];
        y[flags[i] ? before : negatives + i - before] = values[i];
    }
}
