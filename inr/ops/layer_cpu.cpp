// What comes behind the products of one FMM layer on a CPU, and its derivative, in one pass over the activations each.
//
// Tensors lie as [N][C][H][W] in float32 or bfloat16; a plane is one channel of one image. "below" are values of the grid below, held by
// 2x2 points (up = 2), or of the layer's own points (up = 1). Sums over a plane are taken in one order, whatever the threads.
// Entry points are at the end, see inr/ops/native.py.

#include "cpu.hpp"

namespace {

typedef uint16_t half_vec __attribute__((vector_size(VW * 2)));

struct Single {
    typedef float type;
    static inline vec read(const float* p) { return load(p); }
    static inline void write(float* p, vec v) { store(p, v); }
    static inline float read_one(const float* p) { return *p; }
    static inline void write_one(float* p, float f) { *p = f; }
};

struct Bfloat {
    typedef uint16_t type;
    static inline vec read(const uint16_t* p) {
        half_vec h;
        std::memcpy(&h, p, sizeof h);
        return (vec)(__builtin_convertvector(h, uvec) << 16);
    }
    static inline void write(uint16_t* p, vec v) {
        half_vec h = __builtin_convertvector(bf16_bits(v), half_vec);
        std::memcpy(p, &h, sizeof h);
    }
    static inline float read_one(const uint16_t* p) {
        uint32_t u = (uint32_t)*p << 16;
        float f;
        std::memcpy(&f, &u, 4);
        return f;
    }
    static inline void write_one(uint16_t* p, float f) { *p = (uint16_t)bf16_bits(f); }
};

// The first `count` of VW numbers; the others are 0.
template <class T> inline vec read_some(const typename T::type* p, int64_t count) {
    vec v = {};
    for (int64_t i = 0; i < count; ++i) v[i] = T::read_one(p + i);
    return v;
}

template <class T> inline void write_some(typename T::type* p, vec v, int64_t count) {
    for (int64_t i = 0; i < count; ++i) T::write_one(p + i, v[i]);
}

struct Activation {  // clamp(gain * lrelu(z)); slope >= 0, gain > 0; most: limit of the absolute value, infinity for none
    float slope, gain, most;
    inline vec operator()(vec z) const { return limited(activated(z, slope) * gain, most); }
    inline vec derivative(vec y) const {
        vec d = y > vec{} ? splat(gain) : splat(gain * slope);
        return (y < splat(most)) & (y > splat(-most)) ? d : vec{};
    }
};

// y = act(y + b + below) on W numbers of a row; below [W] float32, or null.
template <class T> inline void finish_row(typename T::type* y, const float* below, float bias, int64_t W, const Activation& act) {
    int64_t c = 0;
    for (; c + VW <= W; c += VW) {
        vec z = T::read(y + c) + bias;
        T::write(y + c, act(below ? z + load(below + c) : z));
    }
    if (c == W) return;
    vec z = read_some<T>(y + c, W - c) + bias;
    write_some<T>(y + c, act(below ? z + read_some<Single>(below + c, W - c) : z), W - c);
}

template <class T>
void finish(typename T::type* y, const typename T::type* below, const float* bias, int64_t bias_images, int64_t N, int64_t C, int64_t H,
            int64_t W, int64_t up, Activation act, int threads) {
    in_parallel(N * C, threads, [&] {
        return [&, space = Buffer((W + VW) * 4)](int64_t plane) {
            typename T::type* to = y + plane * H * W;
            const float b = bias ? bias[bias_images > 1 ? plane : plane % C] : 0;
            if (!below) return finish_row<T>(to, nullptr, b, H * W, act);
            float* row = space.template as<float>();
            const int64_t w = W / up;
            const typename T::type* from = below + plane * (H / up) * w;
            for (int64_t r = 0; r < H; ++r) {
                if (r % up == 0)
                    for (int64_t c = 0; c < w; ++c, ++from)
                        for (int64_t i = 0; i < up; ++i) row[c * up + i] = T::read_one(from);
                finish_row<T>(to + r * W, row, b, W, act);
            }
        };
    });
}

// dz = dy * act'(y) on W numbers of a row, added to `sums` and, where that is not null, to `below` [W].
template <class T>
inline void derive_row(const typename T::type* dy, const typename T::type* y, typename T::type* dz, vec& sums, float* below, int64_t W,
                       const Activation& act) {
    int64_t c = 0;
    for (; c + VW <= W; c += VW) {
        vec d = T::read(dy + c) * act.derivative(T::read(y + c));
        T::write(dz + c, d);
        sums += d;
        if (below) store(below + c, load(below + c) + d);
    }
    if (c == W) return;
    vec d = read_some<T>(dy + c, W - c) * act.derivative(read_some<T>(y + c, W - c));
    write_some<T>(dz + c, d, W - c);
    sums += d;
    if (below) for (int64_t i = 0; c + i < W; ++i) below[c + i] += d[i];
}

template <class T>
void derive(const typename T::type* dy, const typename T::type* y, typename T::type* dz, float* db, typename T::type* pooled, int64_t N,
            int64_t C, int64_t H, int64_t W, int64_t up, Activation act, int threads) {
    in_parallel(N * C, threads, [&] {
        return [&, space = Buffer((W + VW) * 4)](int64_t plane) {
            const int64_t at = plane * H * W, w = W / up;
            float* row = space.template as<float>();
            typename T::type* to = pooled ? pooled + plane * (H / up) * w : nullptr;
            double sum = 0;
            for (int64_t r = 0; r < H; ++r) {
                vec sums = {};
                if (pooled && r % up == 0) std::fill(row, row + W, 0.0f);
                derive_row<T>(dy + at + r * W, y + at + r * W, dz + at + r * W, sums, pooled ? row : nullptr, W, act);
                for (int i = 0; i < VW; ++i) sum += sums[i];
                if (pooled && r % up == up - 1)
                    for (int64_t c = 0; c < w; ++c, ++to) {
                        float total = 0;
                        for (int64_t i = 0; i < up; ++i) total += row[c * up + i];
                        T::write_one(to, total);
                    }
            }
            db[plane] = (float)sum;
        };
    });
}

}  // namespace

