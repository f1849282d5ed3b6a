// The thread pool: tasks are claimed from one counter by whoever is awake.
//
// The caller works too, and finishes alone if no worker wakes in time; at the end it waits for
// claimed tasks only, so a worker that the system has descheduled before it claimed costs nothing.
// Workers start with the first job that can use them, spin for a moment after each and then sleep
// on a futex. Before a fork the pool finishes its job and ends its workers; parent and child start
// their own with their next jobs.
//
// One word holds the job's number and how many of its tasks are unclaimed. A claim is a
// compare-and-swap that takes one off; it can only succeed while the job is open, and the job
// cannot end before the claimed task is done, so what it reads of the job cannot change under it.
#include "parallel.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <new>
#include <string>

namespace {

constexpr int MAX_THREADS = 256;
constexpr int WORKER_SPINS = 4000;  // some 30 us of pauses
constexpr int JOIN_SPINS = 2000;

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t value) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void futex_wake(std::atomic<std::uint32_t>& word, int count) {
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

struct Pool {
    // what workers poll, what claims change, and what ends a job: a cache line each
    alignas(128) std::atomic<std::uint32_t> posted{0};  // number of the latest job
    std::atomic<int> sleeping{0};
    std::atomic<int> helpers{0};  // workers that may claim: those with a lower index
    std::atomic<bool> ending{false};
    alignas(128) std::atomic<std::uint64_t> unclaimed{0};  // job << 32 | tasks not yet claimed
    alignas(128) std::atomic<std::ptrdiff_t> unfinished{0};
    std::atomic<bool> out_of_memory{false};
    alignas(128) void (*body)(void*, std::ptrdiff_t) = nullptr;
    void* context = nullptr;
    std::ptrdiff_t tasks = 0;
    std::atomic<bool> busy{false};
    // touched by the owner of `busy` only
    int started = 0, placed = 0;  // workers, and those of them that keep off the processor `taken`
    int taken = -1;
    pthread_t handles[MAX_THREADS];
};

Pool pool;
std::atomic<int> threads{0};

// Claim and run tasks until none is left; whether there was one.
bool work(Pool& p) {
    bool any = false;
    std::uint64_t seen = p.unclaimed.load(std::memory_order_acquire);
    while (std::uint32_t(seen)) {
        if (!p.unclaimed.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel,
                                               std::memory_order_acquire))
            continue;
        any = true;
        try {
            p.body(p.context, p.tasks - std::ptrdiff_t(std::uint32_t(seen)));
        } catch (const std::bad_alloc&) {
            p.out_of_memory.store(true, std::memory_order_relaxed);
        }
        p.unfinished.fetch_sub(1, std::memory_order_acq_rel);
        seen = p.unclaimed.load(std::memory_order_acquire);
    }
    return any;
}

void* worker(void* argument) {
    Pool& p = pool;
    const int index = int(reinterpret_cast<std::intptr_t>(argument));
    std::uint32_t job = 0;
    for (;;) {
        int spins = 0;
        while (p.posted.load(std::memory_order_acquire) == job && spins < WORKER_SPINS) {
            relax();
            spins++;
        }
        if (spins == WORKER_SPINS) {
            p.sleeping.fetch_add(1);
            while (p.posted.load() == job) futex_wait(p.posted, job);
            p.sleeping.fetch_sub(1);
        }
        job = p.posted.load(std::memory_order_acquire);
        if (p.ending.load()) return nullptr;
        if (index < p.helpers.load(std::memory_order_relaxed)) work(p);
    }
}

// Keep the workers off the processor that the caller runs on. Left alone, the scheduler may wake a
// worker on the caller's, where one waits for the other until the load is balanced some 10 ms
// later: 16 tasks of 5 us then took 80 us (as one thread) or 180 us instead of 41, in most windows
// of 50 calls after a pause. Costs a system call per worker when the caller has moved, and 20 ns
// else.
void keep_off(Pool& p, int cpu) {
    if (cpu < 0 || (cpu == p.taken && p.placed == p.started)) return;
    cpu_set_t set;
    p.taken = cpu;
    p.placed = p.started;
    if (sched_getaffinity(0, sizeof(set), &set)) return;
    CPU_CLR(cpu, &set);
    if (!CPU_COUNT(&set)) return;
    for (int i = 0; i < p.started; i++) pthread_setaffinity_np(p.handles[i], sizeof(set), &set);
}

// A child would have no workers, and perhaps half a job of another thread's: there are none of
// either when it is made.
void before_fork() {
    Pool& p = pool;
    while (p.busy.exchange(true, std::memory_order_acquire)) sched_yield();
    p.ending.store(true);
    p.posted.fetch_add(1);
    futex_wake(p.posted, MAX_THREADS);
    for (int i = 0; i < p.started; i++) pthread_join(p.handles[i], nullptr);
    p.started = p.placed = 0;
    p.ending.store(false);
}
void after_fork() {
    pool.busy.store(false, std::memory_order_release);
}

// Physical cores among those that this process may run on: two threads of a core share its units.
int cores() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set)) return 1;
    int count = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        const std::string path =
            "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
        int first = cpu;
        if (std::FILE* file = std::fopen(path.c_str(), "r")) {
            if (std::fscanf(file, "%d", &first) != 1) first = cpu;
            std::fclose(file);
        }
        count += first == cpu || !CPU_ISSET(first, &set);
    }
    return count;
}

