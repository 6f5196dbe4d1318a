/* Two denoising stages over blocks of 4 x 4 x 4 voxels; filters/block_matching.py has method and
 * sources.
 *
 * A call computes some rows of reference blocks of one layer (reference blocks that start in one
 * slice). The stages add to sums of the layer. The caller adds layers in order, so that neither
 * slabs nor threads change a bit of the result. */
#include "blocks.h"

/* ---- transforms of blocks ----------------------------------------------------------------- */

static const float COS_1 = 0.65328148243818826f; /* cos(pi/8) / sqrt(2) */
static const float COS_3 = 0.27059805007309849f; /* cos(3 pi/8) / sqrt(2) */

/* The cosine transform of `count` blocks along each axis, or its inverse; a multiple of LANES.
 * Blocks lie side by side: row f of `cells` holds place or frequency f (0 to 63, slices first) of
 * all of them. */
static NATIVE_INLINE void transform(float *cells, int count, int is_forward) {
  for (int stride = 1; stride < CELLS; stride *= SIDE)
    for (int line = 0; line < CELLS / SIDE; line++) {
      float *first = cells + (line / stride * stride * SIDE + line % stride) * count;
      for (int l = 0; l < count; l += WIDTH) {
        float *at[SIDE];
        for (int n = 0; n < SIDE; n++) at[n] = first + n * stride * count + l;
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

typedef float four __attribute__((vector_size(4 * sizeof(float))));

static NATIVE_INLINE four load_four(const float *from) {
  four values;
  memcpy(&values, from, sizeof values);
  return values;
}

static NATIVE_INLINE void store_four(float *to, four values) { memcpy(to, &values, sizeof values); }

/* Turns the rows of a square of 4 x 4 into columns. */
static NATIVE_INLINE void turn(four rows[SIDE]) {
  const four a = NATIVE_SHUFFLE(rows[0], rows[1], 0, 4, 1, 5);
  const four b = NATIVE_SHUFFLE(rows[0], rows[1], 2, 6, 3, 7);
  const four c = NATIVE_SHUFFLE(rows[2], rows[3], 0, 4, 1, 5);
  const four d = NATIVE_SHUFFLE(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = NATIVE_SHUFFLE(a, c, 0, 1, 4, 5);
  rows[1] = NATIVE_SHUFFLE(a, c, 2, 3, 6, 7);
  rows[2] = NATIVE_SHUFFLE(b, d, 0, 1, 4, 5);
  rows[3] = NATIVE_SHUFFLE(b, d, 2, 3, 6, 7);
}

/* Copies the blocks into lanes 0 to n - 1 of `cells`; the lanes up to `count` become 0. */
static NATIVE_INLINE void load_blocks(float *restrict cells, const float *restrict volume,
                                      const int64_t *offset, int n, int count,
                                      const struct layer_task *t) {
  for (int k = 0; k < SIDE; k++)
    for (int j = 0; j < SIDE; j++) {
      const float *line = volume + (k * t->ny + j) * t->nx;
      float *to = cells + (k * SIDE + j) * SIDE * count;
      for (int g = 0; g < n; g += SIDE) {
        four rows[SIDE] = {{0}};
        for (int q = 0; q < SIDE && g + q < n; q++) rows[q] = load_four(line + offset[g + q]);
        turn(rows);
        for (int i = 0; i < SIDE; i++) store_four(to + i * count + g, rows[i]);
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
  for (int m = 0; m < n; m += CHAINS)
    for (int c = upper_alone ? m / WIDTH * WIDTH : 0; c < count; c += WIDTH) {
      vector sums[CHAINS] = {{0}};
      for (int f = 0; f < CELLS; f++) {
        const vector values = load(other + f * count + c);
        for (int q = 0; q < CHAINS; q++) sums[q] += pilot[f * count + m + q] * values;
      }
      for (int q = 0; q < CHAINS; q++) store(out + (m + q) * stride + c, sums[q]);
    }
}

/* to[l] -= sum over q of factor[q] * row[q][l], q from 0 to `terms`, for some vectors of `to`. */
static NATIVE_INLINE void subtract_few(float *restrict to, const float *restrict factor,
                                       int factor_stride, const float *restrict row,
                                       int row_stride, int terms, int vectors) {
  vector rest[QUAD];
  for (int v = 0; v < vectors; v++) rest[v] = load(to + v * WIDTH);
  for (int q = 0; q < terms; q++)
    for (int v = 0; v < vectors; v++)
      rest[v] -= factor[q * factor_stride] * load(row + q * row_stride + v * WIDTH);
  for (int v = 0; v < vectors; v++) store(to + v * WIDTH, rest[v]);
}

/* The same over `width` values; strides may be negative. Several sums at a time: a processor that
 * waits for each would be idle most of the time. */
static NATIVE_INLINE void subtract(float *restrict to, const float *restrict factor,
                                   int factor_stride, const float *restrict row, int row_stride,
                                   int terms, int width) {
  int c = 0;
  for (; c + QUAD * WIDTH <= width; c += QUAD * WIDTH)
    subtract_few(to + c, factor, factor_stride, row + c, row_stride, terms, QUAD);
  const int left = (width - c) / WIDTH;
  if (left == 3) subtract_few(to + c, factor, factor_stride, row + c, row_stride, terms, 3);
  if (left == 2) subtract_few(to + c, factor, factor_stride, row + c, row_stride, terms, 2);
  if (left == 1) subtract_few(to + c, factor, factor_stride, row + c, row_stride, terms, 1);
}

/* Solves G x = R for all columns of R at once: rows of `system` hold G, symmetric and positive, of
 * which only the upper part is read, and from `count` on R. Leaves x in these columns of `solved`. */
static NATIVE_INLINE void solve(float *restrict system, float *restrict solved, int n, int count) {
  const int width = 2 * count;
  for (int i = 0; i < n; i++) {
    float *restrict row = system + i * width;
    const int from = i / WIDTH * WIDTH;
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
  for (int f = 0; f < CELLS; f += CHAINS)
    for (int c = 0; c < count; c += WIDTH) {
      vector sums[CHAINS] = {{0}};
      for (int m = 0; m < n; m++) {
        const vector values = load(shares + m * stride + c);
        for (int q = 0; q < CHAINS; q++) sums[q] += pilot[(f + q) * count + m] * values;
      }
      for (int q = 0; q < CHAINS; q++) store(out + (f + q) * count + c, sums[q]);
    }
}

/* Least damping as a share of the system's trace: with less, rounding decides the solution. */
static const float LEAST_DAMPING = 1e-6f;

/* Replaces the group's noisy blocks by their estimates. Where the noise is so weak that the damping
 * has to be increased, the correction is smaller by the same factor. */
static NATIVE_INLINE void filter_group(struct workspace *w, const struct layer_task *t, int n,
                                       int count, float sigma) {
  float mean[CELLS], pilot_mean[CELLS];
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
    const float scale = inverse_sigma * w->inverse_root[f];
    for (int g = 0; g < count; g++) {
      y[g] = (y[g] - mean_y) * scale * w->mask[g];
      p[g] = (p[g] - mean_p) * scale * w->mask[g];
    }
    mean[f] = mean_y, pilot_mean[f] = mean_p;
  }
  for (int f = 0; f < CELLS; f++) {
    const float power = pilot_mean[f] * pilot_mean[f];
    mean[f] *= power / (power + t->spectrum[f] * variance * share);
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
  for (int g = 0; g < n; g += SIDE) {
    four blocks[SIDE][SIDE * SIDE]; /* rows of each block */
    for (int row = 0; row < SIDE * SIDE; row++) {
      four rows[SIDE];
      for (int i = 0; i < SIDE; i++) rows[i] = load_four(w->noisy + (row * SIDE + i) * count + g);
      turn(rows);
      for (int q = 0; q < SIDE; q++) blocks[q][row] = rows[q];
    }
    for (int q = 0; q < SIDE && g + q < n; q++) {
      const int64_t at = w->offset[g + q];
      t->weight[at] += weight;
      for (int row = 0; row < SIDE * SIDE; row++) {
        float *to = t->total + at + (row / SIDE * t->ny + row % SIDE) * t->nx;
        store_four(to, load_four(to) + blocks[q][row]);
      }
    }
  }
}

static void filter_and_add(struct workspace *w, const struct layer_task *t, int n, float sigma) {
  const int count = (n + LANES - 1) / LANES * LANES, usual = 2 * LANES;
  if (n == usual) { /* compiled with these sizes */
    filter_group(w, t, usual, usual, sigma);
    add_blocks(w, t, usual, usual, 1 / (sigma * sigma));
  } else {
    filter_group(w, t, n, count, sigma);
    add_blocks(w, t, n, count, 1 / (sigma * sigma));
  }
}

NATIVE_EXPORT int32_t NATIVE_NAME(native_grouped)(const struct layer_task *t) {
  if (!fits(t)) return NATIVE_BAD_ARGUMENT;
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

/* The first stage: each block alone, with its coefficients thresholded. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_threshold)(const struct layer_task *t) {
  if (!fits(t)) return NATIVE_BAD_ARGUMENT;
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
