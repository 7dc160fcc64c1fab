// The C interface of the splatting kernels: plain pointers, sizes and a stream, no torch.
//
// One shared library per backend and instruction set exports exactly these functions; mixtura_splat/backend.py calls
// them through ctypes. Everything is contiguous and row-major. `real` is float, or double in the float64 library.
// The caller allocates every array (on the GPU for CUDA); a library keeps nothing between calls.
//
// Letters: B scenes, V views of each, N Gaussians of each scene, C feature channels, K coefficients of spherical
// harmonics, H x W pixels, L tiles of a view (ceil(W/16) * ceil(H/16), row by row), M list entries in all.
//
// A call returns 0, or a code that splat_error() turns into one line of text.
#pragma once

#include <stdint.h>

#define SPLAT_ABI 1
#define SPLAT_TILE 16

#ifdef SPLAT_DOUBLE
typedef double real;
#else
typedef float real;
#endif

enum {
    SPLAT_ANTIALIASED = 1,      // opacity * sqrt(det C0 / det C)
    SPLAT_GRAPHDECO = 2,        // extent, clamp and stop rule of the original implementation
    SPLAT_DEPTH = 4,            // composite depth as one more channel
    SPLAT_SHARED_FEATURES = 8,  // features are [B,1,N,C]: the same in every view of a scene
    SPLAT_DETERMINISTIC = 16,   // same bits on every run (the CPU always gives them)
};

enum { SPLAT_OK = 0, SPLAT_BAD_OPTIONS = 1, SPLAT_TOO_MANY_ENTRIES = 2, SPLAT_NO_MEMORY = 3, SPLAT_DEVICE = 100 /* + cudaError_t */ };

typedef struct SplatOptions {
    int32_t abi;                     // SPLAT_ABI
    int32_t real_bytes;              // 4 or 8
    int64_t scenes, views, gaussians;
    int32_t width, height;           // pixels
    int32_t channels;                // C, without depth
    int32_t sh_degree;               // 0 to 4
    int32_t sh_coefficients;         // K >= (sh_degree + 1)^2
    int32_t flags;
    int32_t threads;                 // CPU only
    int32_t reserved;
    double eps;                      // low-pass, pixels^2
    double near_z, far_z;
    double alpha_limit;              // 0.99
    void* stream;                    // CUDA only
    void* scratch;                   // CUDA only: temporary memory, see splat_scratch
    int64_t scratch_bytes;
} SplatOptions;

// splats [B,V,N,8]: x, y, u11, u12, u22, opacity, tau, depth (math.h). Fields that an array of gradients does not use are 0.
enum { SPLAT_X, SPLAT_Y, SPLAT_U11, SPLAT_U12, SPLAT_U22, SPLAT_OPACITY, SPLAT_TAU, SPLAT_Z, SPLAT_FIELDS };

// Which call the scratch memory is for.
enum { SPLAT_FOR_BIN = 0, SPLAT_FOR_PROJECT_BACKWARD = 1, SPLAT_FOR_COMPOSITE_BACKWARD = 2 };

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

// 1 for the library of this header, and what it is ("cpu x86-64-v4 float32", "cuda sm_80 sm_90 float32").
int splat_abi(void);
const char* splat_describe(void);
const char* splat_error(int code);

// Bytes of scratch memory that a call will need (0 on the CPU, which takes its own), or minus an error code. `entries` is M.
// splat_shade_backward with v_viewmats counts as SPLAT_FOR_PROJECT_BACKWARD.
int64_t splat_scratch(const SplatOptions* o, int32_t call, int64_t entries);

// Stage 1: means [B,N,3], quats [B,N,4], scales [B,N,3], opacities [B,N], viewmats [B,V,4,4], ks [B,V,3,3] -> splats;
// extents [B,V,N,2]: half width and height of what a splat covers, pixels; tiles [B,V,N]: how many list entries it makes.
// counts [B] or null: only the first counts[b] Gaussians of scene b exist. sh [B,N,K,3] with colors [B,V,N,3], or both null.
// stats[0]: M, the sum of tiles. stats[1]: how many (view, Gaussian) pairs were dropped for values that are not finite.
int splat_project(const SplatOptions* o, const real* means, const real* quats, const real* scales, const real* opacities,
                  const real* viewmats, const real* ks, const int64_t* counts, const real* sh,
                  real* splats, real* extents, int32_t* tiles, real* colors, int64_t* stats);

