/* Calls cudrift_xla and cudrift_xla_cuda as XLA does, by the structs of its own header, with golden cases: whole and by
 * phases. */
#include "xla/ffi/api/c_api.h"

#include "cuda.h"

static char message[1024];

static XLA_FFI_Error *error_create(XLA_FFI_Error_Create_Args *args) {
    snprintf(message, sizeof(message), "%d %s", (int)args->errc, args->message);
    return (XLA_FFI_Error *)message;
}

static void *current_stream;
static char *allocated;
static size_t allocated_bytes;

static XLA_FFI_Error *stream_get(XLA_FFI_Stream_Get_Args *args) {
    expect(args->struct_size >= XLA_FFI_Stream_Get_Args_STRUCT_SIZE, "Stream_Get's struct");
    args->stream = current_stream;
    return NULL;
}

static XLA_FFI_Error *memory_allocate(XLA_FFI_DeviceMemory_Allocate_Args *args) {
    expect(args->struct_size >= XLA_FFI_DeviceMemory_Allocate_Args_STRUCT_SIZE, "Allocate's struct");
    /* XLA's own limit. */
    expect(args->alignment <= 16, "Allocate's alignment");
    expect(allocated == NULL, "one workspace at a time");
    allocated = on_device(NULL, (int64_t)args->size + 16);
    allocated_bytes = args->size;
    args->data = allocated + 16;
    return NULL;
}

static XLA_FFI_Error *memory_free(XLA_FFI_DeviceMemory_Free_Args *args) {
    expect(args->struct_size >= XLA_FFI_DeviceMemory_Free_Args_STRUCT_SIZE, "Free's struct");
    expect(args->data == allocated + 16 && args->size == allocated_bytes, "what was allocated is freed");
    /* XLA hands it out again in the stream's order; here the stream comes first. */
    DRIVER(wait(current_stream));
    given_back(allocated);
    allocated = NULL;
    return NULL;
}

/* What XLA answers where it has no more. */
static int destroyed;
static XLA_FFI_Error *no_memory(XLA_FFI_DeviceMemory_Allocate_Args *args) {
    (void)args;
    return (XLA_FFI_Error *)&destroyed;
}
static void get_message(XLA_FFI_Error_GetMessage_Args *args) { args->message = "none is left"; }
static void destroy(XLA_FFI_Error_Destroy_Args *args) { *(int *)args->error += 1; }

static XLA_FFI_Api api = {
    .struct_size = XLA_FFI_Api_STRUCT_SIZE,
    .api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, NULL, XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR},
    .XLA_FFI_Error_Create = error_create,
    .XLA_FFI_Stream_Get = stream_get,
    .XLA_FFI_Error_GetMessage = get_message,
    .XLA_FFI_Error_Destroy = destroy,
    .XLA_FFI_DeviceMemory_Allocate = memory_allocate,
    .XLA_FFI_DeviceMemory_Free = memory_free,
};

typedef void *handler(void *);

enum { kMost = 9 };

/* A call in the making. */
typedef struct {
    XLA_FFI_Buffer operands[kMost], results[4];
    int64_t extents[kMost + 4][3];
    int operand_count, result_count;
} call;

static void add(call *c, int result, void *data, XLA_FFI_DataType type, int64_t rank, int64_t a, int64_t b, int64_t d) {
    int64_t *extents = c->extents[result ? kMost + c->result_count : c->operand_count];
    extents[0] = a;
    extents[1] = b;
    extents[2] = d;
    const XLA_FFI_Buffer buffer = {XLA_FFI_Buffer_STRUCT_SIZE, NULL, type, data, rank, extents};
    if (result) {
        c->results[c->result_count++] = buffer;
    } else {
        c->operands[c->operand_count++] = buffer;
    }
}

