// The derivative of blending. Tiles write one row of sums for each of their list entries, to where the rows of one Gaussian
// lie side by side (bin.cpp's slots and first); then each Gaussian adds up its own. Nothing is added by two threads, so
// results do not depend on their number.
#include <vector>

#include "tile_state.h"

namespace splat {
namespace {

struct Inputs {
    const SplatOptions* o;
    const real *splats, *features, *background;
    const int32_t *ids, *tiles, *slots, *first;
    const int64_t* ranges;
    const real* transmittance;
    const int32_t* last;
    const real *v_image, *v_depth, *v_transmittance;
};

// A row: moments of the cotangent of sigma in whitened coordinates, then absolute gradients if asked for, then features.
enum { S0, SU, SV, SUU, SUV, SVV, MOMENTS };

struct Rows {
    int absolute, channels, stride;      // of a row
    std::unique_ptr<real[]> values;      // [entries, stride]
    std::unique_ptr<uint8_t[]> written;  // [entries]: not those that no pixel uses
};

struct Canvas {
    explicit Canvas(int channels)
        : cotangent(uninitialised<Value>(int64_t(channels) * block_count)), v_feature(uninitialised<Value>(channels)),
          row(uninitialised<real>(channels)) {}
    Value left[block_count];               // transmittance in front of what has been undone so far
    Value behind[block_count];             // <cotangent, what lies behind>, weighted
    Counters<real> last[block_count];
    int32_t block_last[block_count];
    std::unique_ptr<Value[]> cotangent;    // [channel][block]
    std::unique_ptr<Value[]> v_feature;
    std::unique_ptr<real[]> row;
};

// Loads the tile's pixels; returns how many entries of its list any of them went through.
int32_t load(const Inputs& in, const Tile& t, int channels, Canvas& c) {
    const SplatOptions* o = in.o;
    constexpr int plane = block_count * lane_count;
    alignas(64) real left[plane] = {}, behind[plane] = {};
    alignas(64) int32_t last[plane] = {};
    std::fill(left, left + plane, real(1));
    real* cotangent = reinterpret_cast<real*>(c.cotangent.get());
    std::fill(cotangent, cotangent + int64_t(channels) * plane, real(0));
    const real* background = in.background ? in.background + t.view * o->channels : nullptr;
    int64_t view_pixels = int64_t(o->width) * o->height;
    each_pixel(o, t, [&](int64_t pixel, int place) {
        int64_t at = t.view * view_pixels + pixel;
        left[place] = in.transmittance[at];
        last[place] = in.last[at];
        real v_end = in.v_transmittance ? in.v_transmittance[at] : real(0);
        for (int ch = 0; in.v_image && ch < o->channels; ++ch) {
            real v = in.v_image[at * o->channels + ch];
            cotangent[ch * plane + place] = v;
            if (background) v_end += v * background[ch];
        }
        if (in.v_depth) cotangent[o->channels * plane + place] = in.v_depth[at];
        behind[place] = left[place] * v_end;
    });
    int32_t deepest = 0;
    for (int b = 0; b < block_count; ++b) {
        c.left[b] = Value::load(left + b * lane_count), c.behind[b] = Value::load(behind + b * lane_count);
        c.last[b] = Counters<real>::load(last + b * lane_count);
        c.block_last[b] = *std::max_element(last + b * lane_count, last + (b + 1) * lane_count);
        deepest = std::max(deepest, c.block_last[b]);
    }
    return deepest;
}

inline Value magnitude(Value a) { return larger(a, Value(real(0)) - a); }

template <int FIXED, bool ABSOLUTE>
void undo_list(const Inputs& in, const Tile& t, const Patterns& p, int total_channels, Rows& rows, Canvas& c) {
    const SplatOptions* o = in.o;
    const int channels = FIXED ? FIXED : total_channels;
    const int64_t* ranges = in.ranges + t.view * (tiles_across(o) * tiles_down(o) + 1);
    const int64_t begin = ranges[t.index], view_begin = ranges[0];
    const int32_t* ids = in.ids + begin;
    const real* splats = in.splats + t.view * o->gaussians * SPLAT_FIELDS;
    const bool with_depth = o->flags & SPLAT_DEPTH;
    const Value zero(real(0)), one(real(1)), alpha_limit(real(o->alpha_limit));
    Value fixed_v_feature[FIXED ? FIXED : 1];
    Value* v_feature = FIXED ? fixed_v_feature : c.v_feature.get();
    int32_t depth = load(in, t, channels, c);
    uint32_t live = 0;
    int32_t next_live = depth;  // the entry at which another block comes in
    for (int32_t k = depth - 1; k >= 0; --k) {
        if (k < next_live) {
            live = 0, next_live = 0;
            for (int b = 0; b < block_count; ++b) {
                if (c.block_last[b] > k) live |= 1u << b;
                else next_live = std::max(next_live, c.block_last[b]);
            }
        }
        if (k >= 8) {
            __builtin_prefetch(splats + int64_t(ids[k - 8]) * SPLAT_FIELDS);
            __builtin_prefetch(features_of(o, in.features, t.view, ids[k - 8]));
        }
        const real* splat = splats + int64_t(ids[k]) * SPLAT_FIELDS;
        Shape s = shape_of(splat, t);
        uint32_t blocks = blocks_met(p, s) & live;
        if (!blocks) continue;
        const real* f = features_of(o, in.features, t.view, ids[k]);
        if (with_depth) {
            std::copy(f, f + o->channels, c.row.get());
            c.row[o->channels] = splat[SPLAT_Z];
            f = c.row.get();
        }
        Value moments[MOMENTS + (ABSOLUTE ? 2 : 0)];
        for (auto& m : moments) m = zero;
        for (int ch = 0; ch < channels; ++ch) v_feature[ch] = zero;
        Whitened white(p, s);
        uint32_t any = 0;
        for (; blocks; blocks &= blocks - 1) {
            int b = __builtin_ctz(blocks);
            Value u, v;
            white.at(s, b, u, v);
            Value q = u * u + v * v;
            auto adds = both(q <= Value(s.limit), c.last[b].above(k));
            any |= bits(adds);
            Value raw = power_of_two(zero - q) * s.opacity, alpha = select(adds, smaller(raw, alpha_limit), zero);
            Value inverse = reciprocal(one - alpha);
            Value left = c.left[b] * inverse, weight = alpha * left, along = zero;
            for (int ch = 0; ch < channels; ++ch) {
                Value v_pixel = c.cotangent[ch * block_count + b];
                along = along + v_pixel * Value(f[ch]);
                v_feature[ch] = v_feature[ch] + weight * v_pixel;
            }
            Value v_alpha = left * along - inverse * c.behind[b];
            c.behind[b] = c.behind[b] + weight * along;
            c.left[b] = select(adds, left, c.left[b]);
            Value v_sigma = select(both(adds, raw <= alpha_limit), zero - raw * v_alpha, zero);
            Value vu = v_sigma * u, vv = v_sigma * v;
            moments[S0] = moments[S0] + v_sigma, moments[SU] = moments[SU] + vu, moments[SV] = moments[SV] + vv;
            moments[SUU] = moments[SUU] + vu * u, moments[SUV] = moments[SUV] + vu * v, moments[SVV] = moments[SVV] + vv * v;
            if (ABSOLUTE) {
                moments[MOMENTS] = moments[MOMENTS] + magnitude(vu * s.u11);
                moments[MOMENTS + (ABSOLUTE ? 1 : 0)] = moments[MOMENTS + (ABSOLUTE ? 1 : 0)] + magnitude(vu * s.u12 + vv * s.u22);
            }
        }
        if (!any) continue;
        int64_t entry = view_begin + in.slots[begin + k];
        real* row = rows.values.get() + entry * rows.stride;
        totals(moments, MOMENTS + (ABSOLUTE ? 2 : 0), row);
        totals(v_feature, channels, row + MOMENTS + (ABSOLUTE ? 2 : 0));
        rows.written[entry] = 1;
    }
}

template <int FIXED> void undo(const Inputs& in, Rows& rows) {
    const SplatOptions* o = in.o;
    int64_t all = o->scenes * o->views * tiles_across(o) * tiles_down(o);
#pragma omp parallel num_threads(thread_count(o))
    {
        Canvas canvas(rows.channels);
        Patterns p = patterns();
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < all; ++i) {
            Tile t = tile_at(o, i);
            if (rows.absolute) undo_list<FIXED, true>(in, t, p, rows.channels, rows, canvas);
            else undo_list<FIXED, false>(in, t, p, rows.channels, rows, canvas);
        }
    }
}

// The rows of one splat, from whitened moments to gradients of its fields. Rows hold u and v scaled by root_half_log2e.
void gather(const Inputs& in, const Rows& rows, int64_t view, int64_t n, int64_t view_begin, real* sum, real* v_splat,
            real* v_feature, real* v_absolute) {
    const SplatOptions* o = in.o;
    int64_t at = view * o->gaussians + n;
    std::fill(v_splat, v_splat + SPLAT_FIELDS, real(0));
    if (v_absolute) v_absolute[0] = v_absolute[1] = real(0);
    int32_t count = in.tiles[at];
    bool found = false;
    for (int64_t entry = view_begin + in.first[at], end = entry + count; entry < end; ++entry) {
        if (!rows.written[entry]) continue;
        const real* row = rows.values.get() + entry * rows.stride;
        if (!found) std::copy(row, row + rows.stride, sum);
        else for (int i = 0; i < rows.stride; ++i) sum[i] += row[i];
        found = true;
    }
    if (!found) return;
    const real* splat = in.splats + at * SPLAT_FIELDS;
    const real inverse = real(1) / root_half_log2e;
    real u11 = splat[SPLAT_U11], u12 = splat[SPLAT_U12], u22 = splat[SPLAT_U22];
    real su = sum[SU] * inverse, sv = sum[SV] * inverse;
    real suu = sum[SUU] * inverse * inverse, suv = sum[SUV] * inverse * inverse, svv = sum[SVV] * inverse * inverse;
    v_splat[SPLAT_X] = u11 * su, v_splat[SPLAT_Y] = u12 * su + u22 * sv;
    v_splat[SPLAT_U22] = svv / u22, v_splat[SPLAT_U12] = suv / u22, v_splat[SPLAT_U11] = (suu - u12 * suv / u22) / u11;
    v_splat[SPLAT_OPACITY] = -sum[S0] / splat[SPLAT_OPACITY];
    // the absolute sums hold |vu u11| with both factors scaled: once for u, once for the factor
    if (v_absolute)
        v_absolute[0] = sum[MOMENTS] * inverse * inverse, v_absolute[1] = sum[MOMENTS + 1] * inverse * inverse;
    const real* row = sum + MOMENTS + rows.absolute;
    for (int ch = 0; ch < o->channels; ++ch) v_feature[ch] += row[ch];
    if (o->flags & SPLAT_DEPTH) v_splat[SPLAT_Z] = row[o->channels];
}

void gather_all(const Inputs& in, const Rows& rows, real* v_splats, real* v_features, real* v_absolute) {
    const SplatOptions* o = in.o;
    constexpr int64_t piece = 1024;
    int64_t n = o->gaussians, pieces = (n + piece - 1) / piece, tile_count = tiles_across(o) * tiles_down(o);
    bool shared = o->flags & SPLAT_SHARED_FEATURES;
#pragma omp parallel for schedule(dynamic, 1) num_threads(thread_count(o))
    for (int64_t p = 0; p < o->scenes * pieces; ++p) {
        std::vector<real> sum(size_t(rows.stride));
        int64_t scene = p / pieces, from = p % pieces * piece, to = std::min(from + piece, n);
        for (int64_t view = scene * o->views; view < (scene + 1) * o->views; ++view) {
            real* v_view = v_features + (shared ? scene : view) * n * o->channels;
            if (!shared || view == scene * o->views) std::fill(v_view + from * o->channels, v_view + to * o->channels, real(0));
            int64_t view_begin = in.ranges[view * (tile_count + 1)];
            for (int64_t i = from; i < to; ++i)
                gather(in, rows, view, i, view_begin, sum.data(), v_splats + (view * n + i) * SPLAT_FIELDS,
                       v_view + i * o->channels, v_absolute ? v_absolute + (view * n + i) * 2 : nullptr);
        }
    }
}

}  // namespace
}  // namespace splat

