/* libcudrift: drift fields of drifting models (one-step generative models), on the CPU and on CUDA
 * devices.
 *
 * Made from crates/capi/src by `cargo xtask bindings`.
 *
 * Where a function answers a status, it is CUDRIFT_OK or another, and cudrift_message() then says, in one line, what was
 * wrong and what to do; nothing has been written, but for *plan, which is null.
 *
 * Pointers have the alignment of what they point to. Outputs overlap neither inputs nor one another. No call on the CPU
 * reads or writes through a pointer of the caller's after it returns; on a device, what is appended to a stream does.
 *
 * Threads: any function may be called from any thread. Calls of one plan wait for one another; phases in between of other
 * inputs are refused with CUDRIFT_ORDER, so let one thread at a time go through the phases of a plan. A drift takes as many
 * threads as there are cores, or as RAYON_NUM_THREADS says; they stay until the process ends, so the library is not to be
 * closed by dlclose. With cudrift_borrow_threads it takes the program's instead. A child that is forked off makes threads of
 * its own; CUDA works in no child of a process that used it.
 *
 * Bits: the same call gives the same bits on the same machine, whatever the threads and strides; a gradient that is asked
 * for alone may differ in its last digits from one beside force or goal.
 *
 * Until version 1.0 structs may change with the second number of cudrift_version(). */

#ifndef CUDRIFT_H
#define CUDRIFT_H

#include <stddef.h>
#include <stdint.h>

// Products run on tensor cores where samples are in half precision.
#define CUDRIFT_TENSOR_CORES_AUTO 0

// Products run on tensor cores: those of samples in f32 in TF32.
#define CUDRIFT_TENSOR_CORES_ALWAYS 1

// Products do not run on tensor cores.
#define CUDRIFT_TENSOR_CORES_NEVER 2

// Phase: distances, and the sums from which the scale follows.
#define CUDRIFT_PHASE_DISTANCES 0

// Phase: the scale from its sums alone, after they were changed.
#define CUDRIFT_PHASE_SCALE 1

// Phase: coefficients, and the sums from which force norms follow.
#define CUDRIFT_PHASE_NORMS 2

// Phase: force norms from their sums alone, after they were changed.
#define CUDRIFT_PHASE_THETA 3

// Phase: force, gradient and loss.
#define CUDRIFT_PHASE_FORCE 4

// Type of samples: IEEE binary32.
#define CUDRIFT_F32 0

// Type of samples: IEEE binary16.
#define CUDRIFT_F16 1

// Type of samples: the upper half of a binary32.
#define CUDRIFT_BF16 2

// Type of samples: IEEE binary64. For judging results: slow, on the CPU alone, in one call without phases.
#define CUDRIFT_F64 3

// Temperatures of one call at most.
#define CUDRIFT_MAX_TEMPERATURES 8

// Preset: the official JAX release.
#define CUDRIFT_OFFICIAL 0

// Preset: the paper's Algorithm 2 with its normalisation.
#define CUDRIFT_PAPER 1

// Preset: the official toy notebook.
#define CUDRIFT_NOTEBOOK 2

// Kernel: exp(-r / tau).
#define CUDRIFT_LAPLACE 0

// Kernel: exp(-r^2 / (2 tau^2)).
#define CUDRIFT_GAUSSIAN 1

// Kernel: Matern 3/2.
#define CUDRIFT_MATERN32 2

// Kernel: Matern 5/2.
#define CUDRIFT_MATERN52 3

// Kernel: Matern 7/2.
#define CUDRIFT_MATERN72 4

// Kernel: Matern 9/2.
#define CUDRIFT_MATERN92 5

// Kernel: 1 / sqrt(1 + (r / tau)^2).
#define CUDRIFT_PLUMMER 6

// Length scale of features: the mean distance, self pairs included.
#define CUDRIFT_SCALE_OFFICIAL 0

// Length scale of features: the mean distance without self pairs.
#define CUDRIFT_SCALE_PAPER 1

// Length scale of features: 1.
#define CUDRIFT_SCALE_RAW 2

// The distance of a sample to itself: self_mask_value is added.
#define CUDRIFT_MASK_ADD 0

// The distance of a sample to itself: self_mask_value takes its place.
#define CUDRIFT_MASK_SET 1

// The pair of a sample with itself is not there.
#define CUDRIFT_MASK_REMOVE 2

// The distance of a sample to itself is as it is.
#define CUDRIFT_MASK_KEEP 3

// Coupling: the geometric mean of the softmaxes over targets and over queries.
#define CUDRIFT_ROW_COLUMN 0

