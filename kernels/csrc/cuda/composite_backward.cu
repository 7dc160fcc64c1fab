// Gradient of stage 3: every tile walks back through its list, from the last entry that any of its pixels used.
//
// Per pixel only two numbers travel: the transmittance in front of the splat, and what lies behind it weighted with the
// image's cotangent. A warp adds the contributions of its 32 pixels by FoldedSum and then sends one atomic instruction for
// each splat, whose lanes hold the different fields: the 6 of a splat fall into one sector of memory.
//
// Why not one lane for each Gaussian with the pixels passing through: such a warp cannot cull, so it spends some 45
// instructions on each of 256 pixels whatever the splat covers, 400 issue slots an entry, and wants a checkpoint of colour
// and transmittance for each pixel every 32 entries, 128 bytes an entry. Here an entry costs some 100 issue slots for each
// of the one to eight warps that it meets: less up to four warps, and for splats near the size of a pixel it is one or two.
//
// Deterministic: the eight warps leave their sums in shared memory, the block adds them in a fixed order and writes one row
// for the entry; gather_kernel then adds up the rows of each Gaussian in the order of its tiles.
#include "composite.cuh"

namespace splat {
namespace {

constexpr int wide_pass = 8;         // channels of a pass when there are more than 4
constexpr int most_fused = 4;        // channels up to which one pass does everything
constexpr int geometry_fields = 6;   // x, y, u11, u12, u22, opacity: the first fields of a splat
constexpr int warps_of_tile = tile_pixels / warp_lanes;
constexpr int gather_lanes = 16, gather_threads = 256;

struct BackwardArguments {
    CompositeArguments forward;
    const int32_t *tiles, *slots, *first;              // deterministic only
    const float *v_image, *v_depth, *v_transmittance;  // may be null
    float *v_splats, *v_features, *v_absolute;
    float* rows;                                       // deterministic only: [M, values]
    int first_channel, count;                          // channels of this pass
};

// What one launch computes: `channels` gradients of features, those of the splat with `geometry`, and the sum of the
// absolute gradients of the mean with `absolute`. With geometry and no channels, all channels enter through memory.
template <int channels_, bool geometry_, bool absolute_, bool deterministic_> struct Pass {
    static constexpr int channels = channels_;
    static constexpr bool geometry = geometry_, absolute = absolute_, deterministic = deterministic_;
    static constexpr int values = (geometry ? geometry_fields : 0) + channels + (absolute ? 2 : 0);
    static constexpr int batch = deterministic ? warp_lanes : tile_pixels;
    static constexpr int staged_channels = channels > 0 ? channels : 1;
    // On a multiprocessor: as many as the registers allow without spilling (48 a thread, or 64).
    static constexpr int blocks_at_once = !deterministic && geometry && channels > 0 && values < 10 ? 5 : 4;
};

// Where value number `value` of a pass goes.
struct Target {
    float* base;      // of Gaussian 0 of view 0 (or of scene 0: is_feature), null for a place that is not used
    int stride;
    float factor;     // undoes the scale of U
    bool is_feature;
};

template <class P> __device__ __forceinline__ Target target_of(const BackwardArguments& a, int value) {
    constexpr int geometry = P::geometry ? geometry_fields : 0;
    if (value < 0) return {nullptr, 0, 1.0f, false};
    if (value < geometry) return {a.v_splats + value, SPLAT_FIELDS, value < 2 ? 1.0f / factor_scale : 1.0f, false};
    if (value >= geometry + P::channels) return {a.v_absolute + (value - geometry - P::channels), 2, 1.0f / factor_scale, false};
    int c = value - geometry, channel = a.first_channel + c;
    if (c >= a.count) return {nullptr, 0, 1.0f, false};
    if (channel == a.forward.sizes.channels) return {a.v_splats + SPLAT_Z, SPLAT_FIELDS, 1.0f, false};
    return {a.v_features + channel, a.forward.sizes.channels, 1.0f, true};
}

// What a pixel carries from back to front.
template <int channels> struct Ray {
    float transmittance;  // behind the splat that comes next
    float behind;         // cotangent-weighted sum of all behind it
    int last;
    float v[channels > 0 ? channels : 1];
};

// Cotangent of a channel of a pixel: of the image, or of depth after its last channel.
__device__ __forceinline__ float cotangent(const BackwardArguments& a, const Spot& spot, int channel) {
    int channels = a.forward.sizes.channels;
    if (channel < channels) return a.v_image ? __ldg(a.v_image + pixel_index(spot, a.forward.sizes) * channels + channel) : 0.0f;
    return a.v_depth ? __ldg(a.v_depth + pixel_index(spot, a.forward.sizes)) : 0.0f;
}

template <class P> __device__ __forceinline__ Ray<P::channels> start_ray(const BackwardArguments& a, const Spot& spot) {
    Ray<P::channels> r = {};
    if (!is_inside(spot, a.forward.sizes)) return r;
    int64_t pixel = pixel_index(spot, a.forward.sizes);
    r.transmittance = __ldg(a.forward.transmittance + pixel), r.last = __ldg(a.forward.last + pixel);
#pragma unroll
    for (int c = 0; c < P::channels; ++c) r.v[c] = c < a.count ? cotangent(a, spot, a.first_channel + c) : 0.0f;
    if (!P::geometry) return r;
    float behind = a.v_transmittance ? __ldg(a.v_transmittance + pixel) : 0.0f;
    int channels = a.forward.sizes.channels;
    const float* background = a.forward.background;
    for (int c = 0; background && c < channels; ++c)
        behind += __ldg(background + int64_t(spot.view) * channels + c) * cotangent(a, spot, c);
    r.behind = r.transmittance * behind;
    return r;
}

// Features of a splat times the cotangent of the pixel, over all channels; from memory only for pixels that count, since
// the others may lie outside the image.
template <class P>
__device__ __forceinline__ float dot_features(const BackwardArguments& a, const Spot& spot, const Ray<P::channels>& r,
                                              bool counts, const Staged<P::batch, P::staged_channels>& staged, int i) {
    float sum = 0.0f;
    if constexpr (P::channels > 0) {
        float features[P::channels];
        read_features(staged, i, features);
#pragma unroll
        for (int c = 0; c < P::channels; ++c) sum += features[c] * r.v[c];
    } else if (counts) {
        int channels = a.forward.sizes.channels, id = staged.ids[i];
        const float* row = a.forward.features + (first_feature(spot, a.forward.sizes) + id) * channels;
        for (int c = 0; c < channels; ++c) sum += __ldg(row + c) * cotangent(a, spot, c);
        if (a.forward.sizes.depth)
            sum += __ldg(a.forward.splats + (first_splat(spot, a.forward.sizes) + id) * SPLAT_FIELDS + SPLAT_Z) *
                   cotangent(a, spot, channels);
    }
    return sum;
}

// Contribution of one pixel to the gradients of one splat; moves the ray in front of it. Without branches: where the splat
// does not count, alpha is 0, which leaves the ray as it is and makes all values 0.
template <class P>
__device__ __forceinline__ void differentiate(const BackwardArguments& a, const Spot& spot, Ray<P::channels>& r, const Sample& s,
                                              bool counts, const Staged<P::batch, P::staged_channels>& staged, int i,
                                              float (&values)[P::values]) {
    float4 p = staged.a[i], q = staged.b[i];
    float fall = counts ? quick_exp2(-s.power) : 0.0f, raw = q.y * fall, alpha = fminf(a.forward.alpha_limit, raw);
    float inverse = reciprocal(1.0f - alpha);
    r.transmittance *= inverse;
    float weight = alpha * r.transmittance;
    constexpr int geometry = P::geometry ? geometry_fields : 0;
#pragma unroll
    for (int c = 0; c < P::channels; ++c) values[geometry + c] = weight * r.v[c];
    if constexpr (P::geometry) {
        float seen = dot_features<P>(a, spot, r, counts, staged, i);
        float v_alpha = r.transmittance * seen - inverse * r.behind;
        r.behind += weight * seen;
        float v_opacity = raw <= a.forward.alpha_limit ? fall * v_alpha : 0.0f;
        float v_sigma = -(q.y * (1.0f / factor_scale)) * v_opacity;  // for u and v in their scale
        float v_u = v_sigma * s.u, v_v = v_sigma * s.v;
        values[0] = -(p.z * v_u), values[1] = -(p.w * v_u + q.x * v_v);  // target_of scales them back
        values[2] = v_u * s.dx, values[3] = v_u * s.dy, values[4] = v_v * s.dy;
        values[5] = v_opacity;
        if constexpr (P::absolute) {
            values[P::values - 2] = fabsf(values[0]), values[P::values - 1] = fabsf(values[1]);
        }
    }
}

// A lane's part of the sums of a warp: which value it ends up with and where that goes.
struct Outlet {
    int value;        // or -1
    char* base;       // of Gaussian 0 of the view
    unsigned stride;  // bytes
    float factor;

