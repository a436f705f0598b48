// out[i] = i + offset, 0 <= i < n: shows that the image was loaded and runs. One thread per element.
extern "C" __global__ void __launch_bounds__(256) probe(int* __restrict__ out, const int offset, const int n) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) {
        out[i] = i + offset;
    }
}
