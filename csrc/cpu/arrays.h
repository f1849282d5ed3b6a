// What the bindings share: NumPy arrays as the kernels take them, and calls that are handed on.
//
// A table entry is a function made by `entry(name, below)`: it takes the arrays that its kernel can
// take and hands every other call on to `below`, the same entry of the layer below. So a call costs
// some comparisons of pointers and no guard in Python.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL minidl_cpu_array_api
#ifndef IMPORTS_ARRAY_API
#    define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include <cstddef>
#include <new>

#include "gemm.h"

// An argument as an array of float32 or float64 whose steps are whole elements, or null.
inline PyArrayObject* array_of(PyObject* x) {
    if (!PyArray_CheckExact(x)) return nullptr;
    PyArrayObject* a = reinterpret_cast<PyArrayObject*>(x);
    const int type = PyArray_TYPE(a);
    if (type != NPY_FLOAT && type != NPY_DOUBLE) return nullptr;
    if (!PyArray_ISBEHAVED_RO(a)) return nullptr;
    const npy_intp item = PyArray_ITEMSIZE(a);
    for (int i = 0; i < PyArray_NDIM(a); i++)
        if (PyArray_STRIDE(a, i) % item) return nullptr;
    return a;
}

// An argument as a C-contiguous float32 array, or null.
inline PyArrayObject* plain_f32(PyObject* x) {
    if (!PyArray_CheckExact(x)) return nullptr;
    PyArrayObject* a = reinterpret_cast<PyArrayObject*>(x);
    return PyArray_TYPE(a) == NPY_FLOAT && PyArray_ISCARRAY_RO(a) ? a : nullptr;
}

// NumPy's number for bfloat16, which the dtype gets when ml_dtypes is imported; see bindings.cpp.
extern int bfloat16_type;

// An argument as a C-contiguous bfloat16 array, or null.
inline PyArrayObject* plain_bf16(PyObject* x) {
    if (!PyArray_CheckExact(x)) return nullptr;
    PyArrayObject* a = reinterpret_cast<PyArrayObject*>(x);
    return PyArray_TYPE(a) == bfloat16_type && PyArray_ISCARRAY_RO(a) ? a : nullptr;
}

// A float32 argument in C order for the length of one call: itself, or a copy where its layout is
// another. Empty if it is something else, or without memory for the copy (an exception is set
// then).
class Plain {
  public:
    explicit Plain(PyObject* x) : a_(plain_f32(x)) {
        if (a_) {
            Py_INCREF(a_);
        } else if (PyArray_CheckExact(x)) {
            PyArrayObject* given = reinterpret_cast<PyArrayObject*>(x);
            if (PyArray_TYPE(given) == NPY_FLOAT && PyArray_ISNOTSWAPPED(given))
                a_ = reinterpret_cast<PyArrayObject*>(PyArray_NewCopy(given, NPY_CORDER));
        }
    }
    ~Plain() { Py_XDECREF(a_); }
    Plain(const Plain&) = delete;
    Plain& operator=(const Plain&) = delete;
    explicit operator bool() const { return a_ != nullptr; }
    operator PyArrayObject*() const { return a_; }

  private:
    PyArrayObject* a_;
};

// The gradient of a type that all elements share (every step 0, as that of a sum), or null; there
// may be none.
inline const void* shared(PyObject* g, int type = NPY_FLOAT) {
    if (!PyArray_CheckExact(g)) return nullptr;
    PyArrayObject* a = reinterpret_cast<PyArrayObject*>(g);
    if (PyArray_TYPE(a) != type || !PyArray_ISBEHAVED_RO(a) || !PyArray_NDIM(a) || !PyArray_SIZE(a))
        return nullptr;
    for (int i = 0; i < PyArray_NDIM(a); i++)
        if (PyArray_STRIDE(a, i) && PyArray_DIM(a, i) != 1) return nullptr;
    return PyArray_DATA(a);
}

inline std::ptrdiff_t step(PyArrayObject* a, int axis) {
    return PyArray_DIM(a, axis) == 1 ? 0 : PyArray_STRIDE(a, axis) / PyArray_ITEMSIZE(a);
}

template <typename T>
T* data(PyArrayObject* a) {
    return static_cast<T*>(PyArray_DATA(a));
}

