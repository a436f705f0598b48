// Phase B, first half, where every row has mass 1, over all targets or in each block of the split form (spec 7.1, 7.3):
// A_ij = exp(log k(n_ij) + c_j - L_i), the softmax along the row of the logits plus a potential c of the column.
//   start              what c begins with: log w for the rows' softmax, what the columns' softmax leaves for both, 0 for
//                      a plan, minus infinity for what is not there; the sum of each block's weights.
//   project_rows_*     L_i = log sum_j k(n_ij) e^(c_j) of each block: what brings rows to mass 1.
//   project_columns_*  c_j = log s_j - log sum_i k(n_ij) e^(-L_i): what brings a plan's columns to their marginals
//                      s_j = G w_j / sum w.
//   settle             the mean of |row sum - 1| before the row projection, and whether a plan takes another iteration.
//
// Numerics: logarithms of k and L are relative to that of the row's least normalised distance. Each lane adds up
// exponentials relative to the largest that it has met, in f32; lanes and warps are joined relative to the largest of all.
// NaN reaches every sum.
// Mapping: rows, one warp a row, lanes along the targets. Columns, one block for 32 columns: lanes along the targets,
// eight warps along the queries, joined through shared memory. start and settle, one block a group.
// Cost: an exponential a pair, temperature and projection; distances are read ceil(R / 3) times for each, or formed anew
// as often where they are not stored (D <= 8). Bound by instructions.
// Limits: sm_80 and later.
#include "statistics.cuh"

namespace couplings {

using statistics::kAtOnce;

// Sums of e^z, relative to the largest z so far.
struct Sum {
    float most = -infinity(), sum = 0.0f;

    __device__ __forceinline__ void add(float z) {
        if (z == -infinity()) return;
        if (z > most) {
            sum *= expf(most - z);
            most = z;
        }
        sum += expf(z - most);
    }

    // The sum relative to what all have met at most.
    __device__ __forceinline__ float relative_to(float all) const {
        return all == -infinity() ? sum : sum * expf(most - all);
    }
};

// The logarithm of a warp's sums together.
__device__ __forceinline__ float warp_log(const Sum& own) {
    const float most = lanes_most<kWarp>(own.most);
    return most + logf(warp_sum(own.relative_to(most)));
}

__device__ __forceinline__ int blocks_of(const DriftCall& call) { return call.split ? 2 : 1; }

// Which of them a target is in.
__device__ __forceinline__ int block_of(const DriftCall& call, const DriftHead& head, int j) {
    return call.split && j >= head.repelling ? 1 : 0;
}

__device__ __forceinline__ PlanState* plan_of(const DriftCall& call, const DriftHead& head, int b, int r) {
    return head.plans + 2 * (static_cast<long long>(b) * call.temperatures + r);
}

// Does a plan at this temperature take more iterations?
__device__ __forceinline__ bool going(const DriftCall& call, const DriftHead& head, int b, int r, int block) {
    return plan_of(call, head, b, r)[block].iterations == 0;
}

__device__ __forceinline__ bool any_going(const DriftCall& call, const DriftHead& head, int b, int r0) {
    for (int r = r0; r < r0 + kAtOnce && r < call.temperatures; ++r) {
        for (int block = 0; block < blocks_of(call); ++block) {
            if (going(call, head, b, r, block)) return true;
        }
    }
    return false;
}

// A row, by a warp: lanes along the targets.
template <typename T>
__device__ __forceinline__ void project_row(const DriftCall& call, const DriftHead& head, int b, int i) {
    const int lane = threadIdx.x % kWarp;
    const Unit unit = row_unit(call, head, i);
    const long long at = static_cast<long long>(b) * head.generated + i;
    float least_n = infinity();
    if (call.iteration == 0) {
        statistics::over_row<T>(call, head, unit, b, i, [&](int j, int, int, float n) {
            if (removed(call, i, j, weight(call, head, b, j)) || left_out(call, head, i, j)) return;
            least_n = least(least_n, n);
        });
        least_n = warp_least(least_n);
        if (lane == 0) head.row_least[at] = least_n;
    } else {
        least_n = head.row_least[at];
    }
    const float* potentials = head.column_log + static_cast<long long>(b) * head.targets * call.temperatures;
#pragma unroll 1
    for (int r0 = 0; r0 < call.temperatures; r0 += kAtOnce) {
        if (!any_going(call, head, b, r0)) continue;
        Sum sums[2][kAtOnce];
        statistics::over_row<T>(call, head, unit, b, i, [&](int j, int kind, int, float n) {
            if ((call.mask == kMaskRemove && i == j) || left_out(call, head, i, j)) return;
            const float* potential = potentials + static_cast<long long>(j) * call.temperatures + r0;
            const bool second = call.split && kind == 2;
#pragma unroll
            for (int k = 0; k < kAtOnce; ++k) {
                if (r0 + k >= call.temperatures) break;
                const float c = potential[k];
                // What is not there may lie at any distance.
                if (c == -infinity()) continue;
                const float z = log_ratio(call, n, least_n, call.rate[r0 + k]) + c;
                if (second) {
                    sums[1][k].add(z);
                } else {
                    sums[0][k].add(z);
                }
            }
        });
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
            if (r0 + k >= call.temperatures) break;
            float logs[2];
            logs[0] = warp_log(sums[0][k]);
            logs[1] = call.split ? warp_log(sums[1][k]) : logs[0];
            // A lane looks after a block.
            if (lane < 2) {
                const float log = lane == 0 ? logs[0] : logs[1];
                const long long to = 2 * (at * call.temperatures + r0 + k) + lane;
                if (call.iteration > 0) {
                    // From the row's sum before it was brought to 1; without any pair it is not there.
                    head.row_change[to] = log == -infinity() ? 0.0f : fabsf(expm1f(log - head.row_log[to]));
                }
                head.row_log[to] = log;
            }
        }
    }
}

