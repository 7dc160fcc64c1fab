// The emulated multiprocessor: fibers, barriers, exchanges between the lanes of a warp.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

namespace emulation {

struct Index3 {
    unsigned x = 0, y = 0, z = 0;
};

// A value of each lane, in flight.
struct Lanes {
    uint64_t bits[32];
    template <class T> T get(int lane) const {
        static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move at most 8 bytes");
        T value;
        std::memcpy(&value, &bits[lane], sizeof(T));
        return value;
    }
};

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    Index3 index;
    bool finished = false;
};

// Two buffers take turns: a lane can only fill the second one after all lanes have come to the first, and the first one
// again after all have read it.
struct Warp {
    Lanes values[2];
    int turn = 0, arrived = 0, alive = 0;
    char operation = 0;
    std::vector<int> waiting, ready;  // fibers
};

class Machine {
public:
    Index3 block_index, block_size, grid_size;

    Fiber& current() { return fibers_[size_t(running_)]; }
    void seed(uint64_t seed) { state_ = seed * 0x9e3779b97f4a7c15ull + 1; }

    void run(int64_t blocks, int threads, const std::function<void()>& kernel);
    int barrier(int amount);                                   // sum of the amounts of all threads
    const Lanes& exchange(char operation, uint64_t value);     // values of all lanes of the warp
    void finish();                                             // of the running fiber; never returns
    const std::function<void()>* kernel = nullptr;

private:
    void start_block(int threads);
    void wait();
    void release_barrier();
    void make_ready(const std::vector<int>& fibers);
    uint64_t random();
    int draw_warp();
    int draw();
    [[noreturn]] void stuck(const char* why);

    std::vector<Fiber> fibers_;
    std::vector<Warp> warps_;
    std::vector<int> at_barrier_;
    uint64_t ready_warps_ = 0;   // a bit for each warp with fibers that can run
    std::vector<int> order_;     // of the warps, when some always go before others
    int running_ = 0, alive_ = 0, threads_ = 0, amounts_[2] = {0, 0}, turn_ = 0;
    void* host_stack_pointer_ = nullptr;
    uint64_t state_ = 1;
};

extern Machine machine;

template <class Kernel> void launch(int64_t blocks, int threads, void* /*stream*/, Kernel kernel) {
    machine.run(blocks, threads, kernel);
}

inline int lane() { return int(machine.current().index.x % 32); }

template <class T> const Lanes& exchange(unsigned mask, char operation, T value) {
    if (mask != 0xffffffffu) {
        std::fprintf(stderr, "emulation: a warp operation must name all 32 lanes\n");
        std::abort();
    }
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return machine.exchange(operation, bits);
}

}  // namespace emulation
