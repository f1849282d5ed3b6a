// minidl._cpu: the module. The entries of each family are in the bind_*.cpp.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>
#include <string>

#define IMPORTS_ARRAY_API
#include "allocator.h"
#include "arrays.h"
#include "kernels.h"
#include "parallel.h"

namespace py = pybind11;

int bfloat16_type = -1;

namespace {

PyMethodDef* const FAMILIES[] = {ATTENTION_ENTRIES, LINEAR_ENTRIES,    MATMUL_ENTRIES,
                                 MOVEMENT_ENTRIES,  POINTWISE_ENTRIES, RANDOM_ENTRIES,
                                 ROW_ENTRIES,       TRAINING_ENTRIES};

py::object entry(const std::string& name, const py::object& below) {
    for (PyMethodDef* method : FAMILIES)
        for (; method->ml_name; method++)
            if (name == method->ml_name)
                return py::reinterpret_steal<py::object>(PyCFunction_New(method, below.ptr()));
    throw py::key_error(name);
}

PyDataMem_Handler HANDLER = {
    "minidl",
    1,
    {nullptr, allocator_malloc, allocator_calloc, allocator_realloc, allocator_free},
};

void use_allocator() {
    const py::capsule handler(&HANDLER, "mem_handler");
    PyObject* before = PyDataMem_SetHandler(handler.ptr());
    if (!before) throw py::error_already_set();
    Py_DECREF(before);
}

// Bytes per second of one core over a working set of `bytes`: the best pass of those that fill
// about `seconds`. kind: "read"; "copy", to as much memory, through the caches or past them;
// "update", in place; "momentum" and "adam", 3 or 4 arrays of which all but one are written in
// place. What is read and what is written both count.
double bandwidth(std::size_t bytes, const std::string& kind, double seconds) {
    const auto n = std::ptrdiff_t(std::max<std::size_t>(256, bytes / sizeof(float) / 256 * 256));
    // memory as arrays have it: the size of pages decides, too
    const auto give = [&](float* p) { allocator_free(nullptr, p, std::size_t(n) * sizeof(float)); };
    const std::unique_ptr<float[], decltype(give)> memory(
        static_cast<float*>(allocator_malloc(nullptr, std::size_t(n) * sizeof(float))), give);
    float* x = memory.get();
    if (!x) throw std::bad_alloc();
    std::fill(x, x + n, 0.0f);
    const auto time = [&](int passes, auto pass) {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < passes; i++) pass();
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        return taken.count() / passes;
    };
    const auto rate = [&](double moved, auto pass) {
        const int passes = 1 + int(50e-6 / std::max(1e-9, time(1, pass)));  // 50 us on the clock
        double best = time(passes, pass), spent = 0;
        while (spent < seconds) {
            const double taken = time(passes, pass);
            best = std::min(best, taken);
            spent += taken * passes;
        }
        return moved / best;
    };
    const KernelTable& k = kernels();
    const double size = double(n) * sizeof(float);
    if (kind == "update") return rate(2 * size, [&] { k.stream_update(x, n); });
    if (kind == "momentum" || kind == "adam") {
        const int reads = kind == "adam" ? 4 : 3;
        // no two at the same place in a page, where loads would wait for stores of others
        const ptrdiff_t each = n / reads / 64 * 64;
        const ptrdiff_t apart = each < 8192 ? each : each / 1024 * 1024 - 752;
        const ptrdiff_t own = apart / 64 * 64;
        return rate(double(2 * reads - 1) * double(own) * sizeof(float),
                    [&] { k.stream_step(x, own, apart, reads); });
    }
    if (kind == "copy")
        return std::max(rate(size, [&] { k.stream_copy(x + n / 2, x, n / 2, false); }),
                        rate(size, [&] { k.stream_copy(x + n / 2, x, n / 2, true); }));
    volatile float sum = 0;
    return rate(size, [&] { sum = k.stream_read(x, n); });
}

// float32 operations per second of one core: the best of bursts that fill about `seconds`.
double fma_peak(double seconds) {
    double best = 0, spent = 0;
    while (spent < seconds) {
        const auto start = std::chrono::steady_clock::now();
        const double done = kernels().fma_burn(20000);
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        best = std::max(best, done / taken.count());
        spent += taken.count();
    }
    return best;
}

py::list isas() {
    py::list names;
    for (int i = 0; const KernelTable* table = supported(i); i++) names.append(table->isa);
    return names;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    import_array1();
    m.doc() = "Kernels of the CPU; see minidl/backends/native.py.";
    py::list names;
    for (const PyMethodDef* method : FAMILIES)
        for (; method->ml_name; method++) names.append(method->ml_name);
    m.attr("ENTRIES") = py::tuple(names);
    m.def("entry", &entry,
          "The table entry `name`, which hands on to `below` what it cannot take.");
    m.def(
        "use_bfloat16",
        [](const py::object& dtype) {
            if (!PyArray_DescrCheck(dtype.ptr())) throw py::type_error("a dtype");
            bfloat16_type = reinterpret_cast<PyArray_Descr*>(dtype.ptr())->type_num;
        },
        "Let the kernels take arrays of this dtype, bfloat16.");
    m.def("isas", &isas, "The instruction sets that this processor has, best last.");
    m.def("isa", [] { return kernels().isa; }, "The instruction set in use.");
    m.def("use_isa", &use_isa, "Use an instruction set by name; False if it is not there.");
    m.def("get_num_threads", &thread_count, "Threads that one kernel may use.");
    m.def("set_num_threads", &set_thread_count, "Let one kernel use up to n threads.");
    m.def("cpu_quota", &cpu_quota, "Processors that the control groups of a process allow.");
    m.def("fma_peak", &fma_peak, "Operations per second of one core, by multiply-adds alone.");
    m.def("bandwidth", &bandwidth, py::call_guard<py::gil_scoped_release>(),
          "Bytes per second of one core over a working set: reads, copies or updates in place.");
    m.def("use_allocator", &use_allocator, "Recycle the memory of arrays made in this context.");
    m.def("trim", &allocator_trim, "Give recycled memory that is not in use back to the system.");
    m.def("kept_bytes", &allocator_kept, "Recycled memory that is not in use.");
}
