// FMM layers on a CPU: panels of points run through all layers of a block while they sit in the cache.
//
// A panel is P points of one image. Its activations lie as [C][P], so that one channel of it is a few vectors; weights are packed
// as [C_out / MR][C_in][MR], in the order in which the product reads them. MR channels of a panel are accumulated in registers:
// acc[m][j] += w[k][m] * x[k][j]. Bias, values from the grid below, activation and clamp are applied before they leave the registers.
// In bfloat16 two channels of a point share 32 bits, and products are accumulated in float32.
//
// Plain C++ with the vector types of GCC and Clang; no header of PyTorch. Entry points are at the end, see inr/ops/native.py.
// Legend: C channels, E coordinate features, K either, n rows of a Fourier matrix, H and W rows and columns of points.

#include "cpu.hpp"

namespace {

// The two number formats: words of activations and weights per step of k, and the product of one step.
struct Float32 {
    typedef float word;
    static constexpr int PER_WORD = 1;
    static inline void multiply(vec& acc, vec x, word w) { acc += x * w; }
};

struct BFloat16 {
    typedef uint32_t word;  // channels 2k and 2k + 1 of a point
    static constexpr int PER_WORD = 2;
    static inline void multiply(vec& acc, vec x, word w) {
#if defined(__AVX512BF16__)
        acc = (vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)x, (__m512bh)_mm512_set1_epi32((int)w));
#else
        uvec u = (uvec)x;
        float even, odd;
        uint32_t low = w << 16, high = w & 0xffff0000u;
        std::memcpy(&even, &low, 4);
        std::memcpy(&odd, &high, 4);
        acc += (vec)(u << 16) * even + (vec)(u & 0xffff0000u) * odd;
#endif
    }
};

template <class N> int64_t words(int64_t channels) { return (channels + N::PER_WORD - 1) / N::PER_WORD; }

typedef vec Tile[MR][NV];

// acc += W x for MR rows of W: w [K][MR], x [K][P].
template <class N> inline void multiply(Tile& acc, int64_t K, const typename N::word* __restrict w, const typename N::word* __restrict x) {
    for (int64_t k = 0; k < K; ++k, w += MR, x += P) {
        vec column[NV];
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) std::memcpy(&column[j], x + j * VW, sizeof(vec));
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
            for (int j = 0; j < NV; ++j) N::multiply(acc[m][j], column[j], w[m]);
    }
}

// Puts MR channels from c on into a panel.
inline void put(float* panel, int64_t c, const Tile& acc, Float32) {
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) store(panel + (c + m) * P + j * VW, acc[m][j]);
}

inline void put(uint32_t* panel, int64_t c, const Tile& acc, BFloat16) {
#pragma GCC unroll 8
    for (int m = 0; m < MR; m += 2)
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) {
            uvec pair = bf16_bits(acc[m][j]) | bf16_bits(acc[m + 1][j]) << 16;
            std::memcpy(panel + (c + m) / 2 * P + j * VW, &pair, sizeof pair);
        }
}

// Rows of a picture-shaped tensor and panels. `bits` says that the tensor holds bfloat16; rows are `stride` numbers apart.
inline void copy_row(float* to, const float* from, int count) {
    if (count == P) for (int j = 0; j < NV; ++j) store(to + j * VW, load(from + j * VW));
    else std::memcpy(to, from, count * 4);
}

inline void read_row(float* to, const void* from, int64_t at, int count, bool bits) {
    if (!bits) copy_row(to, (const float*)from + at, count);
    else for (int i = 0; i < count; ++i) {
        uint32_t u = (uint32_t)((const uint16_t*)from)[at + i] << 16;
        std::memcpy(to + i, &u, 4);
    }
    std::fill(to + count, to + P, 0.0f);
}

inline void write_row(void* to, int64_t at, const float* from, int count, bool bits) {
    if (!bits) copy_row((float*)to + at, from, count);
    else for (int i = 0; i < count; ++i) ((uint16_t*)to)[at + i] = (uint16_t)bf16_bits(from[i]);
}

