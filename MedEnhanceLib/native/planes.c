/* Sums of blocks in slices, between the stages of the filter. */
#include <stdlib.h>

#include "native.h"

enum { SIDE = 4 };

/* As `_PlanesTask` in filters/native_engine.py. Planes are contiguous, [ny][nx]. */
struct planes_task {
  int64_t bytes;          /* size of the structure */
  int64_t ny, nx;         /* sides of a plane */
  int64_t count;          /* of `planes` */
  float *const *planes;   /* sums; for native_means weights of blocks by starting place: of those
                             that start in this slice, one before, two, three. NULL: none */
  float *from;            /* what is added; for native_means sums of weighted blocks */
  int64_t stride;         /* values from a plane of `from` to the next */
  const float *before, *level; /* values without a block or noise; sigma */
  const float *taper;     /* [SIDE]: weight of each voxel along a side of a block */
  float *mean;
};

static int is_valid(const struct planes_task *t) {
  return t && t->bytes == (int64_t)sizeof *t && t->ny > 0 && t->nx > 0 && t->planes && t->from;
}

/* Adds planes to sums and sets them 0. Much of them is 0 before: that is only read. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_add)(const struct planes_task *t) {
  if (!is_valid(t)) return NATIVE_BAD_ARGUMENT;
  const int64_t size = t->ny * t->nx;
  for (int64_t k = 0; k < t->count; k++) {
    float *restrict from = t->from + k * t->stride, *restrict to = t->planes[k];
    int64_t i = 0;
    for (; i + WIDTH <= size; i += WIDTH) {
      const vector values = load(from + i);
      if (!is_any(values != 0)) continue;
      if (to) store(to + i, load(to + i) + values);
      store(from + i, (vector){0});
    }
    for (; i < size; i++) {
      if (to) to[i] += from[i];
      from[i] = 0;
    }
  }
  return NATIVE_DONE;
}

/* sum[x] = taper[0] * from[x] + taper[1] * from[x - before] + ..., of at most `terms` terms. */
static NATIVE_INLINE void spread(float *restrict sum, const float *restrict from, int64_t before,
                                 int64_t terms, const float *taper, int64_t count) {
  for (int64_t x = 0; x < count; x++) sum[x] = taper[0] * from[x];
  for (int64_t i = 1; i < SIDE && i < terms; i++)
    for (int64_t x = 0; x < count; x++) sum[x] += taper[i] * from[x - i * before];
}

/* The mean of the blocks over each pixel of a slice. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_means)(const struct planes_task *t) {
  if (!is_valid(t) || t->count != SIDE || !t->before || !t->level || !t->taper || !t->mean)
    return NATIVE_BAD_ARGUMENT;
  const int64_t nx = t->nx;
  float *memory = calloc((size_t)(SIDE + 3 * nx), sizeof *memory);
  if (!memory) return NATIVE_NO_MEMORY;
  float *column = memory + SIDE, *row = column + nx, *weight = row + nx; /* zeros before `column` */
  for (int64_t y = 0, at = 0; y < t->ny; y++, at += nx) {
    memset(weight, 0, (size_t)nx * sizeof *weight);
    for (int k = 0; k < SIDE; k++) {
      if (!t->planes[k]) continue;
      spread(column, t->planes[k] + at, nx, y + 1, t->taper, nx);
      spread(row, column, 1, SIDE, t->taper, nx);
      for (int64_t x = 0; x < nx; x++) weight[x] += t->taper[k] * row[x];
    }
    for (int64_t x = 0; x < nx; x++) {
      const int is_noisy = weight[x] > 0 && t->level[at + x] > 0;
      const float mean = t->from[at + x] / (is_noisy ? weight[x] : 1);
      t->mean[at + x] = is_noisy ? mean : t->before[at + x];
    }
  }
  free(memory);
  return NATIVE_DONE;
}
