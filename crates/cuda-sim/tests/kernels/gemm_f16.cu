// C[m, n] = sum_k A[m, k] B[k, n]: f16 row-major inputs, f32 sums and results. 64 x 64 x 32 tiles, four warps of 32 x 32;
// two stages of cp.async, ldmatrix for A, ldmatrix.trans for B, mma m16n8k16. n and k are multiples of 8.

typedef unsigned short half_bits;

constexpr int kTile = 64, kDepth = 32;
// Rows are padded by 16 bytes: eight rows of an ldmatrix then lie in different banks.
constexpr int kRowA = kDepth + 8, kRowB = kTile + 8;

__device__ unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// Copies 16 bytes, or zeroes them where `inside` is false.
__device__ void copy_async(half_bits* to, const half_bits* from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(inside ? 16 : 0)
                 : "memory");
}

__device__ void load_stage(half_bits (*tile_a)[kRowA], half_bits (*tile_b)[kRowB], const half_bits* a,
                           const half_bits* b, int row0, int column0, int k0, int m, int n, int k) {
    for (int i = threadIdx.x; i < kTile * kDepth / 8; i += blockDim.x) {
        const int row = i / (kDepth / 8), at = i % (kDepth / 8) * 8;
        const bool inside = row0 + row < m && k0 + at < k;
        copy_async(&tile_a[row][at], inside ? a + (row0 + row) * k + k0 + at : a, inside);
    }
    for (int i = threadIdx.x; i < kDepth * kTile / 8; i += blockDim.x) {
        const int row = i / (kTile / 8), at = i % (kTile / 8) * 8;
        const bool inside = k0 + row < k && column0 + at < n;
        copy_async(&tile_b[row][at], inside ? b + (k0 + row) * n + column0 + at : b, inside);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

__device__ void load_matrices(unsigned (&r)[4], const half_bits* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
}

__device__ void load_transposed(unsigned (&r)[4], const half_bits* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
}

__device__ void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

extern "C" __global__ void __launch_bounds__(128)
gemm_f16(const half_bits* __restrict__ a, const half_bits* __restrict__ b, float* __restrict__ c, int m, int n, int k) {
    __shared__ __align__(16) half_bits tile_a[2][kTile][kRowA];
    __shared__ __align__(16) half_bits tile_b[2][kDepth][kRowB];
    const int row0 = blockIdx.y * kTile, column0 = blockIdx.x * kTile;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, y = warp / 2 * 32, x = warp % 2 * 32;
    const int steps = (k + kDepth - 1) / kDepth;
    float sum[2][4][4] = {};
    load_stage(tile_a[0], tile_b[0], a, b, row0, column0, 0, m, n, k);
    for (int step = 0; step < steps; ++step) {
        const int stage = step % 2;
        if (step + 1 < steps) {
            load_stage(tile_a[1 - stage], tile_b[1 - stage], a, b, row0, column0, (step + 1) * kDepth, m, n, k);
            asm volatile("cp.async.wait_group 1;" ::: "memory");
        } else {
            asm volatile("cp.async.wait_group 0;" ::: "memory");
        }
        __syncthreads();
#pragma unroll
        for (int k0 = 0; k0 < kDepth; k0 += 16) {
            unsigned left[2][4], right[2][4];
            for (int i = 0; i < 2; ++i)
                load_matrices(left[i], &tile_a[stage][y + i * 16 + lane % 16][k0 + lane / 16 * 8]);
            for (int j = 0; j < 2; ++j)
                load_transposed(right[j], &tile_b[stage][k0 + lane % 16][x + j * 16 + lane / 16 * 8]);
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 4; ++j)
                    multiply_add(sum[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 4; ++j)
            for (int e = 0; e < 4; ++e) {
                const int row = row0 + y + i * 16 + lane / 4 + e / 2 * 8;
                const int column = column0 + x + j * 8 + lane % 4 * 2 + e % 2;
                if (row < m && column < n) c[row * n + column] = sum[i][j][e];
            }
}
