// What every CUDA stage shares: how kernels are launched, how options become sizes, how errors become codes.
//
// The library allocates nothing, never waits for the device and launches everything on the caller's stream.
// The same sources compile as plain C++ against tests/kernels/emulation, which runs blocks and warps on the CPU.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "../abi.h"
#include "../math.h"
#include "../sh.h"

// A launch without blocks is an error in CUDA and nothing to do here.
#ifndef SPLAT_LAUNCH
#define SPLAT_LAUNCH(kernel, blocks, threads, stream, ...)                                   \
    do {                                                                                     \
        if ((blocks) > 0) kernel<<<unsigned(blocks), threads, 0, stream>>>(__VA_ARGS__);     \
    } while (0)
#endif

namespace splat {

constexpr int tile_edge = SPLAT_TILE;              // pixels
constexpr int tile_pixels = tile_edge * tile_edge;
constexpr int warp_lanes = 32;
constexpr unsigned all_lanes = 0xffffffffu;

// Sizes of a call, in the types that kernels index with.
struct Sizes {
    int scenes, views, gaussians;  // B, V of a scene, N of a scene
    int all_views;                 // B * V
    int width, height;             // pixels
    int tiles_x, tiles_y, tiles;   // of one view
    int channels;                  // C, without depth
    bool depth, shared_features, graphdeco;
};

inline Sizes sizes_of(const SplatOptions& o) {
    Sizes s;
    s.scenes = int(o.scenes), s.views = int(o.views), s.gaussians = int(o.gaussians);
    s.all_views = int(o.scenes * o.views);
    s.width = o.width, s.height = o.height;
    s.tiles_x = (o.width + tile_edge - 1) / tile_edge, s.tiles_y = (o.height + tile_edge - 1) / tile_edge;
    s.tiles = s.tiles_x * s.tiles_y;
    s.channels = o.channels;
    s.depth = o.flags & SPLAT_DEPTH, s.shared_features = o.flags & SPLAT_SHARED_FEATURES;
    s.graphdeco = o.flags & SPLAT_GRAPHDECO;
    return s;
}

inline Lens<float> lens_of(const SplatOptions& o) {
    Lens<float> lens;
    lens.eps = float(o.eps), lens.near_z = float(o.near_z), lens.far_z = float(o.far_z);
    lens.width = o.width, lens.height = o.height;
    lens.antialiased = o.flags & SPLAT_ANTIALIASED, lens.graphdeco = o.flags & SPLAT_GRAPHDECO;
    return lens;
}

inline int64_t pairs_of(const SplatOptions& o) { return o.scenes * o.views * o.gaussians; }
inline cudaStream_t stream_of(const SplatOptions& o) { return static_cast<cudaStream_t>(o.stream); }
inline int64_t blocks_for(int64_t items, int64_t threads) { return (items + threads - 1) / threads; }
inline int device_code(cudaError_t error) { return error == cudaSuccess ? SPLAT_OK : SPLAT_DEVICE + int(error); }

// Code of the launches since the last call. This library has a CUDA runtime of its own, so other people's errors do
// not show up here.
inline int launch_code() { return device_code(cudaGetLastError()); }

// Whether the options make sense; and whether there is a device, which is made the current one by an array that lives
// on it. Everything else in the CUDA runtime, even a size query of CUB, fails without saying why when there is none.
int check_options(const SplatOptions* o);
int check_device(const void* array);

inline int check(const SplatOptions* o, const void* array) {
    int code = check_options(o);
    return code ? code : check_device(array);
}

// One instruction each, right to the last bit or two. None of the special cases that the standard functions take care of
// occurs where these are used. The same input gives the same bits in every kernel.
#ifdef __CUDA_ARCH__
#define SPLAT_INSTRUCTION(name, instruction, fallback)                     \
    __device__ __forceinline__ float name(float x) {                       \
        float result;                                                      \
        asm(instruction ".approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x)); \
        return result;                                                     \
    }
#else
#define SPLAT_INSTRUCTION(name, instruction, fallback) \
    __device__ __forceinline__ float name(float x) { return fallback; }
#endif
SPLAT_INSTRUCTION(reciprocal, "rcp", 1.0f / x)
SPLAT_INSTRUCTION(quick_root, "sqrt", std::sqrt(x))
SPLAT_INSTRUCTION(quick_exp2, "ex2", std::exp2(x))

inline bool has_coefficients(const SplatOptions& o) {
    return o.sh_degree >= 0 && o.sh_degree <= 4 && o.sh_coefficients >= sh_count(o.sh_degree);
}

inline bool is_aligned(const void* array) { return (reinterpret_cast<uintptr_t>(array) & 15) == 0; }

// Carves aligned arrays out of one piece of memory; with a null piece it only adds up the bytes.
class Scratch {
public:
    explicit Scratch(void* memory) : memory_(static_cast<char*>(memory)) {}
    template <class T> T* take(int64_t count) {
        T* array = memory_ ? reinterpret_cast<T*>(memory_ + bytes_) : nullptr;
        bytes_ += (count * int64_t(sizeof(T)) + 255) / 256 * 256;
        return array;
    }
    int64_t bytes() const { return bytes_; }

private:
    char* memory_;
    int64_t bytes_ = 0;
};

inline bool has_scratch(const SplatOptions& o, int64_t bytes) { return bytes <= (o.scratch ? o.scratch_bytes : 0); }

// Bytes of scratch memory, or a negative code.
int64_t bin_scratch(const SplatOptions& o, int64_t entries);
int64_t project_backward_scratch(const SplatOptions& o);
int64_t composite_backward_scratch(const SplatOptions& o, int64_t entries);

#define SPLAT_TRY(expression)                  \
    do {                                       \
        int code_of_call = (expression);       \
        if (code_of_call) return code_of_call; \
    } while (0)

}  // namespace splat