inline void fill(float* panel, const float* rows, int64_t channels, Float32) {
    if (panel != rows) for (int64_t c = 0; c < channels; ++c) copy_row(panel + c * P, rows + c * P, P);
}

inline void fill(uint32_t* panel, const float* rows, int64_t channels, BFloat16) {
    for (int64_t c = 0; c < channels; c += 2)
        for (int j = 0; j < NV; ++j) {
            uvec pair = bf16_bits(load(rows + c * P + j * VW));
            if (c + 1 < channels) pair |= bf16_bits(load(rows + (c + 1) * P + j * VW)) << 16;
            std::memcpy(panel + c / 2 * P + j * VW, &pair, sizeof pair);
        }
}

// [C][points] from point `first` on -> panel.
template <class N> void read_panel(typename N::word* panel, const void* x, int64_t C, int64_t points, int64_t first, int count, bool bits) {
    float rows[2][P];
    for (int64_t c = 0; c < C; c += N::PER_WORD) {
        if (N::PER_WORD == 1) {
            read_row((float*)panel + c * P, x, c * points + first, count, bits);
            continue;
        }
        for (int i = 0; i < N::PER_WORD; ++i)
            if (c + i < C) read_row(rows[i], x, (c + i) * points + first, count, bits);
        fill(panel + c / N::PER_WORD * P, rows[0], std::min<int64_t>(N::PER_WORD, C - c), N());
    }
}

// Reads out of a plane of values at the points of a panel. Point i reads the value at off[i] or, where `between`, out of the row that off[i]
// is in and the one `down[i]` numbers further, a share of `share_down[i]` towards that one; and in both of them, from there towards the
// value `right[i]` numbers further.
struct Gather {
    int32_t off[P], right[P], down[P], base[NV];
    float share_right[P], share_down[P];
    ivec lane[NV], next[NV];
    bool between, near[NV];  // near: all of a vector's points lie within one vector of values of a row, and its next one

    void prepare() {
        for (int j = 0; j < NV; ++j) {
            const int first = j * VW;
            int32_t low = off[first], high = low;
            bool alike = true;
            for (int i = first; i < first + VW; ++i) {
                low = std::min(low, off[i]), high = std::max(high, off[i] + (between ? right[i] : 0));
                alike &= !between || (down[i] == down[first] && share_down[i] == share_down[first]);
            }
            base[j] = low;
            near[j] = high - low < VW && alike;
            for (int i = 0; i < VW; ++i) {
                lane[j][i] = off[first + i] - low;
                next[j][i] = lane[j][i] + (between ? right[first + i] : 0);
            }
        }
    }

    vec operator()(const float* values, int j) const {
        vec v;
#if !defined(__clang__)
        if (near[j]) {
            const float* at = values + base[j];
            v = load(at);
            if (!between) return __builtin_shuffle(v, lane[j]);
            v += share_down[j * VW] * (load(at + down[j * VW]) - v);
            const vec left = __builtin_shuffle(v, lane[j]);
            return left + load(share_right + j * VW) * (__builtin_shuffle(v, next[j]) - left);
        }
#endif
        for (int i = j * VW; i < (j + 1) * VW; ++i) {
            const float* at = values + off[i];
            float left = *at;
            if (between) {
                left += share_down[i] * (at[down[i]] - left);
                const float other = at[right[i]] + share_down[i] * (at[right[i] + down[i]] - at[right[i]]);
                left += share_right[i] * (other - left);
            }
            v[i - j * VW] = left;
        }
        return v;
    }
};

}  // namespace

