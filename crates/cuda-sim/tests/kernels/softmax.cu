// y[i, :] = softmax(x[i, :]); a warp has a row. Accurate expf, and the fast one.

template <bool kFast>
__device__ void softmax_row(const float* __restrict__ x, float* __restrict__ y, int rows, int columns) {
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += static_cast<long long>(row) * columns;
    y += static_cast<long long>(row) * columns;
    float top = -INFINITY, sum = 0.0f;
    for (int j = threadIdx.x; j < columns; j += 32) top = fmaxf(top, x[j]);
    for (int d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    for (int j = threadIdx.x; j < columns; j += 32) sum += kFast ? __expf(x[j] - top) : expf(x[j] - top);
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    for (int j = threadIdx.x; j < columns; j += 32) {
        const float e = kFast ? __expf(x[j] - top) : expf(x[j] - top);
        y[j] = kFast ? __fdividef(e, sum) : e / sum;
    }
}

extern "C" __global__ void softmax(const float* x, float* y, int rows, int columns) {
    softmax_row<false>(x, y, rows, columns);
}

extern "C" __global__ void softmax_fast(const float* x, float* y, int rows, int columns) {
    softmax_row<true>(x, y, rows, columns);
}
