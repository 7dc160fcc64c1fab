// Projection and colour of 16 Gaussians at a time, and their derivatives. Gradients of a Gaussian are summed over views
// inside one iteration and those of a camera over fixed pieces of the scene, so no result depends on the number of threads.
#include <vector>

#include "tiles.h"

namespace splat {
namespace {

constexpr int64_t piece = 4096;  // Gaussians whose camera gradients are summed together

struct Gaussians {
    Value mean[3], quat[4], scale[3], opacity;
};

inline Gaussians load(const real* means, const real* quats, const real* scales, const real* opacities, int64_t i, int64_t n) {
    Gaussians g;
    gather_rows<3>(means, 3, i, n, g.mean);
    gather_rows<4>(quats, 4, i, n, g.quat);
    gather_rows<3>(scales, 3, i, n, g.scale);
    gather_rows<1>(opacities, 1, i, n, &g.opacity);
    return g;
}

// sh [rows, K, 3]: coefficient k of 16 Gaussians, three channels.
inline void gather_sh(const real* sh, int64_t coefficients, int k, int64_t i, int64_t n, Value c[3]) {
    gather_rows<3>(sh + 3 * k, 3 * coefficients, i, n, c);
}

// Returns the sum of the colours, which is not finite when one of them is not.
inline Value shade(const SplatOptions* o, const Camera<real>& cam, const Value mean[3], const real* sh, int64_t i, int64_t n,
                   Value color[3]) {
    Value d[3], basis[sh_count(4)];
    view_direction(cam, mean, d);
    sh_basis(o->sh_degree, d[0], d[1], d[2], basis);
    for (int ch = 0; ch < 3; ++ch) color[ch] = Value(real(0.5));
    for (int k = 0; k < sh_count(o->sh_degree); ++k) {
        Value c[3];
        gather_sh(sh, o->sh_coefficients, k, i, n, c);
        for (int ch = 0; ch < 3; ++ch) color[ch] = color[ch] + basis[k] * c[ch];
    }
    Value sum = color[0] + color[1] + color[2], zero(real(0));
    for (int ch = 0; ch < 3; ++ch) color[ch] = select(color[ch] < zero, zero, color[ch]);  // keeps what is not a number
    return sum;
}

// From colours and their gradients: adds to v_sh rows; v_direction is the mean's gradient, and what the camera centre gets
// with the opposite sign. A colour of 0 was cut off, or belongs to a Gaussian that is not there, and has no gradient.
inline void shade_vjp(const SplatOptions* o, const Camera<real>& cam, const Value mean[3], const real* sh, int64_t i, int64_t n,
                      const Value color[3], const Value v_color[3], Value* v_sh, Value v_direction[3]) {
    Value d[3], basis[sh_count(4)], weight[sh_count(4)], v_d[3], v[3], zero(real(0));
    for (int ch = 0; ch < 3; ++ch) v[ch] = select(color[ch] > zero, v_color[ch], zero);
    auto lit = color[0] + color[1] + color[2] > zero;
    Value inverse = view_direction(cam, mean, d);
    sh_basis(o->sh_degree, d[0], d[1], d[2], basis);
    for (int k = 0; k < sh_count(o->sh_degree); ++k) {
        Value c[3];
        gather_sh(sh, o->sh_coefficients, k, i, n, c);
        weight[k] = c[0] * v[0] + c[1] * v[1] + c[2] * v[2];
        for (int ch = 0; ch < 3; ++ch) v_sh[3 * k + ch] = v_sh[3 * k + ch] + select(lit, basis[k] * v[ch], zero);
    }
    sh_basis_vjp(o->sh_degree, d[0], d[1], d[2], weight, v_d);
    view_direction_vjp(d, inverse, v_d, v_direction);
    for (int j = 0; j < 3; ++j) v_direction[j] = select(lit, v_direction[j], zero);
}

inline void store_sh(const SplatOptions* o, const Value* v_sh, real* to, int64_t i, int64_t n) {
    int used = sh_count(o->sh_degree);
    for (int k = 0; k < o->sh_coefficients; ++k) {
        Value row[3] = {Value(real(0)), Value(real(0)), Value(real(0))};
        if (k < used) std::copy(v_sh + 3 * k, v_sh + 3 * k + 3, row);
        scatter_rows<3>(row, to + 3 * k, 3 * int64_t(o->sh_coefficients), i, n);
    }
}

// 12 sums of a camera's pose (w, t), 3 of its centre, 4 of K.
struct CameraSums {
    double pose[12] = {}, centre[3] = {}, k[4] = {};
    void add(const CameraSums& other) {
        for (int i = 0; i < 12; ++i) pose[i] += other.pose[i];
        for (int i = 0; i < 3; ++i) centre[i] += other.centre[i];
        for (int i = 0; i < 4; ++i) k[i] += other.k[i];
    }
};

// A gradient of lanes past the end of the scene must not count.
inline double sum_first(Value v, int64_t lanes) {
    if (lanes >= lane_count) return double(total(v));
    double sum = 0;
    for (int lane = 0; lane < lanes; ++lane) sum += double(v[lane]);
    return sum;
}

void add_projection(CameraSums& sums, const ViewGradient<Value>& g, int64_t lanes) {
    for (int i = 0; i < 9; ++i) sums.pose[4 * (i / 3) + i % 3] += sum_first(g.w[i], lanes);
    for (int i = 0; i < 3; ++i) sums.pose[4 * i + 3] += sum_first(g.t[i], lanes);
    const Value* k[] = {&g.fx, &g.fy, &g.cx, &g.cy};
    for (int i = 0; i < 4; ++i) sums.k[i] += sum_first(*k[i], lanes);
}

void write_camera(const Camera<real>& cam, const CameraSums& sums, real* v_viewmat, real* v_k) {
    real w[9], t[3], centre[3];
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) w[3 * i + j] = real(sums.pose[4 * i + j]);
        t[i] = real(sums.pose[4 * i + 3]);
        centre[i] = real(sums.centre[i]);
    }
    centre_vjp(cam, centre, w, t);
    std::fill(v_viewmat, v_viewmat + 16, real(0));
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) v_viewmat[4 * i + j] = w[3 * i + j];
        v_viewmat[4 * i + 3] = t[i];
    }
    if (!v_k) return;
    std::fill(v_k, v_k + 9, real(0));
    v_k[0] = real(sums.k[0]), v_k[4] = real(sums.k[1]), v_k[2] = real(sums.k[2]), v_k[5] = real(sums.k[3]);
}

