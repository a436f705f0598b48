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

// Begins to fill rows of a stage with targets j0, j0 + 1, ... of group b, from coordinate d0 on; what is beyond the
// targets or the coordinates is zero.
template <typename T>
__device__ __forceinline__ void fill(char* stage, const DriftHead& head, bool words, int b, int j0, int rows, int d0) {
    const int word = threadIdx.x % kWordsPerRow;
    const int d = d0 + word * kWordDim<T>;
    for (int row = threadIdx.x / kWordsPerRow; row < rows; row += kThreads / kWordsPerRow) {
        const int j = j0 + row;
        char* to = word_of(stage, row, word);
        const bool inside = j < head.targets && d < head.dim;
        const T* from = inside ? target<T>(head, b, j) + d : static_cast<const T*>(head.samples[0].data);
        if (words) {
            copy_async(to, from, inside ? kWord : 0);
            continue;
        }
        union {
            T elements[kWordDim<T>];
            uint4 word;
        } copy;
        copy.word = make_uint4(0, 0, 0, 0);
        for (int k = 0; k < kWordDim<T>; ++k) {
            if (inside && d + k < head.dim) copy.elements[k] = from[k];
        }
        *reinterpret_cast<uint4*>(to) = copy.word;
    }
}
