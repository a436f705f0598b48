// A cooperative launch: the whole grid meets at a barrier.

#include <cooperative_groups.h>

namespace cg = cooperative_groups;

// Rounds of y[i] = x[i - 1] + x[i + 1] on a ring, buffers in turn.
extern "C" __global__ void ring(unsigned* x, unsigned* y, int n, int rounds) {
    const cg::grid_group grid = cg::this_grid();
    for (int r = 0; r < rounds; ++r) {
        for (int i = grid.thread_rank(); i < n; i += grid.size()) y[i] = x[(i + n - 1) % n] + x[(i + 1) % n];
        grid.sync();
        unsigned* swap = x;
        x = y;
        y = swap;
    }
}

// Sums by tiles of a block.
extern "C" __global__ void tiles(const int* x, int* out) {
    const cg::thread_block block = cg::this_thread_block();
    const auto tile = cg::tiled_partition<8>(block);
    int v = x[block.thread_rank()];
    for (int d = tile.size() / 2; d > 0; d /= 2) v += tile.shfl_down(v, d);
    tile.sync();
    if (tile.thread_rank() == 0) out[block.thread_rank() / 8] = v;
    block.sync();
}