std::vector<Camera<real>> load_cameras(const SplatOptions* o, const real* viewmats, const real* ks) {
    std::vector<Camera<real>> cameras(size_t(o->scenes * o->views));
    const real unit[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    for (size_t i = 0; i < cameras.size(); ++i)
        cameras[i] = load_camera(viewmats + 16 * i, ks ? ks + 9 * i : unit, lens_of(o));
    return cameras;
}

// Runs body(scene, first, last) over pieces of every scene.
template <class Body> void over_pieces(const SplatOptions* o, Body body) {
    int64_t pieces = (o->gaussians + piece - 1) / piece;
#pragma omp parallel for schedule(dynamic, 1) num_threads(thread_count(o))
    for (int64_t p = 0; p < o->scenes * pieces; ++p)
        body(p / pieces, p % pieces * piece, std::min((p % pieces + 1) * piece, o->gaussians));
}

struct Counts { int64_t entries = 0, not_finite = 0; };

// One view of 16 Gaussians from i on, of which the scene has `exist`.
Counts project_bundle(const SplatOptions* o, const Camera<real>& cam, const Gaussians& g, int64_t i, int64_t exist,
                      const real* sh, real* splats, real* extents, int32_t* tiles, real* colors) {
    Lens<real> lens = lens_of(o);
    Splat<Value> s = project(cam, lens, g.mean, g.quat, g.scale, g.opacity);
    Value sum = g.opacity;
    for (int j = 0; j < 3; ++j) sum = sum + g.mean[j] + g.quat[j] + g.scale[j];
    sum = sum + g.quat[3];
    Value color[3];
    if (sh) sum = sum + shade(o, cam, g.mean, sh, i, o->gaussians, color);
    Value z = g.mean[0] * cam.w[6] + g.mean[1] * cam.w[7] + g.mean[2] * cam.w[8] + cam.t[2];
    uint32_t outside = bits(z <= Value(lens.near_z)) | bits(z >= Value(lens.far_z));
    uint32_t projected = bits(s.u22 > Value(real(0)));  // else project() dropped it: a value was not finite, or became so
    uint32_t sound = bits(is_finite(sum)) & (projected | outside);
    int64_t rows = std::min<int64_t>(lane_count, o->gaussians - i);
    uint32_t present = exist <= i ? 0u : (exist - i >= lane_count ? 0xffffu : (1u << (exist - i)) - 1u);
    uint32_t kept = sound & present;
    if (kept != 0xffffu) {  // rare: blank the rows that are not there or not finite
        Value* fields[] = {&s.x, &s.y, &s.u11, &s.u12, &s.u22, &s.opacity, &s.tau, &s.depth, &s.half_x, &s.half_y};
        for (int lane = 0; lane < lane_count; ++lane) {
            if (kept >> lane & 1) continue;
            for (Value* field : fields) field->set(lane, real(0));
            s.tau.set(lane, real(-1));
            for (int ch = 0; sh && ch < 3; ++ch) color[ch].set(lane, real(0));
        }
    }
    if (sh) scatter_rows<3>(color, colors, 3, i, o->gaussians);
    const Value row[] = {s.x, s.y, s.u11, s.u12, s.u22, s.opacity, s.tau, s.depth}, half[] = {s.half_x, s.half_y};
    scatter_rows<8>(row, splats, SPLAT_FIELDS, i, o->gaussians);
    scatter_rows<2>(half, extents, 2, i, o->gaussians);
    Counts counts;
    uint32_t seen = bits(s.tau >= Value(real(0)));
    for (int lane = 0; lane < rows; ++lane) {
        int32_t count = 0;
        if (seen >> lane & 1) count = count_tiles(o, splats + (i + lane) * SPLAT_FIELDS, extents + (i + lane) * 2);
        tiles[i + lane] = count;
        counts.entries += count;
    }
    counts.not_finite = __builtin_popcount(present & ~sound & ((1u << rows) - 1u));
    return counts;
}

}  // namespace
}  // namespace splat

