// Functions whose frames hold over-aligned vectors and memory of a size that is known at run time: GCC realigns the stack and finds the
// caller's frame through another register (DRAP).
#include <alloca.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef double vector __attribute__((vector_size(32)));

static volatile vector sink;

__attribute__((noinline)) static void wait_here(void) {
  puts("ready");
  fflush(stdout);
  for (;;) pause();
}

__attribute__((noinline)) void aligned_only(int depth);

__attribute__((noinline)) void aligned_and_alloca(int depth, int a, int b, int c, int d, int e, int on_the_stack) {
  _Alignas(64) char room[128];
  vector values = {depth, a, b, c};
  char* more = alloca(depth * 24 + 1);
  memset(room, depth, sizeof room);
  memset(more, depth, depth * 24 + 1);
  if (depth > 0)
    aligned_only(depth - 1);
  else
    wait_here();
  sink = values * (vector){more[0], room[d & 63], e, on_the_stack};
}

__attribute__((noinline)) void aligned_only(int depth) {
  _Alignas(32) vector values = {depth, 1, 2, 3};
  sink = values;
  aligned_and_alloca(depth, 1, 2, 3, 4, 5, 6);
  sink = values + 1.0;
}

int main(int argc, char** argv) {
  aligned_only(argc > 1 ? atoi(argv[1]) : 10);
  return 0;
}
