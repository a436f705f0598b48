// Kernels for the tests on cudarc: one for each thing that the driver has to hand over.

#include <cuda_fp16.h>

#include <cassert>
#include <cooperative_groups.h>

struct Mixed {
    char tag;
    double weight;
    short offsets[3];
};

__constant__ float table[4] = {1.0f, 2.0f, 3.0f, 4.0f};
__device__ unsigned int counter = 7;

extern "C" {

__global__ void scale(float* x, float factor, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= factor;
}

__global__ void every_type(double* out, unsigned char u8, signed char i8, unsigned short u16, short i16,
                           unsigned int u32, int i32, unsigned long long u64, long long i64, float f32, double f64,
                           __half f16, Mixed mixed, const float* x) {
    out[0] = u8;
    out[1] = i8;
    out[2] = u16;
    out[3] = i16;
    out[4] = u32;
    out[5] = i32;
    out[6] = (double)u64;
    out[7] = (double)i64;
    out[8] = f32;
    out[9] = f64;
    out[10] = __half2float(f16);
    out[11] = mixed.tag;
    out[12] = mixed.weight;
    out[13] = mixed.offsets[0] + 10 * mixed.offsets[1] + 100 * mixed.offsets[2];
    out[14] = x[3];
}

__global__ void lookup(float* out) {
    out[threadIdx.x] = table[threadIdx.x];
    if (threadIdx.x == 0) atomicAdd(&counter, 1u);
}

// Reverses the block's values by way of dynamic shared memory, `stride` words apart.
__global__ void reverse(float* x, int stride) {
    extern __shared__ float shared[];
    shared[threadIdx.x * stride] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = shared[(blockDim.x - 1 - threadIdx.x) * stride];
}

__global__ void static_shared(float* x) {
    __shared__ float tile[1024];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[threadIdx.x ^ 1];
}

__global__ void __launch_bounds__(64) bounded(float* x) { x[threadIdx.x] = 1.0f; }

// Every block adds its index before any reads the sum.
__global__ void grid_sum(unsigned int* sum, unsigned int* out) {
    if (threadIdx.x == 0) atomicAdd(sum, blockIdx.x);
    cooperative_groups::this_grid().sync();
    if (threadIdx.x == 0) out[blockIdx.x] = *sum;
}

__global__ void beyond(float* x, int index) { x[index] = 1.0f; }

__global__ void askew(char* x) { *(float*)(x + 2) = 1.0f; }

__global__ void stop() { __trap(); }

__global__ void claim(int truth) { assert(truth); }

}
