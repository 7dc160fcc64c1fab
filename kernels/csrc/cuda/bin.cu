// Stage 2: for every tile of every view, the Gaussians that meet it, front to back.
//
// Two sorts. First all (view, Gaussian) pairs by the 32 bits of their depth; then entries are written in that order, and
// a stable sort on the number of the tile alone (view * L + tile, as few bits as it needs) brings tiles together and
// leaves depths, and equal depths by index, in order. Bytes, with 8 bits a pass, 16-bit tile keys and 32 bytes for whatever
// is picked out of order:
//   a pair    44 keys, 68 sort (4 passes x 16, histogram), 44 sum of tile counts, 44 to read the splat again = 200
//   an entry  6 written, 26 sort (2 passes x 12, histogram) = 32
// One sort of 64-bit keys (32 bits of depth, 13 of tile) would take 56 a pair and 164 an entry: 12 written, 6 passes x 24,
// histogram. The two would meet where nearly all splats lie within one tile, at 1.1 entries a pair. At 1.7, splats of a
// pixel or so, it is 255 bytes a pair against 335, at 3.3 it is 306 against 597.
#include <cub/cub.cuh>

#include <iterator>
#include <limits>

#include "ellipse.cuh"

namespace splat {
namespace {

constexpr int bin_threads = 256;
constexpr int large_splat = 64;  // tiles; beyond, a warp writes the entries together

// Tile counts as 64-bit numbers, in the order of `order` or as they are: input of a prefix sum.
struct TileCounts {
    using value_type = int64_t;
    using difference_type = std::ptrdiff_t;
    using pointer = const int64_t*;
    using reference = int64_t;
    using iterator_category = std::random_access_iterator_tag;

    const int32_t* tiles;
    const uint32_t* order;  // or null

