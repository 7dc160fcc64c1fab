// Colours alone, their gradients, and the sum of the camera gradients of either backward call.
//
// Bytes: forward 12 K + 12 for a Gaussian and 12 for a view of it; backward 24 K + 24 and 24.
#include "cameras.cuh"
#include "colour.cuh"
#include "warp.cuh"

namespace splat {
namespace {

constexpr int shade_threads = 128;
constexpr int sum_threads = 256;

struct ShadeArguments {
    Sizes sizes;
    Lens<float> lens;  // not looked at: colours need the pose only
    const float *means, *viewmats, *sh;
    float* colors;
    const float *forward_colors, *v_colors;
    float *v_means, *v_sh;
    bool adds_to_means;
    CameraRows rows;
    int coefficients, chunks;
};

// Where a block works: a chunk of the Gaussians of a scene.
struct Place {
    int scene, first, here;  // first Gaussian of the scene, how many
    int64_t row;             // of the first in [B,N]
};

__device__ __forceinline__ Place place_of(const ShadeArguments& a) {
    Place p;
    p.scene = int(blockIdx.x / unsigned(a.chunks));
    p.first = int(blockIdx.x % unsigned(a.chunks)) * shade_threads;
    p.here = min(shade_threads, a.sizes.gaussians - p.first);
    p.row = int64_t(p.scene) * a.sizes.gaussians + p.first;
    return p;
}

template <int degree> __global__ void __launch_bounds__(shade_threads, 4) shade_kernel(ShadeArguments a) {
    using Coefficients = StagedCoefficients<degree>;
    __shared__ Camera<float> cameras[view_group];
    __shared__ float staged[shade_threads * Coefficients::stride];
    Place p = place_of(a);
    Coefficients::load(staged, a.sh, p.row, p.here, a.coefficients);
    int thread = int(threadIdx.x);
    bool exists = thread < p.here;
    float mean[3] = {0.0f, 0.0f, 0.0f};
    for (int i = 0; exists && i < 3; ++i) mean[i] = __ldg(a.means + 3 * (p.row + thread) + i);

    for (int first = 0; first < a.sizes.views; first += view_group) {
        int views = min(view_group, a.sizes.views - first);
        int64_t base = int64_t(p.scene) * a.sizes.views + first;
        load_cameras(cameras, a.viewmats, nullptr, a.lens, base, views);
        for (int i = 0; exists && i < views; ++i) {
            float colour[3];
            evaluate_colour<degree>(cameras[i], mean, staged + thread * Coefficients::stride, colour);
            int64_t pair = (base + i) * a.sizes.gaussians + p.first + thread;
            for (int c = 0; c < 3; ++c) a.colors[3 * pair + c] = colour[c];
        }
    }
}

// Sums over views for one Gaussian.
template <int count> struct ShadeTotals {
    float sh[3 * count], mean[3];
};

// Where the colour was cut off at 0 it has no gradient. True when anything is left.
__device__ __forceinline__ bool load_raw_gradient(const ShadeArguments& a, int64_t pair, float v_raw[3]) {
    for (int c = 0; c < 3; ++c)
        v_raw[c] = __ldg(a.forward_colors + 3 * pair + c) > 0.0f ? __ldg(a.v_colors + 3 * pair + c) : 0.0f;
    return v_raw[0] != 0.0f || v_raw[1] != 0.0f || v_raw[2] != 0.0f;
}

template <int degree>
__device__ __forceinline__ void add_colour(const Camera<float>& camera, const float mean[3], const float* coefficients,
                                           const float v_raw[3], ShadeTotals<sh_count(degree)>& totals, float v_mean[3]) {
    constexpr int count = sh_count(degree);
    float d[3], basis[count], weight[count], v_d[3];
    float inverse = view_direction<float>(camera, mean, d);
    sh_basis<float>(degree, d[0], d[1], d[2], basis);
#pragma unroll
    for (int k = 0; k < count; ++k) {
        weight[k] = 0.0f;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            totals.sh[3 * k + c] += basis[k] * v_raw[c];
            weight[k] += coefficients[3 * k + c] * v_raw[c];
        }
    }
    sh_basis_vjp<float>(degree, d[0], d[1], d[2], weight, v_d);
    view_direction_vjp<float>(d, inverse, v_d, v_mean);
    for (int i = 0; i < 3; ++i) totals.mean[i] += v_mean[i];
}

__device__ __forceinline__ void store_centre_row(const CameraRows& rows, int64_t view, int warp, const float v_mean[3]) {
    float values[centre_columns] = {-v_mean[0], -v_mean[1], -v_mean[2], 0.0f};
    float total = FoldedSum<centre_columns>::run(values, lane_index());
    int column = FoldedSum<centre_columns>::owned(lane_index());
    if (column >= 0) rows.centre[(view * rows.warps + warp) * centre_columns + column] = total;
}

template <int degree> __global__ void __launch_bounds__(shade_threads) shade_backward_kernel(ShadeArguments a) {
    using Coefficients = StagedCoefficients<degree>;
    __shared__ Camera<float> cameras[view_group];
    __shared__ float staged[shade_threads * Coefficients::stride];
    Place p = place_of(a);
    Coefficients::load(staged, a.sh, p.row, p.here, a.coefficients);
    int thread = int(threadIdx.x), warp = (p.first + thread) / warp_lanes;
    bool exists = thread < p.here;
    float* own = staged + thread * Coefficients::stride;
    float mean[3] = {0.0f, 0.0f, 0.0f};
    for (int i = 0; exists && i < 3; ++i) mean[i] = __ldg(a.means + 3 * (p.row + thread) + i);
    ShadeTotals<Coefficients::count> totals = {};

    for (int first = 0; first < a.sizes.views; first += view_group) {
        int views = min(view_group, a.sizes.views - first);
        int64_t base = int64_t(p.scene) * a.sizes.views + first;
        load_cameras(cameras, a.viewmats, nullptr, a.lens, base, views);
        if (warp >= a.rows.warps) continue;  // a whole warp beyond the last Gaussian
        for (int i = 0; i < views; ++i) {
            float v_raw[3], v_mean[3] = {0.0f, 0.0f, 0.0f};
            if (exists && load_raw_gradient(a, (base + i) * a.sizes.gaussians + p.first + thread, v_raw))
                add_colour<degree>(cameras[i], mean, own, v_raw, totals, v_mean);
            if (a.rows.centre) store_centre_row(a.rows, base + i, warp, v_mean);
        }
    }
    for (int c = 0; c < Coefficients::values; ++c) own[c] = totals.sh[c];  // its own row: no barrier needed
    Coefficients::store(staged, a.v_sh, p.row, p.here, a.coefficients);
    for (int i = 0; exists && i < 3; ++i) {
        float* v_mean = a.v_means + 3 * (p.row + thread) + i;
        *v_mean = a.adds_to_means ? *v_mean + totals.mean[i] : totals.mean[i];
    }
}

// Totals of the columns of a view's rows: every thread adds up its share of a column, then the shares meet pairwise.
template <int columns> __device__ void column_sums(const float* rows, int count, float totals[columns]) {
    __shared__ float shares[sum_threads];
    int thread = int(threadIdx.x);
    float sum = 0.0f;
    for (int row = thread / columns; row < count; row += sum_threads / columns) sum += rows[int64_t(row) * columns + thread % columns];
    shares[thread] = sum;
    for (int half = sum_threads / 2; half >= columns; half /= 2) {
        __syncthreads();
        if (thread < half) shares[thread] += shares[thread + half];
    }
    __syncthreads();
    for (int i = 0; i < columns; ++i) totals[i] = shares[i];
}

__global__ void __launch_bounds__(sum_threads) sum_camera_kernel(CameraRows rows, Lens<float> lens, const float* viewmats,
                                                                 float* v_viewmats, float* v_ks) {
    int64_t view = blockIdx.x;
    float pose[pose_columns] = {}, centre[centre_columns] = {};
    if (rows.pose) column_sums<pose_columns>(rows.pose + view * rows.warps * pose_columns, rows.warps, pose);
    if (rows.centre) column_sums<centre_columns>(rows.centre + view * rows.warps * centre_columns, rows.warps, centre);
    if (threadIdx.x != 0) return;
    if (rows.centre) {
        const float identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
        Camera<float> camera = load_camera<float>(viewmats + 16 * view, identity, lens);
        centre_vjp<float>(camera, centre, pose, pose + 9);
    }
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) v_viewmats[16 * view + 4 * i + j] = pose[3 * i + j];
        v_viewmats[16 * view + 4 * i + 3] = pose[9 + i];
    }
    for (int j = 0; j < 4; ++j) v_viewmats[16 * view + 12 + j] = 0.0f;
    if (!v_ks) return;
    for (int i = 0; i < 9; ++i) v_ks[9 * view + i] = 0.0f;
    v_ks[9 * view] = pose[12], v_ks[9 * view + 4] = pose[13], v_ks[9 * view + 2] = pose[14], v_ks[9 * view + 5] = pose[15];
}