/* Null where it went well, or the message. */
static const char *make(call *c, handler *by, const cudrift_spec *spec, size_t spec_bytes, int64_t phase) {
    void *operands[kMost], *results[4];
    XLA_FFI_ArgType arg_types[kMost];
    XLA_FFI_RetType ret_types[4];
    for (int k = 0; k < c->operand_count; k++) {
        operands[k] = &c->operands[k];
        arg_types[k] = XLA_FFI_ArgType_BUFFER;
    }
    for (int k = 0; k < c->result_count; k++) {
        results[k] = &c->results[k];
        ret_types[k] = XLA_FFI_RetType_BUFFER;
    }
    XLA_FFI_Array array = {XLA_FFI_DataType_U8, spec_bytes, (void *)spec};
    XLA_FFI_Scalar scalar = {XLA_FFI_DataType_S64, &phase};
    XLA_FFI_ByteSpan names[2] = {{"phase", 5}, {"spec", 4}}, *name_at[2] = {&names[0], &names[1]};
    void *attributes[2] = {&scalar, &array};
    XLA_FFI_AttrType types[2] = {XLA_FFI_AttrType_SCALAR, XLA_FFI_AttrType_ARRAY};
    XLA_FFI_CallFrame frame = {
        .struct_size = XLA_FFI_CallFrame_STRUCT_SIZE,
        .api = &api,
        .stage = XLA_FFI_ExecutionStage_EXECUTE,
        .args = {XLA_FFI_Args_STRUCT_SIZE, NULL, c->operand_count, arg_types, operands},
        .rets = {XLA_FFI_Rets_STRUCT_SIZE, NULL, c->result_count, ret_types, results},
        .attrs = {XLA_FFI_Attrs_STRUCT_SIZE, NULL, 2, types, name_at, attributes},
    };
    return by(&frame);
}

static void add_inputs(call *c, const cudrift_shape *s, const cudrift_inputs *inputs) {
    const int64_t counts[3] = {s->generated, s->negatives, s->positives};
    const cudrift_points *points[3] = {&inputs->generated, &inputs->negatives, &inputs->positives};
    const float *weights[3] = {inputs->weight_generated, inputs->weight_negatives, inputs->weight_positives};
    for (int k = 0; k < 3; k++) {
        add(c, 0, (void *)points[k]->data, XLA_FFI_DataType_F32, 3, s->groups, counts[k], s->dim);
    }
    for (int k = 0; k < 3; k++) {
        add(c, 0, (void *)weights[k], XLA_FFI_DataType_F32, 2, s->groups, weights[k] ? counts[k] : 0, 0);
    }
}

static int64_t workspace_of(const golden *g) {
    cudrift_cuda_plan *plan = NULL;
    size_t bytes = 0;
    OK(cudrift_cuda_plan_new(&g->spec, &g->shape, CUDRIFT_F32, 0, CUDRIFT_TENSOR_CORES_AUTO, &plan));
    OK(cudrift_cuda_plan_workspace_bytes(plan, &bytes));
    cudrift_cuda_plan_free(plan);
    return (int64_t)bytes;
}

