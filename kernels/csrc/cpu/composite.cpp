// Front-to-back blending of each tile's list. A tile belongs to one thread and its state stays in the first cache.
#include "tile_state.h"

namespace splat {
namespace {

struct Inputs {
    const SplatOptions* o;
    const real *splats, *features, *background;
    const int32_t* ids;
    const int64_t* ranges;
};

struct Outputs { real *image, *depth, *transmittance; int32_t* last; };

// What a thread keeps between tiles.
struct Canvas {
    explicit Canvas(int channels) : sums(uninitialised<Value>(int64_t(channels) * block_count)), row(uninitialised<real>(channels)) {}
    Value left[block_count];           // transmittance; negative once a pixel has stopped
    int32_t last[block_count * lane_count];
    std::unique_ptr<Value[]> sums;     // [channel][block]
    std::unique_ptr<real[]> row;       // the features of one Gaussian, depth behind them
    uint32_t live;                     // blocks with a pixel that goes on
};

void clear(const SplatOptions* o, const Tile& t, int32_t entries, int channels, Canvas& c) {
    alignas(64) real left[block_count * lane_count];
    std::fill(left, left + block_count * lane_count, real(-1));
    c.live = 0;
    each_pixel(o, t, [&](int64_t, int place) { left[place] = real(1), c.live |= 1u << (place / lane_count); });
    for (int b = 0; b < block_count; ++b) c.left[b] = Value::load(left + b * lane_count);
    std::fill(c.last, c.last + block_count * lane_count, entries);
    std::fill(c.sums.get(), c.sums.get() + int64_t(channels) * block_count, Value(real(0)));
}

// Pixels that stop before entry k: remember k, and drop the block once none goes on.
__attribute__((noinline)) void stop(Canvas& c, int block, uint32_t stopping, int32_t k) {
    for (int lane = 0; lane < lane_count; ++lane) {
        if (!(stopping >> lane & 1)) continue;
        c.left[block].set(lane, -c.left[block][lane]);
        c.last[block * lane_count + lane] = k;
    }
    if (!bits(c.left[block] > Value(real(0)))) c.live &= ~(1u << block);
}

// FIXED: number of channels known when compiling, or 0.
template <int FIXED> void blend_list(const Inputs& in, const Tile& t, const Patterns& p, int total_channels, Canvas& c) {
    const SplatOptions* o = in.o;
    const int channels = FIXED ? FIXED : total_channels;
    const int64_t* range = in.ranges + t.view * (tiles_across(o) * tiles_down(o) + 1) + t.index;
    const int32_t *ids = in.ids + range[0], entries = int32_t(range[1] - range[0]);
    const real* splats = in.splats + t.view * o->gaussians * SPLAT_FIELDS;
    const real stop_at = real(transmittance_stop), alpha_limit = real(o->alpha_limit);
    const bool strict = o->flags & SPLAT_GRAPHDECO, with_depth = o->flags & SPLAT_DEPTH;
    const Value zero(real(0)), one(real(1));
    for (int32_t k = 0; k < entries && c.live; ++k) {
        if (k + 8 < entries) {
            __builtin_prefetch(splats + int64_t(ids[k + 8]) * SPLAT_FIELDS);
            __builtin_prefetch(features_of(o, in.features, t.view, ids[k + 8]));
        }
        const real* splat = splats + int64_t(ids[k]) * SPLAT_FIELDS;
        Shape s = shape_of(splat, t);
        uint32_t blocks = blocks_met(p, s) & c.live;
        if (!blocks) continue;
        const real* f = features_of(o, in.features, t.view, ids[k]);
        if (with_depth) {
            std::copy(f, f + o->channels, c.row.get());
            c.row[o->channels] = splat[SPLAT_Z];
            f = c.row.get();
        }
        Whitened white(p, s);
        for (; blocks; blocks &= blocks - 1) {
            int b = __builtin_ctz(blocks);
            Value u, v;
            white.at(s, b, u, v);
            Value q = u * u + v * v, left = c.left[b];
            auto touched = both(q <= Value(s.limit), left > zero);
            Value alpha = smaller(power_of_two(zero - q) * s.opacity, Value(alpha_limit));
            Value weight = alpha * left, rest = left * (one - alpha);  // left - weight would lose the digits that stopping needs
            auto stopping = both(touched, strict ? rest < Value(stop_at) : rest <= Value(stop_at));
            auto adds = both(touched, negate(stopping));
            weight = select(adds, weight, zero);
            c.left[b] = select(adds, rest, left);
            for (int ch = 0; ch < channels; ++ch) {
                Value& sum = c.sums[ch * block_count + b];
                sum = sum + weight * Value(f[ch]);
            }
            if (uint32_t which = bits(stopping)) stop(c, b, which, k);
        }
    }
}

void write(const Inputs& in, const Tile& t, const Canvas& c, const Outputs& out) {
    const SplatOptions* o = in.o;
    alignas(64) real left[block_count * lane_count];
    for (int b = 0; b < block_count; ++b) c.left[b].store(left + b * lane_count);
    const real* sums = reinterpret_cast<const real*>(c.sums.get());
    const real* background = in.background ? in.background + t.view * o->channels : nullptr;
    int64_t view_pixels = int64_t(o->width) * o->height, plane = block_count * lane_count;
    each_pixel(o, t, [&](int64_t pixel, int place) {
        int64_t at = t.view * view_pixels + pixel;
        real end = std::abs(left[place]);
        out.transmittance[at] = end;
        out.last[at] = c.last[place];
        for (int ch = 0; ch < o->channels; ++ch)
            out.image[at * o->channels + ch] = sums[ch * plane + place] + (background ? end * background[ch] : real(0));
        if (out.depth) out.depth[at] = sums[o->channels * plane + place];
    });
}

template <int FIXED> void composite(const Inputs& in, const Outputs& out) {
    const SplatOptions* o = in.o;
    int channels = o->channels + (o->flags & SPLAT_DEPTH ? 1 : 0);
    int64_t tile_count = tiles_across(o) * tiles_down(o), all = o->scenes * o->views * tile_count;
#pragma omp parallel num_threads(thread_count(o))
    {
        Canvas canvas(channels);
        Patterns p = patterns();
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < all; ++i) {
            Tile t = tile_at(o, i);
            const int64_t* range = in.ranges + t.view * (tile_count + 1) + t.index;
            clear(o, t, int32_t(range[1] - range[0]), channels, canvas);
            blend_list<FIXED>(in, t, p, channels, canvas);
            write(in, t, canvas, out);
        }
    }
}

}  // namespace
}  // namespace splat

using namespace splat;

extern "C" int splat_composite(const SplatOptions* o, const real* splats, const real* features, const real* background,
                               const int32_t* ids, const int64_t* ranges, real* image, real* depth, real* transmittance,
                               int32_t* last) {
    if (!accepted(o)) return SPLAT_BAD_OPTIONS;
    Inputs in{o, splats, features, background, ids, ranges};
    Outputs out{image, o->flags & SPLAT_DEPTH ? depth : nullptr, transmittance, last};
    switch (sizeof(real) == 8 ? 0 : o->channels + (o->flags & SPLAT_DEPTH ? 1 : 0)) {
        case 1: composite<1>(in, out); break;
        case 3: composite<3>(in, out); break;
        case 4: composite<4>(in, out); break;
        default: composite<0>(in, out);
    }
    return SPLAT_OK;
}
