/* Runs golden cases through libcudrift on the CPU, and what it should refuse. */
#include <dirent.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BOUND 2e-6
#include "golden.h"

/* Samples with gaps, and coordinates from the last to the first. */
static cudrift_points spread(const cudrift_points *from, int64_t groups, int64_t count, int64_t dim, int64_t strides[3]) {
    const int64_t sample = 2 * dim + 1, group = count * sample + 3;
    float *to = room(groups * group, sizeof(float));
    for (int64_t b = 0; b < groups; b++) {
        for (int64_t i = 0; i < count; i++) {
            for (int64_t k = 0; k < dim; k++) {
                to[b * group + i * sample + 2 * (dim - 1 - k)] = ((const float *)from->data)[(b * count + i) * dim + k];
            }
        }
    }
    strides[0] = group;
    strides[1] = sample;
    strides[2] = -2;
    return (cudrift_points){to + 2 * (dim - 1), strides};
}

typedef struct {
    const golden *c;
    cudrift_plan *plan;
    float *gradient;
} worker;

static void *work(void *argument) {
    worker *own = argument;
    for (int round = 0; round < 3; round++) {
        cudrift_outputs outputs = {.gradient = own->gradient};
        OK(cudrift_plan_run(own->plan, &own->c->inputs, &outputs));
    }
    return NULL;
}

static cudrift_points from_group(const cudrift_points *points, int64_t group, int64_t count, int64_t dim) {
    return (cudrift_points){(const float *)points->data + group * count * dim, NULL};
}

static double *widened(const void *from, int64_t count) {
    double *to = room(count, sizeof(double));
    for (int64_t k = 0; k < count; k++) {
        to[k] = ((const float *)from)[k];
    }
    return to;
}

static void near(const char *what, const double *got, const double *want, int64_t count) {
    double worst = 0, largest = 0;
    for (int64_t k = 0; k < count; k++) {
        worst = most(worst, fabs(got[k] - want[k]));
        largest = most(largest, fabs(want[k]));
    }
    expect(worst <= 1e-11 * largest, what);
}

/* Samples in double: the reference. */
static void in_doubles(const golden *c) {
    const cudrift_shape s = c->shape;
    const int64_t rows = s.groups * s.dim, elements = rows * s.generated;
    cudrift_inputs inputs = c->inputs;
    inputs.generated.data = widened(inputs.generated.data, elements);
    inputs.negatives.data = widened(inputs.negatives.data, rows * s.negatives);
    inputs.positives.data = widened(inputs.positives.data, rows * s.positives);
    double *gradient = room(elements, sizeof(double)), *goal = room(elements, sizeof(double));
    double *loss = room(s.groups, sizeof(double)), loss_r[CUDRIFT_MAX_TEMPERATURES];
    cudrift_outputs outputs = {.gradient = gradient, .goal = goal, .loss = loss, .loss_r = loss_r};
    OK(cudrift_drift(&c->spec, &s, CUDRIFT_F64, &inputs, &outputs));
    near("gradient in double", gradient, c->gradient, elements);
    near("goal in double", goal, c->goal, elements);
    near("loss in double", loss, c->loss, s.groups);
    near("loss_r in double", loss_r, c->loss_r, c->temperatures);
    near("sigma in double", &outputs.sigma, c->sigma, 1);
}

typedef struct {
    void (*job)(void *);
    void *data;
} lent;

static void *lend_one(void *argument) {
    const lent *own = argument;
    own->job(own->data);
    return NULL;
}

static int times_lent; /* by the main thread alone */
static uint32_t last_asked;
static int short_calls, long_calls; /* by one thread, and by all */

/* As many threads as are asked for. */
static void lend(void (*job)(void *), void *data, uint32_t threads, uint32_t flags) {
    expect(threads <= 8 && flags == 0, "what is asked of the lender");
    pthread_t others[8];
    lent own = {job, data};
    times_lent++;
    last_asked = threads;
    for (uint32_t k = 1; k < threads; k++) {
        expect(pthread_create(&others[k], NULL, lend_one, &own) == 0, "a thread");
    }
    job(data);
    for (uint32_t k = 1; k < threads; k++) {
        pthread_join(others[k], NULL);
    }
}

