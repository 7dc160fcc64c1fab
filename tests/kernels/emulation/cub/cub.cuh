// Stand-in for the parts of CUB that the kernels use, with its contract: sizes first, stable sorts, and a result that can
// end in either buffer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "../cuda_runtime.h"

namespace cub {

template <class T> struct DoubleBuffer {
    T* d_buffers[2] = {nullptr, nullptr};
    int selector = 0;
    DoubleBuffer() = default;
    DoubleBuffer(T* current, T* alternate) : d_buffers{current, alternate} {}
    T* Current() const { return d_buffers[selector]; }
    T* Alternate() const { return d_buffers[selector ^ 1]; }
};

constexpr size_t scratch_bytes = 1000;

struct DeviceRadixSort {
    template <class K, class V, class N>
    static cudaError_t SortPairs(void* scratch, size_t& bytes, DoubleBuffer<K>& keys, DoubleBuffer<V>& values, N items,
                                 int begin_bit, int end_bit, cudaStream_t = nullptr) {
        if (!scratch) return bytes = scratch_bytes, cudaSuccess;
        K mask = K(((uint64_t(1) << (end_bit - begin_bit)) - 1) << begin_bit);
        std::vector<int64_t> order(static_cast<size_t>(items));
        std::iota(order.begin(), order.end(), 0);
        const K* k = keys.Current();
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (k[a] & mask) < (k[b] & mask); });
        static int odd_passes = 0;  // one pass or two, by turns
        int passes = 1 + (odd_passes ^= 1);
        std::vector<K> sorted_keys;
        std::vector<V> sorted_values;
        for (int64_t i : order) sorted_keys.push_back(k[i]), sorted_values.push_back(values.Current()[i]);
        // The buffer that does not hold the result holds anything.
        std::fill_n(keys.Current(), items, K(0xa5a5)), std::fill_n(values.Current(), items, V(0xa5a5));
        std::fill_n(keys.Alternate(), items, K(0x5a5a)), std::fill_n(values.Alternate(), items, V(0x5a5a));
        keys.selector ^= passes & 1, values.selector ^= passes & 1;
        std::copy(sorted_keys.begin(), sorted_keys.end(), keys.Current());
        std::copy(sorted_values.begin(), sorted_values.end(), values.Current());
        return cudaSuccess;
    }
};

struct DeviceScan {
    template <class In, class Out, class N>
    static cudaError_t ExclusiveSum(void* scratch, size_t& bytes, In in, Out out, N items, cudaStream_t = nullptr) {
        if (!scratch) return bytes = scratch_bytes, cudaSuccess;
        typename In::value_type sum = 0;
        for (N i = 0; i < items; ++i) {
            auto value = in[i];
            out[i] = sum;
            sum += value;
        }
        return cudaSuccess;
    }
};

}  // namespace cub