using namespace splat;

extern "C" int splat_project(const SplatOptions* o, const real* means, const real* quats, const real* scales,
                             const real* opacities, const real* viewmats, const real* ks, const int64_t* counts, const real* sh,
                             real* splats, real* extents, int32_t* tiles, real* colors, int64_t* stats) {
    if (!accepted(o)) return SPLAT_BAD_OPTIONS;
    auto cameras = load_cameras(o, viewmats, ks);
    int64_t n = o->gaussians, entries = 0, not_finite = 0;
    over_pieces(o, [&](int64_t scene, int64_t from, int64_t to) {
        Counts mine;
        int64_t base = scene * n, exist = counts ? counts[scene] : n;
        const real* scene_sh = sh ? sh + base * o->sh_coefficients * 3 : nullptr;
        for (int64_t i = from; i < to; i += lane_count) {
            Gaussians g = load(means + base * 3, quats + base * 4, scales + base * 3, opacities + base, i, n);
            for (int64_t v = scene * o->views; v < (scene + 1) * o->views; ++v) {
                Counts c = project_bundle(o, cameras[size_t(v)], g, i, exist, scene_sh, splats + v * n * SPLAT_FIELDS,
                                          extents + v * n * 2, tiles + v * n, sh ? colors + v * n * 3 : nullptr);
                mine.entries += c.entries, mine.not_finite += c.not_finite;
            }
        }
#pragma omp atomic
        entries += mine.entries;
#pragma omp atomic
        not_finite += mine.not_finite;
    });
    stats[0] = entries, stats[1] = not_finite;
    return SPLAT_OK;
}

