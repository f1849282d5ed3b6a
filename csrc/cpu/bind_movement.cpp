// Bindings of copies, conversions and joins.
#include <cstring>
#include <vector>

#include "arrays.h"
#include "kernels.h"

namespace {

// (x, dtype) between float32 and bfloat16
PyObject* cast(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 2 || names || !PyArray_DescrCheck(args[1]))
        return hand_on(below, args, count, names);
    const int wanted = reinterpret_cast<PyArray_Descr*>(args[1])->type_num;
    PyArrayObject *x = plain_f32(args[0]), *half = plain_bf16(args[0]);
    const bool rounds = x && wanted == bfloat16_type, widens = half && wanted == NPY_FLOAT;
    if (!rounds && !widens) return hand_on(below, args, count, names);
    if (half) x = half;
    PyArrayObject* out = new_array(PyArray_NDIM(x), PyArray_DIMS(x), wanted);
    if (!out) return nullptr;
    const npy_intp n = PyArray_SIZE(x);
    Unlocked unlocked(2.0 * double(n));
    if (rounds)
        kernels().round_bf16(data<bfloat16>(out), data<float>(x), n);
    else
        kernels().widen_bf16(data<float>(out), data<bfloat16>(x), n);
    return reinterpret_cast<PyObject*>(out);
}

// The copy in C order of x, whose last two axes lie in memory in turn; others have any steps.
template <typename T, typename Kernel>
void transposed(Kernel* kernel, PyArrayObject* out, PyArrayObject* x) {
    const int lead = PyArray_NDIM(x) - 2;
    const npy_intp rows = PyArray_DIM(x, lead), columns = PyArray_DIM(x, lead + 1);
    npy_intp at[NPY_MAXDIMS] = {};
    const npy_intp matrices = PyArray_SIZE(x) / (rows * columns);
    const char* from = PyArray_BYTES(x);
    for (npy_intp m = 0; m < matrices; m++) {
        kernel(data<T>(out) + m * rows * columns, columns, reinterpret_cast<const T*>(from),
               PyArray_STRIDE(x, lead + 1) / npy_intp(sizeof(T)), columns, rows);
        for (int i = lead - 1; i >= 0; i--) {
            from += PyArray_STRIDE(x, i);
            if (++at[i] < PyArray_DIM(x, i)) break;
            from -= at[i] * PyArray_STRIDE(x, i);
            at[i] = 0;
        }
    }
}

// (x): a copy in C order
PyObject* copy(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyArrayObject* x = count == 1 && !names && PyArray_CheckExact(args[0])
                           ? reinterpret_cast<PyArrayObject*>(args[0])
                           : nullptr;
    const int dims = x ? PyArray_NDIM(x) : 0;
    if (dims < 2 || !PyArray_ISBEHAVED_RO(x)) return hand_on(below, args, count, names);
    const npy_intp item = PyArray_ITEMSIZE(x), step = PyArray_STRIDE(x, dims - 1);
    const int type = PyArray_TYPE(x);
    const bool known = type == NPY_FLOAT || type == bfloat16_type;
    // whole vectors both ways, or the steps of the kernel are not worth it
    if (!known || PyArray_STRIDE(x, dims - 2) != item || step < item || step % item ||
        PyArray_DIM(x, dims - 2) < 16 || PyArray_DIM(x, dims - 1) < 16 || !PyArray_SIZE(x))
        return hand_on(below, args, count, names);
    PyArrayObject* out = new_array(dims, PyArray_DIMS(x), type);
    if (!out) return nullptr;
    Unlocked unlocked(2.0 * double(PyArray_SIZE(x)));
    if (type == NPY_FLOAT)
        transposed<std::uint32_t>(kernels().transpose_32, out, x);
    else
        transposed<std::uint16_t>(kernels().transpose_16, out, x);
    return reinterpret_cast<PyObject*>(out);
}

// (arrays, axis=) of one dtype in C order, which nothing but the bytes of their elements matters
// for
PyObject* cat(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 1 || !names || PyTuple_GET_SIZE(names) != 1 || !PyList_CheckExact(args[0]) ||
        !PyList_GET_SIZE(args[0]) || !PyLong_CheckExact(args[1]) ||
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "axis"))
        return hand_on(below, args, count, names);
    const long axis = PyLong_AsLong(args[1]);
    std::vector<PyArrayObject*> parts;
    npy_intp shape[NPY_MAXDIMS], rows = 1, inner = 1;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); i++) {
        PyObject* item = PyList_GET_ITEM(args[0], i);
        if (!PyArray_CheckExact(item)) return hand_on(below, args, count, names);
        auto* part = reinterpret_cast<PyArrayObject*>(item);
        PyArrayObject* first = parts.empty() ? part : parts[0];
        const int dims = PyArray_NDIM(part);
        bool fits = PyArray_ISCARRAY_RO(part) && PyArray_DESCR(part) == PyArray_DESCR(first) &&
                    !PyDataType_REFCHK(PyArray_DESCR(part)) && dims == PyArray_NDIM(first) &&
                    axis >= 0 && axis < dims;
        for (int k = 0; fits && k < dims; k++)
            fits = k == axis || PyArray_DIM(part, k) == PyArray_DIM(first, k);
        if (!fits) return hand_on(below, args, count, names);
        parts.push_back(part);
    }
    for (int k = 0; k < PyArray_NDIM(parts[0]); k++) {
        shape[k] = PyArray_DIM(parts[0], k);
        if (k != axis) (k < axis ? rows : inner) *= shape[k];
    }
    shape[axis] = 0;
    for (PyArrayObject* part : parts) shape[axis] += PyArray_DIM(part, int(axis));
    PyArrayObject* out = new_array(PyArray_NDIM(parts[0]), shape, PyArray_TYPE(parts[0]));
    if (!out) return nullptr;
    const std::size_t item = std::size_t(inner * PyArray_ITEMSIZE(out));
    char* to = PyArray_BYTES(out);
    Unlocked unlocked(double(PyArray_NBYTES(out)));
    for (npy_intp r = 0; r < rows; r++)
        for (PyArrayObject* part : parts) {
            const std::size_t bytes = std::size_t(PyArray_DIM(part, int(axis))) * item;
            std::memcpy(to, PyArray_BYTES(part) + std::size_t(r) * bytes, bytes);
            to += bytes;
        }
    return reinterpret_cast<PyObject*>(out);
}

}  // namespace

PyMethodDef MOVEMENT_ENTRIES[] = {
    entry_method("cast", cast),
    entry_method("copy", copy),
    entry_method("cat", cat),
    {},
};