template <typename T>
__device__ __forceinline__ void project_rows(const DriftCall& call) {
    int block;
    const DriftHead& head = head_of(call, kRows, &block);
    statistics::Row at;
    if (statistics::row_of(head, block, &at)) project_row<T>(call, head, at.b, at.i);
}

template <typename T>
__device__ __forceinline__ void project_columns(const DriftCall& call) {
    __shared__ float most[kAtOnce][kWarps][kWarp], sum[kAtOnce][kWarps][kWarp];
    int block;
    const DriftHead& head = head_of(call, kColumns, &block);
    const statistics::Column own = statistics::column_of(head, block);
    const int b = own.b, j = own.j;
    const bool inside = own.inside;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int of = inside ? block_of(call, head, j) : 0;
    const Unit unit = unit_of(head);
    const float w = inside ? weight(call, head, b, j) : 0.0f;
    // Its marginal, of which each row brings 1.
    const double share = static_cast<double>(w) / head.plan_weights[2 * static_cast<long long>(b) + of];
    const float marginal = logf(static_cast<float>(head.generated * share));
    float* potentials = head.column_log + (static_cast<long long>(b) * head.targets + j) * call.temperatures;
#pragma unroll 1
    for (int r0 = 0; r0 < call.temperatures; r0 += kAtOnce) {
        if (!any_going(call, head, b, r0)) continue;
        Sum sums[kAtOnce];
        if (inside && w != 0.0f) {
            statistics::over_column<T>(call, head, unit, b, j, [&](int i, float n) {
                if (call.mask == kMaskRemove && i == j) return;
                const long long row = static_cast<long long>(b) * head.generated + i;
                const float least_n = head.row_least[row];
                const float* log = head.row_log + 2 * (row * call.temperatures + r0) + of;
#pragma unroll
                for (int k = 0; k < kAtOnce; ++k) {
                    if (r0 + k >= call.temperatures) break;
                    sums[k].add(log_ratio(call, n, least_n, call.rate[r0 + k]) - log[2 * k]);
                }
            });
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
            most[k][warp][lane] = sums[k].most;
            sum[k][warp][lane] = sums[k].sum;
        }
        __syncthreads();
        const int r = r0 + warp;
        if (warp >= kAtOnce || r >= call.temperatures || !inside || w == 0.0f) continue;
        if (!going(call, head, b, r, of)) continue;
        float all = -infinity(), total = 0.0f;
        for (int k = 0; k < kWarps; ++k) all = fmaxf(all, most[warp][k][lane]);
        for (int k = 0; k < kWarps; ++k) total += Sum{most[warp][k][lane], sum[warp][k][lane]}.relative_to(all);
        // Nothing brings a column without any pair to its marginal.
        if (total != 0.0f) potentials[r] = marginal - (all + logf(total));
    }
}

}  // namespace couplings

