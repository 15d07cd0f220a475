// One frame of RIFT's temporal block for every stream: QK-norm, rotary, validity, slot write, ring attention, fold update and read.
//
// One block a (stream, key head); `group` query heads share it. The ring is read once from memory; everything else stays in the
// block. Reference: kernels/reference.py (ring_attention_step, fold_weight, fold_update). Memory-bound: bytes a stream and
// key head = 2 T d_h storage (ring) + 2 * 4 M (r' + d_h + 1) (folds, read and written).
#include "cpu_shim.h"

#define MOST_WIDTH 128
#define MOST_GROUP 8
#define MOST_SLOTS 512
#define MOST_FOLDS 8
#define INVALID -1.0e4f

struct Shape {
  int streams, heads, kv_heads, slots, width, rotary, folds;
};

// q [n,h,d_h], k and v [n,g,d_h] raw projections (last q and k channel 0); ring_k, ring_v [n,g,T,d_h]; slot, written [n];
// cosine, sine [n,r/2]; q_gain [d_h]; decay [n,M]; direction [g,M,r'-1] unit; gate [h] = tanh already taken;
// fold_k [n,g,M,r'], fold_v [n,g,M,d_h], fold_d [n,g,M]; out [n,h,d_h].
template <typename S>
DEVICE void ring_step(Shape s, const S *q, const S *k, const S *v, S *ring_k, S *ring_v, const long long *slot,
                      const float *written, const float *cosine, const float *sine, const float *q_gain,
                      const float *decay, const float *direction, const float *gate, float *fold_k, float *fold_v,
                      float *fold_d, S *out) {
  SHARED float raw[MOST_GROUP + 1][MOST_WIDTH], turned[MOST_GROUP + 1][MOST_WIDTH], value[MOST_WIDTH];
  SHARED float inverse[MOST_GROUP + 1], logit[MOST_GROUP][MOST_SLOTS], total[MOST_GROUP];
  SHARED float share[MOST_FOLDS], mix[MOST_GROUP][MOST_FOLDS];
  const int g = BLOCK_X % s.kv_heads, n = BLOCK_X / s.kv_heads, group = s.heads / s.kv_heads;
  const int width = s.width, half = s.rotary / 2, key = width - s.rotary, at = (int)slot[n];
  const long long row = (long long)n * s.kv_heads + g, first = (long long)n * s.heads + (long long)g * group;
  S *K = ring_k + row * s.slots * width, *V = ring_v + row * s.slots * width;

  PARALLEL(i, (group + 1) * width) {  // heads 0..group-1 are queries, head `group` is the key
    const int h = i / width, c = i % width;
    raw[h][c] = h < group ? wide(q[(first + h) * width + c]) : wide(k[row * width + c]);
    if (h == group) value[c] = wide(v[row * width + c]);
  }
  BARRIER();
  PARALLEL(h, group + 1) {
    float sum = 0;
    for (int c = 0; c < width; c++) sum += raw[h][c] * raw[h][c];
    inverse[h] = 1.0f / sqrt(sum / width + 1e-6f);
  }
  BARRIER();
  PARALLEL(i, (group + 1) * width) {
    const int h = i / width, c = i % width;
    const float unit = 1.0f / sqrt((float)width);
    const float gain = h < group ? q_gain[c] : unit;
    float x = raw[h][c] * inverse[h] * gain;
    if (c < s.rotary) {
      const int other = c < half ? c + half : c - half, angle = c % half;
      const float y = raw[h][other] * inverse[h] * (h < group ? q_gain[other] : unit);
      const float sn = sine[n * half + angle];
      x = x * cosine[n * half + angle] + (c < half ? -y : y) * sn;
    }
    if (c == width - 1) x += h < group ? 1.0f : (written[n] > 0 ? 1.0f : INVALID);
    turned[h][c] = x;
  }
  BARRIER();
  PARALLEL(c, width) {
    narrow(K + (long long)at * width + c, turned[group][c]);
    narrow(V + (long long)at * width + c, value[c]);
  }
  PARALLEL(t, s.slots) {  // the new row is taken from the block, not from memory that was just written
    for (int h = 0; h < group; h++) logit[h][t] = 0;
    for (int c = 0; c < width; c++) {
      S stored;
      narrow(&stored, turned[group][c]);
      const float kc = wide(t == at ? stored : K[(long long)t * width + c]);
      for (int h = 0; h < group; h++) logit[h][t] += turned[h][c] * kc;
    }
  }
  BARRIER();
  PARALLEL(h, group) {
    float top = logit[h][0], sum = 0;
    for (int t = 1; t < s.slots; t++) top = fmax(top, logit[h][t]);
    for (int t = 0; t < s.slots; t++) sum += logit[h][t] = exp(logit[h][t] - top);
    total[h] = sum;
  }
  if (s.folds) {
    PARALLEL(m, s.folds) {
      float dot = 0;
      for (int c = 0; c < key - 1; c++) dot += direction[(g * s.folds + m) * (key - 1) + c] * turned[group][s.rotary + c];
      const float weight = exp(3.0f * dot) * written[n];
      float *d = fold_d + row * s.folds + m;
      const float sum = *d * decay[n * s.folds + m] + weight;
      *d = sum;
      share[m] = weight / fmax(sum, 1e-30f);
    }
    BARRIER();
    PARALLEL(i, s.folds * (key + width)) {
      const int m = i / (key + width), c = i % (key + width);
      float *p = c < key ? fold_k + (row * s.folds + m) * key + c : fold_v + (row * s.folds + m) * width + (c - key);
      const float now = c < key - 1 ? turned[group][s.rotary + c] : c < key ? 0.0f : value[c - key];
      *p = (1.0f - share[m]) * *p + share[m] * now;
    }
    BARRIER();
    PARALLEL(h, group) {
      float top = -1e30f, sum = 0;
      for (int m = 0; m < s.folds; m++) {
        float dot = 0;
        for (int c = 0; c < key; c++) dot += turned[h][s.rotary + c] * fold_k[(row * s.folds + m) * key + c];
        mix[h][m] = dot;
        top = fmax(top, dot);
      }
      for (int m = 0; m < s.folds; m++) sum += mix[h][m] = exp(mix[h][m] - top);
      for (int m = 0; m < s.folds; m++) mix[h][m] *= gate[g * group + h] / sum;
    }
  }
  BARRIER();
  PARALLEL(i, group * width) {
    const int h = i / width, c = i % width;
    float sum = 0;
    for (int t = 0; t < s.slots; t++) {
      S stored;
      narrow(&stored, value[c]);
      sum += logit[h][t] * wide(t == at ? stored : V[(long long)t * width + c]);
    }
    sum /= total[h];
    for (int m = 0; m < s.folds; m++) sum += mix[h][m] * fold_v[(row * s.folds + m) * width + c];
    narrow(out + (first + h) * width + c, sum);
  }
}

#define ARGUMENTS(S)                                                                                                   \
  Shape s, const S *q, const S *k, const S *v, S *ring_k, S *ring_v, const long long *slot, const float *written,      \
      const float *cosine, const float *sine, const float *q_gain, const float *decay, const float *direction,         \
      const float *gate, float *fold_k, float *fold_v, float *fold_d, S *out
#define PASS s, q, k, v, ring_k, ring_v, slot, written, cosine, sine, q_gain, decay, direction, gate, fold_k, fold_v, fold_d, out

// launch: grid = streams * kv_heads blocks of 128 threads
KERNEL ring_step_f16(ARGUMENTS(HALF)) { ring_step<HALF>(PASS); }
KERNEL ring_step_f32(ARGUMENTS(float)) { ring_step<float>(PASS); }

#ifndef __CUDACC__
extern "C" void cpu_ring_step_f16(ARGUMENTS(HALF)) {
  for (shim_block = 0; shim_block < s.streams * s.kv_heads; shim_block++) ring_step_f16(PASS);
}
extern "C" void cpu_ring_step_f32(ARGUMENTS(float)) {
  for (shim_block = 0; shim_block < s.streams * s.kv_heads; shim_block++) ring_step_f32(PASS);
}
#endif
