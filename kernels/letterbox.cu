// BGR u8 [H,W,3] -> letterboxed, bilinear, normalised CHW (RGB order) in 16 or 32 bits; the border is value 0 before normalising.
// Reference: kernels/letterbox.py. One thread an output pixel; bytes = 3 H W read at most + 3 h w written.
#include "cpu_shim.h"

struct Geometry {
  int source_h, source_w, pitch, canvas_h, canvas_w, inner_h, inner_w, pad_y, pad_x;
};

template <typename S>
DEVICE void letterbox_pixel(Geometry g, int i, const unsigned char *bgr, const float *mean, const float *scale, S *out) {
  const int y = i / g.canvas_w - g.pad_y, x = i % g.canvas_w - g.pad_x, plane = g.canvas_h * g.canvas_w;
  const bool inside = y >= 0 && y < g.inner_h && x >= 0 && x < g.inner_w;
  float fy = (y + 0.5f) * g.source_h / g.inner_h - 0.5f, fx = (x + 0.5f) * g.source_w / g.inner_w - 0.5f;
  fy = fy < 0 ? 0 : fy > g.source_h - 1 ? g.source_h - 1 : fy;
  fx = fx < 0 ? 0 : fx > g.source_w - 1 ? g.source_w - 1 : fx;
  const int y0 = (int)fy, x0 = (int)fx;
  const int y1 = y0 + 1 < g.source_h ? y0 + 1 : y0, x1 = x0 + 1 < g.source_w ? x0 + 1 : x0;
  const float wy = fy - y0, wx = fx - x0;
  for (int c = 0; c < 3; c++) {
    float value = 0;
    if (inside) {
      const unsigned char *p = bgr + (2 - c);
      const float top = p[y0 * g.pitch + 3 * x0] * (1 - wx) + p[y0 * g.pitch + 3 * x1] * wx;
      const float bottom = p[y1 * g.pitch + 3 * x0] * (1 - wx) + p[y1 * g.pitch + 3 * x1] * wx;
      value = top * (1 - wy) + bottom * wy;
    }
    narrow(out + c * plane + i, (value - mean[c]) * scale[c]);
  }
}

#ifdef __CUDACC__
#define EACH(i, n) const int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < (n))
#else
#define EACH(i, n) for (int i = 0; i < (n); i++)
#endif
#define ARGUMENTS(S) Geometry g, const unsigned char *bgr, const float *mean, const float *scale, S *out

// launch: ceil(canvas_h * canvas_w / 128) blocks of 128 threads
KERNEL letterbox_f16(ARGUMENTS(HALF)) { EACH(i, g.canvas_h * g.canvas_w) letterbox_pixel<HALF>(g, i, bgr, mean, scale, out); }
KERNEL letterbox_f32(ARGUMENTS(float)) { EACH(i, g.canvas_h * g.canvas_w) letterbox_pixel<float>(g, i, bgr, mean, scale, out); }
