// Control flow in which the lanes of a warp part and meet again.

// Steps of the Collatz sequence from each start to 1.
extern "C" __global__ void collatz(const unsigned* start, unsigned* steps, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long x = start[i];
    unsigned count = 0;
    while (x != 1) {
        x = x % 2 == 0 ? x / 2 : 3 * x + 1;
        ++count;
    }
    steps[i] = count;
}

// Nested loops with break, continue and an early return.
extern "C" __global__ void nested(const int* x, int* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const int limit = x[i];
    int sum = 0;
    for (int a = 0; a < limit; ++a) {
        if (a % 3 == i % 3) continue;
        for (int b = a;; ++b) {
            if ((a * b + i) % 7 == 0) break;
            if (sum > 1000) {
                out[i] = -sum;
                return;
            }
            if (b % 2 == 0) {
                sum += b;
                continue;
            }
            sum += out[i] & 1;
        }
        if (sum % 11 == 5) break;
    }
    out[i] = sum;
}

// Cases that a compiler makes a table of jumps of.
extern "C" __global__ void choose(const int* x, float* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float v = i * 0.5f;
    float r;
    switch (x[i]) {
        case 0: r = v + 1.0f; break;
        case 1: r = v * v; break;
        case 2: r = sqrtf(v);  // falls through
        case 3: r = 1.0f / (v + 1.0f); break;
        case 4: r = v - 3.0f; out[i + n] = r; break;
        case 5: for (r = 1.0f; r < v; r *= 2.0f) {} break;
        case 6: r = fabsf(v - 10.0f); break;
        case 7: r = floorf(v); break;
        case 8: r = -v; break;
        default: r = 99.0f;
    }
    out[i] = r;
}

// After parted paths the warp must be whole again: a shuffle and a barrier follow at once.
extern "C" __global__ void meet_again(const int* x, int* out) {
    __shared__ int values[64];
    int v = x[threadIdx.x];
    for (int i = 0; i < v; ++i)
        if (i % 2 == 0) v -= 1;
    if (v & 1) v = 3 * v;
    else if (v & 2) v = v / 2;
    v += __shfl_xor_sync(~0u, v, 1);
    values[threadIdx.x] = v;
    __syncthreads();
    out[threadIdx.x] = values[63 - threadIdx.x];
}