static void run_case(const char *path, handler *by, int device) {
    golden g = read_case(path);
    const cudrift_shape s = g.shape;
    const int64_t elements = s.groups * s.generated * s.dim, numbers = 3 + g.temperatures;
    const cudrift_inputs inputs = device ? inputs_on_device(&g, 0, s.groups) : g.inputs;
    float *gradient = room(elements, sizeof(float)), *loss = room(s.groups, sizeof(float));
    float *goal = room(elements, sizeof(float));
    double values[3 + CUDRIFT_MAX_TEMPERATURES] = {0};
    /* Where results go, here or there. */
    void *to_gradient = device ? on_device(gradient, elements * 4) : gradient;
    void *to_loss = device ? on_device(loss, s.groups * 4) : loss;
    void *to_values = device ? on_device(values, sizeof(values)) : values;
    double zeros[CUDRIFT_MAX_TEMPERATURES] = {0}, scale_here[5] = {0}, squares_here[CUDRIFT_MAX_TEMPERATURES] = {0};
    void *scale = device ? on_device(zeros, sizeof(scale_here)) : scale_here;
    void *squares = device ? on_device(zeros, sizeof(squares_here)) : squares_here;
    /* The state in one place, and passed on by copies as XLA may. */
    const int64_t state_bytes = device ? workspace_of(&g) : 8;
    char *states[2];
    for (int k = 0; k < 2; k++) {
        states[k] = device ? (char *)on_device(NULL, state_bytes + 16) + 16 : room(1, 8);
    }
    for (int phases = 0; phases < (device ? 3 : 4); phases++) {
        uint64_t number = 0; /* of a call on the CPU */
        for (int64_t phase = phases ? 1 : 0; phase <= (phases ? 3 : 0); phase++) {
            call c = {.operand_count = 0};
            char *before = states[phases == 2 ? phase % 2 : 0], *after = states[phases == 2 ? (phase + 1) % 2 : 0];
            add_inputs(&c, &s, &inputs);
            if (phase >= 2) {
                add(&c, 0, scale, XLA_FFI_DataType_U32, 2, 5, 2, 0);
            }
            if (phase == 3) {
                add(&c, 0, squares, XLA_FFI_DataType_U32, 2, CUDRIFT_MAX_TEMPERATURES, 2, 0);
            }
            if (phase >= 2) {
                add(&c, 0, before, XLA_FFI_DataType_U8, 1, state_bytes, 0, 0);
            }
            if (phase == 1) {
                add(&c, 1, scale, XLA_FFI_DataType_U32, 2, 5, 2, 0);
            } else if (phase == 2) {
                add(&c, 1, squares, XLA_FFI_DataType_U32, 2, CUDRIFT_MAX_TEMPERATURES, 2, 0);
            } else {
                add(&c, 1, to_loss, XLA_FFI_DataType_F32, 1, s.groups, 0, 0);
                add(&c, 1, to_gradient, XLA_FFI_DataType_F32, 3, s.groups, s.generated, s.dim);
                add(&c, 1, to_values, XLA_FFI_DataType_U32, 2, numbers, 2, 0);
            }
            if (phase >= 1) {
                add(&c, 1, after, XLA_FFI_DataType_U8, 1, state_bytes, 0, 0);
            }
            if (phases == 3) {
                cudrift_forget(); /* a later phase does the earlier ones again */
            }
            const char *problem = make(&c, by, &g.spec, sizeof(g.spec), phase);
            expect(problem == NULL, problem ? problem : "");
            if (device) {
                expect(allocated == NULL, "the workspace is freed");
                DRIVER(wait(current_stream));
            } else if (phase >= 1) {
                uint64_t now;
                memcpy(&now, after, sizeof(now));
                expect(phase == 1 || (now == number) == (phases < 3), "a phase goes on where the one before was");
                number = now;
            }
        }
        if (device) {
            DRIVER(to_host(gradient, (uint64_t)to_gradient, (size_t)elements * 4));
            DRIVER(to_host(loss, (uint64_t)to_loss, (size_t)s.groups * 4));
            DRIVER(to_host(values, (uint64_t)to_values, (size_t)numbers * 8));
        }
        /* The goal from the gradient: it is no result. */
        const double sigma = values[1], factor = -0.5 * (double)(s.generated * s.dim) * sigma;
        for (int64_t k = 0; k < elements; k++) {
            goal[k] = (float)(((const float *)g.inputs.generated.data)[k] / sigma + factor * gradient[k]);
        }
        static const char *const names[] = {"  by phases", "  by copies", "  again"};
        judge(phases ? names[phases - 1] : path, &g, gradient, goal, loss, values + 3, values[0], values[1]);
        expect(values[2] == 0, "finite inputs");
        memset(gradient, 0, (size_t)elements * 4);
    }
    if (device) {
        inputs_given_back(&inputs);
        given_back(to_gradient);
        given_back(to_loss);
        given_back(to_values);
        given_back(scale);
        given_back(squares);
        given_back(states[0] - 16);
        given_back(states[1] - 16);
    } else {
        free(states[0]);
        free(states[1]);
    }
}

