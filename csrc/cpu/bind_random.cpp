// Bindings of the random numbers.
#include <cmath>
#include <cstdint>

#include "arrays.h"
#include "kernels.h"

namespace {

using std::uint64_t;

// The last two arguments: seed and offset, taken modulo 2^64.
bool stream(PyObject* const* args, uint64_t& seed, uint64_t& offset) {
    if (!PyLong_Check(args[0]) || !PyLong_Check(args[1])) return false;
    seed = PyLong_AsUnsignedLongLongMask(args[0]);
    offset = PyLong_AsUnsignedLongLongMask(args[1]);
    return !PyErr_Occurred();
}

// A shape given as a tuple of integers; the number of axes, or -1.
int shape_of(PyObject* shape, npy_intp* sizes) {
    if (!PyTuple_CheckExact(shape) || PyTuple_GET_SIZE(shape) > NPY_MAXDIMS) return -1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(shape); i++) {
        PyObject* size = PyTuple_GET_ITEM(shape, i);
        if (!PyLong_CheckExact(size)) return -1;
        sizes[i] = PyLong_AsSsize_t(size);
        if (sizes[i] < 0) return -1;
    }
    return int(PyTuple_GET_SIZE(shape));
}

// (n, seed, offset)
PyObject* philox_bits(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    uint64_t seed, offset;
    if (count != 3 || names || !PyLong_CheckExact(args[0]) || !stream(args + 1, seed, offset)) {
        PyErr_Clear();
        return hand_on(below, args, count, names);
    }
    const npy_intp n = PyLong_AsSsize_t(args[0]);
    PyArrayObject* out = new_array(1, &n, NPY_UINT32);
    if (!out) return nullptr;
    Unlocked unlocked(3.0 * double(n));
    kernels().philox_bits(data<std::uint32_t>(out), n, seed, offset);
    return reinterpret_cast<PyObject*>(out);
}

// (shape, dtype, seed, offset)
PyObject* uniform(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    npy_intp sizes[NPY_MAXDIMS];
    uint64_t seed, offset;
    PyArray_Descr* type = nullptr;
    const int dims = count == 4 && !names ? shape_of(args[0], sizes) : -1;
    if (dims < 0 || !stream(args + 2, seed, offset) || !PyArray_DescrConverter(args[1], &type)) {
        PyErr_Clear();
        return hand_on(below, args, count, names);
    }
    const int number = type->type_num;
    Py_DECREF(type);
    if (number != NPY_FLOAT && number != NPY_DOUBLE) return hand_on(below, args, count, names);
    PyArrayObject* out = new_array(dims, sizes, number);
    if (!out) return nullptr;
    const npy_intp n = PyArray_SIZE(out);
    Unlocked unlocked(3.0 * double(n));
    if (number == NPY_FLOAT)
        kernels().uniform_f32(data<float>(out), n, seed, offset);
    else
        kernels().uniform_f64(data<double>(out), n, seed, offset);
    return reinterpret_cast<PyObject*>(out);
}

// (shape, p, seed, offset) for one p
PyObject* bernoulli(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    npy_intp sizes[NPY_MAXDIMS];
    uint64_t seed, offset;
    const int dims = count == 4 && !names ? shape_of(args[0], sizes) : -1;
    if (dims < 0 || !(PyFloat_Check(args[1]) || PyLong_Check(args[1])) ||
        !stream(args + 2, seed, offset)) {
        PyErr_Clear();
        return hand_on(below, args, count, names);
    }
    const double p = PyFloat_AsDouble(args[1]);
    PyArrayObject* out = new_array(dims, sizes, NPY_BOOL);
    if (!out) return nullptr;
    // ties to even, like Python's round
    const uint64_t limit = uint64_t(std::nearbyint(p * 4294967296.0));
    const npy_intp n = PyArray_SIZE(out);
    Unlocked unlocked(3.0 * double(n));
    kernels().bernoulli(data<unsigned char>(out), n, limit, seed, offset);
    return reinterpret_cast<PyObject*>(out);
}

// (x, p, seed, offset)
PyObject* dropout(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    uint64_t seed, offset;
    if (count != 4 || names || !(PyFloat_Check(args[1]) || PyLong_Check(args[1])) ||
        !stream(args + 2, seed, offset)) {
        PyErr_Clear();
        return hand_on(below, args, count, names);
    }
    const Plain x(args[0]);
    if (!x) return hand_on(below, args, count, names);
    const double p = PyFloat_AsDouble(args[1]);
    PyArrayObject* out = new_like(x);
    if (!out) return nullptr;
    const uint64_t limit = uint64_t(std::nearbyint((1 - p) * 4294967296.0));
    const npy_intp n = PyArray_SIZE(x);
    Unlocked unlocked(3.0 * double(n));
    kernels().dropout_f32(data<float>(out), data<float>(x), n, float(p < 1 ? 1 / (1 - p) : 0.0),
                          limit, seed, offset);
    return reinterpret_cast<PyObject*>(out);
}

}  // namespace

PyMethodDef RANDOM_ENTRIES[] = {
    entry_method("philox_bits", philox_bits),
    entry_method("uniform", uniform),
    entry_method("bernoulli", bernoulli),
    entry_method("dropout", dropout),
    {},
};
