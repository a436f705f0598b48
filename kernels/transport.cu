// Training along a field in the place of a drift (spec 5, 8; src/field.rs, src/train/transport.rs):
//
//   velocity      V of every sample, from the field's products and numbers (field.cu), and its squares, one sum a block
//   regress       the gradient of |x + step V - x|^2 in V's place, and the loss
//   add_noise     the samples with noise, where a field is taken there
//   exchange      either half of the samples in the other's place, for halves that are independent
//   look_ahead    the sum of gradients, each with the length of the first, and samples moved along the last
//   ahead_loss    the loss of that sum, after its grad_squares (update.cu)
//
// Numerics: factors and V in f32; squares add up in f64 in a fixed order, and the factor of the gradient is found there.
// Mapping: a thread a number, and on to the next of the grid.
// Cost: reads two arrays as long as the samples, or one, and writes one; regress reads and writes it once more. A drift
// ahead reads its gradient twice, and reads and writes the sum and the moved samples.
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

extern "C" __global__ void __launch_bounds__(kThreads)
    add_noise(long long count, float deviation, const float* x, float* noise) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < count) noise[at] = fmaf(deviation, noise[at], x[at]);
}

extern "C" __global__ void __launch_bounds__(kThreads) exchange(long long half, const float* from, float* to) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < 2 * half) to[at] = from[at < half ? at + half : at - half];
}

// After grad_squares of the term, and the same blocks.
extern "C" __global__ void __launch_bounds__(kThreads) look_ahead(const __grid_constant__ AheadCall call) {
    __shared__ double scratch[kWarps];
    __shared__ double factors[2];
    double sum = 0.0;
    for (int k = static_cast<int>(threadIdx.x); k < call.blocks; k += kThreads) sum += call.squares[k];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        const double length = sqrt(sum);
        double ratio = 1.0, unit = 1.0;
        if (call.first) {
            const double scale = call.progress->scale;
            if (call.root > 0.0) unit = clip_min(scale / call.root, 1e-3);
            if (blockIdx.x == 0) {
                call.state[0] = length;
                call.state[1] = unit;
                call.state[2] = scale;
            }
        } else {
            // Where there is no drift there is nothing to bring to its length.
            ratio = length == 0.0 ? 0.0 : call.state[0] / length;
            unit = call.state[1];
        }
        factors[0] = call.weight * ratio;
        factors[1] = -0.5 * static_cast<double>(call.count) * unit * unit * call.step * ratio;
    }
    __syncthreads();
    const double share = factors[0], by = factors[1];
    const long long stride = static_cast<long long>(gridDim.x) * kThreads;
    for (long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; at < call.count; at += stride) {
        const double g = call.term[at];
        const double total = call.first ? 0.0 : static_cast<double>(call.total[at]);
        call.total[at] = static_cast<float>(total + share * g);
        if (call.more) {
            const double from = call.first ? call.x[at] : call.moved[at];
            call.moved[at] = static_cast<float>(from + by * g);
        }
    }
}

// One block.
extern "C" __global__ void __launch_bounds__(kThreads) ahead_loss(const __grid_constant__ AheadCall call) {
    __shared__ double scratch[kWarps];
    double sum = 0.0;
    for (int k = static_cast<int>(threadIdx.x); k < call.blocks; k += kThreads) sum += call.squares[k];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        const double unit = call.state[1];
        call.progress->coming_loss = 0.25 * static_cast<double>(call.count) * unit * unit * sum;
        call.progress->scale = call.state[2];
    }
}
