// Structural similarity with an 11 x 11 Gaussian window, and its gradient.
//
// A thread makes a few rows of a plane at once: columns are blurred straight from the input, in registers, and rows from the
// kilobytes that this leaves. Nothing of a plane's size is stored but results.
//
// With s = a + b and d = a - b, all that the map needs are the means of s, d, s^2 and d^2: four blurs, not five, and
// map = (1 - mean(d)^2 / D1) (1 - var(d) / D2), D1 = mean(a)^2 + mean(b)^2 + c1, D2 = var(a) + var(b) + c2, in which
// nothing cancels where a and b are alike. Variances that rounding makes negative count as 0, so map is in [-1, 1].
#include <utility>

#include "common.h"

namespace splat {
namespace {

// One register: bundles of several would leave no room for the sums of a block.
typedef real Vector __attribute__((vector_size(SPLAT_VECTOR_BYTES)));
constexpr int width = SPLAT_VECTOR_BYTES / int(sizeof(real));
constexpr bool many_registers = SPLAT_VECTOR_BYTES == 64;

constexpr int rim = 5, taps = 2 * rim + 1;
constexpr int margin = 16;  // zeros on both sides of a blurred row

// exp(-d^2 / (2 1.5^2)) for d = -5 .. 5, normalised.
constexpr double weights[taps] = {
    1.0283800844791101e-03, 7.5987581352391850e-03, 3.6000772128430829e-02, 1.0936068950970002e-01, 2.1300553771125369e-01,
    2.6601172486179436e-01, 2.1300553771125369e-01, 1.0936068950970002e-01, 3.6000772128430829e-02, 7.5987581352391850e-03,
    1.0283800844791101e-03};

inline Vector load(const real* p) {
    Vector v;
    memcpy(&v, p, sizeof(v));
    return v;
}

// Only the first `count` values, zeros after them.
inline Vector load(const real* p, int count) {
    if (count == width) return load(p);
    Vector v = {};
    memcpy(&v, p, size_t(count) * sizeof(real));
    return v;
}

inline void store(real* p, Vector v, int count = width) {
    if (count == width) memcpy(p, &v, sizeof(v));
    else memcpy(p, &v, size_t(count) * sizeof(real));
}

// body(0), .., body(count - 1) with numbers known when compiling, so that arrays of vectors stay in registers.
template <int... i, class Body> SPLAT_HD void unrolled(std::integer_sequence<int, i...>, Body body) {
    (body(std::integral_constant<int, i>{}), ...);
}
template <int count, class Body> SPLAT_HD void unrolled(Body body) { unrolled(std::make_integer_sequence<int, count>{}, body); }

// What a sweep blurs: `quantities` made of the values of `arrays`, in blocks of so many rows that their sums fill the registers.
struct Moments {
    static constexpr int arrays = 2, quantities = 4, rows = many_registers ? 6 : 2;
    SPLAT_HD static void of(const Vector (&in)[arrays], Vector (&out)[quantities]) {
        out[0] = in[0] + in[1], out[1] = out[0] * out[0];
        out[2] = in[0] - in[1], out[3] = out[2] * out[2];
    }
};

// From v_map and the partials by mean(a), mean(a^2) and mean(ab): the cotangents of these, but with half of the third
// added to the second. Those nearly cancel where a and b are alike, and do so best before they are blurred.
struct Cotangents {
    static constexpr int arrays = 4, quantities = 3, rows = many_registers ? 8 : 4;
    SPLAT_HD static void of(const Vector (&in)[arrays], Vector (&out)[quantities]) {
        out[0] = in[0] * in[1], out[1] = in[0] * (in[2] + real(0.5) * in[3]), out[2] = in[0] * in[3];
    }
};

// The input rows that a block's windows reach, from the topmost.
template <class Sums> struct Input {
    static constexpr int rows = Sums::rows + 2 * rim;
    const real* at[Sums::arrays][rows];
};

// Where blurred columns wait: [quantity][row][column], `margin` zeros on both sides of a row.
template <class Sums> struct Blurred {
    real* values;
    int64_t pitch;
    real* row(int quantity, int row) const { return values + (quantity * Sums::rows + row) * pitch + margin; }
};

// A vector of columns from x, blurred for all rows of the block.
template <class Sums> void blur_columns(const Input<Sums>& input, int64_t x, const Blurred<Sums>& to, int64_t to_x) {
    Vector sums[Sums::rows][Sums::quantities] = {};
    unrolled<Input<Sums>::rows>([&](auto j) __attribute__((always_inline)) {
        Vector in[Sums::arrays], terms[Sums::quantities];
        for (int i = 0; i < Sums::arrays; ++i) {
            in[i] = load(input.at[i][j] + x);
            // The block above has left the other rows in the cache, and these are more than the hardware follows by itself.
            if constexpr (many_registers && decltype(j)::value >= 2 * rim) __builtin_prefetch(input.at[i][j] + x + 3 * width);
        }
        Sums::of(in, terms);
        unrolled<Sums::rows>([&](auto r) __attribute__((always_inline)) {
            constexpr int tap = decltype(j)::value - decltype(r)::value;
            if constexpr (tap >= 0 && tap < taps)
                for (int q = 0; q < Sums::quantities; ++q) sums[r][q] += terms[q] * real(weights[tap]);
        });
    });
    for (int q = 0; q < Sums::quantities; ++q)
        for (int r = 0; r < Sums::rows; ++r) store(to.row(q, r) + to_x, sums[r][q]);
}

// The same for the last columns, too few for a vector: nothing behind them is read, and zeros are written there.
template <class Sums> void blur_last_columns(const Input<Sums>& input, int64_t x, int count, const Blurred<Sums>& to) {
    real copies[Sums::arrays][Input<Sums>::rows][width];
    Input<Sums> copied;
    for (int i = 0; i < Sums::arrays; ++i)
        for (int j = 0; j < Input<Sums>::rows; ++j) {
            copied.at[i][j] = copies[i][j];
            store(copies[i][j], load(input.at[i][j] + x, count));
        }
    blur_columns(copied, 0, to, x);
}

inline Vector blur_row(const real* at) {
    Vector sum = load(at) * real(weights[rim]);
    unrolled<rim>([&](auto i) __attribute__((always_inline)) {
        sum += (load(at - rim + i) + load(at + rim - i)) * real(weights[i]);
    });
    return sum;
}

// Rows [top, top + Sums::rows) of the plane at offset `plane`: finish(pixel, blurred quantities, count) for every vector,
// `count` of whose values are inside.
template <class Sums, class Finish>
void sweep_block(const SplatOptions* o, const real* const* arrays, int64_t plane, int64_t top, const real* zeros,
                 const Blurred<Sums>& blurred, Finish finish) {
    const int64_t wide = o->width, high = o->height;
    Input<Sums> input;
    for (int i = 0; i < Sums::arrays; ++i)
        for (int j = 0; j < Input<Sums>::rows; ++j) {
            int64_t y = top + j - rim;
            input.at[i][j] = y >= 0 && y < high ? arrays[i] + plane + y * wide : zeros;
        }
    for (int64_t x = 0; x < wide; x += width) {
        if (x + width <= wide) blur_columns(input, x, blurred, x);
        else blur_last_columns(input, x, int(wide - x), blurred);
    }
    for (int r = 0; r < std::min<int64_t>(Sums::rows, high - top); ++r) {
        const int64_t row = plane + (top + r) * wide;
        for (int64_t x = 0; x < wide; x += width) {
            Vector means[Sums::quantities];
            for (int q = 0; q < Sums::quantities; ++q) means[q] = blur_row(blurred.row(q, r) + x);
            if (x + width <= wide) finish(row + x, means, width);
            else finish(row + x, means, int(wide - x));
        }
    }
}

struct alignas(64) Line { real values[64 / sizeof(real)]; };

inline int64_t lines_for(int64_t values) { return (values * int64_t(sizeof(real)) + 63) / 64; }

// The same for all planes.
template <class Sums, class Finish>
int sweep(const SplatOptions* o, int64_t planes, const real* const* arrays, Finish finish) {
    if (!accepted(o) || planes < 0 || o->width < 1 || o->height < 1) return SPLAT_BAD_OPTIONS;
    const int64_t pitch = lines_for(o->width + 2 * margin) | 1;  // odd: rows do not push each other out of the cache
    const int64_t each = lines_for(o->width) + pitch * Sums::quantities * Sums::rows;
    const int64_t blocks = (o->height + Sums::rows - 1) / Sums::rows;
    const int threads = int(std::min<int64_t>(thread_count(o), std::max<int64_t>(planes * blocks, 1)));
    std::unique_ptr<Line[]> memory(new (std::nothrow) Line[size_t(each * threads)]);
    if (!memory) return SPLAT_NO_MEMORY;
#pragma omp parallel num_threads(threads)
    {
        Line* mine = memory.get() + each * omp_get_thread_num();
        memset(mine, 0, size_t(each) * sizeof(Line));
        const Blurred<Sums> blurred{mine[lines_for(o->width)].values, pitch * int64_t(sizeof(Line) / sizeof(real))};
#pragma omp for schedule(static)
        for (int64_t i = 0; i < planes * blocks; ++i)
            sweep_block(o, arrays, i / blocks * o->width * o->height, i % blocks * Sums::rows, mine->values, blurred, finish);
    }
    return SPLAT_OK;
}

inline Vector not_negative(Vector x) { return x < Vector{} ? Vector{} : x; }  // NaN stays

// 1 / x. Dividing 64-byte vectors takes so long that it would be a seventh of the whole call.
inline Vector inverse(Vector x) {
#if defined(SPLAT_BIT_MASKS) && !defined(SPLAT_DOUBLE)
    Value v;
    v.v[0] = x;
    return reciprocal(v).v[0];
#else
    return real(1) / x;
#endif
}

struct Similarity {
    Vector mean_a, mean_d, variance_d;
    Vector over_means, over_variances;  // 1 / D1, 1 / D2
    Vector luminance, structure;        // the two factors

