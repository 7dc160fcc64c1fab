// Which tiles an ellipse sigma <= tau meets, and whether it meets a rectangle of pixel centres.
//
// Lists are counted by one kernel and written by another. Both must see the same tiles, so the arithmetic here is
// spelled in operations that the compiler neither fuses nor reorders.
#pragma once

#include "common.cuh"

namespace splat {

// Added to tau: sigma of a long thin splat, far from its centre, is rounded by a few 1e-4.
constexpr float tau_margin = 1e-3f;

// The tiles of one row, or the rows of one splat: first to last, empty when last < first.
struct Span {
    int first, last;
};

__device__ __forceinline__ int clamped_tile(float tile, int count) {
    return int(fminf(fmaxf(tile, -1.0f), float(count)));  // as float first: far off the image no integer holds it
}

// Tiles whose pixel centres lie between low and high (pixels), of `count` tiles that cover `size` pixels.
__device__ __forceinline__ Span tiles_between(float low, float high, int count, int size) {
    constexpr float inverse_edge = 1.0f / tile_edge;
    if (!(low <= float(size) - 0.5f)) return {0, -1};  // the last tile may be cut off by the image
    int first = clamped_tile(ceilf(__fmul_rn(__fadd_rn(low, 0.5f - tile_edge), inverse_edge)), count);
    int last = clamped_tile(floorf(__fmul_rn(__fadd_rn(high, -0.5f), inverse_edge)), count);
    return {first > 0 ? first : 0, last < count ? last : count - 1};
}

// A splat as seen by the enumeration of its tiles.
struct Footprint {
    float x, y, u12, u22, inverse_u11;
    float k;           // u^2 + v^2 <= k
    float half_y;      // half height, pixels
    float top;         // y - mean where the ellipse reaches furthest right
    float radius;      // of the square, with graphdeco
    bool square;
};

// With (u, v) on the circle of radius sqrt(k), x - mean = (u - (u12 / u22) v) / u11.
__device__ __forceinline__ Footprint footprint(float x, float y, float u11, float u12, float u22, float tau, float radius,
                                               bool square) {
    Footprint f;
    f.x = x, f.y = y, f.u12 = u12, f.u22 = u22, f.radius = radius, f.square = square;
    f.k = __fmul_rn(2.0f, __fadd_rn(tau, tau_margin));
    f.inverse_u11 = reciprocal(u11);
    float inverse_u22 = reciprocal(u22), lean = __fmul_rn(u12, inverse_u22);
    f.half_y = __fmul_rn(quick_root(f.k), inverse_u22);
    f.top = -__fmul_rn(__fmul_rn(f.half_y, lean), reciprocal(quick_root(__fmaf_rn(lean, lean, 1.0f))));
    return f;
}

// As the original implementation rounds its square, whose pixel centres are whole numbers.
__device__ __forceinline__ Span square_tiles(float centre, float radius, int count) {
    constexpr float inverse_edge = 1.0f / tile_edge;
    float low = __fadd_rn(__fadd_rn(centre, -0.5f), -radius);
    float high = __fadd_rn(__fadd_rn(centre, -0.5f), __fadd_rn(radius, tile_edge - 1.0f));
    int first = clamped_tile(floorf(__fmul_rn(low, inverse_edge)), count);
    int past = clamped_tile(floorf(__fmul_rn(high, inverse_edge)), count);
    return {first > 0 ? first : 0, past - 1};
}

__device__ __forceinline__ Span tile_rows(const Footprint& f, int tiles_y, int height) {
    if (f.square) return square_tiles(f.y, f.radius, tiles_y);
    return tiles_between(__fadd_rn(f.y, -f.half_y), __fadd_rn(f.y, f.half_y), tiles_y, height);
}

// Furthest x - mean of the ellipse to the right at `dy`.
__device__ __forceinline__ float reach(const Footprint& f, float dy) {
    float v = __fmul_rn(f.u22, dy), rest = __fmaf_rn(-v, v, f.k);
    return __fmul_rn(__fmaf_rn(-f.u12, dy, quick_root(fmaxf(rest, 0.0f))), f.inverse_u11);
}

// The part of the ellipse in a row of tiles is convex, so it meets exactly the tiles between its ends. Its right end is
// where the whole ellipse reaches furthest, or as near to there as the row allows; the left one mirrors it.
__device__ __forceinline__ Span tile_columns(const Footprint& f, int row, int tiles_x, int width, int height) {
    if (f.square) return square_tiles(f.x, f.radius, tiles_x);
    float edge = float(row * tile_edge);
    float low = fmaxf(__fadd_rn(__fadd_rn(edge, 0.5f), -f.y), -f.half_y);
    float high = fminf(__fadd_rn(fminf(__fadd_rn(edge, tile_edge - 0.5f), float(height) - 0.5f), -f.y), f.half_y);
    if (!(low <= high)) return {0, -1};
    float right = reach(f, fminf(fmaxf(f.top, low), high));
    float left = -reach(f, -fminf(fmaxf(-f.top, low), high));  // the ellipse is symmetric about its centre
    return tiles_between(__fadd_rn(f.x, left), __fadd_rn(f.x, right), tiles_x, width);
}

__device__ __forceinline__ int count_tiles(const Footprint& f, const Sizes& s) {
    int total = 0;
    Span rows = tile_rows(f, s.tiles_y, s.height);
    for (int row = rows.first; row <= rows.last; ++row) {
        Span columns = tile_columns(f, row, s.tiles_x, s.width, s.height);
        total += columns.last >= columns.first ? columns.last - columns.first + 1 : 0;
    }
    return total;
}

}  // namespace splat
