// Bindings of the matrix products.
#include "arrays.h"
#include "kernels.h"
#include "parallel.h"
#include "weights.h"

namespace {

using std::ptrdiff_t;

constexpr struct {
    const char* name;
    Activation activation;
    bool by_input;  // its derivative is of the input, not of the result
} ACTIVATIONS[] = {
    {"relu", Activation::relu, false},          {"gelu", Activation::gelu, true},
    {"gelu_tanh", Activation::gelu_tanh, true}, {"silu", Activation::silu, true},
    {"tanh", Activation::tanh, false},          {"sigmoid", Activation::sigmoid, false},
};

}  // namespace

bool activation_of(PyObject* name, Activation& activation, bool& keep) {
    if (name == Py_None) {
        activation = Activation::none;
        keep = false;
        return true;
    }
    if (!PyUnicode_Check(name)) return false;
    for (const auto& one : ACTIVATIONS)
        if (!PyUnicode_CompareWithASCIIString(name, one.name)) {
            activation = one.activation;
            keep = keep && one.by_input;
            return true;
        }
    return false;
}

namespace {

constexpr int MAX_DIMS = 32;

void gemm(const GemmCall<float>& g) {
    kernels().gemm_f32(g);
}
void gemm(const GemmCall<double>& g) {
    kernels().gemm_f64(g);
}

bool takes_packed(const GemmCall<float>& g) {
    return kernels().takes_packed_f32(g);
}
bool takes_packed(const GemmCall<double>& g) {
    return kernels().takes_packed_f64(g);
}

// ---------------------------------------------------------------- matmul

struct Matrices {
    ptrdiff_t m, n, k;
    ptrdiff_t a_row, a_col, b_row, b_col;
    int batch_dims = 0;
    npy_intp batch[MAX_DIMS];
    ptrdiff_t a_step[MAX_DIMS], b_step[MAX_DIMS];
};

// Fill in sizes and steps by the rules of NumPy's matmul; false where they do not fit.
bool matrices(PyArrayObject* x, PyArrayObject* y, Matrices& s) {
    const int xd = PyArray_NDIM(x), yd = PyArray_NDIM(y);
    if (!xd || !yd || xd > MAX_DIMS || yd > MAX_DIMS) return false;
    s.m = xd == 1 ? 1 : PyArray_DIM(x, xd - 2);
    s.k = PyArray_DIM(x, xd - 1);
    s.a_row = xd == 1 ? 0 : step(x, xd - 2);
    s.a_col = step(x, xd - 1);
    s.n = yd == 1 ? 1 : PyArray_DIM(y, yd - 1);
    s.b_row = step(y, yd == 1 ? 0 : yd - 2);
    s.b_col = yd == 1 ? 0 : step(y, yd - 1);
    if (PyArray_DIM(y, yd == 1 ? 0 : yd - 2) != s.k) return false;
    const int xb = xd > 2 ? xd - 2 : 0, yb = yd > 2 ? yd - 2 : 0;
    ptrdiff_t rows, between;
    if (xb && !yb && yd > 1 && leading(x, 1, rows, between)) {
        // one product: the rows of all matrices of x
        s.a_row = between;
        s.m = rows;
        s.batch_dims = -xb;  // x's shape is the result's
        return true;
    }
    s.batch_dims = xb > yb ? xb : yb;
    for (int i = 0; i < s.batch_dims; i++) {
        const int xi = i - (s.batch_dims - xb), yi = i - (s.batch_dims - yb);
        const npy_intp p = xi < 0 ? 1 : PyArray_DIM(x, xi), q = yi < 0 ? 1 : PyArray_DIM(y, yi);
        if (p != q && p != 1 && q != 1) return false;
        s.batch[i] = p == 1 ? q : p;
        s.a_step[i] = xi < 0 ? 0 : step(x, xi);
        s.b_step[i] = yi < 0 ? 0 : step(y, yi);
    }
    return true;
}

template <typename T>
void multiply(const Matrices& s, const T* a, const T* b, T* c) {
    GemmCall<T> g{s.m, s.n, s.k, a, s.a_row, s.a_col, b, s.b_row, s.b_col, c, s.n, nullptr, false};
    if (s.batch_dims <= 0) return gemm(g);
    ptrdiff_t items = 1;
    for (int i = 0; i < s.batch_dims; i++) items *= s.batch[i];
    const auto item = [&](ptrdiff_t index) {
        GemmCall<T> one = g;
        one.c = c + index * s.m * s.n;
        for (int i = s.batch_dims - 1; i >= 0; i--) {
            const ptrdiff_t at = index % s.batch[i];
            index /= s.batch[i];
            one.a += at * s.a_step[i];
            one.b += at * s.b_step[i];
        }
        gemm(one);
    };
    const double work = double(items) * double(s.m) * double(s.n) * double(s.k);
    if (work < 3e5 || items == 1)
        for (ptrdiff_t i = 0; i < items; i++) item(i);
    else
        parallel_for(items, item);
}

PyObject* matmul(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyArrayObject *x, *y;
    Matrices s;
    if (count != 2 || names || !(x = array_of(args[0])) || !(y = array_of(args[1])) ||
        PyArray_TYPE(x) != PyArray_TYPE(y) || !matrices(x, y, s))
        return hand_on(below, args, count, names);
    npy_intp shape[MAX_DIMS + 2];
    int dims = s.batch_dims;
    const npy_intp* batch = s.batch;
    if (dims < 0) {
        dims = -dims;
        batch = PyArray_DIMS(x);
    }
    for (int i = 0; i < dims; i++) shape[i] = batch[i];
    if (PyArray_NDIM(x) > 1) shape[dims++] = PyArray_DIM(x, PyArray_NDIM(x) - 2);
    if (PyArray_NDIM(y) > 1) shape[dims++] = s.n;
    PyObject* out = PyArray_SimpleNew(dims, shape, PyArray_TYPE(x));
    if (!out) return nullptr;
    PyArrayObject* o = reinterpret_cast<PyArrayObject*>(out);
    try {
        Unlocked unlocked(2.0 * double(PyArray_SIZE(o)) * double(s.k));
        if (PyArray_TYPE(x) == NPY_FLOAT)
            multiply(s, data<float>(x), data<float>(y), data<float>(o));
        else
            multiply(s, data<double>(x), data<double>(y), data<double>(o));
    } catch (const std::bad_alloc&) {
        Py_DECREF(out);
        return PyErr_NoMemory();
    }
    return out;
}

// ---------------------------------------------------------------- linear

// The bias of a linear map to n columns, where it is given as one contiguous row.
bool bias_of(PyObject* given, PyArrayObject* weight, PyArrayObject*& bias) {
    bias = nullptr;
    if (given == Py_None) return true;
    bias = array_of(given);
    return bias && PyArray_TYPE(bias) == PyArray_TYPE(weight) && PyArray_NDIM(bias) == 1 &&
           PyArray_DIM(bias, 0) == PyArray_DIM(weight, 0) &&
           (PyArray_DIM(bias, 0) <= 1 || step(bias, 0) == 1);
}

struct Linear {
    PyArrayObject *x, *weight, *bias, *out, *pre;
    ptrdiff_t rows, between;
    Activation activation;
};

template <typename T>
void linear_into(const Linear& l) {
    const int last = PyArray_NDIM(l.x) - 1;
    const ptrdiff_t n = PyArray_DIM(l.weight, 0);
    GemmCall<T> g{l.rows,
                  n,
                  PyArray_DIM(l.x, last),
                  data<T>(l.x),
                  l.between,
                  step(l.x, last),
                  data<T>(l.weight),
                  step(l.weight, 1),
                  step(l.weight, 0),
                  data<T>(l.out),
                  n,
                  l.bias ? data<T>(l.bias) : nullptr,
                  false,
                  l.activation,
                  l.pre ? data<T>(l.pre) : nullptr};
    if (PyArray_IS_C_CONTIGUOUS(l.weight) && takes_packed(g))
        g.packed = packed_weight(g.b, g.n, g.k);
    gemm(g);
}

// linear(x, weight, bias=None, activation=None, keep=True)
PyObject* linear(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    Linear l;
    bool keep = count < 5 || args[4] == Py_True;
    const bool fits = count >= 2 && count <= 5 && !names && (l.x = array_of(args[0])) &&
                      (l.weight = array_of(args[1])) &&
                      PyArray_TYPE(l.x) == PyArray_TYPE(l.weight) && PyArray_NDIM(l.x) >= 1 &&
                      PyArray_NDIM(l.weight) == 2 &&
                      PyArray_DIM(l.x, PyArray_NDIM(l.x) - 1) == PyArray_DIM(l.weight, 1) &&
                      leading(l.x, 1, l.rows, l.between) &&
                      bias_of(count > 2 ? args[2] : Py_None, l.weight, l.bias) &&
                      activation_of(count > 3 ? args[3] : Py_None, l.activation, keep) &&
                      (count < 5 || PyBool_Check(args[4]));
    if (!fits) return hand_on(below, args, count, names);
    npy_intp shape[NPY_MAXDIMS];
    const int last = PyArray_NDIM(l.x) - 1;
    for (int i = 0; i < last; i++) shape[i] = PyArray_DIM(l.x, i);
    shape[last] = PyArray_DIM(l.weight, 0);
    l.out = new_array(last + 1, shape, PyArray_TYPE(l.x));
    l.pre = keep ? new_array(last + 1, shape, PyArray_TYPE(l.x)) : nullptr;
    bool done = l.out && (l.pre || !keep);
    if (done) {
        const double work = 2.0 * double(PyArray_SIZE(l.out)) * double(PyArray_DIM(l.weight, 1));
        done = run_kernel(work, [&] {
            if (PyArray_TYPE(l.x) == NPY_FLOAT)
                linear_into<float>(l);
            else
                linear_into<double>(l);
        });
    }
    PyObject* pre = keep ? reinterpret_cast<PyObject*>(l.pre) : Py_None;
    PyObject* pair = done ? PyTuple_Pack(2, reinterpret_cast<PyObject*>(l.out), pre) : nullptr;
    Py_XDECREF(reinterpret_cast<PyObject*>(l.out));
    Py_XDECREF(reinterpret_cast<PyObject*>(l.pre));
    return pair;
}

}  // namespace

PyMethodDef MATMUL_ENTRIES[] = {
    entry_method("matmul", matmul),
    entry_method("linear", linear),
    {},
};
