/* The drift of samples in a device's memory, on a stream of this program's: three calls in a row, nothing waited for between
 * them. */
#include <stdio.h>
#include <stdlib.h>

#include "cudrift.h"

/* The driver's functions that are used here, so that no toolkit is needed. */
extern int cuInit(unsigned flags);
extern int cuDeviceGet(int *device, int ordinal);
extern int cuDevicePrimaryCtxRetain(void **context, int device);
extern int cuCtxSetCurrent(void *context);
extern int cuStreamCreate(void **stream, unsigned flags);
extern int cuMemAlloc_v2(uint64_t *address, size_t bytes);
extern int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes);
extern int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes);

enum { kGroups = 4, kSamples = 64, kDim = 16, kElements = kGroups * kSamples * kDim };

static void check(cudrift_status status) {
    if (status != CUDRIFT_OK) {
        fprintf(stderr, "%s\n", cudrift_message());
        exit(1);
    }
}

static void driver(int status) {
    if (status != 0) {
        fprintf(stderr, "the CUDA driver answers %d\n", status);
        exit(1);
    }
}

static void *on_device(const void *from, size_t bytes) {
    uint64_t address = 0;
    driver(cuMemAlloc_v2(&address, bytes));
    if (from != NULL) {
        driver(cuMemcpyHtoD_v2(address, from, bytes));
    }
    return (void *)address;
}

int main(void) {
    cudrift_cuda_gpu gpu;
    check(cudrift_cuda_probe(&gpu)); /* says what is missing where something is */
    printf("%s\n", gpu.name);
    int device = 0;
    void *context = NULL, *stream = NULL;
    driver(cuInit(0));
    driver(cuDeviceGet(&device, 0));
    driver(cuDevicePrimaryCtxRetain(&context, device));
    driver(cuCtxSetCurrent(context));
    driver(cuStreamCreate(&stream, 1)); /* one that does not wait for the default stream */

    static float generated[kElements], positives[kElements], loss[kGroups];
    for (int k = 0; k < kElements; k++) {
        generated[k] = (float)rand() / (float)RAND_MAX;
        positives[k] = 2 + (float)rand() / (float)RAND_MAX;
    }
    cudrift_spec spec;
    check(cudrift_spec_preset(CUDRIFT_OFFICIAL, &spec));
    const cudrift_shape shape = {
        .groups = kGroups, .generated = kSamples, .positives = kSamples, .dim = kDim};
    cudrift_cuda_plan *plan = NULL;
    check(cudrift_cuda_plan_new(&spec, &shape, CUDRIFT_F32, 0, CUDRIFT_TENSOR_CORES_AUTO, &plan));
    size_t bytes = 0;
    check(cudrift_cuda_plan_workspace_bytes(plan, &bytes));
    void *workspace = on_device(NULL, bytes);
    const cudrift_inputs inputs = {.generated = {.data = on_device(generated, sizeof(generated))},
                                   .positives = {.data = on_device(positives, sizeof(positives))}};
    const cudrift_cuda_outputs outputs = {.gradient = on_device(NULL, sizeof(generated)),
                                          .loss = on_device(NULL, sizeof(loss))};
    for (int step = 0; step < 3; step++) {
        check(cudrift_cuda_plan_run(plan, &inputs, &outputs, workspace, stream));
    }
    cudrift_cuda_scalars scalars; /* waits for the stream */
    check(cudrift_cuda_plan_scalars(plan, workspace, stream, &scalars));
    driver(cuMemcpyDtoH_v2(loss, (uint64_t)outputs.loss, sizeof(loss)));
    printf("the mean distance is %.4f, the first loss %.4f\n", scalars.scale, (double)loss[0]);
    cudrift_cuda_plan_free(plan);
    return 0;
}
