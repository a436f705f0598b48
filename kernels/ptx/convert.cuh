// Conversions to f32, one instruction each; own wrappers, so that no CUDA header is needed.
#pragma once

// Bits of an IEEE binary16.
struct Half {
    unsigned short bits;
};

// Bits of the upper half of a binary32.
struct Bfloat {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }

__device__ __forceinline__ float to_float(Half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

__device__ __forceinline__ float to_float(Bfloat x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
