// Bindings of the gradients of linear maps.
#include <memory>

#include "arrays.h"
#include "kernels.h"

namespace {

using std::ptrdiff_t;

void kernel(const LinearBackward<float>& l) {
    kernels().linear_backward_f32(l);
}
void kernel(const LinearBackward<double>& l) {
    kernels().linear_backward_f64(l);
}

// An argument that may be None: a matrix of all leading axes as one, in g's dtype.
bool matrix_of(PyObject* given, int type, PyArrayObject*& a, ptrdiff_t& rows, ptrdiff_t& between) {
    a = nullptr;
    if (given == Py_None) return true;
    a = array_of(given);
    return a && PyArray_TYPE(a) == type && PyArray_NDIM(a) && leading(a, 1, rows, between);
}

struct Released {
    void operator()(PyArrayObject* x) const { Py_DECREF(reinterpret_cast<PyObject*>(x)); }
};

struct Call {
    PyArrayObject *g, *x, *weight, *kept;
    bool needs[3];
    Activation activation;
    ptrdiff_t rows, g_row, x_row;
};

template <typename T>
bool run(const Call& c, PyArrayObject* dx, PyArrayObject* dweight, PyArrayObject* dbias,
         ptrdiff_t outer, ptrdiff_t inner) {
    LinearBackward<T> l{};
    l.rows = c.rows;
    l.outer = outer;
    l.inner = inner;
    l.g = data<T>(c.g);
    l.g_row = c.g_row;
    if (c.x) {
        l.x = data<T>(c.x);
        l.x_row = c.x_row;
        l.x_col = step(c.x, PyArray_NDIM(c.x) - 1);
    }
    if (c.weight) {
        l.weight = data<T>(c.weight);
        l.w_row = step(c.weight, 0);
        l.w_col = step(c.weight, 1);
    }
    l.activation = c.activation;
    l.kept = c.kept ? data<T>(c.kept) : nullptr;
    l.dx = dx ? data<T>(dx) : nullptr;
    l.dweight = dweight ? data<T>(dweight) : nullptr;
    l.dbias = dbias ? data<T>(dbias) : nullptr;
    const double work = 4.0 * double(c.rows) * double(outer) * double(inner);
    return run_kernel(work, [&] { kernel(l); });
}

// linear_backward(g, x, weight, needs, activation=None, kept=None) -> (dx, dweight, dbias)
PyObject* linear_backward(PyObject* below, PyObject* const* args, Py_ssize_t count,
                          PyObject* names) {
    Call c;
    ptrdiff_t x_rows = 0, w_rows = 0, between = 0;
    bool unused = false;
    if (count < 4 || count > 6 || names || !(c.g = array_of(args[0])) || !PyArray_NDIM(c.g) ||
        !PyTuple_CheckExact(args[3]) || PyTuple_GET_SIZE(args[3]) != 3)
        return hand_on(below, args, count, names);
    const int type = PyArray_TYPE(c.g), last = PyArray_NDIM(c.g) - 1;
    for (int i = 0; i < 3; i++) c.needs[i] = PyTuple_GET_ITEM(args[3], i) == Py_True;
    const ptrdiff_t outer = PyArray_DIM(c.g, last);
    // a gradient that is the same for all elements, or turned, is written out
    PyArrayObject* plain = nullptr;
    if (!leading(c.g, 1, c.rows, c.g_row) || (outer != 1 && step(c.g, last) != 1)) {
        plain = reinterpret_cast<PyArrayObject*>(PyArray_NewCopy(c.g, NPY_CORDER));
        if (!plain) return nullptr;
        c.g = plain;
        leading(c.g, 1, c.rows, c.g_row);
    }
    const std::unique_ptr<PyArrayObject, Released> held(plain);
    const bool fits =
        matrix_of(args[1], type, c.x, x_rows, c.x_row) &&
        matrix_of(args[2], type, c.weight, w_rows, between) && (c.x || !c.needs[1]) &&
        (c.weight || !c.needs[0]) && (!c.x || x_rows == c.rows) &&
        (!c.weight || (PyArray_NDIM(c.weight) == 2 && PyArray_DIM(c.weight, 0) == outer)) &&
        activation_of(count > 4 ? args[4] : Py_None, c.activation, unused);
    if (!fits) return hand_on(below, args, count, names);
    const ptrdiff_t inner = c.weight ? PyArray_DIM(c.weight, 1)
                            : c.x    ? PyArray_DIM(c.x, PyArray_NDIM(c.x) - 1)
                                     : 0;
    c.kept = nullptr;
    if (c.activation != Activation::none &&
        (count < 6 || !(c.kept = plain_f32(args[5])) || PyArray_SIZE(c.kept) != c.rows * outer))
        return hand_on(below, args, count, names);
    if (c.x && PyArray_DIM(c.x, PyArray_NDIM(c.x) - 1) != inner)
        return hand_on(below, args, count, names);
    npy_intp shape[NPY_MAXDIMS];
    for (int i = 0; i < last; i++) shape[i] = PyArray_DIM(c.g, i);
    shape[last] = inner;
    const npy_intp square[] = {outer, inner};
    PyArrayObject* results[3] = {};
    bool done = true;
    for (int i = 0; i < 3 && done; i++) {
        if (!c.needs[i]) continue;
        results[i] = i == 0 ? new_array(last + 1, shape, type) : new_array(3 - i, square, type);
        done = results[i];
    }
    done = done &&
           (type == NPY_FLOAT ? run<float>(c, results[0], results[1], results[2], outer, inner)
                              : run<double>(c, results[0], results[1], results[2], outer, inner));
    PyObject* made = nullptr;
    if (done) {
        PyObject* each[3];
        for (int i = 0; i < 3; i++)
            each[i] = results[i] ? reinterpret_cast<PyObject*>(results[i]) : Py_None;
        made = PyTuple_Pack(3, each[0], each[1], each[2]);
    }
    for (PyArrayObject* result : results) Py_XDECREF(reinterpret_cast<PyObject*>(result));
    return made;
}

}  // namespace

PyMethodDef LINEAR_ENTRIES[] = {
    entry_method("linear_backward", linear_backward),
    {},
};