extern "C" {

// What the entry points share with inr/ops/native.py, field by field.
struct Layer {               // y = clamp(lrelu(W_x x + W_e e + parent + b))
    int64_t in_channels;  // of x; 0 where the layer has none of its own
    int64_t features;        // E, or 0 where the layer does not see them
    int64_t channels;        // C_out
    const void *w_x, *w_e;   // packed
    const float* bias;       // [C_out rounded up to MR]
    const float* parent;      // W_x x taken on the grid below, [C_out][cells of that grid] and a vector more; or null
    float slope, clamp;      // of lrelu; limit of |y|, infinity for none
};

struct Features {         // columns [raw x, raw y, sin of n rows, cos of n rows, constants]
    int64_t raw, rows, cosine, constants;
    const float *x, *y;                             // [W], [H]
    const float *sin_x, *cos_x, *sin_y, *cos_y;     // [n][W], [n][W], [n][H], [n][H]; phases belong to y
    const float* cells;                             // constants [C][cell_rows * cell_columns]
    int64_t cell_rows, cell_columns;
    const int32_t *row_low, *row_high, *column_low, *column_high;  // where the points lie between cells, [H] and [W]
    const float *row_share, *column_share;                         // and how far towards the higher one
};

struct Block {
    int64_t height, width, layers;
    const Layer* layer;
    Layer to_rgb;               // parent: the image of the grid below, added after the clamp
    const Features* features;   // or null
    const void* x;              // [C][H * W], input of the first layer where it has one of its own
    int64_t x_bits;             // 1 if x and x_out hold bfloat16
    void* x_out;                // [C][H * W], or null
    float* image;               // [channels][H * W]
    const int32_t *row_low, *row_high, *column_low, *column_high;  // of the grid below, what rows and columns read; null if there is none
    const float *row_share, *column_share;                         // and how far they lie towards the higher one; null for not at all
    int64_t parent_width, parent_points;
};

}  // extern "C"

