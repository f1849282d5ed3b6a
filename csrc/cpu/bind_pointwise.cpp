// Bindings of the elementwise functions and activations.
#include "arrays.h"
#include "kernels.h"

namespace {

constexpr double WORK = 20;  // operations an element, about

template <auto Kernel>
PyObject* unary_on(PyArrayObject* x) {
    PyArrayObject* out = new_like(x);
    if (!out) return nullptr;
    const npy_intp n = PyArray_SIZE(x);
    Unlocked unlocked(WORK * double(n));
    (kernels().*Kernel)(data<float>(out), data<float>(x), n);
    return reinterpret_cast<PyObject*>(out);
}

// f(x)
template <auto Kernel>
PyObject* unary(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 1 || names) return hand_on(below, args, count, names);
    const Plain x(args[0]);
    return x ? unary_on<Kernel>(x) : hand_on(below, args, count, names);
}

template <auto Kernel>
PyObject* backward_on(PyObject* grad, PyArrayObject* x, PyObject* below, PyObject* const* args,
                      Py_ssize_t count) {
    const float* one = shared(grad);
    const Plain g(one ? Py_None : grad);
    if (!(one || g) || !same_shape(one ? reinterpret_cast<PyArrayObject*>(grad) : g, x))
        return hand_on(below, args, count, nullptr);
    PyArrayObject* out = new_like(x);
    if (!out) return nullptr;
    const npy_intp n = PyArray_SIZE(x);
    Unlocked unlocked(WORK * double(n));
    (kernels().*Kernel)(data<float>(out), one ? one : data<float>(g), !one, data<float>(x), n);
    return reinterpret_cast<PyObject*>(out);
}

// f(g, x), of one shape
template <auto Kernel>
PyObject* backward(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 2 || names) return hand_on(below, args, count, names);
    const Plain x(args[1]);
    if (!x) return hand_on(below, args, count, names);
    return backward_on<Kernel>(args[0], x, below, args, count);
}

bool is_tanh(PyObject* approximate) {
    return PyUnicode_Check(approximate) && !PyUnicode_CompareWithASCIIString(approximate, "tanh");
}

PyObject* gelu(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 2 || names) return hand_on(below, args, count, names);
    const Plain x(args[0]);
    if (!x) return hand_on(below, args, count, names);
    return is_tanh(args[1]) ? unary_on<&KernelTable::gelu_tanh_f32>(x)
                            : unary_on<&KernelTable::gelu_f32>(x);
}

PyObject* gelu_backward(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 3 || names) return hand_on(below, args, count, names);
    const Plain x(args[1]);
    if (!x) return hand_on(below, args, count, names);
    constexpr auto exact = &KernelTable::gelu_backward_f32,
                   near = &KernelTable::gelu_tanh_backward_f32;
    return is_tanh(args[2]) ? backward_on<near>(args[0], x, below, args, count)
                            : backward_on<exact>(args[0], x, below, args, count);
}

}  // namespace

PyMethodDef POINTWISE_ENTRIES[] = {
    entry_method("relu", unary<&KernelTable::relu_f32>),
    entry_method("exp", unary<&KernelTable::exp_f32>),
    entry_method("log", unary<&KernelTable::log_f32>),
    entry_method("tanh", unary<&KernelTable::tanh_f32>),
    entry_method("erf", unary<&KernelTable::erf_f32>),
    entry_method("sigmoid", unary<&KernelTable::sigmoid_f32>),
    entry_method("log_sigmoid", unary<&KernelTable::log_sigmoid_f32>),
    entry_method("silu", unary<&KernelTable::silu_f32>),
    entry_method("relu_backward", backward<&KernelTable::relu_backward_f32>),
    entry_method("tanh_backward", backward<&KernelTable::tanh_backward_f32>),
    entry_method("sigmoid_backward", backward<&KernelTable::sigmoid_backward_f32>),
    entry_method("silu_backward", backward<&KernelTable::silu_backward_f32>),
    entry_method("gelu", gelu),
    entry_method("gelu_backward", gelu_backward),
    {},
};
