/* Runs golden cases through libcudrift on a CUDA device, on a stream of this program's, and what it should refuse there. */
#include "cuda.h"

/* A part of a case's groups: one worker of one or two. */
typedef struct {
    cudrift_cuda_plan *plan;
    cudrift_inputs inputs;
    cudrift_cuda_outputs outputs;
    void *workspace, *stream;
    int64_t first, groups;
} worker;

static worker begin(const golden *c, int64_t first, int64_t groups) {
    worker w = {.first = first, .groups = groups};
    cudrift_shape shape = c->shape;
    shape.groups = groups;
    OK(cudrift_cuda_plan_new(&c->spec, &shape, CUDRIFT_F32, 0, CUDRIFT_TENSOR_CORES_AUTO, &w.plan));
    w.inputs = inputs_on_device(c, first, groups);
    const int64_t bytes = groups * shape.generated * shape.dim * (int64_t)sizeof(float);
    w.outputs = (cudrift_cuda_outputs){on_device(NULL, bytes), on_device(NULL, bytes),
                                       on_device(NULL, groups * (int64_t)sizeof(float))};
    size_t room = 0;
    OK(cudrift_cuda_plan_workspace_bytes(w.plan, &room));
    w.workspace = on_device(NULL, (int64_t)room);
    DRIVER(make_stream(&w.stream, 1));
    return w;
}

static void phase(const worker *w, uint32_t which) {
    OK(cudrift_cuda_plan_phase(w->plan, &w->inputs, &w->outputs, w->workspace, w->stream, which));
}

/* Copies results to where the worker's groups begin, and gives everything back. */
static cudrift_cuda_scalars end(const golden *c, worker *w, float *gradient, float *goal, float *loss) {
    const int64_t row = c->shape.generated * c->shape.dim, elements = w->groups * row;
    cudrift_cuda_scalars scalars;
    OK(cudrift_cuda_plan_scalars(w->plan, w->workspace, w->stream, &scalars));
    DRIVER(to_host(gradient + w->first * row, (uint64_t)w->outputs.gradient, (size_t)elements * sizeof(float)));
    DRIVER(to_host(loss + w->first, (uint64_t)w->outputs.loss, (size_t)w->groups * sizeof(float)));
    float *own = goal + w->first * row;
    DRIVER(to_host(own, (uint64_t)w->outputs.force, (size_t)elements * sizeof(float)));
    for (int64_t k = 0; k < elements; k++) {
        own[k] += (float)(((const float *)c->inputs.generated.data)[w->first * row + k] / scalars.sigma);
    }
    inputs_given_back(&w->inputs);
    given_back(w->outputs.force);
    given_back(w->outputs.gradient);
    given_back(w->outputs.loss);
    given_back(w->workspace);
    DRIVER(free_stream(w->stream));
    cudrift_cuda_plan_free(w->plan);
    return scalars;
}

static void run(const char *path) {
    golden c = read_case(path);
    const cudrift_shape s = c.shape;
    const int64_t elements = s.groups * s.generated * s.dim;
    float *gradient = room(elements, sizeof(float)), *goal = room(elements, sizeof(float));
    float *loss = room(s.groups, sizeof(float));

    worker w = begin(&c, 0, s.groups);
    void *before = NULL, *after = &before;
    DRIVER(get_current(&before));
    DRIVER(set_current(NULL));
    OK(cudrift_cuda_plan_run(w.plan, &w.inputs, &w.outputs, w.workspace, w.stream));
    DRIVER(get_current(&after));
    expect(after == NULL, "the thread's context is left as it was");
    DRIVER(set_current(before));
    cudrift_cuda_scalars scalars = end(&c, &w, gradient, goal, loss);
    judge(path, &c, gradient, goal, loss, scalars.loss_r, scalars.scale, scalars.sigma);
    expect(scalars.nonfinite == 0, "finite inputs");

    /* Two workers with a part of the groups each, who add up their sums in between. */
    if (s.groups > 1) {
        worker workers[2] = {begin(&c, 0, s.groups / 2), begin(&c, s.groups / 2, s.groups - s.groups / 2)};
        const size_t offsets[2] = {0, offsetof(cudrift_cuda_scalars, squares)}, counts[2] = {5, CUDRIFT_MAX_TEMPERATURES};
        const uint32_t phases[2][2] = {{CUDRIFT_PHASE_DISTANCES, CUDRIFT_PHASE_SCALE},
                                       {CUDRIFT_PHASE_NORMS, CUDRIFT_PHASE_THETA}};
        for (int step = 0; step < 2; step++) {
            double total[CUDRIFT_MAX_TEMPERATURES] = {0}, own[CUDRIFT_MAX_TEMPERATURES];
            for (int k = 0; k < 2; k++) {
                phase(&workers[k], phases[step][0]);
                DRIVER(wait(workers[k].stream));
                DRIVER(to_host(own, (uint64_t)workers[k].workspace + offsets[step], counts[step] * sizeof(double)));
                for (size_t at = 0; at < counts[step]; at++) {
                    total[at] += own[at];
                }
            }
            for (int k = 0; k < 2; k++) {
                DRIVER(to_device((uint64_t)workers[k].workspace + offsets[step], total, counts[step] * sizeof(double)));
                phase(&workers[k], phases[step][1]);
            }
        }
        for (int k = 0; k < 2; k++) {
            phase(&workers[k], CUDRIFT_PHASE_FORCE);
            scalars = end(&c, &workers[k], gradient, goal, loss);
        }
        judge("  two workers", &c, gradient, goal, loss, scalars.loss_r, scalars.scale, scalars.sigma);
    }
}

