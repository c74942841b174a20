// What comes behind the products of one FMM layer on a CPU, and its derivative, in one pass over the activations each.
//
// Tensors lie as [N][C][H][W] in float32 or bfloat16; a plane is one channel of one image. "parent" are values of the layer's own points
// (up = 0) or of the grid below, with half as many rows and columns: each held by 2x2 points (up = NEAREST) or read between samples with
// weights 3/4 and 1/4, those at the border held beyond it (up = LINEAR). Sums over a plane are taken in one order, whatever the threads.
// Entry points are at the end, see inr/ops/native.py.

#include "cpu.hpp"

namespace {

constexpr int64_t NEAREST = 1, LINEAR = 2;

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

struct Activation {  // clamp(gain * lrelu(z)); slope >= 0, gain > 0; clamp: limit of the absolute value, infinity for none
    float slope, gain, clamp;
    inline vec operator()(vec z) const { return limited(activated(z, slope) * gain, clamp); }
    inline vec derivative(vec y) const {
        vec d = y > vec{} ? splat(gain) : splat(gain * slope);
        return (y < splat(clamp)) & (y > splat(-clamp)) ? d : vec{};
    }
};

// y = act(y + b + parent) on W numbers of a row; parent [W] float32, or null.
template <class T> inline void finish_row(typename T::type* y, const float* parent, float bias, int64_t W, const Activation& act) {
    int64_t c = 0;
    for (; c + VW <= W; c += VW) {
        vec z = T::read(y + c) + bias;
        T::write(y + c, act(parent ? z + load(parent + c) : z));
    }
    if (c == W) return;
    vec z = read_some<T>(y + c, W - c) + bias;
    write_some<T>(y + c, act(parent ? z + read_some<Single>(parent + c, W - c) : z), W - c);
}

// The row of the grid below that lies next to row r / 2 of it, on the side of row r of 2 h; likewise for columns.
inline int64_t beside(int64_t r, int64_t h) { return std::min(std::max<int64_t>(r / 2 + (r % 2 ? 1 : -1), 0), h - 1); }

// Row r of what `from` [h][w] becomes on twice as many rows and columns; mixed: room for w + 2 numbers.
template <class T> inline void double_row(float* row, float* mixed, const typename T::type* from, int64_t r, int64_t h, int64_t w, int64_t up) {
    const typename T::type *near = from + r / 2 * w, *far = from + beside(r, h) * w;
    if (up == NEAREST) {
        for (int64_t c = 0; c < w; ++c) row[2 * c] = row[2 * c + 1] = T::read_one(near + c);
        return;
    }
    float* m = mixed + 1;
    for (int64_t c = 0; c < w; ++c) m[c] = 0.75f * T::read_one(near + c) + 0.25f * T::read_one(far + c);
    m[-1] = m[0], m[w] = m[w - 1];
    for (int64_t c = 0; c < w; ++c) row[2 * c] = 0.75f * m[c] + 0.25f * m[c - 1], row[2 * c + 1] = 0.75f * m[c] + 0.25f * m[c + 1];
}

// The transposed of double_row: adds what the gradients d [2 w] of row r are for the grid below to sums [h][w]. d[-1] and d[2 w] are room.
inline void halve_row(float* sums, float* d, int64_t r, int64_t h, int64_t w, int64_t up) {
    float *near = sums + r / 2 * w, *far = sums + beside(r, h) * w;
    if (up == NEAREST) {
        for (int64_t c = 0; c < w; ++c) near[c] += d[2 * c] + d[2 * c + 1];
        return;
    }
    d[-1] = d[0], d[2 * w] = d[2 * w - 1];
    for (int64_t c = 0; c < w; ++c) {
        const float pooled = 0.75f * (d[2 * c] + d[2 * c + 1]) + 0.25f * (d[2 * c - 1] + d[2 * c + 2]);
        near[c] += 0.75f * pooled, far[c] += 0.25f * pooled;
    }
}

template <class T>
void finish(typename T::type* y, const typename T::type* parent, const float* bias, int64_t bias_images, int64_t N, int64_t C, int64_t H,
            int64_t W, int64_t up, Activation act, int threads) {
    in_parallel(N * C, threads, [&] {
        return [&, space = Buffer((W + W / 2 + 2) * 4)](int64_t plane) {
            typename T::type* to = y + plane * H * W;
            const float b = bias ? bias[bias_images > 1 ? plane : plane % C] : 0;
            if (!parent) return finish_row<T>(to, nullptr, b, H * W, act);
            float* row = space.template as<float>();
            const int64_t side = up ? 2 : 1, h = H / side, w = W / side;
            const typename T::type* from = parent + plane * h * w;
            for (int64_t r = 0; r < H; ++r) {
                if (!up) for (int64_t c = 0; c < W; ++c) row[c] = T::read_one(from + r * W + c);
                else if (up == LINEAR || r % 2 == 0) double_row<T>(row, row + W, from, r, h, w, up);
                finish_row<T>(to + r * W, row, b, W, act);
            }
        };
    });
}

// dz = dy * act'(y) on W numbers of a row, added to `sums` and, where that is not null, put into `row` [W].
template <class T>
inline void backward_row(const typename T::type* dy, const typename T::type* y, typename T::type* dz, vec& sums, float* row, int64_t W,
                       const Activation& act) {
    int64_t c = 0;
    for (; c + VW <= W; c += VW) {
        vec d = T::read(dy + c) * act.derivative(T::read(y + c));
        T::write(dz + c, d);
        sums += d;
        if (row) store(row + c, d);
    }
    if (c == W) return;
    vec d = read_some<T>(dy + c, W - c) * act.derivative(read_some<T>(y + c, W - c));
    write_some<T>(dz + c, d, W - c);
    sums += d;
    if (row) for (int64_t i = 0; c + i < W; ++i) row[c + i] = d[i];
}

template <class T>
void backward(const typename T::type* dy, const typename T::type* y, typename T::type* dz, float* db, typename T::type* pooled, int64_t N,
            int64_t C, int64_t H, int64_t W, int64_t up, Activation act, int threads) {
    in_parallel(N * C, threads, [&] {
        return [&, space = Buffer((W + 2 + (pooled ? H / 2 * (W / 2) : 0)) * 4)](int64_t plane) {
            const int64_t at = plane * H * W, h = H / 2, w = W / 2;
            float *row = space.template as<float>() + 1, *parent = row + W + 1;
            if (pooled) std::fill(parent, parent + h * w, 0.0f);
            double sum = 0;
            for (int64_t r = 0; r < H; ++r) {
                vec sums = {};
                backward_row<T>(dy + at + r * W, y + at + r * W, dz + at + r * W, sums, pooled ? row : nullptr, W, act);
                for (int i = 0; i < VW; ++i) sum += sums[i];
                if (pooled) halve_row(parent, row, r, h, w, up);
            }
            if (pooled) for (int64_t i = 0; i < h * w; ++i) T::write_one(pooled + plane * h * w + i, parent[i]);
            db[plane] = (float)sum;
        };
    });
}

}  // namespace

