/* Shared by all compiled parts: C11 with attributes and vectors of GCC and clang.
 *
 * A part is compiled once for each vector width, with NATIVE_WIDTH as the end of its names. Loops
 * run over arrays of fixed size, which compilers turn into vector instructions. Sums have one fixed
 * order at every width; where all are exact, every width gives the same bits. In the filter, widths
 * that fuse multiplications with additions (all but "plain" on x86) give the same bits.
 */
#ifndef MEDENHANCE_NATIVE_H
#define MEDENHANCE_NATIVE_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(_WIN32)
#define NATIVE_EXPORT __declspec(dllexport)
#else
#define NATIVE_EXPORT __attribute__((visibility("default")))
#endif

/* Inlined into each caller, where sizes are constants: compilers find such functions too long. */
#define NATIVE_INLINE inline __attribute__((always_inline))

#define NATIVE_JOIN_(name, width) name##_##width
#define NATIVE_JOIN(name, width) NATIVE_JOIN_(name, width)
#define NATIVE_NAME(name) NATIVE_JOIN(name, NATIVE_WIDTH)

/* As many floats as a register holds. Compilers keep sums in registers where they have this type. */
#if defined(__AVX512F__)
enum { WIDTH = 16 };
#elif defined(__AVX__)
enum { WIDTH = 8 };
#else
enum { WIDTH = 4 };
#endif
typedef float vector __attribute__((vector_size(4 * WIDTH)));
typedef int32_t integers __attribute__((vector_size(4 * WIDTH))); /* comparisons: -1 where true */

/* Four values of two vectors of four, by their numbers, 0 to 7. */
#if defined(__clang__)
#define NATIVE_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define NATIVE_SHUFFLE(a, b, i, j, k, l) \
  __builtin_shuffle(a, b, (int32_t __attribute__((vector_size(16)))){i, j, k, l})
#endif

static NATIVE_INLINE vector load(const float *from) {
  vector values;
  memcpy(&values, from, sizeof values);
  return values;
}

static NATIVE_INLINE void store(float *to, vector values) { memcpy(to, &values, sizeof values); }

/* Whether a lane is not 0; all its bits are 1, then. */
static NATIVE_INLINE int is_any(integers lanes) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)lanes, (__m512i)lanes) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps((__m256)lanes) != 0;
#else
  int32_t any = 0;
  for (int l = 0; l < WIDTH; l++) any |= lanes[l];
  return any != 0;
#endif
}

enum native_status { NATIVE_DONE = 0, NATIVE_BAD_ARGUMENT = 1, NATIVE_NO_MEMORY = 2, NATIVE_BAD_STREAM = 3 };

#endif
