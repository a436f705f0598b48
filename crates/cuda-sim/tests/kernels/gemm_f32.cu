// C[m, n] = sum_k A[m, k] B[k, n], row-major f32: a plain tile, and a register-blocked tile with float4 loads.

constexpr int kTile = 16;

extern "C" __global__ void gemm_tile(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c,
                                     int m, int n, int k) {
    __shared__ float tile_a[kTile][kTile];
    __shared__ float tile_b[kTile][kTile];
    const int row = blockIdx.y * kTile + threadIdx.y, column = blockIdx.x * kTile + threadIdx.x;
    float sum = 0.0f;
    for (int k0 = 0; k0 < k; k0 += kTile) {
        const int ka = k0 + threadIdx.x, kb = k0 + threadIdx.y;
        tile_a[threadIdx.y][threadIdx.x] = row < m && ka < k ? a[row * k + ka] : 0.0f;
        tile_b[threadIdx.y][threadIdx.x] = column < n && kb < k ? b[kb * n + column] : 0.0f;
        __syncthreads();
        for (int i = 0; i < kTile; ++i) sum = fmaf(tile_a[threadIdx.y][i], tile_b[i][threadIdx.x], sum);
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}

// 64 x 64 tiles, 4 x 4 results a thread, 256 threads; n and k are multiples of 4.
constexpr int kWide = 64, kDepth = 16, kPad = 4;

extern "C" __global__ void __launch_bounds__(256)
gemm_blocked(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m, int n, int k) {
    __shared__ __align__(16) float tile_a[kDepth][kWide + kPad];
    __shared__ __align__(16) float tile_b[kDepth][kWide];
    const int t = threadIdx.x, row0 = blockIdx.y * kWide, column0 = blockIdx.x * kWide;
    const int y = t / 16 * 4, x = t % 16 * 4;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float sum[4][4] = {};
    for (int k0 = 0; k0 < k; k0 += kDepth) {
        const int ra = row0 + t / 4, ka = k0 + t % 4 * 4, kb = k0 + t / 16, cb = column0 + x;
        const float4 va = ra < m && ka < k ? *reinterpret_cast<const float4*>(a + ra * k + ka) : zero;
        tile_a[t % 4 * 4 + 0][t / 4] = va.x;
        tile_a[t % 4 * 4 + 1][t / 4] = va.y;
        tile_a[t % 4 * 4 + 2][t / 4] = va.z;
        tile_a[t % 4 * 4 + 3][t / 4] = va.w;
        *reinterpret_cast<float4*>(&tile_b[t / 16][x]) =
            kb < k && cb < n ? *reinterpret_cast<const float4*>(b + kb * n + cb) : zero;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kDepth; ++i) {
            const float4 p = *reinterpret_cast<const float4*>(&tile_a[i][y]);
            const float4 q = *reinterpret_cast<const float4*>(&tile_b[i][x]);
            const float left[4] = {p.x, p.y, p.z, p.w}, right[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
            for (int r = 0; r < 4; ++r)
#pragma unroll
                for (int s = 0; s < 4; ++s) sum[r][s] = fmaf(left[r], right[s], sum[r][s]);
        }
        __syncthreads();
    }
    for (int r = 0; r < 4; ++r)
        if (row0 + y + r < m && column0 + x < n)
            *reinterpret_cast<float4*>(c + (row0 + y + r) * n + column0 + x) =
                make_float4(sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
}
