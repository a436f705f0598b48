// The scalars of each head, from one record per block: the scale (spec 2.2 (2) to (4)), theta of each temperature (6);
// and the loss of each group (8) whose force took several blocks.
//   reduce_*  adds the records and derives what follows;
//   derive_*  derives alone, from sums that were added over devices.
//
// Numerics: f64, each thread adds every 256th record, then a tree: the same bits from run to run.
// Mapping: one block for a head's scale and one for each of its temperatures; one thread a group for the losses.
// Cost: reads the records once.
// Limits: sm_80 and later.
#include "common.cuh"

namespace reduce {

// The sums of records of so many numbers.
template <int kCount>
struct Total {
    double of[kCount] = {};

    __device__ __forceinline__ Total(const double* records, long long count, double* scratch) {
        for (long long at = threadIdx.x; at < count; at += kThreads) {
            for (int k = 0; k < kCount; ++k) of[k] += records[at * kCount + k];
        }
        for (int k = 0; k < kCount; ++k) of[k] = block_sum(of[k], scratch);
    }
};

// The scale from the sums. Without any pair that counts (the paper leaves self pairs out) the mean is 0; with weights
// that are all 0 it is 0 / 0.
__device__ __forceinline__ void scale(const DriftCall& call, const DriftHead& head) {
    DriftScalars* scalars = head.scalars;
    const bool none = scalars->groups == 0.0 || (scalars->weights == 0.0 && scalars->all_weights != 0.0);
    const double mean = none ? 0.0 : scalars->weighted / scalars->weights;
    const double root = sqrt(static_cast<double>(head.dim));
    const double sigma = clip_min(mean / root, 1e-3);
    const bool raw = call.scale_kind == kScaleRaw, paper = call.scale_kind == kScalePaper;
    const double distance = raw ? 1.0 : paper ? sigma * root : clip_min(mean, 1e-3);
    scalars->mean = mean;
    scalars->sigma = raw ? 1.0 : sigma;
    scalars->distance = distance;
    scalars->inverse = 1.0 / distance;
    scalars->scale = scalars->groups == 0.0 ? 0.0 : raw || paper ? distance : mean;
}

__device__ __forceinline__ void norm(const DriftCall& call, const DriftHead& head, int r) {
    DriftScalars* scalars = head.scalars;
    const double elements = scalars->groups * head.generated * head.dim;
    const double f2 = elements == 0.0 ? 0.0 : scalars->squares[r] / elements;
    scalars->f2[r] = f2;
    // Forces whose squares f32 does not hold make everything NaN rather than nothing.
    const double theta = sqrt(clip_min(f2, call.norm_floor));
    scalars->theta[r] = !call.normalize ? 1.0 : theta - theta == 0.0 ? theta : theta - theta;
}

// The greater of two, or NaN where one of them is.
__device__ __forceinline__ double worse(double a, double b) { return b > a || b != b ? b : a; }

// The worst of a block's, in every thread of the first warp; as block_sum.
__device__ __forceinline__ double block_worst(double x, double* scratch) {
    for (int lane = kWarp / 2; lane > 0; lane /= 2) x = worse(x, shuffle_xor(x, lane));
    __syncthreads();
    if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
    __syncthreads();
    for (int k = 0; k < kWarps; ++k) x = worse(x, scratch[k]);
    return x;
}

// The worst plan of a temperature.
__device__ __forceinline__ void worst_plan(const DriftCall& call, const DriftHead& head, int r, double* scratch) {
    double iterations = 0.0, error = 0.0;
    if (call.coupling == kSinkhorn) {
#pragma unroll 1
        for (int b = threadIdx.x; b < head.groups; b += kThreads) {
            for (int block = 0; block < (call.split ? 2 : 1); ++block) {
                const PlanState plan = head.plans[2 * (static_cast<long long>(b) * call.temperatures + r) + block];
                iterations = worse(iterations, plan.iterations);
                error = worse(error, plan.error);
            }
        }
        iterations = block_worst(iterations, scratch);
        error = block_worst(error, scratch);
    }
    if (threadIdx.x != 0) return;
    head.scalars->iterations[r] = iterations;
    head.scalars->error[r] = error;
}

// The head of a launch with the same number of blocks for each.
__device__ __forceinline__ const DriftHead& head_at(const DriftCall& call, int head) {
    return call.table == nullptr ? call.head : call.table[head];
}

}  // namespace reduce

extern "C" __global__ void __launch_bounds__(kThreads, 2) reduce_scale(const __grid_constant__ DriftCall call) {
    __shared__ double scratch[kWarps];
    const DriftHead& head = reduce::head_at(call, blockIdx.x);
    const double* sums = head.distance_sums;
    const reduce::Total<kDistanceSums> total(sums, head.records, scratch);
    double nonfinite = total.of[3];
    if (head.slices > 1) {
        const long long tiles = tiles_of(head.generated, kTile) * tiles_of(head.targets, head.columns);
        const double* counts = sums + static_cast<long long>(kDistanceSums) * head.records;
        nonfinite = reduce::Total<1>(counts, head.groups * head.slices * tiles, scratch).of[0];
    }
    if (threadIdx.x != 0) return;
    DriftScalars* scalars = head.scalars;
    scalars->weighted = total.of[0];
    scalars->weights = total.of[1];
    scalars->all_weights = total.of[2];
    scalars->nonfinite = nonfinite;
    scalars->groups = head.groups;
    reduce::scale(call, head);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) derive_scale(const __grid_constant__ DriftCall call) {
    if (threadIdx.x == 0) reduce::scale(call, reduce::head_at(call, blockIdx.x));
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) reduce_norms(const __grid_constant__ DriftCall call) {
    __shared__ double scratch[kWarps];
    const DriftHead& head = reduce::head_at(call, blockIdx.x / call.temperatures);
    const int r = blockIdx.x % call.temperatures;
    const long long tiles = call.fused ? 1 : tiles_of(head.generated, kTile) * head.ranges;
    const long long records = head.groups * tiles;
    const reduce::Total<1> squares(head.norm_sums + r * records, records, scratch);
    // Masses go by the group where that is one block, by the row elsewhere.
    const long long blocks = call.fused ? head.groups : row_blocks(head);
    const reduce::Total<kRowSums> rows(head.row_sums + r * blocks * kRowSums, blocks, scratch);
    reduce::worst_plan(call, head, r, scratch);
    if (threadIdx.x != 0) return;
    head.scalars->squares[r] = squares.of[0];
    for (int k = 0; k < kRowSums; ++k) head.scalars->rows[r][k] = rows.of[k];
    reduce::norm(call, head, r);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) derive_norms(const __grid_constant__ DriftCall call) {
    if (threadIdx.x == 0) {
        reduce::norm(call, reduce::head_at(call, blockIdx.x / call.temperatures), blockIdx.x % call.temperatures);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) losses(const __grid_constant__ DriftCall call) {
    int block;
    const DriftHead& head = head_of(call, kLosses, &block);
    const int b = block * kThreads + threadIdx.x;
    if (b >= head.groups || head.loss == nullptr) return;
    const int records = tiles_of(head.generated, kTile) * head.ranges;
    double sum = 0.0;
    for (int k = 0; k < records; ++k) sum += head.loss_sums[static_cast<long long>(b) * records + k];
    head.loss[b] = static_cast<float>(sum / (static_cast<double>(head.generated) * head.dim));
}
