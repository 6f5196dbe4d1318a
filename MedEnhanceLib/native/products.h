/* Layers of networks: rows of numbers, times weights. Where the processor multiplies bfloat16 (as
 * vectors, or as tiles by AMX), numbers are in it, and products are added in single precision.
 *
 * A row may be gathered from several places, the taps: the pixels of a convolution. */
#ifndef MEDENHANCE_PRODUCTS_H
#define MEDENHANCE_PRODUCTS_H

#include <stdlib.h>

#include "native.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#define HAS_BFLOAT 1
typedef uint16_t number; /* bfloat16 */
#else
#define HAS_BFLOAT 0
typedef float number;
#endif

enum {
  PAD = 32,       /* rows, inputs and outputs are multiples of this */
  HALF = PAD / 2, /* rows of a register of AMX */
  MOST_TAPS = 9,
};

struct layer {
  int inputs, outputs, taps; /* padded; inputs of each tap */
  number *weights;           /* of PAD outputs at a time: [taps][inputs][PAD], see `place_of_weight` */
  float *bias;
};

/* Numbers from a row to the next, and from its first to that of each tap. */
struct rows {
  int64_t between, taps[MOST_TAPS];
};

typedef int32_t integers __attribute__((vector_size(4 * WIDTH)));

/* The values above 0; others become 0. */
static NATIVE_INLINE vector positive(vector x) {
  integers bits;
  memcpy(&bits, &x, sizeof bits);
  bits &= x > 0;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static NATIVE_INLINE float sum_of_lanes(vector values) {
  float lanes[WIDTH];
  store(lanes, values);
  for (int n = WIDTH / 2; n > 0; n /= 2)
    for (int l = 0; l < n; l++) lanes[l] += lanes[l + n];
  return lanes[0];
}

#if HAS_BFLOAT

static NATIVE_INLINE void put(number *to, vector values) {
  _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)values));
}

static NATIVE_INLINE vector get(const number *from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
  return (vector)_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static NATIVE_INLINE number number_of(float value) {
  number lanes[WIDTH];
  put(lanes, value + (vector){0});
  return lanes[0];
}

static NATIVE_INLINE float value_of(number bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

/* Place of the weight of output o and input i among those of PAD outputs. */
static int place_of_weight(int o, int i) {
  const int within = i % PAD;
  return i / PAD * PAD * PAD + o / HALF * HALF * PAD + within / 2 * PAD + o % HALF * 2 + within % 2;
}

#if defined(__AMX_BF16__)
static void begin_products(void) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } tiles = {.palette = 1};
  for (int i = 0; i < 8; i++) {
    tiles.row_bytes[i] = PAD * sizeof(number);
    tiles.rows[i] = HALF;
  }
  _tile_loadconfig(&tiles);
}

static void end_products(void) { _tile_release(); }

/* PAD rows from `from` on, times the weights of PAD outputs. */
static NATIVE_INLINE void product(float sums[PAD][PAD], const number *from, const struct rows *rows,
                                  const struct layer *l, const number *weights) {
  const size_t stride = (size_t)rows->between * sizeof *from, out = PAD * sizeof(float);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int tap = 0; tap < l->taps; tap++) {
    const number *near = from + rows->taps[tap], *far = near + HALF * rows->between;
    for (int i = 0; i < l->inputs; i += PAD, weights += PAD * PAD) {
      _tile_loadd(4, near + i, stride);
      _tile_loadd(5, far + i, stride);
      _tile_loadd(6, weights, PAD * sizeof *weights);
      _tile_loadd(7, weights + HALF * PAD, PAD * sizeof *weights);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums[0], out);
  _tile_stored(1, sums[0] + HALF, out);
  _tile_stored(2, sums[HALF], out);
  _tile_stored(3, sums[HALF] + HALF, out);
}
#else
static void begin_products(void) {}

static void end_products(void) {}

/* PAD rows from `from` on, times the weights of PAD outputs: pairs of inputs at a time. */
static NATIVE_INLINE void product(float sums[PAD][PAD], const number *from, const struct rows *rows,
                                  const struct layer *l, const number *weights) {
  enum { ROWS = 8 };
  for (int r = 0; r < PAD; r += ROWS) {
    __m512 near[ROWS], far[ROWS];
    for (int q = 0; q < ROWS; q++) near[q] = far[q] = _mm512_setzero_ps();
    const number *next = weights;
    for (int tap = 0; tap < l->taps; tap++) {
      const number *row = from + rows->taps[tap] + r * rows->between;
      for (int i = 0; i < l->inputs; i += PAD, next += PAD * PAD)
        for (int k = 0; k < PAD; k += 2) {
          const __m512bh a = (__m512bh)_mm512_loadu_si512(next + k / 2 * PAD);
          const __m512bh b = (__m512bh)_mm512_loadu_si512(next + HALF * PAD + k / 2 * PAD);
          for (int q = 0; q < ROWS; q++) {
            int32_t pair;
            memcpy(&pair, row + q * rows->between + i + k, sizeof pair);
            const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            near[q] = _mm512_dpbf16_ps(near[q], both, a);
            far[q] = _mm512_dpbf16_ps(far[q], both, b);
          }
        }
    }
    for (int q = 0; q < ROWS; q++) {
      _mm512_storeu_ps(sums[r + q], near[q]);
      _mm512_storeu_ps(sums[r + q] + HALF, far[q]);
    }
  }
}
#endif

