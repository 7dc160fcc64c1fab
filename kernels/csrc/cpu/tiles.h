// Which tiles of 16 x 16 pixels a splat may touch. Projection counts them and binning writes them down, by this one walk.
#pragma once

#include "common.h"

namespace splat {
namespace {

// Projection counts by these functions and binning writes by them, in different files. Not inlined, both round alike:
// inlined, a product and a sum may become one operation here and stay two there.
#if defined(__GNUC__) && !defined(__clang__)
#define SPLAT_ALONE __attribute__((noinline, noclone))
#else
#define SPLAT_ALONE __attribute__((noinline))
#endif

struct TileBox { int32_t left, top, right, bottom; };  // right and bottom are excluded

// 0 for what is not a number
template <class S> inline int32_t clamped(S x, int32_t high) { return int32_t(std::min(std::max(S(0), x), S(high))); }

// The box of tiles around a splat. A pixel's centre is at +0.5, so a tile's last centre lies at 15.5.
SPLAT_ALONE TileBox tile_box(const SplatOptions* o, real x, real y, real half_x, real half_y) {
    int32_t across = int32_t(tiles_across(o)), down = int32_t(tiles_down(o));
    const real inverse = real(1) / tile_size;
    if (o->flags & SPLAT_GRAPHDECO) {  // as the original rounds its square, in pixel coordinates with the centre at 0
        x -= real(0.5), y -= real(0.5);
        return {clamped((x - half_x) * inverse, across), clamped((y - half_y) * inverse, down),
                clamped((x + half_x + (tile_size - 1)) * inverse, across),
                clamped((y + half_y + (tile_size - 1)) * inverse, down)};
    }
    const real slack = real(0.01);  // rounding of means and extents, pixels
    half_x += slack, half_y += slack;
    return {clamped((x - half_x - real(0.5)) * inverse + real(1) / tile_size, across),
            clamped((y - half_y - real(0.5)) * inverse + real(1) / tile_size, down),
            clamped((x + half_x - real(0.5)) * inverse + real(1), across),
            clamped((y + half_y - real(0.5)) * inverse + real(1), down)};
}

inline bool is_whole(const SplatOptions* o, int64_t wide, int64_t high) {
    return wide * high <= 4 || wide == 1 || high == 1 || (o->flags & SPLAT_GRAPHDECO);
}

// The rim of the ellipse sigma = tau in one row of tiles, as columns of tiles [left, right).
struct Columns { int32_t left, right; };

SPLAT_ALONE Columns columns_met(const real* splat, const TileBox& box, int32_t row, int32_t across) {
    double u11 = splat[SPLAT_U11], u12 = splat[SPLAT_U12], u22 = splat[SPLAT_U22];
    double radius2 = 2.0 * splat[SPLAT_TAU] * 1.0001 + 1e-4;  // u^2 + v^2 on the rim, with a margin for rounding
    // On the rim x - mean = (+-sqrt(radius2 - (u22 dy)^2) - u12 dy) / u11: concave on the right side, convex on the
    // left one, so that each extreme over the row is the ellipse's own, moved to the nearest dy of the row.
    double low = row * double(tile_size) + 0.5 - splat[SPLAT_Y], up = low + tile_size - 1;
    double limit = ::sqrt(radius2) / u22;
    low = std::max(low, -limit), up = std::min(up, limit);
    if (low > up) return {0, 0};
    double norm = ::sqrt(u12 * u12 + u22 * u22);
    double turn = -u12 * ::sqrt(radius2) / (norm * u22);  // dy at the rightmost point; the leftmost is at -turn
    auto rim = [&](double dy, double side) {
        double rest = std::max(radius2 - u22 * u22 * dy * dy, 0.0);
        return (side * ::sqrt(rest) - u12 * dy) / u11;
    };
    double rightmost = rim(std::min(std::max(turn, low), up), 1.0);
    double leftmost = rim(std::min(std::max(-turn, low), up), -1.0);
    // the tiles whose span of pixel centres [16 i + 0.5, 16 i + 15.5] meets [leftmost, rightmost]
    double begin = (splat[SPLAT_X] + leftmost + 0.5) / tile_size;
    double end = (splat[SPLAT_X] + rightmost - 0.5) / tile_size + 1.0;
    return {std::max(box.left, clamped(begin, across)), std::min(box.right, clamped(end, across))};
}

// Calls visit(tile index) for every tile that the splat may touch, row by row. Boxes of up to four tiles are taken whole:
// the compositor's test of 4 x 4 pixel blocks is as cheap as one here. Larger ones are walked by the ellipse's exact span
// in each row of tiles, so that a long diagonal needle fills a line of tiles and not a rectangle.
template <class Visit>
inline void walk_tiles(const SplatOptions* o, const real* splat, real half_x, real half_y, Visit visit) {
    TileBox box = tile_box(o, splat[SPLAT_X], splat[SPLAT_Y], half_x, half_y);
    int32_t across = int32_t(tiles_across(o));
    int64_t wide = box.right - box.left, high = box.bottom - box.top;
    if (wide <= 0 || high <= 0) return;
    bool whole = is_whole(o, wide, high);
    for (int32_t row = box.top; row < box.bottom; ++row) {
        Columns met = whole ? Columns{box.left, box.right} : columns_met(splat, box, row, across);
        for (int32_t column = met.left; column < met.right; ++column) visit(row * across + column);
    }
}

inline int32_t count_tiles(const SplatOptions* o, const real* splat, const real* half) {
    TileBox box = tile_box(o, splat[SPLAT_X], splat[SPLAT_Y], half[0], half[1]);
    int32_t wide = box.right - box.left, high = box.bottom - box.top, count = 0;
    if (wide <= 0 || high <= 0) return 0;
    if (is_whole(o, wide, high)) return wide * high;
    walk_tiles(o, splat, half[0], half[1], [&](int32_t) { ++count; });
    return count;
}

}  // namespace
}  // namespace splat
