// State spaces: local arrays, constant memory, module globals, large parameters, generic pointers.

__constant__ float coefficients[5] = {1.0f, -0.5f, 0.25f, 3.0f, -2.0f};
__constant__ int table[64];
__device__ int counter = 7;
__device__ unsigned char bytes[6] = {1, 2, 3, 250, 251, 252};
__device__ float* where;

// A local array with an index that is known only at run time.
extern "C" __global__ void local_index(const int* x, int* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int counts[10] = {};
    for (int v = x[i]; v != 0; v /= 10) counts[v % 10] += 1;
    int best = 0;
    for (int d = 1; d < 10; ++d)
        if (counts[d] >= counts[best]) best = d;
    out[i] = best * 100 + counts[best];
}

extern "C" __global__ void polynomial(const float* x, float* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = 0.0f;
    for (int d = 0; d < 5; ++d) sum = fmaf(sum, x[i], coefficients[d]);
    out[i] = sum + table[i % 64];
}

extern "C" __global__ void globals(int* out) {
    const int old = atomicAdd(&counter, 1);
    out[threadIdx.x] = bytes[threadIdx.x % 6] + (old >= 7);
}

// A pointer left in a module's variable by one kernel and used by another.
extern "C" __global__ void leave(float* p) {
    if (threadIdx.x == 0) where = p;
}

extern "C" __global__ void use_left(float value) { where[threadIdx.x] = value + threadIdx.x; }

struct Table {
    int count;
    short shift;
    double scale;
    int values[500];
    unsigned char order[20];
};

// out[i] = scale * values[(i + shift) % count], order from a small array; the struct is a parameter of 2 KB.
extern "C" __global__ void parameters(const Table t, double* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = t.scale * t.values[(i + t.shift) % t.count] + t.order[i % 20];
}

// Small parameters of every width.
extern "C" __global__ void widths(signed char a, unsigned char b, short c, unsigned short d, int e, long long f, float g,
                                  double h, bool flag, double* out) {
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
    out[4] = e;
    out[5] = f;
    out[6] = g;
    out[7] = h;
    out[8] = flag;
}

// One pointer that leads to global, shared or local memory, chosen at run time.
extern "C" __global__ void generic(const int* x, int* out) {
    __shared__ int shared[32];
    int local[4];
    const int t = threadIdx.x;
    shared[t] = x[t] + 1000;
    for (int i = 0; i < 4; ++i) local[i] = x[t] + i * 10000;
    const int* p = t % 3 == 0 ? x + t : t % 3 == 1 ? shared + t : local + x[t] % 4;
    out[t] = *p + (__isShared(p) ? 1 : 0) + (__isGlobal(p) ? 2 : 0) + (__isLocal(p) ? 4 : 0);
}

// Vector and narrow accesses.
struct __align__(16) Record {
    float f;
    unsigned short h[2];
    unsigned char b[8];
};

extern "C" __global__ void records(const Record* in, Record* out, const double2* d, double2* e, const uchar4* u,
                                   uchar4* v, const short2* s, short2* r) {
    const int i = threadIdx.x;
    Record x = in[i];
    x.f *= 2.0f;
    x.h[1] += x.h[0];
    x.b[7] = x.b[0] ^ x.b[3];
    out[i] = x;
    e[i] = make_double2(d[i].y, d[i].x);
    v[i] = make_uchar4(u[i].w, u[i].z, u[i].y, u[i].x);
    r[i] = make_short2(-s[i].y, s[i].x);
}
