// Fibers are switched by a dozen instructions on x86-64 and by ucontext elsewhere (which makes a system call each time).
#include "machine.h"

#include <link.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emulation {

Machine machine;

namespace {

constexpr size_t stack_bytes = 128 * 1024;

// ---- switching ---------------------------------------------------------------------------------
void run_fiber() {
    (*machine.kernel)();
    machine.finish();
}

#if defined(__x86_64__)
// Save the registers that a function must keep, and the stack pointer; load those of the other side.
__attribute__((naked, noinline)) void switch_stack(void** /*save*/, void* /*load*/) {
    asm volatile(
        "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}

void* fresh_stack(char* stack) {
    auto* top = reinterpret_cast<void**>(stack + stack_bytes);
    *--top = nullptr;                                // keeps the stack aligned as after a call
    *--top = reinterpret_cast<void*>(&run_fiber);    // where switch_stack returns to
    for (int i = 0; i < 6; ++i) *--top = nullptr;    // the registers it restores
    return top;
}
#else
void switch_stack(void** save, void* load) {
    auto* here = new ucontext_t;
    *save = here;
    auto* there = static_cast<ucontext_t*>(load);
    swapcontext(here, there);
    delete here;
}

void* fresh_stack(char* stack) {
    auto* context = new ucontext_t;  // small, and lost once a block: this is a test
    getcontext(context);
    context->uc_stack.ss_sp = stack, context->uc_stack.ss_size = stack_bytes, context->uc_link = nullptr;
    makecontext(context, run_fiber, 0);
    return context;
}
#endif

// A fiber ends inside a call, so the address sanitizer still guards what that call had on the stack.
void clear_marks([[maybe_unused]] char* stack) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack, stack_bytes);
#endif
}

// ---- shared memory -----------------------------------------------------------------------------
// Shared arrays are thread-local, so they lie in this library's block of thread-local memory.
thread_local char anchor;

struct Region {
    void* begin = nullptr;
    size_t bytes = 0;
};

int find_region(dl_phdr_info* info, size_t, void* result) {
    auto* region = static_cast<Region*>(result);
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& header = info->dlpi_phdr[i];
        char* begin = static_cast<char*>(info->dlpi_tls_data);
        if (header.p_type != PT_TLS || !begin || &anchor < begin || &anchor >= begin + header.p_memsz) continue;
        *region = {begin, header.p_memsz};
        return 1;
    }
    return 0;
}

void poison_shared_memory() {
    anchor = 1;  // thread-local memory comes into being at its first use
    static const Region region = [] {
        Region r;
        dl_iterate_phdr(find_region, &r);
        return r;
    }();
    std::memset(region.begin, 0xff, region.bytes);
}

}  // namespace

// ---- scheduling --------------------------------------------------------------------------------
uint64_t Machine::random() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return state_;
}

// Any warp, or in every other block by an order of that block: then the last one only gets on while all others wait, which
// chance alone would hardly ever bring about.
int Machine::draw_warp() {
    if (!order_.empty())
        for (int warp : order_)
            if (ready_warps_ >> warp & 1) return warp;
    uint64_t rest = ready_warps_;
    for (uint64_t skip = random() % uint64_t(__builtin_popcountll(rest)); skip > 0; --skip) rest &= rest - 1;
    return __builtin_ctzll(rest);
}

int Machine::draw() {
    int number = draw_warp();
    auto& ready = warps_[size_t(number)].ready;
    size_t i = size_t(random() % ready.size());
    int fiber = ready[i];
    ready[i] = ready.back();
    ready.pop_back();
    if (ready.empty()) ready_warps_ &= ~(uint64_t(1) << number);
    return fiber;
}

void Machine::make_ready(const std::vector<int>& fibers) {
    for (int fiber : fibers) {
        warps_[size_t(fiber / 32)].ready.push_back(fiber);
        ready_warps_ |= uint64_t(1) << (fiber / 32);
    }
}

