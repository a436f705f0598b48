// Parameters of the drift kernels, shared with Rust: src/cuda/params.rs is made from this file by `cargo xtask
// bindings`. Built-in types only, so that NVRTC and bindgen need no header.
#pragma once

// Temperatures of one call at most.
constexpr int kMaxTemperatures = 8;

// What is summed over the rows of each temperature: the mass of the negatives, that of the positives, the effective
// sample size of either (spec 6.6).
constexpr int kRowSums = 4;

// What is summed over the pairs of a call: d w, w, w with the pairs that do not count, and coordinates and weights that
// are not finite.
constexpr int kDistanceSums = 4;

// Threads of a block, of every kernel.
constexpr int kThreads = 256;
// Queries of a block's tile.
constexpr int kTile = 64;
// Targets of a block's tile of distances at most.
constexpr int kMaxColumns = 224;
// Targets at most all of whose pairs one block of tensor cores has: tiles of 32 by 32, two for each warp.
constexpr int kMaxAllPairs = 160;
// Bytes of a sample in a stage: 64 coordinates in half precision, 32 in f32.
constexpr int kStageRow = 128;
constexpr int kStages = 2;
// Temperatures that one pass over a group's targets serves at most, as registers allow; fewer in the plain rung on
// halves, and in the plain rung by the zero-sum identity.
constexpr int kMaxSlots = 3;
constexpr int kFewSlots = 2;
// Coordinates whose sums a block keeps while several tiles of targets go by.
constexpr int kRange = 128;
// Bytes by which rows of coefficients are longer than they need be: an odd number of 16-byte words, so that the rows of
// one ldmatrix fall into different banks.
constexpr int kCoefficientPad = 16;
// Elements by which rows of a tile of distances are longer, so that the rows of a warp's fragments fall into different
// banks but for two at a time.
constexpr int kTilePad = 8;

// Coefficients of a Matern kernel's polynomial.
constexpr int kPowers = 5;
// Spec 1.2.
enum KernelKind {
    kLaplace = 0,
    kGaussian = 1,
    kMatern32 = 2,
    kMatern52 = 3,
    kMatern72 = 4,
    kMatern92 = 5,
    kPlummer = 6,
};
// Spec 2.2 (2) to (4), 2.5: where the length scale of the features comes from.
enum ScaleKind { kScaleOfficial = 0, kScalePaper = 1, kScaleRaw = 2 };
// Spec 2.2 (5), 2.5: what happens to the distance of a generated sample to itself.
enum MaskKind { kMaskAdd = 0, kMaskSet = 1, kMaskRemove = 2, kMaskKeep = 3 };
// Spec 2.2 (6), 2.7: the clip in the affinity.
enum FloorKind { kFloorProduct = 0, kFloorNormalizer = 1, kFloorNone = 2 };
// Spec 2.5, 7.3: what makes the affinity.
enum CouplingKind { kRowColumn = 0, kRowOnly = 1, kSinkhorn = 2 };
// Spec 2.5: where target weights enter.
enum WeightKind { kWeightAffinity = 0, kWeightLogit = 1, kWeightIgnored = 2 };

// Which field a launch of the contraction is for, if any (spec 1.4): weights, or weights times b(r); and of which
// references, p less q, p, or q. p are the positives; q the negatives, or the generated samples where there are none.
enum FieldKind { kNoField = 0, kShift = 1, kScore = 2 };
enum FieldSide { kDifference = 0, kTowardsP = 1, kTowardsQ = 2 };

// Launches in which a head has a number of blocks of its own.
enum Launch { kDistances = 0, kJoin = 1, kRows = 2, kColumns = 3, kNorms = 4, kForce = 5, kLosses = 6, kPlans = 7, kLaunches = 8 };

// What a head reports, in device memory.
struct DriftScalars {
    // Sums, which are added where a head is spread over devices: of d w and of w over the pairs that count, of w
    // over all pairs, of coordinates and weights that are not finite, of groups; of each temperature's squared force,
    // and over its rows, of kRowSums.
    double weighted, weights, all_weights, nonfinite, groups;
    double squares[kMaxTemperatures], rows[kMaxTemperatures][kRowSums];
    // What follows from the first three: the mean distance (spec 2.2 (2)), what a call reports as its scale, what
    // coordinates are divided by (3), what distances are divided by (4), and its inverse.
    double mean, scale, sigma, distance, inverse;
    // What follows from the others: the mean square of each temperature's force, and what that force is divided by (6).
    double f2[kMaxTemperatures], theta[kMaxTemperatures];
    // Of each temperature the most iterations that a plan took, and the greatest error of a plan's rows.
    double iterations[kMaxTemperatures], error[kMaxTemperatures];
};

// A plan (spec 7.1): the iterations it took, 0 while it takes more, and the mean of |row sum / marginal - 1| after them.
struct PlanState {
    int iterations;
    float error;
};

