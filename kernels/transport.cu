// Training along a field in the place of a drift (spec 5, 8; src/field.rs, src/train/transport.rs):
//
//   velocity  V of every sample, from the field's products and numbers (field.cu), and its squares, one sum a block
//   regress   the gradient of |x + step V - x|^2 in V's place, and the loss
//
// Numerics: factors and V in f32; squares add up in f64 in a fixed order, and the factor of the gradient is found there.
// Mapping: a thread a number, and on to the next of the grid.
// Cost: reads two arrays as long as the samples, or one, and writes one; regress reads and writes it once more.
// Limits: sm_80 and later.
#include "common.cuh"

namespace transport {

// What multiplies either product, of sample i of a group.
struct Factors {
    float p, q;
};

__device__ __forceinline__ Factors factors(const TransportCall& call, const float* numbers, int i) {
    const int n = call.generated;
    if (call.velocity == kOneProduct) return {1.0f, 1.0f};
    // Of q, then of p: log mass, preconditioner, companion mass over mass, effective sample size.
    const float log_q = numbers[i] - call.log_total_q, log_p = numbers[4 * n + i] - call.log_total_p;
    // A NaN stays.
    float ratio = log_p - log_q;
    ratio = ratio > call.most ? call.most : ratio < -call.most ? -call.most : ratio;
    switch (call.velocity) {
        case kSharp:
            return {1.0f / numbers[6 * n + i], 1.0f / numbers[2 * n + i]};
        case kMmd:
            return {expf(log_p), expf(log_q)};
        case kForwardKl:
            return {expf(ratio), expf(ratio)};
        default:
            return {2.0f * expf(-ratio), 2.0f * expf(-ratio)};
    }
}

}  // namespace transport

extern "C" __global__ void __launch_bounds__(kThreads) velocity(const __grid_constant__ TransportCall call) {
    __shared__ double scratch[kWarps];
    const long long each = static_cast<long long>(call.generated) * call.dim;
    const long long stride = static_cast<long long>(gridDim.x) * kThreads;
    double sum = 0.0;
    for (long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; at < call.count; at += stride) {
        const long long group = at / each;
        const int i = static_cast<int>(at % each / call.dim);
        const auto of = transport::factors(call, call.numbers + group * 8 * call.generated, i);
        float v = of.p * call.towards_p[at];
        if (call.towards_q != nullptr) v -= of.q * call.towards_q[at];
        call.gradient[at] = v;
        sum = fma(static_cast<double>(v), static_cast<double>(v), sum);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) call.squares[blockIdx.x] = sum;
}

// The same blocks as before it.
extern "C" __global__ void __launch_bounds__(kThreads) regress(const __grid_constant__ TransportCall call) {
    __shared__ double scratch[kWarps];
    __shared__ double shared;
    double sum = 0.0;
    for (int k = static_cast<int>(threadIdx.x); k < static_cast<int>(gridDim.x); k += kThreads) sum += call.squares[k];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        const double mean = sum / static_cast<double>(call.count);
        const double least = mean < call.norm_floor ? call.norm_floor : mean;
        const double step = call.normalize ? call.step / sqrt(least) : call.step;
        shared = -2.0 * step / static_cast<double>(call.count);
        if (blockIdx.x == 0) {
            const double loss = step * step * mean;
            call.progress->coming_loss = call.first ? loss : call.progress->coming_loss + loss;
            call.progress->scale = 1.0;
        }
    }
    __syncthreads();
    const double factor = shared;
    const long long stride = static_cast<long long>(gridDim.x) * kThreads;
    for (long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; at < call.count; at += stride) {
        call.gradient[at] = static_cast<float>(factor * call.gradient[at]);
    }
}
