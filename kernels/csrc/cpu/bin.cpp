// Lists of splats by tile, front to back. Each view: the visible splats are sorted once by depth, then handed to their tiles
// in that order by a stable counting sort. Every step splits its input among the threads in contiguous parts and keeps their
// order, so the lists are the same for any number of threads.
#include <vector>

#include "tiles.h"

namespace splat {
namespace {

struct Team {
    int id, count;
    void wait() const {
        if (count > 1) {
#pragma omp barrier
        }
    }
    // this thread's part of [0, n)
    int64_t begin(int64_t n) const { return n * id / count; }
    int64_t end(int64_t n) const { return n * (id + 1) / count; }
};

constexpr int digit_bits = 11;
constexpr int64_t digits = int64_t(1) << digit_bits;

inline uint32_t depth_key(float z) { uint32_t key; memcpy(&key, &z, 4); return key; }  // positive floats sort as integers

// Everything a team shares while it works on one view.
struct Shared {
    Shared(int64_t gaussians, int64_t tile_count, int threads)
        : pairs(uninitialised<uint64_t>(gaussians)), swap(uninitialised<uint64_t>(gaussians)),
          histogram(uninitialised<int64_t>(threads * std::max(digits, tile_count))), part(size_t(threads) + 1),
          low(size_t(threads)), high(size_t(threads)) {}
    std::unique_ptr<uint64_t[]> pairs, swap;  // key << 32 | Gaussian
    std::unique_ptr<int64_t[]> histogram;     // [threads, digits or tiles]
    std::vector<int64_t> part;                // where each thread's part of an output begins
    std::vector<uint32_t> low, high;          // smallest and largest key each thread saw
    int64_t visible = 0;
};

// counts of each thread -> begin of each thread; by one thread
inline int64_t accumulate(std::vector<int64_t>& part, int count) {
    int64_t sum = 0;
    for (int t = 0; t < count; ++t) { int64_t mine = part[size_t(t)]; part[size_t(t)] = sum; sum += mine; }
    return sum;
}

void collect_visible(const SplatOptions* o, const real* splats, const int32_t* tiles, Shared& s, const Team& team) {
    int64_t begin = team.begin(o->gaussians), end = team.end(o->gaussians), count = 0;
    for (int64_t n = begin; n < end; ++n) count += tiles[n] > 0;
    s.part[size_t(team.id)] = count;
    team.wait();
    if (team.id == 0) s.visible = accumulate(s.part, team.count);
    team.wait();
    int64_t at = s.part[size_t(team.id)];
    uint32_t low = ~0u, high = 0;
    for (int64_t n = begin; n < end; ++n) {
        if (tiles[n] <= 0) continue;
        uint32_t key = depth_key(float(splats[n * SPLAT_FIELDS + SPLAT_Z]));
        low = std::min(low, key), high = std::max(high, key);
        s.pairs[at++] = uint64_t(key) << 32 | uint64_t(n);
    }
    s.low[size_t(team.id)] = low, s.high[size_t(team.id)] = high;
    team.wait();
}

// Turns the threads' histograms of `bins` bins into the place where each thread puts its first item of each bin.
void place(int64_t* histogram, int64_t bins, const Team& team) {
    team.wait();
    if (team.id == 0) {
        int64_t sum = 0;
        for (int64_t bin = 0; bin < bins; ++bin)
            for (int t = 0; t < team.count; ++t) {
                int64_t mine = histogram[t * bins + bin];
                histogram[t * bins + bin] = sum;
                sum += mine;
            }
    }
    team.wait();
}

// Stable radix sort of s.pairs by key, on the bits in which the keys differ.
void sort_by_depth(Shared& s, const Team& team) {
    uint32_t low = *std::min_element(s.low.begin(), s.low.begin() + team.count);
    uint32_t high = *std::max_element(s.high.begin(), s.high.begin() + team.count);
    int width = s.visible < 2 || high == low ? 0 : 32 - __builtin_clz(high - low);
    int passes = (width + digit_bits - 1) / digit_bits;
    uint64_t *from = s.pairs.get(), *to = s.swap.get();
    int64_t begin = team.begin(s.visible), end = team.end(s.visible);
    int64_t* mine = s.histogram.get() + team.id * digits;
    for (int pass = 0; pass < passes; ++pass) {
        int shift = 32 + pass * digit_bits;
        uint64_t bias = uint64_t(low) << 32;
        std::fill(mine, mine + digits, 0);
        for (int64_t i = begin; i < end; ++i) ++mine[((from[i] - bias) >> shift) & uint64_t(digits - 1)];
        place(s.histogram.get(), digits, team);
        for (int64_t i = begin; i < end; ++i) to[mine[((from[i] - bias) >> shift) & uint64_t(digits - 1)]++] = from[i];
        std::swap(from, to);
        team.wait();
    }
    if (passes % 2) {
        if (team.id == 0) s.pairs.swap(s.swap);
        team.wait();
    }
}

#ifdef SPLAT_DOUBLE
// Exact order of doubles; this build is for checks, not for speed.
void sort_exactly(const real* splats, Shared& s, const Team& team) {
    if (team.id == 0)
        std::stable_sort(s.pairs.get(), s.pairs.get() + s.visible, [&](uint64_t a, uint64_t b) {
            real za = splats[uint32_t(a) * int64_t(SPLAT_FIELDS) + SPLAT_Z], zb = splats[uint32_t(b) * int64_t(SPLAT_FIELDS) + SPLAT_Z];
            return za < zb || (za == zb && uint32_t(a) < uint32_t(b));
        });
    team.wait();
}
#endif

struct Lists { int32_t *ids, *slots, *first; int64_t* ranges; };  // of one view, from its first entry on

void hand_to_tiles(const SplatOptions* o, const real* splats, const real* extents, const int32_t* tiles, int64_t entries,
                   int64_t view_begin, const Lists& lists, int32_t* entry_tile, Shared& s, const Team& team) {
    int64_t tile_count = tiles_across(o) * tiles_down(o);
    int64_t begin = team.begin(s.visible), end = team.end(s.visible), count = 0;
    const uint64_t* pairs = s.pairs.get();
    for (int64_t r = begin; r < end; ++r) count += tiles[uint32_t(pairs[r])];
    s.part[size_t(team.id)] = count;
    team.wait();
    if (team.id == 0) accumulate(s.part, team.count);
    int64_t* next = s.histogram.get() + team.id * tile_count;
    std::fill(next, next + tile_count, 0);
    team.wait();
    int64_t entry = s.part[size_t(team.id)];
    for (int64_t r = begin; r < end; ++r) {
        if (r + 12 < end) {
            __builtin_prefetch(splats + uint32_t(pairs[r + 12]) * int64_t(SPLAT_FIELDS));
            __builtin_prefetch(extents + uint32_t(pairs[r + 12]) * int64_t(2));
        }
        int64_t n = uint32_t(pairs[r]);
        lists.first[n] = int32_t(entry);
        walk_tiles(o, splats + n * SPLAT_FIELDS, extents[2 * n], extents[2 * n + 1], [&](int32_t tile) {
            entry_tile[entry++] = tile;
            ++next[tile];
        });
    }
    place(s.histogram.get(), tile_count, team);
    if (team.id == 0) {
        for (int64_t tile = 0; tile < tile_count; ++tile) lists.ranges[tile] = view_begin + s.histogram[tile];
        lists.ranges[tile_count] = view_begin + entries;
    }
    team.wait();  // ranges are read off the first thread's places before they move
    entry = s.part[size_t(team.id)];
    for (int64_t r = begin; r < end; ++r) {
        int32_t n = int32_t(uint32_t(pairs[r]));
        for (int32_t j = 0; j < tiles[n]; ++j, ++entry) {
            int64_t at = next[entry_tile[entry]]++;
            lists.ids[at] = n;
            lists.slots[entry] = int32_t(at);
        }
    }
    team.wait();
}

}  // namespace
}  // namespace splat

