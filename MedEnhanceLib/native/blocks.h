/* Layers of reference blocks of 4 x 4 x 4 voxels, and the search for groups of similar blocks, which
 * grouped.c filters. */
#ifndef MEDENHANCE_BLOCKS_H
#define MEDENHANCE_BLOCKS_H

#include <math.h>
#include <stdlib.h>

#include "native.h"

enum {
  SIDE = 4,
  CELLS = SIDE * SIDE * SIDE,
  LANES = 16, /* blocks, or candidates of a row, that lie side by side */
  WINDOW_Z = 7,
  WINDOW_Y = 11,
  WINDOW_X = LANES,
  MOST_KEPT = 64,
  MOST_NEAR = 2 * MOST_KEPT, /* candidates that are sorted at once */
  QUAD = 4, /* rows that are computed together */
  CHAINS = 8, /* sums that are computed together, as a processor waits for each */
  ROWS = WINDOW_Z * WINDOW_Y + QUAD - 1, /* the last ones are computed in vain */
  LOCAL_X = 20, /* WINDOW_X + SIDE - 1, rounded up */
  LOCAL_Y = (WINDOW_Y + QUAD - 1) / QUAD * QUAD + SIDE - 1,
  LOCAL_Z = WINDOW_Z + SIDE - 1,
  LOCAL_PLANE = LOCAL_Y * LOCAL_X
};

/* As `_LayerTask` in filters/native_engine.py. The slab is what the layer's candidates cover:
 * window_z + 3 slices. Arrays are contiguous [window_z + 3][ny][nx]. */
struct layer_task {
  int64_t bytes;    /* size of the structure */
  int64_t ny, nx;   /* sides of a slice, 4 to 65536 */
  int64_t z;        /* slice of the slab in which the references start */
  int64_t window_z, window_y, window_x; /* starting places of candidates along each axis */
  int64_t step;     /* between references along rows and columns, 1 to 4 */
  int64_t layer;    /* its number: every second one is shifted by half a step */
  int64_t row_from, row_to; /* rows of references to compute */
  int64_t keep;     /* blocks in a group, 1 to 64 */
  int64_t apart;    /* least distance of candidates from the reference */
  double damp;      /* factor on the variance of the noise; native_threshold: threshold in sigma */
  const float *taper; /* [64]: weight of each voxel of a block */
  const float *pilot, *level;
  const float *matched; /* what blocks are compared in; the pilot itself, or another image */
  const float *noisy;
  const float *spectrum; /* [64]: variance of each frequency in units of level squared, > 0 */
  float *total;          /* sums of weighted blocks */
  float *weight;         /* [window_z][ny][nx]: weights of the blocks by starting place */
};

struct workspace {
  float distance[ROWS][LANES];
  float noisy[CELLS * MOST_KEPT], pilot[CELLS * MOST_KEPT];
  float system[MOST_KEPT * 2 * MOST_KEPT], solved[MOST_KEPT * 2 * MOST_KEPT];
  float local[LOCAL_Z * LOCAL_PLANE]; /* what is compared, around the reference */
  float near[MOST_NEAR + LANES];
  int32_t near_at[MOST_NEAR + 1], hit[ROWS];
  float best[MOST_KEPT];
  int32_t best_at[MOST_KEPT];
  int64_t offset[MOST_KEPT]; /* of where each block starts */
  float root[CELLS], inverse_root[CELLS];
  float mask[MOST_KEPT];
  float bound; /* of the distances for the reference before, at which the search begins */
  void *start; /* of the allocation */
};

/* Zeroed, at a multiple of 64 bytes; NULL without memory. */
static struct workspace *new_workspace(void) {
  char *start = calloc(1, sizeof(struct workspace) + 64);
  if (!start) return NULL;
  struct workspace *w = (struct workspace *)(start + (64 - (uintptr_t)start % 64));
  w->start = start;
  return w;
}

static void delete_workspace(struct workspace *w) { free(w->start); }

/* ---- the grid of references -------------------------------------------------------------- */

/* Place of reference `index` on an axis with `places` starting places; the last one is included. */
static int64_t place_of(int64_t index, int64_t places, int64_t step, int is_shifted) {
  int64_t at = index * step;
  if (is_shifted && index > 0) at -= step / 2;
  return at < places - 1 ? at : places - 1;
}

static int64_t references(int64_t places, int64_t step, int is_shifted) {
  int64_t count = 1;
  while (place_of(count - 1, places, step, is_shifted) < places - 1) count++;
  return count;
}

