// Bindings of softmax, its kin, and the normalisations.
#include <vector>

#include "arrays.h"
#include "kernels.h"

namespace {

constexpr double WORK = 20;  // operations an element, about

// Whether `axis` is the last of x, which has elements.
bool last_axis(PyArrayObject* x, PyObject* axis) {
    const int dims = PyArray_NDIM(x);
    if (!dims || !PyLong_CheckExact(axis) || !PyArray_SIZE(x)) return false;
    const long at = PyLong_AsLong(axis);
    return at == -1 || at == dims - 1;
}

// A gradient in rows of `width`, `row` apart: in C order, or one row where its elements are all one
// (that of a sum). Empty if a kernel cannot take it.
class Gradient {
  public:
    Gradient(PyObject* g, PyArrayObject* like, npy_intp width)
        : one_(static_cast<const float*>(shared(g))), plain_(one_ ? Py_None : g) {
        fits_ = one_ ? same_shape(reinterpret_cast<PyArrayObject*>(g), like)
                     : plain_ && same_shape(plain_, like);
        if (one_ && fits_) repeated_.assign(std::size_t(width), *one_);
        row_ = one_ ? 0 : width;
    }
    explicit operator bool() const { return fits_; }
    const float* get() const { return one_ ? repeated_.data() : data<const float>(plain_); }
    std::ptrdiff_t row() const { return row_; }

  private:
    const float* one_;
    Plain plain_;
    std::vector<float> repeated_;
    std::ptrdiff_t row_;
    bool fits_;
};

// f(x, axis)
template <auto Kernel>
PyObject* rows(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 2 || names) return hand_on(below, args, count, names);
    const Plain x(args[0]);
    if (!x || !last_axis(x, args[1])) return hand_on(below, args, count, names);
    PyArrayObject* out = new_like(x);
    if (!out) return nullptr;
    const npy_intp width = PyArray_DIM(x, PyArray_NDIM(x) - 1), n = PyArray_SIZE(x);
    Unlocked unlocked(WORK * double(n));
    (kernels().*Kernel)(data<float>(out), data<float>(x), n / width, width);
    return reinterpret_cast<PyObject*>(out);
}

// f(g, out, axis)
template <auto Kernel>
PyObject* rows_backward(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 3 || names) return hand_on(below, args, count, names);
    const Plain out(args[1]);
    if (!out || !last_axis(out, args[2])) return hand_on(below, args, count, names);
    const npy_intp width = PyArray_DIM(out, PyArray_NDIM(out) - 1), n = PyArray_SIZE(out);
    const Gradient g(args[0], out, width);
    if (!g) return hand_on(below, args, count, names);
    PyArrayObject* dx = new_like(out);
    if (!dx) return nullptr;
    Unlocked unlocked(WORK * double(n));
    (kernels().*Kernel)(data<float>(dx), g.get(), g.row(), data<float>(out), n / width, width);
    return reinterpret_cast<PyObject*>(dx);
}

// ---------------------------------------------------------------- sums

// The sums of x (outer, n, inner) over its middle axis.
template <typename Rows, typename Columns, typename T>
void sums(Rows* row_sums, Columns* sum_rows, T* out, const T* x, npy_intp outer, npy_intp n,
          npy_intp inner) {
    if (inner == 1) return row_sums(out, x, outer, n);
    for (npy_intp i = 0; i < outer; i++)
        sum_rows(out + i * inner, x + i * n * inner, inner, n, inner);
}

struct Sum {
    template <typename T>
    static void run(T* out, const T* x, npy_intp outer, npy_intp n, npy_intp inner) {
        const KernelTable& k = kernels();
        if constexpr (sizeof(T) == sizeof(float))
            sums(k.row_sums_f32, k.sum_rows_f32, out, x, outer, n, inner);
        else
            sums(k.row_sums_bf16, k.sum_rows_bf16, out, x, outer, n, inner);
    }
};

template <bool SMALLEST>
struct Extreme {
    template <typename T>
    static void run(T* out, const T* x, npy_intp outer, npy_intp n, npy_intp inner) {
        const KernelTable& k = kernels();
        const auto of = [&](auto* rows, auto* columns) {
            if (inner == 1) return rows(out, x, outer, n, SMALLEST);
            for (npy_intp i = 0; i < outer; i++)
                columns(out + i * inner, x + i * n * inner, n, inner, SMALLEST);
        };
        if constexpr (sizeof(T) == sizeof(float))
            of(k.row_extremes_f32, k.column_extremes_f32);
        else
            of(k.row_extremes_bf16, k.column_extremes_bf16);
    }
};