extern "C" {

// y [N][C][H][W], in place: clamp(gain * lrelu(y + below + bias)). below [N][C][H / up][W / up] of y's type, or null;
// bias [bias_images][C] float32, or null.
void fmm_finish(void* y, const void* below, const float* bias, int64_t bias_images, int64_t N, int64_t C, int64_t H, int64_t W, int64_t up,
                float slope, float gain, float most, int64_t bits, int64_t threads) {
    const Activation act = {slope, gain, most};
    bits ? finish<Bfloat>((uint16_t*)y, (const uint16_t*)below, bias, bias_images, N, C, H, W, up, act, (int)threads)
         : finish<Single>((float*)y, (const float*)below, bias, bias_images, N, C, H, W, up, act, (int)threads);
}

// dz = dy * derivative at what gave y; db [N][C] its sums over planes; pooled [N][C][H / up][W / up] its sums over what holds one value of
// the grid below, or null. All but db of y's type.
void fmm_derive(const void* dy, const void* y, void* dz, float* db, void* pooled, int64_t N, int64_t C, int64_t H, int64_t W, int64_t up,
                float slope, float gain, float most, int64_t bits, int64_t threads) {
    const Activation act = {slope, gain, most};
    bits ? derive<Bfloat>((const uint16_t*)dy, (const uint16_t*)y, (uint16_t*)dz, db, (uint16_t*)pooled, N, C, H, W, up, act, (int)threads)
         : derive<Single>((const float*)dy, (const float*)y, (float*)dz, db, (float*)pooled, N, C, H, W, up, act, (int)threads);
}

}  // extern "C"
