// Warp-level instructions.

extern "C" __global__ void votes(const int* x, unsigned* out) {
    const int t = threadIdx.x, v = x[t];
    unsigned* o = out + t * 12;
    o[0] = __ballot_sync(~0u, v > 0);
    o[1] = __any_sync(~0u, v > 90);
    o[2] = __all_sync(~0u, v > -90);
    o[3] = __match_any_sync(~0u, v % 4);
    int whole;
    o[4] = __match_all_sync(~0u, v / 1000, &whole);
    o[5] = whole;
    o[6] = __reduce_add_sync(~0u, v);
    o[7] = __reduce_min_sync(~0u, v);
    o[8] = __reduce_max_sync(~0u, static_cast<unsigned>(v));
    o[9] = __reduce_xor_sync(~0u, static_cast<unsigned>(v));
    o[10] = __reduce_and_sync(~0u, static_cast<unsigned>(v) | 1u) | __reduce_or_sync(~0u, static_cast<unsigned>(v)) << 1;
    o[11] = __match_any_sync(~0u, static_cast<long long>(v / 10) << 32);
}

// The same by part of a warp.
extern "C" __global__ void parts(const int* x, unsigned* out) {
    const int t = threadIdx.x, v = x[t];
    const unsigned mask = t % 2 == 0 ? 0x55555555u : 0xaaaaaaaau;
    if (t % 2 == 0) {
        out[t * 4] = __activemask();
        out[t * 4 + 1] = __ballot_sync(mask, v > 0);
        out[t * 4 + 2] = __reduce_add_sync(mask, v);
        out[t * 4 + 3] = __shfl_sync(mask, v, 4);
    } else {
        out[t * 4] = 0;
        out[t * 4 + 1] = __any_sync(mask, v > 0);
        out[t * 4 + 2] = __shfl_sync(mask, v, 7);
        out[t * 4 + 3] = __popc(mask & ((1u << t) - 1));
    }
}

// Shuffles of every kind, with widths, of 32 and 64 bits.
extern "C" __global__ void shuffles(const int* x, int* out) {
    const int t = threadIdx.x, v = x[t];
    int* o = out + t * 12;
    o[0] = __shfl_sync(~0u, v, 5);
    o[1] = __shfl_sync(~0u, v, t * 7);
    o[2] = __shfl_sync(~0u, v, 3, 8);
    o[3] = __shfl_up_sync(~0u, v, 1);
    o[4] = __shfl_up_sync(~0u, v, 3, 16);
    o[5] = __shfl_down_sync(~0u, v, 2);
    o[6] = __shfl_down_sync(~0u, v, 5, 8);
    o[7] = __shfl_xor_sync(~0u, v, 9);
    o[8] = __shfl_xor_sync(~0u, v, 6, 4);
    o[9] = static_cast<int>(__shfl_xor_sync(~0u, static_cast<long long>(v) << 30, 31) >> 28);
    int inside;
    asm("{ .reg .pred p; .reg .b32 r; shfl.sync.up.b32 r|p, %1, 4, 0, -1; selp.s32 %0, 1, 0, p; }"
        : "=r"(inside)
        : "r"(v));
    o[10] = inside;
    unsigned below;
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(below));
    o[11] = below;
}
