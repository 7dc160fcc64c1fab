// Real spherical harmonics of degree 0 to 4 and their gradient; see math.h for the conventions of T and S.
//
// Order of the coefficients: l, then m = -l..l. colour = max(sum_k Y_k(d) c_k + 0.5, 0), d = (mean - camera centre) / |..|.
#pragma once

#include "math.h"

namespace splat {

SPLAT_HD constexpr int sh_count(int degree) { return (degree + 1) * (degree + 1); }

// y[0 .. (degree+1)^2) at the unit vector (x, y, z).
template <class T> SPLAT_HD void sh_basis(int degree, T x, T y, T z, T* out) {
    using S = scalar<T>;
    out[0] = T(S(0.28209479177387814));
    if (degree < 1) return;
    S k1 = S(0.48860251190292);
    out[1] = y * (-k1), out[2] = z * k1, out[3] = x * (-k1);
    if (degree < 2) return;
    S k2 = S(1.092548430592079);
    T zz = z * z, c1 = x * x - y * y, s1 = x * y * S(2);
    out[4] = x * y * k2, out[5] = y * z * (-k2), out[6] = zz * S(0.9461746957575601) - S(0.3153915652525201);
    out[7] = x * z * (-k2), out[8] = c1 * S(0.5462742152960396);
    if (degree < 3) return;
    T c2 = x * c1 - y * s1, s2 = x * s1 + y * c1;
    T bracket = zz * S(-2.285228997322329) + S(0.4570457994644658);
    T third = z * (zz * S(1.865881662950577) - S(1.119528997770346));
    out[9] = s2 * S(-0.5900435899266435), out[10] = z * s1 * S(1.445305721320277), out[11] = bracket * y;
    out[12] = third, out[13] = bracket * x, out[14] = z * c1 * S(1.445305721320277), out[15] = c2 * S(-0.5900435899266435);
    if (degree < 4) return;
    T c3 = x * c2 - y * s2, s3 = x * s2 + y * c2;
    T inner = zz * S(3.31161143515146) - S(0.47308734787878);
    T outer = z * (zz * S(-4.683325804901025) + S(2.007139630671868));
    out[16] = s3 * S(0.6258357354491763), out[17] = z * s2 * S(-1.770130769779931), out[18] = inner * s1;
    out[19] = outer * y;
    out[20] = z * third * S(1.984313483298443) - (zz * S(0.9461746957575601) - S(0.3153915652525201)) * S(1.006230589874905);
    out[21] = outer * x, out[22] = inner * c1, out[23] = z * c2 * S(-1.770130769779931), out[24] = c3 * S(0.6258357354491763);
}

// v[0..3) = sum_k weight_k dY_k/d(x, y, z), the polynomials taken as functions of three free variables.
template <class T> SPLAT_HD void sh_basis_vjp(int degree, T x, T y, T z, const T* weight, T* v) {
    using S = scalar<T>;
    T zero = T(S(0));
    v[0] = v[1] = v[2] = zero;
    if (degree < 1) return;
    S k1 = S(0.48860251190292);
    v[0] = weight[3] * (-k1), v[1] = weight[1] * (-k1), v[2] = weight[2] * k1;
    if (degree < 2) return;
    S k2 = S(1.092548430592079);
    T v_c1 = weight[8] * S(0.5462742152960396), v_s1 = weight[4] * (k2 * S(0.5));  // xy = s1 / 2
    T v_zz = weight[6] * S(0.9461746957575601);
    v[0] = v[0] - weight[7] * z * k2, v[1] = v[1] - weight[5] * z * k2;
    v[2] = v[2] - (weight[7] * x + weight[5] * y) * k2;
    T v_c2 = zero, v_s2 = zero;
    T zz = z * z, c1 = x * x - y * y, s1 = x * y * S(2);
    if (degree >= 3) {
        T bracket = zz * S(-2.285228997322329) + S(0.4570457994644658);
        T along = weight[13] * x + weight[11] * y;
        v_zz = v_zz + along * S(-2.285228997322329);
        v[0] = v[0] + weight[13] * bracket, v[1] = v[1] + weight[11] * bracket;
        v[2] = v[2] + weight[12] * (zz * S(3 * 1.865881662950577) - S(1.119528997770346))
            + (weight[10] * s1 + weight[14] * c1) * S(1.445305721320277);
        v_s1 = v_s1 + weight[10] * z * S(1.445305721320277), v_c1 = v_c1 + weight[14] * z * S(1.445305721320277);
        v_s2 = weight[9] * S(-0.5900435899266435), v_c2 = weight[15] * S(-0.5900435899266435);
        T c2 = x * c1 - y * s1, s2 = x * s1 + y * c1;
        if (degree >= 4) {
            T inner = zz * S(3.31161143515146) - S(0.47308734787878);
            T outer = z * (zz * S(-4.683325804901025) + S(2.007139630671868));
            T cross = weight[21] * x + weight[19] * y, flat = weight[18] * s1 + weight[22] * c1;
            v_zz = v_zz + flat * S(3.31161143515146) - weight[20] * S(1.006230589874905 * 0.9461746957575601);
            v[0] = v[0] + weight[21] * outer, v[1] = v[1] + weight[19] * outer;
            v[2] = v[2] + cross * (zz * S(3 * -4.683325804901025) + S(2.007139630671868))
                + weight[20] * z * (zz * S(4 * 1.865881662950577) - S(2 * 1.119528997770346)) * S(1.984313483298443)
                - (weight[17] * s2 + weight[23] * c2) * S(1.770130769779931);
            v_s1 = v_s1 + weight[18] * inner, v_c1 = v_c1 + weight[22] * inner;
            v_s2 = v_s2 - weight[17] * z * S(1.770130769779931), v_c2 = v_c2 - weight[23] * z * S(1.770130769779931);
            T v_c3 = weight[24] * S(0.6258357354491763), v_s3 = weight[16] * S(0.6258357354491763);
            v[0] = v[0] + v_c3 * c2 + v_s3 * s2, v[1] = v[1] - v_c3 * s2 + v_s3 * c2;
            v_c2 = v_c2 + v_c3 * x + v_s3 * y, v_s2 = v_s2 - v_c3 * y + v_s3 * x;
        }
        v[0] = v[0] + v_c2 * c1 + v_s2 * s1, v[1] = v[1] - v_c2 * s1 + v_s2 * c1;
        v_c1 = v_c1 + v_c2 * x + v_s2 * y, v_s1 = v_s1 - v_c2 * y + v_s2 * x;
    }
    v[0] = v[0] + (v_c1 * x + v_s1 * y) * S(2), v[1] = v[1] + (v_s1 * x - v_c1 * y) * S(2);
    v[2] = v[2] + v_zz * z * S(2);
}

// The unit direction from the camera to the mean; zero at the camera itself, with inverse length 0 (so no gradient).
template <class T, class S = scalar<T>>
SPLAT_HD T view_direction(const Camera<S>& cam, const T mean[3], T d[3]) {
    T norm2 = T(S(0));
    for (int i = 0; i < 3; ++i) d[i] = mean[i] - cam.centre[i], norm2 = norm2 + d[i] * d[i];
    auto apart = norm2 > T(S(0));
    T inverse = select(apart, T(S(1)) / square_root(select(apart, norm2, T(S(1)))), T(S(0)));
    for (int i = 0; i < 3; ++i) d[i] = d[i] * inverse;
    return inverse;
}

// From the gradient of the unit direction to that of the mean (the camera centre gets its negative).
template <class T> SPLAT_HD void view_direction_vjp(const T d[3], T inverse, const T v_d[3], T v_mean[3]) {
    T along = v_d[0] * d[0] + v_d[1] * d[1] + v_d[2] * d[2];
    for (int i = 0; i < 3; ++i) v_mean[i] = (v_d[i] - along * d[i]) * inverse;
}

// The camera centre is -W^-1 t: adds what a gradient of the centre gives to W [9] and t [3].
template <class S> SPLAT_HD void centre_vjp(const Camera<S>& cam, const S v_centre[3], S v_w[9], S v_t[3]) {
    if (v_centre[0] == S(0) && v_centre[1] == S(0) && v_centre[2] == S(0)) return;  // W may be singular, or NaN
    for (int i = 0; i < 3; ++i) {
        S back = cam.inverse[i] * v_centre[0] + cam.inverse[3 + i] * v_centre[1] + cam.inverse[6 + i] * v_centre[2];
        v_t[i] -= back;
        for (int j = 0; j < 3; ++j) v_w[3 * i + j] -= back * cam.centre[j];
    }
}

}  // namespace splat