// Null gradients are not computed: v_viewmats [B,V,4,4] (last row 0) and v_ks [B,V,3,3] come together or not at all;
// v_sh and v_colors come with sh and colors.
int splat_project_backward(const SplatOptions* o, const real* means, const real* quats, const real* scales,
                           const real* opacities, const real* viewmats, const real* ks, const real* sh, const real* splats,
                           const real* colors, const real* v_splats, const real* v_colors,
                           real* v_means, real* v_quats, real* v_scales, real* v_opacities, real* v_sh,
                           real* v_viewmats, real* v_ks);

// Colours alone: sh at the direction from the camera centre to each mean -> colors [B,V,N,3].
int splat_shade(const SplatOptions* o, const real* means, const real* viewmats, const real* sh, real* colors);
int splat_shade_backward(const SplatOptions* o, const real* means, const real* viewmats, const real* sh, const real* colors,
                         const real* v_colors, real* v_means, real* v_viewmats, real* v_sh);

// Stage 2: lists of Gaussians by tile, front to back, equal depths by index.
// ids [M]: index of the Gaussian in its scene. ranges [B*V, L+1]: where the list of each tile begins and ends in ids.
// slots [M] and first [B,V,N] are what the backward call needs to bring the entries of a Gaussian together; their meaning
// is the library's own, and they bound a view (on CUDA all views together) to 2^31 entries. On CUDA they may be null when
// SPLAT_DETERMINISTIC is off, and splats, extents and gradients of splats must be aligned to 16 bytes.
int splat_bin(const SplatOptions* o, const real* splats, const real* extents, const int32_t* tiles, int64_t entries,
              int32_t* ids, int32_t* slots, int32_t* first, int64_t* ranges);

// Stage 3: features [B,V,N,C] (or [B,1,N,C]), background [B,V,C] or null -> image [B,V,H,W,C], depth [B,V,H,W] with
// SPLAT_DEPTH else null (sum of weight times z, no background), transmittance [B,V,H,W] left at the end,
// last [B,V,H,W]: a number of entries of its tile's list behind which nothing added to the pixel.
int splat_composite(const SplatOptions* o, const real* splats, const real* features, const real* background,
                    const int32_t* ids, const int64_t* ranges, real* image, real* depth, real* transmittance, int32_t* last);

// v_image, v_depth, v_transmittance: any may be null (zero). v_splats [B,V,N,8], v_features as features,
// v_absolute [B,V,N,2] or null: sum over pixels of |gradient of x|, |gradient of y|.
int splat_composite_backward(const SplatOptions* o, const real* splats, const real* features, const real* background,
                             const int32_t* ids, const int32_t* tiles, const int32_t* slots, const int32_t* first,
                             const int64_t* ranges, const real* transmittance, const int32_t* last,
                             const real* v_image, const real* v_depth, const real* v_transmittance,
                             real* v_splats, real* v_features, real* v_absolute);

// Structural similarity with a Gaussian window (11 x 11, sigma 1.5, zero padding) of planes a and b [P,H,W] -> map [P,H,W];
// partials [3,P,H,W] or null: derivatives of the map by mean(a), mean(a^2), mean(ab), for the backward call.
// c1 = (0.01 range)^2, c2 = (0.03 range)^2. Only abi, real_bytes, width, height, threads and stream of the options are read.
int splat_ssim(const SplatOptions* o, int64_t planes, double c1, double c2, const real* a, const real* b,
               real* map, real* partials);
int splat_ssim_backward(const SplatOptions* o, int64_t planes, const real* a, const real* b, const real* v_map,
                        const real* partials, real* v_a);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