/* What phases say of a state that is none. */
static void no_state(handler *by, int device) {
    const float x[6] = {0, 0, 1, 0, 0.5f, -1};
    const cudrift_shape shape = {1, 3, 0, 3, 2};
    const cudrift_inputs inputs = {.generated = {x, NULL}, .positives = {x, NULL}};
    const int64_t bytes[4][2] = {{7, 7}, {16, 8}, {8, 16}, {8, 8}};
    double scale[5], squares[CUDRIFT_MAX_TEMPERATURES];
    cudrift_spec spec;
    OK(cudrift_spec_preset(CUDRIFT_OFFICIAL, &spec));
    for (int wrong = 0; wrong < 4 + device; wrong++) {
        const int at = wrong < 4 ? wrong : 3;
        char state[16] = {0};
        call c = {.operand_count = 0};
        add_inputs(&c, &shape, &inputs);
        add(&c, 0, scale, XLA_FFI_DataType_U32, 2, 5, 2, 0);
        add(&c, 0, state, wrong == 3 ? XLA_FFI_DataType_S8 : XLA_FFI_DataType_U8, 1, bytes[at][0], 0, 0);
        add(&c, 1, squares, XLA_FFI_DataType_U32, 2, CUDRIFT_MAX_TEMPERATURES, 2, 0);
        add(&c, 1, state, XLA_FFI_DataType_U8, 1, bytes[at][1], 0, 0);
        const char *problem = make(&c, by, &spec, sizeof(spec), 2);
        expect(problem != NULL && strncmp(problem, "3 ", 2) == 0 && strstr(problem, "state") != NULL, "no state");
    }
}

/* Two calls of one spec and shape whose phases come in turns, as those of several devices do. */
static void in_turns(const char *path) {
    golden g = read_case(path);
    const cudrift_shape s = g.shape;
    const int64_t elements = s.groups * s.generated * s.dim;
    const int order[6] = {0, 1, 0, 1, 1, 0};
    float *gradient[2], *loss = room(s.groups, sizeof(float));
    double scale[2][5], squares[2][CUDRIFT_MAX_TEMPERATURES], values[3 + CUDRIFT_MAX_TEMPERATURES];
    uint64_t state[2], number[2];
    cudrift_inputs inputs[2] = {g.inputs, g.inputs};
    /* The other's samples are its own: the same, elsewhere. */
    float *own = room(elements, sizeof(float));
    memcpy(own, g.inputs.generated.data, (size_t)elements * sizeof(float));
    inputs[1].generated.data = own;
    int64_t phase[2] = {0, 0};
    for (int w = 0; w < 2; w++) {
        gradient[w] = room(elements, sizeof(float));
    }
    for (int k = 0; k < 6; k++) {
        const int w = order[k];
        phase[w]++;
        call c = {.operand_count = 0};
        add_inputs(&c, &s, &inputs[w]);
        if (phase[w] >= 2) {
            add(&c, 0, scale[w], XLA_FFI_DataType_U32, 2, 5, 2, 0);
        }
        if (phase[w] == 3) {
            add(&c, 0, squares[w], XLA_FFI_DataType_U32, 2, CUDRIFT_MAX_TEMPERATURES, 2, 0);
        }
        if (phase[w] >= 2) {
            add(&c, 0, &state[w], XLA_FFI_DataType_U8, 1, 8, 0, 0);
        }
        if (phase[w] == 1) {
            add(&c, 1, scale[w], XLA_FFI_DataType_U32, 2, 5, 2, 0);
        } else if (phase[w] == 2) {
            add(&c, 1, squares[w], XLA_FFI_DataType_U32, 2, CUDRIFT_MAX_TEMPERATURES, 2, 0);
        } else {
            add(&c, 1, loss, XLA_FFI_DataType_F32, 1, s.groups, 0, 0);
            add(&c, 1, gradient[w], XLA_FFI_DataType_F32, 3, s.groups, s.generated, s.dim);
            add(&c, 1, values, XLA_FFI_DataType_U32, 2, 3 + g.temperatures, 2, 0);
        }
        add(&c, 1, &state[w], XLA_FFI_DataType_U8, 1, 8, 0, 0);
        const char *problem = make(&c, cudrift_xla, &g.spec, sizeof(g.spec), phase[w]);
        expect(problem == NULL, problem ? problem : "");
        expect(phase[w] == 1 || state[w] == number[w], "each goes on where it was");
        number[w] = state[w];
    }
    expect(number[0] != number[1], "calls have numbers of their own");
    for (int w = 0; w < 2; w++) {
        expect(error_of(gradient[w], g.gradient, elements) <= BOUND, "a result in turns");
        free(gradient[w]);
    }
    free(loss);
    free(own);
}