/* Fewer threads than are asked for, as OpenMP lends within a parallel region. */
static void lend_itself(void (*job)(void *), void *data, uint32_t threads, uint32_t flags) {
    (void)threads, (void)flags;
    times_lent++;
    job(data);
}

static void lend_nothing(void (*job)(void *), void *data, uint32_t threads, uint32_t flags) {
    (void)job, (void)data, (void)threads, (void)flags;
}

/* Threads that the program lends give the bits that libcudrift's own did. */
static void borrowed(const golden *c, const cudrift_plan *plan) {
    const struct {
        cudrift_parallel parallel;
        uint32_t threads;
    } lenders[] = {{lend, 1}, {lend, 2}, {lend, 5}, {lend_itself, 4}};
    const int64_t elements = c->shape.groups * c->shape.generated * c->shape.dim;
    float *gradient = room(elements, sizeof(float)), *own = room(elements, sizeof(float));
    cudrift_outputs outputs = {.gradient = own};
    OK(cudrift_plan_run(plan, &c->inputs, &outputs));
    outputs.gradient = gradient;
    for (int k = 0; k < 4; k++) {
        OK(cudrift_borrow_threads(lenders[k].parallel, lenders[k].threads));
        for (int round = 0; round < 10; round++) {
            const int before = times_lent;
            memset(gradient, 0, (size_t)elements * sizeof(float));
            OK(cudrift_plan_run(plan, &c->inputs, &outputs));
            expect(times_lent == before + 1, "the program's threads, once");
            if (lenders[k].parallel == lend && lenders[k].threads > 1) {
                expect(last_asked == 1 || last_asked == lenders[k].threads, "one thread or all");
                *(last_asked == 1 ? &short_calls : &long_calls) += 1;
            }
            expect(memcmp(gradient, own, (size_t)elements * sizeof(float)) == 0, "lent threads change nothing");
        }
    }
    /* Refusals come back from there, and a lender that does nothing is found out. */
    cudrift_inputs wrong = c->inputs;
    wrong.generated.data = NULL;
    refused(cudrift_plan_run(plan, &wrong, &outputs), CUDRIFT_INVALID, "generated");
    refused(cudrift_borrow_threads(lend, 0), CUDRIFT_INVALID, "threads is 0");
    OK(cudrift_borrow_threads(lend_nothing, 2));
    refused(cudrift_plan_run(plan, &c->inputs, &outputs), CUDRIFT_INTERNAL, "ran nothing");
    OK(cudrift_borrow_threads(lend, 2));
    /* A child has no threads of its parent's. */
    const int before = times_lent;
    const pid_t child = fork();
    expect(child >= 0, "a child");
    if (child == 0) {
        OK(cudrift_plan_run(plan, &c->inputs, &outputs));
        expect(memcmp(gradient, own, (size_t)elements * sizeof(float)) == 0, "a child's result");
        _exit(times_lent == before ? 0 : 1);
    }
    int status = 1;
    expect(waitpid(child, &status, 0) == child && status == 0, "the child's own threads");
    OK(cudrift_borrow_threads(NULL, 0));
    OK(cudrift_plan_run(plan, &c->inputs, &outputs));
    expect(times_lent == before, "nothing is borrowed any more");
    free(gradient);
    free(own);
}