    SPLAT_HD Similarity(const Vector (&means)[Moments::quantities], real c1, real c2) {
        Vector s2 = means[0] * means[0], d2 = means[2] * means[2];
        mean_a = real(0.5) * (means[0] + means[2]), mean_d = means[2];
        variance_d = not_negative(means[3] - d2);
        over_means = inverse(real(0.5) * (s2 + d2) + c1);
        over_variances = inverse(real(0.5) * (not_negative(means[1] - s2) + variance_d) + c2);
        luminance = real(1) - d2 * over_means, structure = real(1) - variance_d * over_variances;
    }
};

}  // namespace
}  // namespace splat

using namespace splat;

extern "C" int splat_ssim(const SplatOptions* o, int64_t planes, double c1, double c2, const real* a, const real* b,
                          real* map, real* partials) {
    const real* arrays[] = {a, b};
    const real small1 = real(c1), small2 = real(c2);
    if (!partials) return sweep<Moments>(o, planes, arrays, [=](int64_t pixel, const auto& means, int count) {
        Similarity s(means, small1, small2);
        store(map + pixel, s.luminance * s.structure, count);
    });
    const int64_t all = planes * o->width * o->height;
    return sweep<Moments>(o, planes, arrays, [=](int64_t pixel, const auto& means, int count) {
        Similarity s(means, small1, small2);
        // By mean(a): 2 structure (mean(b) - luminance mean(a)) / D1 - 2 luminance (mean(b) - structure mean(a)) / D2.
        Vector first = s.mean_d * (s.mean_a * s.mean_d * s.over_means - real(1)) * s.structure * s.over_means;
        Vector second = (s.mean_a * s.variance_d * s.over_variances - s.mean_d) * s.luminance * s.over_variances;
        store(map + pixel, s.luminance * s.structure, count);
        store(partials + pixel, real(2) * (first - second), count);
        store(partials + all + pixel, -s.luminance * s.structure * s.over_variances, count);
        store(partials + 2 * all + pixel, real(2) * s.luminance * s.over_variances, count);
    });
}

// The window is symmetric, so a blur is its own adjoint.
extern "C" int splat_ssim_backward(const SplatOptions* o, int64_t planes, const real* a, const real* b, const real* v_map,
                                   const real* partials, real* v_a) {
    const int64_t all = planes * o->width * o->height;
    const real* arrays[] = {v_map, partials, partials + all, partials + 2 * all};
    return sweep<Cotangents>(o, planes, arrays, [=](int64_t pixel, const auto& sums, int count) {
        Vector x = load(a + pixel, count), y = load(b + pixel, count);
        store(v_a + pixel, sums[0] + real(2) * x * sums[1] + (y - x) * sums[2], count);
    });
}
