/* Blocks of the learned predictor: the distribution of each voxel, and coding with it.
 *
 * Called by unicompress/codecs/predictor/coder.py, to code and to collect training data; the format
 * is in docs/ucv-format.md. Numbers in float are integers, every sum stays below 2^24 and every
 * scale is a power of two, so that neither the order of sums nor fused multiply-adds change a bit.
 * Python checks all sizes, weights and tables first; values from a stream are checked here: table
 * indices come from clipped values only.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "native.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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
  NORM = 127,
  LARGEST_ACTIVATION = 255,
  LARGEST_SHIFT = 511,
  NARROW = 20, /* first scale of the four whose distributions wider scales use */
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
  SLICES_BEFORE = 2,
  MOST_VECTOR = 16
};

static const float FARTHEST = 131072.0f, LEAST_MEAN = -524288.0f, MOST_MEAN = 1572864.0f;

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
  int64_t widths[2], bits[3];
  const int64_t *lags, *beside; /* [SEEN] steps, and lines of the ring, that are looked back */
  const int32_t *padding, *sources, *padding_starts;
  const float *linear; /* [2, NEIGHBORS], of the first slice and of the others */
  const int32_t *layers[3]; /* rows: the bias, then pairs of weights as int16, of any odd one 0 */
  const float *down, *up;
  const uint32_t *cumulative;
  const uint8_t *coarse, *symbol_of;
  const int32_t *lowest, *extra;
  const uint32_t *costs; /* by frequency */
  float *cells, *errors; /* in sixteenths of an index; both go on for a vector */
  uint16_t *block;
  uint64_t *states;
  const uint32_t *stream; /* goes on for a batch */
  uint64_t *symbols; /* of voxels in coding order, 16 bits of start, 17 of frequency, 16 of extra, 5 of their number */
  int32_t *counts;   /* voxels of each step */
  const int32_t *picked; /* row of each voxel in the next three, or -1; if given, nothing is coded */
  int8_t *out;           /* [rows, FEATURES] */
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

/* A batch of voxels of one step. */
struct batch {
  /* Neighbors and errors; a copy of the last ones may reach beyond BATCH. */
  float values[SEEN][BATCH + MOST_VECTOR];
  /* Inputs of layers: pairs of int16, the first one in the lower half. */
  int32_t features[(FEATURES + 1) / 2][BATCH], hidden[2][MOST_WIDTH / 2][BATCH];
  int32_t sums[MOST_WIDTH][BATCH];
  float linear[BATCH];
  int32_t logs[BATCH];
  int32_t lines[BATCH];
  int64_t voxels[BATCH];
  /* Distributions: number, bits below a bin, index at which bins begin. */
  int32_t table[BATCH], bits[BATCH], base[BATCH];
  int32_t indices[BATCH];
  int count, is_first;
};

typedef int32_t integers __attribute__((vector_size(4 * WIDTH)));