static void run(const char *path) {
    golden c = read_case(path);
    const cudrift_shape s = c.shape;
    const int64_t elements = s.groups * s.generated * s.dim;
    float *gradient = room(elements, sizeof(float)), *goal = room(elements, sizeof(float));
    float *again = room(elements, sizeof(float)), *loss = room(s.groups, sizeof(float));
    double loss_r[CUDRIFT_MAX_TEMPERATURES];

    cudrift_plan *plan = NULL;
    OK(cudrift_plan_new(&c.spec, &c.shape, CUDRIFT_F32, &plan));
    size_t bytes = 0;
    OK(cudrift_plan_workspace_bytes(plan, &bytes));
    expect(bytes > 0, "a workspace");
    cudrift_outputs outputs = {.gradient = gradient, .goal = goal, .loss = loss, .loss_r = loss_r};
    OK(cudrift_plan_run(plan, &c.inputs, &outputs));
    judge(path, &c, gradient, goal, loss, loss_r, outputs.scale, outputs.sigma);
    expect(outputs.nonfinite == 0, "finite inputs");

    /* The same numbers elsewhere give the same bits. */
    cudrift_inputs gaps = c.inputs;
    int64_t strides[3][3];
    gaps.generated = spread(&c.inputs.generated, s.groups, s.generated, s.dim, strides[0]);
    gaps.negatives = spread(&c.inputs.negatives, s.groups, s.negatives, s.dim, strides[1]);
    gaps.positives = spread(&c.inputs.positives, s.groups, s.positives, s.dim, strides[2]);
    outputs = (cudrift_outputs){.gradient = gradient, .goal = goal};
    OK(cudrift_plan_run(plan, &c.inputs, &outputs));
    outputs = (cudrift_outputs){.gradient = again, .goal = goal};
    OK(cudrift_plan_run(plan, &gaps, &outputs));
    expect(memcmp(gradient, again, (size_t)elements * sizeof(float)) == 0, "strides change nothing");
    borrowed(&c, plan);

    /* Two workers with a part of the groups each, who add up their sums. */
    if (s.groups > 1) {
        const int64_t first[3] = {0, s.groups / 2, s.groups};
        cudrift_plan *plans[2];
        cudrift_inputs own[2];
        cudrift_scale_sums scale = {0}, scale_of[2];
        cudrift_force_sums force = {{0}, 0}, force_of[2];
        for (int w = 0; w < 2; w++) {
            cudrift_shape part = s;
            part.groups = first[w + 1] - first[w];
            OK(cudrift_plan_new(&c.spec, &part, CUDRIFT_F32, &plans[w]));
            own[w] = (cudrift_inputs){
                from_group(&c.inputs.generated, first[w], s.generated, s.dim),
                from_group(&c.inputs.negatives, first[w], s.negatives, s.dim),
                from_group(&c.inputs.positives, first[w], s.positives, s.dim),
                c.inputs.weight_generated ? c.inputs.weight_generated + first[w] * s.generated : NULL,
                c.inputs.weight_negatives ? c.inputs.weight_negatives + first[w] * s.negatives : NULL,
                c.inputs.weight_positives ? c.inputs.weight_positives + first[w] * s.positives : NULL,
            };
            OK(cudrift_plan_distances(plans[w], &own[w], &scale_of[w]));
            scale.weighted_distance += scale_of[w].weighted_distance;
            scale.weight += scale_of[w].weight;
            scale.any_weight += scale_of[w].any_weight;
            scale.groups += scale_of[w].groups;
            scale.nonfinite += scale_of[w].nonfinite;
        }
        for (int w = 0; w < 2; w++) {
            OK(cudrift_plan_coefficients(plans[w], &own[w], &scale, &force_of[w]));
            force.groups += force_of[w].groups;
            for (int r = 0; r < CUDRIFT_MAX_TEMPERATURES; r++) {
                force.squares[r] += force_of[w].squares[r];
            }
        }
        for (int w = 0; w < 2; w++) {
            const int64_t at = first[w] * s.generated * s.dim;
            outputs = (cudrift_outputs){
                .gradient = gradient + at, .goal = goal + at, .loss = loss + first[w], .loss_r = loss_r};
            OK(cudrift_plan_contraction(plans[w], &own[w], &scale, &force, &outputs));
            cudrift_plan_free(plans[w]);
        }
        judge("  two workers", &c, gradient, goal, loss, loss_r, outputs.scale, outputs.sigma);
    }

    /* Threads: two share a plan, one has its own. */
    cudrift_plan *other = NULL;
    OK(cudrift_plan_new(&c.spec, &c.shape, CUDRIFT_F32, &other));
    pthread_t threads[3];
    worker workers[3];
    for (int k = 0; k < 3; k++) {
        workers[k] = (worker){&c, k < 2 ? plan : other, room(elements, sizeof(float))};
        expect(pthread_create(&threads[k], NULL, work, &workers[k]) == 0, "a thread");
    }
    for (int k = 0; k < 3; k++) {
        pthread_join(threads[k], NULL);
        expect(error_of(workers[k].gradient, c.gradient, elements) <= BOUND, "a thread's result");
        free(workers[k].gradient);
    }
    cudrift_plan_free(other);

    /* A child that is forked off after all that: by the parent's plan, and in one call. */
    const pid_t child = fork();
    expect(child >= 0, "a child");
    outputs = (cudrift_outputs){.gradient = gradient};
    OK(cudrift_plan_run(plan, &c.inputs, &outputs));
    expect(error_of(gradient, c.gradient, elements) <= BOUND, "a process's result");
    OK(cudrift_drift(&c.spec, &c.shape, CUDRIFT_F32, &c.inputs, &outputs));
    expect(error_of(gradient, c.gradient, elements) <= BOUND, "a process's result in one call");
    if (child == 0) {
        _exit(0);
    }
    int status = 1;
    expect(waitpid(child, &status, 0) == child && status == 0, "the child");
    cudrift_plan_free(plan);
    in_doubles(&c);
}

