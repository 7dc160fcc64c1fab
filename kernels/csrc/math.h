// The mathematics of differentiable Gaussian splatting, written once for every backend.
//
// Every function is a template over a value type T: float or double (one Gaussian), or a bundle of
// lanes (16 Gaussians at once, cpu/lanes.h), and compiles for host and device. S is the scalar type
// underneath. Branches are written with select(), so that bundles follow both sides.
//
// Conventions: OpenCV camera (x right, y down, z forward), viewmat = world to camera [W|t], row-major;
// the centre of pixel (column i, row j) is (i + 0.5, j + 0.5); quaternions are (w, x, y, z), normalised
// here; scales and opacities are linear.
//
// A projected Gaussian is a "splat": mean (x, y), factor U = [[u11, u12], [0, u22]] of the inverse
// covariance (U^T U = C^-1), opacity, tau = ln(255 opacity), depth. With (u, v) = U (pixel - mean),
// sigma = (u^2 + v^2) / 2: a sum of squares, so it cannot turn negative by rounding, and for the
// needle-like splats where a x^2 + 2 b x y + c y^2 cancels, it does not.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define SPLAT_HD __host__ __device__ __forceinline__
#else
#define SPLAT_HD inline __attribute__((always_inline))
#endif

namespace splat {

// ---- scalars -----------------------------------------------------------------------------------
SPLAT_HD bool both(bool a, bool b) { return a && b; }
SPLAT_HD bool negate(bool a) { return !a; }
template <class T> SPLAT_HD T select(bool mask, T yes, T no) { return mask ? yes : no; }
SPLAT_HD float square_root(float x) { return sqrtf(x); }
SPLAT_HD double square_root(double x) { return ::sqrt(x); }
SPLAT_HD float logarithm(float x) { return logf(x); }
SPLAT_HD double logarithm(double x) { return ::log(x); }
SPLAT_HD float ceiling(float x) { return ceilf(x); }
SPLAT_HD double ceiling(double x) { return ::ceil(x); }
SPLAT_HD bool is_finite(float x) { return x - x == 0.0f; }
SPLAT_HD bool is_finite(double x) { return x - x == 0.0; }
template <class T> SPLAT_HD T larger(T a, T b) { return select(a > b, a, b); }
template <class T> SPLAT_HD T smaller(T a, T b) { return select(a < b, a, b); }
template <class S> SPLAT_HD void swap_values(S& a, S& b) { S c = a; a = b, b = c; }

// The scalar type under a value type.
template <class T> struct scalar_of { using type = T; };
template <class T> using scalar = typename scalar_of<T>::type;

// ---- options -----------------------------------------------------------------------------------
template <class S> struct Lens {
    S eps;        // low-pass added to both variances, pixels^2
    S near_z;     // cull unless near_z < z < far_z
    S far_z;
    int width;    // pixels
    int height;
    bool antialiased;  // opacity times sqrt(det C0 / det C)
    bool graphdeco;    // the original implementation's extent: a square of 3 sigma, symmetric frustum clamp
};

constexpr double compensation_floor = 0.005;
constexpr double transmittance_stop = 1e-4 * (1 + 1e-6);  // two hits at alpha 0.99 leave 1e-4: they end a pixel however they round
constexpr double alpha_cut = 1.0 / 255.0;

template <class S> struct Camera {
    S w[9], t[3];        // world to camera
    S inverse[9];        // of w
    S centre[3];         // -inverse t
    S fx, fy, cx, cy;
    S low_x, high_x, low_y, high_y;  // limits of x/z and y/z inside the Jacobian
};

// viewmat [4,4] row-major, K [3,3] row-major. A singular rotation gives non-finite values: every Gaussian is then culled.
template <class S>
SPLAT_HD Camera<S> load_camera(const S* viewmat, const S* k, const Lens<S>& lens) {
    Camera<S> c;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) c.w[3 * i + j] = viewmat[4 * i + j];
        c.t[i] = viewmat[4 * i + 3];
    }
    const S* w = c.w;
    S minors[9] = {w[4] * w[8] - w[5] * w[7], w[2] * w[7] - w[1] * w[8], w[1] * w[5] - w[2] * w[4],
                   w[5] * w[6] - w[3] * w[8], w[0] * w[8] - w[2] * w[6], w[2] * w[3] - w[0] * w[5],
                   w[3] * w[7] - w[4] * w[6], w[1] * w[6] - w[0] * w[7], w[0] * w[4] - w[1] * w[3]};
    S determinant = w[0] * minors[0] + w[1] * minors[3] + w[2] * minors[6];
    for (int i = 0; i < 9; ++i) c.inverse[i] = minors[i] / determinant;
    for (int i = 0; i < 3; ++i)
        c.centre[i] = -(c.inverse[3 * i] * c.t[0] + c.inverse[3 * i + 1] * c.t[1] + c.inverse[3 * i + 2] * c.t[2]);
    c.fx = k[0], c.fy = k[4], c.cx = k[2], c.cy = k[5];
    S width = S(lens.width), height = S(lens.height);
    if (lens.graphdeco) {
        c.high_x = S(0.65) * width / c.fx, c.low_x = -c.high_x;
        c.high_y = S(0.65) * height / c.fy, c.low_y = -c.high_y;
    } else {
        S margin_x = S(0.15) * width / c.fx, margin_y = S(0.15) * height / c.fy;
        c.high_x = (width - c.cx) / c.fx + margin_x, c.low_x = -(c.cx / c.fx + margin_x);
        c.high_y = (height - c.cy) / c.fy + margin_y, c.low_y = -(c.cy / c.fy + margin_y);
    }
    if (c.low_x > c.high_x) swap_values(c.low_x, c.high_x);  // mirrored: a negative focal length
    if (c.low_y > c.high_y) swap_values(c.low_y, c.high_y);
    return c;
}

