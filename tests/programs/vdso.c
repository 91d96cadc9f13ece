// Asks the vDSO for the time, for ever.
#include <stdio.h>
#include <time.h>

static volatile long sum;

__attribute__((noinline)) static void ask(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  sum += now.tv_nsec;
}

int main(void) {
  puts("ready");
  fflush(stdout);
  for (;;) ask();
}
