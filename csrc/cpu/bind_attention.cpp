// Bindings of attention.
#include "arrays.h"
#include "attention.h"
#include "kernels.h"

namespace {

using std::ptrdiff_t;

// A float32 array (*B, heads, rows, columns) as the kernel takes it: unit column step and leading
// axes of uniform step; a contiguous copy where it is not. A new reference, null with an exception.
PyArrayObject* folded(PyObject* x, Heads<const float*>& heads) {
    if (!PyArray_CheckExact(x)) return nullptr;
    PyArrayObject* a = reinterpret_cast<PyArrayObject*>(x);
    const int dims = PyArray_NDIM(a);
    if (dims < 3 || PyArray_TYPE(a) != NPY_FLOAT || !PyArray_ISBEHAVED_RO(a)) return nullptr;
    ptrdiff_t count;
    const bool direct = array_of(x) && leading(a, 3, count, heads.batch) &&
                        (PyArray_DIM(a, dims - 1) == 1 || step(a, dims - 1) == 1);
    if (direct) {
        Py_INCREF(a);
    } else {
        a = reinterpret_cast<PyArrayObject*>(PyArray_NewCopy(a, NPY_CORDER));
        if (!a) return nullptr;
        leading(a, 3, count, heads.batch);
    }
    heads.head = step(a, dims - 3);
    heads.row = step(a, dims - 2);
    heads.p = data<const float>(a);
    return a;
}

// A new float32 array (*B, heads, rows, columns) for what belongs to x (*B, heads, rows, any), in
// x's memory order, which is (*B, rows, heads, columns) after a transpose: then the transpose back
// gives a contiguous array, and joining the heads costs no copy.
PyArrayObject* new_heads(PyArrayObject* x, ptrdiff_t columns, Heads<float*>& heads) {
    const int dims = PyArray_NDIM(x), h = dims - 3, r = dims - 2;
    npy_intp shape[NPY_MAXDIMS], steps[NPY_MAXDIMS];
    for (int i = 0; i < dims; i++) shape[i] = PyArray_DIM(x, i);
    shape[dims - 1] = columns;
    const bool turned = shape[h] > 1 && shape[r] > 1 && step(x, r) > step(x, h) && step(x, h) > 0;
    heads.head = turned ? columns : shape[r] * columns;
    heads.row = turned ? shape[h] * columns : columns;
    heads.batch = shape[h] * shape[r] * columns;
    steps[dims - 1] = sizeof(float);
    steps[r] = heads.row * npy_intp(sizeof(float));
    steps[h] = heads.head * npy_intp(sizeof(float));
    npy_intp between = heads.batch * npy_intp(sizeof(float));
    for (int i = h - 1; i >= 0; between *= shape[i--]) steps[i] = between;
    PyArrayObject* made = reinterpret_cast<PyArrayObject*>(PyArray_NewFromDescr(
        &PyArray_Type, PyArray_DescrFromType(NPY_FLOAT), dims, shape, steps, nullptr, 0, nullptr));
    if (made) heads.p = data<float>(made);
    return made;
}

// References that are held for one call.
struct Held {
    PyArrayObject* arrays[5] = {};
    ~Held() {
        for (PyArrayObject* a : arrays) Py_XDECREF(a);
    }
};

// Sizes and mask; false where the kernel cannot take them.
bool attention_sizes(PyObject* const* args, AttentionCall& a) {
    for (int i = 0; i < 3; i++)
        if (!PyArray_CheckExact(args[i])) return false;
    PyArrayObject* q = reinterpret_cast<PyArrayObject*>(args[0]);
    PyArrayObject* k = reinterpret_cast<PyArrayObject*>(args[1]);
    PyArrayObject* v = reinterpret_cast<PyArrayObject*>(args[2]);
    const int dims = PyArray_NDIM(q);
    if (dims < 3 || PyArray_NDIM(k) != dims || PyArray_NDIM(v) != dims) return false;
    a.batch = 1;
    for (int i = 0; i < dims - 3; i++) a.batch *= PyArray_DIM(q, i);
    a.heads = PyArray_DIM(q, dims - 3);
    a.kv_heads = PyArray_DIM(k, dims - 3);
    a.queries = PyArray_DIM(q, dims - 2);
    a.keys = PyArray_DIM(k, dims - 2);
    a.depth = PyArray_DIM(q, dims - 1);
    a.depth_v = PyArray_DIM(v, dims - 1);
    return a.batch && a.heads && a.kv_heads && a.queries && a.keys && a.depth && a.depth_v &&
           a.heads % a.kv_heads == 0 && PyArray_DIM(k, dims - 1) == a.depth &&
           PyArray_DIM(v, dims - 2) == a.keys;
}

bool attention_mask(PyObject* x, PyArrayObject* q, AttentionCall& a) {
    a.mask = {};
    if (x == Py_None) return true;
    if (!PyArray_CheckExact(x)) return false;
    PyArrayObject* m = reinterpret_cast<PyArrayObject*>(x);
    const int type = PyArray_TYPE(m), dims = PyArray_NDIM(m), all = PyArray_NDIM(q);
    if ((type != NPY_BOOL && type != NPY_FLOAT) || !PyArray_ISBEHAVED_RO(m) || dims > all)
        return false;
    const npy_intp item = PyArray_ITEMSIZE(m);
    // steps by axis of the scores (*B, H, T, S), 0 where the mask is broadcast
    const auto step_of = [&](int axis, npy_intp& size) {
        const int own = axis - (all - dims);
        size = own < 0 ? 1 : PyArray_DIM(m, own);
        return own < 0 || size == 1 ? ptrdiff_t(0) : ptrdiff_t(PyArray_STRIDE(m, own) / item);
    };
    for (int i = 0; i < dims; i++)
        if (PyArray_STRIDE(m, i) % item) return false;
    npy_intp size;
    a.mask.column = step_of(all - 1, size);
    if (size != 1 && size != a.keys) return false;
    a.mask.row = step_of(all - 2, size);
    if (size != 1 && size != a.queries) return false;
    a.mask.head = step_of(all - 3, size);
    if (size != 1 && size != a.heads) return false;
    // the leading axes: all broadcast, or one whose step is uniform
    int used = -1;
    for (int i = 0; i < all - 3; i++) {
        if (!step_of(i, size)) {
            if (size == 1 && PyArray_DIM(q, i) != 1 && used >= 0) return false;
            continue;
        }
        if (used >= 0 || size != PyArray_DIM(q, i)) return false;
        used = i;
        a.mask.batch = step_of(i, size);
        for (int j = 0; j < all - 3; j++)
            if (j != i && PyArray_DIM(q, j) != 1) return false;
    }
    (type == NPY_BOOL ? reinterpret_cast<const void*&>(a.mask.seen)
                      : reinterpret_cast<const void*&>(a.mask.added)) = PyArray_DATA(m);
    return true;
}

bool attention_options(PyObject* causal, PyObject* scale, AttentionCall& a) {
    const int truth = PyObject_IsTrue(causal);
    const double factor = PyFloat_AsDouble(scale);
    a.causal = truth > 0;
    a.scale = float(factor);
    return truth >= 0 && !(factor == -1.0 && PyErr_Occurred());
}

// (q, k, v, mask, causal, scale) -> (out, lse)
PyObject* attention(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    AttentionCall a{};
    Held held;
    if (count != 6 || names || !attention_sizes(args, a) ||
        !attention_mask(args[3], reinterpret_cast<PyArrayObject*>(args[0]), a))
        return hand_on(below, args, count, names);
    Heads<const float*>* const heads[] = {&a.q, &a.k, &a.v};
    for (int i = 0; i < 3; i++)
        if (!(held.arrays[i] = folded(args[i], *heads[i])))
            return PyErr_Occurred() ? nullptr : hand_on(below, args, count, names);
    if (!attention_options(args[4], args[5], a)) return nullptr;
    PyArrayObject* q = held.arrays[0];
    PyArrayObject* out = new_heads(q, a.depth_v, a.out);
    PyArrayObject* lse = new_array(PyArray_NDIM(q) - 1, PyArray_DIMS(q), NPY_FLOAT);
    if (out && lse) {
        a.lse = data<float>(lse);
        const double work = 2.0 * double(a.batch * a.heads) * double(a.queries) * double(a.keys) *
                            double(a.depth + a.depth_v);
        if (!run_kernel(work, [&] { kernels().attention_f32(a); })) Py_CLEAR(out);
    }
    return packed(out, lse);
}

// (g, q, k, v, mask, causal, scale, out, lse) -> (dq, dk, dv)
PyObject* attention_backward(PyObject* below, PyObject* const* args, Py_ssize_t count,
                             PyObject* names) {
    AttentionCall a{};
    Held held;
    PyArrayObject* lse;
    if (count != 9 || names || !attention_sizes(args + 1, a) ||
        !attention_mask(args[4], reinterpret_cast<PyArrayObject*>(args[1]), a) ||
        !(lse = plain_f32(args[8])) || PyArray_SIZE(lse) != a.batch * a.heads * a.queries)
        return hand_on(below, args, count, names);
    Heads<const float*> out{};
    Heads<const float*>* const heads[] = {&a.g, &a.q, &a.k, &a.v, &out};
    for (int i = 0; i < 5; i++)
        if (!(held.arrays[i] = folded(args[i < 4 ? i : 7], *heads[i])))
            return PyErr_Occurred() ? nullptr : hand_on(below, args, count, names);
    const npy_intp values = PyArray_SIZE(lse) * a.depth_v;
    if (PyArray_SIZE(held.arrays[0]) != values || PyArray_SIZE(held.arrays[4]) != values)
        return hand_on(below, args, count, names);
    if (!attention_options(args[5], args[6], a)) return nullptr;
    PyArrayObject* dq = new_heads(held.arrays[1], a.depth, a.dq);
    PyArrayObject* dk = new_heads(held.arrays[2], a.depth, a.dk);
    PyArrayObject* dv = new_heads(held.arrays[3], a.depth_v, a.dv);
    if (dq && dk && dv) {
        a.out = {const_cast<float*>(out.p), out.batch, out.head, out.row};  // only read
        a.lse = data<float>(lse);
        const double work = 5.0 * double(a.batch * a.heads) * double(a.queries) * double(a.keys) *
                            double(a.depth + a.depth_v);
        if (!run_kernel(work, [&] { kernels().attention_backward_f32(a); })) Py_CLEAR(dq);
    }
    return packed(dq, dk, dv);
}

}  // namespace

PyMethodDef ATTENTION_ENTRIES[] = {
    entry_method("attention", attention),
    entry_method("attention_backward", attention_backward),
    {},
};