// Coupling: the softmax over targets.
#define CUDRIFT_ROW 1

// Coupling: rows of an entropic plan.
#define CUDRIFT_SINKHORN 2

// Form: one coupling with all targets.
#define CUDRIFT_JOINT 0

// Form: a coupling with negatives and one with positives.
#define CUDRIFT_SPLIT 1

// Affinity floor: of the product of both softmaxes.
#define CUDRIFT_FLOOR_PRODUCT 0

// Affinity floor: of the product of both sums.
#define CUDRIFT_FLOOR_NORMALIZER 1

// Affinity floor: none.
#define CUDRIFT_FLOOR_NONE 2

// Weights multiply affinities.
#define CUDRIFT_WEIGHTS_AFFINITY 0

// Logarithms of weights are added to logits.
#define CUDRIFT_WEIGHTS_LOGIT 1

// Weights are not looked at.
#define CUDRIFT_WEIGHTS_IGNORED 2

// A temperature's force is divided by its root mean square, at least sqrt(force_norm_floor).
#define CUDRIFT_NORM_RMS 0

// A temperature's force is not divided.
#define CUDRIFT_NORM_NONE 1

// A drift of one spec, shape and type on a device; it owns nothing there. It may be used from several threads and on several
// streams at a time, with a workspace for each.
typedef struct cudrift_cuda_plan cudrift_cuda_plan;

// A drift of one spec, shape and type, with its workspace.
typedef struct cudrift_plan cudrift_plan;

// How a call ended.
typedef uint32_t cudrift_status;

// A CUDA device.
typedef struct cudrift_cuda_gpu {
  // Its name, which ends with a 0.
  char name[256];
  // Bytes of memory.
  uint64_t memory;
  // Compute capability, first number.
  uint32_t major;
  // Second number.
  uint32_t minor;
  // The CUDA version that the driver supports, first number.
  uint32_t driver_major;
  // Second number.
  uint32_t driver_minor;
  // 1 where it is this project's simulator.
  uint32_t simulated;
  // 0.
  uint32_t reserved;
} cudrift_cuda_gpu;

// Every numeric choice of a drift. Fill it by cudrift_spec_preset and change fields, the coupling and the form by
// cudrift_spec_couple.
typedef struct cudrift_spec {
  // CUDRIFT_LAPLACE and so on.
  uint32_t kernel;
  // How many temperatures there are, 1 to 8.
  uint32_t temperature_count;
  // In units of the normalised distance.
  double temperatures[CUDRIFT_MAX_TEMPERATURES];
  // CUDRIFT_SCALE_OFFICIAL and so on.
  uint32_t feature_scale;
  // CUDRIFT_MASK_ADD and so on.
  uint32_t self_mask;
  // What CUDRIFT_MASK_ADD adds and CUDRIFT_MASK_SET sets.
  double self_mask_value;
  // Lower clip of squared distances.
  double min_squared_distance;
  // CUDRIFT_ROW_COLUMN and so on.
  uint32_t coupling;
  // CUDRIFT_JOINT or CUDRIFT_SPLIT.
  uint32_t form;
  // Of CUDRIFT_SINKHORN, at most.
  uint32_t sinkhorn_iterations;
  // CUDRIFT_FLOOR_PRODUCT and so on; CUDRIFT_FLOOR_NONE in the split form and for CUDRIFT_SINKHORN.
  uint32_t affinity_floor;
  // Of CUDRIFT_SINKHORN: how near to its marginals a plan ends earlier; 0 for never.
  double sinkhorn_tolerance;
  // The floor.
  double affinity_floor_value;
  // CUDRIFT_WEIGHTS_AFFINITY and so on.
  uint32_t weights;
  // CUDRIFT_NORM_RMS or CUDRIFT_NORM_NONE.
  uint32_t force_norm;
  // Of CUDRIFT_NORM_RMS.
  double force_norm_floor;
  // Pairs nearer than this share of their squared norms have distances from differences; 0 for none.
  double near_pairs;
  // Points are centred before products: 0 or 1.
  uint32_t center;
  // The distance of a sample to itself is a constant: 0 or 1.
  uint32_t constant_self_distance;
  // Global sums are f64: 0 or 1.
  uint32_t f64_sums;
  // 0.
  uint32_t reserved;
} cudrift_spec;

// B groups of G generated samples, N further negatives (may be 0) and P positives (may be 0), of D coordinates.
typedef struct cudrift_shape {
  // B
  int64_t groups;
  // G
  int64_t generated;
  // N
  int64_t negatives;
  // P
  int64_t positives;
  // D
  int64_t dim;
} cudrift_shape;

