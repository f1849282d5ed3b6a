// Bindings of arithmetic, the elementwise functions and activations.
#include <cstring>

#include "arrays.h"
#include "kernels.h"

namespace {

constexpr double WORK = 20;  // operations an element, about

template <auto Kernel, typename T = float>
PyObject* unary_on(PyArrayObject* x) {
    PyArrayObject* out = new_like(x);
    if (!out) return nullptr;
    const npy_intp n = PyArray_SIZE(x);
    Unlocked unlocked(WORK * double(n));
    (kernels().*Kernel)(data<T>(out), data<T>(x), n);
    return reinterpret_cast<PyObject*>(out);
}

// f(x)
template <auto Kernel>
PyObject* unary(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 1 || names) return hand_on(below, args, count, names);
    const Plain x(args[0]);
    return x ? unary_on<Kernel>(x) : hand_on(below, args, count, names);
}

// f(x), of float32 or bfloat16
template <auto Kernel, auto Kernel16>
PyObject* unary_either(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 1 || names) return hand_on_either(below, args, count, names);
    if (PyArrayObject* half = plain_bf16(args[0])) return unary_on<Kernel16, bfloat16>(half);
    const Plain x(args[0]);
    return x ? unary_on<Kernel>(x) : hand_on_either(below, args, count, names);
}

// f(x) of bfloat16, which NumPy would widen; others are as fast below
template <auto Kernel16>
PyObject* unary_half(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyArrayObject* half = count == 1 && !names ? plain_bf16(args[0]) : nullptr;
    return half ? unary_on<Kernel16, bfloat16>(half) : hand_on_either(below, args, count, names);
}

template <auto Kernel, typename T>
PyObject* slope_on(const T* g, bool whole, PyArrayObject* x) {
    PyArrayObject* out = new_like(x);
    if (!out) return nullptr;
    const npy_intp n = PyArray_SIZE(x);
    Unlocked unlocked(WORK * double(n));
    (kernels().*Kernel)(data<T>(out), g, whole, data<T>(x), n);
    return reinterpret_cast<PyObject*>(out);
}

// f(g, x, ...), of one shape
template <auto Kernel, auto Kernel16>
PyObject* backward_on(PyObject* below, PyObject* const* args, Py_ssize_t count) {
    if (PyArrayObject* x = plain_bf16(args[1])) {
        const auto* one = static_cast<const bfloat16*>(shared(args[0], bfloat16_type));
        PyArrayObject* g = one ? reinterpret_cast<PyArrayObject*>(args[0]) : plain_bf16(args[0]);
        if (!g || !same_shape(g, x)) return hand_on_either(below, args, count, nullptr);
        return slope_on<Kernel16, bfloat16>(one ? one : data<bfloat16>(g), !one, x);
    }
    const Plain x(args[1]);
    const auto* one = static_cast<const float*>(shared(args[0], NPY_FLOAT));
    const Plain g(one ? Py_None : args[0]);
    if (!x || !(one || g) || !same_shape(one ? reinterpret_cast<PyArrayObject*>(args[0]) : g, x))
        return hand_on_either(below, args, count, nullptr);
    return slope_on<Kernel, float>(one ? one : data<float>(g), !one, x);
}

template <auto Kernel, auto Kernel16>
PyObject* backward(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 2 || names) return hand_on_either(below, args, count, names);
    return backward_on<Kernel, Kernel16>(below, args, count);
}

bool is_tanh(PyObject* approximate) {
    return PyUnicode_Check(approximate) && !PyUnicode_CompareWithASCIIString(approximate, "tanh");
}

PyObject* gelu(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 2 || names) return hand_on_either(below, args, count, names);
    if (PyArrayObject* half = plain_bf16(args[0]))
        return is_tanh(args[1]) ? unary_on<&KernelTable::gelu_tanh_bf16, bfloat16>(half)
                                : unary_on<&KernelTable::gelu_bf16, bfloat16>(half);
    const Plain x(args[0]);
    if (!x) return hand_on_either(below, args, count, names);
    return is_tanh(args[1]) ? unary_on<&KernelTable::gelu_tanh_f32>(x)
                            : unary_on<&KernelTable::gelu_f32>(x);
}

