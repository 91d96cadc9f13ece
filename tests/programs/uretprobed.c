// Recurses DEPTH calls deep (first argument), each call to a function with a symbol and no tail call, says "ready" and waits for ever.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline)) int recurse(int depth) {
  if (depth <= 1) {
    puts("ready");
    fflush(stdout);
    for (;;) pause();
  }
  int below = recurse(depth - 1);
  __asm__ volatile("" ::: "memory");
  return below + 1;
}

int main(int argc, char** argv) { return recurse(argc > 1 ? atoi(argv[1]) : 10) == 0; }
