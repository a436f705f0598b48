// Conversions, one instruction each; own types, so that no CUDA header is needed.
#pragma once

// Bits of an IEEE binary16.
struct Half {
    unsigned short bits;
};

// Bits of the upper half of a binary32.
struct Bfloat {
    unsigned short bits;
};

// A binary32 with ten digits of significand, as tensor cores take it; they ignore the others.
struct Tf32 {
    float value;
};

__device__ __forceinline__ float to_float(float x) { return x; }

__device__ __forceinline__ float to_float(Tf32 x) { return x.value; }

__device__ __forceinline__ float to_float(Half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

__device__ __forceinline__ float to_float(Bfloat x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

// The nearest value of a type.
__device__ __forceinline__ void round_to(float* to, float x) { *to = x; }

__device__ __forceinline__ void round_to(Tf32* to, float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    to->value = __uint_as_float(bits);
}

__device__ __forceinline__ void round_to(Half* to, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(x)); }

__device__ __forceinline__ void round_to(Bfloat* to, float x) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
}

// Two at a time, the first in the lower half.
__device__ __forceinline__ unsigned round_both(float first, float second, Half) {
    unsigned bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
}

__device__ __forceinline__ unsigned round_both(float first, float second, Bfloat) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
}

template <typename T>
__device__ __forceinline__ float2 to_floats(unsigned bits, T) {
    return make_float2(to_float(T{static_cast<unsigned short>(bits)}),
                       to_float(T{static_cast<unsigned short>(bits >> 16)}));
}

// The elements in a word of shared memory.
__device__ __forceinline__ void widen(float (&to)[4], uint4 bits, float) {
    to[0] = __uint_as_float(bits.x);
    to[1] = __uint_as_float(bits.y);
    to[2] = __uint_as_float(bits.z);
    to[3] = __uint_as_float(bits.w);
}

__device__ __forceinline__ void widen(float (&to)[2], uint2 bits, float) {
    to[0] = __uint_as_float(bits.x);
    to[1] = __uint_as_float(bits.y);
}

template <typename T>
__device__ __forceinline__ void widen(float (&to)[4], uint2 bits, T) {
    const unsigned words[2] = {bits.x, bits.y};
    for (int k = 0; k < 4; ++k) to[k] = to_float(T{static_cast<unsigned short>(words[k / 2] >> (k % 2 * 16))});
}

template <typename T>
__device__ __forceinline__ void widen(float (&to)[8], uint4 bits, T) {
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
    for (int k = 0; k < 8; ++k) to[k] = to_float(T{static_cast<unsigned short>(words[k / 2] >> (k % 2 * 16))});
}
