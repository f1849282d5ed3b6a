// Bindings of losses, optimiser steps and the gradient of look-ups.
#include <cmath>
#include <vector>

#include "arrays.h"
#include "kernels.h"

namespace {

using std::ptrdiff_t;

// ---------------------------------------------------------------- cross-entropy

// An argument as a contiguous int64 array; other integers are converted. A new reference or null.
PyArrayObject* indices(PyObject* x) {
    if (!PyArray_CheckExact(x)) return nullptr;
    PyArrayObject* a = reinterpret_cast<PyArrayObject*>(x);
    if (!PyArray_ISINTEGER(a)) return nullptr;
    return reinterpret_cast<PyArrayObject*>(
        PyArray_FROMANY(x, NPY_INT64, 0, 0, NPY_ARRAY_CARRAY_RO));
}

// (logits, target, weight, ignore_index, label_smoothing): false where the kernel cannot take them.
bool cross_entropy_call(PyArrayObject* x, PyObject* const* args, CrossEntropy& a,
                        PyArrayObject*& target) {
    if (!x || PyArray_NDIM(x) != 2 || !PyArray_SIZE(x)) return false;
    a.rows = PyArray_DIM(x, 0);
    a.classes = PyArray_DIM(x, 1);
    a.logits = data<float>(x);
    a.weight = nullptr;
    if (args[2] != Py_None) {
        PyArrayObject* weight = plain_f32(args[2]);
        if (!weight || PyArray_SIZE(weight) != a.classes) return false;
        a.weight = data<float>(weight);
    }
    a.ignore_index = PyLong_AsLongLong(args[3]);
    a.label_smoothing = float(PyFloat_AsDouble(args[4]));
    if (PyErr_Occurred()) {
        PyErr_Clear();  // what is below says what is wrong
        return false;
    }
    target = indices(args[1]);
    if (!target || PyArray_SIZE(target) != a.rows) {
        PyErr_Clear();
        Py_CLEAR(target);
        return false;
    }
    a.target = data<std::int64_t>(target);
    for (ptrdiff_t r = 0; r < a.rows; r++)
        if (a.target[r] != a.ignore_index && (a.target[r] < 0 || a.target[r] >= a.classes)) {
            Py_CLEAR(target);
            return false;
        }
    return true;
}

PyObject* cross_entropy(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    CrossEntropy a{};
    PyArrayObject* target = nullptr;
    if (count != 5 || names) return hand_on(below, args, count, names);
    const Plain x(args[0]);
    if (!cross_entropy_call(x, args, a, target)) return hand_on(below, args, count, names);
    const npy_intp shape[] = {a.rows};
    PyArrayObject *losses = new_array(1, shape, NPY_FLOAT), *lse = new_array(1, shape, NPY_FLOAT);
    PyArrayObject* total = new_array(0, nullptr, NPY_FLOAT);
    if (losses && lse && total) {
        a.losses = data<float>(losses);
        a.lse = data<float>(lse);
        a.total = data<float>(total);
        Unlocked unlocked(20.0 * double(a.rows) * double(a.classes));
        kernels().cross_entropy_f32(a);
    }
    Py_DECREF(target);
    return packed(losses, lse, total);
}

// (g, logits, target, weight, ignore_index, label_smoothing, lse) -> dx
PyObject* cross_entropy_backward(PyObject* below, PyObject* const* args, Py_ssize_t count,
                                 PyObject* names) {
    CrossEntropy a{};
    PyArrayObject *target = nullptr, *g, *lse;
    if (count != 7 || names) return hand_on(below, args, count, names);
    const Plain x(args[1]);
    if (!(g = array_of(args[0])) || PyArray_TYPE(g) != NPY_FLOAT || PyArray_NDIM(g) > 1 ||
        !(lse = plain_f32(args[6])) || !cross_entropy_call(x, args + 1, a, target))
        return hand_on(below, args, count, names);
    PyArrayObject* dx = nullptr;
    const bool one = !PyArray_NDIM(g);
    if ((one || PyArray_SIZE(g) == a.rows) && PyArray_SIZE(lse) == a.rows) {
        dx = new_like(x);
        if (dx) {
            a.g = data<float>(g);
            a.g_step = one ? 0 : step(g, 0);
            a.lse = data<float>(lse);
            a.dx = data<float>(dx);
            Unlocked unlocked(20.0 * double(a.rows) * double(a.classes));
            kernels().cross_entropy_backward_f32(a);
        }
        Py_DECREF(target);
        return reinterpret_cast<PyObject*>(dx);
    }
    Py_DECREF(target);
    return hand_on(below, args, count, names);
}

// (x, target, weight, pos_weight) without weights
PyObject* bce_logits(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 4 || names || args[2] != Py_None || args[3] != Py_None)
        return hand_on(below, args, count, names);
    const Plain x(args[0]), target(args[1]);
    if (!x || !target || !same_shape(x, target)) return hand_on(below, args, count, names);
    PyArrayObject* out = new_like(x);
    if (!out) return nullptr;
    Unlocked unlocked(40.0 * double(PyArray_SIZE(x)));
    kernels().bce_logits_f32(data<float>(out), data<float>(x), data<float>(target),
                             PyArray_SIZE(x));
    return reinterpret_cast<PyObject*>(out);
}

