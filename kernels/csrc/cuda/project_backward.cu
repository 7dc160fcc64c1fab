// Gradients of stage 1. A thread owns a Gaussian and loops over the views, so its gradients need no atomics, and no memory
// has to be cleared first. Bytes: 44 + 44 for a Gaussian, 16 + 32 for a view of it.
#include "cameras.cuh"
#include "colour.cuh"
#include "warp.cuh"

namespace splat {
namespace {

constexpr int backward_threads = 128;

struct BackwardArguments {
    Sizes sizes;
    Lens<float> lens;
    const float *means, *quats, *scales, *opacities, *viewmats, *ks, *splats, *v_splats;
    float *v_means, *v_quats, *v_scales, *v_opacities;
    CameraRows rows;
    int chunks;
};

// Sums over views for one Gaussian, and whether there was a view that saw it.
struct Totals {
    float mean[3], m[9], opacity;
    bool seen;
};

__device__ __forceinline__ Splat<float> load_gradient(const float* v_splats, int64_t pair) {
    const float4* in = reinterpret_cast<const float4*>(v_splats) + 2 * pair;
    float4 a = __ldg(in), b = __ldg(in + 1);
    Splat<float> g = {};
    g.x = a.x, g.y = a.y, g.u11 = a.z, g.u12 = a.w, g.u22 = b.x, g.opacity = b.y, g.depth = b.w;
    return g;
}

__device__ __forceinline__ bool was_projected(const float* splats, int64_t pair) {
    return __ldg(splats + SPLAT_FIELDS * pair + SPLAT_U22) > 0.0f;
}

__device__ __forceinline__ void store_camera_row(const BackwardArguments& a, int64_t view, int warp,
                                                 const ViewGradient<float>& g) {
    float values[pose_columns];
    for (int i = 0; i < 9; ++i) values[i] = g.w[i];
    for (int i = 0; i < 3; ++i) values[9 + i] = g.t[i];
    values[12] = g.fx, values[13] = g.fy, values[14] = g.cx, values[15] = g.cy;
    float total = FoldedSum<pose_columns>::run(values, lane_index());
    int column = FoldedSum<pose_columns>::owned(lane_index());
    if (column >= 0) a.rows.pose[(view * a.rows.warps + warp) * pose_columns + column] = total;
}

template <bool with_cameras>
__device__ __forceinline__ void add_view(const BackwardArguments& a, const Camera<float>& camera, const float mean[3],
                                         const float scale[3], float opacity, const Rotation<float>& turn, bool seen,
                                         int64_t pair, int64_t view, int warp, Totals& totals) {
    ViewGradient<float> g = {};
    if (seen) {
        project_vjp<float>(camera, a.lens, mean, turn, scale, opacity, load_gradient(a.v_splats, pair), true, with_cameras, g);
        for (int i = 0; i < 3; ++i) totals.mean[i] += g.mean[i];
        for (int i = 0; i < 9; ++i) totals.m[i] += g.m[i];
        totals.opacity += g.opacity, totals.seen = true;
    }
    if constexpr (with_cameras) store_camera_row(a, view, warp, g);
}

// One that nobody saw may hold values that are not finite, which zero times would not hide.
__device__ __forceinline__ void store_gradients(const BackwardArguments& a, int64_t index, const Rotation<float>& turn,
                                                const float scale[3], const Totals& totals) {
    float v_quat[4] = {}, v_scale[3] = {};
    if (totals.seen) rotation_scale_vjp<float>(turn, scale, totals.m, v_quat, v_scale);
    for (int i = 0; i < 3; ++i) a.v_means[3 * index + i] = totals.mean[i], a.v_scales[3 * index + i] = v_scale[i];
    for (int i = 0; i < 4; ++i) a.v_quats[4 * index + i] = v_quat[i];
    a.v_opacities[index] = totals.opacity;
}

template <bool with_cameras> __global__ void __launch_bounds__(backward_threads) project_backward_kernel(BackwardArguments a) {
    __shared__ Camera<float> cameras[view_group];
    int scene = int(blockIdx.x / unsigned(a.chunks)), chunk = int(blockIdx.x % unsigned(a.chunks));
    int n = chunk * backward_threads + int(threadIdx.x), warp = n / warp_lanes;
    bool exists = n < a.sizes.gaussians;
    int64_t index = int64_t(scene) * a.sizes.gaussians + (exists ? n : 0);

    float mean[3], scale[3], quat[4];
    for (int i = 0; i < 3; ++i) mean[i] = __ldg(a.means + 3 * index + i), scale[i] = __ldg(a.scales + 3 * index + i);
    for (int i = 0; i < 4; ++i) quat[i] = __ldg(a.quats + 4 * index + i);
    float opacity = __ldg(a.opacities + index);
    Rotation<float> turn = rotation<float>(quat);
    Totals totals = {};

    for (int first = 0; first < a.sizes.views; first += view_group) {
        int views = min(view_group, a.sizes.views - first);
        int64_t base = int64_t(scene) * a.sizes.views + first;
        load_cameras(cameras, a.viewmats, a.ks, a.lens, base, views);
        if (warp >= a.rows.warps) continue;  // a whole warp beyond the last Gaussian
        for (int i = 0; i < views; ++i) {
            int64_t pair = (base + i) * a.sizes.gaussians + n;
            bool seen = exists && was_projected(a.splats, pair);
            add_view<with_cameras>(a, cameras[i], mean, scale, opacity, turn, seen, pair, base + i, warp, totals);
        }
    }
    if (exists) store_gradients(a, index, turn, scale, totals);
}

}  // namespace

int64_t project_backward_scratch(const SplatOptions& o) {
    Scratch scratch(nullptr);
    take_camera_rows(scratch, o);
    return scratch.bytes();
}

}  // namespace splat

