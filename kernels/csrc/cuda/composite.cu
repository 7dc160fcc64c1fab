// Stage 3: blend the lists of all tiles, front to back.
//
// Bytes: 36 + 4 C for an entry (id, splat, features; gathered, from the L2 cache where tiles share splats), 8 + 4 C for a
// pixel. Compute-bound: some 20 instructions for each splat and warp that meet, 32 pixels at a time.
#include "composite.cuh"

namespace splat {
namespace {

constexpr int batch = tile_pixels;  // one entry for each thread to stage

// On a multiprocessor: as many as the registers allow without spilling (48 a thread, or 64).
constexpr int blocks_at_once(int channels) { return channels <= 4 ? 5 : 4; }

// What a pixel has gathered. One that is done moves out of the reach of all splats, so that a single comparison tells
// whether a splat counts.
constexpr float out_of_reach = 1e18f;  // its square is infinite

template <int channels> struct Pixel {
    float x;               // of its centre, or out_of_reach
    float transmittance;
    float sums[channels];
    int last;              // entries up to the last one that contributed

    __device__ bool done() const { return x == out_of_reach; }
};

// Without branches: where a warp comes here, some of its pixels nearly always count, and the others would wait.
template <int batch_size, int channels>
__device__ __forceinline__ void blend(Pixel<channels>& p, float y, const Staged<batch_size, channels>& staged, int i, int number,
                                      const CompositeArguments& arguments) {
    float4 a = staged.a[i], b = staged.b[i];
    float features[channels];
    read_features(staged, i, features);
    Sample s = sample(a, b, p.x, y);
    float alpha = fminf(arguments.alpha_limit, b.y * quick_exp2(-s.power));
    // With one rounding: T - alpha T would lose the digits of what two opaque hits leave, and the backward pass divides.
    float weight = alpha * p.transmittance, next = __fmaf_rn(-alpha, p.transmittance, p.transmittance);
    bool meets = s.power <= b.z, counts = meets && next > arguments.stop;
    if (meets && !counts) p.x = out_of_reach;
    if (counts) p.last = number + 1;
    weight = counts ? weight : 0.0f;
    p.transmittance = counts ? next : p.transmittance;
#pragma unroll
    for (int c = 0; c < channels; ++c) p.sums[c] += weight * features[c];
}

// A warp goes through the splats of a batch, the first of which is entry `first` of the list.
template <int channels>
__device__ __forceinline__ void blend_batch(Pixel<channels>& p, const Staged<batch, channels>& staged, int here, int first,
                                            const Spot& spot, const CompositeArguments& arguments) {
    for (int group = 0; group < here; group += warp_lanes) {
        if (__all_sync(all_lanes, p.done())) return;
        int own = group + lane_index();
        bool meets = own < here && meets_rectangle(staged.a[own], staged.b[own], staged.slope[own], spot.low_x, spot.low_y);
        for (unsigned mask = __ballot_sync(all_lanes, meets); mask; mask &= mask - 1) {
            int i = group + __ffs(int(mask)) - 1;
            blend(p, spot.y, staged, i, first + i, arguments);
        }
    }
}

template <int channels>
__device__ __forceinline__ void store_pixel(const Pixel<channels>& p, const Spot& spot, const CompositeArguments& a,
                                            int first_channel, int count) {
    int64_t pixel = pixel_index(spot, a.sizes);
    const float* background = a.background ? a.background + int64_t(spot.view) * a.sizes.channels : nullptr;
#pragma unroll
    for (int c = 0; c < channels; ++c) {
        int channel = first_channel + c;
        if (c >= count) break;
        if (channel == a.sizes.channels) a.depth[pixel] = p.sums[c];
        else a.image[pixel * a.sizes.channels + channel] = p.sums[c] + (background ? p.transmittance * background[channel] : 0.0f);
    }
    if (first_channel > 0) return;
    a.transmittance[pixel] = p.transmittance, a.last[pixel] = p.last;
}

// Channels first_channel to first_channel + count, at most `channels` of them.
template <int channels>
__global__ void __launch_bounds__(tile_pixels, blocks_at_once(channels)) composite_kernel(CompositeArguments a, int first_channel, int count) {
    __shared__ Staged<batch, channels> staged;
    Spot spot = find_spot(a);
    Pixel<channels> p = {};
    p.transmittance = 1.0f, p.x = is_inside(spot, a.sizes) ? spot.x : out_of_reach;

    int thread = int(threadIdx.x);
    for (int first = 0; first < spot.length; first += batch) {
        if (__syncthreads_and(p.done())) break;  // and the batch before this one is no longer read
        if (first + thread < spot.length) stage(a, spot, spot.begin + first + thread, thread, first_channel, count, staged);
        __syncthreads();
        blend_batch(p, staged, min(batch, spot.length - first), first, spot, a);
    }
    if (is_inside(spot, a.sizes)) store_pixel(p, spot, a, first_channel, count);
}

template <int channels> int launch(const SplatOptions& o, const CompositeArguments& a, int first_channel, int count) {
    auto kernel = composite_kernel<channels>;
    int64_t blocks = int64_t(a.sizes.all_views) * a.sizes.tiles;
    SPLAT_LAUNCH(kernel, blocks, tile_pixels, stream_of(o), a, first_channel, count);
    return launch_code();
}

int launch_channels(const SplatOptions& o, const CompositeArguments& a, int first_channel, int count) {
    if (count <= 1) return launch<1>(o, a, first_channel, count);
    if (count <= 3) return launch<3>(o, a, first_channel, count);
    if (count <= 4) return launch<4>(o, a, first_channel, count);
    return launch<8>(o, a, first_channel, count);
}

}  // namespace
}  // namespace splat

extern "C" int splat_composite(const SplatOptions* o, const real* splats, const real* features, const real* background,
                               const int32_t* ids, const int64_t* ranges, real* image, real* depth, real* transmittance,
                               int32_t* last) {
    using namespace splat;
    SPLAT_TRY(check(o, transmittance));
    CompositeArguments a = composite_arguments(*o, splats, features, background, ids, ranges);
    if (!is_aligned(splats) || a.sizes.depth != (depth != nullptr)) return SPLAT_BAD_OPTIONS;
    a.image = image, a.depth = depth, a.transmittance = transmittance, a.last = last;
    // Every pass goes through the lists again, and takes 8 channels with it: weights cost about as much as 8 channels.
    int channels = a.sizes.channels + (a.sizes.depth ? 1 : 0), first = 0;
    do {
        int count = channels - first < 8 ? channels - first : 8;
        SPLAT_TRY(launch_channels(*o, a, first, count));
        first += count;
    } while (first < channels);
    return SPLAT_OK;
}
