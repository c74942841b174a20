// The arithmetic of an image's layers on panels of at most LD points of one row, in WebAssembly with 128-bit SIMD.
// script/build_wasm compiles it to layers.wasm; inr.js calls it. A panel is [channels][LD]; nothing is allocated here.

#include <wasm_simd128.h>

#define LD 96
#define EXPORT(name) __attribute__((export_name(#name))) void name

// y [rows][LD] = w x, or y + w x if `add`; w [rows / 4][inner][4], x [inner][LD]; rows count in fours, points in twelves.
EXPORT(product)(const float *w, const float *x, float *y, int rows, int inner, int points, int add) {
    for (int row = 0; row < rows; row += 4, w += 4 * inner)
        for (int point = 0; point < points; point += 12) {
            v128_t sum[4][3];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 3; j++)
                    sum[i][j] = add ? wasm_v128_load(y + (row + i) * LD + point + 4 * j) : wasm_f32x4_splat(0);
            const float *at = x + point, *weight = w;
            for (int k = 0; k < inner; k++, at += LD, weight += 4) {
                v128_t a = wasm_v128_load(at), b = wasm_v128_load(at + 4), c = wasm_v128_load(at + 8);
                for (int i = 0; i < 4; i++) {
                    v128_t s = wasm_v128_load32_splat(weight + i);
                    sum[i][0] = wasm_f32x4_add(sum[i][0], wasm_f32x4_mul(s, a));
                    sum[i][1] = wasm_f32x4_add(sum[i][1], wasm_f32x4_mul(s, b));
                    sum[i][2] = wasm_f32x4_add(sum[i][2], wasm_f32x4_mul(s, c));
                }
            }
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 3; j++)
                    wasm_v128_store(y + (row + i) * LD + point + 4 * j, sum[i][j]);
        }
}

// y = clamp(gain * lrelu(y + bias)), |y| at most `limit`.
EXPORT(activate)(float *y, const float *bias, int rows, int points, float slope, float gain, float limit) {
    v128_t zero = wasm_f32x4_splat(0), below = wasm_f32x4_splat(slope * gain), above = wasm_f32x4_splat(gain);
    v128_t most = wasm_f32x4_splat(limit), least = wasm_f32x4_splat(-limit);
    for (int row = 0; row < rows; row++) {
        v128_t b = wasm_v128_load32_splat(bias + row);
        for (int point = 0; point < points; point += 4) {
            float *at = y + row * LD + point;
            v128_t z = wasm_f32x4_add(wasm_v128_load(at), b);
            z = wasm_f32x4_add(wasm_f32x4_mul(above, wasm_f32x4_pmax(zero, z)), wasm_f32x4_mul(below, wasm_f32x4_pmin(zero, z)));
            wasm_v128_store(at, wasm_f32x4_pmin(most, wasm_f32x4_pmax(least, z)));
        }
    }
}

// sin(a + b), and behind them all cos(a + b) if `cosine`, of n phases: those along the row, sx and cx [n][stride], and sy and cy [n] of the row.
EXPORT(waves)(float *out, const float *sx, const float *cx, const float *sy, const float *cy, int n, int stride, int points, int cosine) {
    for (int i = 0; i < n; i++) {
        v128_t s = wasm_v128_load32_splat(sy + i), c = wasm_v128_load32_splat(cy + i);
        for (int point = 0; point < points; point += 4) {
            v128_t along = wasm_v128_load(sx + i * stride + point), across = wasm_v128_load(cx + i * stride + point);
            wasm_v128_store(out + i * LD + point, wasm_f32x4_add(wasm_f32x4_mul(along, c), wasm_f32x4_mul(across, s)));
            if (cosine)
                wasm_v128_store(out + (n + i) * LD + point, wasm_f32x4_sub(wasm_f32x4_mul(across, c), wasm_f32x4_mul(along, s)));
        }
    }
}

// out [channels][LD] = or += held [channels][rows][width] read at points of one row: between rows lo and hi (offsets) by `share`, and
// between columns by their own shares.
EXPORT(read)(float *out, const float *held, int channels, int plane, int lo, int hi, float share, const int *left, const int *right,
             const float *shares, int points, int add) {
    for (int channel = 0; channel < channels; channel++, held += plane, out += LD)
        for (int point = 0; point < points; point++) {
            const float *low = held + lo, *high = held + hi;
            int l = left[point], r = right[point];
            float a = low[l] + share * (high[l] - low[l]), b = low[r] + share * (high[r] - low[r]);
            float value = a + shares[point] * (b - a);
            out[point] = add ? out[point] + value : value;
        }
}

// to [channels][plane] = or += panel [channels][LD].
EXPORT(store)(float *to, const float *panel, int channels, int plane, int points, int add) {
    for (int channel = 0; channel < channels; channel++, to += plane, panel += LD)
        for (int point = 0; point < points; point++)
            to[point] = add ? to[point] + panel[point] : panel[point];
}
