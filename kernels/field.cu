// Fields of spec 1.4 beside their vectors: of each query and reference set the logarithm of the kernel's mass, the
// preconditioner sum w / b(r) (1.5, T2), the companion mass over the kernel's (1.5, T4), the effective sample size (6.6),
// and the greatest w and w b(r). Weights w are the row softmax of couplings.cu, whose row logarithms are there; vectors are
// force_* with w or w b(r) for coefficients.
//
// Numerics: f32 sums over at most T / 32 terms a lane, then a tree. NaN reaches every sum.
// Mapping: one warp a query, lanes along the references.
// Cost: an exponential and a few divisions a pair; distances are read once, or formed anew.
// Limits: sm_80 and later.
#include "statistics.cuh"

namespace field {

// 1 / b, k# / k at distance n and rate c, in units of the length scale, and b; spec 1.3, 1.5.
struct Slopes {
    float b, inverse, sharp;
};

__device__ __forceinline__ Slopes slopes(KernelKind kernel, float n, float rate) {
    const float unit = 1.0f / rate;
    switch (kernel) {
        case kLaplace:
            return {score_weight(kernel, n, rate), n * unit, fmaf(n, unit, unit * unit)};
        case kGaussian: {
            const float square = 0.5f * unit;
            return {score_weight(kernel, n, rate), square, square};
        }
        case kPlummer: {
            const float z = n * rate;
            return {score_weight(kernel, n, rate), fmaf(z, z, 1.0f) * unit * unit, 1.0f};
        }
        default: {
            const Quotients quotients = matern_quotients(kernel, n * rate);
            return {rate / quotients.at * rate, quotients.at * unit * unit, quotients.after * unit * unit};
        }
    }
}

// What one reference set gives a query.
struct Sums {
    float alpha = 0.0f, sharp = 0.0f, squares = 0.0f, peak = 0.0f;

    __device__ __forceinline__ void add(float w, const Slopes& of) {
        alpha = fmaf(w, of.inverse, alpha);
        sharp = fmaf(w, of.sharp, sharp);
        squares = fmaf(w, w, squares);
        peak = fmaxf(peak, w * of.b);
    }

    __device__ __forceinline__ void reduce() {
        alpha = warp_sum(alpha);
        sharp = warp_sum(sharp);
        squares = warp_sum(squares);
        peak = lanes_most<kWarp>(peak);
    }
};

template <typename T>
__device__ __forceinline__ void rows(const DriftCall& call) {
    int block;
    const DriftHead& head = head_of(call, kRows, &block);
    statistics::Row at;
    if (!statistics::row_of(head, block, &at)) return;
    const int i = at.i, lane = threadIdx.x % kWarp;
    const Unit unit = row_unit(call, head, i);
    const float rate = call.rate[0], least_n = head.row_least[i];
    // Of q and of p.
    const float logs[2] = {head.row_log[2 * i], head.row_log[2 * i + 1]};
    Sums sums[2];
    statistics::over_row<T>(call, head, unit, 0, i, [&](int j, int kind, int, float n) {
        const float c = head.column_log[j];
        if (c == -infinity() || left_out(call, head, i, j)) return;
        const bool second = kind == 2;
        const float w = expf(log_ratio(call, n, least_n, rate) + (c - (second ? logs[1] : logs[0])));
        const Slopes of = slopes(call.kernel, n, rate);
        if (second) {
            sums[1].add(w, of);
        } else {
            sums[0].add(w, of);
        }
    });
    sums[0].reduce();
    sums[1].reduce();
    if (lane >= 2) return;
    const bool second = lane == 1;
    const float log = second ? logs[1] : logs[0];
    const float alpha = second ? sums[1].alpha : sums[0].alpha, sharp = second ? sums[1].sharp : sums[0].sharp;
    const float squares = second ? sums[1].squares : sums[0].squares, peak = second ? sums[1].peak : sums[0].peak;
    const float h = head.bandwidths == nullptr ? 1.0f : head.bandwidths[i];
    const long long n = head.generated;
    float* numbers = head.numbers + 4 * lane * n + i;
    numbers[0] = log + log_ratio(call, least_n, 0.0f, rate);
    numbers[n] = alpha * h * h;
    // Plummer's companion mass is infinite wherever there is any mass.
    numbers[2 * n] = call.kernel == kPlummer ? sharp * infinity() : sharp * h * h;
    numbers[3 * n] = 1.0f / squares;
    // In units of the length scale.
    head.mass[3 * i + lane] = peak;
}

}  // namespace field

#define FIELD(TYPE, NAME)                                                                                              \
    extern "C" __global__ void __launch_bounds__(kThreads, 2) field_rows_##NAME(const __grid_constant__ DriftCall call) { \
        field::rows<TYPE>(call);                                                                                       \
    }

FIELD(float, f32)
FIELD(Half, f16)
FIELD(Bfloat, bf16)
