// The global scalars, from one record per block: the scale (spec 2.2 (2) to (4)), theta of each temperature (6), and the
// loss of each group (8).
//
// Numerics: f64, each thread adds every 256th record, then a tree: the same bits from run to run.
// Mapping: one block for the scale and one for each temperature; one thread a group for the losses.
// Cost: reads the records once.
// Limits: sm_80 and later.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(kThreads, 2) reduce_scale(const __grid_constant__ DriftParams p) {
    __shared__ double scratch[kWarps];
    const long long records = static_cast<long long>(p.groups) * tiles_of(p.generated) * tiles_of(p.targets);
    double sums[3] = {};
    for (long long at = threadIdx.x; at < records; at += kThreads) {
        for (int k = 0; k < 3; ++k) sums[k] += p.distance_sums[3 * at + k];
    }
    for (int k = 0; k < 3; ++k) sums[k] = block_sum(sums[k], scratch);
    if (threadIdx.x != 0) return;
    // Without any pair (the paper leaves self pairs out) the mean is 0; with weights that are all 0 it is 0 / 0.
    const bool pairs = p.groups > 0 && !(p.scale_kind == kScalePaper && p.targets == 1);
    const double mean = pairs ? sums[0] / sums[1] : 0.0;
    const double root = sqrt(static_cast<double>(p.dim));
    DriftScalars* scalars = p.scalars;
    scalars->nonfinite = sums[2];
    const double sigma = clip_min(mean / root, 1e-3);
    scalars->sigma = p.scale_kind == kScaleRaw ? 1.0 : sigma;
    scalars->distance = p.scale_kind == kScaleRaw ? 1.0 : p.scale_kind == kScalePaper ? sigma * root : clip_min(mean, 1e-3);
    scalars->scale = p.groups == 0 ? 0.0 : p.scale_kind == kScaleOfficial ? mean : scalars->distance;
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) reduce_norms(const __grid_constant__ DriftParams p) {
    __shared__ double scratch[kWarps];
    const int r = blockIdx.x;
    const long long records = static_cast<long long>(p.groups) * tiles_of(p.generated) * tiles_of(p.dim);
    double sum = 0.0;
    for (long long at = threadIdx.x; at < records; at += kThreads) sum += p.norm_sums[r * records + at];
    sum = block_sum(sum, scratch);
    if (threadIdx.x != 0) return;
    const double elements = static_cast<double>(p.groups) * p.generated * p.dim;
    const double f2 = p.groups == 0 ? 0.0 : sum / elements;
    p.scalars->f2[r] = f2;
    p.scalars->theta[r] = p.normalize ? sqrt(clip_min(f2, p.norm_floor)) : 1.0;
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) losses(const __grid_constant__ DriftParams p) {
    const int b = blockIdx.x * kThreads + threadIdx.x;
    if (b >= p.groups || p.loss == nullptr) return;
    const int records = tiles_of(p.generated) * tiles_of(p.dim);
    double sum = 0.0;
    for (int k = 0; k < records; ++k) sum += p.loss_sums[static_cast<long long>(b) * records + k];
    p.loss[b] = static_cast<float>(sum / (static_cast<double>(p.generated) * p.dim));
}
