// clamp(gain * act(x + b)), its derivative and the derivative of that, element by element. bias_act.py says who calls what and when.
//
// t stands for act(z), z = x + b. All derivatives but swish's follow from t alone, so what is saved for them is the output y = gain * t:
//   grad  = dy gain act'(z)                            with respect to z
//   curve = v dy (d/dy) [gain act'(z)]                 with respect to y    (v: the gradient that grad has received)
//         = v dy gain act''(z)                         with respect to z    where z is what is saved
// Where the clamp cuts, all of them are 0.
#include "portable.cuh"

enum Act { LINEAR, RELU, LRELU, TANH, SIGMOID, ELU, SELU, SOFTPLUS, SWISH };  // the order of bias_act.activation_funcs
enum Mode { FORWARD, GRAD, CURVE };

struct Options {
    long long numel, step, channels;  // the channel of element i is (i / step) % channels
    double alpha, gain, clamp;        // as the host has them; clamp < 0: none
    int mode, act, from_z;            // from_z: `saved` is x (and b), not y
};

template <int ACT, class A> struct Activation {
    static constexpr double SELU_SCALE = 1.0507009873554804934193349852946, SELU_ALPHA = 1.6732632423543772848170429916717;

    static HD A value(A z, A alpha) {
        if (ACT == RELU) return z < 0 ? A(0) : z;  // written so that NaN stays NaN
        if (ACT == LRELU) return z < 0 ? z * alpha : z;
        if (ACT == TANH) return tanh(z);
        if (ACT == SIGMOID) return A(1) / (A(1) + exp(-z));
        if (ACT == ELU) return z < 0 ? expm1(z) : z;
        if (ACT == SELU) return A(SELU_SCALE) * (z < 0 ? A(SELU_ALPHA) * expm1(z) : z);
        if (ACT == SOFTPLUS) return z > 0 ? z + log1p(exp(-z)) : log1p(exp(z));
        if (ACT == SWISH) return z / (A(1) + exp(-z));
        return z;
    }

    static HD A slope(A t, A z, A alpha) {  // act'(z)
        if (ACT == RELU) return t > 0 ? A(1) : A(0);
        if (ACT == LRELU) return z > 0 ? A(1) : alpha;
        if (ACT == TANH) return (A(1) - t) * (A(1) + t);
        if (ACT == SIGMOID) return t * (A(1) - t);
        if (ACT == ELU) return t > 0 ? A(1) : t + A(1);
        if (ACT == SELU) return t > 0 ? A(SELU_SCALE) : t + A(SELU_SCALE * SELU_ALPHA);
        if (ACT == SOFTPLUS) return -expm1(-t);
        if (ACT == SWISH) {
            const A s = A(1) / (A(1) + exp(-z));
            return s * (A(1) + z * (A(1) - s));
        }
        return A(1);
    }

    static HD A bend(A t, A z, A gain) {  // derivative of gain act'(z) with respect to y = gain t, for swish to z
        if (ACT == TANH) return A(-2) * t;
        if (ACT == SIGMOID) return A(1) - A(2) * t;
        if (ACT == ELU || ACT == SELU) return t > 0 ? A(0) : A(1);
        if (ACT == SOFTPLUS) return exp(-t);
        if (ACT == SWISH) {
            const A s = A(1) / (A(1) + exp(-z));
            return gain * s * (A(1) - s) * (A(2) + z * (A(1) - A(2) * s));
        }
        return A(0);
    }
};

template <class T, int N> struct alignas(N * sizeof(T)) Pack {  // moved as one
    T v[N];
};

