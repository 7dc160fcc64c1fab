// Stage 1: Gaussians to splats, their tile counts and, with spherical harmonics, their colours, in one pass.
//
// A thread owns a Gaussian and loops over views, so the 44 + 12 K bytes of its parameters are read once; a view costs
// 56 bytes of output (32 splat, 8 extents, 4 tiles, 12 colour). Memory-bound.
#include "colour.cuh"
#include "ellipse.cuh"
#include "warp.cuh"

namespace splat {
namespace {

constexpr int project_threads = 128;
constexpr int enough_blocks = 2048;  // some 15 for each multiprocessor of the largest GPUs

struct ProjectArguments {
    Sizes sizes;
    Lens<float> lens;
    const float *means, *quats, *scales, *opacities, *viewmats, *ks, *sh;
    const int64_t* counts;
    int coefficients;
    int chunks;       // blocks of Gaussians of a scene
    int group;        // views of a block, at most view_group
    float *splats, *extents, *colors;
    int32_t* tiles;
    unsigned long long* stats;
};

// Parameters of one Gaussian.
struct Gaussian {
    float mean[3], quat[4], scale[3], opacity;
};

__device__ __forceinline__ Gaussian load_gaussian(const ProjectArguments& a, int64_t index) {
    Gaussian g;
    for (int i = 0; i < 3; ++i) g.mean[i] = __ldg(a.means + 3 * index + i), g.scale[i] = __ldg(a.scales + 3 * index + i);
    for (int i = 0; i < 4; ++i) g.quat[i] = __ldg(a.quats + 4 * index + i);
    g.opacity = __ldg(a.opacities + index);
    return g;
}

// Whether a Gaussian has values that are not finite. Either its parameters are not, or project() dropped it (and zeroed
// all fields) though its depth does not say why.
__device__ __forceinline__ bool is_broken(const Camera<float>& camera, const Lens<float>& lens, const Gaussian& g,
                                          const Splat<float>& s) {
    float sum = g.opacity + g.quat[3];
    for (int i = 0; i < 3; ++i) sum += g.mean[i] + g.quat[i] + g.scale[i];
    float z = g.mean[0] * camera.w[6] + g.mean[1] * camera.w[7] + g.mean[2] * camera.w[8] + camera.t[2];
    return !is_finite(sum) || (s.u22 == 0.0f && !(z <= lens.near_z) && !(z >= lens.far_z));
}

__device__ __forceinline__ void store_splat(const ProjectArguments& a, int64_t pair, const Splat<float>& s, int tiles) {
    float4* out = reinterpret_cast<float4*>(a.splats) + 2 * pair;
    out[0] = make_float4(s.x, s.y, s.u11, s.u12);
    out[1] = make_float4(s.u22, s.opacity, s.tau, s.depth);
    reinterpret_cast<float2*>(a.extents)[pair] = make_float2(s.half_x, s.half_y);
    a.tiles[pair] = tiles;
}

__device__ __forceinline__ Splat<float> no_splat() {
    Splat<float> s = {};
    s.tau = -1.0f;
    return s;
}

// Project one Gaussian into one view; returns the entries it makes.
template <int degree>
__device__ __forceinline__ int project_one(const ProjectArguments& a, const Camera<float>& camera, const Gaussian& g,
                                           bool exists, int64_t pair, const float* coefficients, bool& broken) {
    Splat<float> s = no_splat();
    float colour[3] = {0.0f, 0.0f, 0.0f};
    if (exists) {
        s = project<float>(camera, a.lens, g.mean, g.quat, g.scale, g.opacity);
        broken = is_broken(camera, a.lens, g, s);
        if constexpr (degree >= 0) broken = !evaluate_colour<degree>(camera, g.mean, coefficients, colour) || broken;
        if (broken) s = no_splat(), colour[0] = colour[1] = colour[2] = 0.0f;
    }
    int tiles = 0;
    if (s.tau >= 0.0f)
        tiles = count_tiles(footprint(s.x, s.y, s.u11, s.u12, s.u22, s.tau, s.half_x, a.sizes.graphdeco), a.sizes);
    store_splat(a, pair, s, tiles);
    for (int c = 0; degree >= 0 && c < 3; ++c) a.colors[3 * pair + c] = colour[c];
    return tiles;
}

// Add the block's entries and broken pairs to the totals: one atomic each, integers, so the order does not matter.
__device__ __forceinline__ void add_stats(unsigned long long* stats, long long tiles, int broken) {
    __shared__ unsigned long long totals[2];
    if (threadIdx.x == 0) totals[0] = totals[1] = 0;
    __syncthreads();
    unsigned long long entries = warp_sum(static_cast<unsigned long long>(tiles));
    unsigned long long drops = warp_sum(static_cast<unsigned long long>(broken));
    if (lane_index() == 0) atomicAdd(&totals[0], entries), atomicAdd(&totals[1], drops);
    __syncthreads();
    if (threadIdx.x < 2 && totals[threadIdx.x]) atomicAdd(&stats[threadIdx.x], totals[threadIdx.x]);
}

template <int degree>  // -1: no colours
__global__ void __launch_bounds__(project_threads) project_kernel(ProjectArguments a) {
    constexpr bool shades = degree >= 0;
    using Coefficients = StagedCoefficients<shades ? degree : 0>;
    __shared__ Camera<float> cameras[view_group];
    __shared__ float staged[shades ? project_threads * Coefficients::stride : 1];

    int chunk = int(blockIdx.x % unsigned(a.chunks)), rest = int(blockIdx.x / unsigned(a.chunks));
    int groups = (a.sizes.views + a.group - 1) / a.group, scene = rest / groups;
    int first_view = rest % groups * a.group, views = min(a.group, a.sizes.views - first_view);
    int first = chunk * project_threads, here = min(project_threads, a.sizes.gaussians - first);
    int64_t row = int64_t(scene) * a.sizes.gaussians + first;

    load_cameras(cameras, a.viewmats, a.ks, a.lens, int64_t(scene) * a.sizes.views + first_view, views);
    if constexpr (shades) Coefficients::load(staged, a.sh, row, here, a.coefficients);

    int thread = int(threadIdx.x), broken = 0;
    long long entries = 0;
    if (thread < here) {
        bool exists = !a.counts || first + thread < a.counts[scene];
        Gaussian g = load_gaussian(a, row + thread);
        for (int view = 0; view < views; ++view) {
            int64_t pair = (int64_t(scene) * a.sizes.views + first_view + view) * a.sizes.gaussians + first + thread;
            bool drop = false;
            entries += project_one<degree>(a, cameras[view], g, exists, pair, staged + (shades ? thread * Coefficients::stride : 0), drop);
            broken += drop;
        }
    }
    add_stats(a.stats, entries, broken);
}

// Few Gaussians: spread the views over blocks, so that every multiprocessor has work.
int views_of_a_block(const Sizes& s, int chunks) {
    int64_t blocks = int64_t(s.scenes) * chunks;
    int64_t groups = blocks_for(enough_blocks, blocks > 0 ? blocks : 1);
    int64_t group = blocks_for(s.views, groups < s.views ? groups : s.views);
    return int(group < view_group ? group : view_group);
}

template <int degree> void launch(const ProjectArguments& a, int64_t blocks, cudaStream_t stream) {
    auto kernel = project_kernel<degree>;
    SPLAT_LAUNCH(kernel, blocks, project_threads, stream, a);
}

void launch_degree(int degree, const ProjectArguments& a, int64_t blocks, cudaStream_t stream) {
    switch (degree) {
        case 0: return launch<0>(a, blocks, stream);
        case 1: return launch<1>(a, blocks, stream);
        case 2: return launch<2>(a, blocks, stream);
        case 3: return launch<3>(a, blocks, stream);
        case 4: return launch<4>(a, blocks, stream);
        default: return launch<-1>(a, blocks, stream);
    }
}

}  // namespace
}  // namespace splat

