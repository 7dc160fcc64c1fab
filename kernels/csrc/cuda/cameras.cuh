// Gradients of the cameras: every warp of Gaussians leaves one row for each view, a second kernel adds the rows up.
//
// A row costs 2 bytes for each Gaussian of a view, a few per cent of what the gradients of the Gaussians read, and the
// order of the sum is fixed: there is no need for a faster form that is not deterministic.
#pragma once

#include "common.cuh"

namespace splat {

constexpr int pose_columns = 16;    // W (9), t (3), fx, fy, cx, cy
constexpr int centre_columns = 4;   // the camera centre, by way of the colours; one unused

struct CameraRows {
    float* pose;    // [B*V, warps, pose_columns] or null
    float* centre;  // [B*V, warps, centre_columns] or null
    int warps;      // ceil(N / 32)
};

inline CameraRows take_camera_rows(Scratch& scratch, const SplatOptions& o) {
    int64_t warps = blocks_for(o.gaussians, warp_lanes), rows = o.scenes * o.views * warps;
    CameraRows r;
    r.pose = scratch.take<float>(rows * pose_columns);
    r.centre = scratch.take<float>(rows * centre_columns);
    r.warps = int(warps);
    return r;
}

// From the rows to v_viewmats [B*V,4,4] and, unless null, v_ks [B*V,3,3]. Rows that are null count as zero.
int sum_camera_rows(const SplatOptions& o, const CameraRows& rows, const float* viewmats, float* v_viewmats, float* v_ks);

// Gradients of the colours: v_sh is written, v_means written or added to, `rows.centre` filled unless null.
int shade_backward(const SplatOptions& o, const CameraRows& rows, const float* means, const float* viewmats, const float* sh,
                   const float* colors, const float* v_colors, float* v_means, bool adds_to_means, float* v_sh);

}  // namespace splat
