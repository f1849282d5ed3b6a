// The thread pool and scratch memory of the kernels.
#pragma once

#include <cstddef>
#include <string>

// Runs body(task) for every task of 0..tasks-1, on this thread and the workers; returns when all
// are done. One job at a time: a caller that finds the pool busy, or a task that calls again, runs
// its tasks by itself, in order.
void parallel_run(std::ptrdiff_t tasks, void (*body)(void*, std::ptrdiff_t), void* context);

int thread_count();            // threads that a job may use, this one included
void set_thread_count(int n);  // n >= 1

// Whole processors that the control groups of a process allow, rounded up: `groups` is what Linux
// shows as /proc/self/cgroup, `root` where the groups are mounted.
int cpu_quota(const std::string& groups, const std::string& root);

// Memory for one call: 64-byte aligned, kept by the thread for its next. `bytes` is raised to what
// was taken; std::bad_alloc without memory (parallel_run carries it from a task to the caller).
void* scratch_take(std::size_t& bytes);
void scratch_give(void* p, std::size_t bytes);

namespace {

template <typename Body>
inline void parallel_for(std::ptrdiff_t tasks, const Body& body) {
    if (tasks == 1) {
        body(std::ptrdiff_t(0));
        return;
    }
    parallel_run(
        tasks,
        [](void* context, std::ptrdiff_t task) { (*static_cast<const Body*>(context))(task); },
        const_cast<void*>(static_cast<const void*>(&body)));
}

// An array of a kernel's own for the length of one call.
template <typename T>
class Scratch {
  public:
    explicit Scratch(std::ptrdiff_t n)
        : bytes_(std::size_t(n) * sizeof(T)), p_(static_cast<T*>(scratch_take(bytes_))) {}
    ~Scratch() { scratch_give(p_, bytes_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* get() const { return p_; }

  private:
    std::size_t bytes_;
    T* p_;
};

}  // namespace