extern "C" int splat_project(const SplatOptions* o, const real* means, const real* quats, const real* scales,
                             const real* opacities, const real* viewmats, const real* ks, const int64_t* counts,
                             const real* sh, real* splats, real* extents, int32_t* tiles, real* colors, int64_t* stats) {
    using namespace splat;
    SPLAT_TRY(check(o, stats));
    bool shades = sh != nullptr;
    if (shades != (colors != nullptr) || !is_aligned(splats) || !is_aligned(extents)) return SPLAT_BAD_OPTIONS;
    if (shades && !has_coefficients(*o)) return SPLAT_BAD_OPTIONS;
    cudaStream_t stream = stream_of(*o);
    SPLAT_TRY(device_code(cudaMemsetAsync(stats, 0, 2 * sizeof(int64_t), stream)));
    if (pairs_of(*o) == 0) return SPLAT_OK;

    ProjectArguments a = {};
    a.sizes = sizes_of(*o), a.lens = lens_of(*o);
    a.means = means, a.quats = quats, a.scales = scales, a.opacities = opacities, a.viewmats = viewmats, a.ks = ks, a.sh = sh;
    a.counts = counts, a.coefficients = o->sh_coefficients;
    a.chunks = int(blocks_for(a.sizes.gaussians, project_threads));
    a.group = views_of_a_block(a.sizes, a.chunks);
    a.splats = splats, a.extents = extents, a.tiles = tiles, a.colors = colors;
    a.stats = reinterpret_cast<unsigned long long*>(stats);
    int64_t blocks = int64_t(a.chunks) * a.sizes.scenes * blocks_for(a.sizes.views, a.group);
    launch_degree(shades ? o->sh_degree : -1, a, blocks, stream);
    return launch_code();
}