static void what_cannot_be(void) {
    cudrift_spec spec;
    cudrift_plan *plan = NULL;
    const float x[6] = {0, 0, 1, 0, 0.5f, -1}, nan = NAN;
    cudrift_shape shape = {1, 3, 0, 3, 2};
    refused(cudrift_spec_preset(3, &spec), CUDRIFT_INVALID, "preset is 3");
    refused(cudrift_spec_preset(0, NULL), CUDRIFT_INVALID, "null");
    OK(cudrift_spec_preset(CUDRIFT_NOTEBOOK, &spec));
    refused(cudrift_plan_new(NULL, &shape, 0, &plan), CUDRIFT_INVALID, "spec is a null");
    refused(cudrift_plan_new(&spec, NULL, 0, &plan), CUDRIFT_INVALID, "shape is a null");
    refused(cudrift_plan_new(&spec, &shape, 0, NULL), CUDRIFT_INVALID, "plan is a null");
    refused(cudrift_plan_new(&spec, &shape, 7, &plan), CUDRIFT_INVALID, "dtype is 7");
    cudrift_spec changed = spec;
    changed.kernel = 99;
    refused(cudrift_plan_new(&changed, &shape, 0, &plan), CUDRIFT_INVALID, "kernel is 99");
    changed = spec;
    changed.temperature_count = 9;
    refused(cudrift_plan_new(&changed, &shape, 0, &plan), CUDRIFT_INVALID, "temperature_count is 9");
    changed = spec;
    changed.temperatures[0] = nan;
    refused(cudrift_plan_new(&changed, &shape, 0, &plan), CUDRIFT_INVALID, "emperature");
    changed = spec;
    changed.coupling = CUDRIFT_SINKHORN;
    refused(cudrift_plan_new(&changed, &shape, 0, &plan), CUDRIFT_INVALID, "affinity_floor");
    cudrift_shape wrong = {1, 0, 0, 3, 2};
    refused(cudrift_plan_new(&spec, &wrong, 0, &plan), CUDRIFT_INVALID, "G");
    wrong = (cudrift_shape){-1, 3, 0, 3, 2};
    refused(cudrift_plan_new(&spec, &wrong, 0, &plan), CUDRIFT_INVALID, "groups is -1");
    wrong = (cudrift_shape){INT64_MAX, INT64_MAX, 0, 3, 2};
    refused(cudrift_plan_new(&spec, &wrong, 0, &plan), CUDRIFT_TOO_LARGE, "too large");
    expect(plan == NULL, "no plan where one is refused");

    OK(cudrift_plan_new(&spec, &shape, CUDRIFT_F32, &plan));
    cudrift_inputs inputs = {.generated = {x, NULL}, .positives = {x, NULL}};
    float gradient[6];
    cudrift_outputs outputs = {.gradient = gradient};
    cudrift_scale_sums scale;
    cudrift_force_sums force = {{0}, 1};
    refused(cudrift_plan_run(NULL, &inputs, &outputs), CUDRIFT_INVALID, "plan is a null");
    refused(cudrift_plan_run(plan, NULL, &outputs), CUDRIFT_INVALID, "inputs is a null");
    refused(cudrift_plan_run(plan, &inputs, NULL), CUDRIFT_INVALID, "outputs is a null");
    refused(cudrift_plan_workspace_bytes(plan, NULL), CUDRIFT_INVALID, "bytes is a null");
    refused(cudrift_plan_distances(plan, &inputs, NULL), CUDRIFT_INVALID, "sums is a null");
    inputs.positives.data = NULL;
    refused(cudrift_plan_run(plan, &inputs, &outputs), CUDRIFT_INVALID, "positives.data is a null");
    inputs.positives.data = (const char *)x + 1;
    refused(cudrift_plan_run(plan, &inputs, &outputs), CUDRIFT_INVALID, "multiple of 4");
    inputs.positives.data = x;
    inputs.weight_positives = &nan;
    shape.positives = 1;
    cudrift_plan *one = NULL;
    OK(cudrift_plan_new(&spec, &shape, CUDRIFT_F32, &one));
    refused(cudrift_plan_run(one, &inputs, &outputs), CUDRIFT_INVALID, "weight_positives");
    inputs.weight_positives = NULL;
    cudrift_plan_free(one);
    /* Phases in order. */
    OK(cudrift_plan_distances(plan, &inputs, &scale));
    refused(cudrift_plan_contraction(plan, &inputs, &scale, &force, &outputs), CUDRIFT_ORDER, "");
    refused(cudrift_plan_coefficients(plan, &inputs, NULL, &force), CUDRIFT_INVALID, "scale is a null");
    cudrift_inputs others = inputs;
    others.generated.data = gradient;
    refused(cudrift_plan_coefficients(plan, &others, &scale, &force), CUDRIFT_ORDER, "other inputs");
    /* A first phase that is refused is none; the same strides elsewhere are the same inputs, others are not. */
    int64_t here[3] = {6, 2, 1}, there[3] = {6, 2, 1};
    others = inputs;
    others.generated.strides = here;
    refused(cudrift_plan_distances(plan, &others, NULL), CUDRIFT_INVALID, "sums is a null");
    refused(cudrift_plan_coefficients(plan, &others, &scale, &force), CUDRIFT_ORDER, "other inputs");
    OK(cudrift_plan_distances(plan, &others, &scale));
    others.generated.strides = there;
    OK(cudrift_plan_coefficients(plan, &others, &scale, &force));
    there[0] = 4;
    refused(cudrift_plan_coefficients(plan, &others, &scale, &force), CUDRIFT_ORDER, "other inputs");
    OK(cudrift_plan_distances(plan, &inputs, &scale));
    cudrift_scale_sums forgotten = scale;
    forgotten.groups = 0;
    refused(cudrift_plan_coefficients(plan, &inputs, &forgotten, &force), CUDRIFT_INVALID, "scale.groups is 0");
    OK(cudrift_plan_coefficients(plan, &inputs, &scale, &force));
    force.groups = 0;
    refused(cudrift_plan_contraction(plan, &inputs, &scale, &force, &outputs), CUDRIFT_INVALID, "force.groups is 0");
    force.groups = 1;
    outputs.loss = (float *)((char *)gradient + 2);
    refused(cudrift_plan_contraction(plan, &inputs, &scale, &force, &outputs), CUDRIFT_INVALID, "outputs");
    outputs.loss = NULL;
    OK(cudrift_plan_contraction(plan, &inputs, &scale, &force, &outputs));
    OK(cudrift_plan_run(plan, &inputs, &outputs));
    cudrift_plan_free(plan);
    cudrift_plan_free(NULL);
    const double wide[6] = {0, 0, 1, 0, 0.5, -1};
    shape.positives = 3;
    inputs = (cudrift_inputs){.generated = {wide, NULL}, .positives = {wide, NULL}};
    OK(cudrift_plan_new(&spec, &shape, CUDRIFT_F64, &plan));
    refused(cudrift_plan_distances(plan, &inputs, &scale), CUDRIFT_INVALID, "no phases");
    cudrift_plan_free(plan);
    shape.positives = 1;
    inputs = (cudrift_inputs){.generated = {x, NULL}, .positives = {x, NULL}};
    refused(cudrift_drift(&spec, &shape, CUDRIFT_F32, NULL, &outputs), CUDRIFT_INVALID, "inputs is a null");
    refused(cudrift_drift(&spec, NULL, CUDRIFT_F32, &inputs, &outputs), CUDRIFT_INVALID, "shape is a null");
    cudrift_forget();
    /* A plan: what does not go with it is taken away, and how near it came is written. */
    OK(cudrift_spec_couple(&spec, CUDRIFT_SINKHORN, CUDRIFT_SPLIT));
    expect(spec.self_mask == CUDRIFT_MASK_KEEP && spec.affinity_floor == CUDRIFT_FLOOR_NONE, "what goes with plans");
    spec.sinkhorn_iterations = 7;
    shape.positives = 3;
    OK(cudrift_plan_new(&spec, &shape, CUDRIFT_F32, &plan));
    double marginal_error[1] = {-1};
    uint32_t iterations[1] = {0};
    outputs = (cudrift_outputs){.gradient = gradient, .marginal_error = marginal_error, .iterations = iterations};
    OK(cudrift_plan_run(plan, &inputs, &outputs));
    expect(iterations[0] == 7 && marginal_error[0] >= 0, "convergence");
    cudrift_plan_free(plan);
    refused(cudrift_spec_couple(&spec, 3, CUDRIFT_JOINT), CUDRIFT_INVALID, "coupling is 3");
    OK(cudrift_spec_preset(CUDRIFT_NOTEBOOK, &spec));
    spec.reserved = 1;
    refused(cudrift_plan_new(&spec, &shape, 0, &plan), CUDRIFT_INVALID, "reserved is 1");
    expect(plan == NULL, "null where there is no plan");
    spec.reserved = 0;
    /* A batch of no group. */
    shape = (cudrift_shape){0, 3, 0, 3, 2};
    OK(cudrift_plan_new(&spec, &shape, CUDRIFT_F32, &plan));
    inputs = (cudrift_inputs){0};
    outputs = (cudrift_outputs){0};
    OK(cudrift_plan_run(plan, &inputs, &outputs));
    expect(outputs.scale == 0, "the scale of nothing");
    cudrift_plan_free(plan);
}