// ---- rotation ----------------------------------------------------------------------------------
template <class T> struct Rotation {
    T unit[4];        // (w, x, y, z) of length 1
    T inverse_norm;   // 0 for the zero quaternion, which is defined as the identity with zero gradient
    T r[9];
};

template <class T> SPLAT_HD Rotation<T> rotation(const T q[4]) {
    using S = scalar<T>;
    Rotation<T> o;
    T norm2 = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3];
    auto given = norm2 > T(S(0));
    o.inverse_norm = select(given, T(S(1)) / square_root(select(given, norm2, T(S(1)))), T(S(0)));
    for (int i = 0; i < 4; ++i) o.unit[i] = q[i] * o.inverse_norm;
    o.unit[0] = select(given, o.unit[0], T(S(1)));
    T w = o.unit[0], x = o.unit[1], y = o.unit[2], z = o.unit[3], one = T(S(1)), two = T(S(2));
    o.r[0] = one - two * (y * y + z * z), o.r[1] = two * (x * y - w * z), o.r[2] = two * (x * z + w * y);
    o.r[3] = two * (x * y + w * z), o.r[4] = one - two * (x * x + z * z), o.r[5] = two * (y * z - w * x);
    o.r[6] = two * (x * z - w * y), o.r[7] = two * (y * z + w * x), o.r[8] = one - two * (x * x + y * y);
    return o;
}

// From the gradient of M = R diag(s) to those of the quaternion (as given, not normalised) and of the scales.
template <class T>
SPLAT_HD void rotation_scale_vjp(const Rotation<T>& o, const T s[3], const T v_m[9], T v_quat[4], T v_scale[3]) {
    using S = scalar<T>;
    for (int j = 0; j < 3; ++j) v_scale[j] = o.r[j] * v_m[j] + o.r[3 + j] * v_m[3 + j] + o.r[6 + j] * v_m[6 + j];
    T h[9];
    for (int i = 0; i < 9; ++i) h[i] = v_m[i] * s[i % 3];
    T w = o.unit[0], x = o.unit[1], y = o.unit[2], z = o.unit[3], two = T(S(2));
    T d21 = h[7] - h[5], d02 = h[2] - h[6], d10 = h[3] - h[1];
    T p10 = h[3] + h[1], p20 = h[6] + h[2], p21 = h[7] + h[5];
    T g[4] = {two * (x * d21 + y * d02 + z * d10),
              two * (y * p10 + z * p20 + w * d21 - two * x * (h[4] + h[8])),
              two * (x * p10 + z * p21 + w * d02 - two * y * (h[0] + h[8])),
              two * (x * p20 + y * p21 + w * d10 - two * z * (h[0] + h[4]))};
    T along = g[0] * w + g[1] * x + g[2] * y + g[3] * z;
    for (int i = 0; i < 4; ++i) v_quat[i] = (g[i] - along * o.unit[i]) * o.inverse_norm;
}

