// Sums over the lanes of a warp, of one value or of many at once.
#pragma once

#include "common.cuh"

namespace splat {

__device__ __forceinline__ int lane_index() { return int(threadIdx.x) % warp_lanes; }
__device__ __forceinline__ int warp_index() { return int(threadIdx.x) / warp_lanes; }

template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int offset = warp_lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(all_lanes, value, offset);
    return value;
}

// Add to global memory without waiting for what was there. Spelled out because the compiler, where it does not see that a
// pointer is global, makes a search for its kind of memory and a loop of this.
__device__ __forceinline__ void add_to_global(float* address, float value) {
#ifdef __CUDA_ARCH__
    asm volatile("red.global.add.f32 [%0], %1;" ::"l"(__cvta_generic_to_global(address)), "f"(value) : "memory");
#else
    atomicAdd(address, value);
#endif
}

// Sum n values over the lanes of a warp at once. In each of five steps a lane gives half of its values to its partner
// and takes over the partner's half of the others, so n = 9 costs 12 shuffles in place of 45. In the end a lane holds one
// total, that of value number FoldedSum<n>::owned(lane).
template <int n> struct FoldedSum {
    static_assert(n >= 1 && n <= warp_lanes, "one total a lane");

    // The total that this lane writes, or -1 where another lane holds the same one.
    __device__ static int owned(int lane) { return step<warp_lanes / 2, n>(lane); }

    __device__ __forceinline__ static float run(float (&values)[n], int lane) {
        fold<warp_lanes / 2, n>(values, lane);
        return values[0];
    }

private:
    // With m values left, the first m - m/2 stay and the others are added to the partner's.
    template <int offset, int m> __device__ __forceinline__ static void fold(float (&values)[n], int lane) {
        if constexpr (offset > 0) {
            constexpr int kept = m - m / 2;
            bool upper = lane & offset;
#pragma unroll
            for (int i = 0; i < m / 2; ++i) {
                float mine = upper ? values[kept + i] : values[i], given = upper ? values[i] : values[kept + i];
                values[i] = mine + __shfl_xor_sync(all_lanes, given, offset);
            }
            if constexpr (kept > m / 2) values[m / 2] += __shfl_xor_sync(all_lanes, values[m / 2], offset);
            fold<offset / 2, kept>(values, lane);
        }
    }

    template <int offset, int m> __device__ static int step(int lane) {
        if constexpr (offset > 0) {
            constexpr int kept = m - m / 2;
            int rest = step<offset / 2, kept>(lane);
            if (rest < 0 || !(lane & offset)) return rest;
            return kept + rest < m ? kept + rest : -1;
        } else {
            return 0;
        }
    }
};

}  // namespace splat