PyObject* gelu_backward(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count != 3 || names) return hand_on_either(below, args, count, names);
    constexpr auto exact = &KernelTable::gelu_backward_f32,
                   near = &KernelTable::gelu_tanh_backward_f32;
    constexpr auto exact16 = &KernelTable::gelu_backward_bf16,
                   near16 = &KernelTable::gelu_tanh_backward_bf16;
    return is_tanh(args[2]) ? backward_on<near, near16>(below, args, count)
                            : backward_on<exact, exact16>(below, args, count);
}

// ---------------------------------------------------------------- arithmetic

// A Python number that float32 takes as NumPy would.
bool number_of(PyObject* x, float& number) {
    if (PyFloat_CheckExact(x)) {
        number = float(PyFloat_AS_DOUBLE(x));
        return true;
    }
    int overflow = 1;
    const long whole = PyLong_CheckExact(x) ? PyLong_AsLongAndOverflow(x, &overflow) : 0;
    number = float(whole);
    return !overflow && whole >= -(1 << 24) && whole <= 1 << 24;
}

float value_of(const float* p) {
    return *p;
}
float value_of(const bfloat16* p) {
    const std::uint32_t raw = std::uint32_t(p->bits) << 16;
    float x;
    std::memcpy(&x, &raw, sizeof(x));
    return x;
}

// Whether x, stretched along its first axes, has the shape of `like`.
bool repeats(PyArrayObject* x, PyArrayObject* like) {
    const int dims = PyArray_NDIM(x), skipped = PyArray_NDIM(like) - dims;
    int i = 0;
    while (i < dims && PyArray_DIM(x, i) == 1) i++;
    for (; skipped >= 0 && i < dims; i++)
        if (PyArray_DIM(x, i) != PyArray_DIM(like, skipped + i)) return false;
    return skipped >= 0;
}

// f(a, b) with a of the result's shape and b a number or repeated along a, if they are so.
template <auto Kernel, typename T>
PyObject* arithmetic_on(PyArrayObject* a, PyObject* other, PyArrayObject* b, bool turned) {
    Arithmetic<T> call{nullptr, data<T>(a), nullptr, PyArray_SIZE(a), 0, 0.0f, turned};
    if (b) {
        if (!repeats(b, a)) return nullptr;
        call.period = PyArray_SIZE(b);
        if (call.period == 1)
            call.number = value_of(data<T>(b));
        else
            call.b = data<T>(b);
    } else if (!number_of(other, call.number)) {
        return nullptr;
    }
    PyArrayObject* out = new_like(a);
    if (!out) return nullptr;
    call.out = data<T>(out);
    Unlocked unlocked(4.0 * double(call.n));
    (kernels().*Kernel)(call);
    return reinterpret_cast<PyObject*>(out);
}

template <auto Kernel, typename T, PyArrayObject* plain(PyObject*)>
PyObject* arithmetic_of(PyObject* x, PyObject* y) {
    PyArrayObject *a = plain(x), *b = plain(y);
    PyObject* out =
        a && (b || !PyArray_Check(y)) ? arithmetic_on<Kernel, T>(a, y, b, false) : nullptr;
    if (!out && b && (a || !PyArray_Check(x)) && !PyErr_Occurred())
        out = arithmetic_on<Kernel, T>(b, x, a, true);
    return out;
}

// f(x, y), of float32 or bfloat16
template <auto Kernel, auto Kernel16>
PyObject* arithmetic(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count == 2 && !names) {
        PyObject* out = arithmetic_of<Kernel, float, plain_f32>(args[0], args[1]);
        if (!out && !PyErr_Occurred())
            out = arithmetic_of<Kernel16, bfloat16, plain_bf16>(args[0], args[1]);
        if (out) return out;
    }
    return hand_on_either(below, args, count, names);
}