using namespace splat;

extern "C" int splat_composite_backward(const SplatOptions* o, const real* splats, const real* features, const real* background,
                                        const int32_t* ids, const int32_t* tiles, const int32_t* slots, const int32_t* first,
                                        const int64_t* ranges, const real* transmittance, const int32_t* last,
                                        const real* v_image, const real* v_depth, const real* v_transmittance, real* v_splats,
                                        real* v_features, real* v_absolute) {
    if (!accepted(o)) return SPLAT_BAD_OPTIONS;
    Inputs in{o, splats, features, background, ids, tiles, slots, first, ranges, transmittance, last, v_image, v_depth, v_transmittance};
    int channels = o->channels + (o->flags & SPLAT_DEPTH ? 1 : 0), absolute = v_absolute ? 2 : 0;
    int64_t all_views = o->scenes * o->views;
    int64_t entries = all_views ? ranges[all_views * (tiles_across(o) * tiles_down(o) + 1) - 1] : 0;
    int stride = MOMENTS + absolute + channels;
    Rows rows{absolute, channels, stride, uninitialised<real>(entries * stride), nullptr};
    rows.written.reset(new uint8_t[size_t(std::max<int64_t>(entries, 1))]());
    switch (sizeof(real) == 8 ? 0 : channels) {
        case 1: undo<1>(in, rows); break;
        case 3: undo<3>(in, rows); break;
        case 4: undo<4>(in, rows); break;
        default: undo<0>(in, rows);
    }
    gather_all(in, rows, v_splats, v_features, v_absolute);
    return SPLAT_OK;
}
