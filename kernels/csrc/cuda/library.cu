// The parts of the interface that launch nothing: version, errors, scratch sizes, checks of options and device.
#include <cstdio>

#include "common.cuh"

// Which architectures nvcc made code for: 800,900 are sm_80 and sm_90.
#define SPLAT_TEXT(...) #__VA_ARGS__
#define SPLAT_TEXT_OF(...) SPLAT_TEXT(__VA_ARGS__)
#ifdef __CUDA_ARCH_LIST__
#define SPLAT_ARCHITECTURES SPLAT_TEXT_OF(__CUDA_ARCH_LIST__)
#else
#define SPLAT_ARCHITECTURES "emulated"
#endif

namespace splat {
namespace {

// Keys of the lists are 32-bit numbers of a tile of a view; Gaussians of all views are numbered with 31 bits.
constexpr int64_t most_tiles = int64_t(1) << 31, most_pairs = int64_t(1) << 31;
constexpr int largest_edge = 1 << 20;  // pixels; float32 still has 1/8 pixel there

bool sizes_fit(const SplatOptions& o) {
    if (o.width < 1 || o.height < 1 || o.width > largest_edge || o.height > largest_edge) return false;
    if (o.scenes < 0 || o.views < 0 || o.gaussians < 0 || o.channels < 0) return false;
    int64_t limit = most_pairs - 1;
    if (o.scenes > limit || o.views > limit || o.gaussians > limit || o.scenes * o.views > limit) return false;
    int64_t views = o.scenes * o.views;
    int64_t tiles = blocks_for(o.width, tile_edge) * blocks_for(o.height, tile_edge);
    return tiles < most_tiles && views * tiles < most_tiles && (views == 0 || o.gaussians <= limit / views);
}

}  // namespace

int check_options(const SplatOptions* o) {
    if (!o || o->abi != SPLAT_ABI || o->real_bytes != int(sizeof(float))) return SPLAT_BAD_OPTIONS;
    return sizes_fit(*o) ? SPLAT_OK : SPLAT_BAD_OPTIONS;
}

int check_device(const void* array) {
    int devices = 0;
    SPLAT_TRY(device_code(cudaGetDeviceCount(&devices)));
    if (devices == 0) return device_code(cudaErrorNoDevice);
    if (!array) return SPLAT_OK;
    cudaPointerAttributes attributes;
    SPLAT_TRY(device_code(cudaPointerGetAttributes(&attributes, array)));
    // An array of the host would only show up as an illegal access, after which no CUDA call of the process works.
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) return SPLAT_BAD_OPTIONS;
    return device_code(cudaSetDevice(attributes.device));
}

}  // namespace splat

extern "C" int splat_abi(void) { return SPLAT_ABI; }

extern "C" const char* splat_describe(void) { return "cuda " SPLAT_ARCHITECTURES " float32"; }

extern "C" const char* splat_error(int code) {
    static thread_local char text[256];
    switch (code) {
        case SPLAT_OK: return "no error";
        case SPLAT_BAD_OPTIONS:
            return "the options or arrays do not fit this library: ABI version, float32, sizes, 16-byte alignment, arrays on the GPU";
        case SPLAT_TOO_MANY_ENTRIES:
            return "too many list entries: render fewer views at once, or switch the deterministic mode off (2^31 entries there)";
        case SPLAT_NO_MEMORY: return "the scratch memory is smaller than splat_scratch asked for";
    }
    if (code < SPLAT_DEVICE) return "unknown error code";
    cudaError_t error = cudaError_t(code - SPLAT_DEVICE);
    bool is_absent = error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver;
    std::snprintf(text, sizeof text, "CUDA error %d: %s%s", int(error), cudaGetErrorString(error),
                  is_absent ? "; is there an NVIDIA GPU with a driver on this machine?" : "");
    return text;
}

extern "C" int64_t splat_scratch(const SplatOptions* o, int32_t call, int64_t entries) {
    int code = splat::check(o, nullptr);
    if (code) return -code;
    switch (call) {
        case SPLAT_FOR_BIN: return splat::bin_scratch(*o, entries);
        case SPLAT_FOR_PROJECT_BACKWARD: return splat::project_backward_scratch(*o);
        case SPLAT_FOR_COMPOSITE_BACKWARD: return splat::composite_backward_scratch(*o, entries);
    }
    return -SPLAT_BAD_OPTIONS;
}
