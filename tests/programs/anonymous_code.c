// Copies an endless loop into anonymous memory and runs it there, as a just-in-time compiler does.
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int main(void) {
  static const unsigned char loop[] = {0xeb, 0xfe};  // 1: jmp 1b
  void* code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return 1;
  memcpy(code, loop, sizeof loop);
  puts("ready");
  fflush(stdout);
  ((void (*)(void))code)();
}