void Machine::stuck(const char* why) {
    std::fprintf(stderr, "emulation: block %u cannot go on: %s (%d threads alive, %zu at the barrier)\n", block_index.x, why,
                 alive_, at_barrier_.size());
    std::abort();
}

// Let others run until somebody makes the running fiber ready again.
void Machine::wait() {
    if (!ready_warps_) stuck("all threads wait for each other");
    int from = running_;
    running_ = draw();
    if (running_ != from) switch_stack(&fibers_[size_t(from)].stack_pointer, fibers_[size_t(running_)].stack_pointer);
}

void Machine::release_barrier() {
    make_ready(at_barrier_);
    at_barrier_.clear();
    turn_ ^= 1;
    amounts_[turn_] = 0;
}

int Machine::barrier(int amount) {
    int turn = turn_;
    amounts_[turn] += amount;
    at_barrier_.push_back(running_);
    if (int(at_barrier_.size()) == alive_) release_barrier();
    wait();
    return amounts_[turn];
}

const Lanes& Machine::exchange(char operation, uint64_t value) {
    int self = running_;
    Warp& warp = warps_[size_t(self / 32)];
    if (warp.alive != 32) stuck("a warp operation in a warp some lanes of which have returned");
    if (warp.arrived > 0 && warp.operation != operation) stuck("the lanes of a warp are at different warp operations");
    warp.operation = operation;
    Lanes& lanes = warp.values[warp.turn];
    lanes.bits[self % 32] = value;
    warp.waiting.push_back(self);
    if (++warp.arrived == 32) {
        make_ready(warp.waiting);
        warp.waiting.clear();
        warp.arrived = 0, warp.turn ^= 1;
    }
    wait();
    return lanes;
}

void Machine::finish() {
    Fiber& fiber = current();
    fiber.finished = true;
    Warp& warp = warps_[size_t(running_ / 32)];
    --warp.alive, --alive_;
    if (warp.arrived > 0) stuck("a lane returned while its warp waits for it");
    if (alive_ > 0 && int(at_barrier_.size()) == alive_) release_barrier();
    void* unused;
    if (alive_ == 0) switch_stack(&unused, host_stack_pointer_);
    if (!ready_warps_) stuck("all threads wait for each other");
    running_ = draw();
    switch_stack(&unused, fibers_[size_t(running_)].stack_pointer);
}

void Machine::start_block(int threads) {
    while (int(fibers_.size()) < threads) {
        fibers_.emplace_back();
        fibers_.back().stack = static_cast<char*>(std::aligned_alloc(64, stack_bytes));
    }
    warps_.resize(size_t((threads + 31) / 32));
    for (Warp& warp : warps_) warp.arrived = 0, warp.alive = 0, warp.turn = 0, warp.waiting.clear(), warp.ready.clear();
    at_barrier_.clear(), ready_warps_ = 0;
    order_.clear();
    if (random() % 2)
        for (int i = 0; i < int(warps_.size()); ++i) order_.insert(order_.begin() + long(random() % uint64_t(i + 1)), i);
    amounts_[0] = amounts_[1] = turn_ = 0;
    for (int i = 0; i < threads; ++i) {
        Fiber& fiber = fibers_[size_t(i)];
        fiber.index = {unsigned(i), 0, 0}, fiber.finished = false;
        clear_marks(fiber.stack);
        fiber.stack_pointer = fresh_stack(fiber.stack);
        ++warps_[size_t(i / 32)].alive;
        make_ready({i});
    }
    alive_ = threads;
}

void Machine::run(int64_t blocks, int threads, const std::function<void()>& body) {
    kernel = &body;
    block_size = {unsigned(threads), 1, 1}, grid_size = {unsigned(blocks), 1, 1};
    for (int64_t block = 0; block < blocks; ++block) {
        block_index = {unsigned(block), 0, 0};
        start_block(threads);
        poison_shared_memory();
        running_ = draw();
        switch_stack(&host_stack_pointer_, fibers_[size_t(running_)].stack_pointer);
    }
}

}  // namespace emulation

extern "C" void emulation_seed(uint64_t seed) { emulation::machine.seed(seed); }
