/* The drift of samples in the host's memory, a step along it, and the loss before and after. */
#include <stdio.h>
#include <stdlib.h>

#include "cudrift.h"

enum { kGroups = 4, kSamples = 64, kDim = 16, kElements = kGroups * kSamples * kDim };

static void check(cudrift_status status) {
    if (status != CUDRIFT_OK) {
        fprintf(stderr, "%s\n", cudrift_message());
        exit(1);
    }
}

int main(void) {
    static float generated[kElements], positives[kElements], gradient[kElements];
    for (int k = 0; k < kElements; k++) {
        generated[k] = (float)rand() / (float)RAND_MAX;
        positives[k] = 2 + (float)rand() / (float)RAND_MAX;
    }
    cudrift_spec spec;
    check(cudrift_spec_preset(CUDRIFT_OFFICIAL, &spec));
    const cudrift_shape shape = {
        .groups = kGroups, .generated = kSamples, .positives = kSamples, .dim = kDim};
    const cudrift_inputs inputs = {.generated = {.data = generated}, .positives = {.data = positives}};
    cudrift_plan *plan = NULL;
    check(cudrift_plan_new(&spec, &shape, CUDRIFT_F32, &plan));
    for (int step = 0; step < 3; step++) {
        cudrift_outputs outputs = {.gradient = gradient};
        check(cudrift_plan_run(plan, &inputs, &outputs));
        printf("step %d: the mean distance is %.4f\n", step, outputs.scale);
        for (int k = 0; k < kElements; k++) {
            generated[k] -= 50 * gradient[k];
        }
    }
    cudrift_plan_free(plan);
    return 0;
}
