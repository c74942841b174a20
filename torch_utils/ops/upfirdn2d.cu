// Insert zeros, pad or crop, correlate with a filter, keep every down-th pixel:
//   y[i, j] = gain * sum_km f[k, m] u[i downy + k - py, j downx + m - px],   u[r, s] = x[r / upy, s / upx] where both divide, else 0.
// Inserted zeros are never visited: of the taps along an axis only every up-th meets a pixel, from the first that does.
// The transpose is the same sum with other numbers (upfirdn2d.py), so there is no kernel for gradients.
#include "portable.cuh"

struct Plan {
    int C, H, W, H_out, W_out;
    long long x_stride[4], y_stride[4];  // N, C, H, W; in elements
    int rows, columns, upy, upx, downy, downx, py, px, flip;
    int channels_last;  // neighbouring work items are neighbouring channels, not columns
    double gain;

    HD void place(unsigned line, unsigned plane, int& n, int& c, int& j) const {
        n = channels_last ? plane : plane / C;
        c = channels_last ? line % C : plane % C;
        j = channels_last ? line / C : line;
    }
};

HD int modulo(int a, int b) { return (a % b + b) % b; }

// Any factors and any filter: one output pixel a work item.
template <class T> struct General {
    typedef typename Accumulate<T>::type A;
    const T* x;
    const A* f;
    T* y;
    Plan p;

    HD void operator()(unsigned line, unsigned i, unsigned plane) const {
        int n, c, j;
        p.place(line, plane, n, c, j);
        const int top = int(i) * p.downy - p.py, left = j * p.downx - p.px;       // of the filter, in upsampled pixels
        const int k0 = modulo(-top, p.upy), m0 = modulo(-left, p.upx);            // first taps that meet a pixel
        const int row0 = (top + k0) / p.upy, column0 = (left + m0) / p.upx;       // and the pixel
        const T* from = x + n * p.x_stride[0] + c * p.x_stride[1];
        A sum = A(0);
        for (int k = k0, row = row0; k < p.rows; k += p.upy, ++row) {
            if (row < 0 || row >= p.H) continue;
            for (int m = m0, column = column0; m < p.columns; m += p.upx, ++column) {
                if (column < 0 || column >= p.W) continue;
                const int tap = k * p.columns + m;
                sum += f[p.flip ? p.rows * p.columns - 1 - tap : tap] * A(from[row * p.x_stride[2] + column * p.x_stride[3]]);
            }
        }
        y[n * p.y_stride[0] + c * p.y_stride[1] + i * p.y_stride[2] + j * p.y_stride[3]] = T(sum * A(p.gain));
    }

    Extent work(unsigned N) const {
        if (p.channels_last) return Extent{unsigned(p.W_out) * p.C, unsigned(p.H_out), N};
        return Extent{unsigned(p.W_out), unsigned(p.H_out), N * p.C};
    }
};

// Factors and filter known to the compiler: taps and HEIGHT outputs below one another stay in registers, a pixel read serves all of them.
// PHASE is the first tap that meets a pixel at the top of each strip of outputs: the same for all strips, since up divides HEIGHT * down.
template <class T, int UPY, int UPX, int DOWNY, int DOWNX, int ROWS, int COLUMNS, int PHASE> struct Strip {
    typedef typename Accumulate<T>::type A;
    static constexpr int HEIGHT = 8;
    static constexpr int WIDE = COLUMNS / UPX;                                        // pixels that a row of taps meets
    static constexpr int READ = ((HEIGHT - 1) * DOWNY + ROWS - 1 - PHASE) / UPY + 1;  // rows of pixels that a strip meets
    static_assert(COLUMNS % UPX == 0 && HEIGHT * DOWNY % UPY == 0, "the number of taps would depend on the place");
    const T* x;
    const A* f;
    T* y;
    Plan p;

    HD void operator()(unsigned line, unsigned strip, unsigned plane) const {
        int n, c, j;
        p.place(line, plane, n, c, j);
        const int i = int(strip) * HEIGHT, left = j * DOWNX - p.px, m0 = modulo(-left, UPX);
        const int row0 = (i * DOWNY - p.py + PHASE) / UPY, column0 = (left + m0) / UPX;
        A taps[ROWS][WIDE], sums[HEIGHT];
        bool inside[WIDE];
        UNROLL for (int t = 0; t < WIDE; ++t) {
            inside[t] = column0 + t >= 0 && column0 + t < p.W;
            UNROLL for (int k = 0; k < ROWS; ++k) {
                const int tap = k * COLUMNS + m0 + t * UPX;
                taps[k][t] = f[p.flip ? ROWS * COLUMNS - 1 - tap : tap];
            }
        }
        UNROLL for (int h = 0; h < HEIGHT; ++h) sums[h] = A(0);
        const T* from = x + n * p.x_stride[0] + c * p.x_stride[1] + row0 * p.x_stride[2] + column0 * p.x_stride[3];
        UNROLL for (int r = 0; r < READ; ++r) {
            const bool there = row0 + r >= 0 && row0 + r < p.H;
            UNROLL for (int t = 0; t < WIDE; ++t) {
                const A pixel = there && inside[t] ? A(from[r * p.x_stride[2] + t * p.x_stride[3]]) : A(0);
                UNROLL for (int h = 0; h < HEIGHT; ++h) {
                    const int k = PHASE + r * UPY - h * DOWNY;
                    if (k >= 0 && k < ROWS) sums[h] += taps[k][t] * pixel;
                }
            }
        }
        T* to = y + n * p.y_stride[0] + c * p.y_stride[1] + i * p.y_stride[2] + j * p.y_stride[3];
        UNROLL for (int h = 0; h < HEIGHT; ++h)
            if (i + h < p.H_out) to[h * p.y_stride[2]] = T(sums[h] * A(p.gain));
    }

    Extent work(unsigned N) const {
        Extent all = General<T>{x, f, y, p}.work(N);
        all.y = (all.y - 1) / HEIGHT + 1;
        return all;
    }
};

