/* Blocks of the learned predictor: the distribution of each voxel, and coding with it.
 *
 * Called by unicompress/codecs/predictor/coder.py, to code and to collect training data; the format
 * is in docs/ucv-format.md. Numbers are integers in float, every sum stays below 2^24 and every
 * scale is a power of two, so that neither the order of sums nor fused multiply-adds change a bit.
 * Python checks all sizes, weights and tables first; values from a stream are checked here: table
 * indices come from clipped values only.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "native.h"

enum {
  BATCH = 64, /* voxels whose features are made together */
  NEIGHBORS = 25,
  IN_SLICE = 11,
  NEAR_IN_SLICE = 6,
  ERRORS_IN_SLICE = 4,
  SEEN = 33,
  FEATURES = 39,
  OUTPUTS = 3,
  MOST_WIDTH = 64,
  FINE = 16,
  LOG_SHIFT = 19,
  LOG_ONE = 127 << 4,
  LOG_MIDDLE = 12 << 4,
  LOG_ZERO = 6 << 4,
  CLASSES = 80,
  SHAPES = 8,
  PHASES = 8,
  SYMBOLS = 136,
  REACH = 1 << 17,
  COARSE = 10,
  BITS = 16,
  MOST_EXTRA = 16,
  PADDING_ABOVE = 3,
  SLICES_BEFORE = 2
};

static const float FARTHEST = 131072.0f, NORM = 127.0f, LARGEST_ACTIVATION = 255.0f;
static const float LARGEST_SHIFT = 511.0f, LEAST_MEAN = -524288.0f, MOST_MEAN = 1572864.0f;

struct predict_task {
  int64_t bytes;
  int64_t slices, rows, columns;
  int64_t slots, slice_lines; /* of the ring of steps: [slots, lines], lines of a slice */
  int64_t from_step, to_step;
  int64_t is_known; /* 1: the block's voxels are given, and become symbols; 0: they are decoded */
  int64_t top;      /* largest index */
  int64_t lanes, words;
  int64_t next; /* words read so far */
  int64_t done; /* voxels so far */
  int64_t cost; /* of the symbols, in 1/65536 bit */
  int64_t widths[2];
  const int64_t *lags, *beside; /* [SEEN] steps, and lines of the ring, that are looked back */
  const int64_t *padding, *sources, *padding_starts;
  const float *linear; /* [2, NEIGHBORS], of the first slice and of the others */
  const float *layers[3];
  const float *down, *up;
  const uint32_t *cumulative;
  const uint8_t *coarse, *symbol_of;
  const int32_t *lowest, *extra, *bits_of, *table_of;
  const uint32_t *costs; /* by frequency */
  float *cells, *errors;
  uint16_t *block;
  uint64_t *states;
  const uint32_t *stream;
  uint64_t *symbols; /* of voxels in coding order, 16 bits of start, 17 of frequency, 16 of extra, 5 of their number */
  int32_t *counts;   /* voxels of each step */
  const int32_t *picked; /* row of each voxel in the next three, or -1; if given, nothing is coded */
  int8_t *features;      /* [rows, FEATURES] */
  float *predicted;
  int32_t *logs;
  float linear_scale, unused;
};

struct pack_task {
  int64_t bytes;
  int64_t steps, voxels, lanes, capacity;
  int64_t first; /* where the words begin: they end with the array */
  const uint64_t *symbols;
  const int32_t *counts;
  uint64_t *states;
  uint32_t *words;
};

/* A batch: feature f of voxel b is values[f][b]. */
struct batch {
  float values[FEATURES][BATCH], hidden[2][MOST_WIDTH][BATCH], outputs[OUTPUTS][BATCH];
  float linear[BATCH];
  int32_t logs[BATCH];
  int32_t lines[BATCH];
  int64_t voxels[BATCH];
  int count, is_first;
};

static NATIVE_INLINE float largest(float a, float b) { return a > b ? a : b; }
static NATIVE_INLINE float smallest(float a, float b) { return a < b ? a : b; }
static NATIVE_INLINE float within(float x, float low, float high) {
  return smallest(largest(x, low), high);
}

