/* The filter of decoded videos: unicompress/codecs/video/wiener.py has the method and its source.
 * No value exceeds 2^31, so every width gives the same bits. */
#include "native.h"

enum {
  LANES = 32, /* neighboring voxels that are computed together */
  REACH = 3,  /* of taps, to each side in a slice */
  DEPTH = 2,  /* and slices before and after it */
  SLICES = 2 * DEPTH + 1,
  BOX = 2, /* voxels to each side over which activities are summed */
  MOST_CLASSES = 16,
  MOST_TAPS = 26,
  MOST_LIMITS = 3
};

/* As `_FilterTask` in native/video_filter.py. Slices are [height + 6][stride], padded by their edge
 * values by three voxels to each side; columns beyond width + 6 have any values from 0 to 4095. */
struct filter_task {
  int64_t bytes; /* sizeof(struct filter_task) */
  int64_t height, width; /* of a slice, 1 to 2^24 */
  int64_t stride;        /* a multiple of LANES that holds the width, and 6 */
  int64_t classes, taps, limits;
  const int16_t *slices[SLICES]; /* the middle one is filtered; 0 to 4095 */
  const int32_t *bounds;         /* [classes - 1]: least activity of the classes after the first */
  uint8_t *place;                /* [height][stride - 6]: the class of each voxel */
  const int32_t *tap;            /* [taps][3]: slices, rows and columns away, to both sides */
  const int32_t *limit;          /* [limits]: that differences are clipped to, not increasing */
  const int8_t *weight;          /* [taps * limits][classes] */
  int32_t *total;                /* [height][width]: weighted sums */
  int32_t *sums;                 /* [height][stride - 6], twice: room for activities */
};

static int is_valid(const struct filter_task *t) {
  if (!t || t->bytes != (int64_t)sizeof *t) return 0;
  if (t->height < 1 || t->width < 1 || t->height > 1 << 24 || t->width > 1 << 24) return 0;
  if (t->stride < t->width + 2 * REACH || (t->stride - 2 * REACH) % LANES) return 0;
  if (t->classes < 1 || t->classes > MOST_CLASSES || t->taps < 0 || t->taps > MOST_TAPS) return 0;
  if (t->limits < 0 || t->limits > MOST_LIMITS) return 0;
  for (int n = 0; n < SLICES; n++)
    if (!t->slices[n]) return 0;
  return t->place != NULL;
}

static int32_t magnitude(int32_t value) { return value < 0 ? -value : value; }

static int64_t within(int64_t value, int64_t most) {
  return value < 0 ? 0 : value > most ? most : value;
}

/* Sums magnitudes of second differences along three axes over 5 x 5 voxels, and classifies them. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_filter_classes)(const struct filter_task *t) {
  if (!is_valid(t) || !t->bounds || !t->sums) return NATIVE_BAD_ARGUMENT;
  const int64_t wide = t->stride - 2 * REACH, last = t->width - 1;
  int32_t *restrict one = t->sums, *restrict across = t->sums + t->height * wide;
  for (int64_t j = 0; j < t->height; j++) {
    const int64_t at = (j + REACH) * t->stride + REACH;
    const int16_t *restrict m = t->slices[DEPTH] + at;
    const int16_t *restrict up = m - t->stride, *restrict down = m + t->stride;
    const int16_t *restrict before = t->slices[DEPTH - 1] + at;
    const int16_t *restrict after = t->slices[DEPTH + 1] + at;
    int32_t *restrict row = one + j * wide;
    for (int64_t i = 0; i < t->width; i++) {
      const int32_t twice = 2 * m[i];
      row[i] = magnitude(up[i] + down[i] - twice) + magnitude(m[i - 1] + m[i + 1] - twice) +
               magnitude(before[i] + after[i] - twice);
    }
    int32_t *restrict sum = across + j * wide;
    for (int64_t i = 0; i < t->width; i++) {
      if (i == BOX && t->width > 2 * BOX) { /* the middle, where no voxel is repeated */
        for (; i < t->width - BOX; i++)
          sum[i] = row[i - 2] + row[i - 1] + row[i] + row[i + 1] + row[i + 2];
      }
      sum[i] = 0;
      for (int64_t d = -BOX; d <= BOX; d++) sum[i] += row[within(i + d, last)];
    }
  }
  for (int64_t j = 0; j < t->height; j++) {
    const int32_t *restrict rows[2 * BOX + 1];
    for (int64_t d = -BOX; d <= BOX; d++) rows[d + BOX] = across + within(j + d, t->height - 1) * wide;
    uint8_t *restrict place = t->place + j * wide;
    for (int64_t start = 0; start < t->width; start += LANES) {
      int32_t activity[LANES], number[LANES] = {0};
      for (int l = 0; l < LANES; l++)
        activity[l] = rows[0][start + l] + rows[1][start + l] + rows[2][start + l] +
                      rows[3][start + l] + rows[4][start + l];
      for (int64_t c = 0; c < t->classes - 1; c++) {
        const int32_t bound = t->bounds[c];
        for (int l = 0; l < LANES; l++) number[l] += activity[l] >= bound;
      }
      for (int l = 0; l < LANES; l++) place[start + l] = (uint8_t)number[l];
    }
  }
  return NATIVE_DONE;
}