    __host__ __device__ int64_t operator[](difference_type i) const { return tiles[order ? order[i] : i]; }
    __host__ __device__ int64_t operator*() const { return (*this)[0]; }
    __host__ __device__ TileCounts operator+(difference_type i) const {
        return order ? TileCounts{tiles, order + i} : TileCounts{tiles + i, nullptr};
    }
};

struct BinArguments {
    Sizes sizes;
    int64_t pairs, entries;
    const float *splats, *extents;
    const int32_t* tiles;
    const uint32_t* order;    // [pairs]: pairs by depth
    const int64_t* offsets;   // [pairs]: where the entries of order[i] begin
    const int64_t* numbers;   // [pairs] or null: where those of pair i begin when pairs are taken as they come
    int32_t *slots, *first;   // null together with numbers (slots also where there are no entries)
};

// Depths are positive, so their bits sort as they do. Pairs without entries go last: nobody will look for them.
__global__ void __launch_bounds__(bin_threads) depth_key_kernel(BinArguments a, uint32_t* keys, uint32_t* order) {
    int64_t pair = int64_t(blockIdx.x) * bin_threads + threadIdx.x;
    if (pair >= a.pairs) return;
    keys[pair] = a.tiles[pair] > 0 ? __float_as_uint(a.splats[SPLAT_FIELDS * pair + SPLAT_Z]) : 0xffffffffu;
    order[pair] = uint32_t(pair);
}

// A pair as the writers of entries need it.
struct Source {
    Footprint shape;
    uint32_t id;
    uint32_t first_key;  // of its view
    int64_t offset;      // of its entries in the order of depth
    int64_t number;      // of its entries in the order of pairs
};

__device__ __forceinline__ Source load_source(const BinArguments& a, int64_t position) {
    uint32_t pair = a.order[position];
    uint32_t view = pair / uint32_t(a.sizes.gaussians);
    const float4* splat = reinterpret_cast<const float4*>(a.splats) + 2 * int64_t(pair);
    float4 s0 = __ldg(splat), s1 = __ldg(splat + 1);
    float radius = a.sizes.graphdeco ? a.extents[2 * int64_t(pair)] : 0.0f;
    Source s;
    s.shape = footprint(s0.x, s0.y, s0.z, s0.w, s1.x, s1.z, radius, a.sizes.graphdeco);
    s.id = pair - view * uint32_t(a.sizes.gaussians);
    s.first_key = view * uint32_t(a.sizes.tiles);
    s.offset = a.offsets[position];
    s.number = a.numbers ? a.numbers[pair] : 0;
    return s;
}

// The entries of one row of tiles, the first of which is entry number `done` of the splat. Where entries are numbered,
// the number travels through the sort and the Gaussian waits in slots.
template <class Key>
__device__ __forceinline__ void write_row(const BinArguments& a, const Source& s, int row, Span columns, int done, Key* keys,
                                          uint32_t* values) {
    for (int column = columns.first; column <= columns.last; ++column, ++done) {
        keys[s.offset + done] = Key(s.first_key + uint32_t(row * a.sizes.tiles_x + column));
        values[s.offset + done] = a.numbers ? uint32_t(s.number + done) : s.id;
        if (a.numbers) a.slots[s.number + done] = int32_t(s.id);
    }
}

__device__ __forceinline__ int length(Span span) { return max(span.last - span.first + 1, 0); }

template <class Key>
__device__ __forceinline__ void write_alone(const BinArguments& a, const Source& s, Key* keys, uint32_t* values) {
    Span rows = tile_rows(s.shape, a.sizes.tiles_y, a.sizes.height);
    int done = 0;
    for (int row = rows.first; row <= rows.last; ++row) {
        Span columns = tile_columns(s.shape, row, a.sizes.tiles_x, a.sizes.width, a.sizes.height);
        write_row(a, s, row, columns, done, keys, values);
        done += length(columns);
    }
}

// 32 rows at a time, one for each lane, after a prefix sum of their lengths.
template <class Key>
__device__ __forceinline__ void write_together(const BinArguments& a, const Source& s, Key* keys, uint32_t* values) {
    Span rows = tile_rows(s.shape, a.sizes.tiles_y, a.sizes.height);
    int lane = int(threadIdx.x) % warp_lanes, done = 0;
    for (int first = rows.first; first <= rows.last; first += warp_lanes) {
        int row = first + lane;
        Span columns = {0, -1};
        if (row <= rows.last) columns = tile_columns(s.shape, row, a.sizes.tiles_x, a.sizes.width, a.sizes.height);
        int sum = length(columns);
        for (int offset = 1; offset < warp_lanes; offset *= 2) {
            int before = __shfl_up_sync(all_lanes, sum, offset);
            if (lane >= offset) sum += before;
        }
        write_row(a, s, row, columns, done + sum - length(columns), keys, values);
        done += __shfl_sync(all_lanes, sum, warp_lanes - 1);
    }
}

__device__ __forceinline__ int64_t end_of(const BinArguments& a, int64_t position) {
    return position + 1 < a.pairs ? a.offsets[position + 1] : a.entries;
}

template <class Key> __global__ void __launch_bounds__(bin_threads) entry_kernel(BinArguments a, Key* keys, uint32_t* values) {
    int64_t position = int64_t(blockIdx.x) * bin_threads + threadIdx.x;
    int count = position < a.pairs ? int(end_of(a, position) - a.offsets[position]) : 0;
    if (count > 0 && count <= large_splat) write_alone(a, load_source(a, position), keys, values);
    unsigned large = __ballot_sync(all_lanes, count > large_splat);
    int64_t warp_start = position - int(threadIdx.x) % warp_lanes;
    for (; large; large &= large - 1) write_together(a, load_source(a, warp_start + __ffs(int(large)) - 1), keys, values);
}

// Where the list of each tile begins: a binary search a tile reads some 24 keys, where comparing neighbours would read
// them all and leave the gaps of empty tiles to be filled by single threads.
template <class Key>
__global__ void __launch_bounds__(bin_threads) range_kernel(Sizes s, const Key* keys, int64_t entries, int64_t* ranges) {
    int64_t i = int64_t(blockIdx.x) * bin_threads + threadIdx.x;
    if (i >= int64_t(s.all_views) * (s.tiles + 1)) return;
    int64_t view = i / (s.tiles + 1), key = view * s.tiles + i % (s.tiles + 1);
    int64_t low = 0, high = entries;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (int64_t(keys[middle]) < key) low = middle + 1;
        else high = middle;
    }
    ranges[i] = low;
}

// Entries were sorted by number. Put the Gaussian in its place, and at its number where it went.
template <class Key>
__global__ void __launch_bounds__(bin_threads) resolve_kernel(BinArguments a, const Key* keys, const uint32_t* sorted, int32_t* ids) {
    int64_t position = int64_t(blockIdx.x) * bin_threads + threadIdx.x;
    if (position >= a.entries) return;
    uint32_t number = sorted[position];
    int64_t view = int64_t(keys[position]) / a.sizes.tiles;
    ids[position] = a.slots[number];
    a.slots[number] = int32_t(position - a.numbers[view * a.sizes.gaussians]);
}

__global__ void __launch_bounds__(bin_threads) first_kernel(BinArguments a) {
    int64_t pair = int64_t(blockIdx.x) * bin_threads + threadIdx.x;
    if (pair >= a.pairs) return;
    int64_t view = pair / a.sizes.gaussians;
    a.first[pair] = int32_t(a.numbers[pair] - a.numbers[view * a.sizes.gaussians]);
}

int bits_for(int64_t values) {
    int bits = 1;
    while (bits < 32 && (int64_t(1) << bits) < values) ++bits;
    return bits;
}

bool keys_are_short(const Sizes& s) { return int64_t(s.all_views) * s.tiles <= int64_t(1) << 16; }

// Scratch memory. The numbers of the entries take the place of the depth keys once those have done their work.
template <class Key> struct Buffers {
    uint32_t *depth_keys[2], *order[2];
    int64_t* offsets;
    Key* keys[2];
    uint32_t* values;  // the other half of the double buffer is `ids`
    char* cub;
    size_t cub_bytes;
    int64_t bytes;
};

// Bytes that the sorts and sums of CUB ask for.
template <class Key> int cub_bytes(int64_t pairs, int64_t entries, int bits, size_t& most) {
    size_t bytes[3] = {0, 0, 0};
    cub::DoubleBuffer<uint32_t> depths, order, values;
    cub::DoubleBuffer<Key> keys;
    SPLAT_TRY(device_code(cub::DeviceRadixSort::SortPairs(nullptr, bytes[0], depths, order, int(pairs), 0, 32)));
    SPLAT_TRY(device_code(cub::DeviceRadixSort::SortPairs(nullptr, bytes[1], keys, values, entries, 0, bits)));
    SPLAT_TRY(device_code(
        cub::DeviceScan::ExclusiveSum(nullptr, bytes[2], TileCounts{nullptr, nullptr}, (int64_t*)nullptr, int(pairs))));
    for (size_t b : bytes) most = b > most ? b : most;
    return SPLAT_OK;
}

template <class Key> int take_buffers(const SplatOptions& o, void* memory, int64_t entries, Buffers<Key>& b) {
    Scratch scratch(memory);
    int64_t pairs = pairs_of(o);
    int64_t stride = blocks_for(pairs, 64) * 64;  // aligned, and 8 bytes a pair in one piece
    b.depth_keys[0] = scratch.take<uint32_t>(2 * stride), b.depth_keys[1] = memory ? b.depth_keys[0] + stride : nullptr;
    for (auto& order : b.order) order = scratch.take<uint32_t>(pairs);
    b.offsets = scratch.take<int64_t>(pairs);
    for (auto& keys : b.keys) keys = scratch.take<Key>(entries);
    b.values = scratch.take<uint32_t>(entries);
    Sizes s = sizes_of(o);
    b.cub_bytes = 0;
    SPLAT_TRY(cub_bytes<Key>(pairs, entries, bits_for(int64_t(s.all_views) * s.tiles), b.cub_bytes));
    b.cub = scratch.take<char>(int64_t(b.cub_bytes));
    b.bytes = scratch.bytes();
    return SPLAT_OK;
}

template <class Key> struct Binning {
    const SplatOptions& o;
    BinArguments a;
    Buffers<Key> b;
    cudaStream_t stream;

    int sort_by_depth() {
        SPLAT_LAUNCH(depth_key_kernel, blocks_for(a.pairs, bin_threads), bin_threads, stream, a, b.depth_keys[0], b.order[0]);
        SPLAT_TRY(launch_code());
        cub::DoubleBuffer<uint32_t> keys(b.depth_keys[0], b.depth_keys[1]), order(b.order[0], b.order[1]);
        SPLAT_TRY(device_code(cub::DeviceRadixSort::SortPairs(b.cub, b.cub_bytes, keys, order, int(a.pairs), 0, 32, stream)));
        a.order = order.Current();
        return SPLAT_OK;
    }

    int sum_tiles(bool numbered) {
        TileCounts sorted{a.tiles, a.order}, given{a.tiles, nullptr};
        a.offsets = b.offsets;
        SPLAT_TRY(device_code(cub::DeviceScan::ExclusiveSum(b.cub, b.cub_bytes, sorted, b.offsets, int(a.pairs), stream)));
        if (!numbered) return SPLAT_OK;
        auto* numbers = reinterpret_cast<int64_t*>(b.depth_keys[0]);
        a.numbers = numbers;
        SPLAT_TRY(device_code(cub::DeviceScan::ExclusiveSum(b.cub, b.cub_bytes, given, numbers, int(a.pairs), stream)));
        SPLAT_LAUNCH(first_kernel, blocks_for(a.pairs, bin_threads), bin_threads, stream, a);
        return launch_code();
    }

    // CUB swaps its buffers once a pass; start where 8-bit passes would end in `ids`, and copy if it took other ones.
    int sort_by_tile(int32_t* ids, const Key*& sorted_keys, const uint32_t*& sorted_values) {
        int bits = bits_for(int64_t(a.sizes.all_views) * a.sizes.tiles);
        auto* target = reinterpret_cast<uint32_t*>(ids);
        bool starts_in_ids = blocks_for(bits, 8) % 2 == 0;
        cub::DoubleBuffer<uint32_t> values(starts_in_ids ? target : b.values, starts_in_ids ? b.values : target);
        cub::DoubleBuffer<Key> keys(b.keys[0], b.keys[1]);
        auto kernel = entry_kernel<Key>;
        SPLAT_LAUNCH(kernel, blocks_for(a.pairs, bin_threads), bin_threads, stream, a, keys.Current(), values.Current());
        SPLAT_TRY(launch_code());
        SPLAT_TRY(device_code(cub::DeviceRadixSort::SortPairs(b.cub, b.cub_bytes, keys, values, a.entries, 0, bits, stream)));
        sorted_keys = keys.Current(), sorted_values = values.Current();
        return SPLAT_OK;
    }

    int run(int32_t* ids, int64_t* ranges) {
        const Key* keys = b.keys[0];
        const uint32_t* values = nullptr;
        if (a.entries > 0) {
            SPLAT_TRY(sort_by_depth());
            SPLAT_TRY(sum_tiles(a.first != nullptr));
            SPLAT_TRY(sort_by_tile(ids, keys, values));
            SPLAT_TRY(place(keys, values, ids));
        } else if (a.first) {
            SPLAT_TRY(device_code(cudaMemsetAsync(a.first, 0, size_t(a.pairs) * sizeof(int32_t), stream)));
        }
        int64_t bounds = int64_t(a.sizes.all_views) * (a.sizes.tiles + 1);
        auto kernel = range_kernel<Key>;
        SPLAT_LAUNCH(kernel, blocks_for(bounds, bin_threads), bin_threads, stream, a.sizes, keys, a.entries, ranges);
        return launch_code();
    }

    int place(const Key* keys, const uint32_t* values, int32_t* ids) {
        if (a.first) {
            auto kernel = resolve_kernel<Key>;
            SPLAT_LAUNCH(kernel, blocks_for(a.entries, bin_threads), bin_threads, stream, a, keys, values, ids);
            return launch_code();
        }
        if (reinterpret_cast<const int32_t*>(values) == ids) return SPLAT_OK;
        size_t bytes = size_t(a.entries) * sizeof(int32_t);
        return device_code(cudaMemcpyAsync(ids, values, bytes, cudaMemcpyDeviceToDevice, stream));
    }
};

template <class Key> int bin(const SplatOptions& o, const BinArguments& a, int32_t* ids, int64_t* ranges) {
    Buffers<Key> b;
    SPLAT_TRY(take_buffers<Key>(o, o.scratch, a.entries, b));
    if (!has_scratch(o, b.bytes)) return SPLAT_NO_MEMORY;
    return Binning<Key>{o, a, b, stream_of(o)}.run(ids, ranges);
}

}  // namespace