namespace splat {
namespace {

struct ProjectInputs {
    const SplatOptions* o;
    const real *means, *quats, *scales, *opacities, *sh, *splats, *colors, *v_splats, *v_colors;
    real *v_means, *v_quats, *v_scales, *v_opacities, *v_sh;
};

// All views of 16 Gaussians; `sums` [V] or null.
void project_bundle_vjp(const ProjectInputs& in, const std::vector<Camera<real>>& cameras, int64_t scene, int64_t i,
                        CameraSums* sums) {
    const SplatOptions* o = in.o;
    Lens<real> lens = lens_of(o);
    int64_t n = o->gaussians, base = scene * n, lanes = std::min<int64_t>(lane_count, n - i);
    Gaussians g = load(in.means + base * 3, in.quats + base * 4, in.scales + base * 3, in.opacities + base, i, n);
    Rotation<Value> turn = rotation(g.quat);
    Value zero(real(0)), v_mean[3], v_m[9], v_opacity = zero, ever_projected = zero, v_sh[3 * sh_count(4)];
    for (auto& x : v_mean) x = zero;
    for (auto& x : v_m) x = zero;
    if (in.sh)
        for (int k = 0; k < 3 * sh_count(o->sh_degree); ++k) v_sh[k] = zero;
    for (int64_t local = 0; local < o->views; ++local) {
        int64_t v = scene * o->views + local;
        const Camera<real>& cam = cameras[size_t(v)];
        Value u22;  // 0 where there is no projection: behind near, beyond far, not finite
        gather_rows<1>(in.splats + v * n * SPLAT_FIELDS + SPLAT_U22, SPLAT_FIELDS, i, n, &u22);
        auto projected = u22 > zero;
        if (bits(projected)) {
            ever_projected = select(projected, Value(real(1)), ever_projected);
            Value row[SPLAT_FIELDS];
            gather_rows<SPLAT_FIELDS>(in.v_splats + v * n * SPLAT_FIELDS, SPLAT_FIELDS, i, n, row);
            Splat<Value> grad{row[0], row[1], row[2], row[3], row[4], row[5], zero, row[SPLAT_Z], zero, zero};
            ViewGradient<Value> out;
            project_vjp(cam, lens, g.mean, turn, g.scale, g.opacity, grad, projected, sums != nullptr, out);
            for (int j = 0; j < 3; ++j) v_mean[j] = v_mean[j] + out.mean[j];
            for (int j = 0; j < 9; ++j) v_m[j] = v_m[j] + out.m[j];
            v_opacity = v_opacity + out.opacity;
            if (sums) add_projection(sums[local], out, lanes);
        }
        if (!in.sh) continue;
        Value v_color[3], color[3], v_direction[3];
        gather_rows<3>(in.colors + v * n * 3, 3, i, n, color);
        gather_rows<3>(in.v_colors + v * n * 3, 3, i, n, v_color);
        shade_vjp(o, cam, g.mean, in.sh + base * o->sh_coefficients * 3, i, n, color, v_color, v_sh, v_direction);
        for (int j = 0; j < 3; ++j) {
            v_mean[j] = v_mean[j] + v_direction[j];
            if (sums) sums[local].centre[j] -= sum_first(v_direction[j], lanes);
        }
    }
    Value v_quat[4], v_scale[3];
    rotation_scale_vjp(turn, g.scale, v_m, v_quat, v_scale);
    auto shown = ever_projected > zero;  // the parameters of others may be NaN, and then their gradients, too
    for (auto& x : v_quat) x = select(shown, x, zero);
    for (auto& x : v_scale) x = select(shown, x, zero);
    scatter_rows<3>(v_mean, in.v_means + base * 3, 3, i, n);
    scatter_rows<4>(v_quat, in.v_quats + base * 4, 4, i, n);
    scatter_rows<3>(v_scale, in.v_scales + base * 3, 3, i, n);
    scatter_rows<1>(&v_opacity, in.v_opacities + base, 1, i, n);
    if (in.sh) store_sh(o, v_sh, in.v_sh + base * o->sh_coefficients * 3, i, n);
}

// body(scene, i, sums of the scene's views or null) for every bundle; then the sums, in the order of the pieces, to the cameras.
template <class Body>
void with_camera_sums(const SplatOptions* o, const std::vector<Camera<real>>& cameras, real* v_viewmats, real* v_ks, Body body) {
    int64_t pieces = (o->gaussians + piece - 1) / piece;
    std::vector<CameraSums> sums(v_viewmats ? size_t(o->scenes * pieces * o->views) : 0);
    over_pieces(o, [&](int64_t scene, int64_t from, int64_t to) {
        CameraSums* mine = v_viewmats ? &sums[size_t((scene * pieces + from / piece) * o->views)] : nullptr;
        for (int64_t i = from; i < to; i += lane_count) body(scene, i, mine);
    });
    if (!v_viewmats) return;
    for (int64_t v = 0; v < o->scenes * o->views; ++v) {
        CameraSums all;
        for (int64_t p = 0; p < pieces; ++p) all.add(sums[size_t((v / o->views * pieces + p) * o->views + v % o->views)]);
        write_camera(cameras[size_t(v)], all, v_viewmats + 16 * v, v_ks ? v_ks + 9 * v : nullptr);
    }
}

}  // namespace
}  // namespace splat