// Samples [B, n, D] of the plan's type.
typedef struct cudrift_points {
  // The first coordinate of the first sample; null where there are none.
  const void *data;
  // How many elements further the next group, sample and coordinate are: three numbers, which may be negative or 0. Null
  // where there are no gaps: then nothing is copied.
  const int64_t *strides;
} cudrift_points;

// The samples of a call, and their weights [B, n] without gaps, each null where all are 1.
typedef struct cudrift_inputs {
  // [B, G, D]
  struct cudrift_points generated;
  // [B, N, D]
  struct cudrift_points negatives;
  // [B, P, D]
  struct cudrift_points positives;
  // [B, G]
  const float *weight_generated;
  // [B, N]
  const float *weight_negatives;
  // [B, P]
  const float *weight_positives;
} cudrift_inputs;

// Where results go: device memory without gaps, each null where it is not wanted.
typedef struct cudrift_cuda_outputs {
  // The drift in units of the scaled coordinates, [B, G, D].
  float *force;
  // The gradient of the sum of the losses by the generated samples, [B, G, D].
  float *gradient;
  // Of each group, [B].
  float *loss;
} cudrift_cuda_outputs;

// What lies at the start of a workspace, in device memory, and may be read when the stream has come so far. The sums are
// those of cudrift_scale_sums and cudrift_force_sums: where a call is spread over devices they are added between phases.
typedef struct cudrift_cuda_scalars {
  // After CUDRIFT_PHASE_DISTANCES: sum_ij d_ij w_j
  double weighted_distance;
  // sum_ij w_j over the same pairs
  double weight;
  // sum_j w_j
  double any_weight;
  // How many coordinates and weights are NaN or infinite, or weights negative.
  double nonfinite;
  // How many groups.
  double groups;
  // After CUDRIFT_PHASE_NORMS: the squared force of each temperature.
  double squares[CUDRIFT_MAX_TEMPERATURES];
  // Of each temperature, over its queries: sums of the masses and effective sizes of negatives and positives.
  double rows[CUDRIFT_MAX_TEMPERATURES][4];
  // After CUDRIFT_PHASE_SCALE or the first phase of a run: the mean distance.
  double mean;
  // What a call reports as its scale.
  double scale;
  // What coordinates are divided by.
  double sigma;
  // What distances are divided by.
  double distance;
  // One over that.
  double inverse;
  // After CUDRIFT_PHASE_THETA or the second phase of a run: the mean square of each temperature's force.
  double loss_r[CUDRIFT_MAX_TEMPERATURES];
  // What each temperature's force is divided by.
  double theta[CUDRIFT_MAX_TEMPERATURES];
  // Of CUDRIFT_SINKHORN: the most iterations that a plan took.
  double iterations[CUDRIFT_MAX_TEMPERATURES];
  // And how near the plans came to their marginals, the worst.
  double marginal_error[CUDRIFT_MAX_TEMPERATURES];
} cudrift_cuda_scalars;

// Where results go. Arrays are the caller's, without gaps, each null where it is not wanted; numbers are written. The first
// four are of float, and of double where samples are CUDRIFT_F64.
typedef struct cudrift_outputs {
  // The drift in units of the scaled coordinates, [B, G, D].
  void *force;
  // The gradient of the sum of the losses by the generated samples, [B, G, D].
  void *gradient;
  // The frozen target x / sigma + force, [B, G, D].
  void *goal;
  // Of each group, [B].
  void *loss;
  // The mean square of each temperature's force, [R].
  double *loss_r;
  // Of CUDRIFT_SINKHORN, how near the plans of these groups came to their marginals, the worst of each temperature, [R].
  double *marginal_error;
  // And the most iterations that one took, [R].
  uint32_t *iterations;
  // The mean distance.
  double scale;
  // What coordinates are divided by.
  double sigma;
  // How many input coordinates are NaN or infinite; where it is not 0, results that they reach are NaN.
  int64_t nonfinite;
} cudrift_outputs;

// What the first phase sums up over its groups: doubles only. Sums of several workers, whose groups together are the call,
// are added field by field.
typedef struct cudrift_scale_sums {
  // sum_ij d_ij w_j
  double weighted_distance;
  // sum_ij w_j over the same pairs
  double weight;
  // sum_j w_j
  double any_weight;
  // How many coordinates are NaN or infinite.
  double nonfinite;
  // How many groups.
  double groups;
} cudrift_scale_sums;

