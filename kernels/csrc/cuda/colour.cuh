// Spherical harmonics on the device: staging of the coefficients, colours, and how view loops share cameras.
#pragma once

#include "common.cuh"

namespace splat {

constexpr int view_group = 32;  // cameras that a block keeps in shared memory at once

// The cameras of views first to first + view_group of a scene, as far as there are any. Ends with a barrier.
__device__ __forceinline__ void load_cameras(Camera<float>* cameras, const float* viewmats, const float* ks,
                                             const Lens<float>& lens, int64_t first, int count) {
    __syncthreads();  // the group before this one is still being read
    for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) {
        float k[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};  // colours need the pose only
        for (int j = 0; ks && j < 9; ++j) k[j] = ks[9 * (first + i) + j];
        cameras[i] = load_camera<float>(viewmats + 16 * (first + i), k, lens);
    }
    __syncthreads();
}

// Coefficients of a block's Gaussians in shared memory. A thread reads 3 (degree + 1)^2 floats in a row, so a warp that
// read them from global memory would touch 32 lines per load; copied by the whole block, the loads are dense. The odd
// stride keeps a warp's accesses, all at the same coefficient, in different banks.
template <int degree> struct StagedCoefficients {
    static constexpr int count = sh_count(degree);
    static constexpr int values = 3 * count, stride = values | 1;

    __device__ static void load(float* staged, const float* sh, int64_t first, int gaussians, int coefficients) {
        for (int i = int(threadIdx.x); i < gaussians * values; i += int(blockDim.x)) {
            int g = i / values, c = i - g * values;
            staged[g * stride + c] = __ldg(sh + (first + g) * 3 * coefficients + c);
        }
        __syncthreads();
    }

    // The other way; coefficients beyond the degree have no influence and get 0.
    __device__ static void store(const float* staged, float* v_sh, int64_t first, int gaussians, int coefficients) {
        __syncthreads();
        int row = 3 * coefficients;
        for (int i = int(threadIdx.x); i < gaussians * row; i += int(blockDim.x)) {
            int g = i / row, c = i - g * row;
            v_sh[(first + g) * row + c] = c < values ? staged[g * stride + c] : 0.0f;
        }
    }
};

// False when it is not finite.
template <int degree>
__device__ __forceinline__ bool evaluate_colour(const Camera<float>& camera, const float mean[3], const float* coefficients,
                                                float colour[3]) {
    float d[3], basis[sh_count(degree)];
    view_direction<float>(camera, mean, d);
    sh_basis<float>(degree, d[0], d[1], d[2], basis);
    colour[0] = colour[1] = colour[2] = 0.5f;
#pragma unroll
    for (int k = 0; k < sh_count(degree); ++k)
#pragma unroll
        for (int c = 0; c < 3; ++c) colour[c] += basis[k] * coefficients[3 * k + c];
    bool finite = is_finite(colour[0] + colour[1] + colour[2]);
#pragma unroll
    for (int c = 0; c < 3; ++c) colour[c] = colour[c] < 0.0f ? 0.0f : colour[c];  // keeps what is not a number
    return finite;
}

}  // namespace splat
