// One warp, one product D = A B + C for each shape and type of mma.sync; A is row-major, B column-major (B[n][k]).
// Fragments are read from global memory element by element, after the figures of the PTX ISA.

typedef unsigned short half_bits;

__device__ unsigned pair(const half_bits* p) { return p[0] | static_cast<unsigned>(p[1]) << 16; }

// The two or four 8 x 8 quarters of A: rows lane / 4 (+ 8), columns lane % 4 * 2 (+ 8).
__device__ void fragment_a(unsigned* r, const half_bits* a, int k) {
    const int row = threadIdx.x / 4, column = threadIdx.x % 4 * 2;
    for (int i = 0; i < k / 4; ++i) r[i] = pair(a + (row + i % 2 * 8) * k + column + i / 2 * 8);
}

__device__ void fragment_b(unsigned* r, const half_bits* b, int k) {
    const int column = threadIdx.x / 4, row = threadIdx.x % 4 * 2;
    for (int i = 0; i < k / 8; ++i) r[i] = pair(b + column * k + row + i * 8);
}

__device__ int index_c(int e) { return (threadIdx.x / 4 + e / 2 * 8) * 8 + threadIdx.x % 4 * 2 + e % 2; }

__device__ void load_c(float* r, const float* c) {
    for (int e = 0; e < 4; ++e) r[e] = c[index_c(e)];
}

__device__ void store_d(float* d, const float* r) {
    for (int e = 0; e < 4; ++e) d[index_c(e)] = r[e];
}

#define HALF_K16(name, type)                                                                                           \
    extern "C" __global__ void name(const half_bits* a, const half_bits* b, const float* c, float* d) {                \
        unsigned x[4], y[2];                                                                                           \
        float z[4];                                                                                                    \
        fragment_a(x, a, 16);                                                                                          \
        fragment_b(y, b, 16);                                                                                          \
        load_c(z, c);                                                                                                  \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                            \
                     ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                            \
                     : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])                                                  \
                     : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));                              \
        store_d(d, z);                                                                                                 \
    }

#define HALF_K8(name, type)                                                                                            \
    extern "C" __global__ void name(const half_bits* a, const half_bits* b, const float* c, float* d) {                \
        unsigned x[2], y[1];                                                                                           \
        float z[4];                                                                                                    \
        fragment_a(x, a, 8);                                                                                           \
        fragment_b(y, b, 8);                                                                                           \
        load_c(z, c);                                                                                                  \
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." type "." type                                             \
                     ".f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"                                        \
                     : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])                                                  \
                     : "r"(x[0]), "r"(x[1]), "r"(y[0]));                                                               \
        store_d(d, z);                                                                                                 \
    }

HALF_K16(mma_f16_k16, "f16")
HALF_K16(mma_bf16_k16, "bf16")
HALF_K8(mma_f16_k8, "f16")
HALF_K8(mma_bf16_k8, "bf16")

// The inputs are f32 whose low 13 bits are zero, or are rounded to such by cvt.rna.
__device__ unsigned tf32(float x) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}

extern "C" __global__ void mma_tf32_k8(const float* a, const float* b, const float* c, float* d) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    float z[4];
    load_c(z, c);
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])
                 : "r"(tf32(a[g * 8 + t])), "r"(tf32(a[(g + 8) * 8 + t])), "r"(tf32(a[g * 8 + t + 4])),
                   "r"(tf32(a[(g + 8) * 8 + t + 4])), "r"(tf32(b[g * 8 + t])), "r"(tf32(b[g * 8 + t + 4])));
    store_d(d, z);
}

extern "C" __global__ void mma_tf32_k4(const float* a, const float* b, const float* c, float* d) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    float z[4];
    load_c(z, c);
    asm volatile("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])
                 : "r"(tf32(a[g * 4 + t])), "r"(tf32(a[(g + 8) * 4 + t])), "r"(tf32(b[g * 4 + t])));
    store_d(d, z);
}

// f16 sums: C and D are packed pairs.
extern "C" __global__ void mma_f16_sums(const half_bits* a, const half_bits* b, const half_bits* c, half_bits* d) {
    unsigned x[4], y[2], z[2];
    fragment_a(x, a, 16);
    fragment_b(y, b, 16);
    for (int i = 0; i < 2; ++i) z[i] = pair(c + index_c(i * 2));
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
                 : "+r"(z[0]), "+r"(z[1])
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
    for (int i = 0; i < 2; ++i) {
        d[index_c(i * 2)] = z[i];
        d[index_c(i * 2 + 1)] = z[i] >> 16;
    }
}
