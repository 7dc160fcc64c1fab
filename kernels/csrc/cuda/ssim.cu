// Structural similarity with an 11 x 11 Gaussian window, and its gradient, each in one pass.
//
// A block makes 32 x 32 pixels of a plane: it loads 42 x 42, blurs rows into shared memory, then columns from there. Each
// thread blurs four neighbours at once, so that a value read from shared memory serves up to four sums.
// Bytes for a pixel: forward 8 read, 4 written, 12 more with partials; backward 24 read, 4 written (and 1.7 times the
// reads from the L2 cache, for the rim). Some 160 multiply-adds forward, 100 backward: memory and arithmetic nearly balance.
#include "common.cuh"

namespace splat {
namespace {

constexpr int ssim_edge = 32;              // pixels of a block, each way
constexpr int rim = 5, taps = 2 * rim + 1;
constexpr int loaded = ssim_edge + 2 * rim;
constexpr int pitch = 44;                  // floats of a loaded row: whole float4s
constexpr int run = 4;                     // neighbours that a thread blurs at once
constexpr int ssim_threads = ssim_edge * ssim_edge / run;
constexpr int blocks_at_once = 4;          // on a multiprocessor: 64 registers a thread, 160 KB of shared memory
constexpr int span = run + 2 * rim;        // values that enter the sums of a run

struct SsimArguments {
    int width, height, across, down;  // pixels, blocks
    float c1, c2;
    const float *a, *b, *v_map, *partials;
    float *map, *partials_out, *v_a;
    int64_t plane_pixels, all_pixels;
};

// Shared memory: what was loaded, and its blurred rows.
template <int loads, int blurs> struct alignas(16) Window {
    float in[loads][loaded][pitch];
    float rows[blurs][loaded][ssim_edge];
};

struct Block {
    int left, top;       // first pixel
    int64_t plane;       // offset of the plane
};

__device__ __forceinline__ Block block_of(const SsimArguments& a) {
    unsigned tile = blockIdx.x % unsigned(a.across * a.down);
    int64_t plane = blockIdx.x / unsigned(a.across * a.down);
    return {int(tile % unsigned(a.across)) * ssim_edge, int(tile / unsigned(a.across)) * ssim_edge, plane * a.plane_pixels};
}

// exp(-d^2 / (2 1.5^2)), normalised.
__device__ __forceinline__ float weight(int tap) {
    constexpr float w[taps] = {0.001028380084f, 0.007598758135f, 0.03600077213f, 0.1093606895f, 0.2130055377f, 0.266011725f,
                               0.2130055377f,   0.1093606895f,   0.03600077213f, 0.007598758135f, 0.001028380084f};
    return w[tap];
}



__device__ __forceinline__ void blur(const float (&in)[span], float (&out)[run]) {
#pragma unroll
    for (int i = 0; i < run; ++i) {
        out[i] = 0.0f;
#pragma unroll
        for (int tap = 0; tap < taps; ++tap) out[i] += weight(tap) * in[i + tap];
    }
}

// Load the block and its rim with load(offset in plane); zero outside the image.
template <class Load>
__device__ __forceinline__ void load_block(float (*values)[pitch], const SsimArguments& a, const Block& block, Load load) {
    for (int i = int(threadIdx.x); i < loaded * loaded; i += ssim_threads) {
        int row = i / loaded, column = i % loaded, x = block.left + column - rim, y = block.top + row - rim;
        bool inside = x >= 0 && y >= 0 && x < a.width && y < a.height;
        values[row][column] = inside ? load(block.plane + int64_t(y) * a.width + x) : 0.0f;
    }
}

// `span` values of a row from shared memory, 16 bytes at a time (the last two of the four are not used).
__device__ __forceinline__ void read_span(const float* row, float (&values)[span]) {
#pragma unroll
    for (int i = 0; i < span; i += 4) {
        float4 four = *reinterpret_cast<const float4*>(row + i);
        values[i] = four.x, values[i + 1] = four.y;
        if (i + 2 < span) values[i + 2] = four.z, values[i + 3] = four.w;
    }
}

__device__ __forceinline__ void write_run(float* row, const float (&values)[run]) {
    *reinterpret_cast<float4*>(row) = make_float4(values[0], values[1], values[2], values[3]);
}

// A column of blurred rows, blurred: `run` pixels from `top` of the block on.
__device__ __forceinline__ void blur_column(const float (*rows)[ssim_edge], int top, int column, float (&out)[run]) {
    float in[span];
#pragma unroll
    for (int i = 0; i < span; ++i) in[i] = rows[top + i][column];
    blur(in, out);
}

// Calls body(row, first column) for every run of every loaded row.
template <class Body> __device__ __forceinline__ void over_runs(Body body) {
    constexpr int runs = ssim_edge / run;
    for (int i = int(threadIdx.x); i < loaded * runs; i += ssim_threads) body(i / runs, i % runs * run);
}

__device__ __forceinline__ void multiply(const float (&x)[span], const float (&y)[span], float (&out)[span]) {
#pragma unroll
    for (int i = 0; i < span; ++i) out[i] = x[i] * y[i];
}

// Similarity from the window's means of a, b, a^2, b^2 and ab, and its derivatives by the first, third and fifth.
struct Similarity {
    float value, by_a, by_aa, by_ab;
};

__device__ __forceinline__ Similarity similarity(float a, float b, float aa, float bb, float ab, float c1, float c2) {
    float mean = 2.0f * a * b + c1, shape = 2.0f * (ab - a * b) + c2;
    float means = a * a + b * b + c1, shapes = (aa - a * a) + (bb - b * b) + c2;
    float inverse = 1.0f / (means * shapes);
    Similarity s;
    s.value = mean * shape * inverse;
    s.by_aa = -s.value / shapes;
    s.by_ab = 2.0f * mean * inverse;
    s.by_a = 2.0f * (b * (shape - mean) * inverse - a * s.value * (1.0f / means - 1.0f / shapes));
    return s;
}

__device__ __forceinline__ void store_similarity(const SsimArguments& a, int64_t pixel, const Similarity& s) {
    a.map[pixel] = s.value;
    if (!a.partials_out) return;
    a.partials_out[pixel] = s.by_a;
    a.partials_out[pixel + a.all_pixels] = s.by_aa;
    a.partials_out[pixel + 2 * a.all_pixels] = s.by_ab;
}

__global__ void __launch_bounds__(ssim_threads, blocks_at_once) ssim_kernel(SsimArguments a) {
    __shared__ Window<2, 5> window;  // a, b; blurred a, b, aa, bb, ab
    Block block = block_of(a);
    load_block(window.in[0], a, block, [&](int64_t i) { return __ldg(a.a + i); });
    load_block(window.in[1], a, block, [&](int64_t i) { return __ldg(a.b + i); });
    __syncthreads();
    over_runs([&](int row, int column) {
        float x[span], y[span], product[span], out[run];
        read_span(window.in[0][row] + column, x), read_span(window.in[1][row] + column, y);
        blur(x, out), write_run(window.rows[0][row] + column, out);
        blur(y, out), write_run(window.rows[1][row] + column, out);
        multiply(x, x, product), blur(product, out), write_run(window.rows[2][row] + column, out);
        multiply(y, y, product), blur(product, out), write_run(window.rows[3][row] + column, out);
        multiply(x, y, product), blur(product, out), write_run(window.rows[4][row] + column, out);
    });
    __syncthreads();
    int column = int(threadIdx.x) % ssim_edge, top = int(threadIdx.x) / ssim_edge * run;
    float means[5][run];
#pragma unroll
    for (int i = 0; i < 5; ++i) blur_column(window.rows[i], top, column, means[i]);
    int x = block.left + column;
#pragma unroll
    for (int i = 0; i < run; ++i) {
        int y = block.top + top + i;
        if (x < a.width && y < a.height)
            store_similarity(a, block.plane + int64_t(y) * a.width + x,
                             similarity(means[0][i], means[1][i], means[2][i], means[3][i], means[4][i], a.c1, a.c2));
    }
}

// The window is symmetric, so the gradient blurs what the derivatives make of the map's cotangent.
__global__ void __launch_bounds__(ssim_threads, blocks_at_once) ssim_backward_kernel(SsimArguments a) {
    __shared__ Window<3, 3> window;
    Block block = block_of(a);
#pragma unroll
    for (int p = 0; p < 3; ++p)
        load_block(window.in[p], a, block, [&](int64_t i) { return __ldg(a.v_map + i) * __ldg(a.partials + p * a.all_pixels + i); });
    __syncthreads();
    over_runs([&](int row, int column) {
#pragma unroll
        for (int p = 0; p < 3; ++p) {
            float x[span], out[run];
            read_span(window.in[p][row] + column, x), blur(x, out), write_run(window.rows[p][row] + column, out);
        }
    });
    __syncthreads();
    int column = int(threadIdx.x) % ssim_edge, top = int(threadIdx.x) / ssim_edge * run;
    float sums[3][run];
#pragma unroll
    for (int p = 0; p < 3; ++p) blur_column(window.rows[p], top, column, sums[p]);
    int x = block.left + column;
#pragma unroll
    for (int i = 0; i < run; ++i) {
        int y = block.top + top + i;
        int64_t pixel = block.plane + int64_t(y) * a.width + x;
        if (x < a.width && y < a.height)
            a.v_a[pixel] = sums[0][i] + 2.0f * __ldg(a.a + pixel) * sums[1][i] + __ldg(a.b + pixel) * sums[2][i];
    }
}

// Only width and height of the options are filled in.
int check_planes(const SplatOptions* o, int64_t planes, const void* array) {
    if (!o || o->abi != SPLAT_ABI || o->real_bytes != int(sizeof(float)) || planes < 0) return SPLAT_BAD_OPTIONS;
    if (o->width < 1 || o->height < 1) return SPLAT_BAD_OPTIONS;
    int64_t blocks = blocks_for(o->width, ssim_edge) * blocks_for(o->height, ssim_edge);
    if (blocks > INT32_MAX || planes > INT32_MAX / blocks) return SPLAT_BAD_OPTIONS;
    return check_device(array);
}

SsimArguments ssim_arguments(const SplatOptions& o, int64_t planes, const float* x, const float* y) {
    SsimArguments a = {};
    a.width = o.width, a.height = o.height;
    a.across = int(blocks_for(o.width, ssim_edge)), a.down = int(blocks_for(o.height, ssim_edge));
    a.plane_pixels = int64_t(o.width) * o.height, a.all_pixels = planes * a.plane_pixels;
    a.a = x, a.b = y;
    return a;
}

}  // namespace
}  // namespace splat

extern "C" int splat_ssim(const SplatOptions* o, int64_t planes, double c1, double c2, const real* a, const real* b, real* map,
                          real* partials) {
    using namespace splat;
    SPLAT_TRY(check_planes(o, planes, map));
    SsimArguments arguments = ssim_arguments(*o, planes, a, b);
    arguments.c1 = float(c1), arguments.c2 = float(c2), arguments.map = map, arguments.partials_out = partials;
    int64_t blocks = planes * arguments.across * arguments.down;
    SPLAT_LAUNCH(ssim_kernel, blocks, ssim_threads, stream_of(*o), arguments);
    return launch_code();
}

extern "C" int splat_ssim_backward(const SplatOptions* o, int64_t planes, const real* a, const real* b, const real* v_map,
                                   const real* partials, real* v_a) {
    using namespace splat;
    SPLAT_TRY(check_planes(o, planes, v_a));
    SsimArguments arguments = ssim_arguments(*o, planes, a, b);
    arguments.v_map = v_map, arguments.partials = partials, arguments.v_a = v_a;
    int64_t blocks = planes * arguments.across * arguments.down;
    SPLAT_LAUNCH(ssim_backward_kernel, blocks, ssim_threads, stream_of(*o), arguments);
    return launch_code();
}
