// Stages: tiles of samples in shared memory, kStageRow bytes of each, copied in while the previous stage is worked on.
// The 16-byte words of a row are swapped by the row's number, so that the same word of eight rows in turn falls into
// different banks.
#pragma once

#include "common.cuh"
#include "ptx/copy.cuh"

static_assert(kStages == 2, "stages alternate");
constexpr int kWord = 16;
constexpr int kWordsPerRow = kStageRow / kWord;

// Coordinates in a row of a stage, and in a word.
template <typename T>
constexpr int kStageDim = kStageRow / static_cast<int>(sizeof(T));
template <typename T>
constexpr int kWordDim = kWord / static_cast<int>(sizeof(T));

// A word of a row; `Bytes` is char, or const char.
template <typename Bytes>
__device__ __forceinline__ Bytes* word_of(Bytes* stage, int row, int word) {
    return stage + row * kStageRow + ((word ^ (row % kWordsPerRow)) * kWord);
}

// The same for lanes whose word is `word` or the next, and moves on by two at a time, in rows that stay the same modulo
// eight: where the row begins, and what the word is swapped by.
struct Lane {
    unsigned row;
    int swap;

    __device__ __forceinline__ Lane(const char* stage, int row_, int word)
        : row(shared_address(stage) + row_ * kStageRow), swap(row_ % kWordsPerRow ^ word) {}

    __device__ __forceinline__ unsigned word(int even) const { return row + (even ^ swap) * kWord; }
};

// Do all samples of a head begin at a whole word, so that words are copied and not elements?
template <typename T>
__device__ __forceinline__ bool whole_words(const DriftHead& head) {
    bool whole = head.dim % kWordDim<T> == 0;
    for (int kind = 0; kind < 3; ++kind) {
        const Samples& samples = head.samples[kind];
        whole &= reinterpret_cast<unsigned long long>(samples.data) % kWord == 0 && samples.group % kWordDim<T> == 0 &&
                 samples.sample % kWordDim<T> == 0;
    }
    return whole;
}

// Notes where targets j0, j0 + 1, ... of group b lie, for rows of stages; null beyond the last. A warp copies four rows
// of every 32, and looks after these alone, so that no other warp waits.
template <typename T>
__device__ __forceinline__ void locate(const void** sources, const DriftHead& head, int b, int j0, int rows) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    __syncwarp();
    for (int k = lane; k < rows / kWarps; k += kWarp) {
        const int row = 4 * warp + k % 4 + k / 4 * kWarp;
        sources[row] = j0 + row < head.targets ? target<T>(head, b, j0 + row) : nullptr;
    }
    __syncwarp();
}

// Begins to fill rows of a stage with the samples at `sources`, from coordinate d0 on; what is beyond the targets or
// the coordinates is zero. Of a copy of no bytes the address does not matter.
template <typename T>
__device__ __forceinline__ void fill(char* stage, const void* const* sources, const DriftHead& head, bool words,
                                     int rows, int d0) {
    static_assert(kThreads / kWordsPerRow == kWarp, "a warp has four rows of every 32");
    const int thread = here(static_cast<int>(threadIdx.x)), word = thread % kWordsPerRow, first = thread / kWordsPerRow;
    const int d = d0 + word * kWordDim<T>;
    char* to = word_of(stage, first, word);
    if (words) {
        const int bytes = d < head.dim ? kWord : 0;
        unsigned address = shared_address(to);
#pragma unroll 1
        for (int row = first; row < rows; row += kWarp, address += kWarp * kStageRow) {
            const T* source = static_cast<const T*>(sources[row]);
            copy_async(address, source + d, source != nullptr ? bytes : 0);
        }
        return;
    }
#pragma unroll 1
    for (int row = first; row < rows; row += kWarp, to += kWarp * kStageRow) {
        const T* source = static_cast<const T*>(sources[row]);
        union {
            T elements[kWordDim<T>];
            uint4 word;
        } copy;
        copy.word = make_uint4(0, 0, 0, 0);
        for (int k = 0; k < kWordDim<T>; ++k) {
            if (source != nullptr && d + k < head.dim) copy.elements[k] = source[d + k];
        }
        *reinterpret_cast<uint4*>(to) = copy.word;
    }
}
