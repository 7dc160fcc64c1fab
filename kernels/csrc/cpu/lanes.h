// Sixteen values side by side: what a scalar is to math.h, for 16 Gaussians or 16 pixels at once.
//
// Built on the compiler's vector types, with SPLAT_VECTOR_BYTES a register (64, 32 or 16): wider types than the machine
// has are lowered badly. A few operations that compilers do not find themselves are written with intrinsics.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../math.h"

#ifndef SPLAT_VECTOR_BYTES
#define SPLAT_VECTOR_BYTES 16
#endif

namespace splat {

constexpr int lane_count = 16;

template <class S> struct IntegerOf { using type = int32_t; };
template <> struct IntegerOf<double> { using type = int64_t; };

// Which lanes a statement holds for. With AVX-512, one bit a lane; else all bits of a lane.
template <class S> struct Mask {
    using I = typename IntegerOf<S>::type;
    typedef I V __attribute__((vector_size(SPLAT_VECTOR_BYTES)));
    static constexpr int chunks = lane_count * int(sizeof(S)) / SPLAT_VECTOR_BYTES;
    V m[chunks];
};
#if defined(__AVX512F__)
#define SPLAT_BIT_MASKS 1
template <> struct Mask<float> { __mmask16 m; };
#endif

template <class S> struct Lanes {
    typedef S V __attribute__((vector_size(SPLAT_VECTOR_BYTES)));
    static constexpr int per = SPLAT_VECTOR_BYTES / int(sizeof(S));
    static constexpr int chunks = lane_count / per;
    V v[chunks];

    Lanes() = default;
    SPLAT_HD Lanes(S s) { for (int c = 0; c < chunks; ++c) v[c] = V{} + s; }
    SPLAT_HD static Lanes load(const S* p) { Lanes o; memcpy(o.v, p, sizeof(o.v)); return o; }
    SPLAT_HD void store(S* p) const { memcpy(p, v, sizeof(v)); }
    SPLAT_HD S operator[](int i) const { return v[i / per][i % per]; }
    SPLAT_HD void set(int i, S s) { v[i / per][i % per] = s; }
};

template <class S> struct scalar_of<Lanes<S>> { using type = S; };

#define SPLAT_LANES_OPERATOR(op)                                                                              \
    template <class S> SPLAT_HD Lanes<S> operator op(Lanes<S> a, Lanes<S> b) {                                \
        for (int c = 0; c < Lanes<S>::chunks; ++c) a.v[c] = a.v[c] op b.v[c];                                 \
        return a;                                                                                             \
    }                                                                                                         \
    template <class S> SPLAT_HD Lanes<S> operator op(Lanes<S> a, scalar<Lanes<S>> b) { return a op Lanes<S>(b); }
SPLAT_LANES_OPERATOR(+)
SPLAT_LANES_OPERATOR(-)
SPLAT_LANES_OPERATOR(*)
SPLAT_LANES_OPERATOR(/)
#undef SPLAT_LANES_OPERATOR

#define SPLAT_LANES_COMPARISON(op, code)                                                                      \
    template <class S> SPLAT_HD Mask<S> operator op(Lanes<S> a, Lanes<S> b) { return compare(a, b, code{}); }
struct Less {}; struct LessEqual {}; struct Greater {}; struct GreaterEqual {};
#define SPLAT_COMPARE(code, op, immediate)                                                                    \
    template <class S> SPLAT_HD Mask<S> compare(Lanes<S> a, Lanes<S> b, code) {                               \
        Mask<S> o;                                                                                            \
        for (int c = 0; c < Lanes<S>::chunks; ++c) o.m[c] = a.v[c] op b.v[c];                                 \
        return o;                                                                                             \
    }                                                                                                         \
    SPLAT_COMPARE_BITS(code, immediate)                                                                       \
    SPLAT_LANES_COMPARISON(op, code)
#if defined(SPLAT_BIT_MASKS)
#define SPLAT_COMPARE_BITS(code, immediate)                                                                   \
    SPLAT_HD Mask<float> compare(Lanes<float> a, Lanes<float> b, code) {                                      \
        return {_mm512_cmp_ps_mask((__m512)a.v[0], (__m512)b.v[0], immediate)};                               \
    }
#else
#define SPLAT_COMPARE_BITS(code, immediate)
#endif
SPLAT_COMPARE(Less, <, _CMP_LT_OQ)
SPLAT_COMPARE(LessEqual, <=, _CMP_LE_OQ)
SPLAT_COMPARE(Greater, >, _CMP_GT_OQ)
SPLAT_COMPARE(GreaterEqual, >=, _CMP_GE_OQ)
#undef SPLAT_COMPARE
#undef SPLAT_COMPARE_BITS
#undef SPLAT_LANES_COMPARISON

template <class S> SPLAT_HD Mask<S> both(Mask<S> a, Mask<S> b) {
    for (int c = 0; c < Mask<S>::chunks; ++c) a.m[c] &= b.m[c];
    return a;
}
template <class S> SPLAT_HD Mask<S> negate(Mask<S> a) {
    for (int c = 0; c < Mask<S>::chunks; ++c) a.m[c] = ~a.m[c];
    return a;
}
template <class S> SPLAT_HD Lanes<S> select(Mask<S> mask, Lanes<S> yes, Lanes<S> no) {
    for (int c = 0; c < Lanes<S>::chunks; ++c) yes.v[c] = mask.m[c] ? yes.v[c] : no.v[c];
    return yes;
}
// One bit a lane, lane 0 lowest.
template <class S> SPLAT_HD uint32_t bits(Mask<S> a) {
    uint32_t o = 0;
    for (int i = 0; i < lane_count; ++i) o |= uint32_t(a.m[i / Lanes<S>::per][i % Lanes<S>::per] & 1) << i;
    return o;
}
#if defined(SPLAT_BIT_MASKS)
SPLAT_HD Mask<float> both(Mask<float> a, Mask<float> b) { return {__mmask16(a.m & b.m)}; }
SPLAT_HD Mask<float> negate(Mask<float> a) { return {__mmask16(~a.m)}; }
SPLAT_HD Lanes<float> select(Mask<float> mask, Lanes<float> yes, Lanes<float> no) {
    yes.v[0] = (Lanes<float>::V)_mm512_mask_blend_ps(mask.m, (__m512)no.v[0], (__m512)yes.v[0]);
    return yes;
}
SPLAT_HD uint32_t bits(Mask<float> a) { return a.m; }
#elif defined(__AVX__) && SPLAT_VECTOR_BYTES == 32
SPLAT_HD uint32_t bits(Mask<float> a) {
    return uint32_t(_mm256_movemask_ps((__m256)a.m[0])) | uint32_t(_mm256_movemask_ps((__m256)a.m[1])) << 8;
}
#elif defined(__SSE2__) && SPLAT_VECTOR_BYTES == 16
SPLAT_HD uint32_t bits(Mask<float> a) {
    uint32_t o = 0;
    for (int c = 0; c < 4; ++c) o |= uint32_t(_mm_movemask_ps((__m128)a.m[c])) << (4 * c);
    return o;
}
#endif

template <class S> SPLAT_HD Mask<S> is_finite(Lanes<S> a) {
    Lanes<S> difference = a - a;
    Mask<S> from_below = difference >= Lanes<S>(S(0));
    return from_below;  // a - a is 0, or not a number
}

template <class S, class F> SPLAT_HD Lanes<S> each(Lanes<S> a, F f) {
    for (int i = 0; i < lane_count; ++i) a.set(i, f(a[i]));
    return a;
}
SPLAT_HD Lanes<double> square_root(Lanes<double> a) { return each(a, [](double x) { return ::sqrt(x); }); }
SPLAT_HD Lanes<double> logarithm(Lanes<double> a) { return each(a, [](double x) { return ::log(x); }); }
SPLAT_HD Lanes<double> power_of_two(Lanes<double> a) { return each(a, [](double x) { return ::exp2(x); }); }
template <class S> SPLAT_HD Lanes<S> ceiling(Lanes<S> a) { return each(a, [](S x) { return ceiling(x); }); }
SPLAT_HD Lanes<double> reciprocal(Lanes<double> a) { return Lanes<double>(1.0) / a; }

SPLAT_HD Lanes<float> square_root(Lanes<float> a) {
#if defined(SPLAT_BIT_MASKS)
    a.v[0] = (Lanes<float>::V)_mm512_maskz_sqrt_ps(0xffff, (__m512)a.v[0]);
#elif defined(__AVX__) && SPLAT_VECTOR_BYTES == 32
    for (auto& v : a.v) v = (Lanes<float>::V)_mm256_sqrt_ps((__m256)v);
#elif defined(__SSE2__) && SPLAT_VECTOR_BYTES == 16
    for (auto& v : a.v) v = (Lanes<float>::V)_mm_sqrt_ps((__m128)v);
#else
    return each(a, [](float x) { return sqrtf(x); });
#endif
    return a;
}

// 1 / a for a in [0.01, 1]: the approximate instruction and one Newton step where there is one, 1 to 2 units in the last place.
SPLAT_HD Lanes<float> reciprocal(Lanes<float> a) {
#if defined(SPLAT_BIT_MASKS)
    Lanes<float> o;
    o.v[0] = (Lanes<float>::V)_mm512_maskz_rcp14_ps(0xffff, (__m512)a.v[0]);
    return o * (Lanes<float>(2.0f) - a * o);
#else
    return Lanes<float>(1.0f) / a;
#endif
}

// 2^x for x in [-126, 0]; outside of it any finite or infinite value, without a trap. Relative error below 2.5e-7:
// the polynomial is the one of degree 5 with the smallest relative error on [-1/2, 1/2] (7.5e-8, by the Remez exchange).
SPLAT_HD Lanes<float> power_of_two(Lanes<float> x) {
    typedef int32_t N __attribute__((vector_size(SPLAT_VECTOR_BYTES)));
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
    Lanes<float> o;
    for (int c = 0; c < Lanes<float>::chunks; ++c) {
        auto shifted = x.v[c] + magic;
        auto f = x.v[c] - (shifted - magic);
        auto p = f * 1.3276471979e-03f + 9.6755413342e-03f;
        p = p * f + 5.5507132735e-02f;
        p = p * f + 2.4022119724e-01f;
        p = p * f + 6.9314696706e-01f;
        p = p * f + 1.0000000717e+00f;
        o.v[c] = (Lanes<float>::V)((N)p + ((N)shifted << 23));
    }
    return o;
}

// ln x for normal x > 0, relative error about 2e-7 away from 1 and absolute error below 1e-7 near it.
SPLAT_HD Lanes<float> logarithm(Lanes<float> x) {
    typedef int32_t N __attribute__((vector_size(SPLAT_VECTOR_BYTES)));
    typedef Lanes<float>::V V;
    Lanes<float> o;
    for (int c = 0; c < Lanes<float>::chunks; ++c) {
        N raw = (N)x.v[c];
        N k = (raw - 0x3f3504f3) >> 23;  // exponent, so that the mantissa lies in [sqrt(1/2), sqrt(2))
        V f = (V)(raw - (k << 23)) - 1.0f;
        V z = f / (f + 2.0f);            // ln(1+f) = 2 artanh z, |z| < 0.172
        V zz = z * z;
        V series = ((zz * (2.0f / 9.0f) + 2.0f / 7.0f) * zz + 2.0f / 5.0f) * zz + 2.0f / 3.0f;
        o.v[c] = z * 2.0f + z * zz * series + __builtin_convertvector(k, V) * 0.69314718056f;
    }
    return o;
}

// Lane indices against a bound, for lanes that count list entries.
template <class S> struct Counters {
    using I = typename IntegerOf<S>::type;
    typename Mask<S>::V v[Mask<S>::chunks];
    SPLAT_HD static Counters load(const int32_t* p) {
        Counters o;
        for (int i = 0; i < lane_count; ++i) o.v[i / Lanes<S>::per][i % Lanes<S>::per] = I(p[i]);
        return o;
    }
    SPLAT_HD Mask<S> above(int32_t k) const {
        Mask<S> o;
        for (int c = 0; c < Mask<S>::chunks; ++c) o.m[c] = v[c] > (v[c] - v[c] + I(k));
        return o;
    }
};
#if defined(SPLAT_BIT_MASKS)
template <> struct Counters<float> {
    __m512i v;
    SPLAT_HD static Counters load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
    SPLAT_HD Mask<float> above(int32_t k) const { return {_mm512_cmpgt_epi32_mask(v, _mm512_set1_epi32(k))}; }
};
#endif

// Sum of the lanes, always in the same order.
template <class S> SPLAT_HD S total(Lanes<S> a) {
    S half[8];
    S all[16];
    a.store(all);
    for (int i = 0; i < 8; ++i) half[i] = all[i] + all[i + 8];
    for (int i = 0; i < 4; ++i) half[i] += half[i + 4];
    return (half[0] + half[2]) + (half[1] + half[3]);
}

// to[i] = total of from[i] for i < n, the fast way: quarters first, then four bundles at a time by a transposition.
template <class S> SPLAT_HD void totals(const Lanes<S>* from, int n, S* to) {
    for (int i = 0; i < n; ++i) to[i] = total(from[i]);
}
#if defined(__SSE2__)
SPLAT_HD __m128 quarters(const Lanes<float>& a) {
    alignas(64) __m128 q[4];
    memcpy(q, &a, sizeof(q));
    return _mm_add_ps(_mm_add_ps(q[0], q[1]), _mm_add_ps(q[2], q[3]));
}
SPLAT_HD void totals(const Lanes<float>* from, int n, float* to) {
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        __m128 a = quarters(from[i]), b = quarters(from[i + 1]), c = quarters(from[i + 2]), d = quarters(from[i + 3]);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_storeu_ps(to + i, _mm_add_ps(_mm_add_ps(a, b), _mm_add_ps(c, d)));
    }
    for (; i < n; ++i) {
        alignas(16) float q[4];
        _mm_store_ps(q, quarters(from[i]));
        to[i] = (q[0] + q[1]) + (q[2] + q[3]);
    }
}
#endif

}  // namespace splat
