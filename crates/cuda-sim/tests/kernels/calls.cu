// Device functions that stay functions: results by value and through pointers, structs, calls in diverged code.

struct Complex {
    double re, im;
};

__noinline__ __device__ int greatest_divisor(int a, int b) {
    while (b != 0) {
        const int r = a % b;
        a = b;
        b = r;
    }
    return a;
}

__noinline__ __device__ Complex multiply(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

__noinline__ __device__ void sort(int* values, int count) {
    for (int i = 1; i < count; ++i) {
        const int value = values[i];
        int j = i;
        for (; j > 0 && values[j - 1] > value; --j) values[j] = values[j - 1];
        values[j] = value;
    }
}

__noinline__ __device__ Complex power(Complex base, unsigned exponent) {
    Complex result = {1.0, 0.0};
    for (; exponent != 0; exponent >>= 1) {
        if (exponent & 1) result = multiply(result, base);
        base = multiply(base, base);
    }
    return result;
}

// out[i] = gcd(a[i], b[i]), by lanes that call at different times, and by some not at all.
extern "C" __global__ void divisors(const int* a, const int* b, int* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int result = -1;
    if (i % 3 == 0) result = greatest_divisor(a[i], b[i]);
    else if (i % 3 == 1) result = greatest_divisor(b[i], a[i]) + 1;
    out[i] = result;
}

// out[i] = x[i] to the power i % 13, x complex.
extern "C" __global__ void powers(const double* x, double* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const Complex z = power({x[2 * i], x[2 * i + 1]}, i % 13);
    out[2 * i] = z.re;
    out[2 * i + 1] = z.im;
}

// Sorts each run of 8: the callee writes to the caller's local memory, or to the block's shared memory.
extern "C" __global__ void sort_runs(const int* x, int* local_out, int* shared_out) {
    __shared__ int values[64 * 8];
    int own[8];
    const int t = threadIdx.x;
    for (int i = 0; i < 8; ++i) own[i] = values[t * 8 + i] = x[t * 8 + i];
    sort(own, 8);
    sort(values + t * 8, 8);
    for (int i = 0; i < 8; ++i) {
        local_out[t * 8 + i] = own[i];
        shared_out[t * 8 + i] = values[t * 8 + i];
    }
}
