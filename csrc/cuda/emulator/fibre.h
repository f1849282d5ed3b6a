// Fibres: stacks of their own, of which one thread of the CPU runs one at a time.
//
// ucontext's switch asks the kernel twice for the signal mask. Kernels change none, so on x86-64 a
// switch saves the registers that a call must keep, and changes the stack.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)

namespace emulator {

struct Context {
    void** top = nullptr;
};

extern "C" void emulator_switch(void*** from, void** to);
asm(R"(
.text
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch, .-emulator_switch
)");

inline void switch_context(Context& from, Context& to) {
    emulator_switch(&from.top, to.top);
}

// The first switch there calls `run`, which never returns. `size` is a multiple of 16.
inline void prepare(Context& context, unsigned char* stack, size_t size, void (*run)()) {
    void** top = (void**)(stack + size);
    *--top = nullptr;     // where `run` would return to
    *--top = (void*)run;  // where the switch returns to
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context.top = top;
}

}  // namespace emulator

#else
#    include <ucontext.h>

namespace emulator {

struct Context {
    ucontext_t registers;
};

inline void switch_context(Context& from, Context& to) {
    swapcontext(&from.registers, &to.registers);
}

inline void prepare(Context& context, unsigned char* stack, size_t size, void (*run)()) {
    getcontext(&context.registers);
    context.registers.uc_stack.ss_sp = stack;
    context.registers.uc_stack.ss_size = size;
    context.registers.uc_link = nullptr;
    makecontext(&context.registers, run, 0);
}

}  // namespace emulator

#endif