    __device__ float* address(int id) const {
        return reinterpret_cast<float*>(base + uint64_t(unsigned(id)) * stride);  // one multiply-add
    }
};

template <class P> __device__ __forceinline__ Outlet find_outlet(const BackwardArguments& a, const Spot& spot) {
    int value = FoldedSum<P::values>::owned(lane_index());
    Target t = target_of<P>(a, value);
    if (!t.base) return {-1, nullptr, 0, 0.0f};
    int64_t row = t.is_feature ? first_feature(spot, a.forward.sizes) : first_splat(spot, a.forward.sizes);
    return {value, reinterpret_cast<char*>(t.base + row * t.stride), unsigned(t.stride) * unsigned(sizeof(float)), t.factor};
}

template <class P> struct Rows {
    float sums[P::deterministic ? warps_of_tile : 1][P::deterministic ? P::batch : 1][P::values];
};

// A warp walks back through the `here` splats of a batch that its pixels used; entry `first` of the list is the first.
template <class P>
__device__ __forceinline__ void walk_batch(const BackwardArguments& a, const Spot& spot, Ray<P::channels>& r, const Outlet& outlet,
                                           const Staged<P::batch, P::staged_channels>& staged, int here, int first, Rows<P>& rows) {
    int lane = lane_index();
    for (int group = (here - 1) / warp_lanes * warp_lanes; here > 0 && group >= 0; group -= warp_lanes) {
        int own = group + lane;
        bool meets = own < here && meets_rectangle(staged.a[own], staged.b[own], staged.slope[own], spot.low_x, spot.low_y);
        unsigned mask = __ballot_sync(all_lanes, meets);
        while (mask) {
            int bit = warp_lanes - 1 - __clz(int(mask)), i = group + bit;
            mask ^= 1u << bit;
            Sample s = sample(staged.a[i], staged.b[i], spot.x, spot.y);
            bool counts = first + i < r.last && s.power <= staged.b[i].z;
            if (!__any_sync(all_lanes, counts)) continue;
            int id = staged.ids[i];
            float values[P::values];
            differentiate<P>(a, spot, r, s, counts, staged, i, values);
            float total = FoldedSum<P::values>::run(values, lane) * outlet.factor;
            if (outlet.value < 0) continue;
            if constexpr (P::deterministic) rows.sums[warp_index()][i][outlet.value] = total;
            else add_to_global(outlet.address(id), total);
        }
    }
}

// Entries that any pixel of the block used.
__device__ __forceinline__ int used_entries(int warp_last) {
    __shared__ int lasts[warps_of_tile];
    if (lane_index() == 0) lasts[warp_index()] = warp_last;
    __syncthreads();
    int used = 0;
    for (int last : lasts) used = max(used, last);
    return used;
}

template <class P> __device__ __forceinline__ void clear_rows(Rows<P>& rows) {
    float* sums = &rows.sums[0][0][0];
    for (int i = int(threadIdx.x); i < int(sizeof(rows.sums) / sizeof(float)); i += tile_pixels) sums[i] = 0.0f;
}

// Rows of a batch, warp by warp.
template <class P> __device__ __forceinline__ void store_rows(const BackwardArguments& a, const Rows<P>& rows, int64_t entry, int here) {
    for (int i = int(threadIdx.x); i < here * P::values; i += tile_pixels) {
        float sum = 0.0f;
        for (int warp = 0; warp < warps_of_tile; ++warp) sum += rows.sums[warp][i / P::values][i % P::values];
        a.rows[entry * P::values + i] = sum;
    }
}

template <class P> __global__ void __launch_bounds__(tile_pixels, P::blocks_at_once) composite_backward_kernel(BackwardArguments a) {
    __shared__ Staged<P::batch, P::staged_channels> staged;
    __shared__ Rows<P> rows;
    Spot spot = find_spot(a.forward);
    Ray<P::channels> ray = start_ray<P>(a, spot);
    Outlet outlet = find_outlet<P>(a, spot);
    int warp_last = __reduce_max_sync(all_lanes, ray.last), used = used_entries(warp_last), thread = int(threadIdx.x);

    for (int first = (used - 1) / P::batch * P::batch; used > 0 && first >= 0; first -= P::batch) {
        __syncthreads();  // the batch before this one is no longer read
        int here = min(P::batch, used - first);
        if (thread < here)
            stage(a.forward, spot, spot.begin + first + thread, thread, a.first_channel, a.count, staged);
        if constexpr (P::deterministic) clear_rows<P>(rows);
        __syncthreads();
        walk_batch<P>(a, spot, ray, outlet, staged, min(here, warp_last - first), first, rows);
        if constexpr (P::deterministic) {
            __syncthreads();
            store_rows<P>(a, rows, spot.begin + first, here);
        }
    }
    if constexpr (P::deterministic)  // entries that nobody used
        for (int64_t i = (spot.begin + used) * P::values + thread; i < (spot.begin + spot.length) * P::values; i += tile_pixels) a.rows[i] = 0.0f;
}

// Add up the rows of each Gaussian of each scene; 16 lanes for the values. Features that views share are summed over them.
template <class P> __global__ void __launch_bounds__(gather_threads) gather_kernel(BackwardArguments a) {
    const Sizes& s = a.forward.sizes;
    int64_t item = (int64_t(blockIdx.x) * gather_threads + threadIdx.x) / gather_lanes;
    int value = int(threadIdx.x) % gather_lanes;
    if (item >= int64_t(s.scenes) * s.gaussians || value >= P::values) return;
    Target t = target_of<P>(a, value);
    if (!t.base) return;
    int64_t scene = item / s.gaussians, id = item % s.gaussians;
    bool is_shared = t.is_feature && s.shared_features;
    float sum = 0.0f;
    for (int v = 0; v < s.views; ++v) {
        int64_t view = scene * s.views + v, pair = view * s.gaussians + id;
        int64_t begin = a.forward.ranges[view * (s.tiles + 1)];
        const int32_t* slots = a.slots + begin + a.first[pair];
        if (!is_shared) sum = 0.0f;
        for (int j = 0; j < a.tiles[pair]; ++j) sum += a.rows[(begin + slots[j]) * P::values + value];
        if (!is_shared) t.base[pair * t.stride] = sum;
    }
    if (is_shared) t.base[item * t.stride] = sum;
}

template <class P> int launch(const SplatOptions& o, BackwardArguments a, int first_channel, int count) {
    a.first_channel = first_channel, a.count = count;
    auto kernel = composite_backward_kernel<P>;
    int64_t blocks = int64_t(a.forward.sizes.all_views) * a.forward.sizes.tiles;
    SPLAT_LAUNCH(kernel, blocks, tile_pixels, stream_of(o), a);
    SPLAT_TRY(launch_code());
    if constexpr (P::deterministic) {
        auto gather = gather_kernel<P>;
        int64_t threads = o.scenes * o.gaussians * gather_lanes;
        SPLAT_LAUNCH(gather, blocks_for(threads, gather_threads), gather_threads, stream_of(o), a);
        return launch_code();
    }
    return SPLAT_OK;
}

// Few channels: everything at once. Many: the splats with all channels in one pass, then 8 channels a pass; their
// gradients need the weights only.
template <bool absolute, bool deterministic> int launch_passes(const SplatOptions& o, const BackwardArguments& a) {
    int channels = a.forward.sizes.channels + (a.forward.sizes.depth ? 1 : 0);
    if (channels <= 1) return launch<Pass<1, true, absolute, deterministic>>(o, a, 0, channels);
    if (channels <= 3) return launch<Pass<3, true, absolute, deterministic>>(o, a, 0, channels);
    if (channels <= most_fused) return launch<Pass<4, true, absolute, deterministic>>(o, a, 0, channels);
    SPLAT_TRY((launch<Pass<0, true, absolute, deterministic>>(o, a, 0, 0)));
    for (int first = 0; first < channels; first += wide_pass) {
        int count = channels - first < wide_pass ? channels - first : wide_pass;
        SPLAT_TRY((launch<Pass<wide_pass, false, false, deterministic>>(o, a, first, count)));
    }
    return SPLAT_OK;
}

int clear(void* array, int64_t floats, cudaStream_t stream) {
    return device_code(cudaMemsetAsync(array, 0, size_t(floats) * sizeof(float), stream));
}

}  // namespace

int64_t composite_backward_scratch(const SplatOptions& o, int64_t entries) {
    if (!(o.flags & SPLAT_DETERMINISTIC)) return 0;
    constexpr int64_t most_values = geometry_fields + most_fused + 2;  // wide passes have 8
    return entries * most_values * int64_t(sizeof(float));
}

}  // namespace splat

