/* The set network on groups of similar blocks; hqg/network.py has its description, and computes the
 * same with PyTorch.
 *
 * A call computes some rows of reference blocks of one layer, as in grouped.c: it searches the
 * groups in the estimate, and adds their weighted residuals to the sums of the layer. A few groups
 * at a time pass all layers, so that what they need stays in the cache. Each row of a product
 * depends on its own inputs alone: bands and threads do not matter. Where the processor has units
 * for it (AMX), matrices are in bfloat16, and their products are added in single precision. */
#include <math.h>

#include "blocks.h"
#include "products.h"

enum {
  AT_ONCE = 16,       /* groups that are computed together */
  FACTS = 2,          /* distance of the block; level of the noise */
  INPUTS = (3 * CELLS + FACTS + PAD - 1) / PAD * PAD,
  OUTPUTS = 4 * CELLS, /* free residual; gains of three inputs */
};
static const float FREE_SHARE = 0.3f, MOST_WEIGHT = 4, LEAST_SHARE_OF_TOP = 1e-4f;
static const float LAYER_NORM_EPSILON = 1e-5f;

struct norm {
  const float *scale, *shift;
};

struct mixing {
  struct norm norm_of_set, norm_of_block;
  float *mix; /* [keep, padded to QUAD][keep], with the mean */
  struct layer after_mix, up, down;
};

enum { MOST_LAYERS = 24, PLANE = SIDE * SIDE };

/* Tables from inputs to outputs. */
struct transform {
  float plane[PLANE][PLANE], across[SIDE][SIDE];
};

/* A token is a block of a group. Rows of all arrays are padded. */
struct network {
  int keep, width, hidden, tokens, layers;
  struct layer token, group, out;
  struct mixing mixing[MOST_LAYERS];
  struct norm norm;
  const float *weight_of_block; /* [width], and its bias */
  struct transform into, back; /* the cosine transform; its inverse */
  int groups;                  /* that wait */
  float sigma[AT_ONCE];
  int64_t *offset; /* [tokens] */
  float *noisy, *pilot; /* [tokens][64]: coefficients minus those of the estimate */
  float *mean;          /* [AT_ONCE][64]: of `noisy` over each group */
  number *inputs;       /* [tokens][INPUTS] */
  number *group_inputs; /* [PAD][INPUTS] */
  float *group_features; /* [PAD][width] */
  float *features;      /* [tokens][width] */
  float *normal;        /* the same of one group, normalized */
  number *within;       /* [tokens][width or hidden]: what is multiplied */
  float *outputs;       /* [tokens][width, hidden or OUTPUTS] */
};

/* ---- functions of vectors ----------------------------------------------------------------- */

static NATIVE_INLINE vector limited(vector x, float low, float high) {
  const integers is_low = x < low, is_high = x > high;
  integers bits, lows, highs;
  const vector low_values = low + (vector){0}, high_values = high + (vector){0};
  memcpy(&bits, &x, sizeof bits);
  memcpy(&lows, &low_values, sizeof lows);
  memcpy(&highs, &high_values, sizeof highs);
  bits = (is_low & lows) | (is_high & highs) | (~(is_low | is_high) & bits);
  memcpy(&x, &bits, sizeof x);
  return x;
}

static NATIVE_INLINE vector polynomial(vector x, const float *factors, int count) {
  vector sum = factors[count - 1] + (vector){0};
  for (int i = count - 2; i >= 0; i--) sum = sum * x + factors[i];
  return sum;
}

/* GELU in its form with tanh, within 3e-5: its odd factor is fitted to 4.4, and constant above. */
static NATIVE_INLINE vector gelu(vector x) {
  static const float factors[] = {0.160445035f,  -0.0787256733f, 0.0552029759f, -0.0397821553f,
                                  0.0272848364f, -0.0165323261f, 0.00883546472f, -0.00602832576f,
                                  0.00449306984f, -0.00155734841f};
  const float most = 4.4f;
  const vector near = limited(x, -most, most);
  const vector at = near * near * (2 / (most * most)) - 1;
  return x * (near * polynomial(at, factors, 10) + 0.5f);
}