#else

static NATIVE_INLINE void put(number *to, vector values) { store(to, values); }

static NATIVE_INLINE vector get(const number *from) { return load(from); }

static NATIVE_INLINE number number_of(float value) { return value; }

static NATIVE_INLINE float value_of(number value) { return value; }

static int place_of_weight(int o, int i) { return i * PAD + o; }

static void begin_products(void) {}

static void end_products(void) {}

/* `count` rows from row `r` on: as many sums as registers hold, since a processor waits for each. */
static NATIVE_INLINE void rows_of_product(float sums[PAD][PAD], const number *from,
                                          const struct rows *rows, const struct layer *l,
                                          const number *weights, int r, int count) {
  enum { MOST_ROWS = 8 };
  for (int c = 0; c < PAD; c += 2 * WIDTH) {
    vector near[MOST_ROWS] = {{0}}, far[MOST_ROWS] = {{0}};
    const number *next = weights + c;
    for (int tap = 0; tap < l->taps; tap++) {
      const number *row = from + rows->taps[tap] + r * rows->between;
      for (int i = 0; i < l->inputs; i++, next += PAD) {
        const vector a = load(next), b = load(next + WIDTH);
        for (int q = 0; q < count; q++) {
          near[q] += row[q * rows->between + i] * a;
          far[q] += row[q * rows->between + i] * b;
        }
      }
    }
    for (int q = 0; q < count; q++) {
      store(sums[r + q] + c, near[q]);
      store(sums[r + q] + c + WIDTH, far[q]);
    }
  }
}

static NATIVE_INLINE void product(float sums[PAD][PAD], const number *from, const struct rows *rows,
                                  const struct layer *l, const number *weights) {
  if (WIDTH == 16) { /* 32 registers; otherwise 16 */
    for (int r = 0; r < PAD; r += 8) rows_of_product(sums, from, rows, l, weights, r, 8);
  } else {
    for (int r = 0; r < 20; r += 5) rows_of_product(sums, from, rows, l, weights, r, 5);
    for (int r = 20; r < PAD; r += 6) rows_of_product(sums, from, rows, l, weights, r, 6);
  }
}

#endif

/* ---- weights ------------------------------------------------------------------------------ */

static int padded(int64_t count) { return (int)((count + PAD - 1) / PAD * PAD); }

/* Reads weights one after another, and gives out memory; only counts both where that is NULL. */
struct reader {
  const float *next;
  char *memory;
  size_t size;
};

static void *take_memory(struct reader *r, size_t bytes) {
  void *part = r->memory ? r->memory + r->size : NULL;
  r->size += (bytes + 63) / 64 * 64;
  return part;
}

static const float *read_floats(struct reader *r, int64_t count) {
  const float *values = r->next;
  r->next += count;
  return values;
}

/* Weights [outputs][inputs][taps] and bias [outputs], as PyTorch has them; the memory is 0. */
static struct layer read_layer(struct reader *r, int64_t inputs, int64_t outputs, int taps) {
  struct layer l = {.inputs = padded(inputs), .outputs = padded(outputs), .taps = taps};
  const int64_t of_a_tap = (int64_t)l.inputs * PAD, size = of_a_tap * taps * (l.outputs / PAD);
  l.weights = take_memory(r, (size_t)size * sizeof *l.weights);
  l.bias = take_memory(r, (size_t)l.outputs * sizeof *l.bias);
  const float *weights = read_floats(r, inputs * outputs * taps), *bias = read_floats(r, outputs);
  if (!r->memory) return l;
  for (int o = 0; o < outputs; o++) {
    number *to = l.weights + o / PAD * of_a_tap * taps;
    l.bias[o] = bias[o];
    for (int i = 0; i < inputs; i++)
      for (int tap = 0; tap < taps; tap++, weights++)
        to[tap * of_a_tap + place_of_weight(o % PAD, i)] = number_of(*weights);
  }
  return l;
}

#endif
