/* Which vector widths this library holds and this processor runs. */
#define _DEFAULT_SOURCE /* syscall */
#include "native.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static uint64_t saved_registers(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}

static int has(uint32_t bits, uint32_t all) { return (bits & all) == all; }

/* Asks the system for the registers of AMX, which a process has to do once. */
static int may_use_tiles(void) {
#if defined(__linux__)
  enum { REQUEST = 0x1023, TILES = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA */
  return syscall(SYS_arch_prctl, REQUEST, TILES) == 0;
#else
  return 0;
#endif
}
#endif

/* Bit 0: plain; bit 1: AVX2 with FMA; bit 2: AVX-512 (F, BW, DQ, VL); bit 3: the same with bfloat16
 * (AVX512_BF16) and VNNI; bit 4: and with AMX (Linux). Where usable here. */
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
  const int has_vnni = has(c, 1u << 11);
  const int has_amx = has(d, 1u << 22 | 1u << 24) && (saved & 0x60000) == 0x60000;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return widths;
  if (widths & 4 && has_vnni && has(a, 1u << 5)) widths |= 8;
  if (widths & 8 && has_amx && may_use_tiles()) widths |= 16;
#endif
  return widths;
}