// ---- projection --------------------------------------------------------------------------------
// What projection and its derivative both need.
template <class T> struct View {
    T p[3];           // mean in camera space
    T inverse_z;
    T ratio[2];       // x/z, y/z clamped to the limits of the camera
    T wm[9];          // W R diag(s)
    T row0[3], row1[3];  // J W R diag(s): the 2x3 root of the covariance
    T c00, c01, c11;  // covariance with the low-pass
    T det0, det;      // without and with the low-pass
};

template <class T, class S = scalar<T>>
SPLAT_HD View<T> look(const Camera<S>& cam, const Lens<S>& lens, const T mean[3], const T r[9], const T s[3]) {
    View<T> o;
    for (int i = 0; i < 3; ++i)
        o.p[i] = mean[0] * cam.w[3 * i] + mean[1] * cam.w[3 * i + 1] + mean[2] * cam.w[3 * i + 2] + cam.t[i];
    auto ahead = both(o.p[2] > T(lens.near_z), o.p[2] < T(lens.far_z));
    T z = select(ahead, o.p[2], T(S(1)));
    o.inverse_z = T(S(1)) / z;
    o.ratio[0] = smaller(larger(o.p[0] * o.inverse_z, T(cam.low_x)), T(cam.high_x));
    o.ratio[1] = smaller(larger(o.p[1] * o.inverse_z, T(cam.low_y)), T(cam.high_y));
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            o.wm[3 * i + j] = (r[j] * cam.w[3 * i] + r[3 + j] * cam.w[3 * i + 1] + r[6 + j] * cam.w[3 * i + 2]) * s[j];
    for (int j = 0; j < 3; ++j) {
        o.row0[j] = (o.wm[j] - o.ratio[0] * o.wm[6 + j]) * o.inverse_z * cam.fx;
        o.row1[j] = (o.wm[3 + j] - o.ratio[1] * o.wm[6 + j]) * o.inverse_z * cam.fy;
    }
    T* a = o.row0;
    T* b = o.row1;
    T q00 = a[0] * a[0] + a[1] * a[1] + a[2] * a[2], q11 = b[0] * b[0] + b[1] * b[1] + b[2] * b[2];
    o.c01 = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    T n0 = a[1] * b[2] - a[2] * b[1], n1 = a[2] * b[0] - a[0] * b[2], n2 = a[0] * b[1] - a[1] * b[0];
    o.det0 = n0 * n0 + n1 * n1 + n2 * n2;  // |row0 x row1|^2: nothing cancels
    o.det = o.det0 + (q00 + q11) * lens.eps + lens.eps * lens.eps;
    o.c00 = q00 + lens.eps, o.c11 = q11 + lens.eps;
    return o;
}

template <class T> struct Splat {
    T x, y;              // pixels
    T u11, u12, u22;     // U^T U = C^-1
    T opacity;
    T tau;               // ln(255 opacity): contributes where sigma <= tau; negative: contributes nowhere
    T depth;             // camera z
    T half_x, half_y;    // half extents of the ellipse sigma = tau, pixels; 0 when culled
};

