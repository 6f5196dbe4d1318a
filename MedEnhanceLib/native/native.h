/* What all compiled parts share. Portable C11; where a part uses more, it has a plain form too.
 *
 * A part is compiled once for each vector width, with NATIVE_WIDTH as the end of its names. Loops
 * run over arrays of fixed size, which compilers turn into vector instructions. Every width gives
 * the same bits: sums have one fixed order and nothing is contracted (-ffp-contract=off), or all
 * sums are exact.
 */
#ifndef MEDENHANCE_NATIVE_H
#define MEDENHANCE_NATIVE_H

#include <stdint.h>

#if defined(_WIN32)
#define NATIVE_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define NATIVE_EXPORT __attribute__((visibility("default")))
#else
#define NATIVE_EXPORT
#endif

/* Into each caller, whose sizes it then knows: compilers think such functions too long for that. */
#if defined(__GNUC__)
#define NATIVE_INLINE inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define NATIVE_INLINE __forceinline
#else
#define NATIVE_INLINE inline
#endif

#ifndef NATIVE_WIDTH
#define NATIVE_WIDTH plain
#endif
#define NATIVE_JOIN_(name, width) name##_##width
#define NATIVE_JOIN(name, width) NATIVE_JOIN_(name, width)
#define NATIVE_NAME(name) NATIVE_JOIN(name, NATIVE_WIDTH)

enum native_status { NATIVE_DONE = 0, NATIVE_BAD_ARGUMENT = 1, NATIVE_NO_MEMORY = 2, NATIVE_BAD_STREAM = 3 };

#endif
