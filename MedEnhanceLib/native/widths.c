/* Which vector widths this library holds and this processor runs. */
#include "native.h"

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t saved_registers(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}

static int has(uint32_t bits, uint32_t all) { return (bits & all) == all; }
#endif

/* Bit 0: plain; bit 1: AVX2 with FMA; bit 2: AVX-512 (F, BW, DQ, VL). Where usable here. */
NATIVE_EXPORT int32_t native_widths(void) {
  int32_t widths = 1;
#if defined(__x86_64__)
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, 1u << 27)) return widths; /* OSXSAVE */
  const int has_fma = has(c, 1u << 12);
  const uint64_t saved = saved_registers();
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return widths;
  if ((saved & 0x06) == 0x06 && has(b, 1u << 5) && has_fma) widths |= 2;
  if ((saved & 0xe6) == 0xe6 && has(b, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31)) widths |= 4;
#endif
  return widths;
}