// ---------------------------------------------------------------- choices

// An operand of `where` as an array of the mask's shape or as a number; false if it is neither.
template <typename T>
bool operand(PyObject* x, PyArrayObject* a, PyArrayObject* mask, const T*& array, float& number) {
    array = nullptr;
    if (!a) return !PyArray_Check(x) && number_of(x, number);
    if (PyArray_SIZE(a) == 1 && PyArray_NDIM(a) <= PyArray_NDIM(mask)) {
        number = value_of(data<T>(a));
        return true;
    }
    array = data<T>(a);
    return same_shape(a, mask);
}

template <auto Kernel, typename T, PyArrayObject* plain(PyObject*)>
PyObject* where_of(PyArrayObject* mask, PyObject* x, PyObject* y, int type) {
    Selection<T> c{};
    PyArrayObject *a = plain(x), *b = plain(y);
    if (!(a || b) || !operand(x, a, mask, c.a, c.a_number) || !operand(y, b, mask, c.b, c.b_number))
        return nullptr;
    PyArrayObject* out = new_array(PyArray_NDIM(mask), PyArray_DIMS(mask), type);
    if (!out) return nullptr;
    c.out = data<T>(out);
    c.mask = data<unsigned char>(mask);
    c.n = PyArray_SIZE(mask);
    Unlocked unlocked(4.0 * double(c.n));
    (kernels().*Kernel)(c);
    return reinterpret_cast<PyObject*>(out);
}

// (mask, x, y)
PyObject* where(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count == 3 && !names && PyArray_CheckExact(args[0])) {
        PyArrayObject* mask = reinterpret_cast<PyArrayObject*>(args[0]);
        if (PyArray_TYPE(mask) == NPY_BOOL && PyArray_ISCARRAY_RO(mask)) {
            PyObject* out = where_of<&KernelTable::where_f32, float, plain_f32>(mask, args[1],
                                                                                args[2], NPY_FLOAT);
            if (!out && !PyErr_Occurred())
                out = where_of<&KernelTable::where_bf16, bfloat16, plain_bf16>(
                    mask, args[1], args[2], bfloat16_type);
            if (out) return out;
        }
    }
    return hand_on_either(below, args, count, names);
}

#define UNARY(name) \
    entry_method(#name, unary_either<&KernelTable::name##_f32, &KernelTable::name##_bf16>)
#define SLOPE(name) \
    entry_method(#name, backward<&KernelTable::name##_f32, &KernelTable::name##_bf16>)
#define ARITHMETIC(name) \
    entry_method(#name, arithmetic<&KernelTable::name##_f32, &KernelTable::name##_bf16>)

}  // namespace

PyMethodDef POINTWISE_ENTRIES[] = {
    UNARY(relu),
    UNARY(exp),
    UNARY(log),
    UNARY(tanh),
    entry_method("erf", unary<&KernelTable::erf_f32>),
    UNARY(sigmoid),
    entry_method("log_sigmoid", unary<&KernelTable::log_sigmoid_f32>),
    UNARY(silu),
    SLOPE(relu_backward),
    SLOPE(tanh_backward),
    SLOPE(sigmoid_backward),
    SLOPE(silu_backward),
    entry_method("neg", unary_half<&KernelTable::neg_bf16>),
    entry_method("sqrt", unary_half<&KernelTable::sqrt_bf16>),
    entry_method("abs", unary_half<&KernelTable::abs_bf16>),
    entry_method("where", where),
    ARITHMETIC(add),
    ARITHMETIC(sub),
    ARITHMETIC(mul),
    ARITHMETIC(div),
    ARITHMETIC(maximum),
    entry_method("gelu", gelu),
    entry_method("gelu_backward", gelu_backward),
    {},
};