using namespace splat;

extern "C" int splat_bin(const SplatOptions* o, const real* splats, const real* extents, const int32_t* tiles, int64_t entries,
                         int32_t* ids, int32_t* slots, int32_t* first, int64_t* ranges) {
    if (!accepted(o)) return SPLAT_BAD_OPTIONS;
    int64_t n = o->gaussians, all_views = o->scenes * o->views, tile_count = tiles_across(o) * tiles_down(o);
    if (n > INT32_MAX) return SPLAT_TOO_MANY_ENTRIES;
    std::vector<int64_t> begins(size_t(all_views) + 1, 0);
    int threads = thread_count(o);
#pragma omp parallel for num_threads(threads) if (all_views > 1)
    for (int64_t v = 0; v < all_views; ++v) {
        int64_t sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += tiles[v * n + i];
        begins[size_t(v) + 1] = sum;
    }
    for (int64_t v = 0; v < all_views; ++v) {
        if (begins[size_t(v) + 1] > INT32_MAX) return SPLAT_TOO_MANY_ENTRIES;
        begins[size_t(v) + 1] += begins[size_t(v)];
    }
    if (begins.back() != entries) return SPLAT_BAD_OPTIONS;
    auto entry_tile = uninitialised<int32_t>(entries);
    auto work = [&](int64_t v, Shared& shared, const Team& team) {
        int64_t begin = begins[size_t(v)];
        const real* view_splats = splats + v * n * SPLAT_FIELDS;
        collect_visible(o, view_splats, tiles + v * n, shared, team);
#ifdef SPLAT_DOUBLE
        sort_exactly(view_splats, shared, team);
#else
        sort_by_depth(shared, team);
#endif
        hand_to_tiles(o, view_splats, extents + v * n * 2, tiles + v * n, begins[size_t(v) + 1] - begin, begin,
                      {ids + begin, slots + begin, first + v * n, ranges + v * (tile_count + 1)}, entry_tile.get() + begin,
                      shared, team);
    };
    if (all_views >= 2 * threads) {  // enough views: one thread each, nobody waits
#pragma omp parallel num_threads(threads)
        {
            Shared shared(n, tile_count, 1);
#pragma omp for schedule(dynamic, 1)
            for (int64_t v = 0; v < all_views; ++v) work(v, shared, Team{0, 1});
        }
    } else {
        Shared shared(n, tile_count, threads);
#pragma omp parallel num_threads(threads)
        for (int64_t v = 0; v < all_views; ++v) work(v, shared, Team{omp_get_thread_num(), omp_get_num_threads()});
    }
    return SPLAT_OK;
}
