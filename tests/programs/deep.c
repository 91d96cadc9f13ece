// Recurses DEPTH calls deep (first argument, 100 without it), says "ready" and waits for ever; with "spin" as second argument it spins there.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int spin;
static volatile unsigned long turns;

__attribute__((noinline)) static void innermost(void) {
  puts("ready");
  fflush(stdout);
  while (spin) turns++;
  for (;;) pause();
}

__attribute__((noinline)) int recurse(int depth) {
  if (depth <= 1)
    innermost();
  else
    recurse(depth - 1);
  __asm__ volatile("" ::: "memory");  // keeps the call above from becoming a jump
  return depth;
}

int main(int argc, char** argv) {
  spin = argc > 2 && !strcmp(argv[2], "spin");
  return recurse(argc > 1 ? atoi(argv[1]) : 100);
}
