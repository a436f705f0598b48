// Parameters of the drift kernels, shared with Rust: src/cuda/params.rs is made from this file by `cargo xtask bindings`.
// Built-in types only, so that NVRTC and bindgen need no header.
#pragma once

// Temperatures of one call at most.
constexpr int kMaxTemperatures = 8;

// Spec 1.2.
enum KernelKind { kLaplace = 0, kGaussian = 1, kMatern32 = 2, kMatern52 = 3 };
// Spec 2.2 (2) to (4), 2.5: where the length scale of the features comes from.
enum ScaleKind { kScaleOfficial = 0, kScalePaper = 1, kScaleRaw = 2 };
// Spec 2.2 (5), 2.5: what happens to the distance of a generated sample to itself.
enum MaskKind { kMaskAdd = 0, kMaskSet = 1, kMaskRemove = 2, kMaskKeep = 3 };
// Spec 2.2 (6), 2.7: the clip in the affinity.
enum FloorKind { kFloorProduct = 0, kFloorNormalizer = 1, kFloorNone = 2 };
// Spec 2.5: where target weights enter.
enum WeightKind { kWeightAffinity = 0, kWeightLogit = 1, kWeightIgnored = 2 };

// What a call reports, in device memory.
struct DriftScalars {
    // The mean distance (spec 2.2 (2)), what coordinates are divided by (3), what distances are divided by (4).
    double scale, sigma, distance;
    // Mean square of each temperature's force, and what that force is divided by (6).
    double f2[kMaxTemperatures], theta[kMaxTemperatures];
    // Coordinates that are NaN or infinite.
    double nonfinite;
};

// One drift call. Arrays are in C order; B groups, G generated, N negatives, P positives, T = G + N + P, D coordinates,
// R temperatures.
struct DriftParams {
    int groups, generated, negatives, positives, targets, dim, temperatures;
    KernelKind kernel;
    ScaleKind scale_kind;
    MaskKind mask;
    FloorKind floor_kind;
    WeightKind weights;
    // Whether forces are divided by their root mean square, whose square is at least norm_floor.
    int normalize;
    // Whether a sample's distance to itself is the constant sqrt(min_squared).
    int constant_self;
    float mask_value, min_squared, affinity_floor;
    double norm_floor;
    // 1 / R, 1 / (2 R^2), sqrt(3) / R or sqrt(5) / R, as the kernel has it.
    float rate[kMaxTemperatures];

    // Samples [B, G, D], [B, N, D], [B, P, D], and their weights, or null where all are 1.
    const void *generated_data, *negative_data, *positive_data;
    const float *generated_weight, *negative_weight, *positive_weight;

    // Workspace. distances [B, G, T]; the least normalised distance of each row [B, G] and column [B, T]; the logarithm of
    // each row's and column's sum of kernel values relative to that of the least distance, [B, G, R] and [B, T, R]; the
    // mass of the negatives and of the positives, [B, G, R, 2].
    float *distances, *row_least, *column_least, *row_log, *column_log, *mass;
    // One record per block: distances 3 doubles; norms one double, temperatures outermost; losses one double.
    double *distance_sums, *norm_sums, *loss_sums;
    DriftScalars *scalars;

    // Results, or null: force and gradient [B, G, D], loss [B].
    float *force, *gradient, *loss;
};