static int64_t between(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

/* Whether the task stays within arrays whose shapes Python has checked. */
static int fits(const struct layer_task *t) {
  if (!t || t->bytes != (int64_t)sizeof *t || !t->pilot || !t->level || !t->matched) return 0;
  if (t->ny < SIDE || t->nx < SIDE || t->ny > 65536 || t->nx > 65536) return 0;
  if (t->window_z < 1 || t->window_z > WINDOW_Z || t->z < 0 || t->z >= t->window_z) return 0;
  if (t->window_y < 1 || t->window_y > WINDOW_Y || t->window_y > t->ny - 3) return 0;
  if (t->window_x < 1 || t->window_x > WINDOW_X || t->window_x > t->nx - 3) return 0;
  if (t->step < 1 || t->step > SIDE || t->layer < 0) return 0;
  if (t->keep < 1 || t->keep > MOST_KEPT || t->apart < 0 || !(t->damp > 0)) return 0;
  if (!t->noisy || !t->spectrum || !t->taper || !t->total || !t->weight) return 0;
  return t->row_from >= 0 && t->row_to >= t->row_from;
}

/* ---- block matching ---------------------------------------------------------------------- */

/* Copies the window of the image that blocks are compared in to fixed strides, which the compiler
 * knows; the rest stays 0. */
static void copy_window(struct workspace *w, const struct layer_task *t, int64_t y, int64_t x) {
  for (int64_t k = 0; k < t->window_z + 3; k++)
    for (int64_t j = 0; j < t->window_y + 3; j++) {
      const float *from = t->matched + (k * t->ny + y + j) * t->nx + x;
      float *to = w->local + k * LOCAL_PLANE + j * LOCAL_X;
      if (t->window_x == WINDOW_X)
        memcpy(to, from, (WINDOW_X + 3) * sizeof *to);
      else
        memcpy(to, from, (size_t)(t->window_x + 3) * sizeof *to);
    }
}

enum { PARTS = WIDTH < LANES ? 2 : 1 };

/* Adds what row `row` of voxels contributes to the distances of the blocks that it is in. */
static NATIVE_INLINE void add_row(vector sums[QUAD][PARTS], const float *restrict reference,
                                  const float *restrict local, int row) {
  for (int i = 0; i < SIDE; i++) {
    vector values[PARTS];
    for (int p = 0; p < PARTS; p++) values[p] = load(local + row * LOCAL_X + i + p * WIDTH);
    for (int q = 0; q < QUAD; q++)
      for (int p = 0; p < PARTS && row >= q && row - q < SIDE; p++) {
        const vector difference = values[p] - reference[(row - q) * LOCAL_X + i];
        sums[q][p] += difference * difference;
      }
  }
}

/* Squared distances of the reference block to the blocks of QUAD successive rows of candidates. */
static void distances(const float *restrict reference, const float *restrict local,
                      float out[QUAD][LANES]) {
  for (int c = 0; c < LANES; c += PARTS * WIDTH) {
    vector sums[QUAD][PARTS] = {{{0}}};
    for (int k = 0; k < SIDE; k++) {
      const float *of = reference + k * LOCAL_PLANE, *from = local + k * LOCAL_PLANE + c;
      add_row(sums, of, from, 0); /* no loop: compilers would not unroll it */
      add_row(sums, of, from, 1);
      add_row(sums, of, from, 2);
      add_row(sums, of, from, 3);
      add_row(sums, of, from, 4);
      add_row(sums, of, from, 5);
      add_row(sums, of, from, 6);
    }
    for (int q = 0; q < QUAD; q++)
      for (int p = 0; p < PARTS; p++) store(out[q] + c + p * WIDTH, sums[q][p]);
  }
}

static int32_t count_within(const struct workspace *w, int rows, float bound) {
  int32_t count = 0;
  for (int r = 0; r < rows; r++)
    for (int l = 0; l < LANES; l++) count += w->distance[r][l] <= bound;
  return count;
}

/* Sorts the first candidates of `near`, nearest first, of equal ones the first, into `best`, which
 * keeps at most `keep` of them; returns their number. Counts those before each: without branches. */
static int sort_near(struct workspace *w, int count, int keep) {
  integers lane;
  for (int l = 0; l < WIDTH; l++) lane[l] = l;
  for (int i = 0; i < count; i++) w->near[i] = w->distance[0][w->near_at[i]];
  for (int i = 0; i < count; i += WIDTH) {
    const vector mine = load(w->near + i);
    const integers place = lane + i;
    integers before = {0};
    for (int j = 0; j < count; j++) {
      const vector other = w->near[j] + (vector){0};
      before -= (other < mine) | ((other == mine) & (j < place));
    }
    for (int l = 0; l < WIDTH && i + l < count; l++)
      if (before[l] < keep) {
        w->best[before[l]] = w->near[i + l];
        w->best_at[before[l]] = w->near_at[i + l];
      }
  }
  return count < keep ? count : keep;
}

/* The `keep` nearest candidates, nearest first; of equal ones the first in the order of slices,
 * rows, columns. Returns their number. */
static int nearest(struct workspace *w, int rows, int keep) {
  /* A bound with at least `keep` candidates within it, and not many more. */
  float low = 0, high = w->bound;
  int32_t within = count_within(w, rows, high);
  while (within < keep && high < 1e37f) {
    low = high;
    high = high * 4 + 1e-6f;
    within = count_within(w, rows, high);
  }
  for (int i = 0; i < 12 && within > keep + keep / 2 + 8; i++) {
    const float middle = low + (high - low) * 0.5f;
    const int32_t count = count_within(w, rows, middle);
    if (count < keep) {
      low = middle;
    } else {
      high = middle;
      within = count;
    }
  }
  /* Those within it, in their order, without unpredictable branches. */
  int hits = 0, count = 0;
  for (int r = 0; r < rows; r++) {
    const float *row = w->distance[r];
    integers any = {0};
    for (int l = 0; l < LANES; l += WIDTH) any |= load(row + l) <= high;
    w->hit[hits] = r;
    hits += is_any(any);
  }
  for (int h = 0; h < hits; h++) {
    const float *row = w->distance[w->hit[h]];
    for (int l = 0; l < LANES; l++) {
      w->near_at[count] = w->hit[h] * LANES + l;
      count += row[l] <= high;
    }
    if (count > MOST_NEAR - LANES) { /* many are equal */
      count = sort_near(w, count, keep);
      memcpy(w->near_at, w->best_at, (size_t)count * sizeof *w->near_at);
    }
  }
  w->bound = high;
  return sort_near(w, count, keep);
}

/* Fills `offset` with the starts of the group's blocks; returns their number. */
static int match(struct workspace *w, const struct layer_task *t, int64_t y, int64_t x) {
  const int64_t first_y = between(y - (t->window_y - 1) / 2, 0, t->ny - 3 - t->window_y);
  const int64_t first_x = between(x - (t->window_x - 1) / 2, 0, t->nx - 3 - t->window_x);
  const int ref_y = (int)(y - first_y), ref_x = (int)(x - first_x), ref_z = (int)t->z;
  copy_window(w, t, first_y, first_x);

  const int rows = (int)(t->window_z * t->window_y);
  const float *reference = w->local + ref_z * LOCAL_PLANE + ref_y * LOCAL_X + ref_x;
  for (int k = 0; k < t->window_z; k++)
    for (int j = 0; j < t->window_y; j += QUAD)
      distances(reference, w->local + k * LOCAL_PLANE + j * LOCAL_X,
                w->distance + k * t->window_y + j);

  for (int r = 0; t->window_x < LANES && r < rows; r++)
    for (int l = (int)t->window_x; l < LANES; l++) w->distance[r][l] = 3e38f;
  for (int k = 0; t->apart > 0 && k < t->window_z; k++)
    for (int j = 0; j < t->window_y; j++)
      for (int l = 0; l < (int)t->window_x; l++)
        if (llabs(k - ref_z) < t->apart && llabs(j - ref_y) < t->apart && llabs(l - ref_x) < t->apart)
          w->distance[k * t->window_y + j][l] = 3e38f;
  w->distance[ref_z * t->window_y + ref_y][ref_x] = -1; /* the reference comes first */

  int candidates = rows * (int)t->window_x;
  if (t->apart > 0) candidates = count_within(w, rows, 1e37f);
  const int n = nearest(w, rows, candidates < t->keep ? candidates : (int)t->keep);
  for (int g = 0; g < n; g++) {
    const int r = w->best_at[g] / LANES, l = w->best_at[g] % LANES, tall = (int)t->window_y;
    w->offset[g] = (r / tall * t->ny + first_y + r % tall) * t->nx + first_x + l;
  }
  return n;
}

/* ---- all groups of a task ------------------------------------------------------------------ */

/* σ of the noise in the block that starts here: near its middle. */
static float level_at(const struct layer_task *t, int64_t y, int64_t x) {
  return t->level[((t->z + 1) * t->ny + y + 1) * t->nx + x + 1];
}

/* Weights are 1 / variance: below this σ there is no noise to remove. */
static const float LEAST_LEVEL = 1e-10f;

/* Matches the group of each reference that has noise, and passes it on with its size and σ. */
static void for_each_group(struct workspace *w, const struct layer_task *t,
                           void (*use)(struct workspace *, const struct layer_task *, int, float)) {
  const int is_odd = (int)(t->layer & 1);
  const int64_t rows = references(t->ny - 3, t->step, is_odd);
  for (int64_t row = t->row_from; row < t->row_to && row < rows; row++) {
    const int64_t y = place_of(row, t->ny - 3, t->step, is_odd);
    const int is_shifted = (int)((row + t->layer / 2) & 1);
    const int64_t columns = references(t->nx - 3, t->step, is_shifted);
    for (int64_t column = 0; column < columns; column++) {
      const int64_t x = place_of(column, t->nx - 3, t->step, is_shifted);
      const float sigma = level_at(t, y, x);
      if (!(sigma > LEAST_LEVEL)) continue;
      const int n = match(w, t, y, x);
      if (n > 0) use(w, t, n, sigma);
    }
  }
}

#endif
