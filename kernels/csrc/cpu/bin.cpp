// Lists of splats by tile, front to back. Each view: entries are handed to their tiles in the order of the Gaussians by a
// counting sort, then every tile sorts its own list by depth, in cache. Both are stable, threads take contiguous parts, and
// tiles are independent, so the lists are the same for any number of threads.
//
// slots and first, for the backward pass: the entries of a view are numbered Gaussian by Gaussian, first [B,V,N] is the
// number of a Gaussian's first entry, and slots [M] the number of the entry at each place of ids.
#include <atomic>
#include <vector>

#include "tiles.h"

namespace splat {
namespace {

constexpr int64_t worth_sharing = 4096;   // Gaussians: below it, waiting for each other costs more than it saves

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

using Key = std::conditional_t<sizeof(real) == 8, uint64_t, uint32_t>;
inline Key depth_key(real z) { Key key; memcpy(&key, &z, sizeof(z)); return key; }  // positive floats sort as integers

struct Entry { Key depth; int32_t id, number; };

// What a team shares while it works on one view.
struct Shared {
    Shared(int64_t tile_count, int threads)
        : next(uninitialised<int64_t>(threads * tile_count)), part(size_t(threads) + 1) {}
    std::unique_ptr<int64_t[]> next;  // [threads, tiles]: counts, then where each thread puts its next entry
    std::vector<int64_t> part;        // each thread's first entry
    std::atomic<bool> strange{false};  // tiles are not those of these splats: the lists are then worthless, but in bounds
};

// What a thread needs to sort a tile.
struct Desk {
    struct Item { Key depth; uint32_t place; };
    std::vector<Item> items, swap;
    void fit(size_t n) { if (items.size() < n) items.resize(n), swap.resize(n); }
};

// Stable: by insertion when short, else by digits of 8 bits, as many as the keys differ in.
const Desk::Item* sort_items(Desk& desk, int64_t n) {
    Desk::Item *from = desk.items.data(), *to = desk.swap.data();
    if (n < 48) {
        for (int64_t i = 1; i < n; ++i) {
            Desk::Item item = from[i];
            int64_t j = i;
            for (; j > 0 && from[j - 1].depth > item.depth; --j) from[j] = from[j - 1];
            from[j] = item;
        }
        return from;
    }
    Key low = from[0].depth, high = low;
    for (int64_t i = 1; i < n; ++i) low = std::min(low, from[i].depth), high = std::max(high, from[i].depth);
    for (int shift = 0; shift < int(8 * sizeof(Key)) && (high - low) >> shift; shift += 8) {
        uint32_t place[257] = {};
        for (int64_t i = 0; i < n; ++i) ++place[(((from[i].depth - low) >> shift) & 255) + 1];
        for (int d = 0; d < 256; ++d) place[d + 1] += place[d];
        for (int64_t i = 0; i < n; ++i) to[place[((from[i].depth - low) >> shift) & 255]++] = from[i];
        std::swap(from, to);
    }
    return from;
}

struct ViewLists {
    const real *splats, *extents;
    const int32_t* tiles;
    int64_t begin, entries;           // of the view in the lists
    int32_t *ids, *slots, *first;     // of the view
    int64_t* ranges;
};

// Counts this thread's entries by tile and notes the tile of each.
void count_entries(const SplatOptions* o, const ViewLists& view, int32_t* entry_tile, Shared& s, const Team& team) {
    int64_t tile_count = tiles_across(o) * tiles_down(o), begin = team.begin(o->gaussians), end = team.end(o->gaussians);
    int64_t* counts = s.next.get() + team.id * tile_count;
    std::fill(counts, counts + tile_count, 0);
    int64_t mine = 0;
    if (team.count > 1) {
        for (int64_t n = begin; n < end; ++n) mine += view.tiles[n];
        s.part[size_t(team.id) + 1] = mine;
        team.wait();
    }
    int64_t entry = 0;
    for (int t = 1; t <= team.id; ++t) entry += s.part[size_t(t)];
    for (int64_t n = begin; n < end; ++n) {
        view.first[n] = int32_t(entry);
        if (view.tiles[n] <= 0) continue;
        int64_t behind = entry + view.tiles[n];
        auto add = [&](int32_t tile) {
            if (entry < behind) entry_tile[entry] = tile, ++counts[tile];
            ++entry;
        };
        walk_tiles(o, view.splats + n * SPLAT_FIELDS, view.extents[2 * n], view.extents[2 * n + 1], add);
        if (entry != behind) s.strange = true;
        while (entry < behind) add(0);
        entry = behind;
    }
    team.wait();
}

// Counts become places, and the tiles' ranges.
void place_entries(const SplatOptions* o, const ViewLists& view, Shared& s, const Team& team) {
    if (team.id == 0) {
        int64_t tile_count = tiles_across(o) * tiles_down(o), sum = 0;
        for (int64_t tile = 0; tile < tile_count; ++tile) {
            view.ranges[tile] = view.begin + sum;
            for (int t = 0; t < team.count; ++t) {
                int64_t mine = s.next[t * tile_count + tile];
                s.next[t * tile_count + tile] = sum;
                sum += mine;
            }
        }
        view.ranges[tile_count] = view.begin + view.entries;
    }
    team.wait();
}

void hand_out(const SplatOptions* o, const ViewLists& view, const int32_t* entry_tile, Entry* entries, Shared& s, const Team& team) {
    int64_t tile_count = tiles_across(o) * tiles_down(o), end = team.end(o->gaussians);
    int64_t* next = s.next.get() + team.id * tile_count;
    for (int64_t n = team.begin(o->gaussians); n < end; ++n) {
        if (view.tiles[n] <= 0) continue;
        Key key = depth_key(view.splats[n * SPLAT_FIELDS + SPLAT_Z]);
        int32_t number = view.first[n];
        for (int32_t j = 0; j < view.tiles[n]; ++j, ++number) entries[next[entry_tile[number]]++] = {key, int32_t(n), number};
    }
    team.wait();
}

void sort_tile(const ViewLists& view, int64_t tile, const Entry* entries, Desk& desk) {
    int64_t begin = view.ranges[tile] - view.begin, n = view.ranges[tile + 1] - view.begin - begin;
    if (!n) return;
    desk.fit(size_t(n));
    for (int64_t i = 0; i < n; ++i) desk.items[size_t(i)] = {entries[begin + i].depth, uint32_t(i)};
    const Desk::Item* sorted = sort_items(desk, n);
    for (int64_t i = 0; i < n; ++i) {
        const Entry& entry = entries[begin + sorted[i].place];
        view.ids[begin + i] = entry.id;
        view.slots[begin + i] = entry.number;
    }
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
    for (int64_t v = 0; v < all_views; ++v) {
        int64_t sum = 0;
        int32_t signs = 0;
        for (int64_t i = 0; i < n; ++i) sum += tiles[v * n + i], signs |= tiles[v * n + i];
        if (signs < 0) return SPLAT_BAD_OPTIONS;
        if (sum > INT32_MAX) return SPLAT_TOO_MANY_ENTRIES;
        begins[size_t(v) + 1] = begins[size_t(v)] + sum;
    }
    if (begins.back() != entries) return SPLAT_BAD_OPTIONS;
    auto entry_tile = uninitialised<int32_t>(entries);
    auto unsorted = uninitialised<Entry>(entries);
    auto view_at = [&](int64_t v) {
        int64_t begin = begins[size_t(v)];
        return ViewLists{splats + v * n * SPLAT_FIELDS, extents + v * n * 2, tiles + v * n, begin, begins[size_t(v) + 1] - begin,
                    ids + begin, slots + begin, first + v * n, ranges + v * (tile_count + 1)};
    };
    auto hand = [&](const ViewLists& view, Shared& shared, const Team& team) {
        count_entries(o, view, entry_tile.get() + view.begin, shared, team);
        place_entries(o, view, shared, team);
        hand_out(o, view, entry_tile.get() + view.begin, unsorted.get() + view.begin, shared, team);
    };
    std::atomic<bool> strange{false};
    int teams = all_views >= 2 * threads || n < worth_sharing ? 1 : threads;  // threads of a view
    if (teams == 1) {
#pragma omp parallel num_threads(threads) if (all_views > 1)
        {
            Shared shared(tile_count, 1);
#pragma omp for schedule(dynamic, 1)
            for (int64_t v = 0; v < all_views; ++v) hand(view_at(v), shared, Team{0, 1});
            if (shared.strange) strange = true;
        }
    } else {
        Shared shared(tile_count, teams);
#pragma omp parallel num_threads(teams)
        for (int64_t v = 0; v < all_views; ++v) hand(view_at(v), shared, Team{omp_get_thread_num(), omp_get_num_threads()});
        strange = shared.strange.load();
    }
    if (strange) return SPLAT_BAD_OPTIONS;
#pragma omp parallel num_threads(threads) if (all_views > 1 || n >= worth_sharing)
    {
        Desk desk;
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = 0; i < all_views * tile_count; ++i) {
            ViewLists view = view_at(i / tile_count);
            sort_tile(view, i % tile_count, unsorted.get() + view.begin, desk);
        }
    }
    return SPLAT_OK;
}