ShadeArguments shade_arguments(const SplatOptions& o, const float* means, const float* viewmats, const float* sh) {
    ShadeArguments a = {};
    a.sizes = sizes_of(o), a.lens = lens_of(o);
    a.means = means, a.viewmats = viewmats, a.sh = sh, a.coefficients = o.sh_coefficients;
    a.chunks = int(blocks_for(a.sizes.gaussians, shade_threads));
    return a;
}

using ShadeKernel = void (*)(ShadeArguments);

int launch_shade(const ShadeKernel (&kernels)[5], const SplatOptions& o, const ShadeArguments& a) {
    ShadeKernel kernel = kernels[o.sh_degree];
    SPLAT_LAUNCH(kernel, int64_t(a.chunks) * a.sizes.scenes, shade_threads, stream_of(o), a);
    return launch_code();
}

}  // namespace

int sum_camera_rows(const SplatOptions& o, const CameraRows& rows, const float* viewmats, float* v_viewmats, float* v_ks) {
    SPLAT_LAUNCH(sum_camera_kernel, o.scenes * o.views, sum_threads, stream_of(o), rows, lens_of(o), viewmats, v_viewmats, v_ks);
    return launch_code();
}

int shade_backward(const SplatOptions& o, const CameraRows& rows, const float* means, const float* viewmats, const float* sh,
                   const float* colors, const float* v_colors, float* v_means, bool adds_to_means, float* v_sh) {
    ShadeArguments a = shade_arguments(o, means, viewmats, sh);
    a.forward_colors = colors, a.v_colors = v_colors, a.v_means = v_means, a.v_sh = v_sh;
    a.adds_to_means = adds_to_means, a.rows = rows;
    const ShadeKernel kernels[5] = {shade_backward_kernel<0>, shade_backward_kernel<1>, shade_backward_kernel<2>,
                                    shade_backward_kernel<3>, shade_backward_kernel<4>};
    return launch_shade(kernels, o, a);
}

}  // namespace splat

