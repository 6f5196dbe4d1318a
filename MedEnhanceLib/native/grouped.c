/* Two denoising stages over blocks of 4 x 4 x 4 voxels, and the search for groups of similar ones
 * alone; filters/block_matching.py has method and sources, filters/torch_engine.py does the same.
 *
 * A call computes some rows of reference blocks of one layer (reference blocks that start in one
 * slice). The stages add to sums of the layer. The caller adds layers in order, so that neither
 * slabs nor threads change a bit of the result. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

enum {
  SIDE = 4,
  CELLS = SIDE * SIDE * SIDE,
  LANES = 16, /* blocks, or candidates of a row, that lie side by side */
  WINDOW_Z = 7,
  WINDOW_Y = 11,
  WINDOW_X = LANES,
  MOST_KEPT = 64,
  QUAD = 4, /* rows that are computed together */
  ROWS = (WINDOW_Z * WINDOW_Y + QUAD - 1) / QUAD * QUAD,
  LOCAL_X = 20, /* WINDOW_X + SIDE - 1, rounded up */
  LOCAL_Y = WINDOW_Y + SIDE - 1,
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
  const float *taper; /* [64]: weight of each voxel of a block; for the two stages */
  const float *pilot, *level;
  const float *matched; /* what blocks are compared in; the pilot itself, or another image */
  /* For the two stages: */
  const float *noisy;
  const float *spectrum; /* [64]: variance of each frequency in units of level squared, > 0 */
  float *total;          /* sums of weighted blocks */
  float *weight;         /* [window_z][ny][nx]: weights of the blocks by starting place */
  /* For native_match: */
  int32_t *index;  /* [room][keep]: places in the slab of the blocks' first voxels */
  float *distance; /* [room][keep]: squared distances from the reference, over a whole block */
  float *sigma;    /* [room]: of the noise at the reference */
  int64_t room;    /* groups that these arrays hold */
  int64_t count;   /* groups so far; from 0 */
};

struct workspace {
  float distance[ROWS][LANES];
  float noisy[CELLS * MOST_KEPT], pilot[CELLS * MOST_KEPT];
  float system[MOST_KEPT * 2 * MOST_KEPT], solved[MOST_KEPT * 2 * MOST_KEPT];
  float local[LOCAL_Z * LOCAL_PLANE]; /* what is compared, around the reference */
  int32_t row_at[ROWS];
  float near[ROWS * LANES + 1];
  int32_t near_at[ROWS * LANES + 1];
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
  return t->row_from >= 0 && t->row_to >= t->row_from;
}