// (g, x, target, weight, pos_weight) without weights
PyObject* bce_logits_backward(PyObject* below, PyObject* const* args, Py_ssize_t count,
                              PyObject* names) {
    if (count != 5 || names || args[3] != Py_None || args[4] != Py_None)
        return hand_on(below, args, count, names);
    const Plain g(args[0]), x(args[1]), target(args[2]);
    if (!g || !x || !target || !same_shape(g, x) || !same_shape(x, target))
        return hand_on(below, args, count, names);
    PyArrayObject* dx = new_like(x);
    if (!dx) return nullptr;
    Unlocked unlocked(40.0 * double(PyArray_SIZE(x)));
    kernels().bce_logits_backward_f32(data<float>(dx), data<float>(g), data<float>(x),
                                      data<float>(target), PyArray_SIZE(x));
    return reinterpret_cast<PyObject*>(dx);
}

// ---------------------------------------------------------------- optimisers

// A writable contiguous float32 array of `n` elements (any number for -1), or null.
float* flat_f32(PyObject* x, ptrdiff_t n, bool writable) {
    PyArrayObject* a = plain_f32(x);
    if (!a || (n >= 0 && PyArray_SIZE(a) != n) || (writable && !PyArray_ISWRITEABLE(a)))
        return nullptr;
    return data<float>(a);
}

// The keyword argument `name`, borrowed, or null.
PyObject* keyword(PyObject* const* args, Py_ssize_t count, PyObject* names, const char* name) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++)
        if (!PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), name))
            return args[count + i];
    return nullptr;
}

// The options of a step, which are all passed by keyword; ok turns false if one is not there.
struct Options {
    PyObject* const* args;
    Py_ssize_t count;
    PyObject* names;
    bool ok = true;

    double number(const char* name) {
        PyObject* x = keyword(args, count, names, name);
        const double value = x ? PyFloat_AsDouble(x) : 0.0;
        if (!x || PyErr_Occurred()) ok = false;
        return value;
    }
    bool flag(const char* name) {
        PyObject* x = keyword(args, count, names, name);
        if (!x) ok = false;
        return x && PyObject_IsTrue(x) == 1;
    }
};

// The positional arguments are lists of one length; false where they are not.
bool lists(PyObject* const* args, Py_ssize_t count, Py_ssize_t& length) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (!PyList_CheckExact(args[i])) return false;
    length = PyList_GET_SIZE(args[0]);
    for (Py_ssize_t i = 1; i < count; i++)
        if (PyList_GET_SIZE(args[i]) != length) return false;
    return true;
}

