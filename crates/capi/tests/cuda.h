/* A CUDA device by the driver's functions, and golden cases in its memory. */
#include <dlfcn.h>

#define BOUND 1e-5
#include "golden.h"

/* The driver's functions, from whatever libcuda the loader finds. */
static int (*init)(unsigned), (*get_device)(int *, int), (*retain)(void **, int), (*set_current)(void *);
static int (*get_current)(void **), (*allocate)(uint64_t *, size_t), (*release)(uint64_t);
static int (*to_device)(uint64_t, const void *, size_t), (*to_host)(void *, uint64_t, size_t);
static int (*make_stream)(void **, unsigned), (*wait)(void *), (*free_stream)(void *);

#define LOAD(pointer, name) load((void **)&(pointer), name)
#define DRIVER(call) expect((call) == 0, #call)

static inline void load(void **pointer, const char *name) {
    static void *library = NULL;
    if (library == NULL) {
        library = dlopen("libcuda.so", RTLD_NOW);
        expect(library != NULL, "libcuda.so");
    }
    *pointer = dlsym(library, name);
    expect(*pointer != NULL, name);
}

static inline void load_all(void) {
    LOAD(init, "cuInit");
    LOAD(get_device, "cuDeviceGet");
    LOAD(retain, "cuDevicePrimaryCtxRetain");
    LOAD(set_current, "cuCtxSetCurrent");
    LOAD(get_current, "cuCtxGetCurrent");
    LOAD(allocate, "cuMemAlloc_v2");
    LOAD(release, "cuMemFree_v2");
    LOAD(to_device, "cuMemcpyHtoD_v2");
    LOAD(to_host, "cuMemcpyDtoH_v2");
    LOAD(make_stream, "cuStreamCreate");
    LOAD(wait, "cuStreamSynchronize");
    LOAD(free_stream, "cuStreamDestroy_v2");
}

static inline void *on_device(const void *from, int64_t bytes) {
    uint64_t at = 0;
    DRIVER(allocate(&at, (size_t)bytes + 1));
    if (from != NULL && bytes > 0) {
        DRIVER(to_device(at, from, (size_t)bytes));
    }
    return (void *)at;
}

static inline void given_back(const void *at) { DRIVER(release((uint64_t)at)); }

static inline cudrift_inputs inputs_on_device(const golden *c, int64_t first, int64_t groups) {
    const cudrift_shape s = c->shape;
    const int64_t counts[3] = {s.generated, s.negatives, s.positives}, size = sizeof(float);
    const cudrift_points *from[3] = {&c->inputs.generated, &c->inputs.negatives, &c->inputs.positives};
    const float *weights[3] = {c->inputs.weight_generated, c->inputs.weight_negatives, c->inputs.weight_positives};
    cudrift_inputs to = {0};
    cudrift_points *points[3] = {&to.generated, &to.negatives, &to.positives};
    const float **weighed[3] = {&to.weight_generated, &to.weight_negatives, &to.weight_positives};
    for (int k = 0; k < 3; k++) {
        const int64_t samples = counts[k] * s.dim;
        points[k]->data = on_device((const float *)from[k]->data + first * samples, groups * samples * size);
        if (weights[k] != NULL) {
            *weighed[k] = on_device(weights[k] + first * counts[k], groups * counts[k] * size);
        }
    }
    return to;
}

static inline void inputs_given_back(const cudrift_inputs *inputs) {
    given_back(inputs->generated.data);
    given_back(inputs->negatives.data);
    given_back(inputs->positives.data);
    const float *weights[3] = {inputs->weight_generated, inputs->weight_negatives, inputs->weight_positives};
    for (int k = 0; k < 3; k++) {
        if (weights[k] != NULL) {
            given_back(weights[k]);
        }
    }
}

/* Makes the first device's primary context current. */
static inline void begin_device(void) {
    load_all();
    void *context = NULL;
    int device = 0;
    DRIVER(init(0));
    DRIVER(get_device(&device, 0));
    DRIVER(retain(&context, device));
    DRIVER(set_current(context));
}