extern "C" int splat_composite_backward(const SplatOptions* o, const real* splats, const real* features, const real* background,
                                        const int32_t* ids, const int32_t* tiles, const int32_t* slots, const int32_t* first,
                                        const int64_t* ranges, const real* transmittance, const int32_t* last,
                                        const real* v_image, const real* v_depth, const real* v_transmittance,
                                        real* v_splats, real* v_features, real* v_absolute) {
    using namespace splat;
    SPLAT_TRY(check(o, v_splats));
    if (!is_aligned(splats)) return SPLAT_BAD_OPTIONS;
    BackwardArguments a = {};
    a.forward = composite_arguments(*o, splats, features, background, ids, ranges);
    a.forward.transmittance = const_cast<float*>(transmittance), a.forward.last = const_cast<int32_t*>(last);
    a.tiles = tiles, a.slots = slots, a.first = first, a.v_image = v_image, a.v_depth = v_depth;
    a.v_transmittance = v_transmittance, a.v_splats = v_splats, a.v_features = v_features, a.v_absolute = v_absolute;
    a.rows = static_cast<float*>(o->scratch);

    const Sizes& s = a.forward.sizes;
    int64_t pairs = pairs_of(*o), feature_rows = s.shared_features ? o->scenes * o->gaussians : pairs;
    SPLAT_TRY(clear(v_splats, pairs * SPLAT_FIELDS, stream_of(*o)));
    if (v_features) SPLAT_TRY(clear(v_features, feature_rows * s.channels, stream_of(*o)));
    if (v_absolute) SPLAT_TRY(clear(v_absolute, pairs * 2, stream_of(*o)));
    if (pairs == 0) return SPLAT_OK;
    if (o->flags & SPLAT_DETERMINISTIC) {
        if (!first || !tiles) return SPLAT_BAD_OPTIONS;
        if (ids && !o->scratch) return SPLAT_NO_MEMORY;  // how much is right only the lists know
        return v_absolute ? launch_passes<true, true>(*o, a) : launch_passes<false, true>(*o, a);
    }
    return v_absolute ? launch_passes<true, false>(*o, a) : launch_passes<false, false>(*o, a);
}
