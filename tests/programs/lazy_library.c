// A function that is chosen when it is first called: the choice waits, below the dynamic linker's lazy resolver.
#include <stdio.h>
#include <unistd.h>

static int chosen(int number) { return number + 1; }

__attribute__((noinline)) static void wait_here(void) {
  puts("ready");
  fflush(stdout);
  for (;;) pause();
}

static int (*choose(void))(int) {
  // In a program that binds at once there is no output stream yet, and nothing to wait for.
  wait_here();
  return chosen;
}

int chosen_late(int number) __attribute__((ifunc("choose")));