static void what_cannot_be(void) {
    cudrift_spec spec;
    cudrift_shape shape = {2, 3, 0, 3, 2};
    cudrift_cuda_plan *plan = NULL;
    OK(cudrift_spec_preset(CUDRIFT_OFFICIAL, &spec));
    refused(cudrift_cuda_probe(NULL), CUDRIFT_INVALID, "gpu is a null");
    refused(cudrift_cuda_plan_new(&spec, &shape, CUDRIFT_F64, 0, 0, &plan), CUDRIFT_INVALID, "dtype is 3");
    refused(cudrift_cuda_plan_new(&spec, &shape, CUDRIFT_F32, 0, 9, &plan), CUDRIFT_INVALID, "tensor_cores is 9");
    refused(cudrift_cuda_plan_new(&spec, &shape, CUDRIFT_F32, -1, 0, &plan), CUDRIFT_INVALID, "device is -1");
    refused(cudrift_cuda_plan_new(&spec, &shape, CUDRIFT_F32, 99, 0, &plan), CUDRIFT_DEVICE, "device 99");
    refused(cudrift_cuda_plan_new(NULL, &shape, CUDRIFT_F32, 0, 0, &plan), CUDRIFT_INVALID, "spec is a null");
    expect(plan == NULL, "no plan where one is refused");
    OK(cudrift_cuda_plan_new(&spec, &shape, CUDRIFT_F32, 0, 0, &plan));
    size_t bytes = 0;
    OK(cudrift_cuda_plan_workspace_bytes(plan, &bytes));
    const float zeros[16] = {0};
    char *workspace = on_device(NULL, (int64_t)bytes + 256), *x = on_device(zeros, sizeof(zeros));
    cudrift_inputs inputs = {.generated = {x, NULL}, .positives = {x, NULL}};
    cudrift_cuda_outputs outputs = {0};
    refused(cudrift_cuda_plan_run(NULL, &inputs, &outputs, workspace, NULL), CUDRIFT_INVALID, "plan is a null");
    refused(cudrift_cuda_plan_run(plan, NULL, &outputs, workspace, NULL), CUDRIFT_INVALID, "inputs is a null");
    refused(cudrift_cuda_plan_run(plan, &inputs, NULL, workspace, NULL), CUDRIFT_INVALID, "outputs is a null");
    refused(cudrift_cuda_plan_run(plan, &inputs, &outputs, NULL, NULL), CUDRIFT_INVALID, "workspace is a null");
    refused(cudrift_cuda_plan_run(plan, &inputs, &outputs, workspace + 8, NULL), CUDRIFT_INVALID, "multiple of 16");
    refused(cudrift_cuda_plan_phase(plan, &inputs, &outputs, workspace, NULL, 5), CUDRIFT_INVALID, "phase is 5");
    refused(cudrift_cuda_plan_scalars(plan, workspace, NULL, NULL), CUDRIFT_INVALID, "scalars is a null");
    inputs.generated.data = NULL;
    refused(cudrift_cuda_plan_run(plan, &inputs, &outputs, workspace, NULL), CUDRIFT_INVALID, "generated.data is a null");
    inputs.generated.data = x + 2;
    refused(cudrift_cuda_plan_run(plan, &inputs, &outputs, workspace, NULL), CUDRIFT_INVALID, "multiple of 4");
    const int64_t backward[3] = {6, 2, -1}, apart[3] = {12, 4, 2}, all_the_same[3] = {0, 0, 1};
    inputs.generated = (cudrift_points){x, backward};
    refused(cudrift_cuda_plan_run(plan, &inputs, &outputs, workspace, NULL), CUDRIFT_INVALID, "side by side");
    inputs.generated = (cudrift_points){x, apart};
    refused(cudrift_cuda_plan_run(plan, &inputs, &outputs, workspace, NULL), CUDRIFT_INVALID, "side by side");
    inputs.generated = (cudrift_points){x, all_the_same};
    OK(cudrift_cuda_plan_run(plan, &inputs, &outputs, workspace, NULL));
    DRIVER(wait(NULL));
    cudrift_cuda_plan_free(plan);
    cudrift_cuda_plan_free(NULL);
    given_back(workspace);
    given_back(x);
}

int main(int argc, char **argv) {
    begin_device();
    cudrift_cuda_gpu gpu;
    OK(cudrift_cuda_probe(&gpu));
    printf("%s, %u.%u\n", gpu.name, gpu.major, gpu.minor);
    for (int k = 1; k < argc; k++) {
        run(argv[k]);
    }
    what_cannot_be();
    printf("%d cases\n", argc - 1);
    return 0;
}
