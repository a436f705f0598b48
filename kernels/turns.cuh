#pragma once

// (sin, cos) of u full turns, with the bits of src/rng.rs.
__device__ __forceinline__ float2 sin_cos_turns(float u) {
    const float quarters = __fmul_rn(u, 4.0f);
    const float quarter = roundf(quarters);
    const float r = __fmul_rn(__fsub_rn(quarters, quarter), 1.57079633f);
    const float r2 = __fmul_rn(r, r);
    float sin = __fsub_rn(8.332161e-3f, __fmul_rn(r2, 1.9515296e-4f));
    sin = __fadd_rn(-1.6666665e-1f, __fmul_rn(r2, sin));
    sin = __fadd_rn(r, __fmul_rn(__fmul_rn(r, r2), sin));
    float cos = __fadd_rn(-1.3887316e-3f, __fmul_rn(r2, 2.4433157e-5f));
    cos = __fadd_rn(4.1666646e-2f, __fmul_rn(r2, cos));
    cos = __fadd_rn(__fsub_rn(1.0f, __fmul_rn(0.5f, r2)), __fmul_rn(__fmul_rn(r2, r2), cos));
    switch (static_cast<int>(quarter) & 3) {
        case 0:
            return {sin, cos};
        case 1:
            return {cos, -sin};
        case 2:
            return {-sin, -cos};
        default:
            return {-cos, sin};
    }
}
