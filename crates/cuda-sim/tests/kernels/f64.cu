// f64 arithmetic and the mathematical library, f64 and f32.

extern "C" __global__ void arithmetic(const double* x, const double* y, double* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const double a = x[i], b = y[i];
    double* o = out + i * 16;
    o[0] = a + b;
    o[1] = __dmul_rn(a, b);
    o[2] = a / b;
    o[3] = sqrt(fabs(a));
    o[4] = fma(a, b, 1.0);
    o[5] = fmin(a, b);
    o[6] = fmax(a, b);
    o[7] = floor(a);
    o[8] = trunc(b);
    o[9] = static_cast<double>(static_cast<float>(a));
    o[10] = static_cast<double>(static_cast<long long>(a * 1000.0));
    o[11] = a < b ? copysign(a, b) : -b;
    o[12] = rint(a);
    o[13] = __drcp_rn(b);
    o[14] = ceil(a) - a;
    o[15] = fmod(a, b);
}

extern "C" __global__ void functions(const double* x, double* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const double a = x[i];
    double* o = out + i * 8;
    o[0] = exp(a);
    o[1] = log(fabs(a));
    o[2] = pow(fabs(a), 1.7);
    o[3] = sin(a);
    o[4] = cbrt(a);
    o[5] = tanh(a);
    o[6] = rsqrt(fabs(a));
    o[7] = hypot(a, 2.0);
}

extern "C" __global__ void functions_f32(const float* x, float* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float a = x[i];
    float* o = out + i * 16;
    o[0] = sinf(a);
    o[1] = cosf(a);
    o[2] = erff(a);
    o[3] = tanhf(a);
    o[4] = expf(a);
    o[5] = logf(fabsf(a));
    o[6] = powf(fabsf(a), 0.3f);
    o[7] = 1.0f / a;
    o[8] = sqrtf(fabsf(a));
    o[9] = rsqrtf(fabsf(a));
    o[10] = atanf(a);
    o[11] = log1pf(fabsf(a));
    o[12] = expm1f(a);
    o[13] = fmodf(a, 0.7f);
    o[14] = exp2f(a);
    o[15] = __log2f(fabsf(a));
}
