// A look-alike of the CUDA runtime that runs kernels on the CPU, so that their logic can be tested without a GPU.
//
// The blocks of a launch run one after another. The threads of a block are fibers: one runs until it meets a barrier or a
// warp operation, then another one of those that can run is drawn by a seeded generator. So every interleaving that
// barriers allow can happen, and a result that changes with the seed shows a barrier that is missing. Shared memory is
// filled with NaN before each block. Warp operations take all 32 lanes; a block that can go no further is reported.
//
// What it does not show: races between blocks, misaligned vectors, and how fast anything is.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>

#include "machine.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Thread-local, because then it lies in one piece that can be found and filled before each block.
#define __shared__ static thread_local

#define SPLAT_LAUNCH(kernel, blocks, threads, stream, ...) \
    ::emulation::launch(int64_t(blocks), int(threads), stream, [&] { kernel(__VA_ARGS__); })

#define threadIdx (::emulation::machine.current().index)
#define blockIdx (::emulation::machine.block_index)
#define blockDim (::emulation::machine.block_size)
#define gridDim (::emulation::machine.grid_size)

using std::max;
using std::min;

// ---- types -------------------------------------------------------------------------------------
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- arithmetic --------------------------------------------------------------------------------
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class T> T __ldg(const T* p) { return *p; }

template <class T, class U> T atomicAdd(T* address, U value) {
    T old = *address;
    *address = old + T(value);
    return old;
}

// ---- barriers and warp operations --------------------------------------------------------------
inline void __syncthreads() { ::emulation::machine.barrier(0); }
inline int __syncthreads_count(int predicate) { return ::emulation::machine.barrier(predicate != 0); }
inline int __syncthreads_or(int predicate) { return ::emulation::machine.barrier(predicate != 0) > 0; }
inline int __syncthreads_and(int predicate) { return ::emulation::machine.barrier(predicate == 0) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { ::emulation::exchange(mask, 's', 0); }

template <class T> T __shfl_sync(unsigned mask, T value, int source) {
    return ::emulation::exchange(mask, 'f', value).template get<T>(source % 32);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits) {
    return ::emulation::exchange(mask, 'x', value).template get<T>(::emulation::lane() ^ bits);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, int delta) {
    int lane = ::emulation::lane();
    return ::emulation::exchange(mask, 'u', value).template get<T>(lane < delta ? lane : lane - delta);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int delta) {
    int lane = ::emulation::lane();
    return ::emulation::exchange(mask, 'd', value).template get<T>(lane + delta > 31 ? lane : lane + delta);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    auto lanes = ::emulation::exchange(mask, 'b', int(predicate != 0));
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane) bits |= unsigned(lanes.get<int>(lane)) << lane;
    return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }
inline int __reduce_max_sync(unsigned mask, int value) {
    auto lanes = ::emulation::exchange(mask, 'm', value);
    int most = value;
    for (int lane = 0; lane < 32; ++lane) most = max(most, lanes.get<int>(lane));
    return most;
}

// ---- runtime -----------------------------------------------------------------------------------
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100 };
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };
enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
struct cudaPointerAttributes { cudaMemoryType type; int device; };

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "an error of the emulation"; }
inline cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void*) {
    *a = {cudaMemoryTypeDevice, 0};
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
    if (bytes) std::memset(to, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    if (bytes) std::memcpy(to, from, bytes);
    return cudaSuccess;
}
