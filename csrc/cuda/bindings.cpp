// minidl._cuda: starts kernels. Integers in, nothing out: no array, no CuPy, no PyTorch.
//
// The CUDA runtime is linked statically and shares CuPy's context of the current device; it finds
// the driver when the first kernel is started, so that importing the module needs none.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <mutex>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>

#include "families.h"

namespace py = pybind11;

namespace {

constexpr size_t MOST_BYTES = 32764;  // of arguments, since CUDA 12.1; 4096 before
// of dynamic memory: 48 KiB less what a kernel has of its own, which is at most 2 KiB where a
// launch brings that much (see `OnGPU.most_shared`)
constexpr size_t USUAL_SHARED = 46 * 1024;

[[noreturn]] void refuse(const Kernel& kernel, const std::string& why) {
    throw py::value_error(std::string(kernel.name) + ": " + why);
}

void check(const Kernel& kernel, cudaError_t error) {
    if (error == cudaSuccess) return;
    throw std::runtime_error(std::string(kernel.name) + ": " + cudaGetErrorString(error) + " (" +
                             cudaGetErrorName(error) + ")");
}

// More shared memory than usual has to be asked for, once per device and kernel.
void allow_shared(const Kernel& kernel, size_t bytes) {
    static std::mutex lock;
    static std::set<std::pair<int, const void*>> allowed;
    int device = 0;
    check(kernel, cudaGetDevice(&device));
    const std::lock_guard<std::mutex> held(lock);
    if (!allowed.insert({device, kernel.function}).second) return;
    int most = 0;
    check(kernel, cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    cudaFuncAttributes own;
    check(kernel, cudaFuncGetAttributes(&own, kernel.function));
    most -= (int)own.sharedSizeBytes;
    const cudaError_t error =
        (int)bytes > most ? cudaErrorInvalidValue
                          : cudaFuncSetAttribute(kernel.function,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (error != cudaSuccess) allowed.erase({device, kernel.function});
    check(kernel, error);
}

// Whether it stands in a table; no other address may be looked at.
bool is_kernel(const Kernel* kernel) {
    static const std::unordered_set<const Kernel*> all = [] {
        std::unordered_set<const Kernel*> found;
        for_each_kernel([&](const Kernel& one) { found.insert(&one); });
        return found;
    }();
    return all.count(kernel) != 0;
}

const Kernel& of_handle(PyObject* handle) {
    const auto* kernel = (const Kernel*)PyLong_AsVoidPtr(handle);
    PyErr_Clear();
    if (!is_kernel(kernel)) throw py::value_error("a handle is what find() gave");
    return *kernel;
}

// launch(handle, blocks, threads, shared bytes, stream, *fields): fields are the words of the
// kernel's struct, integers (or addresses) and floats.
PyObject* launch(PyObject*, PyObject* const* given, Py_ssize_t count) {
    try {
        if (count < 5) throw py::value_error("handle, blocks, threads, shared, stream, *fields");
        const Kernel& kernel = of_handle(given[0]);
        const unsigned long long blocks = PyLong_AsUnsignedLongLong(given[1]);
        const unsigned long long threads = PyLong_AsUnsignedLongLong(given[2]);
        const unsigned long long shared = PyLong_AsUnsignedLongLong(given[3]);
        void* stream = PyLong_AsVoidPtr(given[4]);
        if (PyErr_Occurred()) throw py::error_already_set();
        const size_t fields = (size_t)count - 5;
        if (fields * 8 != kernel.bytes || kernel.bytes > MOST_BYTES)
            refuse(kernel, "takes " + std::to_string(kernel.bytes / 8) + " fields, not " +
                               std::to_string(fields));
        if (blocks < 1 || blocks > 0x7fffffffu || threads < 1 ||
            threads > (unsigned long long)kernel.threads)
            refuse(kernel, std::to_string(blocks) + " blocks of " + std::to_string(threads) +
                               " threads; at most " + std::to_string(kernel.threads));
        alignas(16) unsigned char arguments[MOST_BYTES + 4];
        for (size_t i = 0; i < fields; ++i) {
            PyObject* field = given[5 + i];
            unsigned long long word;
            if (PyFloat_CheckExact(field)) {
                const double value = PyFloat_AS_DOUBLE(field);
                std::memcpy(&word, &value, 8);
            } else {
                word = PyLong_AsUnsignedLongLongMask(field);
                if (word == (unsigned long long)-1 && PyErr_Occurred())
                    throw py::error_already_set();
            }
            std::memcpy(arguments + 8 * i, &word, 8);
        }
        if (shared > USUAL_SHARED) allow_shared(kernel, shared);
        void* pointers[] = {arguments};
        cudaError_t error;
        // a full queue makes the call wait, perhaps for a callback that is Python's
        Py_BEGIN_ALLOW_THREADS;
        error = cudaLaunchKernel(kernel.function, dim3((unsigned)blocks), dim3((unsigned)threads),
                                 pointers, shared, (cudaStream_t)stream);
        Py_END_ALLOW_THREADS;
        check(kernel, error);
    } catch (py::error_already_set& error) {
        error.restore();
        return nullptr;
    } catch (const py::value_error& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
        return nullptr;
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
        return nullptr;
    }
    Py_RETURN_NONE;
}

PyMethodDef launch_method = {"launch", (PyCFunction)(void (*)())launch, METH_FASTCALL,
                             "launch(handle, blocks, threads, shared, stream, *fields)"};

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.def("find", [](const std::string& name) {
        const Kernel* kernel = kernel_named(name.c_str());
        if (kernel == nullptr) throw py::key_error("there is no kernel " + name);
        return (size_t)kernel;
    });
    m.def("kernels", [] {
        py::dict found;
        for_each_kernel([&](const Kernel& kernel) {
            found[kernel.name] = py::make_tuple(kernel.bytes / 8, kernel.threads);
        });
        return found;
    });
    // Kernels are loaded when they are first asked for, which must not happen in a graph's capture.
    m.def("load", [] {
        const py::gil_scoped_release others_may_run;
        cudaFuncAttributes own;
        for_each_kernel([&](const Kernel& kernel) {
            check(kernel, cudaFuncGetAttributes(&own, kernel.function));
        });
    });
    m.attr("runtime_version") = CUDART_VERSION;
    m.add_object("launch", py::reinterpret_steal<py::object>(
                               PyCFunction_NewEx(&launch_method, nullptr, nullptr)));
}