// (x, axis=None or a tuple, keepdims=) over neighbouring axes
template <typename Reduction>
PyObject* reduction(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyArrayObject *half = count == 1 ? plain_bf16(args[0]) : nullptr,
                  *x = half || count != 1 ? half : plain_f32(args[0]);
    if (!x || !PyArray_SIZE(x)) return hand_on_either(below, args, count, names);
    const int dims = PyArray_NDIM(x);
    bool gone[NPY_MAXDIMS] = {}, keep = false;
    PyObject* axis = Py_None;
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject* name = PyTuple_GET_ITEM(names, i);
        if (!PyUnicode_CompareWithASCIIString(name, "axis"))
            axis = args[1 + i];
        else if (!PyUnicode_CompareWithASCIIString(name, "keepdims") && PyBool_Check(args[1 + i]))
            keep = args[1 + i] == Py_True;
        else
            return hand_on_either(below, args, count, names);
    }
    if (axis != Py_None && !PyTuple_CheckExact(axis))
        return hand_on_either(below, args, count, names);
    int first = axis == Py_None ? 0 : dims, last = axis == Py_None ? dims - 1 : -1, listed = 0;
    for (Py_ssize_t i = 0; axis != Py_None && i < PyTuple_GET_SIZE(axis); i++) {
        const long at = PyLong_AsLong(PyTuple_GET_ITEM(axis, i));
        if (at < 0 || at >= dims || gone[at]) return hand_on_either(below, args, count, names);
        gone[at] = true;
        listed++;
        first = at < first ? int(at) : first;
        last = at > last ? int(at) : last;
    }
    if (axis == Py_None)
        for (int i = 0; i < dims; i++) gone[i] = true;
    else if (!listed || last - first + 1 != listed)
        return hand_on_either(below, args, count, names);
    npy_intp shape[NPY_MAXDIMS], outer = 1, n = 1, inner = 1;
    int left = 0;
    for (int i = 0; i < dims; i++) {
        (gone[i] ? n : i < first ? outer : inner) *= PyArray_DIM(x, i);
        if (!gone[i] || keep) shape[left++] = gone[i] ? 1 : PyArray_DIM(x, i);
    }
    PyArrayObject* out = new_array(left, shape, PyArray_TYPE(x));
    if (!out) return nullptr;
    const bool done = run_kernel(double(PyArray_SIZE(x)), [&] {
        if (half)
            Reduction::run(data<bfloat16>(out), data<bfloat16>(x), outer, n, inner);
        else
            Reduction::run(data<float>(out), data<float>(x), outer, n, inner);
    });
    if (!done) Py_CLEAR(out);
    return reinterpret_cast<PyObject*>(out);
}

// ---------------------------------------------------------------- normalisations

struct Normalised {
    PyArrayObject* x;
    int lead;  // axes that are not normalised
    npy_intp rows, width;
};

// x and the number of its last axes that are normalised, or false where a kernel cannot take them.
bool normalised(PyArrayObject* x, PyObject* ndim, Normalised& s) {
    s.x = x;
    if (!s.x || !PyLong_CheckExact(ndim) || !PyArray_SIZE(s.x)) return false;
    s.lead = PyArray_NDIM(s.x) - int(PyLong_AsLong(ndim));
    if (s.lead < 0 || s.lead >= PyArray_NDIM(s.x)) return false;
    s.rows = s.width = 1;
    for (int i = 0; i < PyArray_NDIM(s.x); i++)
        (i < s.lead ? s.rows : s.width) *= PyArray_DIM(s.x, i);
    return true;
}

// A weight or bias of `width` elements as a pointer, null for None; false if it is something else.
bool parameter(PyObject* x, npy_intp width, const float*& p) {
    p = nullptr;
    if (x == Py_None) return true;
    PyArrayObject* a = plain_f32(x);
    if (!a || PyArray_SIZE(a) != width) return false;
    p = data<float>(a);
    return true;
}

// The statistics of the rows.
bool statistic(PyObject* x, npy_intp rows, const float*& p) {
    return x != Py_None && parameter(x, rows, p);
}

