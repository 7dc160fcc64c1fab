// What the CPU sources share: the element type of this build, options in the form math.h wants, threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "../abi.h"
#include "../sh.h"
#include "lanes.h"

namespace splat {
namespace {  // every source file has its own copy: libraries for different instruction sets never share code

using Value = Lanes<real>;
constexpr int tile_size = SPLAT_TILE;

inline Lens<real> lens_of(const SplatOptions* o) {
    return {real(o->eps), real(o->near_z), real(o->far_z), o->width, o->height,
            bool(o->flags & SPLAT_ANTIALIASED), bool(o->flags & SPLAT_GRAPHDECO)};
}

inline bool accepted(const SplatOptions* o) { return o->abi == SPLAT_ABI && o->real_bytes == int(sizeof(real)); }

inline int thread_count(const SplatOptions* o) { return std::max(1, int(o->threads)); }

inline int64_t tiles_across(const SplatOptions* o) { return (o->width + tile_size - 1) / tile_size; }
inline int64_t tiles_down(const SplatOptions* o) { return (o->height + tile_size - 1) / tile_size; }

// Uninitialised memory that frees itself; pages that nobody touches cost nothing.
template <class T> std::unique_ptr<T[]> uninitialised(int64_t count) {
    return std::unique_ptr<T[]>(new T[size_t(std::max<int64_t>(count, 1))]);
}

// rows [i, i + 16) of an array [.., stride] -> `fields` bundles, one a column. Rows past `limit` repeat the last one.
template <int fields>
inline void gather_rows(const real* from, int64_t stride, int64_t i, int64_t limit, Value* to) {
    alignas(64) real columns[fields][lane_count];
    if (i + lane_count <= limit) {
        const real* row = from + i * stride;
        for (int lane = 0; lane < lane_count; ++lane, row += stride)
            for (int f = 0; f < fields; ++f) columns[f][lane] = row[f];
    } else {
        for (int lane = 0; lane < lane_count; ++lane) {
            const real* row = from + std::min(i + lane, limit - 1) * stride;
            for (int f = 0; f < fields; ++f) columns[f][lane] = row[f];
        }
    }
    for (int f = 0; f < fields; ++f) to[f] = Value::load(columns[f]);
}

// The opposite; rows past `limit` are not written.
template <int fields>
inline void scatter_rows(const Value* from, real* to, int64_t stride, int64_t i, int64_t limit) {
    alignas(64) real columns[fields][lane_count];
    for (int f = 0; f < fields; ++f) from[f].store(columns[f]);
    int rows = int(std::min<int64_t>(lane_count, limit - i));
    real* row = to + i * stride;
    for (int lane = 0; lane < rows; ++lane, row += stride)
        for (int f = 0; f < fields; ++f) row[f] = columns[f][lane];
}

}  // namespace
}  // namespace splat
