// Waits uninterruptibly for the child of a vfork, which says "ready" and ends with its standard input; then waits in pause().
#define _GNU_SOURCE
#include <unistd.h>

int main(void) {
  if (vfork() == 0) {
    char line[8];
    if (write(1, "ready\n", 6) != 6) _exit(1);
    while (read(0, line, sizeof line) > 0) {
    }
    _exit(0);
  }
  for (;;) pause();
}
