/* A residual U-Net of two dimensions, applied to an image; learning/unet.py has its description, and
 * computes the same with PyTorch.
 *
 * Pixels lie row by row, with all channels of each, in a border of zeros: a convolution is a product
 * of as many rows of numbers as there are pixels, gathered from nine taps. What follows it (bias,
 * rectifier, residual) is computed while its sums are in the cache. */
#include "products.h"

enum { MOST_LEVELS = 6, MOST_DEPTH = 16, GROWN = 4 };

/* As `_UNetTask` in learning/native_unet.py. */
struct unet_task {
  int64_t bytes; /* size of the structure */
  int64_t channels, rows, columns; /* of the input */
  int64_t levels, depth;
  int64_t widths[MOST_LEVELS];
  const float *weights; /* [weight_count], in the order in which `lay_out` reads them */
  int64_t weight_count;
  const float *input;   /* [channels][rows][columns] */
  float *change;        /* [rows][columns] */
  char *memory;         /* [size], zeros before the first call; NULL: only `size` is computed */
  int64_t size, is_laid_out;
};

struct image {
  int rows, columns, channels; /* channels are padded */
  number *values;              /* [rows + 2][columns + 2][channels], and PAD more pixels */
};

struct block {
  struct layer one, two;
};

struct unet {
  struct layer first, last, shrink[MOST_LEVELS], grow[MOST_LEVELS][GROWN];
  struct block down[MOST_LEVELS][MOST_DEPTH], up[MOST_LEVELS];
  struct image input, features[MOST_LEVELS], inside[MOST_LEVELS]; /* inside: of blocks */
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

static struct block read_block(struct reader *r, int64_t width) {
  struct block b = {.one = read_layer(r, width, width, 9)};
  b.two = read_layer(r, width, width, 9);
  return b;
}

/* Fills a network in the task's memory; returns it, NULL where only the size is counted. */
static struct unet *lay_out(struct unet_task *t, int64_t *read) {
  struct reader r = {.next = t->weights, .memory = t->memory};
  struct unet counted, *n = take_memory(&r, sizeof *n);
  if (!n) n = &counted;
  const int64_t *widths = t->widths, side = (int64_t)1 << (t->levels - 1);
  const int64_t rows = (t->rows + side - 1) / side * side;
  const int64_t columns = (t->columns + side - 1) / side * side;
  n->first = read_layer(&r, t->channels, widths[0], 9);
  for (int level = 0; level < t->levels; level++)
    for (int i = 0; i < t->depth; i++) n->down[level][i] = read_block(&r, widths[level]);
  for (int level = 0; level + 1 < t->levels; level++) {
    n->shrink[level] = read_layer(&r, widths[level], widths[level + 1], 4);
    for (int i = 0; i < GROWN; i++)
      n->grow[level][i] = read_layer(&r, widths[level + 1], widths[level], 1);
    n->up[level] = read_block(&r, widths[level]);
  }
  n->last = read_layer(&r, widths[0], 1, 9);
  *read = r.next - t->weights;
  n->input = image_of(&r, rows, columns, t->channels);
  for (int level = 0; level < t->levels; level++) {
    n->features[level] = image_of(&r, rows >> level, columns >> level, widths[level]);
    n->inside[level] = image_of(&r, rows >> level, columns >> level, widths[level]);
  }
  t->size = (int64_t)r.size;
  return t->memory ? n : NULL;
}

enum end { STORE, RECTIFY, ADD };

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
  for (int j = 0; j < from->rows / step; j++)
    for (int c = 0; c < l->outputs; c += PAD) {
      const number *weights = l->weights + (int64_t)c * l->inputs * l->taps;
      for (int i = 0; i < from->columns / step; i += PAD) {
        product(sums, pixel(from, j * step, i * step), &rows, l, weights);
        const int count = from->columns / step - i < PAD ? from->columns / step - i : PAD;
        for (int q = 0; q < count; q++) {
          number *out = pixel(to, j * spread + y, (i + q) * spread + x) + c;
          for (int o = 0; o < PAD; o += WIDTH) {
            vector value = load(sums[q] + o) + load(l->bias + c + o);
            if (end == RECTIFY) value = positive(value);
            if (end == ADD) value += get(out + o);
            put(out + o, value);
          }
        }
      }
    }
}

static void apply_block(const struct block *b, const struct image *features,
                        const struct image *inside) {
  apply(&b->one, features, 1, inside, 1, 0, 0, RECTIFY);
  apply(&b->two, inside, 1, features, 1, 0, 0, ADD);
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

/* The only output of the last layer. */
static void write_change(const struct unet_task *t, const struct layer *l, const struct image *from) {
  _Alignas(64) float sums[PAD][PAD];
  struct rows rows = {.between = from->channels};
  for (int tap = 0; tap < 9; tap++)
    rows.taps[tap] = ((tap / 3 - 1) * (from->columns + 2) + tap % 3 - 1) * rows.between;
  for (int y = 0; y < t->rows; y++)
    for (int x = 0; x < t->columns; x += PAD) {
      product(sums, pixel(from, y, x), &rows, l, l->weights);
      for (int q = 0; q < PAD && x + q < t->columns; q++)
        t->change[y * t->columns + x + q] = sums[q][0] + l->bias[0];
    }
}

static int is_valid(const struct unet_task *t) {
  if (!t || t->bytes != (int64_t)sizeof *t || !t->weights) return 0;
  if (t->channels < 1 || t->channels > 4096 || t->depth < 1 || t->depth > MOST_DEPTH) return 0;
  if (t->rows < 1 || t->columns < 1 || t->rows > 65536 || t->columns > 65536) return 0;
  if (t->levels < 1 || t->levels > MOST_LEVELS) return 0;
  for (int i = 0; i < t->levels; i++)
    if (t->widths[i] < 1 || t->widths[i] > 4096) return 0;
  return !t->memory || (t->input && t->change);
}

NATIVE_EXPORT int32_t NATIVE_NAME(native_unet)(struct unet_task *t) {
  if (!is_valid(t)) return NATIVE_BAD_ARGUMENT;
  int64_t read = t->weight_count;
  const struct unet *n = t->is_laid_out ? (const struct unet *)t->memory : lay_out(t, &read);
  if (read != t->weight_count) return NATIVE_BAD_ARGUMENT;
  if (!n) return NATIVE_DONE;
  t->is_laid_out = 1;
  const int last = (int)t->levels - 1;
  begin_products();
  read_input(t, &n->input);
  apply(&n->first, &n->input, 1, n->features, 1, 0, 0, STORE);
  for (int level = 0; level <= last; level++) {
    const struct image *features = n->features + level;
    for (int i = 0; i < t->depth; i++)
      apply_block(&n->down[level][i], features, n->inside + level);
    if (level < last) apply(n->shrink + level, features, 2, features + 1, 1, 0, 0, STORE);
  }
  for (int level = last - 1; level >= 0; level--) {
    const struct image *features = n->features + level;
    for (int i = 0; i < GROWN; i++)
      apply(&n->grow[level][i], features + 1, 1, features, 2, i / 2, i % 2, ADD);
    apply_block(n->up + level, features, n->inside + level);
  }
  write_change(t, &n->last, n->features);
  end_products();
  return NATIVE_DONE;
}
