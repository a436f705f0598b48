// Frozen maps of samples to the features that a drift is computed in (src/features), beside their products, which are
// cuBLAS's.
//
//   patches      means of the patches of images, and standard deviations
//   patches_grad the gradient by the images
//   cosine       y = factor cos(2 pi z)
//   cosine_grad  dy *= -2 pi factor sin(2 pi z)
//   repeat       the same numbers again and again: weights of negatives, for each location of a head
//   accumulate   y += x, where several heads have a say
//
// Numerics: f32. A patch is added up in rows, by one thread: the same bits from run to run.
// Mapping: a thread has one number of the result; those of patches begin with all patches of one sample, so that a warp
// reads neighbouring pixels.
// Cost: each array is read and written once, pixels twice where there are deviations.
// Limits: sm_80 and later.
#include "common.cuh"
#include "turns.cuh"

namespace features {

// Added to a variance (spec 4.1).
constexpr float kVarianceFloor = 1e-6f;
constexpr float kTurn = 6.28318531f;

}  // namespace features

extern "C" __global__ void __launch_bounds__(kThreads)
    patches(long long n, const __grid_constant__ PatchExtents p, const float* x, float* mean, float* deviation) {
    const int wide = p.width / p.size, count = p.height / p.size * wide;
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    const long long sample = at / p.channels / count;
    if (sample >= n) return;
    const int patch = static_cast<int>(at / p.channels % count), channel = static_cast<int>(at % p.channels);
    const long long row = sample * p.height + patch / wide * p.size;
    const long long to = (patch * n + sample) * p.channels + channel;
    x += (row * p.width + patch % wide * p.size) * p.channels + channel;
    const float inverse = 1.0f / static_cast<float>(p.size * p.size);
    float sum = 0.0f;
    for (int i = 0; i < p.size; ++i) {
        for (int j = 0; j < p.size; ++j) sum += x[(i * p.width + j) * p.channels];
    }
    const float middle = sum * inverse;
    mean[to] = middle;
    if (deviation == nullptr) return;
    sum = 0.0f;
    for (int i = 0; i < p.size; ++i) {
        for (int j = 0; j < p.size; ++j) {
            const float apart = x[(i * p.width + j) * p.channels] - middle;
            sum = fmaf(apart, apart, sum);
        }
    }
    deviation[to] = sqrtf(fmaf(sum, inverse, features::kVarianceFloor));
}

// deviation and by_deviation are null where there are none.
extern "C" __global__ void __launch_bounds__(kThreads)
    patches_grad(long long count, long long n, const __grid_constant__ PatchExtents p, const float* x,
                 const float* mean, const float* by_mean, const float* deviation, const float* by_deviation, float* dx) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at >= count) return;
    const int channel = static_cast<int>(at % p.channels), column = static_cast<int>(at / p.channels % p.width);
    const long long line = at / p.channels / p.width;
    const int row = static_cast<int>(line % p.height);
    const int patch = row / p.size * (p.width / p.size) + column / p.size;
    const long long from = (patch * n + line / p.height) * p.channels + channel;
    const float inverse = 1.0f / static_cast<float>(p.size * p.size);
    float slope = by_mean[from];
    if (deviation != nullptr) slope = fmaf(by_deviation[from], (x[at] - mean[from]) / deviation[from], slope);
    dx[at] = fmaf(slope, inverse, dx[at]);
}

extern "C" __global__ void __launch_bounds__(kThreads) cosine(long long count, float factor, const float* z, float* y) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < count) y[at] = factor * sin_cos_turns(z[at]).y;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    cosine_grad(long long count, float factor, const float* z, float* dy) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < count) dy[at] *= -features::kTurn * factor * sin_cos_turns(z[at]).x;
}

extern "C" __global__ void __launch_bounds__(kThreads)
    repeat(long long count, long long times, const float* from, float* to) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < count * times) to[at] = from[at % count];
}

extern "C" __global__ void __launch_bounds__(kThreads) accumulate(long long count, const float* x, float* y) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at < count) y[at] += x[at];
}
