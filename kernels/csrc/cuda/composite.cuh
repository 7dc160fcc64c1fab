// What compositing and its gradient share: how a tile stages its list, how a warp culls, what a pixel computes.
//
// A block owns a tile of 16 x 16 pixels and one list; a warp of it owns 8 x 4 of those pixels. Splats come in batches
// into shared memory. For 32 splats at a time each lane of a warp asks for one whether its ellipse meets the warp's
// rectangle, and the warp then runs only through those that do: for a splat of a few pixels that is one or two warps of
// eight, and the test costs as much as one evaluation for 32 splats.
#pragma once

#include "ellipse.cuh"
#include "warp.cuh"

namespace splat {

constexpr int rectangle_width = 8, rectangle_height = 4;  // pixels of a warp

struct CompositeArguments {
    Sizes sizes;
    float alpha_limit;
    float stop;  // a pixel ends before the splat that would leave this transmittance or less
    const float *splats, *features, *background;
    const int32_t* ids;
    const int64_t* ranges;
    float *image, *depth, *transmittance;
    int32_t* last;
};

inline CompositeArguments composite_arguments(const SplatOptions& o, const float* splats, const float* features,
                                              const float* background, const int32_t* ids, const int64_t* ranges) {
    CompositeArguments a = {};
    a.sizes = sizes_of(o);
    a.alpha_limit = float(o.alpha_limit);
    // The original implementation stops below the limit, ours at it.
    a.stop = a.sizes.graphdeco ? std::nextafterf(float(transmittance_stop), 0.0f) : float(transmittance_stop);
    a.splats = splats, a.features = features, a.background = background, a.ids = ids, a.ranges = ranges;
    return a;
}

// Where a thread works.
struct Spot {
    int view, scene, tile;
    int column, row;            // pixel
    float low_x, low_y;         // first pixel centre of the warp's rectangle
    bool inside;                // the image
    int64_t pixel;              // in [B*V,H,W]
    int64_t begin, end;         // of the list
    int64_t first_splat, first_feature;  // rows of Gaussian 0
};

__device__ __forceinline__ Spot find_spot(const CompositeArguments& a) {
    Spot s;
    s.view = int(blockIdx.x / unsigned(a.sizes.tiles)), s.tile = int(blockIdx.x % unsigned(a.sizes.tiles));
    s.scene = s.view / a.sizes.views;
    int lane = lane_index(), warp = warp_index();
    int left = s.tile % a.sizes.tiles_x * tile_edge + warp % 2 * rectangle_width;
    int above = s.tile / a.sizes.tiles_x * tile_edge + warp / 2 * rectangle_height;
    s.column = left + lane % rectangle_width, s.row = above + lane / rectangle_width;
    s.low_x = float(left) + 0.5f, s.low_y = float(above) + 0.5f;
    s.inside = s.column < a.sizes.width && s.row < a.sizes.height;
    s.pixel = (int64_t(s.view) * a.sizes.height + s.row) * a.sizes.width + s.column;
    const int64_t* range = a.ranges + int64_t(s.view) * (a.sizes.tiles + 1) + s.tile;
    s.begin = range[0], s.end = range[1];
    s.first_splat = int64_t(s.view) * a.sizes.gaussians;
    s.first_feature = a.sizes.shared_features ? int64_t(s.scene) * a.sizes.gaussians : s.first_splat;
    return s;
}

// Splats in shared memory. U is scaled by sqrt(log2(e) / 2) and tau by log2(e), so that sigma * log2(e) = u^2 + v^2 goes
// into exp2 as it is. `lean` and `slope` serve the test against the rectangle.
constexpr float log2_e = 1.4426950408889634f;
constexpr float factor_scale = 0.84932180028801904f;

template <int batch, int channels> struct Staged {
    float4 a[batch];                  // x, y, u11, u12 (scaled)
    float4 b[batch];                  // u22 (scaled), opacity, tau (scaled), lean = u12 / u11
    float slope[batch];               // u11 u12 / (u12^2 + u22^2)
    float features[batch * channels]; // `count` of these are of use
    int32_t ids[batch];
};

// Copy entry `entry` of the list to place `i`. Channel number C, one past the features, is depth.
template <int batch, int channels>
__device__ __forceinline__ void stage(const CompositeArguments& a, const Spot& spot, int64_t entry, int i, int first_channel,
                                      int count, Staged<batch, channels>& staged) {
    int id = __ldg(a.ids + entry);
    const float4* splat = reinterpret_cast<const float4*>(a.splats) + 2 * (spot.first_splat + id);
    float4 p = __ldg(splat), q = __ldg(splat + 1);
    staged.ids[i] = id;
    staged.a[i] = make_float4(p.x, p.y, p.z * factor_scale, p.w * factor_scale);
    staged.b[i] = make_float4(q.x * factor_scale, q.y, q.z * log2_e, __fdividef(p.w, p.z));
    staged.slope[i] = __fdividef(p.z * p.w, p.w * p.w + q.x * q.x);
    const float* features = a.features + (spot.first_feature + id) * a.sizes.channels + first_channel;
#pragma unroll
    for (int c = 0; c < channels; ++c) {
        float value = 0.0f;
        if (c < count) value = first_channel + c < a.sizes.channels ? __ldg(features + c) : q.w;
        staged.features[i * channels + c] = value;
    }
}

__device__ __forceinline__ float clamp_between(float x, float low, float high) { return fminf(fmaxf(x, low), high); }

// Whether an ellipse meets the warp's rectangle of pixel centres. The least sigma over a rectangle lies on one of the two
// edges that face the centre (or at the centre, if that is inside): take the best point of each.
__device__ __forceinline__ bool meets_rectangle(float4 a, float4 b, float slope, float low_x, float low_y) {
    float x0 = low_x - a.x, x1 = x0 + (rectangle_width - 1), y0 = low_y - a.y, y1 = y0 + (rectangle_height - 1);
    float edge_x = clamp_between(0.0f, x0, x1), edge_y = clamp_between(0.0f, y0, y1);
    float on_x = clamp_between(-edge_x * slope, y0, y1), on_y = clamp_between(-edge_y * b.w, x0, x1);
    float u = a.z * edge_x + a.w * on_x, v = b.x * on_x;
    float p = a.z * on_y + a.w * edge_y, q = b.x * edge_y;
    return fminf(u * u + v * v, p * p + q * q) <= b.z + tau_margin * log2_e;
}

// One splat at one pixel.
struct Sample {
    float dx, dy;  // pixel - mean
    float u, v;    // scaled
    float power;   // sigma * log2(e)
};

__device__ __forceinline__ Sample sample(float4 a, float4 b, float x, float y) {
    Sample s;
    s.dx = x - a.x, s.dy = y - a.y;
    s.v = b.x * s.dy;
    s.u = a.z * s.dx + a.w * s.dy;
    s.power = s.u * s.u + s.v * s.v;
    return s;
}

// One instruction. The argument is at most log2(255) + 1 in size, so none of the cases that exp2f takes care of occurs.
__device__ __forceinline__ float exp2_of_minus(float power) {
#ifdef __CUDA_ARCH__
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(-power));
    return result;
#else
    return exp2f(-power);
#endif
}

}  // namespace splat
