// Bindings of arithmetic, the elementwise functions and activations.
#include <cmath>
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

// How many elements of `like` each one of x is for, where x has its shape but for last axes of 1; 0
// where it has not, or where they are too few to be worth it.
npy_intp each_of(PyArrayObject* x, PyArrayObject* like) {
    int last = PyArray_NDIM(x) - 1;
    if (last != PyArray_NDIM(like) - 1) return 0;
    npy_intp each = 1;
    for (; last >= 0 && PyArray_DIM(x, last) == 1; last--) each *= PyArray_DIM(like, last);
    for (; last >= 0; last--)
        if (PyArray_DIM(x, last) != PyArray_DIM(like, last)) return 0;
    return each >= 8 ? each : 0;
}

// f(a, b) with a of the result's shape and b a number or repeated along a, if they are so.
template <auto Kernel, typename T>
PyObject* arithmetic_on(PyArrayObject* a, PyObject* other, PyArrayObject* b, bool turned) {
    Arithmetic<T> call{nullptr, data<T>(a), nullptr, PyArray_SIZE(a), 0, 0.0f, turned, 0};
    if (b) {
        if (!repeats(b, a) && !(call.each = each_of(b, a))) return nullptr;
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

// ---------------------------------------------------------------- powers, limits, comparisons

// (x, exponent) for exponents of few operations
PyObject* pow_scalar(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    if (count == 2 && !names && (PyFloat_CheckExact(args[1]) || PyLong_CheckExact(args[1]))) {
        const double exponent = PyFloat_AsDouble(args[1]);
        PyArrayObject *x = plain_f32(args[0]), *half = plain_bf16(args[0]);
        if (exponent == -1 && PyErr_Occurred()) PyErr_Clear();  // too large
#define POWER(number, name)                                                    \
    if (exponent == number && x) return unary_on<&KernelTable::name##_f32>(x); \
    if (exponent == number && half) return unary_on<&KernelTable::name##_bf16, bfloat16>(half);
        POWER(2, square)
        POWER(3, cube)
        POWER(0.5, sqrt)
        POWER(-0.5, rsqrt)
#undef POWER
    }
    return hand_on_either(below, args, count, names);
}

// A limit as a number; false if it is something else or NaN.
bool limit_of(PyObject* x, float none, float& number) {
    number = none;
    return x == Py_None || (number_of(x, number) && number == number);
}

template <auto Kernel, typename T>
PyObject* clip_on(PyArrayObject* x, float low, float high) {
    PyArrayObject* out = new_like(x);
    if (!out) return nullptr;
    const npy_intp n = PyArray_SIZE(x);
    Unlocked unlocked(4.0 * double(n));
    (kernels().*Kernel)(data<T>(out), data<T>(x), low, high, n);
    return reinterpret_cast<PyObject*>(out);
}

// (x, min, max), numbers or None
PyObject* clip(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    float low, high;
    if (count == 3 && !names && limit_of(args[1], -HUGE_VALF, low) &&
        limit_of(args[2], HUGE_VALF, high)) {
        if (PyArrayObject* x = plain_f32(args[0]))
            return clip_on<&KernelTable::clip_f32, float>(x, low, high);
        if (PyArrayObject* half = plain_bf16(args[0]))
            return clip_on<&KernelTable::clip_bf16, bfloat16>(half, low, high);
    }
    return hand_on_either(below, args, count, names);
}

// x <=> y of bfloat16, one of which may be a number; others are as fast below
template <Order order, Order exchanged>
PyObject* compare(PyObject* below, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    PyArrayObject *a = nullptr, *b = nullptr;
    if (count == 2 && !names) a = plain_bf16(args[0]), b = plain_bf16(args[1]);
    Comparison c{};
    const bool turned = !a;
    PyArrayObject* first = turned ? b : a;
    if (!first) return hand_on_either(below, args, count, names);
    if (a && b) {
        if (!same_shape(a, b)) return hand_on_either(below, args, count, names);
        c.b = data<bfloat16>(b);
    } else if (!number_of(args[turned ? 0 : 1], c.number)) {
        return hand_on_either(below, args, count, names);
    }
    PyArrayObject* out = new_array(PyArray_NDIM(first), PyArray_DIMS(first), NPY_BOOL);
    if (!out) return nullptr;
    c.out = data<unsigned char>(out);
    c.a = data<bfloat16>(first);
    c.n = PyArray_SIZE(first);
    c.order = turned ? exchanged : order;
    Unlocked unlocked(4.0 * double(c.n));
    kernels().compare_bf16(c);
    return reinterpret_cast<PyObject*>(out);
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
    UNARY(neg),
    UNARY(sqrt),
    UNARY(abs),
    UNARY(rsqrt),
    entry_method("pow_scalar", pow_scalar),
    entry_method("clip", clip),
    entry_method("eq", compare<Order::EQUAL, Order::EQUAL>),
    entry_method("ne", compare<Order::UNEQUAL, Order::UNEQUAL>),
    entry_method("lt", compare<Order::LESS, Order::GREATER>),
    entry_method("le", compare<Order::LESS_EQUAL, Order::GREATER_EQUAL>),
    entry_method("gt", compare<Order::GREATER, Order::LESS>),
    entry_method("ge", compare<Order::GREATER_EQUAL, Order::LESS_EQUAL>),
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