// (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, *, ...)
PyObject* adam_step(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    Py_ssize_t length;
    if (count != 6 || !names || !lists(args, 6, length)) return hand_on(below, args, count, names);
    Options options{args, count, names};
    AdamStep a{};
    const double lr = options.number("lr"), beta1 = options.number("beta1"),
                 beta2 = options.number("beta2");
    a.lr = float(lr);
    a.beta1 = float(beta1);
    a.beta2 = float(beta2);
    a.rest1 = float(1.0 - beta1);
    a.rest2 = float(1.0 - beta2);
    a.eps = float(options.number("eps"));
    a.weight_decay = float(options.number("weight_decay"));
    a.maximize = options.flag("maximize");
    a.decoupled = options.flag("decoupled");
    const bool amsgrad = options.flag("amsgrad");
    bool fits = options.ok;
    std::vector<AdamParameter> parameters(std::size_t(fits ? length : 0));
    double work = 0;
    for (Py_ssize_t i = 0; fits && i < length; i++) {
        AdamParameter& p = parameters[std::size_t(i)];
        PyObject* x = PyList_GET_ITEM(args[0], i);
        p.p = flat_f32(x, -1, true);
        if (!p.p) fits = false;
        if (!fits) break;
        p.n = PyArray_SIZE(reinterpret_cast<PyArrayObject*>(x));
        p.g = flat_f32(PyList_GET_ITEM(args[1], i), p.n, false);
        p.average = flat_f32(PyList_GET_ITEM(args[2], i), p.n, true);
        p.square = flat_f32(PyList_GET_ITEM(args[3], i), p.n, true);
        p.largest = amsgrad ? flat_f32(PyList_GET_ITEM(args[4], i), p.n, true) : nullptr;
        const double steps = PyFloat_AsDouble(PyList_GET_ITEM(args[5], i));
        p.step_size = float(lr / (1.0 - std::pow(beta1, steps)));
        p.root = float(std::sqrt(1.0 - std::pow(beta2, steps)));
        fits = p.g && p.average && p.square && (p.largest || !amsgrad) && !PyErr_Occurred();
        work += 20.0 * double(p.n);
    }
    if (!fits) {
        PyErr_Clear();
        return hand_on(below, args, count, names);
    }
    a.parameters = parameters.data();
    a.count = length;
    if (!run_kernel(work, [&] { kernels().adam_step_f32(a); })) return nullptr;
    Py_RETURN_NONE;
}

// (params, grads, momenta, first, *, ...)
PyObject* sgd_step(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    Py_ssize_t length;
    if (count != 4 || !names || !lists(args, 4, length)) return hand_on(below, args, count, names);
    Options options{args, count, names};
    SgdStep a{};
    a.lr = float(options.number("lr"));
    a.momentum = float(options.number("momentum"));
    a.dampening = float(options.number("dampening"));
    a.weight_decay = float(options.number("weight_decay"));
    a.nesterov = options.flag("nesterov");
    a.maximize = options.flag("maximize");
    bool fits = options.ok;
    std::vector<SgdParameter> parameters(std::size_t(fits ? length : 0));
    double work = 0;
    for (Py_ssize_t i = 0; fits && i < length; i++) {
        SgdParameter& p = parameters[std::size_t(i)];
        PyObject* x = PyList_GET_ITEM(args[0], i);
        p.p = flat_f32(x, -1, true);
        if (!p.p) fits = false;
        if (!fits) break;
        p.n = PyArray_SIZE(reinterpret_cast<PyArrayObject*>(x));
        p.g = flat_f32(PyList_GET_ITEM(args[1], i), p.n, false);
        PyObject* buffer = PyList_GET_ITEM(args[2], i);
        const bool used = a.momentum != 0.0f && buffer != Py_None;
        p.buffer = used ? flat_f32(buffer, p.n, true) : nullptr;
        p.first = PyObject_IsTrue(PyList_GET_ITEM(args[3], i)) == 1;
        fits = p.g && (p.buffer || !used);
        work += 10.0 * double(p.n);
    }
    if (!fits) {
        PyErr_Clear();
        return hand_on(below, args, count, names);
    }
    a.parameters = parameters.data();
    a.count = length;
    if (!run_kernel(work, [&] { kernels().sgd_step_f32(a); })) return nullptr;
    Py_RETURN_NONE;
}

// A list of contiguous float32 arrays; false if it is something else.
bool flat_list(PyObject* list, bool writable, std::vector<float*>& arrays,
               std::vector<ptrdiff_t>& sizes) {
    if (!PyList_CheckExact(list)) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject* x = PyList_GET_ITEM(list, i);
        float* p = flat_f32(x, -1, writable);
        if (!p) return false;
        arrays.push_back(p);
        sizes.push_back(PyArray_SIZE(reinterpret_cast<PyArrayObject*>(x)));
    }
    return true;
}

