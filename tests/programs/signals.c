// Counts the real-time signals it gets while it computes; prints the count for each line on its standard input and ends with that input.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t count;

static void handler(int signal) {
  (void)signal;
  count++;
}

int main(void) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  sigaction(SIGRTMIN, &action, NULL);
  puts("ready");
  fflush(stdout);
  for (char c; read(0, &c, 1) == 1;)
    if (c == '\n') {
      printf("%d\n", (int)count);
      fflush(stdout);
    }
}
