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

// Where a thread works. Small, because it lives in registers all along: what can be had from it by a little arithmetic
// when it is needed is not in it.
struct Spot {
    int view, scene;
    float x, y;          // centre of its pixel
    float low_x, low_y;  // centre of the first pixel of the warp's rectangle
    int64_t begin;       // of the list
    int length;
};

__device__ __forceinline__ Spot find_spot(const CompositeArguments& a) {
    Spot s;
    s.view = int(blockIdx.x / unsigned(a.sizes.tiles)), s.scene = s.view / a.sizes.views;
    int tile = int(blockIdx.x % unsigned(a.sizes.tiles)), lane = lane_index(), warp = warp_index();
    s.low_x = float(tile % a.sizes.tiles_x * tile_edge + warp % 2 * rectangle_width) + 0.5f;
    s.low_y = float(tile / a.sizes.tiles_x * tile_edge + warp / 2 * rectangle_height) + 0.5f;
    s.x = s.low_x + float(lane % rectangle_width), s.y = s.low_y + float(lane / rectangle_width);
    const int64_t* range = a.ranges + int64_t(s.view) * (a.sizes.tiles + 1) + tile;
    s.begin = range[0], s.length = int(range[1] - range[0]);
    return s;
}

__device__ __forceinline__ bool is_inside(const Spot& s, const Sizes& sizes) {
    return s.x < float(sizes.width) && s.y < float(sizes.height);
}

// Of the pixel in [B*V,H,W].
__device__ __forceinline__ int64_t pixel_index(const Spot& s, const Sizes& sizes) {
    return (int64_t(s.view) * sizes.height + int(s.y)) * sizes.width + int(s.x);
}

// Rows of Gaussian 0 of the view.
__device__ __forceinline__ int64_t first_splat(const Spot& s, const Sizes& sizes) { return int64_t(s.view) * sizes.gaussians; }
__device__ __forceinline__ int64_t first_feature(const Spot& s, const Sizes& sizes) {
    return int64_t(sizes.shared_features ? s.scene : s.view) * sizes.gaussians;
}

// Splats in shared memory. U is scaled by sqrt(log2(e) / 2) and tau by log2(e), so that sigma * log2(e) = u^2 + v^2 goes
// into exp2 as it is. `lean` and `slope` serve the test against the rectangle.
constexpr float log2_e = 1.4426950408889634f;
constexpr float factor_scale = 0.84932180028801904f;

template <int batch, int channels> struct Staged {
    static constexpr int quads = (channels + 3) / 4;
    float4 a[batch];                 // x, y, u11, u12 (scaled)
    float4 b[batch];                 // u22 (scaled), opacity, tau (scaled), lean = u12 / u11
    float4 features[batch * quads];  // read with as few instructions as the splat; the rest of the last four is 0
    float slope[batch];              // u11 u12 / (u12^2 + u22^2)
    int32_t ids[batch];
};

// Channel `channel` of a splat; number C, one past the features, is depth, and beyond `end` there is nothing.
__device__ __forceinline__ float feature(const CompositeArguments& a, const float* row, float depth, int channel, int end) {
    if (channel >= end) return 0.0f;
    return channel < a.sizes.channels ? __ldg(row + channel) : depth;
}

// Copy entry `entry` of the list to place `i`.
template <int batch, int channels>
__device__ __forceinline__ void stage(const CompositeArguments& a, const Spot& spot, int64_t entry, int i, int first_channel,
                                      int count, Staged<batch, channels>& staged) {
    int id = __ldg(a.ids + entry);
    const float4* splat = reinterpret_cast<const float4*>(a.splats) + 2 * (first_splat(spot, a.sizes) + id);
    float4 p = __ldg(splat), q = __ldg(splat + 1);
    staged.ids[i] = id;
    staged.a[i] = make_float4(p.x, p.y, p.z * factor_scale, p.w * factor_scale);
    staged.b[i] = make_float4(q.x * factor_scale, q.y, q.z * log2_e, p.w * reciprocal(p.z));
    staged.slope[i] = p.z * p.w * reciprocal(p.w * p.w + q.x * q.x);
    const float* row = a.features + (first_feature(spot, a.sizes) + id) * a.sizes.channels;
    int end = first_channel + count;
#pragma unroll
    for (int k = 0; k < (channels + 3) / 4; ++k) {
        float f[4] = {};
#pragma unroll
        for (int c = 0; c < 4; ++c)
            if (4 * k + c < channels) f[c] = feature(a, row, q.w, first_channel + 4 * k + c, end);
        staged.features[i * ((channels + 3) / 4) + k] = make_float4(f[0], f[1], f[2], f[3]);
    }
}

// Features of a staged splat in registers.
template <int batch, int channels>
__device__ __forceinline__ void read_features(const Staged<batch, channels>& staged, int i, float (&out)[channels]) {
#pragma unroll
    for (int k = 0; k < (channels + 3) / 4; ++k) {
        float4 four = staged.features[i * ((channels + 3) / 4) + k];
        const float f[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int c = 0; c < 4; ++c)
            if (4 * k + c < channels) out[4 * k + c] = f[c];
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

// Spelled in operations that the compiler does not fuse in its own way, so that forward and backward pass agree on which
// splats count.
__device__ __forceinline__ Sample sample(float4 a, float4 b, float x, float y) {
    Sample s;
    s.dx = __fadd_rn(x, -a.x), s.dy = __fadd_rn(y, -a.y);
    s.v = __fmul_rn(b.x, s.dy);
    s.u = __fmaf_rn(a.z, s.dx, __fmul_rn(a.w, s.dy));
    s.power = __fmaf_rn(s.u, s.u, __fmul_rn(s.v, s.v));
    return s;
}

}  // namespace splat
