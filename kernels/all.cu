// Every kernel in one module: nvcc makes one image of it, NVRTC compiles it at run time.
#include "contraction.cu"
#include "distances.cu"
#include "group.cu"
#include "probe.cu"
#include "reduce.cu"
#include "statistics.cu"
