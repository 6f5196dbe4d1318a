/* A residual U-Net of two dimensions, applied to an image; learning/unet.py has its description, and
 * computes the same with PyTorch.
 *
 * Pixels lie row by row, with all channels of each, in a border of zeros. In single precision,
 * convolutions of 3 x 3 pixels are computed by tiles; in bfloat16, as products of as many rows of
 * numbers as there are pixels, gathered from nine taps. What follows (bias, rectifier, residual) is
 * computed while the sums are in the cache. */
#include "products.h"

enum {
  MOST_LEVELS = 6,
  MOST_DEPTH = 16,
  MOST_WIDTH = 4096,
  GROWN = 4,
  PLACES = 36, /* of a tile, at most */
  TILES = 24,  /* that are transformed at once, so that they stay in the cache */
  TILES_AT_ONCE = WIDTH == 16 ? 8 : WIDTH == 8 ? 6 : 4, /* whose sums fit the registers */
};

/* Pixels along the side of a tile at a level: tiles of 4 need fewer multiplications, tiles of 2 fewer
 * pixels, of which lower levels have few. */
static int side_at(int level) { return level < 2 ? 4 : 2; }

/* As `_UNetTask` in learning/native_unet.py. */
struct unet_task {
  int64_t bytes; /* size of the structure */
  int64_t channels, rows, columns; /* of the input */
  int64_t levels, depth;
  int64_t widths[MOST_LEVELS];
  const float *weights; /* [weight_count], in the order of `read_network`; NULL: they are read */
  int64_t weight_count;
  const float *input;   /* [channels][rows][columns] */
  float *change;        /* [rows][columns] */
  char *network;        /* [network_size], zeros before the first call; shared by threads */
  char *memory;         /* [size], zeros before the first call with an image of this size */
  int64_t network_size, size;
};

struct image {
  int rows, columns, channels; /* channels are padded */
  number *values;              /* [rows + 2][columns + 2][channels], and PAD more pixels */
};

#if HAS_BFLOAT
typedef struct layer convolution;
#else
typedef struct {
  int side, inputs, outputs; /* of tiles; channels, padded */
  float *weights;            /* [outputs / PAD][(side + 2)^2][inputs][PAD], transformed */
  float *bias;
} convolution;
#endif

struct block {
  convolution one, two;
};

struct unet {
  convolution first;
  struct layer last, shrink[MOST_LEVELS], grow[MOST_LEVELS][GROWN];
  struct block down[MOST_LEVELS][MOST_DEPTH], up[MOST_LEVELS];
};

struct images {
  struct image input, features[MOST_LEVELS], inside[MOST_LEVELS]; /* inside: of blocks */
  float *tiles, *sums; /* of TILES tiles, transformed */
};

static NATIVE_INLINE number *pixel(const struct image *image, int64_t y, int64_t x) {
  return image->values + ((y + 1) * (image->columns + 2) + x + 1) * image->channels;
}

static struct image image_of(struct reader *r, int64_t rows, int64_t columns, int64_t channels) {
  struct image image = {(int)rows, (int)columns, padded(channels), NULL};
  const size_t pixels = (size_t)((rows + 2) * (columns + 2) + PAD);
  image.values = take_memory(r, pixels * (size_t)image.channels * sizeof *image.values);
  return image;
}