template <class T> struct BiasAct {
    typedef typename Accumulate<T>::type A;
    static constexpr int WIDTH = 16 / sizeof(T);  // elements of a work item: 16 bytes
    typedef Pack<T, WIDTH> Packed;

    const T *first, *second, *bias, *saved;  // FORWARD: x; GRAD: dy; CURVE: v, dy. What a mode lacks is null
    T* out;
    Options o;
    A alpha, gain, per_gain, clamp;  // of o, in the type that is computed in; clamp as y stores it: a y that was cut is known by its value
    int packed;  // all pointers are multiples of 16 bytes

    HD void read(const T* from, long long i, int count, A (&to)[WIDTH]) const {
        if (packed && count == WIDTH) {
            const Packed pack = *reinterpret_cast<const Packed*>(from + i);
            UNROLL for (int k = 0; k < WIDTH; ++k) to[k] = A(pack.v[k]);
        } else {
            UNROLL for (int k = 0; k < WIDTH; ++k) to[k] = k < count ? A(from[i + k]) : A(0);
        }
    }

    template <int ACT> HD void apply(long long i, int count) const {
        typedef Activation<ACT, A> F;
        A a[WIDTH], c[WIDTH], s[WIDTH], result[WIDTH];
        read(first, i, count, a);
        UNROLL for (int k = 0; k < WIDTH; ++k) c[k] = A(1), s[k] = A(0);
        if (o.mode == CURVE) read(second, i, count, c);
        if (saved) read(saved, i, count, s);
        if (bias) {
            long long at, channel;
            if (o.numel >> 31) {
                at = i % o.step, channel = i / o.step % o.channels;
            } else {  // a 64-bit division is slow
                at = unsigned(i) % unsigned(o.step), channel = unsigned(i) / unsigned(o.step) % unsigned(o.channels);
            }
            UNROLL for (int k = 0; k < WIDTH; ++k) {
                const A b = A(bias[channel]);
                if (o.mode == FORWARD) a[k] += b;
                else s[k] += b;
                if (++at == o.step) at = 0, channel = channel + 1 == o.channels ? 0 : channel + 1;
            }
        }
        UNROLL for (int k = 0; k < WIDTH; ++k) {
            if (o.mode == FORWARD) {
                const A y = gain * F::value(a[k], alpha);
                result[k] = clamp < 0 ? y : y < -clamp ? -clamp : y > clamp ? clamp : y;
                continue;
            }
            const A t = o.from_z ? F::value(s[k], alpha) : s[k] * per_gain;
            const A z = o.from_z ? s[k] : t;  // lrelu, the only one to look at z here, has the sign of z in t
            const A held = o.from_z ? gain * t : s[k];
            const bool cut = clamp >= 0 && !(held < clamp && held > -clamp);
            const A factor = o.mode == GRAD ? gain * F::slope(t, z, alpha) : c[k] * F::bend(t, z, gain);
            result[k] = cut ? A(0) : a[k] * factor;
        }
        if (packed && count == WIDTH) {
            Packed pack;
            UNROLL for (int k = 0; k < WIDTH; ++k) pack.v[k] = T(result[k]);
            *reinterpret_cast<Packed*>(out + i) = pack;
        } else {
            UNROLL for (int k = 0; k < WIDTH; ++k) if (k < count) out[i + k] = T(result[k]);
        }
    }

    HD void operator()(unsigned x, unsigned, unsigned) const {
        const long long i = (long long)x * WIDTH;
        const int count = o.numel - i < WIDTH ? int(o.numel - i) : WIDTH;
        switch (o.act) {
            case LINEAR: return apply<LINEAR>(i, count);
            case RELU: return apply<RELU>(i, count);
            case LRELU: return apply<LRELU>(i, count);
            case TANH: return apply<TANH>(i, count);
            case SIGMOID: return apply<SIGMOID>(i, count);
            case ELU: return apply<ELU>(i, count);
            case SELU: return apply<SELU>(i, count);
            case SOFTPLUS: return apply<SOFTPLUS>(i, count);
            case SWISH: return apply<SWISH>(i, count);
        }
    }
};

struct Call {
    const void *first, *second, *bias, *saved;
    void* out;
    Options o;
    int device;
    void* stream;

    template <class T> int with() const {
        const uintptr_t low = (uintptr_t(first) | uintptr_t(second) | uintptr_t(saved) | uintptr_t(out)) % 16;
        const long long items = (o.numel + BiasAct<T>::WIDTH - 1) / BiasAct<T>::WIDTH;
        if (items >= 1LL << 32) return INVALID;
        typedef typename BiasAct<T>::A A;
        const A per_gain = o.gain != 0 ? A(1 / o.gain) : A(0), clamp = o.clamp < 0 ? A(-1) : A(T(A(o.clamp)));
        const BiasAct<T> body = {(const T*)first, (const T*)second, (const T*)bias, (const T*)saved, (T*)out, o,
                                 A(o.alpha), A(o.gain), per_gain, clamp, low == 0};
        return launch(body, Extent{unsigned(items), 1, 1}, device, stream);
    }
};

// All tensors but bias [channels] have numel elements in one and the same order. Null: not there. Returns a cudaError_t.
extern "C" int bias_act(int mode, int act, int dtype, const void* first, const void* second, const void* bias, const void* saved,
                        int from_z, void* out, long long numel, long long step, long long channels, double alpha, double gain, double clamp,
                        int device, void* stream) {
    const Options o = {numel, step, channels, alpha, gain, clamp, mode, act, from_z};
    return dispatch(dtype, Call{first, second, bias, saved, out, o, device, stream});
}
