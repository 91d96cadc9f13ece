// Waits in read() below some functions: one that is inlined everywhere, one with two names, one that code without unwind data called
// (with "bare" as first argument). At the end of its input it leaves them and waits in pause().
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

__attribute__((noinline)) void never_called(void) { puts("never"); }

static inline __attribute__((always_inline)) void inlined_everywhere(void) {
  char line[8];
  while (read(0, line, sizeof line) > 0) __asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) void waiting(void) {
  inlined_everywhere();
  __asm__ volatile("" ::: "memory");
}

void other_name(void) __attribute__((alias("waiting")));

__attribute__((noinline)) static void* worker(void* argument) {
  for (;;) pause();
  return argument;
}

// No .cfi directives: a stack cannot be unwound through it.
__asm__(".text\n.globl bare\n.type bare, @function\nbare: sub $24, %rsp\n call waiting\n add $24, %rsp\n ret\n.size bare, . - bare\n");
void bare(void);

int main(int argc, char** argv) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, worker, NULL)) return 1;
  puts("ready");
  fflush(stdout);
  if (argc > 1 && !strcmp(argv[1], "bare"))
    bare();
  else
    waiting();
  if (argc > 2) never_called();
  for (;;) pause();
}
