// The sliced Wasserstein field, spec 8.9 (src/sliced.rs): L directions, n queries, m references, D coordinates.
//
//   sliced_center    the mean of the queries, a coordinate a block: the field does not change with the origin, and far
//                    from it projections would have few digits
//   sliced_project   projections of queries and references, as keys that sort like them
//   sliced_sort      each direction's queries, and its references, by a block each
//   sliced_gaps      how far each query is from the quantile that its rank has, [L, n]
//   sliced_velocity  D / L times the gaps along their directions
//
// Numerics: projections and velocities are f32 sums in order. Keys order as src/cpu/sliced.rs does, so that the same
// projections have the same ranks; a NaN comes last.
// Mapping: products by tiles of 32 x 32, four results a thread. A sort makes runs of 32 within warps and merges them, to
// 2048 in shared memory and beyond that in global: every key counts, by bisection, those of the neighbouring run that come
// before it. Keys differ, so that there is one order.
// Cost: up to 2048 keys are read and written once; from there on each doubling reads 8 n log2 n bytes from caches.
// Limits: sm_80 and later; n and m below 2^31.
#include "common.cuh"

namespace sliced {

using Key = unsigned long long;

constexpr int kSide = 32;

// Sorts as total order of floats does, then by number.
__device__ __forceinline__ Key key_of(float value, int number) {
    const unsigned bits = __float_as_uint(value);
    const unsigned order = bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
    return static_cast<Key>(order) << 32 | static_cast<unsigned>(number);
}

__device__ __forceinline__ float value_of(Key key) {
    const unsigned order = static_cast<unsigned>(key >> 32);
    return __uint_as_float(order ^ (order >> 31 != 0 ? 0x80000000u : 0xffffffffu));
}

// Keys that a block sorts in shared memory at a time.
constexpr int kChunk = 2048;

// Passes of the sort of so many keys that are in global memory; after an odd number they are in the spare buffer.
__device__ __forceinline__ int passes(int count) {
    int result = 0;
    for (long long run = kChunk; run < count; run *= 2) ++result;
    return result;
}

// The keys of a warp, ascending by lane: Batcher's bitonic sort.
__device__ __forceinline__ Key warp_sorted(Key key) {
    const int lane = threadIdx.x % kWarp;
    // Unrolled it spills on sm_90.
#pragma unroll 1
    for (int size = 2; size <= kWarp; size *= 2) {
#pragma unroll
        for (int stride = size / 2; stride > 0; stride /= 2) {
            const Key other = __shfl_xor_sync(kAllLanes, key, stride);
            const bool lesser = ((lane & stride) == 0) == ((lane & size) == 0);
            if ((other < key) == lesser) key = other;
        }
    }
    return key;
}

// Runs of `run` keys become runs of twice as many.
template <typename Index>
__device__ __forceinline__ void merge(const Key* from, Key* to, Index count, Index run) {
    for (Index i = static_cast<Index>(threadIdx.x); i < count; i += kThreads) {
        const Index pair = i & ~(2 * run - 1);
        const Index other = (i & run) != 0 ? pair : pair + run;
        const Key key = from[i];
        const Index begin = other < count ? other : count;
        Index low = begin, high = other + run < count ? other + run : count;
        while (low < high) {
            const Index middle = (low + high) / 2;
            if (from[middle] < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        to[pair + (i & (run - 1)) + (low - begin)] = key;
    }
}

// Of direction l: the keys of the queries, then those of the references.
__device__ __forceinline__ const Key* sorted(const SlicedCall& call, int l, bool references) {
    const int count = references ? call.references : call.queries;
    const Key* keys = passes(count) % 2 == 0 ? call.keys : call.spare;
    return keys + static_cast<long long>(l) * (call.queries + call.references) + (references ? call.queries : 0);
}

// sum_k a(row, k) b(column, k) of a tile, four rows a thread: rows threadIdx.x / 32 + 8 e, column threadIdx.x % 32.
template <typename A, typename B>
__device__ __forceinline__ void product(int inner, A a, B b, bool by_rows, float (&sums)[4]) {
    __shared__ float left[kSide][kSide + 1], right[kSide][kSide + 1];
    const int lane = threadIdx.x % kSide, first = threadIdx.x / kSide;
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[e] = 0.0f;
    for (int start = 0; start < inner; start += kSide) {
        __syncthreads();
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int other = first + 8 * e;
            // Lanes along what lies side by side.
            const int row = by_rows ? lane : other, k = by_rows ? other : lane;
            left[row][k] = start + k < inner ? a(row, start + k) : 0.0f;
            right[row][k] = start + k < inner ? b(row, start + k) : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < kSide; ++k) {
            const float y = right[lane][k];
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[e] = fmaf(left[first + 8 * e][k], y, sums[e]);
        }
    }
}

template <typename T>
__device__ __forceinline__ void center(const SlicedCall& call) {
    __shared__ double scratch[kWarps];
    const int k = static_cast<int>(blockIdx.x);
    const T* x = static_cast<const T*>(call.x);
    double sum = 0.0;
    for (long long i = threadIdx.x; i < call.queries; i += kThreads) sum += to_float(x[i * call.dim + k]);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) call.center[k] = static_cast<float>(sum / call.queries);
}

template <typename T>
__device__ __forceinline__ void project(const SlicedCall& call) {
    const int points = call.queries + call.references, across = tiles_of(points, kSide);
    const int l0 = static_cast<int>(blockIdx.x) / across * kSide, j0 = static_cast<int>(blockIdx.x) % across * kSide;
    const T *x = static_cast<const T*>(call.x), *p = static_cast<const T*>(call.p);
    float sums[4];
    product(
        call.dim,
        [&](int row, int k) {
            return l0 + row < call.directions ? call.thetas[static_cast<long long>(l0 + row) * call.dim + k] : 0.0f;
        },
        [&](int row, int k) {
            const long long j = j0 + row;
            if (j >= points) return 0.0f;
            const T v = j < call.queries ? x[j * call.dim + k] : p[(j - call.queries) * call.dim + k];
            return to_float(v) - call.center[k];
        },
        false, sums);
    const int j = j0 + static_cast<int>(threadIdx.x) % kSide;
    if (j >= points) return;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        const int l = l0 + static_cast<int>(threadIdx.x) / kSide + 8 * e;
        if (l >= call.directions) continue;
        call.keys[static_cast<long long>(l) * points + j] = key_of(sums[e], j < call.queries ? j : j - call.queries);
    }
}

}  // namespace sliced