inline bool same_shape(PyArrayObject* a, PyArrayObject* b) {
    return PyArray_NDIM(a) == PyArray_NDIM(b) &&
           PyArray_CompareLists(PyArray_DIMS(a), PyArray_DIMS(b), PyArray_NDIM(a));
}

// A new array of a's shape and dtype, C-contiguous; null with an exception set.
inline PyArrayObject* new_like(PyArrayObject* a) {
    return reinterpret_cast<PyArrayObject*>(
        PyArray_SimpleNew(PyArray_NDIM(a), PyArray_DIMS(a), PyArray_TYPE(a)));
}
inline PyArrayObject* new_array(int dims, const npy_intp* shape, int type) {
    return reinterpret_cast<PyArrayObject*>(
        PyArray_SimpleNew(dims, const_cast<npy_intp*>(shape), type));
}

// Leading axes of `a`, all but the last `keep`, as one axis of uniform step.
inline bool leading(PyArrayObject* a, int keep, std::ptrdiff_t& count, std::ptrdiff_t& between) {
    count = 1;
    between = 0;
    for (int i = PyArray_NDIM(a) - keep - 1; i >= 0; i--) {
        const std::ptrdiff_t n = PyArray_DIM(a, i), s = step(a, i);
        if (n == 1) continue;
        if (count == 1)
            between = s;
        else if (s != count * between)
            return false;
        count *= n;
    }
    return true;
}

// Without the interpreter lock where the work (operations, elements) is worth it.
class Unlocked {
  public:
    explicit Unlocked(double operations)
        : state_(operations > 2e6 ? PyEval_SaveThread() : nullptr) {}
    ~Unlocked() {
        if (state_) PyEval_RestoreThread(state_);
    }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

  private:
    PyThreadState* state_;
};

// Run a kernel; false with MemoryError set if it had no scratch memory.
template <typename Kernel>
bool run_kernel(double operations, const Kernel& kernel) {
    try {
        Unlocked unlocked(operations);
        kernel();
        return true;
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
}

// The arrays as a tuple, whose references it takes over; null among them means that an exception is
// set.
template <typename... Arrays>
PyObject* packed(Arrays... arrays) {
    const bool whole = (... && (arrays != nullptr));
    PyObject* result =
        whole ? PyTuple_Pack(sizeof...(arrays), reinterpret_cast<PyObject*>(arrays)...) : nullptr;
    (Py_XDECREF(reinterpret_cast<PyObject*>(arrays)), ...);
    return result;
}

inline PyObject* hand_on(PyObject* below, PyObject* const* args, Py_ssize_t count,
                         PyObject* names) {
    if (PyErr_Occurred()) return nullptr;
    return PyObject_Vectorcall(below, args, std::size_t(count), names);
}

// The same for an entry that takes bfloat16, whose `below` is a pair: the entry below, and that
// entry for 16-bit floats, which it widens.
inline PyObject* hand_on_either(PyObject* below, PyObject* const* args, Py_ssize_t count,
                                PyObject* names) {
    bool half = false;
    const Py_ssize_t all = count + (names ? PyTuple_GET_SIZE(names) : 0);
    for (Py_ssize_t i = 0; i < all; i++) {
        if (!PyArray_Check(args[i])) continue;
        const int type = PyArray_TYPE(reinterpret_cast<PyArrayObject*>(args[i]));
        half |= type == NPY_HALF || type == bfloat16_type;
    }
    return hand_on(PyTuple_GET_ITEM(below, half), args, count, names);
}

// The activation of that name or None, and whether its input is kept; false if it is neither.
bool activation_of(PyObject* name, Activation& activation, bool& keep);

// The signature of an entry, and a method table of them that ends with a null name.
using Entry = PyObject*(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names);

inline PyMethodDef entry_method(const char* name, Entry* function) {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)(void)>(function)),
            METH_FASTCALL | METH_KEYWORDS, nullptr};
}

extern PyMethodDef ATTENTION_ENTRIES[], LINEAR_ENTRIES[], MATMUL_ENTRIES[], MOVEMENT_ENTRIES[],
    POINTWISE_ENTRIES[], RANDOM_ENTRIES[], ROW_ENTRIES[], TRAINING_ENTRIES[];