extern "C" __global__ void __launch_bounds__(kThreads, 2) start(const __grid_constant__ DriftCall call) {
    __shared__ double scratch[kWarps];
    int b;
    const DriftHead& head = head_of(call, kPlans, &b);
    double first = 0.0, second = 0.0;
#pragma unroll 1
    for (int j = threadIdx.x; j < head.targets; j += kThreads) {
        const float w = weight(call, head, b, j);
        if (couplings::block_of(call, head, j) == 0) {
            first += w;
        } else {
            second += w;
        }
        const long long column = static_cast<long long>(b) * head.targets + j;
        for (int r = 0; r < call.temperatures; ++r) {
            float* potential = head.column_log + column * call.temperatures + r;
            float c = 0.0f;
            if (call.coupling == kRowOnly) c = logf(w);
            if (call.coupling == kRowColumn) {
                // sqrt(w) K / sqrt(Z) with weights in the logits, w K / sqrt(Z) with weights after the softmaxes, of
                // which the row's goes out.
                const float sum = log_ratio(call, head.column_least[column], 0.0f, call.rate[r]) + *potential;
                c = (call.weights == kWeightLogit ? 0.5f : 1.0f) * logf(w) - 0.5f * sum;
                // Without any pair it adds to nothing.
                if (*potential == -infinity()) c = 0.0f;
            }
            // The queries of a field are no references where there are others.
            const bool query = call.field != kNoField && head.negatives > 0 && j < head.generated;
            *potential = w == 0.0f || query ? -infinity() : c;
        }
    }
    for (int block = 0; block < 2; ++block) {
        const double sum = block_sum(block == 0 ? first : second, scratch);
        if (threadIdx.x == 0) head.plan_weights[2 * static_cast<long long>(b) + block] = sum;
    }
    for (int k = threadIdx.x; k < 2 * call.temperatures; k += kThreads) {
        couplings::plan_of(call, head, b, 0)[k] = PlanState{0, 0.0f};
    }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) settle(const __grid_constant__ DriftCall call) {
    __shared__ double scratch[kWarps];
    int b;
    const DriftHead& head = head_of(call, kPlans, &b);
    for (int r = 0; r < call.temperatures; ++r) {
        for (int block = 0; block < couplings::blocks_of(call); ++block) {
            PlanState* plan = couplings::plan_of(call, head, b, r) + block;
            // The same for every thread of the block, for one writes it behind a barrier.
            if (plan->iterations != 0) continue;
            double error = 0.0;
            const long long first = static_cast<long long>(b) * head.generated;
#pragma unroll 1
            for (int i = threadIdx.x; i < head.generated; i += kThreads) {
                error += head.row_change[2 * ((first + i) * call.temperatures + r) + block];
            }
            error = block_sum(error, scratch) / head.generated;
            const bool near_enough = call.tolerance > 0.0f && error <= call.tolerance;
            if (threadIdx.x == 0 && (near_enough || call.iteration == call.iterations)) {
                *plan = PlanState{call.iteration, static_cast<float>(error)};
            }
        }
    }
}

#define COUPLINGS(TYPE, NAME)                                                            \
    extern "C" __global__ void __launch_bounds__(kThreads, 2)                            \
        project_rows_##NAME(const __grid_constant__ DriftCall call) {                    \
        couplings::project_rows<TYPE>(call);                                             \
    }                                                                                    \
    extern "C" __global__ void __launch_bounds__(kThreads, 2)                            \
        project_columns_##NAME(const __grid_constant__ DriftCall call) {                 \
        couplings::project_columns<TYPE>(call);                                          \
    }

COUPLINGS(float, f32)
COUPLINGS(Half, f16)
COUPLINGS(Bfloat, bf16)
