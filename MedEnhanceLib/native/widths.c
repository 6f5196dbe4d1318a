/* Which vector widths this library holds and this processor runs. */
#include "native.h"

#if defined(__x86_64__) || defined(_M_X64)
#define IS_X86_64 1
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
static void cpuid(uint32_t leaf, uint32_t r[4]) { __cpuidex((int *)r, (int)leaf, 0); }
static uint64_t saved_registers(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
static void cpuid(uint32_t leaf, uint32_t r[4]) {
  if (!__get_cpuid_count(leaf, 0, &r[0], &r[1], &r[2], &r[3])) r[0] = r[1] = r[2] = r[3] = 0;
}
static uint64_t saved_registers(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}
#endif
#endif

/* Bit 0: plain; bit 1: AVX2 with FMA; bit 2: AVX-512 (F, BW, DQ, VL), where built in and usable here. */
NATIVE_EXPORT int32_t native_widths(void) {
  int32_t widths = 1;
#ifdef IS_X86_64
  uint32_t r[4];
  cpuid(1, r);
  if (!((r[2] >> 27) & 1)) return widths; /* the system saves no wide registers */
  const uint32_t has_fma = (r[2] >> 12) & 1;
  const uint64_t saved = saved_registers();
  cpuid(7, r);
  const uint32_t all_512 = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);
#ifdef NATIVE_HAS_AVX2
  if ((saved & 0x06) == 0x06 && ((r[1] >> 5) & 1) && has_fma) widths |= 2;
#endif
#ifdef NATIVE_HAS_AVX512
  if ((saved & 0xe6) == 0xe6 && (r[1] & all_512) == all_512) widths |= 4;
#endif
  (void)saved;
  (void)has_fma;
  (void)all_512;
#endif
  return widths;
}
