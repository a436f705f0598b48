// From affinities to the coefficients of a product: what is shared by group.cu and contraction.cu.
#pragma once

#include "product.cuh"

namespace contraction {

// Columns of a row of a tile that a lane has.
constexpr int kPerLane = kMaxColumns / kWarp;

// The official affinity with coefficients in half precision: half the exponent is one product, for what cancels in it
// is below their last digit. The host asks for it where 1 / R is at most 200, so that exponents err by some 2e-5.
template <bool kOfficial, typename C>
constexpr bool kShort = kOfficial && sizeof(C) == 2;

// What a row or column adds to half the exponent, in powers of two.
__device__ __forceinline__ float half_exponent(const DriftCall& call, int k, float least_n, float log) {
    return fmaf(0.5f * call.rate2[k], least_n, -kHalfLog2e * log);
}

// What affinities need of the columns of a tile, in shared memory: [width], [width], [R, width].
struct Columns {
    float *weight, *least, *log;
    int width;

    // `at` is behind all else in the block's shared memory.
    __device__ __forceinline__ Columns(float* at, int width_)
        : weight(at), least(at + width_), log(at + 2 * width_), width(width_) {}

    // Takes the weights of targets j0, j0 + 1, ... of group b, 0 beyond the last.
    __device__ __forceinline__ void weigh(const DriftCall& call, const DriftHead& head, int b, int j0) const {
        for (int column = threadIdx.x; column < width; column += kThreads) {
            weight[column] = j0 + column < head.targets ? ::weight(call, head, b, j0 + column) : 0.0f;
        }
    }

    // Takes their statistics as well, as half exponents where these serve.
    __device__ __forceinline__ void take(const DriftCall& call, const DriftHead& head, int b, int j0,
                                         bool halves) const {
        weigh(call, head, b, j0);
        for (int column = threadIdx.x; column < width; column += kThreads) {
            const bool is = j0 + column < head.targets;
            const long long at = static_cast<long long>(b) * head.targets + j0 + column;
            least[column] = is && !call.coupled ? head.column_least[at] : 0.0f;
            for (int k = 0; k < call.temperatures; ++k) {
                const float value = is ? head.column_log[at * call.temperatures + k] : 0.0f;
                log[k * width + column] = halves ? half_exponent(call, k, least[column], value) : value;
            }
        }
    }

    __device__ __forceinline__ Norms norms(int column, int k, float row_least, float row_log) const {
        return {row_least, least[column], row_log, log[k * width + column]};
    }
};

// What turns sums into forces: of a row, the power of two that its coefficients were divided by, and the sum of what
// was rounded; of all, 1 / sigma, what turns a force into a gradient, and 1 / theta.
struct Rows {
    float unit[kMaxSlots][kTile], rest[kMaxSlots][kTile];
    float scale, slope, inverse_theta[kMaxTemperatures];

    // One thread divides for all, in f64.
    __device__ __forceinline__ void start(const DriftCall& call, const DriftHead& head, bool thetas) {
        if (threadIdx.x == 0) {
            const double sigma = head.scalars->sigma;
            scale = static_cast<float>(1.0 / sigma);
            slope = static_cast<float>(-2.0 / (static_cast<double>(head.generated) * head.dim * sigma));
        }
        if (thetas && threadIdx.x < call.temperatures) {
            inverse_theta[threadIdx.x] = static_cast<float>(1.0 / head.scalars->theta[threadIdx.x]);
        }
    }

    // What sums are multiplied by once the rounding's rest times x is off.
    __device__ __forceinline__ float factor(int slot, int row) const { return unit[slot][row] * scale; }
};

// Two sums without what the rounding left over.
__device__ __forceinline__ float2 without(float rest, float2 sum, float2 x) {
    return make_float2(fmaf(-rest, x.x, sum.x), fmaf(-rest, x.y, sum.y));
}

// The power of two next below x, and its inverse; 1 where there is none.
__device__ __forceinline__ float power_below(float x, float* inverse) {
    const unsigned bits = __float_as_uint(x) & 0x7f800000u;
    const bool usable = bits > 0u && bits < 0x7f000000u;
    *inverse = usable ? __uint_as_float(0x7f000000u - bits) : 1.0f;
    return usable ? __uint_as_float(bits) : 1.0f;
}

// The normalised distance of a pair; infinite where it has no affinity, or is none.
template <typename T>
__device__ __forceinline__ float pair(const DriftCall& call, const DriftHead& head, const Unit& unit, int b, int i,
                                      int j, float w) {
    if (j >= head.targets || removed(call, i, j, w)) return infinity();
    return normalized<T>(call, head, unit, b, i, j);
}

// Two neighbouring coordinates of a row of a stage, the first of them even.
template <typename T>
__device__ __forceinline__ float2 pair_of(const char* stage, int row, int d) {
    const char* at = word_of(stage, row, d / kWordDim<T>) + d % kWordDim<T> * static_cast<int>(sizeof(T));
    if constexpr (sizeof(T) == 4) {
        return *reinterpret_cast<const float2*>(at);
    } else {
        const unsigned bits = *reinterpret_cast<const unsigned*>(at);
        return make_float2(to_float(T{static_cast<unsigned short>(bits)}),
                           to_float(T{static_cast<unsigned short>(bits >> 16)}));
    }
}

}  // namespace contraction