/* Floor of values within 2^31; without an instruction of the processor, floorf is slow. */
static NATIVE_INLINE float whole(float x) {
#if defined(__SSE4_1__) || defined(__aarch64__)
  return floorf(x);
#else
  const float cut = (float)(int32_t)x;
  return cut - (cut > x ? 1.0f : 0.0f);
#endif
}

enum { ACROSS = WIDTH == 16 ? 4 : 2 };

static NATIVE_INLINE void sums_of(int rows, int inputs, const float *restrict weights,
                                  float (*restrict in)[BATCH], float (*restrict out)[BATCH]) {
  for (int b = 0; b < BATCH; b += ACROSS * WIDTH) {
    vector sums[4][ACROSS];
    for (int r = 0; r < rows; r++)
      for (int a = 0; a < ACROSS; a++) sums[r][a] = weights[r * (inputs + 1) + inputs] - (vector){};
    for (int i = 0; i < inputs; i++) {
      vector values[ACROSS];
      for (int a = 0; a < ACROSS; a++) values[a] = load(in[i] + b + a * WIDTH);
      for (int r = 0; r < rows; r++)
        for (int a = 0; a < ACROSS; a++) sums[r][a] += weights[r * (inputs + 1) + i] * values[a];
    }
    for (int r = 0; r < rows; r++)
      for (int a = 0; a < ACROSS; a++) store(out[r] + b + a * WIDTH, sums[r][a]);
  }
}

/* out = floor(weights * in + bias); a bias stands at the end of its row. */
static void layer(int outputs, int inputs, const float *weights, float (*in)[BATCH],
                  float (*out)[BATCH]) {
  int o = 0;
  for (; o + 4 <= outputs; o += 4) sums_of(4, inputs, weights + o * (inputs + 1), in, out + o);
  for (; o < outputs; o++) sums_of(1, inputs, weights + o * (inputs + 1), in, out + o);
}

static void hidden_layer(int outputs, int inputs, const float *weights, float (*in)[BATCH],
                         float (*out)[BATCH]) {
  layer(outputs, inputs, weights, in, out);
  for (int o = 0; o < outputs; o++)
    for (int b = 0; b < BATCH; b++) out[o][b] = within(whole(out[o][b]), 0.0f, LARGEST_ACTIVATION);
}

/* Logarithm in 1/16 octave. */
static NATIVE_INLINE int32_t log_of(float sum) {
  int32_t bits;
  memcpy(&bits, &sum, sizeof bits);
  return (bits >> LOG_SHIFT) - LOG_ONE;
}

/* Neighbors and errors, which `values` holds, become features. */
static void make_features(const struct predict_task *t, struct batch *restrict x) {
  const float *weights = t->linear + (x->is_first ? 0 : NEIGHBORS);
  const float reach = (float)(FINE * t->top);
  float near[BATCH], beside[BATCH], far[BATCH], errors[BATCH], before[BATCH], down[BATCH];
  int32_t logs[4][BATCH];
  for (int b = 0; b < BATCH; b++) x->linear[b] = 0.0f;
  for (int f = 0; f < NEIGHBORS; f++)
    for (int b = 0; b < BATCH; b++) x->linear[b] += weights[f] * x->values[f][b];
  for (int b = 0; b < BATCH; b++) {
    x->linear[b] = within(whole(x->linear[b] * t->linear_scale), -reach, 2.0f * reach);
    near[b] = beside[b] = far[b] = errors[b] = before[b] = 0.0f;
  }
  for (int f = 0; f < SEEN; f++) {
    float *sum = f < NEAR_IN_SLICE               ? near
                 : f < IN_SLICE                  ? beside
                 : f < NEIGHBORS                 ? far
                 : f < NEIGHBORS + ERRORS_IN_SLICE ? errors
                                                 : before;
    float *row = x->values[f];
    const float scale = f < NEIGHBORS ? (float)FINE : 1.0f, moved = f < NEIGHBORS ? 1.0f : 0.0f;
    for (int b = 0; b < BATCH; b++) {
      row[b] = within(row[b] * scale - moved * x->linear[b], -FARTHEST, FARTHEST);
      sum[b] += fabsf(row[b]);
    }
  }
  for (int b = 0; b < BATCH; b++) {
    const float all = 2.0f * (near[b] + beside[b]) + far[b] + 5.0f * errors[b] + 3.0f * before[b];
    logs[0][b] = log_of(all + 128.0f);
    logs[1][b] = log_of(11.0f * near[b] + 128.0f);
    logs[2][b] = log_of(16.0f * errors[b] + 128.0f);
    logs[3][b] = log_of(16.0f * before[b] + 128.0f);
    x->logs[b] = logs[0][b];
    down[b] = t->down[logs[0][b]];
  }
  for (int f = 0; f < SEEN; f++)
    for (int b = 0; b < BATCH; b++)
      x->values[f][b] = within(whole(x->values[f][b] * down[b]), -NORM, NORM);
  const float first = x->is_first ? 64.0f : 0.0f;
  for (int b = 0; b < BATCH; b++) {
    x->values[SEEN][b] = within((float)(logs[0][b] - LOG_MIDDLE), -NORM, NORM);
    for (int part = 1; part < 4; part++)
      x->values[SEEN + part][b] = within((float)(logs[part][b] - logs[0][b]), -NORM, NORM);
    x->values[SEEN + 4][b] =
        within(whole(smallest(x->linear[b], FARTHEST) * down[b]), -NORM, NORM);
    x->values[SEEN + 5][b] = first;
  }
}