// Samples of one kind: where they are, and how many elements a group and a sample are from the next.
struct Samples {
    const void *data;
    long long group, sample;
};

// One head: B groups of G generated, N negatives, P positives, T = G + N + P targets in D coordinates. Arrays but the
// samples are in C order.
struct DriftHead {
    int groups, generated, negatives, positives, targets, dim;
    // Generated samples and negatives.
    int repelling;
    // Distances: targets of a tile; slices of so many coordinates.
    int columns, slices, slice;
    // Contraction: targets of a tile; ranges of so many coordinates.
    int width, ranges, range;
    // Blocks of the launch that adds the distances up.
    int records;
    // The head's first block in each launch.
    unsigned first[kLaunches];

    // Generated samples [B, G, D], negatives [B, N, D], positives [B, P, D]; and their weights, or null where all are
    // 1.
    Samples samples[3];
    const float *sample_weights[3];

    // Workspace. distances [B, G, T], or null where they are formed anew at each use; partial, the squared distances
    // over one slice each, [slices, B, G, T]; the least normalised distance of each row [B, G] and column [B, T]; the
    // logarithm of each row's and column's sum of kernel values relative to that of the least distance, [B, G, R] and
    // [B, T, R]; of each row the mass of the negatives, that of the positives and the greatest coefficient,
    // [B, G, R, 3]. among, where norms come by the zero-sum identity, else null: the distances of the targets that are
    // not generated to all that are not before them, [B, T - G, T], on tensor cores with those to some that are.
    //
    // Where rows have mass 1: column_log is what is added to a column's logits, row_log the logarithm of each row's sum in
    // either block, [B, G, R, 2]; row_change how far each was from 1, [B, G, R, 2]; plans [B, R, 2]; plan_weights the sum
    // of the weights of either block, [B, 2].
    float *among, *distances, *partial, *row_least, *column_least, *row_log, *column_log, *mass, *row_change;
    PlanState *plans;
    double *plan_weights;
    // Of fields: each query's bandwidth [G], or null where they have one; of q and of p four numbers of each query,
    // [2, 4, G]: log mass, preconditioner, companion mass over mass, effective sample size. mass then has the greatest
    // weight times b(r) of q and of p, in units of the bandwidth.
    const float *bandwidths;
    float *numbers;
    // One record per block: distances kDistanceSums; norms one double and masses kRowSums, temperatures outermost;
    // losses one double.
    double *distance_sums, *norm_sums, *row_sums, *loss_sums;
    DriftScalars *scalars;

    // Results, or null: force and gradient [B, G, D], loss [B].
    float *force, *gradient, *loss;
};

// A call: what to compute, and the heads to compute it for.
struct DriftCall {
    int temperatures;
    KernelKind kernel;
    ScaleKind scale_kind;
    MaskKind mask;
    CouplingKind coupling;
    FloorKind floor_kind;
    WeightKind weights;
    // Whether each row has mass 1, and whether in each block; iterations of a plan, and the one that a launch belongs to.
    int coupled, split, iterations, iteration;
    float tolerance;
    // Whether a query's own sample is left out of q.
    FieldKind field;
    FieldSide side;
    int leave_out;
    // Whether forces are divided by their root mean square, whose square is at least norm_floor.
    int normalize;
    // Whether a sample's distance to itself is the constant sqrt(min_squared).
    int constant_self;
    // Whether every group is one block from its statistics to its norms, and how many temperatures' coefficients then
    // lie in shared memory at a time, where norms come from the forces and where by the identity.
    int fused, slots, identity_slots;
    float mask_value, min_squared;
    // sqrt of the floor of the product of softmaxes, or half the logarithm of that of the sums.
    float affinity_floor;
    // A pair of samples in half precision is formed anew where its squared distance is less than this part of their
    // squares.
    float near;
    double norm_floor;
    // 1 / R, 1 / (2 R^2), sqrt(3) / R or sqrt(5) / R, as the kernel has it.
    float rate[kMaxTemperatures];
    // Of a Matern kernel: P of spec 1.2, from the constant on.
    float polynomial[kPowers];
    // Whether the affinity is that of the official code: Laplace, both softmaxes, the floor of their product, weights
    // after them or none, no pair removed (with coefficients in half precision, R of 0.005 at least); and 1 / R in
    // units of log 2 for it.
    int official;
    float rate2[kMaxTemperatures];

    // Several heads lie in a table, in device memory; a single one is in the call itself, and the table null.
    int heads;
    const DriftHead *table;
    DriftHead head;
};

// The sliced Wasserstein field (src/sliced.rs): queries x [n, D], references p [m, D], directions thetas [L, D]. Workspace:
// center [D], gaps [L, n], keys and spare [L, n + m]. The result: velocity [n, D].
struct SlicedCall {
    int queries, references, directions, dim;
    const void *x, *p;
    const float *thetas;
    float *center, *gaps;
    unsigned long long *keys, *spare;
    float *velocity;
};