// (x, ndim, weight, bias, eps) -> (out, mean, rstd), or of a sum: (x, added, ndim, weight, bias,
// eps)
// -> (out, total, mean, rstd)
template <bool SUM>
PyObject* layer_norm(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    Normalised s;
    const float *weight, *bias;
    if (count != 5 + SUM || names) return hand_on(below, args, count, names);
    const Plain x(args[0]), added(args[SUM]);
    PyObject* const* more = args + SUM;
    if (!normalised(x, more[1], s) || !parameter(more[2], s.width, weight) ||
        !parameter(more[3], s.width, bias) || !added || !same_shape(x, added))
        return hand_on(below, args, count, names);
    const double eps = PyFloat_AsDouble(more[4]);
    if (PyErr_Occurred()) return nullptr;
    PyArrayObject* total = SUM ? new_like(s.x) : nullptr;
    PyArrayObject* out = new_like(s.x);
    PyArrayObject* mean = new_array(s.lead, PyArray_DIMS(s.x), NPY_FLOAT);
    PyArrayObject* rstd = new_array(s.lead, PyArray_DIMS(s.x), NPY_FLOAT);
    if (out && mean && rstd && (total || !SUM)) {
        LayerNorm a{data<float>(out),
                    data<float>(mean),
                    data<float>(rstd),
                    data<float>(s.x),
                    weight,
                    bias,
                    float(eps),
                    s.rows,
                    s.width};
        if (SUM) {
            a.added = data<float>(added);
            a.total = data<float>(total);
        }
        Unlocked unlocked(WORK * double(s.rows) * double(s.width));
        kernels().layer_norm_f32(a);
    }
    if constexpr (SUM)
        return packed(out, total, mean, rstd);
    else
        return packed(out, mean, rstd);
}

PyObject* rms_norm(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    Normalised s;
    const float* weight;
    if (count != 4 || names) return hand_on(below, args, count, names);
    const Plain x(args[0]);
    if (!normalised(x, args[1], s) || !parameter(args[2], s.width, weight))
        return hand_on(below, args, count, names);
    const double eps = PyFloat_AsDouble(args[3]);
    if (PyErr_Occurred()) return nullptr;
    PyArrayObject* out = new_like(s.x);
    PyArrayObject* rstd = new_array(s.lead, PyArray_DIMS(s.x), NPY_FLOAT);
    if (out && rstd) {
        Unlocked unlocked(WORK * double(s.rows) * double(s.width));
        kernels().rms_norm_f32(data<float>(out), data<float>(rstd), data<float>(s.x), weight,
                               float(eps), s.rows, s.width);
    }
    return packed(out, rstd);
}

// (g, x, ndim, weight, [mean,] rstd) -> (dx, dweight or None[, dbias])
template <bool CENTERED>
PyObject* norm_backward(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    Normalised s;
    NormBackward a{};
    if (count != (CENTERED ? 6 : 5) || names) return hand_on(below, args, count, names);
    const Plain x(args[1]);
    if (!normalised(x, args[2], s) || !parameter(args[3], s.width, a.weight) ||
        (CENTERED && !statistic(args[4], s.rows, a.mean)) ||
        !statistic(args[CENTERED ? 5 : 4], s.rows, a.rstd))
        return hand_on(below, args, count, names);
    const Gradient g(args[0], x, s.width);
    if (!g) return hand_on(below, args, count, names);
    PyArrayObject* dx = new_like(s.x);
    const int dims = PyArray_NDIM(s.x) - s.lead;
    const npy_intp* shape = PyArray_DIMS(s.x) + s.lead;
    PyArrayObject* dweight = a.weight ? new_array(dims, shape, NPY_FLOAT)
                                      : reinterpret_cast<PyArrayObject*>(Py_NewRef(Py_None));
    PyArrayObject* dbias = CENTERED ? new_array(dims, shape, NPY_FLOAT) : nullptr;
    if (dx && dweight && (dbias || !CENTERED)) {
        a.dx = data<float>(dx);
        a.dweight = a.weight ? data<float>(dweight) : nullptr;
        a.dbias = CENTERED ? data<float>(dbias) : nullptr;
        a.g = g.get();
        a.g_row = g.row();
        a.x = data<float>(s.x);
        a.rows = s.rows;
        a.width = s.width;
        if (!run_kernel(WORK * double(s.rows) * double(s.width),
                        [&] { kernels().norm_backward_f32(a); })) {
            Py_DECREF(dx);
            dx = nullptr;
        }
    }
    if constexpr (CENTERED)
        return packed(dx, dweight, dbias);
    else
        return packed(dx, dweight);
}

}  // namespace

PyMethodDef ROW_ENTRIES[] = {
    entry_method("sum", reduction<Sum>),
    entry_method("amax", reduction<Extreme<false>>),
    entry_method("amin", reduction<Extreme<true>>),
    entry_method("softmax", rows<&KernelTable::softmax_f32>),
    entry_method("log_softmax", rows<&KernelTable::log_softmax_f32>),
    entry_method("softmax_backward", rows_backward<&KernelTable::softmax_backward_f32>),
    entry_method("log_softmax_backward", rows_backward<&KernelTable::log_softmax_backward_f32>),
    entry_method("layer_norm", layer_norm<false>),
    entry_method("add_layer_norm", layer_norm<true>),
    entry_method("rms_norm", rms_norm),
    entry_method("layer_norm_backward", norm_backward<true>),
    entry_method("rms_norm_backward", norm_backward<false>),
    {},
};