int64_t bin_scratch(const SplatOptions& o, int64_t entries) {
    Buffers<uint16_t> narrow;
    Buffers<uint32_t> wide;
    if (keys_are_short(sizes_of(o))) {
        int code = take_buffers<uint16_t>(o, nullptr, entries, narrow);
        return code ? -code : narrow.bytes;
    }
    int code = take_buffers<uint32_t>(o, nullptr, entries, wide);
    return code ? -code : wide.bytes;
}

}  // namespace splat

extern "C" int splat_bin(const SplatOptions* o, const real* splats, const real* extents, const int32_t* tiles, int64_t entries,
                         int32_t* ids, int32_t* slots, int32_t* first, int64_t* ranges) {
    using namespace splat;
    SPLAT_TRY(check(o, ranges));
    bool numbered = first != nullptr;
    if (entries < 0 || !is_aligned(splats) || (entries > 0 && numbered != (slots != nullptr))) return SPLAT_BAD_OPTIONS;
    if (numbered && entries > int64_t(std::numeric_limits<int32_t>::max())) return SPLAT_TOO_MANY_ENTRIES;
    BinArguments a = {};
    a.sizes = sizes_of(*o), a.pairs = pairs_of(*o), a.entries = entries;
    a.splats = splats, a.extents = extents, a.tiles = tiles, a.slots = slots, a.first = first;
    return keys_are_short(a.sizes) ? bin<uint16_t>(*o, a, ids, ranges) : bin<uint32_t>(*o, a, ids, ranges);
}
