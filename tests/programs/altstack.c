// A signal arrives deep in a computation; its handler runs on an alternate stack, a second signal interrupts that handler, and there it waits.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline)) static void wait_here(void) {
  puts("ready");
  fflush(stdout);
  for (;;) pause();
}

static void second(int signal) {
  (void)signal;
  wait_here();
}

__attribute__((noinline)) static void between(void) {
  kill(getpid(), SIGUSR2);
  __asm__ volatile("" ::: "memory");
}

static void first(int signal) {
  (void)signal;
  between();
  __asm__ volatile("" ::: "memory");
}

static volatile int* nowhere;

__attribute__((noinline)) int faulting(int depth) {
  // A fault interrupts an instruction that is no call: the frame's address is exact.
  int result = depth > 0 ? faulting(depth - 1) : *nowhere;
  __asm__ volatile("" ::: "memory");
  return result + 1;
}

int main(void) {
  static char room[1 << 16];
  stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
  sigaltstack(&stack, NULL);
  struct sigaction action = {.sa_handler = first, .sa_flags = SA_ONSTACK};
  sigaction(SIGSEGV, &action, NULL);
  action.sa_handler = second;
  sigaction(SIGUSR2, &action, NULL);
  return faulting(20);
}
