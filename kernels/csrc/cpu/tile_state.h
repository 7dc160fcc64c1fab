// One tile of 16 x 16 pixels as the compositors see it: 16 blocks of 4 x 4 pixels, a block being one bundle of lanes.
// Blocks waste fewer lanes than rows of 16 do on splats of a few pixels, which is what most splats are.
#pragma once

#include "common.h"

namespace splat {
namespace {

constexpr int block_count = 16;
constexpr int block_side = 4;

struct Tile {
    int64_t view, index;
    int left, top;          // pixels
    int width, height;      // pixels of it that the image has
};

inline Tile tile_at(const SplatOptions* o, int64_t i) {
    int64_t across = tiles_across(o), per_view = across * tiles_down(o);
    Tile t{i / per_view, i % per_view, int(i % per_view % across) * tile_size, int(i % per_view / across) * tile_size, 0, 0};
    t.width = std::min(tile_size, o->width - t.left), t.height = std::min(tile_size, o->height - t.top);
    return t;
}

// The features of Gaussian n in a view, which all views of its scene may share.
inline const real* features_of(const SplatOptions* o, const real* features, int64_t view, int64_t n) {
    int64_t set = o->flags & SPLAT_SHARED_FEATURES ? view / o->views : view;
    return features + (set * o->gaussians + n) * o->channels;
}

// Calls visit(pixel index in the view, place in [block][lane]) for the tile's pixels that exist.
template <class Visit> inline void each_pixel(const SplatOptions* o, const Tile& t, Visit visit) {
    for (int y = 0; y < t.height; ++y)
        for (int x = 0; x < t.width; ++x)
            visit((t.top + y) * int64_t(o->width) + t.left + x,
                  (y / block_side * 4 + x / block_side) * lane_count + y % block_side * 4 + x % block_side);
}

// sigma log2(e) = u^2 + v^2 with (u, v) = U' (mean - pixel): the factor of a splat, scaled for powers of two.
struct Shape {
    real x, y;              // mean, pixels from the tile's corner
    real u11, u12, u22;     // times root_half_log2e
    real limit;             // contributes where u^2 + v^2 <= limit
    real opacity;
};

constexpr real root_half_log2e = real(0.84932180028801904272);  // sqrt(log2(e) / 2)
constexpr real log2e = real(1.4426950408889634);

inline Shape shape_of(const real* splat, const Tile& t) {
    return {splat[SPLAT_X] - real(t.left), splat[SPLAT_Y] - real(t.top), splat[SPLAT_U11] * root_half_log2e,
            splat[SPLAT_U12] * root_half_log2e, splat[SPLAT_U22] * root_half_log2e, splat[SPLAT_TAU] * log2e,
            splat[SPLAT_OPACITY]};
}

struct Patterns {
    Value pixel_x, pixel_y;  // centre of each pixel of a block, from its corner
    Value low_x, low_y;      // first pixel centre of each block, from the tile's corner
};

inline Patterns patterns() {
    Patterns p;
    for (int i = 0; i < lane_count; ++i) {
        p.pixel_x.set(i, real(i % 4) + real(0.5)), p.pixel_y.set(i, real(i / 4) + real(0.5));
        p.low_x.set(i, real(i % 4 * block_side) + real(0.5)), p.low_y.set(i, real(i / 4 * block_side) + real(0.5));
    }
    return p;
}

// Which of the 16 blocks the ellipse meets: the smallest u^2 + v^2 over a block's rectangle of pixel centres lies at the
// mean, or on one of the two edges that face it. Exact but for a margin that covers rounding.
inline uint32_t blocks_met(const Patterns& p, const Shape& s) {
    Value zero(real(0)), span(real(block_side - 1));
    Value x0 = p.low_x - s.x, y0 = p.low_y - s.y, x1 = x0 + span, y1 = y0 + span;
    Value near_x = larger(x0, smaller(x1, zero)), near_y = larger(y0, smaller(y1, zero));
    real along_y = -s.u11 * s.u12 / (s.u12 * s.u12 + s.u22 * s.u22), along_x = -s.u12 / s.u11;
    Value y = larger(y0, smaller(y1, near_x * along_y)), x = larger(x0, smaller(x1, near_y * along_x));
    Value ua = near_x * s.u11 + y * s.u12, va = y * s.u22, ub = x * s.u11 + near_y * s.u12, vb = near_y * s.u22;
    Value least = smaller(ua * ua + va * va, ub * ub + vb * vb);
    return bits(least <= Value(s.limit * real(1.0001) + real(4e-3)));
}

// The part of u and v that differs between the pixels of a block, and the part that differs between blocks.
struct Whitened {
    Value u, v;
    Whitened(const Patterns& p, const Shape& s)
        : u(Value(real(0)) - p.pixel_x * s.u11 - p.pixel_y * s.u12), v(Value(real(0)) - p.pixel_y * s.u22) {}
    SPLAT_HD void at(const Shape& s, int block, Value& out_u, Value& out_v) const {
        real dx = s.x - real(block % 4 * block_side), dy = s.y - real(block / 4 * block_side);
        out_u = u + Value(dx * s.u11 + dy * s.u12);
        out_v = v + Value(dy * s.u22);
    }
};

}  // namespace
}  // namespace splat