extern "C" __global__ void __launch_bounds__(kThreads) sliced_sort(const __grid_constant__ SlicedCall call) {
    const bool references = blockIdx.x % 2 != 0;
    const int count = references ? call.references : call.queries;
    const long long offset = static_cast<long long>(blockIdx.x / 2) * (call.queries + call.references) +
                             (references ? call.queries : 0);
    __shared__ sliced::Key chunk[2][sliced::kChunk];
    sliced::Key *from = call.keys + offset, *to = call.spare + offset;
    for (int start = 0; start < count; start += sliced::kChunk) {
        const int size = count - start < sliced::kChunk ? count - start : sliced::kChunk;
        for (int i = static_cast<int>(threadIdx.x); i < tiles_of(size, kWarp) * kWarp; i += kThreads) {
            const sliced::Key key = sliced::warp_sorted(i < size ? from[start + i] : ~0ull);
            if (i < size) chunk[0][i] = key;
        }
        __syncthreads();
        int which = 0;
        for (int run = kWarp; run < size; run *= 2) {
            sliced::merge(chunk[which], chunk[1 - which], size, run);
            which = 1 - which;
            __syncthreads();
        }
        for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) from[start + i] = chunk[which][i];
        __syncthreads();
    }
    for (long long run = sliced::kChunk; run < count; run *= 2) {
        sliced::merge(from, to, static_cast<long long>(count), run);
        __syncthreads();
        sliced::Key* const other = from;
        from = to;
        to = other;
    }
}