/* Whether all voxels see one index and no errors, as in the air around a patient. */
static int is_flat(const struct batch *x) {
  for (int f = 0; f < SEEN; f++) {
    const float common = f < NEIGHBORS ? x->values[0][0] : 0.0f;
    int differs = 0;
    for (int b = 0; b < BATCH; b++) differs |= (x->values[f][b] != common) & (b < x->count);
    if (differs) return 0;
  }
  return 1;
}

/* Place of a voxel's distribution: its row in `cumulative`, the entry of index 0, the bits below a
 * bin, and the index at which bins begin. */
struct place {
  int32_t table, row, floor, bits, base;
};

static NATIVE_INLINE struct place place_of(const struct predict_task *t, int32_t mean,
                                           int32_t scale, int32_t shape) {
  struct place p;
  p.bits = t->bits_of[scale];
  const int32_t center = (mean + FINE / 2) >> (p.bits + 1), base = center >> 3;
  p.table = t->table_of[scale] + (center & (PHASES - 1)) * SHAPES + shape;
  p.row = p.table * (SYMBOLS + 1);
  p.floor = p.row + t->symbol_of[REACH - base];
  p.base = base * (1 << p.bits);
  return p;
}

/* Prediction for the last voxels all of whose neighbors had `index`. */
struct flat {
  float index, linear;
  struct place place;
};

static NATIVE_INLINE struct place expected(const struct predict_task *t, const struct batch *x,
                                           int b) {
  const float shift = within(x->outputs[0][b], -LARGEST_SHIFT, LARGEST_SHIFT);
  const float moved = whole(t->up[x->logs[b]] * shift * (1.0f / 4096.0f)) + x->linear[b];
  const int32_t mean = (int32_t)within(moved, LEAST_MEAN, MOST_MEAN);
  int32_t scale = ((int32_t)x->outputs[1][b] + x->logs[b] - LOG_ZERO) >> 2;
  scale = scale < 0 ? 0 : scale >= CLASSES ? CLASSES - 1 : scale;
  const int32_t shape = (int32_t)within(x->outputs[2][b], 0.0f, (float)(SHAPES - 1));
  return place_of(t, mean, scale, shape);
}

static NATIVE_INLINE int32_t decoded(struct predict_task *t, const struct place p, uint64_t *state,
                                     int *is_cut) {
  uint64_t s = *state;
  const uint32_t slot = (uint32_t)(s & ((1u << BITS) - 1));
  int32_t at =
      p.row + t->coarse[((int64_t)p.table << COARSE) + (slot >> (BITS - COARSE))];
  if (at < p.floor) at = p.floor;
  uint32_t end = t->cumulative[at + 1];
  while (end <= slot) end = t->cumulative[++at + 1]; /* a row ends with 2^16, above every slot */
  const uint32_t start = at == p.floor ? 0 : t->cumulative[at];
  const int32_t symbol = at - p.row;
  int32_t below = t->extra[symbol] + p.bits;
  below = below < MOST_EXTRA ? below : MOST_EXTRA;
  s = (s >> BITS) * (end - start) + slot - start;
  const int32_t rest = (int32_t)(s & ((1u << below) - 1));
  s >>= below;
  if (s < (uint64_t)1 << 32) {
    if (t->next >= t->words) {
      *is_cut = 1;
      return 0;
    }
    s = s << 32 | t->stream[t->next++];
  }
  *state = s;
  const int64_t index = (int64_t)t->lowest[symbol] * ((int64_t)1 << p.bits) + p.base + rest;
  return (int32_t)(index < 0 ? 0 : index > t->top ? t->top : index);
}