namespace {

int64_t num_features(const Features& f) { return 2 * f.raw + f.rows * (1 + f.cosine) + f.constants; }

// Learned constants at no more than VW points from column c on, read between cells: out [C][P].
void constants_of(const Features& f, float* out, int64_t r, int64_t c, int count) {
    const int32_t *a = f.column_low + c, *b = f.column_high + c;
    const float *low = f.cells + f.row_low[r] * f.cell_columns, *high = f.cells + f.row_high[r] * f.cell_columns;
    const float down = f.row_share[r], *across = f.column_share + c;
    int32_t lowest = a[0], highest = b[0];  // columns of a periodic picture begin again
    for (int i = 0; i < count; ++i) lowest = std::min({lowest, a[i], b[i]}), highest = std::max({highest, a[i], b[i]});
    const int64_t plane = f.cell_rows * f.cell_columns, first = std::min<int64_t>(lowest, f.cell_columns - VW);
#if !defined(__clang__)
    if (first >= 0 && highest - first < VW) {  // all within one vector of cells
        ivec at_a = {}, at_b = {};
        vec share = {};
        for (int i = 0; i < count; ++i) at_a[i] = (int32_t)(a[i] - first), at_b[i] = (int32_t)(b[i] - first), share[i] = across[i];
        low += first, high += first;
        for (int64_t k = 0; k < f.constants; ++k, low += plane, high += plane, out += P) {
            const vec v = load(low) + down * (load(high) - load(low)), left = __builtin_shuffle(v, at_a), right = __builtin_shuffle(v, at_b);
            const vec found = left + share * (right - left);
            if (count == VW) store(out, found);
            else std::memcpy(out, &found, count * 4);
        }
        return;
    }
#endif
    for (int64_t k = 0; k < f.constants; ++k, low += plane, high += plane, out += P)
        for (int i = 0; i < count; ++i) {
            float left = low[a[i]] + down * (high[a[i]] - low[a[i]]), right = low[b[i]] + down * (high[b[i]] - low[b[i]]);
            out[i] = left + across[i] * (right - left);
        }
}

// Features of the points [o, o + count) of a panel, which lie in row r from column c on: out [E][P].
void features_of_row(const Features& f, float* out, int o, int64_t r, int64_t c, int count, int64_t H, int64_t W) {
    out += o;
    for (int64_t k = 0; k < f.constants; ++k) {  // every plane is far from the last: ask for all of them before they are needed
        const float* row = f.cells + (k * f.cell_rows + f.row_low[r]) * f.cell_columns;
        for (int64_t i = f.column_low[c]; i <= f.column_high[c + count - 1]; i += 16) __builtin_prefetch(row + i);
    }
    if (f.raw) {
        for (int i = 0; i < count; ++i) out[i] = f.x[c + i], out[P + i] = f.y[r];
        out += 2 * P;
    }
    for (int64_t k = 0; k < f.rows; ++k) {
        const float *sx = f.sin_x + k * W + c, *cx = f.cos_x + k * W + c;
        float sy = f.sin_y[k * H + r], cy = f.cos_y[k * H + r];
        float *s = out + k * P, *q = out + (f.rows + k) * P;
        for (int i = 0; i < count; ++i) s[i] = sx[i] * cy + cx[i] * sy;
        if (f.cosine) for (int i = 0; i < count; ++i) q[i] = cx[i] * cy - sx[i] * sy;
    }
    out += f.rows * (1 + f.cosine) * P;
    if (f.constants)
        for (int i = 0; i < count; i += VW) constants_of(f, out + i, r, c + i, std::min(VW, count - i));
}

template <class N> struct Panels {  // of a block, with what one thread needs to work on them
    typedef typename N::word word;
    const Block& b;
    int64_t E, widest;
    Buffer space;
    float* features;
    word *feature_words, *here, *there;

    static int64_t widest_of(const Block& b) {
        int64_t widest = std::max<int64_t>(b.layer[0].in_channels, 1);
        for (int64_t l = 0; l < b.layers; ++l) widest = std::max(widest, b.layer[l].channels);
        return up_to(widest, 2 * MR);
    }

    Panels(const Block& block)
        : b(block), E(block.features ? up_to(num_features(*block.features), 2) : 0), widest(widest_of(block)),
          space((2 * E + 2 * widest) * P * 4) {
        features = space.as<float>();
        feature_words = (word*)(features + (N::PER_WORD == 1 ? 0 : E * P));
        here = feature_words + E * P;
        there = here + widest * P;
        std::fill(features, features + (2 * E + 2 * widest) * P, 0.0f);
    }

    void operator()(int64_t item) {
        const int64_t points = b.height * b.width, first = item * P;
        const int count = (int)std::min<int64_t>(P, points - first);
        Gather parent;
        parent.between = b.row_share != nullptr;
        for (int o = 0; o < P;) {
            const int64_t at = std::min(first + o, points - 1), r = at / b.width, c = at % b.width;
            const int run = o < count ? (int)std::min<int64_t>(count - o, b.width - c) : P - o;
            if (b.row_low) find_parent(parent, o, r, c, run, o < count);
            if (b.features && o < count) features_of_row(*b.features, features, o, r, c, run, b.height, b.width);
            o += run;
        }
        if (b.row_low) parent.prepare();
        if (b.features) fill(feature_words, features, num_features(*b.features), N());
        if (b.layer[0].in_channels) read_panel<N>(here, b.x, b.layer[0].in_channels, points, first, count, b.x_bits);
        for (int64_t l = 0; l < b.layers; ++l) {
            const Layer& layer = b.layer[l];
            for (int64_t c = 0; c < layer.channels; c += MR) {
                Tile acc = {};
                product(acc, layer, c);
                if (layer.parent)
                    for (int m = 0; m < MR && c + m < layer.channels; ++m)
                        for (int j = 0; j < NV; ++j) acc[m][j] += parent(layer.parent + (c + m) * b.parent_points, j);
                finish(acc, layer, c);
                put(there, c, acc, N());
            }
            std::swap(here, there);
        }
        for (int64_t c = 0; c < b.to_rgb.channels; c += MR) {
            Tile acc = {};
            product(acc, b.to_rgb, c);
            for (int m = 0; m < MR && c + m < b.to_rgb.channels; ++m) {
                float row[P];
                for (int j = 0; j < NV; ++j) {
                    vec v = limited(acc[m][j] + b.to_rgb.bias[c + m], b.to_rgb.clamp);
                    if (b.to_rgb.parent) v += parent(b.to_rgb.parent + (c + m) * b.parent_points, j);
                    store(row + j * VW, v);
                }
                copy_row(b.image + (c + m) * points + first, row, count);
            }
        }
        if (b.x_out) write(points, first, count);
    }

    // Where the points [o, o + count) of a panel, in row r from column c on, find the grid below; all at c unless `inside` the picture.
    void find_parent(Gather& parent, int o, int64_t r, int64_t c, int count, bool inside) const {
        for (int i = 0; i < count; ++i, ++o) {
            const int64_t at = inside ? c + i : c;
            parent.off[o] = (int32_t)(b.row_low[r] * b.parent_width + b.column_low[at]);
            if (!parent.between) continue;
            parent.down[o] = (int32_t)((b.row_high[r] - b.row_low[r]) * b.parent_width);
            parent.right[o] = b.column_high[at] - b.column_low[at];
            parent.share_down[o] = b.row_share[r], parent.share_right[o] = b.column_share[at];
        }
    }

    static void finish(Tile& acc, const Layer& layer, int64_t c) {
        const bool limits = layer.clamp < INFINITY;
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
            for (int j = 0; j < NV; ++j) {
                const vec v = activated(acc[m][j] + layer.bias[c + m], layer.slope);
                acc[m][j] = limits ? limited(v, layer.clamp) : v;
            }
    }

    void product(Tile& acc, const Layer& layer, int64_t c) const {
        const int64_t K = words<N>(layer.in_channels), F = words<N>(layer.features);
        if (K) multiply<N>(acc, K, (const word*)layer.w_x + c * K, here);
        if (F) multiply<N>(acc, F, (const word*)layer.w_e + c * F, feature_words);
    }

    void write(int64_t points, int64_t first, int count) const {
        const int64_t C = b.layer[b.layers - 1].channels;
        float row[P];
        for (int64_t c = 0; c < C; ++c) {
            const word* from = here + c / N::PER_WORD * P;
            if (N::PER_WORD == 1) {
                write_row(b.x_out, c * points + first, (const float*)from, count, b.x_bits);
                continue;
            }
            for (int i = 0; i < P; ++i) {
                uint32_t u;
                std::memcpy(&u, from + i, 4);
                if (N::PER_WORD == 2) u = c % 2 ? u & 0xffff0000u : u << 16;
                std::memcpy(row + i, &u, 4);
            }
            write_row(b.x_out, c * points + first, row, count, b.x_bits);
        }
    }
};

template <class N> void pack_rows(const float* rows, typename N::word* packed, int64_t stride, int64_t C) {
    // rows [MR][stride], columns [0, C) -> [C / PER_WORD][MR]
    for (int64_t k = 0; k < words<N>(C); ++k)
        for (int m = 0; m < MR; ++m) {
            const float* from = rows + m * stride + k * N::PER_WORD;
            if (N::PER_WORD == 1) std::memcpy(packed + k * MR + m, from, 4);
            else {
                uint32_t pair = bf16_bits(from[0]) | (2 * k + 1 < C ? bf16_bits(from[1]) << 16 : 0);
                std::memcpy(packed + k * MR + m, &pair, 4);
            }
        }
}

template <class N> void block(const Block& b, int threads) {
    in_parallel((b.height * b.width + P - 1) / P, threads, [&] { return Panels<N>(b); });
}

template <class N>
void product(const void* x, int64_t x_bits, const void* w, float* y, int64_t C_in, int64_t C_out, int64_t points, int threads) {
    typedef typename N::word word;
    const int64_t K = words<N>(C_in);
    in_parallel((points + P - 1) / P, threads, [&] {
        return [&, space = Buffer(K * P * 4)](int64_t item) {
            const int64_t first = item * P;
            const int count = (int)std::min<int64_t>(P, points - first);
            word* panel = space.as<word>();
            read_panel<N>(panel, x, C_in, points, first, count, x_bits);
            for (int64_t c = 0; c < C_out; c += MR) {
                Tile acc = {};
                multiply<N>(acc, K, (const word*)w + c * K, panel);
                for (int m = 0; m < MR && c + m < C_out; ++m) {
                    float row[P];
                    for (int j = 0; j < NV; ++j) store(row + j * VW, acc[m][j]);
                    copy_row(y + (c + m) * points + first, row, count);
                }
            }
        };
    });
}

}  // namespace

