// counts[v] = how often byte v occurs: counted in shared memory, added up in global memory.

extern "C" __global__ void histogram(const unsigned char* __restrict__ bytes, unsigned* __restrict__ counts, int n) {
    __shared__ unsigned local[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[bytes[i]], 1);
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
        if (local[i] != 0) atomicAdd(&counts[i], local[i]);
}