static NATIVE_INLINE uint64_t symbol_for(struct predict_task *t, const struct place p,
                                         int32_t index) {
  const int32_t above = index - p.base, symbol = t->symbol_of[(above >> p.bits) + REACH];
  const int32_t at = p.row + symbol, below = t->extra[symbol] + p.bits;
  const uint32_t start = at == p.floor ? 0 : t->cumulative[at];
  const uint32_t frequency = t->cumulative[at + 1] - start;
  const uint64_t rest = (uint64_t)((int64_t)above - (int64_t)t->lowest[symbol] * (1 << p.bits));
  t->cost += t->costs[frequency] + ((int64_t)below << 16);
  return start | (uint64_t)frequency << 16 | rest << 33 | (uint64_t)below << 49;
}

/* The next voxels of a step, rows slice by slice; a batch of the first slice has no others. */
struct walk {
  int64_t step, slice, slices, row, last_row;
};

static int fill(const struct predict_task *t, struct walk *w, const int64_t *sources,
                struct batch *x) {
  const int64_t rows = t->rows, columns = t->columns;
  x->count = 0;
  while (x->count < BATCH) {
    if (w->row > w->last_row) {
      const int stays_alone = x->count > 0 && w->slice == 0;
      if (++w->slice >= w->slices) return 0;
      const int64_t left = w->step - 7 * w->slice, over = left - (columns - 1);
      w->row = over > 0 ? (over + 2) / 3 : 0;
      w->last_row = left / 3 < rows - 1 ? left / 3 : rows - 1;
      if (stays_alone) return 1;
      continue;
    }
    const int64_t rest = w->last_row - w->row + 1;
    const int many = rest < BATCH - x->count ? (int)rest : BATCH - x->count;
    const int64_t line = (w->slice + SLICES_BEFORE) * t->slice_lines + PADDING_ABOVE + w->row;
    for (int f = 0; f < SEEN; f++)
      memcpy(x->values[f] + x->count, (f < NEIGHBORS ? t->cells : t->errors) + sources[f] + line,
             sizeof(float) * (size_t)many);
    const int64_t voxel =
        (w->slice * rows + w->row) * columns + w->step - 7 * w->slice - 3 * w->row;
    for (int b = 0; b < many; b++) {
      x->lines[x->count + b] = (int32_t)(line + b);
      x->voxels[x->count + b] = voxel + b * (columns - 3);
    }
    x->is_first = w->slice == 0;
    x->count += many;
    w->row += many;
  }
  return 1;
}

/* Stores the network's inputs for a voxel, if that was picked. */
static void take(const struct predict_task *t, const struct batch *x, int b) {
  const int64_t row = t->picked[x->voxels[b]];
  if (row < 0) return;
  for (int f = 0; f < FEATURES; f++) t->features[row * FEATURES + f] = (int8_t)x->values[f][b];
  t->predicted[row] = x->linear[b];
  t->logs[row] = x->logs[b];
}