// Project one Gaussian. Culled ones (behind near, beyond far, off the image, fainter than 1/255, not finite) get
// tau = -1 and no extent; those outside near and far or not finite are all zero besides.
template <class T, class S = scalar<T>>
SPLAT_HD Splat<T> project(const Camera<S>& cam, const Lens<S>& lens, const T mean[3], const T quat[4], const T scale[3],
                          T opacity) {
    Rotation<T> turn = rotation(quat);
    View<T> v = look<T>(cam, lens, mean, turn.r, scale);
    T zero = T(S(0)), one = T(S(1));
    Splat<T> o;
    o.x = v.p[0] * v.inverse_z * cam.fx + cam.cx;
    o.y = v.p[1] * v.inverse_z * cam.fy + cam.cy;
    T root11 = square_root(v.c11), inverse_root = one / square_root(v.det);
    o.u22 = one / root11;
    o.u11 = root11 * inverse_root;
    o.u12 = zero - v.c01 * o.u22 * inverse_root;
    o.opacity = opacity;
    if (lens.antialiased)
        o.opacity = opacity * larger(square_root(v.det0) * inverse_root, T(S(compensation_floor)));
    o.depth = v.p[2];
    T sum = o.x + o.y + o.u11 + o.u12 + o.u22 + o.opacity + scale[0] + scale[1] + scale[2];
    auto sound = both(both(v.p[2] > T(lens.near_z), v.p[2] < T(lens.far_z)), is_finite(sum));
    auto seen = both(sound, o.opacity >= T(S(alpha_cut)));
    o.tau = logarithm(select(seen, o.opacity, one) * S(255));
    if (lens.graphdeco) {  // ceil(3 sqrt(largest eigenvalue)), whatever the opacity
        T mid = (v.c00 + v.c11) * S(0.5), spread = mid * mid - v.det;
        T radius = square_root(mid + square_root(larger(spread, T(S(0.1))))) * S(3);
        o.half_x = o.half_y = ceiling(radius);
    } else {
        T k = o.tau * S(2);
        o.half_x = square_root(k * v.c00), o.half_y = square_root(k * v.c11);
    }
    seen = both(seen, both(o.x + o.half_x >= zero, o.x - o.half_x <= T(S(lens.width))));
    seen = both(seen, both(o.y + o.half_y >= zero, o.y - o.half_y <= T(S(lens.height))));
    seen = both(seen, is_finite(o.half_x + o.half_y));
    o.tau = select(seen, o.tau, T(S(-1)));
    o.half_x = select(seen, o.half_x, zero), o.half_y = select(seen, o.half_y, zero);
    T* fields[] = {&o.x, &o.y, &o.u11, &o.u12, &o.u22, &o.opacity, &o.depth};
    for (T* field : fields) *field = select(sound, *field, zero);
    return o;
}

// Gradients of one view, to be summed over views where a quantity is shared.
template <class T> struct ViewGradient {
    T mean[3];
    T m[9];        // of R diag(s)
    T opacity;
    T w[9], t[3];  // of the camera's rotation and translation
    T fx, fy, cx, cy;
};