struct Call {
    const void *x, *f;
    void* y;
    Plan p;
    unsigned N;
    int device;
    void* stream;

    template <class T> int with() const {
        typedef typename Accumulate<T>::type A;
        if (sizeof(T) < 8) {
            int error = -1;
            (void)(strip<T, 1, 1, 1, 1, 4, 4>(error) || strip<T, 2, 2, 1, 1, 4, 4>(error) || strip<T, 1, 1, 2, 2, 4, 4>(error) ||
                   lines<T, 12>(error));
            if (error >= 0) return error;
        }
        return run(General<T>{(const T*)x, (const A*)f, (T*)y, p});
    }

    template <class T, int TAPS> bool lines(int& error) const {  // a separable filter's two passes
        return strip<T, 1, 1, 1, 1, 1, TAPS>(error) || strip<T, 1, 2, 1, 1, 1, TAPS>(error) || strip<T, 1, 1, 1, 2, 1, TAPS>(error) ||
               strip<T, 1, 1, 1, 1, TAPS, 1>(error) || strip<T, 2, 1, 1, 1, TAPS, 1>(error) || strip<T, 1, 1, 2, 1, TAPS, 1>(error);
    }

    template <class T, int UPY, int UPX, int DOWNY, int DOWNX, int ROWS, int COLUMNS> bool strip(int& error) const {
        if (p.upy != UPY || p.upx != UPX || p.downy != DOWNY || p.downx != DOWNX || p.rows != ROWS || p.columns != COLUMNS) return false;
        typedef typename Accumulate<T>::type A;
        const int phase = modulo(p.py, UPY);
        if (phase == 0) error = run(Strip<T, UPY, UPX, DOWNY, DOWNX, ROWS, COLUMNS, 0>{(const T*)x, (const A*)f, (T*)y, p});
        else error = run(Strip<T, UPY, UPX, DOWNY, DOWNX, ROWS, COLUMNS, UPY - 1>{(const T*)x, (const A*)f, (T*)y, p});
        return true;
    }

    template <class Body> int run(const Body& body) const { return launch(body, body.work(N), device, stream); }
};

// x, y: sizes and strides of four axes N, C, H, W; f: [rows, columns] without gaps, float64 for float64 and float32 for all others.
// shape: rows, columns, up (y, x), down (y, x), padding before (y, x), flip. Returns a cudaError_t.
extern "C" int upfirdn2d(int dtype, const void* x, const long long* x_size, const long long* x_stride, const void* f, void* y,
                         const long long* y_size, const long long* y_stride, const int* shape, double gain, int device, void* stream) {
    if (x_size[0] * x_size[1] >= 1LL << 32 || y_size[1] * y_size[3] >= 1LL << 31) return INVALID;
    const int channels_last = y_stride[1] == 1 && y_size[1] > 1 && y_stride[3] != 1;
    Plan p = {int(x_size[1]), int(x_size[2]), int(x_size[3]), int(y_size[2]), int(y_size[3]), {}, {}, shape[0], shape[1],
              shape[2], shape[3], shape[4], shape[5], shape[6], shape[7], shape[8], channels_last, gain};
    for (int axis = 0; axis < 4; ++axis) p.x_stride[axis] = x_stride[axis], p.y_stride[axis] = y_stride[axis];
    return dispatch(dtype, Call{x, f, y, p, unsigned(x_size[0]), device, stream});
}