/* Pages of this process in memory. */
static long resident(void) {
    long all = 0, here = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    expect(file != NULL && fscanf(file, "%ld %ld", &all, &here) == 2, "/proc/self/statm");
    fclose(file);
    return here;
}

/* Ten thousand calls, plans and refusals leave nothing; what a call of four samples takes is printed. */
static void ten_thousand_calls(void) {
    const float x[8] = {0, 0, 1, 0, 0.5f, -1, 2, 2};
    const cudrift_shape shape = {1, 4, 0, 4, 2};
    /* With gaps, so that every call makes a copy; one sample for all positives. */
    const int64_t strides[3] = {0, -2, -1}, same[3] = {0, 0, 1};
    const cudrift_inputs inputs = {.generated = {x + 7, strides}, .positives = {x, same}};
    cudrift_spec spec;
    cudrift_plan *plan = NULL;
    OK(cudrift_spec_preset(CUDRIFT_OFFICIAL, &spec));
    OK(cudrift_plan_new(&spec, &shape, CUDRIFT_F32, &plan));
    float gradient[8];
    cudrift_outputs outputs = {.gradient = gradient};
    long before = 0;
    struct timespec start, end;
    for (int k = -1000; k < 10000; k++) {
        if (k == 0) {
            before = resident();
            clock_gettime(CLOCK_MONOTONIC, &start);
        }
        OK(cudrift_plan_run(plan, &inputs, &outputs));
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    printf("a call of 4 x 8 pairs: %.1f microseconds\n", 100 * seconds);
    for (int k = 0; k < 10000; k++) {
        cudrift_plan *other = NULL;
        OK(cudrift_plan_new(&spec, &shape, CUDRIFT_F32, &other));
        cudrift_plan_free(other);
        expect(cudrift_plan_run(plan, NULL, &outputs) == CUDRIFT_INVALID, "no inputs");
        OK(cudrift_drift(&spec, &shape, CUDRIFT_F32, &inputs, &outputs));
    }
    const long grown = resident() - before;
    printf("grown by %ld pages\n", grown);
    expect(grown < 64, "memory is flat");
    cudrift_plan_free(plan);
}

typedef struct {
    const golden *c;
    cudrift_plan *plan;
} shared_plan;

static void *work_shared(void *argument) {
    const shared_plan *own = argument;
    const int64_t elements = own->c->shape.groups * own->c->shape.generated * own->c->shape.dim;
    float *gradient = room(elements, sizeof(float));
    for (int round = 0; round < 40; round++) {
        cudrift_outputs outputs = {.gradient = gradient};
        OK(cudrift_plan_run(own->plan, &own->c->inputs, &outputs));
        expect(error_of(gradient, own->c->gradient, elements) <= BOUND, "a child's thread's result");
    }
    free(gradient);
    return NULL;
}

/* A child of a process that has only asked for a size, and threads of the child that share a plan. */
static void forked(const char *path) {
    golden c = read_case(path);
    cudrift_plan *plan = NULL;
    size_t bytes = 0;
    OK(cudrift_plan_new(&c.spec, &c.shape, CUDRIFT_F32, &plan));
    OK(cudrift_plan_workspace_bytes(plan, &bytes));
    const pid_t child = fork();
    expect(child >= 0, "a child");
    if (child == 0) {
        alarm(120);
        pthread_t threads[4];
        shared_plan own = {&c, plan};
        for (int k = 0; k < 4; k++) {
            expect(pthread_create(&threads[k], NULL, work_shared, &own) == 0, "a thread");
        }
        for (int k = 0; k < 4; k++) {
            pthread_join(threads[k], NULL);
        }
        _exit(0);
    }
    int status = 1;
    expect(waitpid(child, &status, 0) == child && status == 0, "the child with threads");
    cudrift_plan_free(plan);
}

static int threads_of_this_process(void) {
    DIR *tasks = opendir("/proc/self/task");
    int count = -2; /* . and .. */
    expect(tasks != NULL, "/proc/self/task");
    while (readdir(tasks) != NULL) {
        count++;
    }
    closedir(tasks);
    return count;
}

/* A process that has only borrowed threads has none of libcudrift's, and its child makes its own. */
static void only_borrowed(const char *path) {
    golden c = read_case(path);
    const int64_t elements = c.shape.groups * c.shape.generated * c.shape.dim;
    const pid_t child = fork();
    expect(child >= 0, "a child");
    if (child == 0) {
        alarm(120);
        cudrift_shape other = c.shape;
        other.dim--;
        float *gradient = room(elements, sizeof(float));
        cudrift_outputs outputs = {.gradient = gradient};
        OK(cudrift_borrow_threads(lend, 2));
        OK(cudrift_drift(&c.spec, &other, CUDRIFT_F32, &c.inputs, &outputs));
        OK(cudrift_drift(&c.spec, &c.shape, CUDRIFT_F32, &c.inputs, &outputs));
        expect(error_of(gradient, c.gradient, elements) <= BOUND, "a result by lent threads");
        expect(threads_of_this_process() == 1, "no threads of its own");
        const pid_t grandchild = fork();
        expect(grandchild >= 0, "a child's child");
        if (grandchild == 0) {
            alarm(120);
            memset(gradient, 0, (size_t)elements * sizeof(float));
            OK(cudrift_drift(&c.spec, &c.shape, CUDRIFT_F32, &c.inputs, &outputs));
            _exit(error_of(gradient, c.gradient, elements) <= BOUND ? 0 : 1);
        }
        int status = 1;
        expect(waitpid(grandchild, &status, 0) == grandchild && status == 0, "the child's child");
        _exit(0);
    }
    int status = 1;
    expect(waitpid(child, &status, 0) == child && status == 0, "the child that borrows");
}

int main(int argc, char **argv) {
    printf("libcudrift %s, %s\n", cudrift_version(), cudrift_instruction_set());
    expect(*cudrift_message() == '\0', "no message before a failure");
    for (int k = 1; k < argc; k++) {
        only_borrowed(argv[k]); /* the first before anything else, the others after it */
        forked(argv[k]);
        run(argv[k]);
    }
    expect(short_calls > 0 && long_calls > 0, "one thread for short calls, several for others");
    what_cannot_be();
    ten_thousand_calls();
    printf("%d cases\n", argc - 1);
    return 0;
}