int default_threads() {
    const int wanted = std::min(cores(), cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
    return std::clamp(wanted, 1, MAX_THREADS);
}

// Processors that one control group allows: its microseconds in each period, over the period; 0 if
// it sets no limit. Version 2 has "150000 100000" or "max 100000" in one file, version 1 has two
// files and -1.
double allowed(const std::string& folder, bool unified) {
    double quota = 0, period = 0;
    std::ifstream first(folder + (unified ? "/cpu.max" : "/cpu.cfs_quota_us"));
    first >> quota;
    if (unified)
        first >> period;
    else
        std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    return quota > 0 && period > 0 ? quota / period : 0;
}

void serial(std::ptrdiff_t tasks, void (*body)(void*, std::ptrdiff_t), void* context) {
    for (std::ptrdiff_t task = 0; task < tasks; task++) body(context, task);
}

}  // namespace

int cpu_quota(const std::string& groups, const std::string& root) {
    double least = MAX_THREADS;
    std::ifstream lines(groups);
    for (std::string line; std::getline(lines, line);) {
        // "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1
        const std::size_t kinds = line.find(':') + 1, path = line.find(':', kinds) + 1;
        if (!kinds || !path) continue;
        const bool unified = path == kinds + 1;
        if (!unified &&
            ("," + line.substr(kinds, path - 1 - kinds) + ",").find(",cpu,") == std::string::npos)
            continue;
        // The limit of every group above holds too. In a container the path may be the host's:
        // then only the last step, the root, is there.
        std::string folder = line.substr(path);
        for (bool more = true; more;) {
            const double limit = allowed(root + (unified ? "" : "/cpu") + folder, unified);
            if (limit > 0) least = std::min(least, limit);
            more = !folder.empty();
            folder.resize(more ? folder.rfind('/') == std::string::npos ? 0 : folder.rfind('/')
                               : 0);
        }
    }
    return int(std::ceil(least));
}

int thread_count() {
    int n = threads.load(std::memory_order_relaxed);
    if (!n) threads.store(n = default_threads(), std::memory_order_relaxed);
    return n;
}

void set_thread_count(int n) {
    threads.store(n < MAX_THREADS ? n : MAX_THREADS);
}

void parallel_run(std::ptrdiff_t tasks, void (*body)(void*, std::ptrdiff_t), void* context) {
    const int wanted = int(std::min<std::ptrdiff_t>(thread_count(), tasks)) - 1;
    if (wanted < 1 || tasks >= std::ptrdiff_t(1) << 31) return serial(tasks, body, context);
    Pool& p = pool;
    if (p.busy.exchange(true, std::memory_order_acquire)) return serial(tasks, body, context);
    for (; p.started < wanted; p.started++) {
        // Registered with the first worker, after the allocators' handlers, it runs before them: a
        // job that it waits for may need their locks.
        static const int registered = pthread_atfork(before_fork, after_fork, after_fork);
        (void)registered;
        void* const index = reinterpret_cast<void*>(std::intptr_t(p.started));
        // no more threads to be had: fewer do it
        if (pthread_create(&p.handles[p.started], nullptr, worker, index)) break;
    }
    keep_off(p, sched_getcpu());
    p.body = body;
    p.context = context;
    p.tasks = tasks;
    p.out_of_memory.store(false, std::memory_order_relaxed);
    p.helpers.store(wanted, std::memory_order_relaxed);
    p.unfinished.store(tasks, std::memory_order_relaxed);
    const std::uint32_t job = p.posted.load(std::memory_order_relaxed) + 1;
    p.unclaimed.store(std::uint64_t(job) << 32 | std::uint64_t(tasks), std::memory_order_release);
    p.posted.store(job);
    if (p.sleeping.load()) futex_wake(p.posted, wanted);
    work(p);
    for (int spins = 0; p.unfinished.load(std::memory_order_acquire); spins++) {
        if (spins < JOIN_SPINS)
            relax();
        else
            sched_yield();
    }
    const bool failed = p.out_of_memory.load(std::memory_order_relaxed);
    p.busy.store(false, std::memory_order_release);
    if (failed) throw std::bad_alloc();
}

// ---------------------------------------------------------------- scratch

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool KEEPS = false;  // blocks end where they were asked to
#else
constexpr bool KEEPS = true;
#endif

// Blocks that this thread gave back, for its next calls: fresh pages cost more than most kernels.
struct Kept {
    static constexpr int COUNT = 8;
    struct Block {
        void* p = nullptr;
        std::size_t bytes = 0;
    } blocks[COUNT];
    ~Kept() {
        for (Block& b : blocks) std::free(b.p);
    }
};
thread_local Kept kept;

}  // namespace

void* scratch_take(std::size_t& bytes) {
    Kept::Block* best = nullptr;
    for (Kept::Block& b : kept.blocks)
        if (b.p && b.bytes >= bytes && (!best || b.bytes < best->bytes)) best = &b;
    if (best) {
        void* p = best->p;
        bytes = best->bytes;
        *best = {};
        return p;
    }
    const std::size_t step = KEEPS ? 4096 : 64;
    bytes = (bytes + step - 1) / step * step;
    void* p = std::aligned_alloc(64, bytes ? bytes : 64);
    if (!p) throw std::bad_alloc();
    return p;
}

void scratch_give(void* p, std::size_t bytes) {
    if (!KEEPS) return std::free(p);
    Kept::Block* smallest = kept.blocks;
    for (Kept::Block& b : kept.blocks)
        if (b.bytes < smallest->bytes) smallest = &b;
    if (smallest->bytes < bytes) {
        std::free(smallest->p);
        *smallest = {p, bytes};
    } else {
        std::free(p);
    }
}