/* Codes, decodes or takes training data from the steps of a block, `to_step` excluded. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_predict)(struct predict_task *t) {
  if (t->bytes != (int64_t)sizeof *t) return NATIVE_BAD_ARGUMENT;
  if (!t->picked && (t->widths[0] < 1 || t->widths[0] > MOST_WIDTH || t->widths[1] < 1 ||
                     t->widths[1] > MOST_WIDTH))
    return NATIVE_BAD_ARGUMENT;
  const int first_width = (int)t->widths[0], second_width = (int)t->widths[1];
  const int64_t lines = (t->slices + SLICES_BEFORE) * t->slice_lines;
  struct batch x;
  struct flat flats[2] = {{-1.0f, 0.0f, {0, 0, 0, 0, 0}}, {-1.0f, 0.0f, {0, 0, 0, 0, 0}}};
  memset(&x, 0, sizeof x);
  for (int64_t step = t->from_step; step < t->to_step; step++) {
    const int64_t here = step % t->slots * lines;
    int64_t sources[SEEN], lane = 0;
    const int64_t begun = t->done;
    for (int f = 0; f < SEEN; f++)
      sources[f] = (step + t->slots - t->lags[f]) % t->slots * lines + t->beside[f];
    const int64_t reached = step / 7 + 1;
    struct walk w = {step, -1, reached < t->slices ? reached : t->slices, 0, -1};
    for (int goes_on = 1; goes_on;) {
      goes_on = fill(t, &w, sources, &x);
      if (!x.count) continue;
      struct flat *flat = !t->picked && is_flat(&x) ? flats + x.is_first : NULL;
      const float seen = x.values[0][0];
      const int is_known_flat = flat && flat->index == seen;
      if (is_known_flat) {
        for (int b = 0; b < BATCH; b++) x.linear[b] = flat->linear;
      } else if (t->picked) {
        make_features(t, &x);
        for (int b = 0; b < x.count; b++) take(t, &x, b);
      } else {
        make_features(t, &x);
        hidden_layer(first_width, FEATURES, t->layers[0], x.values, x.hidden[0]);
        hidden_layer(second_width, first_width, t->layers[1], x.hidden[0], x.hidden[1]);
        layer(OUTPUTS, second_width, t->layers[2], x.hidden[1], x.outputs);
        for (int o = 0; o < OUTPUTS; o++)
          for (int b = 0; b < BATCH; b++) x.outputs[o][b] = whole(x.outputs[o][b]);
        if (flat) *flat = (struct flat){seen, x.linear[0], expected(t, &x, 0)};
      }
      for (int b = 0; b < x.count; b++) {
        int32_t index = t->block[x.voxels[b]];
        if (t->is_known) {
          const struct place p = is_known_flat ? flat->place : expected(t, &x, b);
          t->symbols[t->done] = symbol_for(t, p, index);
        } else if (!t->picked) {
          const struct place p = is_known_flat ? flat->place : expected(t, &x, b);
          int is_cut = 0;
          index = decoded(t, p, t->states + lane, &is_cut);
          if (is_cut) return NATIVE_BAD_STREAM;
          lane = lane + 1 < t->lanes ? lane + 1 : 0;
          t->block[x.voxels[b]] = (uint16_t)index;
        }
        t->done++;
        t->cells[here + x.lines[b]] = (float)index;
        t->errors[here + x.lines[b]] = (float)(index * FINE) - x.linear[b];
      }
    }
    for (int64_t p = t->padding_starts[step]; p < t->padding_starts[step + 1]; p++) {
      t->cells[t->padding[p]] = t->cells[here + t->sources[p]];
      t->errors[t->padding[p]] = t->errors[here + t->sources[p]];
    }
    if (t->is_known) t->counts[step] = (int32_t)(t->done - begun);
  }
  return NATIVE_DONE;
}

/* Packs the symbols of a whole block into states and words, from the last to the first. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_pack)(struct pack_task *t) {
  if (t->bytes != (int64_t)sizeof *t || t->lanes < 1) return NATIVE_BAD_ARGUMENT;
  int64_t at = t->voxels, word = t->capacity;
  for (int64_t step = t->steps - 1; step >= 0; step--)
    for (int64_t n = (int64_t)t->counts[step] - 1; n >= 0; n--) {
      const uint64_t packed = t->symbols[--at];
      const uint64_t start = packed & 0xffff, frequency = packed >> 16 & 0x1ffff;
      const int below = (int)(packed >> 49);
      uint64_t *state = t->states + n % t->lanes, s = *state;
      if (s >= frequency << (64 - BITS - below)) {
        if (word <= 0) return NATIVE_BAD_ARGUMENT;
        t->words[--word] = (uint32_t)s;
        s >>= 32;
      }
      s = s << below | (packed >> 33 & 0xffff);
      *state = s / frequency * ((uint64_t)1 << BITS) + s % frequency + start;
    }
  t->first = word;
  return NATIVE_DONE;
}