extern "C" int splat_shade(const SplatOptions* o, const real* means, const real* viewmats, const real* sh, real* colors) {
    using namespace splat;
    SPLAT_TRY(check(o, colors));
    if (!has_coefficients(*o)) return SPLAT_BAD_OPTIONS;
    ShadeArguments a = shade_arguments(*o, means, viewmats, sh);
    a.colors = colors;
    const ShadeKernel kernels[5] = {shade_kernel<0>, shade_kernel<1>, shade_kernel<2>, shade_kernel<3>, shade_kernel<4>};
    return launch_shade(kernels, *o, a);
}

extern "C" int splat_shade_backward(const SplatOptions* o, const real* means, const real* viewmats, const real* sh,
                                    const real* colors, const real* v_colors, real* v_means, real* v_viewmats, real* v_sh) {
    using namespace splat;
    SPLAT_TRY(check(o, v_means));
    if (!has_coefficients(*o)) return SPLAT_BAD_OPTIONS;
    Scratch scratch(o->scratch);
    CameraRows rows = take_camera_rows(scratch, *o);
    if (v_viewmats && !has_scratch(*o, scratch.bytes())) return SPLAT_NO_MEMORY;
    rows.pose = nullptr;
    if (!v_viewmats) rows.centre = nullptr;
    SPLAT_TRY(shade_backward(*o, rows, means, viewmats, sh, colors, v_colors, v_means, false, v_sh));
    return v_viewmats ? sum_camera_rows(*o, rows, viewmats, v_viewmats, nullptr) : SPLAT_OK;
}