extern "C" {

// y [N][C][H][W], in place: clamp(gain * lrelu(y + parent + bias)). parent of y's type, or null;
// bias [bias_images][C] float32, or null.
void fmm_finish(void* y, const void* parent, const float* bias, int64_t bias_images, int64_t N, int64_t C, int64_t H, int64_t W, int64_t up,
                float slope, float gain, float clamp, int64_t bits, int64_t threads) {
    const Activation act = {slope, gain, clamp};
    bits ? finish<Bfloat>((uint16_t*)y, (const uint16_t*)parent, bias, bias_images, N, C, H, W, up, act, (int)threads)
         : finish<Single>((float*)y, (const float*)parent, bias, bias_images, N, C, H, W, up, act, (int)threads);
}

// dz = dy * derivative at what gave y; db [N][C] its sums over planes; pooled [N][C][H / 2][W / 2] the gradient of `parent`, or null where
// that is dz. All but db of y's type.
void fmm_backward(const void* dy, const void* y, void* dz, float* db, void* pooled, int64_t N, int64_t C, int64_t H, int64_t W, int64_t up,
                float slope, float gain, float clamp, int64_t bits, int64_t threads) {
    const Activation act = {slope, gain, clamp};
    bits ? backward<Bfloat>((const uint16_t*)dy, (const uint16_t*)y, (uint16_t*)dz, db, (uint16_t*)pooled, N, C, H, W, up, act, (int)threads)
         : backward<Single>((const float*)dy, (const float*)y, (float*)dz, db, (float*)pooled, N, C, H, W, up, act, (int)threads);
}

}  // extern "C"