static int is_stage(const struct layer_task *t) {
  return fits(t) && t->noisy && t->spectrum && t->taper && t->total && t->weight;
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

/* Squared distances of the reference block to the blocks of four rows of candidates. */
static void distances(const float *restrict reference, const float *restrict local,
                      const int32_t at[QUAD], float out[QUAD][LANES]) {
  for (int c = 0; c < LANES; c += WIDTH) {
    vector sums[QUAD] = {{0}};
    for (int k = 0; k < SIDE; k++)
      for (int j = 0; j < SIDE; j++)
        for (int i = 0; i < SIDE; i++) {
          const int place = k * LOCAL_PLANE + j * LOCAL_X + i;
          for (int q = 0; q < QUAD; q++) {
            const vector difference = load(local + at[q] + place + c) - reference[place];
            sums[q] += difference * difference;
          }
        }
    for (int q = 0; q < QUAD; q++) store(out[q] + c, sums[q]);
  }
}

static int32_t count_within(const struct workspace *w, int rows, float bound) {
  int32_t count = 0;
  for (int r = 0; r < rows; r++)
    for (int l = 0; l < LANES; l++) count += w->distance[r][l] <= bound;
  return count;
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
  int count = 0;
  for (int r = 0; r < rows; r++) {
    const float *row = w->distance[r];
    int32_t any = 0;
    for (int l = 0; l < LANES; l++) any += row[l] <= high;
    if (!any) continue;
    for (int l = 0; l < LANES; l++) {
      w->near[count] = row[l];
      w->near_at[count] = r * LANES + l;
      count += row[l] <= high;
    }
  }
  int n = 0;
  for (int i = 0; i < count; i++) {
    const float d = w->near[i];
    if (n == keep && d >= w->best[n - 1]) continue;
    int at = n < keep ? n++ : n - 1;
    for (; at > 0 && w->best[at - 1] > d; at--) {
      w->best[at] = w->best[at - 1];
      w->best_at[at] = w->best_at[at - 1];
    }
    w->best[at] = d;
    w->best_at[at] = w->near_at[i];
  }
  w->bound = high;
  return n;
}

/* Fills `offset` with the starts of the group's blocks; returns their number. */
static int match(struct workspace *w, const struct layer_task *t, int64_t y, int64_t x) {
  const int64_t first_y = between(y - (t->window_y - 1) / 2, 0, t->ny - 3 - t->window_y);
  const int64_t first_x = between(x - (t->window_x - 1) / 2, 0, t->nx - 3 - t->window_x);
  const int ref_y = (int)(y - first_y), ref_x = (int)(x - first_x), ref_z = (int)t->z;
  copy_window(w, t, first_y, first_x);

  int rows = 0, candidates = 0;
  for (int k = 0; k < t->window_z; k++)
    for (int j = 0; j < t->window_y; j++) w->row_at[rows++] = k * LOCAL_PLANE + j * LOCAL_X;
  int filled = rows;
  while (filled % QUAD) w->row_at[filled++] = 0;
  const float *reference = w->local + ref_z * LOCAL_PLANE + ref_y * LOCAL_X + ref_x;
  for (int r = 0; r < filled; r += QUAD)
    distances(reference, w->local, w->row_at + r, w->distance + r);

  for (int r = 0; r < rows; r++) {
    const int k = r / (int)t->window_y - ref_z, j = r % (int)t->window_y - ref_y;
    for (int l = (int)t->window_x; l < LANES; l++) w->distance[r][l] = 3e38f;
    if (t->apart > 0 && llabs(k) < t->apart && llabs(j) < t->apart)
      for (int l = 0; l < (int)t->window_x; l++)
        if (llabs(l - ref_x) < t->apart) w->distance[r][l] = 3e38f;
    if (k == 0 && j == 0) w->distance[r][ref_x] = -1; /* the reference comes first */
  }
  if (t->apart > 0)
    candidates = count_within(w, rows, 1e37f);
  else
    candidates = rows * (int)t->window_x;
  const int n = nearest(w, rows, candidates < t->keep ? candidates : (int)t->keep);
  for (int g = 0; g < n; g++) {
    const int r = w->best_at[g] / LANES, l = w->best_at[g] % LANES;
    const int64_t k = r / t->window_y, j = first_y + r % t->window_y;
    w->offset[g] = (k * t->ny + j) * t->nx + first_x + l;
  }
  return n;
}

/* ---- transforms of blocks ----------------------------------------------------------------- */

static const float COS_1 = 0.65328148243818826f; /* cos(pi/8) / sqrt(2) */
static const float COS_3 = 0.27059805007309849f; /* cos(3 pi/8) / sqrt(2) */

/* The cosine transform of `count` blocks along each axis, or its inverse; a multiple of LANES.
 * Blocks lie side by side: row f of `cells` holds place or frequency f (0 to 63, slices first) of
 * all of them. */
static NATIVE_INLINE void transform(float *cells, int count, int is_forward) {
  for (int stride = 1; stride < CELLS; stride *= SIDE)
    for (int f = 0; f < CELLS; f++) {
      if (f / stride % SIDE) continue;
      for (int l = 0; l < count; l += WIDTH) {
        float *at[SIDE];
        for (int n = 0; n < SIDE; n++) at[n] = cells + (f + n * stride) * count + l;
        const vector a = load(at[0]), b = load(at[1]), c = load(at[2]), d = load(at[3]);
        if (is_forward) {
          const vector outer = a + d, inner = b + c, far = a - d, near = b - c;
          store(at[0], (outer + inner) * 0.5f);
          store(at[1], far * COS_1 + near * COS_3);
          store(at[2], (outer - inner) * 0.5f);
          store(at[3], far * COS_3 - near * COS_1);
        } else {
          const vector even = (a + c) * 0.5f, middle = (a - c) * 0.5f;
          const vector odd = b * COS_1 + d * COS_3, cross = b * COS_3 - d * COS_1;
          store(at[0], even + odd);
          store(at[1], middle + cross);
          store(at[2], middle - cross);
          store(at[3], even - odd);
        }
      }
    }
}

/* ---- the filter of a group --------------------------------------------------------------- */

/* Copies the blocks into lanes 0 to n - 1 of `cells`; the lanes up to `count` become 0. */
static NATIVE_INLINE void load_blocks(float *restrict cells, const float *restrict volume,
                                      const int64_t *offset, int n, int count,
                                      const struct layer_task *t) {
  for (int k = 0; k < SIDE; k++)
    for (int j = 0; j < SIDE; j++) {
      const float *line = volume + (k * t->ny + j) * t->nx;
      float *to = cells + (k * SIDE + j) * SIDE * count;
      for (int g = 0; g < n; g++) {
        const float *from = line + offset[g];
        to[g] = from[0];
        to[count + g] = from[1];
        to[2 * count + g] = from[2];
        to[3 * count + g] = from[3];
      }
      for (int i = 0; i < SIDE; i++)
        for (int g = n; g < count; g++) to[i * count + g] = 0;
    }
}

/* The sum over `count` lanes, by halves. */
static NATIVE_INLINE float sum_of(const float *values, int count) {
  float half[LANES];
  for (int l = 0; l < LANES; l++) half[l] = values[l];
  for (int c = LANES; c < count; c += LANES)
    for (int l = 0; l < LANES; l++) half[l] += values[c + l];
  for (int l = 0; l < 8; l++) half[l] += half[l + 8];
  for (int l = 0; l < 4; l++) half[l] += half[l + 4];
  return (half[0] + half[2]) + (half[1] + half[3]);
}

/* out[m][l] = sum over f of pilot[f][m] * other[f][l]; rows of `out` are `stride` apart. */
static NATIVE_INLINE void products(float *restrict out, const float *restrict pilot,
                                   const float *restrict other, int n, int count, int stride,
                                   int upper_alone) {
  for (int m = 0; m < n; m += QUAD)
    for (int c = upper_alone ? m / LANES * LANES : 0; c < count; c += WIDTH) {
      vector sums[QUAD] = {{0}};
      for (int f = 0; f < CELLS; f++) {
        const vector values = load(other + f * count + c);
        for (int q = 0; q < QUAD; q++) sums[q] += pilot[f * count + m + q] * values;
      }
      for (int q = 0; q < QUAD; q++) store(out + (m + q) * stride + c, sums[q]);
    }
}

/* to[l] -= sum over q of factor[q] * row[q][l], q from 0 to `terms`; strides may be negative. */
static NATIVE_INLINE void subtract(float *restrict to, const float *restrict factor,
                                   int factor_stride, const float *restrict row, int row_stride,
                                   int terms, int width) {
  for (int c = 0; c < width; c += WIDTH) {
    vector rest = load(to + c);
    for (int q = 0; q < terms; q++) rest -= factor[q * factor_stride] * load(row + q * row_stride + c);
    store(to + c, rest);
  }
}

/* Solves G x = R for all columns of R at once: rows of `system` hold G, symmetric and positive, of
 * which only the upper part is read, and from `count` on R. Leaves x in these columns of `solved`. */
static NATIVE_INLINE void solve(float *restrict system, float *restrict solved, int n, int count) {
  const int width = 2 * count;
  for (int i = 0; i < n; i++) {
    float *restrict row = system + i * width;
    const int from = i / LANES * LANES;
    subtract(row + from, system + i, width, solved + from, width, i, width - from);
    const float inverse = 1 / row[i];
    for (int l = from; l < width; l++) solved[i * width + l] = row[l] * inverse;
  }
  for (int q = n - 2; q >= 0; q--)
    subtract(solved + q * width + count, solved + q * width + n - 1, -1,
             solved + (n - 1) * width + count, -width, n - 1 - q, count);
}

/* out[f][l] = sum over m of pilot[f][m] * shares[m][l], m from 0 to n; rows of `shares` are
 * `stride` apart. */
static NATIVE_INLINE void combine(float *restrict out, const float *restrict pilot,
                                  const float *restrict shares, int n, int count, int stride) {
  for (int f = 0; f < CELLS; f += QUAD)
    for (int c = 0; c < count; c += WIDTH) {
      vector sums[QUAD] = {{0}};
      for (int m = 0; m < n; m++) {
        const vector values = load(shares + m * stride + c);
        for (int q = 0; q < QUAD; q++) sums[q] += pilot[(f + q) * count + m] * values;
      }
      for (int q = 0; q < QUAD; q++) store(out + (f + q) * count + c, sums[q]);
    }
}

/* Least damping as a share of the system's trace: with less, rounding decides the solution. */
static const float LEAST_DAMPING = 1e-6f;

/* Replaces the group's noisy blocks by their estimates. Where the noise is so weak that the damping
 * has to be increased, the correction is smaller by the same factor. */
static NATIVE_INLINE void filter_group(struct workspace *w, const struct layer_task *t, int n,
                                       int count, float sigma) {
  float mean[CELLS];
  const float share = 1.0f / (float)n, variance = sigma * sigma;
  const float inverse_sigma = 1 / sigma;
  for (int g = 0; g < count; g++) w->mask[g] = g < n ? 1.0f : 0.0f;
  load_blocks(w->noisy, t->noisy, w->offset, n, count, t);
  load_blocks(w->pilot, t->pilot, w->offset, n, count, t);
  transform(w->noisy, count, 1);
  transform(w->pilot, count, 1);
  for (int f = 0; f < CELLS; f++) {
    float *restrict y = w->noisy + f * count, *restrict p = w->pilot + f * count;
    const float mean_y = sum_of(y, count) * share, mean_p = sum_of(p, count) * share;
    const float power = mean_p * mean_p;
    mean[f] = mean_y * (power / (power + t->spectrum[f] * variance * share));
    const float scale = inverse_sigma * w->inverse_root[f];
    for (int g = 0; g < count; g++) {
      y[g] = (y[g] - mean_y) * scale * w->mask[g];
      p[g] = (p[g] - mean_p) * scale * w->mask[g];
    }
  }
  const int width = 2 * count;
  products(w->system, w->pilot, w->pilot, n, count, width, 1);
  products(w->system + count, w->pilot, w->noisy, n, count, width, 0);
  const float damping = (float)n * (float)t->damp;
  float trace = 0, used = damping;
  for (int m = 0; m < n; m++) trace += w->system[m * width + m];
  if (trace * LEAST_DAMPING > damping) used = trace * LEAST_DAMPING;
  for (int m = 0; m < n; m++) w->system[m * width + m] += used;
  solve(w->system, w->solved, n, count);
  const float *uncorrected = w->system; /* solved, and of no further use */
  if (used > damping) memcpy(w->system, w->noisy, (size_t)(CELLS * count) * sizeof *w->noisy);
  combine(w->noisy, w->pilot, w->solved + count, n, count, width);
  for (int f = 0; f < CELLS; f++) {
    float *y = w->noisy + f * count;
    const float scale = sigma * w->root[f];
    if (used > damping)
      for (int g = 0; g < count; g++) {
        const float before = uncorrected[f * count + g];
        y[g] = before + damping / used * (y[g] - before);
      }
    for (int g = 0; g < count; g++) y[g] = y[g] * scale + mean[f];
  }
}

/* Adds the blocks to the layer's sums. */
static NATIVE_INLINE void add_blocks(struct workspace *w, const struct layer_task *t, int n,
                                     int count, float weight) {
  transform(w->noisy, count, 0);
  for (int f = 0; f < CELLS; f++) {
    const float scale = t->taper[f] * weight;
    float *y = w->noisy + f * count;
    for (int g = 0; g < count; g++) y[g] *= scale;
  }
  for (int g = 0; g < n; g++) {
    t->weight[w->offset[g]] += weight;
    const float *y = w->noisy + g;
    for (int k = 0; k < SIDE; k++)
      for (int j = 0; j < SIDE; j++, y += SIDE * count) {
        float *to = t->total + w->offset[g] + (k * t->ny + j) * t->nx;
        to[0] += y[0];
        to[1] += y[count];
        to[2] += y[2 * count];
        to[3] += y[3 * count];
      }
  }
}

/* σ of the noise in the block that starts here: near its middle. */
static float level_at(const struct layer_task *t, int64_t y, int64_t x) {
  return t->level[((t->z + 1) * t->ny + y + 1) * t->nx + x + 1];
}

/* Weights are 1 / variance: below this σ there is no noise to remove. */
static const float LEAST_LEVEL = 1e-10f;

/* Matches the group of each reference that has noise, and passes it on with its size and σ. */
static void for_each_group(struct workspace *w, struct layer_task *t,
                           void (*use)(struct workspace *, struct layer_task *, int, float)) {
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

static void filter_and_add(struct workspace *w, struct layer_task *t, int n, float sigma) {
  const int count = (n + LANES - 1) / LANES * LANES;
  filter_group(w, t, n, count, sigma);
  add_blocks(w, t, n, count, 1 / (sigma * sigma));
}

NATIVE_EXPORT int32_t NATIVE_NAME(native_grouped)(struct layer_task *t) {
  if (!is_stage(t)) return NATIVE_BAD_ARGUMENT;
  struct workspace *w = new_workspace();
  if (!w) return NATIVE_NO_MEMORY;
  for (int f = 0; f < CELLS; f++) {
    w->root[f] = sqrtf(t->spectrum[f]);
    w->inverse_root[f] = 1 / w->root[f];
  }
  for_each_group(w, t, filter_and_add);
  delete_workspace(w);
  return NATIVE_DONE;
}

/* A small group is filled up with its reference. */
static void write_group(struct workspace *w, struct layer_task *t, int n, float sigma) {
  const int64_t at = t->count++, keep = t->keep;
  if (at >= t->room) return;
  t->sigma[at] = sigma;
  for (int64_t g = 0; g < keep; g++) {
    t->index[at * keep + g] = (int32_t)w->offset[g < n ? g : 0];
    t->distance[at * keep + g] = 0 < g && g < n ? w->best[g] : 0;
  }
}

/* The groups alone, in the order of their references. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_match)(struct layer_task *t) {
  if (!fits(t) || t->count || !t->index || !t->distance || !t->sigma) return NATIVE_BAD_ARGUMENT;
  if ((t->window_z + 3) * t->ny * t->nx > INT32_MAX) return NATIVE_BAD_ARGUMENT;
  struct workspace *w = new_workspace();
  if (!w) return NATIVE_NO_MEMORY;
  for_each_group(w, t, write_group);
  delete_workspace(w);
  return t->count <= t->room ? NATIVE_DONE : NATIVE_BAD_ARGUMENT;
}

/* The first stage: each block alone, with its coefficients thresholded. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_threshold)(const struct layer_task *t) {
  if (!is_stage(t)) return NATIVE_BAD_ARGUMENT;
  struct workspace *w = new_workspace();
  if (!w) return NATIVE_NO_MEMORY;
  const float damp = (float)t->damp;
  const int is_odd = (int)(t->layer & 1);
  const int64_t rows = references(t->ny - 3, t->step, is_odd);
  const int64_t columns = references(t->nx - 3, t->step, is_odd);
  for (int64_t row = t->row_from; row < t->row_to && row < rows; row++) {
    const int64_t y = place_of(row, t->ny - 3, t->step, is_odd);
    for (int64_t first = 0; first < columns; first += LANES) {
      const int n = (int)(columns - first < LANES ? columns - first : LANES);
      float noise[LANES] = {0};
      for (int g = 0; g < n; g++) {
        const int64_t x = place_of(first + g, t->nx - 3, t->step, is_odd);
        w->offset[g] = (t->z * t->ny + y) * t->nx + x;
        const float sigma = level_at(t, y, x);
        noise[g] = sigma * sigma * damp * damp;
      }
      load_blocks(w->noisy, t->noisy, w->offset, n, LANES, t);
      transform(w->noisy, LANES, 1);
      for (int f = 1; f < CELLS; f++) { /* the mean of a block stays */
        float *restrict y = w->noisy + f * LANES;
        const float variance = t->spectrum[f];
        for (int g = 0; g < LANES; g++) {
          float ratio = y[g] * y[g] / (variance * noise[g] + 1e-30f);
          ratio = ratio < 1e4f ? ratio : 1e4f;
          const float square = ratio * ratio, steep = square * square;
          y[g] *= steep / (steep + 1);
        }
      }
      add_blocks(w, t, n, LANES, 1);
    }
  }
  delete_workspace(w);
  return NATIVE_DONE;
}
