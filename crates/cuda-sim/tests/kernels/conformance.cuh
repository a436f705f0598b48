// What the conformance kernels share: types by short names, the shape of a kernel, items of a thread in turn.
#pragma once

using u8 = unsigned char;
using i16 = short;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned;
using u64 = unsigned long long;
using f32 = float;
using f64 = double;

// t -> scale t + shift, modulo 2^32. To compose these is associative but not commutative.
struct affine {
    u32 scale, shift;
};

struct compose {
    __device__ affine operator()(affine f, affine g) const { return {f.scale * g.scale, f.shift * g.scale + g.shift}; }
};

// A kernel of a template.
#define KERNEL(name, threads, X, Y, ...) \
    extern "C" __global__ void __launch_bounds__(threads) name(X* x, Y* y, int n) { __VA_ARGS__(x, y, n); }

template <typename T, int kItems>
__device__ void load(const T* x, T (&items)[kItems]) {
    for (int i = 0; i < kItems; ++i) items[i] = x[threadIdx.x * kItems + i];
}

template <typename T, int kItems>
__device__ void store(T* y, const T (&items)[kItems]) {
    for (int i = 0; i < kItems; ++i) y[threadIdx.x * kItems + i] = items[i];
}
