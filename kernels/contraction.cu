// Phases B, second half, and C: F_bi = sum_j C_bij (y_bj - x_bi) / sigma with the coefficients of spec 2.2 (6),
// C = -A S+ for the negatives and +A S- for the positives.
//   norm_*   one temperature a block: the sum of F^2, from which theta follows; F itself is not stored.
//   force_*  all temperatures in one product, sum_R C_R / theta_R: force, gradient -2 F / (G D sigma) (spec 5), and the
//            sum of F^2 for the loss.
//
// Numerics: f32 along the targets; y - x is formed before the product, so that translation costs no digits and the
// centring term of the specification is there by itself. Sums of F^2 are f64 in a fixed order.
// Mapping: one block for 64 queries by 64 coordinates of a group (and a temperature); each of 16 x 16 threads has 4 x 4
// forces, 16 apart. Per step the coefficients of 16 targets, made from the distances on the spot, and the targets'
// coordinates lie in shared memory: 8.6 KiB.
// Cost: 3 FLOP per pair and coordinate; R exponentials per pair and tile of coordinates. Reads 4 G T bytes of distances
// per tile of coordinates and T D per tile of queries.
// Limits: sm_80 and later; R B tiles of G and D at most 2^31 - 1 blocks.
#include "common.cuh"

namespace contraction {

constexpr int kStep = 16;
constexpr int kPad = 1;

// The coefficient of a pair for temperature r.
__device__ __forceinline__ float coefficient(const DriftParams& p, long long row, long long column, float n, float w,
                                             bool attracts, int r) {
    const Norms norms = {p.row_least[row], p.column_least[column], p.row_log[row * p.temperatures + r],
                         p.column_log[column * p.temperatures + r]};
    const float a = affinity(p, n, w, p.rate[r], norms);
    const float* mass = p.mass + 2 * (row * p.temperatures + r);
    return attracts ? a * mass[0] : -a * mass[1];
}

template <typename T, bool kNorm>
__device__ __forceinline__ void run(const DriftParams& p) {
    __shared__ float cs[kStep][kTile + kPad], ys[kStep][kTile + kPad];
    __shared__ double scratch[kWarps];
    const int tiles_i = tiles_of(p.generated), tiles_d = tiles_of(p.dim);
    const int per_group = tiles_i * tiles_d, blocks = p.groups * per_group;
    const int only = kNorm ? blockIdx.x / blocks : 0, block = blockIdx.x % blocks;
    const int b = block / per_group, tile = block % per_group;
    const int i0 = tile / tiles_d * kTile, d0 = tile % tiles_d * kTile;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    const float unit = static_cast<float>(p.scalars->distance);

    float x[kPer][kPer], f[kPer][kPer] = {};
    for (int m = 0; m < kPer; ++m) {
        const int i = i0 + ty + kSide * m;
        for (int n = 0; n < kPer; ++n) {
            const int d = d0 + tx + kSide * n;
            x[m][n] = i < p.generated && d < p.dim ? to_float(target<T>(p, b, i)[d]) : 0.0f;
        }
    }
    for (int j0 = 0; j0 < p.targets; j0 += kStep) {
        for (int at = threadIdx.x; at < kTile * kStep; at += kThreads) {
            const int i = i0 + at / kStep, j = j0 + at % kStep;
            float c = 0.0f;
            if (i < p.generated && j < p.targets) {
                const long long row = static_cast<long long>(b) * p.generated + i;
                const long long column = static_cast<long long>(b) * p.targets + j;
                const float w = weight(p, b, j);
                if (!removed(p, i, j, w)) {
                    const float n = normalized(p, p.distances[row * p.targets + j], unit, i, j);
                    const bool attracts = j >= p.generated + p.negatives;
                    if (kNorm) {
                        c = coefficient(p, row, column, n, w, attracts, only);
                    } else {
                        for (int r = 0; r < p.temperatures; ++r) {
                            c += coefficient(p, row, column, n, w, attracts, r) *
                                 static_cast<float>(1.0 / p.scalars->theta[r]);
                        }
                    }
                }
            }
            cs[at % kStep][at / kStep] = c;
        }
        for (int at = threadIdx.x; at < kStep * kTile; at += kThreads) {
            const int j = j0 + at / kTile, d = d0 + at % kTile;
            ys[at / kTile][at % kTile] = j < p.targets && d < p.dim ? to_float(target<T>(p, b, j)[d]) : 0.0f;
        }
        __syncthreads();
        for (int j = 0; j < kStep; ++j) {
            float c[kPer], y[kPer];
            for (int k = 0; k < kPer; ++k) {
                c[k] = cs[j][ty + kSide * k];
                y[k] = ys[j][tx + kSide * k];
            }
            for (int m = 0; m < kPer; ++m) {
                for (int n = 0; n < kPer; ++n) f[m][n] = fmaf(c[m], y[n] - x[m][n], f[m][n]);
            }
        }
        __syncthreads();
    }

    const float scale = static_cast<float>(1.0 / p.scalars->sigma);
    const float slope = static_cast<float>(-2.0 / (static_cast<double>(p.generated) * p.dim * p.scalars->sigma));
    double squares = 0.0;
    for (int m = 0; m < kPer; ++m) {
        const int i = i0 + ty + kSide * m;
        for (int n = 0; n < kPer; ++n) {
            const int d = d0 + tx + kSide * n;
            if (i >= p.generated || d >= p.dim) continue;
            const float force = f[m][n] * scale;
            squares += static_cast<double>(force) * force;
            if (kNorm) continue;
            const long long at = (static_cast<long long>(b) * p.generated + i) * p.dim + d;
            if (p.force != nullptr) p.force[at] = force;
            if (p.gradient != nullptr) p.gradient[at] = slope * force;
        }
    }
    const double total = block_sum(squares, scratch);
    if (threadIdx.x == 0) (kNorm ? p.norm_sums : p.loss_sums)[blockIdx.x] = total;
}

}  // namespace contraction

extern "C" __global__ void __launch_bounds__(kThreads, 2) norm_f32(const __grid_constant__ DriftParams p) {
    contraction::run<float, true>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) norm_f16(const __grid_constant__ DriftParams p) {
    contraction::run<Half, true>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) norm_bf16(const __grid_constant__ DriftParams p) {
    contraction::run<Bfloat, true>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) force_f32(const __grid_constant__ DriftParams p) {
    contraction::run<float, false>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) force_f16(const __grid_constant__ DriftParams p) {
    contraction::run<Half, false>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2) force_bf16(const __grid_constant__ DriftParams p) {
    contraction::run<Bfloat, false>(p);
}