/* sums + a[low] * b[low] + a[high] * b[high], by the halves of 32 bits. */
static NATIVE_INLINE integers add_products(integers sums, integers a, integers b) {
#if defined(__AVX512VNNI__)
  return (integers)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
  return sums + (integers)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sums + (integers)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return sums + (integers)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return sums + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

static NATIVE_INLINE float largest(float a, float b) { return a > b ? a : b; }
static NATIVE_INLINE float smallest(float a, float b) { return a < b ? a : b; }
static NATIVE_INLINE float within(float x, float low, float high) {
  return smallest(largest(x, low), high);
}
static NATIVE_INLINE int32_t clipped(int32_t x, int32_t low, int32_t high) {
  x = x < low ? low : x;
  return x > high ? high : x;
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

static NATIVE_INLINE void sums_of(int rows, int pairs, const int32_t *restrict weights,
                                  int32_t (*restrict in)[BATCH], int32_t (*restrict out)[BATCH]) {
  for (int b = 0; b < BATCH; b += ACROSS * WIDTH) {
    integers sums[4][ACROSS], values[ACROSS];
    for (int r = 0; r < rows; r++)
      for (int a = 0; a < ACROSS; a++) sums[r][a] = weights[r * (pairs + 1)] - (integers){};
    for (int i = 0; i < pairs; i++) {
      for (int a = 0; a < ACROSS; a++)
        memcpy(&values[a], in[i] + b + a * WIDTH, sizeof values[a]);
      for (int r = 0; r < rows; r++) {
        const integers weight = weights[r * (pairs + 1) + 1 + i] - (integers){};
        for (int a = 0; a < ACROSS; a++) sums[r][a] = add_products(sums[r][a], values[a], weight);
      }
    }
    for (int r = 0; r < rows; r++)
      for (int a = 0; a < ACROSS; a++)
        memcpy(out[r] + b + a * WIDTH, &sums[r][a], sizeof sums[r][a]);
  }
}

/* out = weights * in + bias; of each row the bias comes first, then pairs of weights. */
static void layer(int outputs, int pairs, const int32_t *weights, int32_t (*in)[BATCH],
                  int32_t (*out)[BATCH]) {
  int o = 0;
  for (; o + 4 <= outputs; o += 4) sums_of(4, pairs, weights + o * (pairs + 1), in, out + o);
  for (; o < outputs; o++) sums_of(1, pairs, weights + o * (pairs + 1), in, out + o);
}

static void hidden_layer(struct batch *restrict x, int outputs, int pairs, const int32_t *weights,
                         int bits, int32_t (*in)[BATCH], int32_t (*restrict out)[BATCH]) {
  layer(outputs, pairs, weights, in, x->sums);
  if (outputs & 1) memset(x->sums[outputs], 0, sizeof x->sums[outputs]);
  for (int o = 0; o < outputs; o += 2)
    for (int b = 0; b < BATCH; b++)
      out[o / 2][b] = clipped(x->sums[o][b] >> bits, 0, LARGEST_ACTIVATION) |
                      clipped(x->sums[o + 1][b] >> bits, 0, LARGEST_ACTIVATION) << 16;
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
  float sums[5][BATCH], down[BATCH];
  int32_t wide[FEATURES + 1][BATCH];
  memset(sums, 0, sizeof sums);
  memset(wide[FEATURES], 0, sizeof wide[FEATURES]);
  for (int b = 0; b < BATCH; b += WIDTH) {
    vector linear = {};
    for (int f = 0; f < NEIGHBORS; f++) linear += weights[f] * load(x->values[f] + b);
    store(x->linear + b, linear);
  }
  for (int b = 0; b < BATCH; b++)
    x->linear[b] = within(whole(x->linear[b] * t->linear_scale), -reach, 2.0f * reach);
  static const int ends[5] = {NEAR_IN_SLICE, IN_SLICE, NEIGHBORS, NEIGHBORS + ERRORS_IN_SLICE, SEEN};
  for (int part = 0, f = 0; part < 5; part++)
    for (; f < ends[part]; f++) {
      float *restrict row = x->values[f], *restrict sum = sums[part];
      const float moved = f < NEIGHBORS ? 1.0f : 0.0f;
      for (int b = 0; b < BATCH; b++) {
        row[b] = within(row[b] - moved * x->linear[b], -FARTHEST, FARTHEST);
        sum[b] += fabsf(row[b]);
      }
    }
  for (int b = 0; b < BATCH; b++) {
    const float near = sums[0][b], errors = sums[3][b], before = sums[4][b];
    const float all = 2.0f * (near + sums[1][b]) + sums[2][b] + 5.0f * errors + 3.0f * before;
    const int32_t log = log_of(all + 128.0f);
    x->logs[b] = log;
    down[b] = t->down[log];
    wide[SEEN][b] = clipped(log - LOG_MIDDLE, -NORM, NORM);
    wide[SEEN + 1][b] = clipped(log_of(11.0f * near + 128.0f) - log, -NORM, NORM);
    wide[SEEN + 2][b] = clipped(log_of(16.0f * errors + 128.0f) - log, -NORM, NORM);
    wide[SEEN + 3][b] = clipped(log_of(16.0f * before + 128.0f) - log, -NORM, NORM);
    wide[SEEN + 4][b] =
        clipped((int32_t)whole(smallest(x->linear[b], FARTHEST) * down[b]), -NORM, NORM);
    wide[SEEN + 5][b] = x->is_first ? 64 : 0;
  }
  for (int f = 0; f < SEEN; f++)
    for (int b = 0; b < BATCH; b++)
      wide[f][b] = clipped((int32_t)whole(x->values[f][b] * down[b]), -NORM, NORM);
  for (int f = 0; f < FEATURES; f += 2)
    for (int b = 0; b < BATCH; b++)
      x->features[f / 2][b] = (wide[f][b] & 0xffff) | (int32_t)((uint32_t)wide[f + 1][b] << 16);
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

/* Distribution of the last voxels all of whose neighbors had `index`. */
struct flat {
  float index, linear;
  int32_t table, bits, base;
};

/* Runs the network, and turns its outputs into distributions. */
static void expect(const struct predict_task *t, struct batch *restrict x) {
  const int first = (int)t->widths[0], second = (int)t->widths[1];
  hidden_layer(x, first, (FEATURES + 1) / 2, t->layers[0], (int)t->bits[0], x->features,
               x->hidden[0]);
  hidden_layer(x, second, (first + 1) / 2, t->layers[1], (int)t->bits[1], x->hidden[0],
               x->hidden[1]);
  layer(OUTPUTS, (second + 1) / 2, t->layers[2], x->hidden[1], x->sums);
  const float *restrict up = t->up;
  const int bits = (int)t->bits[2];
  for (int b = 0; b < BATCH; b++) {
    const float shift = (float)clipped(x->sums[0][b] >> bits, -LARGEST_SHIFT, LARGEST_SHIFT);
    const float moved = whole(up[x->logs[b]] * shift * (1.0f / 4096.0f)) + x->linear[b];
    const int32_t mean = (int32_t)within(moved, LEAST_MEAN, MOST_MEAN);
    const int32_t scale =
        clipped(((x->sums[1][b] >> bits) + x->logs[b] - LOG_ZERO) >> 2, 0, CLASSES - 1);
    const int32_t shape = clipped(x->sums[2][b] >> bits, 0, SHAPES - 1);
    const int32_t wide = scale < NARROW ? 0 : (scale - NARROW) >> 2, kind = scale - 4 * wide;
    const int32_t center = (mean + FINE / 2) >> (wide + 1);
    x->bits[b] = wide;
    x->table[b] = (kind * PHASES + (center & (PHASES - 1))) * SHAPES + shape;
    x->base[b] = (center >> 3) * (1 << wide);
  }
}

/* The entry of index 0 in a row of `cumulative`: it takes the counts below it too. */
static NATIVE_INLINE int32_t floor_of(const struct predict_task *t, const struct batch *x, int b) {
  return x->table[b] * (SYMBOLS + 1) + t->symbol_of[REACH - (x->base[b] >> x->bits[b])];
}

/* Takes the indices of a batch from the stream. Voxels of a lane each are independent: steps over
 * all of them wait for no lookup, and have few branches to guess. */
static void decode(struct predict_task *t, struct batch *restrict x, int64_t *lane) {
  const uint32_t *restrict cumulative = t->cumulative;
  int32_t at[BATCH], floors[BATCH];
  for (int from = 0, to; from < x->count; from = to) {
    uint64_t *restrict states = t->states + *lane - from;
    to = x->count - from < t->lanes - *lane ? x->count : from + (int)(t->lanes - *lane);
    *lane = *lane + to - from < t->lanes ? *lane + to - from : 0;
    for (int b = from; b < to; b++) {
      const int64_t run = ((int64_t)x->table[b] << COARSE) + (states[b] >> (BITS - COARSE) & 0x3ff);
      const int32_t found = x->table[b] * (SYMBOLS + 1) + t->coarse[run];
      floors[b] = floor_of(t, x, b);
      at[b] = found > floors[b] ? found : floors[b];
    }
    for (int b = from; b < to; b++) {
      const uint32_t slot = (uint32_t)(states[b] & 0xffff);
      at[b] += cumulative[at[b] + 1] <= slot;
      while (cumulative[at[b] + 1] <= slot) at[b]++; /* a row ends with 2^16, above every slot */
    }
    int64_t next = t->next;
    for (int b = from; b < to; b++) {
      const int32_t symbol = at[b] - x->table[b] * (SYMBOLS + 1);
      const int32_t both = t->extra[symbol] + x->bits[b], below = both < MOST_EXTRA ? both : MOST_EXTRA;
      const uint32_t start = at[b] == floors[b] ? 0 : cumulative[at[b]];
      uint64_t s = states[b];
      s = (s >> BITS) * (cumulative[at[b] + 1] - start) + (s & 0xffff) - start;
      const int64_t rest = (int64_t)(s & ((1u << below) - 1));
      s >>= below;
      const int takes = s < (uint64_t)1 << 32;
      states[b] = takes ? s << 32 | t->stream[next] : s; /* `stream` goes on for a batch */
      next += takes;
      const int64_t index =
          (int64_t)t->lowest[symbol] * ((int64_t)1 << x->bits[b]) + x->base[b] + rest;
      x->indices[b] = (int32_t)(index < 0 ? 0 : index > t->top ? t->top : index);
    }
    t->next = next;
  }
}

static NATIVE_INLINE uint64_t symbol_for(struct predict_task *t, const struct batch *x, int b) {
  const int32_t above = x->indices[b] - x->base[b], bits = x->bits[b];
  const int32_t symbol = t->symbol_of[(above >> bits) + REACH];
  const int32_t at = x->table[b] * (SYMBOLS + 1) + symbol, below = t->extra[symbol] + bits;
  const uint32_t start = at == floor_of(t, x, b) ? 0 : t->cumulative[at];
  const uint32_t frequency = t->cumulative[at + 1] - start;
  const uint64_t rest = (uint64_t)((int64_t)above - (int64_t)t->lowest[symbol] * (1 << bits));
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
    for (int f = 0; f < SEEN; f++) {
      const float *from = (f < NEIGHBORS ? t->cells : t->errors) + sources[f] + line;
      for (int b = 0; b < many; b += WIDTH) store(x->values[f] + x->count + b, load(from + b));
    }
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
  for (int f = 0; f < FEATURES; f++)
    t->out[row * FEATURES + f] = (int8_t)(x->features[f / 2][b] >> 16 * (f & 1));
  t->predicted[row] = x->linear[b];
  t->logs[row] = x->logs[b];
}

/* Codes, decodes or takes training data from the steps of a block, `to_step` excluded. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_predict)(struct predict_task *t) {
  if (t->bytes != (int64_t)sizeof *t) return NATIVE_BAD_ARGUMENT;
  if (!t->picked && (t->widths[0] < 1 || t->widths[0] > MOST_WIDTH || t->widths[1] < 1 ||
                     t->widths[1] > MOST_WIDTH))
    return NATIVE_BAD_ARGUMENT;
  const int64_t lines = (t->slices + SLICES_BEFORE) * t->slice_lines;
  struct batch x;
  struct flat flats[2] = {{-1.0f, 0.0f, 0, 0, 0}, {-1.0f, 0.0f, 0, 0, 0}};
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
      if (flat && flat->index == seen) {
        for (int b = 0; b < BATCH; b++) {
          x.linear[b] = flat->linear;
          x.table[b] = flat->table;
          x.bits[b] = flat->bits;
          x.base[b] = flat->base;
        }
      } else {
        make_features(t, &x);
        if (!t->picked) expect(t, &x);
        if (flat) *flat = (struct flat){seen, x.linear[0], x.table[0], x.bits[0], x.base[0]};
      }
      if (t->is_known || t->picked) {
        for (int b = 0; b < x.count; b++) x.indices[b] = t->block[x.voxels[b]];
        for (int b = 0; t->picked && b < x.count; b++) take(t, &x, b);
        for (int b = 0; t->is_known && b < x.count; b++)
          t->symbols[t->done + b] = symbol_for(t, &x, b);
      } else {
        decode(t, &x, &lane);
        if (t->next > t->words) return NATIVE_BAD_STREAM;
        for (int b = 0; b < x.count; b++) t->block[x.voxels[b]] = (uint16_t)x.indices[b];
      }
      t->done += x.count;
      for (int b = 0; b < x.count; b++) {
        const float value = (float)(x.indices[b] * FINE);
        t->cells[here + x.lines[b]] = value;
        t->errors[here + x.lines[b]] = value - x.linear[b];
      }
    }
    for (int32_t p = t->padding_starts[step]; p < t->padding_starts[step + 1]; p++) {
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
