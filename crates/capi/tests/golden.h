/* Golden cases: read and judged. A case is a file of tests/c.rs: eight int64 (B, G, N, P, D, R, which weights there are by
 * bits, 0), R doubles, samples and weights in float, then the expected loss [B], scale, sigma, loss_r [R], goal and gradient
 * [B, G, D] in double. BOUND is the largest error, as a share of the largest number of an array. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cudrift.h"

typedef struct {
    cudrift_shape shape;
    cudrift_spec spec;
    int64_t temperatures;
    cudrift_inputs inputs;
    double *loss, *scale, *sigma, *loss_r, *goal, *gradient;
} golden;

static inline void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, cudrift_message());
    exit(1);
}

#define OK(call)                     \
    do {                             \
        if ((call) != CUDRIFT_OK) {  \
            fail(#call);             \
        }                            \
    } while (0)

static inline void expect(int holds, const char *what) {
    if (!holds) {
        fail(what);
    }
}

static inline void *read_some(FILE *file, int64_t count, size_t size) {
    void *values = malloc((size_t)count * size + 1);
    expect(values != NULL && fread(values, size, (size_t)count, file) == (size_t)count, "the case is cut off");
    return values;
}

static inline golden read_case(const char *path) {
    FILE *file = fopen(path, "rb");
    expect(file != NULL, path);
    int64_t *n = read_some(file, 8, sizeof(int64_t));
    golden c = {.shape = {n[0], n[1], n[2], n[3], n[4]}, .temperatures = n[5]};
    OK(cudrift_spec_preset(CUDRIFT_OFFICIAL, &c.spec));
    double *temperatures = read_some(file, n[5], sizeof(double));
    c.spec.temperature_count = (uint32_t)n[5];
    memcpy(c.spec.temperatures, temperatures, (size_t)n[5] * sizeof(double));
    const int64_t b = n[0], counts[3] = {n[1], n[2], n[3]}, dim = n[4], weights = n[6];
    cudrift_points *points[3] = {&c.inputs.generated, &c.inputs.negatives, &c.inputs.positives};
    for (int k = 0; k < 3; k++) {
        points[k]->data = read_some(file, b * counts[k] * dim, sizeof(float));
    }
    const float **of[3] = {&c.inputs.weight_generated, &c.inputs.weight_negatives, &c.inputs.weight_positives};
    for (int k = 0; k < 3; k++) {
        *of[k] = weights >> k & 1 ? read_some(file, b * counts[k], sizeof(float)) : NULL;
    }
    const int64_t elements = b * counts[0] * dim;
    c.loss = read_some(file, b, sizeof(double));
    c.scale = read_some(file, 1, sizeof(double));
    c.sigma = read_some(file, 1, sizeof(double));
    c.loss_r = read_some(file, n[5], sizeof(double));
    c.goal = read_some(file, elements, sizeof(double));
    c.gradient = read_some(file, elements, sizeof(double));
    expect(fgetc(file) == EOF, "the case is longer than it says");
    fclose(file);
    free(temperatures);
    free(n);
    return c;
}

/* The greater of both, and infinity in the place of a NaN, which fmax would drop. */
static inline double most(double a, double b) { return isnan(a) || isnan(b) ? INFINITY : fmax(a, b); }

/* The largest error, as a share of the largest number that is expected. */
static inline double error_of(const float *got, const double *want, int64_t count) {
    double worst = 0, largest = 0;
    for (int64_t k = 0; k < count; k++) {
        worst = most(worst, fabs(got[k] - want[k]));
        largest = most(largest, fabs(want[k]));
    }
    return worst == 0 ? 0 : worst / largest;
}

static inline void judge(const char *what, const golden *c, const float *gradient, const float *goal, const float *loss,
                  const double *loss_r, double scale, double sigma) {
    const int64_t elements = c->shape.groups * c->shape.generated * c->shape.dim;
    double worst = error_of(gradient, c->gradient, elements);
    worst = most(worst, error_of(goal, c->goal, elements));
    worst = most(worst, error_of(loss, c->loss, c->shape.groups));
    worst = most(worst, most(fabs(scale / *c->scale - 1), fabs(sigma / *c->sigma - 1)));
    double off = 0, largest = 0;
    for (int64_t r = 0; r < c->temperatures; r++) {
        off = most(off, fabs(loss_r[r] - c->loss_r[r]));
        largest = most(largest, c->loss_r[r]);
    }
    worst = most(worst, off / largest);
    printf("%s: %.1e\n", what, worst);
    expect(worst <= BOUND, what);
}

static inline void *room(int64_t count, size_t size) {
    void *place = calloc((size_t)count + 1, size);
    expect(place != NULL, "memory");
    return place;
}

/* A call is refused by this status and one line that says this. */
static inline void refused(cudrift_status got, cudrift_status want, const char *says) {
    if (got != want || strstr(cudrift_message(), says) == NULL || strchr(cudrift_message(), '\n') != NULL) {
        fprintf(stderr, "status %u, expected %u with \"%s\"", got, want, says);
        fail("");
    }
}