#if HAS_BFLOAT
static convolution read_convolution(struct reader *r, int64_t inputs, int64_t outputs, int side) {
  (void)side;
  return read_layer(r, inputs, outputs, 9);
}
#else
/* Transform of the weights of a convolution along an axis: [side + 2][3]. */
static const double BY_2[][3] = {{1, 0, 0}, {1. / 2, 1. / 2, 1. / 2}, {1. / 2, -1. / 2, 1. / 2}, {0, 0, 1}};
static const double BY_4[][3] = {{1. / 4, 0, 0},           {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                                 {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1}};

static convolution read_convolution(struct reader *r, int64_t inputs, int64_t outputs, int side) {
  convolution c = {side, (int)((inputs + WIDTH - 1) / WIDTH * WIDTH), padded(outputs), NULL, NULL};
  const int width = side + 2, places = width * width;
  const double(*by)[3] = side == 4 ? BY_4 : BY_2;
  c.weights = take_memory(r, (size_t)places * c.inputs * c.outputs * sizeof *c.weights);
  c.bias = take_memory(r, (size_t)c.outputs * sizeof *c.bias);
  const float *weights = read_floats(r, inputs * outputs * 9), *bias = read_floats(r, outputs);
  if (!r->memory) return c;
  for (int o = 0; o < outputs; o++) {
    c.bias[o] = bias[o];
    for (int i = 0; i < inputs; i++, weights += 9)
      for (int place = 0; place < places; place++) {
        double sum = 0;
        for (int tap = 0; tap < 9; tap++)
          sum += by[place / width][tap / 3] * weights[tap] * by[place % width][tap % 3];
        c.weights[((int64_t)(o / PAD * places + place) * c.inputs + i) * PAD + o % PAD] = (float)sum;
      }
  }
  return c;
}
#endif

static struct block read_block(struct reader *r, int64_t width, int level) {
  struct block b = {.one = read_convolution(r, width, width, side_at(level))};
  b.two = read_convolution(r, width, width, side_at(level));
  return b;
}

/* Reads the weights into the memory of the network, or only counts its bytes where that is NULL.
 * Returns the number of weights. */
static int64_t read_network(struct unet_task *t) {
  struct reader r = {.next = t->weights, .memory = t->network};
  struct unet counted, *n = take_memory(&r, sizeof *n);
  if (!n) n = &counted;
  const int64_t *widths = t->widths;
  n->first = read_convolution(&r, t->channels, widths[0], side_at(0));
  for (int level = 0; level < t->levels; level++)
    for (int i = 0; i < t->depth; i++) n->down[level][i] = read_block(&r, widths[level], level);
  for (int level = 0; level + 1 < t->levels; level++) {
    n->shrink[level] = read_layer(&r, widths[level], widths[level + 1], 4);
    for (int i = 0; i < GROWN; i++)
      n->grow[level][i] = read_layer(&r, widths[level + 1], widths[level], 1);
    n->up[level] = read_block(&r, widths[level], level);
  }
  n->last = read_layer(&r, widths[0], 1, 9);
  t->network_size = (int64_t)r.size;
  return r.next - t->weights;
}

/* Lays out the images in the task's memory, or only counts its bytes where that is NULL. */
static struct images lay_out(struct unet_task *t) {
  struct reader r = {.memory = t->memory};
  struct images images;
  const int64_t side = (int64_t)1 << (t->levels - 1);
  const int64_t rows = (t->rows + side - 1) / side * side;
  const int64_t columns = (t->columns + side - 1) / side * side;
  int64_t most = t->channels;
  images.input = image_of(&r, rows, columns, t->channels);
  for (int level = 0; level < t->levels; level++) {
    images.features[level] = image_of(&r, rows >> level, columns >> level, t->widths[level]);
    images.inside[level] = image_of(&r, rows >> level, columns >> level, t->widths[level]);
    if (t->widths[level] > most) most = t->widths[level];
  }
  images.tiles = take_memory(&r, HAS_BFLOAT ? 0 : sizeof(float) * PLACES * TILES * (size_t)padded(most));
  images.sums = take_memory(&r, HAS_BFLOAT ? 0 : sizeof(float) * PLACES * TILES * PAD);
  t->size = (int64_t)r.size;
  return images;
}

enum end { STORE, RECTIFY, ADD };

/* Stores, or adds, results of a layer for a pixel, from the sums of some outputs on. */
static NATIVE_INLINE void finish(number *out, vector value, enum end end) {
  if (end == RECTIFY) value = positive(value);
  if (end == ADD) value += get(out);
  put(out, value);
}

/* Applies a layer to pixels `step` apart; its outputs go to pixels `spread` apart, from (y, x) on. */
static NATIVE_INLINE void apply(const struct layer *l, const struct image *from, int step,
                                const struct image *to, int spread, int y, int x, enum end end) {
  _Alignas(64) float sums[PAD][PAD];
  const int64_t between = from->channels, line = (from->columns + 2) * between;
  struct rows rows = {.between = step * between};
  for (int tap = 0; tap < l->taps; tap++) {
    const int side = l->taps == 9 ? 3 : 2, first = l->taps == 9 ? -1 : 0;
    rows.taps[tap] = (tap / side + first) * line + (tap % side + first) * between;
  }
  for (int j = 0; j < from->rows / step; j++) {
    const int stop = from->columns / step;
    for (int c = 0; c < l->outputs; c += PAD) {
      const number *weights = l->weights + (int64_t)c * l->inputs * l->taps;
      for (int i = 0; i < stop; i += PAD) {
        product(sums, pixel(from, j * step, i * step), &rows, l, weights);
        const int count = stop - i < PAD ? stop - i : PAD;
        for (int q = 0; q < count; q++) {
          number *at = pixel(to, j * spread + y, (i + q) * spread + x) + c;
          for (int o = 0; o < PAD; o += WIDTH)
            finish(at + o, load(sums[q] + o) + load(l->bias + c + o), end);
        }
      }
    }
  }
}

#if HAS_BFLOAT
static void convolve(const convolution *c, const struct image *from, const struct image *to,
                     const struct images *images, enum end end) {
  (void)images;
  apply(c, from, 1, to, 1, 0, 0, end);
}
#else
/* Transforms a line of side + 2 pixels, `step` apart; results are `spread` apart. */
static NATIVE_INLINE void into_tile(int side, vector *restrict out, int spread, const vector *restrict in,
                                    int step) {
  const vector a = in[0], b = in[step], c = in[2 * step], d = in[3 * step];
  if (side == 2) {
    out[0] = a - c, out[spread] = b + c, out[2 * spread] = c - b, out[3 * spread] = b - d;
    return;
  }
  const vector e = in[4 * step], f = in[5 * step];
  const vector even = e - 4 * c, odd = d - 4 * b, near = e - c, far = 2 * (d - b);
  out[0] = 4 * a - 5 * c + e, out[5 * spread] = 4 * b - 5 * d + f;
  out[spread] = even + odd, out[2 * spread] = even - odd;
  out[3 * spread] = near + far, out[4 * spread] = near - far;
}

/* Transforms products of side + 2 places into `side` pixels, likewise. */
static NATIVE_INLINE void out_of_tile(int side, vector *restrict out, int spread, const vector *restrict in,
                                      int step) {
  const vector a = in[0], b = in[step], c = in[2 * step], d = in[3 * step];
  const vector even = b + c, odd = b - c;
  if (side == 2) {
    out[0] = a + even, out[spread] = odd - d;
    return;
  }
  const vector e = in[4 * step], f = in[5 * step], more = d + e, less = d - e;
  out[0] = a + even + more, out[spread] = odd + 2 * less;
  out[2 * spread] = even + 4 * more, out[3 * spread] = odd + 8 * less + f;
}

/* Transforms all channels of the tile at (y, x); beyond the border of zeros all is 0. */
static NATIVE_INLINE void read_tile(int side, float *restrict tile, const struct image *from, int channels,
                                    int y, int x) {
  const int width = side + 2;
  const int64_t line = (int64_t)(from->columns + 2) * from->channels;
  const int is_inside = y + side <= from->rows && x + side <= from->columns;
  for (int c = 0; c < channels; c += WIDTH) {
    const float *start = pixel(from, y - 1, x - 1) + c;
    vector values[PLACES], half[PLACES];
    for (int i = 0; i < width; i++)
      for (int j = 0; j < width; j++)
        values[i * width + j] = is_inside || (y - 1 + i <= from->rows && x - 1 + j <= from->columns)
                                    ? load(start + i * line + j * from->channels)
                                    : (vector){0};
    for (int j = 0; j < width; j++) into_tile(side, half + j, width, values + j, width);
    for (int i = 0; i < width; i++) into_tile(side, values + i * width, 1, half + i * width, 1);
    for (int place = 0; place < width * width; place++)
      store(tile + (int64_t)place * TILES * channels + c, values[place]);
  }
}

/* Multiplies some tiles with the weights of PAD outputs at one place. */
static NATIVE_INLINE void multiply_tiles(float *restrict sums, const float *restrict tiles, int count,
                                         const float *restrict weights, int channels) {
  for (int n = 0; n < count; n += TILES_AT_ONCE)
    for (int o = 0; o < PAD; o += 2 * WIDTH) {
      vector near[TILES_AT_ONCE] = {{0}}, far[TILES_AT_ONCE] = {{0}};
      const float *next = weights + o, *row = tiles + (int64_t)n * channels;
      for (int i = 0; i < channels; i++, next += PAD) {
        const vector a = load(next), b = load(next + WIDTH);
        for (int q = 0; q < TILES_AT_ONCE; q++) {
          near[q] += row[q * channels + i] * a;
          far[q] += row[q * channels + i] * b;
        }
      }
      for (int q = 0; q < TILES_AT_ONCE; q++) {
        store(sums + (n + q) * PAD + o, near[q]);
        store(sums + (n + q) * PAD + o + WIDTH, far[q]);
      }
    }
}

/* Turns the sums of the tile at (y, x) into pixels of some outputs. */
static NATIVE_INLINE void write_tile(int side, const struct image *to, const float *restrict sums,
                                     const float *restrict bias, int output, int y, int x, enum end end) {
  const int width = side + 2;
  for (int o = 0; o < PAD; o += WIDTH) {
    vector values[PLACES], half[PLACES];
    for (int place = 0; place < width * width; place++) values[place] = load(sums + place * TILES * PAD + o);
    for (int j = 0; j < width; j++) out_of_tile(side, half + j, width, values + j, width);
    for (int i = 0; i < side; i++) out_of_tile(side, values + i * side, 1, half + i * width, 1);
    for (int i = 0; i < side && y + i < to->rows; i++)
      for (int j = 0; j < side && x + j < to->columns; j++)
        finish(pixel(to, y + i, x + j) + output + o, values[i * side + j] + load(bias + output + o), end);
  }
}

/* Computes some outputs of `count` tiles, whose first pixels are `at`. */
static NATIVE_INLINE void compute_tiles(int side, const convolution *c, const struct image *from,
                                        const struct image *to, const struct images *images,
                                        const int at[TILES][2], int count, enum end end) {
  const int places = (side + 2) * (side + 2);
  for (int n = 0; n < count; n++)
    read_tile(side, images->tiles + n * c->inputs, from, c->inputs, at[n][0], at[n][1]);
  for (int o = 0; o < c->outputs; o += PAD) {
    const float *weights = c->weights + (int64_t)o * places * c->inputs;
    for (int place = 0; place < places; place++)
      multiply_tiles(images->sums + place * TILES * PAD, images->tiles + place * TILES * c->inputs, count,
                     weights + (int64_t)place * c->inputs * PAD, c->inputs);
    for (int n = 0; n < count; n++)
      write_tile(side, to, images->sums + n * PAD, c->bias, o, at[n][0], at[n][1], end);
  }
}

static NATIVE_INLINE void convolve_by(int side, const convolution *c, const struct image *from,
                                      const struct image *to, const struct images *images,
                                      enum end end) {
  int at[TILES][2], count = 0;
  for (int y = 0; y < from->rows; y += side)
    for (int x = 0; x < from->columns; x += side) {
      at[count][0] = y, at[count][1] = x;
      if (++count < TILES) continue;
      compute_tiles(side, c, from, to, images, at, count, end);
      count = 0;
    }
  compute_tiles(side, c, from, to, images, at, count, end);
}

/* Convolves an image by tiles: of (side + 2)^2 pixels, their values are transformed so that
 * products, place by place, give side^2 pixels. Tiles of 4 take a quarter of the multiplications.
 * Source: Lavin and Gray, Fast algorithms for convolutional neural networks, arXiv 1509.09308. */
static void convolve(const convolution *c, const struct image *from, const struct image *to,
                     const struct images *images, enum end end) {
  if (c->side == 4) convolve_by(4, c, from, to, images, end);
  else convolve_by(2, c, from, to, images, end);
}
#endif

static void apply_block(const struct block *b, const struct images *images, int level) {
  const struct image *features = images->features + level, *inside = images->inside + level;
  convolve(&b->one, features, inside, images, RECTIFY);
  convolve(&b->two, inside, features, images, ADD);
}

/* Copies the input; what lies beyond its last row and column repeats these. */
static void read_input(const struct unet_task *t, const struct image *to) {
  for (int y = 0; y < to->rows; y++)
    for (int x = 0; x < to->columns; x += WIDTH) {
      const int count = to->columns - x < WIDTH ? to->columns - x : WIDTH;
      for (int c = 0; c < t->channels; c++) {
        const float *line = t->input + (c * t->rows + (y < t->rows ? y : t->rows - 1)) * t->columns;
        float near[WIDTH];
        if (x + WIDTH <= t->columns)
          memcpy(near, line + x, sizeof near);
        else
          for (int i = 0; i < WIDTH; i++) near[i] = line[x + i < t->columns ? x + i : t->columns - 1];
        number values[WIDTH], *out = pixel(to, y, x) + c;
        put(values, load(near));
        for (int i = 0; i < count; i++) out[(int64_t)i * to->channels] = values[i];
      }
    }
}

/* Computes the only output of the last layer. */
static void write_change(const struct unet_task *t, const struct layer *l, const struct images *images) {
  _Alignas(64) float weights[MOST_TAPS * MOST_WIDTH];
  const struct image *from = images->features;
  const int64_t line = (int64_t)(from->columns + 2) * from->channels;
  for (int tap = 0; tap < 9; tap++)
    for (int i = 0; i < l->inputs; i++)
      weights[tap * l->inputs + i] = value_of(l->weights[tap * l->inputs * PAD + place_of_weight(0, i)]);
  for (int y = 0; y < t->rows; y++)
    for (int x = 0; x < t->columns; x++) {
      vector near = {0}, far = {0};
      const float *next = weights;
      for (int tap = 0; tap < 9; tap++) {
        const number *in = pixel(from, y - 1, x - 1) + tap / 3 * line + tap % 3 * from->channels;
        for (int i = 0; i < l->inputs; i += 2 * WIDTH, next += 2 * WIDTH) {
          near += get(in + i) * load(next);
          far += get(in + i + WIDTH) * load(next + WIDTH);
        }
      }
      t->change[y * t->columns + x] = sum_of_lanes(near + far) + l->bias[0];
    }
}

static int is_valid(const struct unet_task *t) {
  if (!t || t->bytes != (int64_t)sizeof *t) return 0;
  if (t->channels < 1 || t->channels > MOST_WIDTH || t->depth < 1 || t->depth > MOST_DEPTH) return 0;
  if (t->rows < 1 || t->columns < 1 || t->rows > 65536 || t->columns > 65536) return 0;
  if (t->levels < 1 || t->levels > MOST_LEVELS) return 0;
  for (int i = 0; i < t->levels; i++)
    if (t->widths[i] < 1 || t->widths[i] > MOST_WIDTH) return 0;
  return t->weights || (t->network && (!t->memory || (t->input && t->change)));
}

/* With `weights` it fills the network, else it applies it; without the memory of either it only
 * computes its size. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_unet)(struct unet_task *t) {
  if (!is_valid(t)) return NATIVE_BAD_ARGUMENT;
  if (t->weights) return read_network(t) == t->weight_count ? NATIVE_DONE : NATIVE_BAD_ARGUMENT;
  const struct unet *n = (const struct unet *)t->network;
  const struct images images = lay_out(t);
  if (!t->memory) return NATIVE_DONE;
  const int last = (int)t->levels - 1;
  begin_products();
  read_input(t, &images.input);
  convolve(&n->first, &images.input, images.features, &images, STORE);
  for (int level = 0; level <= last; level++) {
    const struct image *features = images.features + level;
    for (int i = 0; i < t->depth; i++) apply_block(&n->down[level][i], &images, level);
    if (level < last) apply(n->shrink + level, features, 2, features + 1, 1, 0, 0, STORE);
  }
  for (int level = last - 1; level >= 0; level--) {
    const struct image *features = images.features + level;
    for (int i = 0; i < GROWN; i++)
      apply(&n->grow[level][i], features + 1, 1, features, 2, i / 2, i % 2, ADD);
    apply_block(n->up + level, &images, level);
  }
  write_change(t, &n->last, &images);
  end_products();
  return NATIVE_DONE;
}