extern "C" int splat_project_backward(const SplatOptions* o, const real* means, const real* quats, const real* scales,
                                      const real* opacities, const real* viewmats, const real* ks, const real* sh,
                                      const real* splats, const real* colors, const real* v_splats, const real* v_colors,
                                      real* v_means, real* v_quats, real* v_scales, real* v_opacities, real* v_sh,
                                      real* v_viewmats, real* v_ks) {
    using namespace splat;
    SPLAT_TRY(check(o, v_means));
    bool shades = sh && colors && v_colors && v_sh, with_cameras = v_viewmats != nullptr;
    if (with_cameras != (v_ks != nullptr) || !is_aligned(v_splats)) return SPLAT_BAD_OPTIONS;
    if (sh && (!shades || !has_coefficients(*o))) return SPLAT_BAD_OPTIONS;
    Scratch scratch(o->scratch);
    CameraRows rows = take_camera_rows(scratch, *o);
    if (with_cameras && !has_scratch(*o, scratch.bytes())) return SPLAT_NO_MEMORY;
    if (!with_cameras) rows.pose = nullptr;
    if (!with_cameras || !shades) rows.centre = nullptr;

    BackwardArguments a = {};
    a.sizes = sizes_of(*o), a.lens = lens_of(*o);
    a.means = means, a.quats = quats, a.scales = scales, a.opacities = opacities, a.viewmats = viewmats, a.ks = ks;
    a.splats = splats, a.v_splats = v_splats;
    a.v_means = v_means, a.v_quats = v_quats, a.v_scales = v_scales, a.v_opacities = v_opacities;
    a.rows = rows, a.chunks = int(blocks_for(a.sizes.gaussians, backward_threads));
    auto kernel = with_cameras ? project_backward_kernel<true> : project_backward_kernel<false>;
    SPLAT_LAUNCH(kernel, int64_t(a.chunks) * a.sizes.scenes, backward_threads, stream_of(*o), a);
    SPLAT_TRY(launch_code());
    if (shades) SPLAT_TRY(shade_backward(*o, rows, means, viewmats, sh, colors, v_colors, v_means, true, v_sh));
    return with_cameras ? sum_camera_rows(*o, rows, viewmats, v_viewmats, v_ks) : SPLAT_OK;
}