// (grads, norm_type) -> float
PyObject* grad_norm(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    std::vector<float*> arrays;
    std::vector<ptrdiff_t> sizes;
    if (count != 2 || names || !PyFloat_CheckExact(args[1]) || PyFloat_AS_DOUBLE(args[1]) != 2.0 ||
        !flat_list(args[0], false, arrays, sizes) || arrays.empty())
        return hand_on(below, args, count, names);
    std::vector<double> sums(arrays.size());
    double work = 0, total = 0;
    for (ptrdiff_t n : sizes) work += 2.0 * double(n);
    {
        Unlocked unlocked(work);
        kernels().square_sums_f32(sums.data(),
                                  {arrays.data(), sizes.data(), ptrdiff_t(arrays.size())});
    }
    for (double sum : sums) total += sum;
    return PyFloat_FromDouble(std::sqrt(total));
}

// (grads, factor)
PyObject* grad_scale(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    std::vector<float*> arrays;
    std::vector<ptrdiff_t> sizes;
    if (count != 2 || names || !PyFloat_CheckExact(args[1]) ||
        !flat_list(args[0], true, arrays, sizes))
        return hand_on(below, args, count, names);
    const float factor = float(PyFloat_AS_DOUBLE(args[1]));
    if (!run_kernel(0, [&] {
            kernels().scale_f32({arrays.data(), sizes.data(), ptrdiff_t(arrays.size())}, factor);
        }))
        return nullptr;
    Py_RETURN_NONE;
}

// ---------------------------------------------------------------- look-ups

// (g, index, num_embeddings, padding_idx) -> (num_embeddings, D)
PyObject* embedding_backward(PyObject* below, PyObject* const* args, Py_ssize_t count,
                             PyObject* names) {
    if (count != 4 || names) return hand_on(below, args, count, names);
    // a gradient whose elements are all one is one row
    const auto* one = static_cast<const float*>(shared(args[0]));
    const Plain plain(one ? Py_None : args[0]);
    PyArrayObject* g = one ? reinterpret_cast<PyArrayObject*>(args[0]) : plain;
    PyArrayObject* index;
    if (!g || PyArray_NDIM(g) < 1 || !PyLong_CheckExact(args[2]) ||
        (args[3] != Py_None && !PyLong_CheckExact(args[3])))
        return hand_on(below, args, count, names);
    index = indices(args[1]);
    const npy_intp width = PyArray_DIM(g, PyArray_NDIM(g) - 1);
    if (!index || PyArray_SIZE(index) * width != PyArray_SIZE(g)) {
        PyErr_Clear();
        Py_XDECREF(index);
        return hand_on(below, args, count, names);
    }
    const npy_intp shape[] = {PyLong_AsSsize_t(args[2]), width};
    ptrdiff_t padding = args[3] == Py_None ? -1 : PyLong_AsSsize_t(args[3]);
    if (padding < 0 && args[3] != Py_None) padding += shape[0];
    PyArrayObject* out = new_array(2, shape, NPY_FLOAT);
    if (out) {
        const std::vector<float> row(std::size_t(one ? width : 0), one ? *one : 0.0f);
        const bool done = run_kernel(double(PyArray_SIZE(out)) + double(PyArray_SIZE(g)), [&] {
            kernels().embedding_backward_f32(data<float>(out), one ? row.data() : data<float>(g),
                                             one ? 0 : width, data<std::int64_t>(index),
                                             PyArray_SIZE(index), shape[0], width, padding);
        });
        if (!done) Py_CLEAR(out);
    }
    Py_DECREF(index);
    return reinterpret_cast<PyObject*>(out);
}

}  // namespace

PyMethodDef TRAINING_ENTRIES[] = {
    entry_method("cross_entropy", cross_entropy),
    entry_method("cross_entropy_backward", cross_entropy_backward),
    entry_method("binary_cross_entropy_with_logits", bce_logits),
    entry_method("binary_cross_entropy_with_logits_backward", bce_logits_backward),
    entry_method("adam_step", adam_step),
    entry_method("sgd_step", sgd_step),
    entry_method("grad_norm", grad_norm),
    entry_method("grad_scale", grad_scale),
    entry_method("embedding_backward", embedding_backward),
    {},
};
