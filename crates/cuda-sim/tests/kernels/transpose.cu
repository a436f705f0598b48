// y[j, i] = x[i, j]; the tile has a column of padding, so that its columns lie in different banks (PADDING=0: in one).

#ifndef PADDING
#define PADDING 1
#endif
constexpr int kTile = 32, kRows = 8;

extern "C" __global__ void transpose(const float* __restrict__ x, float* __restrict__ y, int rows, int columns) {
    __shared__ float tile[kTile][kTile + PADDING];
    int j = blockIdx.x * kTile + threadIdx.x;
    for (int r = threadIdx.y; r < kTile; r += kRows) {
        const int i = blockIdx.y * kTile + r;
        if (i < rows && j < columns) tile[r][threadIdx.x] = x[i * columns + j];
    }
    __syncthreads();
    const int i = blockIdx.y * kTile + threadIdx.x;
    for (int r = threadIdx.y; r < kTile; r += kRows) {
        j = blockIdx.x * kTile + r;
        if (i < rows && j < columns) y[j * rows + i] = tile[threadIdx.x][r];
    }
}