extern "C" __global__ void __launch_bounds__(kThreads) sliced_gaps(const __grid_constant__ SlicedCall call) {
    const long long at = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (at >= static_cast<long long>(call.directions) * call.queries) return;
    const int l = static_cast<int>(at / call.queries), rank = static_cast<int>(at % call.queries);
    const sliced::Key key = sliced::sorted(call, l, false)[rank];
    const sliced::Key* to = sliced::sorted(call, l, true);
    // (rank + 1/2) m / n - 1/2 in halves of 1 / n.
    const long long unit = 2ll * call.queries;
    const long long place = (2ll * rank + 1) * call.references - call.queries;
    const long long below = place < 0 ? 0 : place / unit, last = call.references - 1;
    const bool end = place < 0 || below >= last;
    const long long first = below < last ? below : last;
    float goal = sliced::value_of(to[first]);
    const long long rest = end ? 0 : place % unit;
    if (rest != 0) {
        const float share = static_cast<float>(static_cast<double>(rest) / static_cast<double>(unit));
        goal = fmaf(share, sliced::value_of(to[first + 1]), (1.0f - share) * goal);
    }
    const int i = static_cast<int>(key & 0xffffffffu);
    call.gaps[static_cast<long long>(l) * call.queries + i] = goal - sliced::value_of(key);
}

extern "C" __global__ void __launch_bounds__(kThreads) sliced_velocity(const __grid_constant__ SlicedCall call) {
    const int across = tiles_of(call.dim, sliced::kSide);
    const int i0 = static_cast<int>(blockIdx.x) / across * sliced::kSide;
    const int d0 = static_cast<int>(blockIdx.x) % across * sliced::kSide;
    float sums[4];
    sliced::product(
        call.directions,
        [&](int row, int l) {
            return i0 + row < call.queries ? call.gaps[static_cast<long long>(l) * call.queries + i0 + row] : 0.0f;
        },
        [&](int row, int l) {
            return d0 + row < call.dim ? call.thetas[static_cast<long long>(l) * call.dim + d0 + row] : 0.0f;
        },
        true, sums);
    const int d = d0 + static_cast<int>(threadIdx.x) % sliced::kSide;
    if (d >= call.dim) return;
    const float factor = static_cast<float>(call.dim) / static_cast<float>(call.directions);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        const int i = i0 + static_cast<int>(threadIdx.x) / sliced::kSide + 8 * e;
        if (i < call.queries) call.velocity[static_cast<long long>(i) * call.dim + d] = factor * sums[e];
    }
}

// Directions of unit length from normals, a direction a thread, with the bits of src/sliced.rs.
extern "C" __global__ void __launch_bounds__(kThreads) unit_directions(int count, int dim, float* directions) {
    const int l = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
    if (l >= count) return;
    float* theta = directions + static_cast<long long>(l) * dim;
    float sum = 0.0f;
    for (int k = 0; k < dim; ++k) sum = __fadd_rn(sum, __fmul_rn(theta[k], theta[k]));
    const float norm = __fsqrt_rn(sum);
    for (int k = 0; k < dim; ++k) theta[k] = __fdiv_rn(theta[k], norm);
}

#define SLICED(TYPE, NAME)                                                                                              \
    extern "C" __global__ void __launch_bounds__(kThreads) sliced_center_##NAME(const __grid_constant__ SlicedCall call) { \
        sliced::center<TYPE>(call);                                                                                    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kThreads) sliced_project_##NAME(const __grid_constant__ SlicedCall call) { \
        sliced::project<TYPE>(call);                                                                                   \
    }

SLICED(float, f32)
SLICED(Half, f16)
SLICED(Bfloat, bf16)