extern "C" {

int64_t fmm_channels_step() { return MR; }

// Bytes of Layer, Features, Block: native.py holds its own against them.
int64_t fmm_size_of(int64_t which) { return which == 0 ? sizeof(Layer) : which == 1 ? sizeof(Features) : sizeof(Block); }

// Packed weights of a layer out of its shared ones.
// shared [C_out, C_x + E]; left [C_out, rank], right [rank, C_x + E]: W = gain * rows(shared * (1 + left right)), rows normalized;
// rank 0: W = gain * shared. w_x, w_e: where the packed parts go, (C_out rounded up to MR) * (C rounded up to 2) words.
void fmm_pack(const float* shared, const float* left, const float* right, int64_t rank, int64_t C_out, int64_t C_x, int64_t E, float gain,
              int64_t bits, void* w_x, void* w_e, int64_t threads) {
    const int64_t C = C_x + E;
    in_parallel((C_out + MR - 1) / MR, (int)threads, [&] {
        return [&, space = Buffer(MR * C * 4)](int64_t item) {
            float* rows = space.as<float>();
            std::fill(rows, rows + MR * C, 0.0f);
            for (int64_t m = 0; m < MR && item * MR + m < C_out; ++m) {
                const int64_t c = item * MR + m;
                float *row = rows + m * C, scale = gain;
                const float* from = shared + c * C;
                if (rank) {
                    std::fill(row, row + C, 1.0f);
                    for (int64_t r = 0; r < rank; ++r) {
                        const float factor = left[c * rank + r], *of = right + r * C;
                        for (int64_t k = 0; k < C; ++k) row[k] += factor * of[k];
                    }
                    double square = 0;
                    for (int64_t k = 0; k < C; ++k) row[k] *= from[k], square += (double)row[k] * row[k];
                    scale *= (float)(1 / std::sqrt(square + 1e-8));
                } else std::memcpy(row, from, C * 4);
                for (int64_t k = 0; k < C; ++k) row[k] *= scale;
            }
            const int64_t first = item * MR;
            if (bits) {
                if (C_x) pack_rows<BFloat16>(rows, (uint32_t*)w_x + first * words<BFloat16>(C_x), C, C_x);
                if (E) pack_rows<BFloat16>(rows + C_x, (uint32_t*)w_e + first * words<BFloat16>(E), C, E);
            } else {
                if (C_x) pack_rows<Float32>(rows, (float*)w_x + first * C_x, C, C_x);
                if (E) pack_rows<Float32>(rows + C_x, (float*)w_e + first * E, C, E);
            }
        };
    });
}

// y [M] = gain * weight [M, K] w [K] + bias [M] (or null).
void fmm_affine(const float* w, const float* weight, const float* bias, float gain, float bias_gain, float* y, int64_t M, int64_t K,
                int64_t threads) {
    constexpr int64_t ROWS = 64;
    in_parallel((M + ROWS - 1) / ROWS, (int)threads, [&] {
        return [&](int64_t item) {
            for (int64_t i = item * ROWS; i < std::min(M, (item + 1) * ROWS); ++i) {
                const float* row = weight + i * K;
                vec sum[4] = {};
                int64_t k = 0;
                for (; k + 4 * VW <= K; k += 4 * VW)
                    for (int j = 0; j < 4; ++j) sum[j] += load(row + k + j * VW) * load(w + k + j * VW);
                vec all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
                float total = 0;
                for (int j = 0; j < VW; ++j) total += all[j];
                for (; k < K; ++k) total += row[k] * w[k];
                y[i] = gain * total + (bias ? bias_gain * bias[i] : 0);
            }
        };
    });
}

// y [C_out][points] (and a vector more) = W x, x [C_in][points] in float32 or, if x_bits, bfloat16; w packed, in bfloat16 if `bits`.
void fmm_product(const void* x, int64_t x_bits, const void* w, float* y, int64_t C_in, int64_t C_out, int64_t points, int64_t bits,
                 int64_t threads) {
    bits ? product<BFloat16>(x, x_bits, w, y, C_in, C_out, points, (int)threads)
         : product<Float32>(x, x_bits, w, y, C_in, C_out, points, (int)threads);
}

void fmm_block(const Block* b, int64_t bits, int64_t threads) { bits ? block<BFloat16>(*b, (int)threads) : block<Float32>(*b, (int)threads); }

}  // extern "C"
