/* Transforms of many 4 x 4 x 4 blocks at once.
 *
 * Blocks lie side by side: row f of `cells` holds place or frequency f (0 to 63, slices first) of
 * all of them, so that every step is a loop over neighboring values. */
#ifndef MEDENHANCE_BLOCKS_H
#define MEDENHANCE_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "native.h"

enum { SIDE = 4, CELLS = SIDE * SIDE * SIDE, LANES = 16 };

static const float COS_1 = 0.65328148243818826f; /* cos(pi/8) / sqrt(2) */
static const float COS_3 = 0.27059805007309849f; /* cos(3 pi/8) / sqrt(2) */

static inline void forward_4(float *restrict a, float *restrict b, float *restrict c,
                             float *restrict d) {
  for (int l = 0; l < LANES; l++) {
    const float outer = a[l] + d[l], inner = b[l] + c[l];
    const float far = a[l] - d[l], near = b[l] - c[l];
    a[l] = (outer + inner) * 0.5f;
    b[l] = far * COS_1 + near * COS_3;
    c[l] = (outer - inner) * 0.5f;
    d[l] = far * COS_3 - near * COS_1;
  }
}

static inline void backward_4(float *restrict a, float *restrict b, float *restrict c,
                              float *restrict d) {
  for (int l = 0; l < LANES; l++) {
    const float even = (a[l] + c[l]) * 0.5f, middle = (a[l] - c[l]) * 0.5f;
    const float odd = b[l] * COS_1 + d[l] * COS_3, cross = b[l] * COS_3 - d[l] * COS_1;
    a[l] = even + odd;
    b[l] = middle + cross;
    c[l] = middle - cross;
    d[l] = even - odd;
  }
}

/* Along each of the three axes; `count` blocks, a multiple of LANES. */
static NATIVE_INLINE void transform(float *cells, int count, int is_forward) {
  for (int stride = 1; stride < CELLS; stride *= SIDE)
    for (int first = 0; first < CELLS; first += stride * SIDE)
      for (int f = first; f < first + stride; f++) {
        float *a = cells + (size_t)f * (size_t)count, *b = a + (size_t)stride * (size_t)count;
        float *c = b + (size_t)stride * (size_t)count, *d = c + (size_t)stride * (size_t)count;
        for (int l = 0; l < count; l += LANES) {
          if (is_forward)
            forward_4(a + l, b + l, c + l, d + l);
          else
            backward_4(a + l, b + l, c + l, d + l);
        }
      }
}

#endif