// What the second phase sums up: the squared force of each temperature. Sums of several workers are added field by field.
typedef struct cudrift_force_sums {
  // Of each temperature, in raw coordinates.
  double squares[CUDRIFT_MAX_TEMPERATURES];
  // How many groups.
  double groups;
} cudrift_force_sums;

// Runs `job(data)` on as many threads at once as it has, up to `threads`, the caller's among them, and returns when all are
// through. `flags` is 0: GOMP_parallel of any OpenMP runtime is such a function.
typedef void (*cudrift_parallel)(void (*job)(void*), void *data, uint32_t threads, uint32_t flags);

// It is done.
#define CUDRIFT_OK 0

// An argument is not what it should be: a null pointer, a shape, a number, an unknown choice.
#define CUDRIFT_INVALID 1

// Memory does not suffice.
#define CUDRIFT_TOO_LARGE 2

// Phases of a plan were called out of order.
#define CUDRIFT_ORDER 3

// Anything else. Please report it.
#define CUDRIFT_INTERNAL 4

// There is no CUDA device, or a library or the kernels are not found.
#define CUDRIFT_NO_DEVICE 5

// The CUDA driver refused an operation, or reports that one before it failed.
#define CUDRIFT_DEVICE 6

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of this library, `MAJOR.MINOR.PATCH`.
const char *cudrift_version(void);

// The instruction set that the inner loops run on: `baseline`, `avx2` or `avx512`.
const char *cudrift_instruction_set(void);

// Says which CUDA device is the first, or why there is none.
//
// # Safety
// `gpu` is null or points to what its type says.
cudrift_status cudrift_cuda_probe(struct cudrift_cuda_gpu *gpu);

// Makes a plan for samples of CUDRIFT_F32, CUDRIFT_F16 or CUDRIFT_BF16 in the memory of a device, by its number, in its
// primary context (that of the runtime, of PyTorch and of JAX). The first plan of a device loads the kernels. Free it by
// cudrift_cuda_plan_free.
//
// # Safety
// Each pointer is null or points to what its type says.
cudrift_status cudrift_cuda_plan_new(const struct cudrift_spec *spec,
                                     const struct cudrift_shape *shape,
                                     uint32_t dtype,
                                     int32_t device,
                                     uint32_t tensor_cores,
                                     struct cudrift_cuda_plan **plan);

// Frees a plan; null is nothing. Work that it has appended to a stream goes on.
//
// # Safety
// `plan` is null or comes from cudrift_cuda_plan_new, and is not used hereafter.
void cudrift_cuda_plan_free(struct cudrift_cuda_plan *plan);

// How many bytes of device memory a call of the plan needs as its workspace; it begins at a multiple of 16.
//
// # Safety
// Each pointer is null or points to what its type says.
cudrift_status cudrift_cuda_plan_workspace_bytes(const struct cudrift_cuda_plan *plan, size_t *bytes);

// Appends the drift of a call to a stream (a CUstream of the plan's device; null is the default stream). It allocates nothing
// and does not wait, and may be captured in a graph. Samples, weights, outputs and workspace are device memory; the
// coordinates of a sample lie side by side. The workspace begins with a cudrift_cuda_scalars.
//
// # Safety
// Each pointer is null or points to what its type says; arrays are as long as the plan's shape says and stay so until the
// stream has come so far; outputs and workspace are nobody else's meanwhile; the stream is of the plan's device.
cudrift_status cudrift_cuda_plan_run(const struct cudrift_cuda_plan *plan,
                                     const struct cudrift_inputs *inputs,
                                     const struct cudrift_cuda_outputs *outputs,
                                     void *workspace,
                                     void *stream);

// Appends one phase to a stream, CUDRIFT_PHASE_DISTANCES and so on. In between, sums of several devices are added in the
// scalars of each workspace; without that, the second and the fourth phase are not needed.
//
// # Safety
// As cudrift_cuda_plan_run, and the phases before have run on the same workspace.
cudrift_status cudrift_cuda_plan_phase(const struct cudrift_cuda_plan *plan,
                                       const struct cudrift_inputs *inputs,
                                       const struct cudrift_cuda_outputs *outputs,
                                       void *workspace,
                                       void *stream,
                                       uint32_t phase);

// Waits for a stream and copies the scalars of a workspace to the host.
//
// # Safety
// As cudrift_cuda_plan_run; a run has been appended to this stream.
cudrift_status cudrift_cuda_plan_scalars(const struct cudrift_cuda_plan *plan,
                                         const void *workspace,
                                         void *stream,
                                         struct cudrift_cuda_scalars *scalars);