static void registered(handler *by) {
    XLA_FFI_Metadata metadata = {.struct_size = XLA_FFI_Metadata_STRUCT_SIZE};
    XLA_FFI_Metadata_Extension extension = {
        {XLA_FFI_Metadata_Extension_STRUCT_SIZE, XLA_FFI_Extension_Metadata, NULL}, &metadata};
    XLA_FFI_CallFrame frame = {
        .struct_size = XLA_FFI_CallFrame_STRUCT_SIZE, .extension_start = &extension.extension_base, .api = &api};
    expect(by(&frame) == NULL, "registration");
    expect(metadata.api_version.major_version == XLA_FFI_API_MAJOR, "the major version");
    expect(metadata.api_version.minor_version == XLA_FFI_API_MINOR, "the minor version");
}

static void what_cannot_be(handler *by) {
    const float x[6] = {0, 0, 1, 0, 0.5f, -1};
    float loss[1], gradient[6];
    double values[6];
    cudrift_spec spec;
    OK(cudrift_spec_preset(CUDRIFT_OFFICIAL, &spec));
    const cudrift_shape shape = {1, 3, 0, 3, 2};
    const cudrift_inputs inputs = {.generated = {x, NULL}, .positives = {x, NULL}};
    for (int wrong = 0; wrong < 7; wrong++) {
        static const char *const says[] = {"phase is 9", "operands and results", "another version", "gradient",
                                           "numbers", "XLA's type", "positives"};
        call c = {.operand_count = 0};
        add_inputs(&c, &shape, &inputs);
        add(&c, 1, loss, XLA_FFI_DataType_F32, 1, 1, 0, 0);
        add(&c, 1, gradient, XLA_FFI_DataType_F32, 3, 1, wrong == 3 ? 4 : 3, 2);
        add(&c, 1, values, wrong == 4 ? XLA_FFI_DataType_F32 : XLA_FFI_DataType_U32, 2, 6, 2, 0);
        if (wrong == 5) {
            c.operands[0].dtype = XLA_FFI_DataType_S32;
        } else if (wrong == 6) {
            c.operands[2].dtype = XLA_FFI_DataType_F16;
        }
        const size_t bytes = sizeof(spec) - (wrong == 2);
        const char *problem = make(&c, by, &spec, bytes, wrong == 0 ? 9 : wrong == 1 ? 1 : 0);
        expect(problem != NULL && strncmp(problem, "3 ", 2) == 0 && strstr(problem, says[wrong]) != NULL, says[wrong]);
    }
}

static void no_more_memory(void) {
    const float x[6] = {0, 0, 1, 0, 0.5f, -1};
    const cudrift_shape shape = {1, 3, 0, 3, 2};
    const cudrift_inputs inputs = {.generated = {x, NULL}, .positives = {x, NULL}};
    float loss[1], gradient[6];
    double values[6];
    cudrift_spec spec;
    OK(cudrift_spec_preset(CUDRIFT_OFFICIAL, &spec));
    call c = {.operand_count = 0};
    add_inputs(&c, &shape, &inputs);
    add(&c, 1, loss, XLA_FFI_DataType_F32, 1, 1, 0, 0);
    add(&c, 1, gradient, XLA_FFI_DataType_F32, 3, 1, 3, 2);
    add(&c, 1, values, XLA_FFI_DataType_U32, 2, 6, 2, 0);
    api.XLA_FFI_DeviceMemory_Allocate = no_memory;
    const char *problem = make(&c, cudrift_xla_cuda, &spec, sizeof(spec), 0);
    expect(problem != NULL && strncmp(problem, "8 ", 2) == 0 && strstr(problem, "none is left") != NULL, "no memory");
    expect(destroyed == 1, "XLA's error is given back");
}

int main(int argc, char **argv) {
    const int device = argc > 1 && strcmp(argv[1], "cuda") == 0;
    handler *by = device ? cudrift_xla_cuda : cudrift_xla;
    if (device) {
        begin_device();
        DRIVER(make_stream(&current_stream, 1));
    }
    registered(by);
    for (int k = 2; k < argc; k++) {
        run_case(argv[k], by, device);
        if (!device) {
            in_turns(argv[k]);
        }
    }
    what_cannot_be(by);
    no_state(by, device);
    if (device) {
        no_more_memory();
    }
    printf("%d cases\n", argc - 2);
    return 0;
}
