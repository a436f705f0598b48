// The regression update (spec 5): global-norm clip, AdamW with warm-up, moving average; and a step's scalars.
//
//   take_loss      the sum over the heads of their groups' mean loss, and the first one's scale, from what the drift left
//   scale_gradient the gradient of a head's mean, from that of the sum over its groups
//   grad_squares   squares of the gradient, one sum a block
//   adamw          norm, clip, moments, parameters and their average, in one pass
//   end_step       counts the step
//
// Numerics: the arithmetic of src/train/optimizer.rs in its order, never fused: the same gradient and norm give the same
// bits. Squares add up in f64 in a fixed order. Where the loss is not finite nothing changes but `diverged`.
// Cost: grad_squares reads the gradient; adamw reads it and reads and writes four arrays as long.
// Limits: sm_80 and later.
#include "common.cuh"

namespace update {

__device__ __forceinline__ bool finite(double x) { return x - x == 0.0; }

// base^exponent by squaring, in the order of src/train/optimizer.rs.
__device__ __forceinline__ double power(double base, unsigned long long exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result = __dmul_rn(result, base);
        base = __dmul_rn(base, base);
    }
    return result;
}

// What every thread of adamw needs of the step.
struct Step {
    float clip, step_size, inverse2, decay;
};

__device__ __forceinline__ Step step_of(const UpdateCall& call, double norm) {
    const unsigned long long step = call.progress->step + 1;
    double rate = call.learning_rate;
    if (step <= call.warmup) {
        const double part = __dmul_rn(call.learning_rate - 1e-6, static_cast<double>(step - 1));
        rate = __dadd_rn(1e-6, __ddiv_rn(part, static_cast<double>(call.warmup)));
    }
    const double correction1 = __dsub_rn(1.0, power(call.beta1, step));
    const double correction2 = __dsqrt_rn(__dsub_rn(1.0, power(call.beta2, step)));
    Step result;
    result.clip = norm > call.clip_norm ? static_cast<float>(__ddiv_rn(call.clip_norm, norm)) : 1.0f;
    result.step_size = static_cast<float>(__ddiv_rn(rate, correction1));
    result.inverse2 = static_cast<float>(__ddiv_rn(1.0, correction2));
    result.decay = static_cast<float>(__dsub_rn(1.0, __dmul_rn(rate, call.weight_decay)));
    return result;
}

}  // namespace update

extern "C" __global__ void __launch_bounds__(kThreads)
    take_loss(const DriftScalars* scalars, const float* losses, const int* groups, int heads, TrainProgress* progress) {
    __shared__ double scratch[kWarps];
    double total = 0.0;
    for (int head = 0; head < heads; ++head) {
        const int count = groups[head];
        double sum = 0.0;
        for (int k = static_cast<int>(threadIdx.x); k < count; k += kThreads) sum += losses[k];
        total += block_sum(sum, scratch) / count;
        losses += count;
    }
    if (threadIdx.x != 0) return;
    progress->coming_loss = total;
    progress->scale = scalars->scale;
}

extern "C" __global__ void __launch_bounds__(kThreads) scale_gradient(long long count, float share, float* gradient) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < count) gradient[at] *= share;
}

extern "C" __global__ void __launch_bounds__(kThreads) grad_squares(const __grid_constant__ UpdateCall call) {
    __shared__ double scratch[kWarps];
    double sum = 0.0;
    const long long stride = static_cast<long long>(gridDim.x) * kThreads;
    for (long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; at < call.count; at += stride) {
        const double g = call.grad[at];
        sum = fma(g, g, sum);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) call.squares[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(kThreads) adamw(const __grid_constant__ UpdateCall call) {
    __shared__ double scratch[kWarps];
    __shared__ update::Step shared;
    if (!update::finite(call.progress->coming_loss)) return;
    double sum = 0.0;
    for (int k = static_cast<int>(threadIdx.x); k < call.blocks; k += kThreads) sum += call.squares[k];
    const double norm = sqrt(block_sum(sum, scratch));
    if (threadIdx.x == 0) {
        shared = update::step_of(call, norm);
        if (blockIdx.x == 0) call.progress->grad_norm = norm;
    }
    __syncthreads();
    const update::Step step = shared;
    const long long stride = static_cast<long long>(gridDim.x) * kThreads;
    for (long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; at < call.count; at += stride) {
        const float g = __fmul_rn(call.grad[at], step.clip);
        const float m = __fadd_rn(__fmul_rn(call.first, call.moment1[at]), __fmul_rn(call.rest1, g));
        const float v = __fadd_rn(__fmul_rn(call.second, call.moment2[at]), __fmul_rn(call.rest2, __fmul_rn(g, g)));
        const float divisor = __fadd_rn(__fmul_rn(__fsqrt_rn(v), step.inverse2), call.epsilon);
        const float move = __fdiv_rn(__fmul_rn(step.step_size, m), divisor);
        const float p = __fsub_rn(__fmul_rn(call.parameters[at], step.decay), move);
        const float e = call.ema[at];
        call.moment1[at] = m;
        call.moment2[at] = v;
        call.parameters[at] = p;
        call.ema[at] = __fadd_rn(e, __fmul_rn(call.ema_rest, __fsub_rn(p, e)));
    }
}

extern "C" __global__ void __launch_bounds__(kThreads) end_step(TrainProgress* progress, double loss_decay) {
    if (threadIdx.x != 0) return;
    const double loss = progress->coming_loss;
    progress->loss = loss;
    if (!update::finite(loss)) {
        if (progress->diverged == 0) progress->diverged = progress->step + 1;
        return;
    }
    const double average = __dadd_rn(__dmul_rn(loss_decay, progress->loss_ema), __dmul_rn(1.0 - loss_decay, loss));
    progress->loss_ema = progress->step == 0 ? loss : average;
    progress->step += 1;
}