// The drift of a call, as cudrift_plan_run, by a plan that is kept for the next call of the same spec, shape and type.
//
// # Safety
// As cudrift_plan_run.
cudrift_status cudrift_drift(const struct cudrift_spec *spec,
                             const struct cudrift_shape *shape,
                             uint32_t dtype,
                             const struct cudrift_inputs *inputs,
                             struct cudrift_outputs *outputs);

// Frees the plans that cudrift_drift keeps.
void cudrift_forget(void);

// Makes a plan for samples of a type, CUDRIFT_F32 and so on, on the CPU. Free it by cudrift_plan_free.
//
// # Safety
// Each pointer is null or points to what its type says.
cudrift_status cudrift_plan_new(const struct cudrift_spec *spec,
                                const struct cudrift_shape *shape,
                                uint32_t dtype,
                                struct cudrift_plan **plan);

// Frees a plan; null is nothing.
//
// # Safety
// `plan` is null or comes from cudrift_plan_new, and is not used hereafter.
void cudrift_plan_free(struct cudrift_plan *plan);

// How many bytes the plan's workspace takes from its first call on; 0 for CUDRIFT_F64, which makes room as it goes.
//
// # Safety
// Each pointer is null or points to what its type says.
cudrift_status cudrift_plan_workspace_bytes(const struct cudrift_plan *plan, size_t *bytes);

// The drift of a call: all phases.
//
// # Safety
// Each pointer is null or points to what its type says; arrays are as long as the plan's shape says, and outputs are
// nobody else's.
cudrift_status cudrift_plan_run(const struct cudrift_plan *plan,
                                const struct cudrift_inputs *inputs,
                                struct cudrift_outputs *outputs);

// The first phase: what the scale of the call follows from.
//
// # Safety
// As cudrift_plan_run.
cudrift_status cudrift_plan_distances(const struct cudrift_plan *plan,
                                      const struct cudrift_inputs *inputs,
                                      struct cudrift_scale_sums *sums);

// The second phase, after the first of the same inputs: given the sums of all workers, the same bits for every one of them,
// what force norms follow from.
//
// # Safety
// As cudrift_plan_run.
cudrift_status cudrift_plan_coefficients(const struct cudrift_plan *plan,
                                         const struct cudrift_inputs *inputs,
                                         const struct cudrift_scale_sums *scale,
                                         struct cudrift_force_sums *sums);

// The last phase, after the second: given the sums of all workers, the results of these groups; outputs->nonfinite is that of
// all.
//
// # Safety
// As cudrift_plan_run.
cudrift_status cudrift_plan_contraction(const struct cudrift_plan *plan,
                                        const struct cudrift_inputs *inputs,
                                        const struct cudrift_scale_sums *scale,
                                        const struct cudrift_force_sums *force,
                                        struct cudrift_outputs *outputs);

// Fills `spec` with a preset: CUDRIFT_OFFICIAL, CUDRIFT_PAPER or CUDRIFT_NOTEBOOK.
//
// # Safety
// `spec` is null or points to a cudrift_spec.
cudrift_status cudrift_spec_preset(uint32_t preset, struct cudrift_spec *spec);

// Gives `spec` another coupling and form, and what goes with them: no affinity floor in the split form and for
// CUDRIFT_SINKHORN, and for that no self mask.
//
// # Safety
// `spec` is null or points to a cudrift_spec.
cudrift_status cudrift_spec_couple(struct cudrift_spec *spec, uint32_t coupling, uint32_t form);

// What was wrong with the last call of this thread that failed: one line, empty before. It lives until the next.
const char *cudrift_message(void);

// From now on calls of this thread run on `threads` threads that `parallel` lends, instead of libcudrift's own; null ends
// that. Threads of two runtimes get into one another's way: one's wait for work by spinning for milliseconds, which the
// other's would need. Short calls take one thread alone, because `parallel` waits for all of them. Results are the same bits
// for any number of threads. A child that is forked off has no such threads,
// and its calls run on threads of its own; of an OpenMP runtime that its parent has used it must borrow none.
//
// # Safety
// `parallel` is null or such a function, as long as it is lent.
cudrift_status cudrift_borrow_threads(cudrift_parallel parallel,
                                      uint32_t threads);

// The drift on the CPU as a handler of XLA's foreign function interface (an XLA_FFI_Handler).
//
// # Safety
// XLA's promise.
void *cudrift_xla(void *frame);

// The drift on CUDA devices as a handler of XLA's foreign function interface (an XLA_FFI_Handler).
//
// # Safety
// XLA's promise.
void *cudrift_xla_cuda(void *frame);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CUDRIFT_H */
