// Unmaps its own unwind data and spins below DEPTH calls (first argument): nobody can unwind it any more, and nobody must try for ever.
#define _GNU_SOURCE
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static int unmap(struct dl_phdr_info* info, size_t size, void* unused) {
  (void)size, (void)unused;
  if (info->dlpi_name[0]) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME) {
      unsigned long at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
      munmap((void*)(at & ~4095ul), (at & 4095) + info->dlpi_phdr[i].p_memsz);
    }
  return 1;
}

__attribute__((noinline)) int recurse(int depth) {
  if (depth <= 1)
    for (;;) __asm__ volatile("" ::: "memory");
  int below = recurse(depth - 1);
  __asm__ volatile("" ::: "memory");
  return below + 1;
}

int main(int argc, char** argv) {
  int depth = argc > 1 ? atoi(argv[1]) : 10;
  puts("ready");
  fflush(stdout);
  dl_iterate_phdr(unmap, NULL);
  return recurse(depth) == 0;
}
