// Integer instructions; each thread has one pair of inputs.

extern "C" __global__ void words(const unsigned* x, const unsigned* y, unsigned* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned a = x[i], b = y[i];
    const int s = static_cast<int>(a), t = static_cast<int>(b);
    unsigned* o = out + i * 32;
    o[0] = a / b;
    o[1] = a % b;
    o[2] = t == -1 ? 0 : s / t;
    o[3] = t == -1 ? 0 : s % t;
    o[4] = __umulhi(a, b);
    o[5] = __mulhi(s, t);
    o[6] = __popc(a);
    o[7] = __clz(s);
    o[8] = __brev(a);
    o[9] = __ffs(s);
    o[10] = __byte_perm(a, b, 0x5410);
    o[11] = __byte_perm(a, b, b);
    o[12] = __funnelshift_l(a, b, 13);
    o[13] = __funnelshift_r(a, b, b);
    o[14] = __dp4a(s, t, 7);
    o[15] = __dp4a(a, b, 7u);
    o[16] = __dp2a_lo(s, t, -1);
    o[17] = __sad(s, t, 5u);
    o[18] = __hadd(s, t);
    o[19] = __rhadd(s, t);
    o[20] = min(s, t);
    o[21] = max(a, b);
    o[22] = abs(s);
    o[23] = __mul24(s, t);
    unsigned r;
    asm("bfe.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b % 40), "r"(b / 64 % 40));
    o[24] = r;
    asm("bfe.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b % 40), "r"(b / 64 % 40));
    o[25] = r;
    asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(a), "r"(b), "r"(b % 40), "r"(b / 64 % 40));
    o[26] = r;
    asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(r) : "r"(a), "r"(b), "r"(a >> 3));
    o[27] = r;
    asm("bfind.s32 %0, %1;" : "=r"(r) : "r"(a));
    o[28] = r;
    asm("szext.wrap.s32 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b % 33));
    o[29] = r;
    o[30] = s >> (b % 32);
    o[31] = static_cast<unsigned>(static_cast<short>(a)) + static_cast<unsigned char>(b) + static_cast<signed char>(a);
}

extern "C" __global__ void longs(const unsigned long long* x, const unsigned long long* y, unsigned long long* out,
                                 int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned long long a = x[i], b = y[i];
    const long long s = static_cast<long long>(a), t = static_cast<long long>(b);
    unsigned long long* o = out + i * 16;
    o[0] = a / b;
    o[1] = a % b;
    o[2] = t == -1 ? 0 : s / t;
    o[3] = t == -1 ? 0 : s % t;
    o[4] = __umul64hi(a, b);
    o[5] = __mul64hi(s, t);
    o[6] = __popcll(a);
    o[7] = __clzll(s);
    o[8] = __brevll(a);
    o[9] = __ffsll(s);
    o[10] = a * b + 3;
    o[11] = s >> (b % 64);
    o[12] = a << (b % 64);
    o[13] = min(s, t) ^ max(a, b);
    o[14] = static_cast<unsigned long long>(static_cast<int>(a)) * static_cast<long long>(static_cast<int>(b));
    // 128 bits: add with carry, multiply-add with carry.
    unsigned lo, hi;
    asm("add.cc.u32 %0, %2, %4; addc.u32 %1, %3, %5;"
        : "=&r"(lo), "=r"(hi)
        : "r"(static_cast<unsigned>(a)), "r"(static_cast<unsigned>(a >> 32)), "r"(static_cast<unsigned>(b)),
          "r"(static_cast<unsigned>(b >> 32)));
    o[15] = static_cast<unsigned long long>(hi) << 32 | lo;
}

// Conversions between float and integer types, with every rounding.
extern "C" __global__ void conversions(const float* x, int* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float a = x[i];
    int* o = out + i * 16;
    o[0] = __float2int_rn(a);
    o[1] = __float2int_rz(a);
    o[2] = __float2int_ru(a);
    o[3] = __float2int_rd(a);
    o[4] = __float2uint_rz(a);
    o[5] = __float2ll_rn(a) >> 16;
    o[6] = __float_as_int(__int2float_rn(__float_as_int(a)));
    o[7] = __float_as_int(__int2float_rd(__float_as_int(a)));
    o[8] = __float_as_int(__uint2float_ru(__float_as_uint(a)));
    o[9] = __float_as_int(__saturatef(a));
    o[10] = __double2int_rn(static_cast<double>(a) * 0.5);
    o[11] = __float_as_int(__double2float_rz(1.0 / 3.0 * a));
    o[12] = __float_as_int(rintf(a));
    o[13] = __float_as_int(__fadd_rz(a, 0.1f));
    o[14] = __float_as_int(__fmul_ru(a, 0.1f));
    o[15] = __float_as_int(__fmaf_rd(a, 0.1f, 1.0f));
}
