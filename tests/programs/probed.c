// Waits for a line, then calls `probed`, which says "inside" and waits for ever: time to put a return probe on it before it is called.
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) void probed(void) {
  puts("inside");
  fflush(stdout);
  for (;;) pause();
}

__attribute__((noinline)) void caller(void) {
  probed();
  __asm__ volatile("" ::: "memory");
}

int main(void) {
  char line[8];
  puts("ready");
  fflush(stdout);
  if (read(0, line, sizeof line) > 0) caller();
  return 0;
}