// The derivative of project(). `g` holds the gradients of the splat's x, y, u11, u12, u22, opacity and depth; `mask` says
// where the Gaussian was seen. With `camera` the gradients of the pose and of K are filled in too, else left alone.
template <class T, class S, class M>
SPLAT_HD void project_vjp(const Camera<S>& cam, const Lens<S>& lens, const T mean[3], const Rotation<T>& turn, const T scale[3],
                          T opacity, const Splat<T>& g, M mask, bool camera, ViewGradient<T>& out) {
    View<T> v = look<T>(cam, lens, mean, turn.r, scale);
    T zero = T(S(0)), one = T(S(1)), half = T(S(0.5));
    T inverse_det = one / v.det, root11 = square_root(v.c11), inverse_root = square_root(inverse_det);
    T u22 = one / root11, u11 = root11 * inverse_root, u12 = zero - v.c01 * u22 * inverse_root;
    // moments of the cotangent of sigma in whitened coordinates: sum of v_sigma times (uu, uv, vv)
    T suu = u11 * g.u11 + u12 * g.u12, suv = u22 * g.u12, svv = u22 * g.u22;
    // gradient of the covariance, symmetric matrix G: -1/2 sum v_sigma (C^-1 d)(C^-1 d)^T, C^-1 d = (u11 u, u12 u + u22 v)
    T g00 = zero - half * u11 * u11 * suu;
    T g01 = zero - half * u11 * (u12 * suu + u22 * suv);
    T g11 = zero - half * (u12 * u12 * suu + u12 * u22 * suv * S(2) + u22 * u22 * svv);
    out.opacity = g.opacity;
    if (lens.antialiased) {
        T ratio = square_root(v.det0) * inverse_root, floor = T(S(compensation_floor));
        T rho = larger(ratio, floor);
        out.opacity = g.opacity * rho;
        // d rho / dC = ((1 - rho^2) C^-1 - eps det(C^-1) I) / (2 rho)
        T v_rho = select(ratio > floor, opacity * g.opacity / (rho * S(2)), zero);
        T rest = one - rho * rho, low = inverse_det * lens.eps;
        g00 = g00 + v_rho * (rest * v.c11 * inverse_det - low);
        g11 = g11 + v_rho * (rest * v.c00 * inverse_det - low);
        g01 = g01 - v_rho * (rest * v.c01 * inverse_det);
    }
    // C0 = N N^T with the rows of N: v_N = 2 G N
    T n0[3], n1[3];
    for (int j = 0; j < 3; ++j) {
        n0[j] = (g00 * v.row0[j] + g01 * v.row1[j]) * S(2);
        n1[j] = (g01 * v.row0[j] + g11 * v.row1[j]) * S(2);
    }
    // N = J WM, J = [fx/z, 0, -fx rx/z; 0, fy/z, -fy ry/z]
    T jx = v.inverse_z * cam.fx, jy = v.inverse_z * cam.fy;
    T v_wm[9];
    T j00 = zero, j02 = zero, j11 = zero, j12 = zero;
    for (int j = 0; j < 3; ++j) {
        v_wm[j] = jx * n0[j], v_wm[3 + j] = jy * n1[j];
        v_wm[6 + j] = zero - (v.ratio[0] * v_wm[j] + v.ratio[1] * v_wm[3 + j]);
        j00 = j00 + n0[j] * v.wm[j], j02 = j02 + n0[j] * v.wm[6 + j];
        j11 = j11 + n1[j] * v.wm[3 + j], j12 = j12 + n1[j] * v.wm[6 + j];
    }
    T rx = v.p[0] * v.inverse_z, ry = v.p[1] * v.inverse_z;
    auto low_x = rx < T(cam.low_x), high_x = rx > T(cam.high_x), low_y = ry < T(cam.low_y), high_y = ry > T(cam.high_y);
    T v_rx = zero - jx * j02, v_ry = zero - jy * j12;  // of the clamped ratios
    T in_x = select(low_x, zero, select(high_x, zero, v_rx)), in_y = select(low_y, zero, select(high_y, zero, v_ry));
    T v_px = g.x * cam.fx + in_x, v_py = g.y * cam.fy + in_y;  // of x/z and y/z
    T v_p[3];
    v_p[0] = v_px * v.inverse_z, v_p[1] = v_py * v.inverse_z;
    v_p[2] = g.depth - (v_px * rx + v_py * ry) * v.inverse_z
        - (jx * (j00 - v.ratio[0] * j02) + jy * (j11 - v.ratio[1] * j12)) * v.inverse_z;
    for (int i = 0; i < 3; ++i) v_p[i] = select(mask, v_p[i], zero);
    for (int i = 0; i < 9; ++i) v_wm[i] = select(mask, v_wm[i], zero);
    out.opacity = select(mask, out.opacity, zero);
    for (int j = 0; j < 3; ++j) {
        out.mean[j] = v_p[0] * cam.w[j] + v_p[1] * cam.w[3 + j] + v_p[2] * cam.w[6 + j];
        for (int i = 0; i < 3; ++i)
            out.m[3 * i + j] = v_wm[j] * cam.w[i] + v_wm[3 + j] * cam.w[3 + i] + v_wm[6 + j] * cam.w[6 + i];
    }
    if (!camera) return;
    for (int i = 0; i < 3; ++i) {
        out.t[i] = v_p[i];
        for (int j = 0; j < 3; ++j) {
            T sum = v_p[i] * mean[j];
            for (int k = 0; k < 3; ++k) sum = sum + v_wm[3 * i + k] * turn.r[3 * j + k] * scale[k];
            out.w[3 * i + j] = select(mask, sum, zero);  // where there is nothing to see, the parameters may be NaN
        }
    }
    // the limits of the clamp depend on K: high = (1.15 width - cx) / fx, low = -(cx + 0.15 width) / fx; symmetric ones on f alone
    T at_x = select(high_x, T(cam.high_x), select(low_x, T(cam.low_x), zero));
    T at_y = select(high_y, T(cam.high_y), select(low_y, T(cam.low_y), zero));
    T out_x = v_rx - in_x, out_y = v_ry - in_y;
    T v_fx = g.x * rx + (j00 - v.ratio[0] * j02) * v.inverse_z - out_x * at_x * (S(1) / cam.fx);
    T v_fy = g.y * ry + (j11 - v.ratio[1] * j12) * v.inverse_z - out_y * at_y * (S(1) / cam.fy);
    T v_cx = g.x, v_cy = g.y;
    if (!lens.graphdeco) v_cx = v_cx - out_x * (S(1) / cam.fx), v_cy = v_cy - out_y * (S(1) / cam.fy);
    out.fx = select(mask, v_fx, zero), out.fy = select(mask, v_fy, zero);
    out.cx = select(mask, v_cx, zero), out.cy = select(mask, v_cy, zero);
}

}  // namespace splat