// Queries and landmarks of a block's tile of kernels.
constexpr int kProjectedSide = 32;

// The barycentre of all data by way of landmarks (src/projection.rs): queries x [n, D], landmarks [M, D], C [M, D + 1] of
// data relative to their mean `[D]`; what the denominator is at least. The result [n, D] is relative to the queries.
struct ProjectedCall {
    int queries, landmarks, dim;
    KernelKind kernel;
    float rate, least;
    float polynomial[kPowers];
    const float *x, *points, *folded, *mean;
    float *result;
};

// Generators and their training: kernels/random.cu, network.cu, features.cu, update.cu.

// The scalars of a run, in device memory: the steps done, the first step whose loss was not finite or 0; the loss that
// the step in progress has come to; loss, its moving average, length scale and norm of the gradient of the last step.
struct TrainProgress {
    unsigned long long step, diverged;
    double coming_loss;
    double loss, loss_ema, scale, grad_norm;
};

// What a field moves samples by (src/field.rs).
enum VelocityKind { kOneProduct = 0, kSharp = 1, kMmd = 2, kForwardKl = 3, kChiSquared = 4 };

// A head's field: groups of so many generated samples, `count` numbers in all. towards_p and towards_q [count], or the
// difference of both and null; of every group the field's numbers [2, 4, generated]; the logarithms of the references'
// weights in all. Results: the gradient [count], by way of V, and the loss, added to that of the heads before.
struct TransportCall {
    long long count;
    int generated, dim;
    VelocityKind velocity;
    float most, log_total_p, log_total_q;
    int normalize, first;
    double step, norm_floor;
    const float *towards_p, *towards_q, *numbers;
    float *gradient;
    double *squares;
    TrainProgress *progress;
};

// A drift after others (src/train/transport.rs, Lookahead): numbers of its gradient, `term`, and blocks; whether it is the
// first, and whether another follows, taken at `moved`; its weight, and how far along it that is. Where coordinates are in
// units of the scale, the root of D, else 0. Results: the sum of all in `total`, and x moved. `state`: the first term's
// length, the unit of its coordinates, its scale.
struct AheadCall {
    long long count;
    int blocks, first, more;
    double weight, step, root;
    const float *x, *term;
    float *moved, *total;
    double *squares, *state;
    TrainProgress *progress;
};

// A stream of random integers (src/rng.rs) at the step that comes.
struct RandomStream {
    unsigned key[2];
    unsigned purpose;
    const TrainProgress *progress;
};

// Things that are chosen from at most, in a block's shared memory.
constexpr int kMaxChoice = 4096;

// How class-conditional batches are made (src/train/classes.rs): extents, the law of the guidance scale, and where all
// lies. Data [count, dim] have data_labels; a class's last data are of_class [classes, class_buffer], and `counts` says
// how many there were. Results: the labels and logarithms of guidance scales `[labels]`, the numbers of the data that
// were chosen, [labels, positives] and [labels, negatives], their weights.
struct ClassCall {
    unsigned key[2];
    const TrainProgress *progress;
    long long count;
    int dim, classes, labels, generated, positives, negatives, loaded, class_buffer, buffer;
    float from, by, over, unguided;
    const unsigned *data_labels;
    unsigned *of_class;
    unsigned long long *counts;
    float *step_labels, *guidance, *weights;
    unsigned *chosen_positives, *chosen_negatives;
};

// src/data.rs.
enum ToyKind { kSwissRoll = 0, kCheckerboard = 1, kTwoMoons = 2, kRing = 3 };

// Rows of a tile whose columns a block adds up.
constexpr int kSumRows = 64;
// Biases and gains whose gradients one launch joins.
constexpr int kJoinVectors = 32;

// Where the sums of vectors lie among the columns, and where their gradients go.
struct JoinColumns {
    int vectors, tiles, columns;
    int first[kJoinVectors], count[kJoinVectors];
    long long to[kJoinVectors];
};

// What a class, as a whole number, and the logarithm of a guidance scale add to so many rows each: a row of the table, and
// the vector times it. Null where there are none.
struct Conditions {
    int rows, classes;
    const float *labels, *guidance, *table, *vector;
};

// Patches of size x size pixels of images [height, width, channels] (src/features).
struct PatchExtents {
    int size, height, width, channels;
};

// Blocks that take squares of a gradient at most.
constexpr int kSquareBlocks = 512;

// Hyper-parameters of the update (src/train/optimizer.rs), and 1 - beta and 1 - EMA decay as they are rounded there.
struct UpdateCall {
    long long count;
    int blocks;
    unsigned long long warmup;
    double learning_rate, beta1, beta2, weight_decay, clip_norm;
    float first, second, rest1, rest2, epsilon, ema_rest;
    float *parameters, *grad, *moment1, *moment2, *ema;
    double *squares;
    TrainProgress *progress;
};