/* Masks the lanes of each class that is present; returns the number of classes. */
static int among(const uint8_t *restrict place, int present[MOST_CLASSES],
                 int16_t mask[MOST_CLASSES][LANES]) {
  uint32_t seen = 0;
  for (int l = 0; l < LANES; l++) seen |= 1u << place[l];
  int count = 0;
  for (int c = 0; c < MOST_CLASSES; c++)
    if (seen >> c & 1) {
      for (int l = 0; l < LANES; l++) mask[count][l] = (int16_t)(place[l] == c ? -1 : 0);
      present[count++] = c;
    }
  return count;
}

typedef int16_t shorts __attribute__((vector_size(4 * WIDTH)));

/* Adds a term, weighted by the class of each voxel. */
static NATIVE_INLINE void add_term(int32_t *restrict total, const int16_t *restrict term,
                                   const int8_t *restrict weight, int count,
                                   const int present[MOST_CLASSES],
                                   int16_t mask[MOST_CLASSES][LANES]) {
  int16_t weights[LANES];
  for (int l = 0; l < LANES; l += 2 * WIDTH) {
    shorts all = {0}, lanes;
    for (int n = 0; n < count; n++) {
      memcpy(&lanes, mask[n] + l, sizeof lanes);
      all |= lanes & (int16_t)weight[present[n]];
    }
    memcpy(weights + l, &all, sizeof all);
  }
  for (int l = 0; l < LANES; l++) total[l] += (int32_t)term[l] * weights[l];
}

/* Sums, over taps and limits, clipped differences of both sides to the middle, weighted by class. */
NATIVE_EXPORT int32_t NATIVE_NAME(native_filter_sums)(const struct filter_task *t) {
  if (!is_valid(t) || !t->tap || !t->limit || !t->weight || !t->total) return NATIVE_BAD_ARGUMENT;
  for (int64_t n = 0; n < t->taps; n++) {
    const int32_t *tap = t->tap + 3 * n;
    if (magnitude(tap[0]) > DEPTH || magnitude(tap[1]) > REACH || magnitude(tap[2]) > REACH)
      return NATIVE_BAD_ARGUMENT;
  }
  const int64_t wide = t->stride - 2 * REACH;
  for (int64_t j = 0; j < t->height; j++)
    for (int64_t start = 0; start < t->width; start += LANES) {
      const uint8_t *place = t->place + j * wide + start;
      const int64_t at = (j + REACH) * t->stride + REACH + start;
      int present[MOST_CLASSES];
      int16_t mask[MOST_CLASSES][LANES], middle[LANES];
      int32_t total[LANES] = {0};
      const int count = among(place, present, mask);
      memcpy(middle, t->slices[DEPTH] + at, sizeof middle);
      const int8_t *weight = t->weight;
      for (int64_t n = 0; n < t->taps; n++) {
        const int32_t *tap = t->tap + 3 * n;
        const int64_t away = tap[1] * t->stride + tap[2];
        const int16_t *restrict a = t->slices[DEPTH + tap[0]] + at + away;
        const int16_t *restrict b = t->slices[DEPTH - tap[0]] + at - away;
        int16_t left[LANES], right[LANES], term[LANES];
        for (int l = 0; l < LANES; l++) left[l] = (int16_t)(a[l] - middle[l]);
        for (int l = 0; l < LANES; l++) right[l] = (int16_t)(b[l] - middle[l]);
        for (int64_t cut = 0; cut < t->limits; cut++, weight += t->classes) {
          const int16_t high = (int16_t)t->limit[cut], low = (int16_t)-high;
          for (int l = 0; l < LANES; l++) {
            const int16_t first = left[l] > high ? high : left[l] < low ? low : left[l];
            const int16_t second = right[l] > high ? high : right[l] < low ? low : right[l];
            term[l] = (int16_t)(first + second);
          }
          add_term(total, term, weight, count, present, mask);
        }
      }
      const int64_t rest = t->width - start;
      memcpy(t->total + j * t->width + start, total, sizeof *total * (rest < LANES ? rest : LANES));
    }
  return NATIVE_DONE;
}
