// f16 and bf16 arithmetic, single and in pairs, with the intrinsics of the CUDA headers.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" __global__ void arithmetic_f16(const __half2* x, const __half2* y, __half2* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const __half2 a = x[i], b = y[i];
    __half2* o = out + i * 12;
    o[0] = __hadd2(a, b);
    o[1] = __hsub2(a, b);
    o[2] = __hmul2(a, b);
    o[3] = __hfma2(a, b, a);
    o[4] = __hmin2(a, b);
    o[5] = __hmax2(a, b);
    o[6] = __hneg2(a);
    o[7] = __habs2(b);
    o[8] = __halves2half2(__hadd(__low2half(a), __high2half(b)), __hmul(__high2half(a), __low2half(b)));
    o[9] = __float22half2_rn(make_float2(__low2float(a) * 3.0f, __high2float(b) / 3.0f));
    o[10] = __hadd2_sat(a, b);
    o[11] = __hgt2(a, b);
}

extern "C" __global__ void arithmetic_bf16(const __nv_bfloat162* x, const __nv_bfloat162* y, __nv_bfloat162* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const __nv_bfloat162 a = x[i], b = y[i];
    __nv_bfloat162* o = out + i * 8;
    o[0] = __hadd2(a, b);
    o[1] = __hsub2(a, b);
    o[2] = __hmul2(a, b);
    o[3] = __hfma2(a, b, a);
    o[4] = __hmin2(a, b);
    o[5] = __hmax2(a, b);
    o[6] = __hneg2(a);
    o[7] = __floats2bfloat162_rn(__low2float(a) * 3.0f, __high2float(b) / 3.0f);
}

// y = x summed in f32 over rows of `columns` pairs, read as pairs.
extern "C" __global__ void row_sums(const __half2* x, float* y, int rows, int columns) {
    const int row = blockIdx.x;
    float2 sum = make_float2(0.0f, 0.0f);
    for (int j = threadIdx.x; j < columns; j += 32) {
        const float2 v = __half22float2(x[row * columns + j]);
        sum.x += v.x;
        sum.y += v.y;
    }
    float total = sum.x + sum.y;
    for (int d = 16; d > 0; d /= 2) total += __shfl_xor_sync(~0u, total, d);
    if (threadIdx.x == 0) y[row] = total;
}