/* log(1 + x) for x >= 0, within 1e-7 of its value plus 1e-7. */
static NATIVE_INLINE vector log_of_one_plus(vector x) {
  static const float factors[] = {0.999999821f,  -0.500006676f, 0.333361804f, -0.249593586f,
                                  0.198731229f, -0.173333675f, 0.164193973f, -0.101018228f};
  const vector y = x + 1;
  integers bits;
  memcpy(&bits, &y, sizeof bits);
  /* y = 2^power * m, m from sqrt(1/2) to sqrt(2) */
  const integers power = (bits - 0x3f3504f3) >> 23;
  bits -= power << 23;
  vector m;
  memcpy(&m, &bits, sizeof m);
  m -= 1;
  return m * polynomial(m, factors, 8) + __builtin_convertvector(power, vector) * 0.693147181f;
}

/* sign(x) log(1 + |x|) */
static NATIVE_INLINE vector compressed(vector x) {
  integers bits, sign;
  memcpy(&bits, &x, sizeof bits);
  sign = bits & INT32_MIN;
  bits ^= sign;
  memcpy(&x, &bits, sizeof x);
  x = log_of_one_plus(x);
  memcpy(&bits, &x, sizeof bits);
  bits |= sign;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* `rows` of `from`, through a linear layer; stored in `out`, or added to it. */
static NATIVE_INLINE void multiply(float *out, const number *from, const struct layer *l, int rows,
                                   int adds) {
  _Alignas(64) float sums[PAD][PAD];
  const struct rows of_inputs = {.between = l->inputs};
  for (int r = 0; r < rows; r += PAD)
    for (int c = 0; c < l->outputs; c += PAD) {
      product(sums, from + r * l->inputs, &of_inputs, l, l->weights + c * l->inputs);
      for (int q = 0; q < PAD; q++)
        for (int i = 0; i < PAD; i += WIDTH) {
          float *to = out + (r + q) * l->outputs + c + i;
          const vector value = load(sums[q] + i) + load(l->bias + c + i);
          store(to, adds ? load(to) + value : value);
        }
    }
}

/* ---- what a task begins with -------------------------------------------------------------- */

static struct norm read_norm(struct reader *r, int64_t width) {
  const float *scale = read_floats(r, width);
  return (struct norm){scale, read_floats(r, width)};
}

/* Lays out a network for a task in memory that is 0, or only counts its bytes where that is NULL;
 * returns their number. `*read` is set to the number of weights. */
static size_t lay_out(struct network *n, const struct layer_task *t, char *memory, int64_t *read) {
  struct reader r = {.next = t->weights, .memory = memory, .size = (sizeof *n + 63) / 64 * 64};
  const int64_t width = t->width, inputs = 3 * CELLS + FACTS;
  n->keep = (int)t->keep, n->width = padded(width), n->hidden = padded(t->hidden);
  n->tokens = padded(AT_ONCE * t->keep), n->layers = (int)t->layers;
  n->token = read_layer(&r, inputs, width, 1);
  n->group = read_layer(&r, inputs, width, 1);
  for (int i = 0; i < n->layers; i++) {
    struct mixing *m = n->mixing + i;
    m->norm_of_set = read_norm(&r, width);
    m->norm_of_block = read_norm(&r, width);
    m->mix = take_memory(&r, (size_t)(n->keep + QUAD) * n->keep * sizeof *m->mix);
    const float *mix = read_floats(&r, t->keep * t->keep);
    for (int k = 0; memory && k < n->keep * n->keep; k++) m->mix[k] = mix[k] + 1.0f / (float)n->keep;
    m->after_mix = read_layer(&r, width, width, 1);
    m->up = read_layer(&r, width, t->hidden, 1);
    m->down = read_layer(&r, t->hidden, width, 1);
  }
  n->norm = read_norm(&r, width);
  n->out = read_layer(&r, width, OUTPUTS, 1);
  n->weight_of_block = read_floats(&r, width + 1);
  *read = r.next - t->weights;

  const size_t tokens = (size_t)n->tokens, most = (size_t)(n->width > n->hidden ? n->width : n->hidden);
  n->offset = take_memory(&r, tokens * sizeof *n->offset);
  n->noisy = take_memory(&r, tokens * CELLS * sizeof(float));
  n->pilot = take_memory(&r, tokens * CELLS * sizeof(float));
  n->mean = take_memory(&r, AT_ONCE * CELLS * sizeof(float));
  n->inputs = take_memory(&r, tokens * INPUTS * sizeof(number));
  n->group_inputs = take_memory(&r, PAD * INPUTS * sizeof(number));
  n->group_features = take_memory(&r, PAD * (size_t)n->width * sizeof(float));
  n->features = take_memory(&r, tokens * (size_t)n->width * sizeof(float));
  n->normal = take_memory(&r, (size_t)(n->keep * n->width) * sizeof(float));
  n->within = take_memory(&r, tokens * most * sizeof(number));
  n->outputs = take_memory(&r, tokens * (most > OUTPUTS ? most : OUTPUTS) * sizeof(float));
  return r.size;
}

/* ---- the network -------------------------------------------------------------------------- */

/* The cosine transform of a block, or its inverse: of each plane, then across planes. */
static NATIVE_INLINE void transform(float *restrict out, const float *restrict values,
                                    const struct transform *to) {
  for (int c = 0; c < PLANE; c += WIDTH) {
    vector planes[SIDE] = {{0}};
    for (int p = 0; p < PLANE; p++) {
      const vector row = load(to->plane[p] + c);
      for (int k = 0; k < SIDE; k++) planes[k] += values[k * PLANE + p] * row;
    }
    for (int k = 0; k < SIDE; k++) {
      vector sum = planes[0] * to->across[0][k];
      for (int n = 1; n < SIDE; n++) sum += planes[n] * to->across[n][k];
      store(out + k * PLANE + c, sum);
    }
  }
}

static NATIVE_INLINE void read_block(float *to, const float *volume, const struct layer_task *t) {
  for (int k = 0; k < SIDE; k++)
    for (int j = 0; j < SIDE; j++, to += SIDE)
      memcpy(to, volume + (k * t->ny + j) * t->nx, SIDE * sizeof *to);
}

/* Writes the inputs of a group that was found to the arrays of the network. */
static void add_inputs(struct workspace *w, const struct layer_task *t, int found, float sigma) {
  struct network *n = w->network;
  const int first = n->groups * n->keep, keep = n->keep;
  const float share = 1.0f / (float)keep, scale = 1 / sigma;
  float *estimate = w->noisy; /* [keep][64], of the workspace */
  float mean[CELLS] = {0}, power[CELLS] = {0}, far[MOST_KEPT + LANES] = {0};
  float *mean_noisy = n->mean + n->groups * CELLS;
  memset(mean_noisy, 0, CELLS * sizeof *mean_noisy);
  for (int g = 0; g < keep; g++) {
    const int64_t at = w->offset[g < found ? g : 0];
    float noisy[CELLS], pilot[CELLS], block[CELLS];
    read_block(noisy, t->noisy + at, t);
    read_block(pilot, t->pilot + at, t);
    read_block(block, t->matched + at, t);
    for (int f = 0; f < CELLS; f++) noisy[f] -= block[f], pilot[f] -= block[f];
    float *from_noisy = n->noisy + (first + g) * CELLS, *from_pilot = n->pilot + (first + g) * CELLS;
    transform(from_noisy, noisy, &n->into);
    transform(from_pilot, pilot, &n->into);
    transform(estimate + g * CELLS, block, &n->into);
    for (int f = 0; f < CELLS; f++) {
      const float unit = scale * w->inverse_root[f];
      from_noisy[f] *= unit, from_pilot[f] *= unit, estimate[g * CELLS + f] *= unit;
      mean[f] += estimate[g * CELLS + f] * share;
      mean_noisy[f] += from_noisy[f] * share;
    }
    n->offset[first + g] = at;
    far[g] = 0 < g && g < found ? w->best[g] * scale * scale / CELLS : 0;
  }
  for (int g = 0; g < keep; g += WIDTH) store(far + g, log_of_one_plus(load(far + g)));
  float level = sigma / (float)t->top;
  level = logf(10 * (level > LEAST_SHARE_OF_TOP ? level : LEAST_SHARE_OF_TOP));
  for (int g = 0; g < keep; g++) {
    number *to = n->inputs + (first + g) * INPUTS;
    for (int f = 0; f < CELLS; f += WIDTH) {
      const int at = (first + g) * CELLS + f;
      const vector deviation = 2 * (load(estimate + g * CELLS + f) - load(mean + f));
      store(power + f, load(power + f) + deviation * deviation * share);
      put(to + f, load(n->noisy + at));
      put(to + CELLS + f, 2 * load(n->pilot + at));
      put(to + 2 * CELLS + f, compressed(deviation));
    }
    to[3 * CELLS] = number_of(far[g]);
    to[3 * CELLS + 1] = number_of(level);
  }
  number *to = n->group_inputs + n->groups * INPUTS;
  mean[0] = 0; /* the brightness of the group, which must not matter */
  for (int f = 0; f < CELLS; f += WIDTH) {
    put(to + f, compressed(2 * load(mean + f)));
    put(to + CELLS + f, 2 * load(mean_noisy + f));
    put(to + 2 * CELLS + f, log_of_one_plus(load(power + f)));
  }
  to[3 * CELLS] = number_of(far[keep - 1]);
  to[3 * CELLS + 1] = number_of(level);
  n->sigma[n->groups++] = sigma;
}

/* Layer norm of a row: mean 0 and variance 1 over `width`, scaled and shifted; padding stays 0. The
 * output may be the row. */
static NATIVE_INLINE void normalize(float *out, const float *row, const struct norm *norm,
                                    int width) {
  vector sums = {0}, squares = {0};
  const int whole = width / WIDTH * WIDTH;
  for (int c = 0; c < whole; c += WIDTH) sums += load(row + c);
  float sum = sum_of_lanes(sums);
  for (int c = whole; c < width; c++) sum += row[c];
  const float mean = sum / (float)width;
  for (int c = 0; c < whole; c += WIDTH) {
    const vector from_mean = load(row + c) - mean;
    squares += from_mean * from_mean;
  }
  float square = sum_of_lanes(squares);
  for (int c = whole; c < width; c++) square += (row[c] - mean) * (row[c] - mean);
  const float inverse = 1 / sqrtf(square / (float)width + LAYER_NORM_EPSILON);
  for (int c = 0; c < whole; c += WIDTH)
    store(out + c, (load(row + c) - mean) * inverse * load(norm->scale + c) + load(norm->shift + c));
  for (int c = whole; c < width; c++)
    out[c] = (row[c] - mean) * inverse * norm->scale[c] + norm->shift[c];
}

/* Mixes the blocks of each group, and adds that to their features. */
static void mix_blocks(struct network *n, const struct mixing *m, int tokens, int width) {
  const int keep = n->keep, stride = n->width;
  for (int first = 0; first < tokens; first += keep) {
    for (int g = 0; g < keep; g++)
      normalize(n->normal + g * stride, n->features + (first + g) * stride, &m->norm_of_set, width);
    for (int g = 0; g < keep; g += QUAD)
      for (int c = 0; c < stride; c += WIDTH) {
        vector sums[QUAD] = {{0}};
        for (int k = 0; k < keep; k++) {
          const vector value = load(n->normal + k * stride + c);
          for (int q = 0; q < QUAD; q++) sums[q] += m->mix[(g + q) * keep + k] * value;
        }
        for (int q = 0; q < QUAD && g + q < keep; q++)
          put(n->within + (first + g + q) * stride + c, sums[q]);
      }
  }
  multiply(n->features, n->within, &m->after_mix, padded(tokens), 1);
}

/* Mixes the features of each block. */
static void mix_features(struct network *n, const struct mixing *m, int tokens, int width) {
  for (int i = 0; i < tokens; i++) {
    normalize(n->normal, n->features + i * n->width, &m->norm_of_block, width);
    for (int c = 0; c < n->width; c += WIDTH) put(n->within + i * n->width + c, load(n->normal + c));
  }
  multiply(n->outputs, n->within, &m->up, padded(tokens), 0);
  for (int i = 0; i < tokens * n->hidden; i += WIDTH) put(n->within + i, gelu(load(n->outputs + i)));
  multiply(n->features, n->within, &m->down, padded(tokens), 1);
}

/* Adds the weighted residual of a token to the layer's sums. */
static void add_residual(const struct workspace *w, const struct layer_task *t, int token) {
  const struct network *n = w->network;
  const int group = token / n->keep;
  const float *gains = n->outputs + token * OUTPUTS, *features = n->features + token * n->width;
  const float *noisy = n->noisy + token * CELLS, *pilot = n->pilot + token * CELLS;
  const float *mean = n->mean + group * CELLS;
  const int width = (int)t->width, whole = width / WIDTH * WIDTH;
  vector products = {0};
  for (int c = 0; c < whole; c += WIDTH) products += load(features + c) * load(n->weight_of_block + c);
  float weight = n->weight_of_block[width] + sum_of_lanes(products);
  for (int c = whole; c < width; c++) weight += features[c] * n->weight_of_block[c];
  weight = expf(weight < -MOST_WEIGHT ? -MOST_WEIGHT : weight > MOST_WEIGHT ? MOST_WEIGHT : weight);
  float residual[CELLS], voxels[CELLS];
  for (int f = 0; f < CELLS; f += WIDTH) {
    vector sum = FREE_SHARE * load(gains + f) + load(gains + CELLS + f) * load(noisy + f);
    sum += load(gains + 2 * CELLS + f) * load(pilot + f);
    sum += load(gains + 3 * CELLS + f) * load(mean + f);
    store(residual + f, sum * load(t->changes + f) * load(w->root + f));
  }
  transform(voxels, residual, &n->back);
  const float scale = weight * n->sigma[group];
  const int64_t at = n->offset[token];
  t->weight[at] += weight;
  for (int k = 0; k < SIDE; k++)
    for (int j = 0; j < SIDE; j++) {
      float *to = t->total + at + (k * t->ny + j) * t->nx;
      for (int i = 0, v = (k * SIDE + j) * SIDE; i < SIDE; i++)
        to[i] += voxels[v + i] * t->taper[v + i] * scale;
    }
}

/* Computes the groups that wait. */
static void flush(struct workspace *w, const struct layer_task *t) {
  struct network *n = w->network;
  const int tokens = n->groups * n->keep, width = (int)t->width;
  multiply(n->features, n->inputs, &n->token, padded(tokens), 0);
  multiply(n->group_features, n->group_inputs, &n->group, PAD, 0);
  for (int i = 0; i < tokens; i++) {
    const float *group = n->group_features + i / n->keep * n->width;
    for (int c = 0; c < n->width; c++) n->features[i * n->width + c] += group[c];
  }
  for (int i = 0; i < n->layers; i++) {
    mix_blocks(n, n->mixing + i, tokens, width);
    mix_features(n, n->mixing + i, tokens, width);
  }
  for (int i = 0; i < tokens; i++) {
    float *row = n->features + i * n->width;
    normalize(row, row, &n->norm, width);
    for (int c = 0; c < n->width; c += WIDTH) put(n->within + i * n->width + c, load(row + c));
  }
  multiply(n->outputs, n->within, &n->out, padded(tokens), 0);
  for (int i = 0; i < tokens; i++) add_residual(w, t, i);
  n->groups = 0;
}

static void take_group(struct workspace *w, struct layer_task *t, int found, float sigma) {
  add_inputs(w, t, found, sigma);
  if (w->network->groups == AT_ONCE) flush(w, t);
}

static void fill_tables(struct network *n) {
  for (int f = 0; f < SIDE; f++)
    for (int p = 0; p < SIDE; p++) {
      const double angle = 3.14159265358979323846 / SIDE * f * (p + 0.5);
      const float value = (float)(cos(angle) * sqrt((f ? 2.0 : 1.0) / SIDE));
      n->into.across[p][f] = n->back.across[f][p] = value;
    }
  for (int f = 0; f < PLANE; f++)
    for (int p = 0; p < PLANE; p++)
      n->into.plane[p][f] = n->back.plane[f][p] =
          n->into.across[p / SIDE][f / SIDE] * n->into.across[p % SIDE][f % SIDE];
}

NATIVE_EXPORT int32_t NATIVE_NAME(native_network)(struct layer_task *t) {
  if (!is_stage(t) || !t->weights || !t->changes || !(t->top > 0)) return NATIVE_BAD_ARGUMENT;
  if (t->width < 1 || t->width > 1024 || t->hidden < 1 || t->hidden > 4096) return NATIVE_BAD_ARGUMENT;
  if (t->layers < 0 || t->layers > MOST_LAYERS) return NATIVE_BAD_ARGUMENT;
  struct network counted;
  int64_t read = 0;
  const size_t size = lay_out(&counted, t, NULL, &read);
  if (read != t->weight_count) return NATIVE_BAD_ARGUMENT;
  struct workspace *w = new_workspace();
  char *start = calloc(1, size + 64);
  if (w && start) {
    char *memory = start + (64 - (uintptr_t)start % 64);
    struct network *n = w->network = (struct network *)memory;
    lay_out(n, t, memory, &read);
    fill_tables(n);
    for (int f = 0; f < CELLS; f++) {
      w->root[f] = sqrtf(t->spectrum[f]);
      w->inverse_root[f] = 1 / w->root[f];
    }
    begin_products();
    for_each_group(w, t, take_group);
    if (n->groups) flush(w, t);
    end_products();
  }
  const int32_t status = w && start ? NATIVE_DONE : NATIVE_NO_MEMORY;
  if (w) delete_workspace(w);
  free(start);
  return status;
}