extern "C" int splat_project_backward(const SplatOptions* o, const real* means, const real* quats, const real* scales,
                                      const real* opacities, const real* viewmats, const real* ks, const real* sh,
                                      const real* splats, const real* colors, const real* v_splats, const real* v_colors,
                                      real* v_means, real* v_quats, real* v_scales, real* v_opacities, real* v_sh,
                                      real* v_viewmats, real* v_ks) {
    if (!accepted(o)) return SPLAT_BAD_OPTIONS;
    ProjectInputs in{o, means, quats, scales, opacities, sh, splats, colors, v_splats, v_colors,
                     v_means, v_quats, v_scales, v_opacities, v_sh};
    auto cameras = load_cameras(o, viewmats, ks);
    with_camera_sums(o, cameras, v_viewmats, v_ks, [&](int64_t scene, int64_t i, CameraSums* sums) {
        project_bundle_vjp(in, cameras, scene, i, sums);
    });
    return SPLAT_OK;
}

extern "C" int splat_shade(const SplatOptions* o, const real* means, const real* viewmats, const real* sh, real* colors) {
    if (!accepted(o)) return SPLAT_BAD_OPTIONS;
    auto cameras = load_cameras(o, viewmats, nullptr);
    int64_t n = o->gaussians;
    over_pieces(o, [&](int64_t scene, int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i += lane_count) {
            Value mean[3], color[3];
            gather_rows<3>(means + scene * n * 3, 3, i, n, mean);
            for (int64_t v = scene * o->views; v < (scene + 1) * o->views; ++v) {
                shade(o, cameras[size_t(v)], mean, sh + scene * n * o->sh_coefficients * 3, i, n, color);
                scatter_rows<3>(color, colors + v * n * 3, 3, i, n);
            }
        }
    });
    return SPLAT_OK;
}

extern "C" int splat_shade_backward(const SplatOptions* o, const real* means, const real* viewmats, const real* sh,
                                    const real* colors, const real* v_colors, real* v_means, real* v_viewmats, real* v_sh) {
    if (!accepted(o)) return SPLAT_BAD_OPTIONS;
    auto cameras = load_cameras(o, viewmats, nullptr);
    int64_t n = o->gaussians;
    with_camera_sums(o, cameras, v_viewmats, nullptr, [&](int64_t scene, int64_t i, CameraSums* sums) {
        Value mean[3], v_mean[3], v_rows[3 * sh_count(4)], zero(real(0));
        gather_rows<3>(means + scene * n * 3, 3, i, n, mean);
        for (auto& x : v_mean) x = zero;
        for (int k = 0; k < 3 * sh_count(o->sh_degree); ++k) v_rows[k] = zero;
        for (int64_t local = 0; local < o->views; ++local) {
            int64_t v = scene * o->views + local;
            Value color[3], v_color[3], v_direction[3];
            gather_rows<3>(colors + v * n * 3, 3, i, n, color);
            gather_rows<3>(v_colors + v * n * 3, 3, i, n, v_color);
            shade_vjp(o, cameras[size_t(v)], mean, sh + scene * n * o->sh_coefficients * 3, i, n, color, v_color, v_rows,
                      v_direction);
            for (int j = 0; j < 3; ++j) {
                v_mean[j] = v_mean[j] + v_direction[j];
                if (sums) sums[local].centre[j] -= sum_first(v_direction[j], std::min<int64_t>(lane_count, n - i));
            }
        }
        scatter_rows<3>(v_mean, v_means + scene * n * 3, 3, i, n);
        store_sh(o, v_rows, v_sh + scene * n * o->sh_coefficients * 3, i, n);
    });
    return SPLAT_OK;
}
