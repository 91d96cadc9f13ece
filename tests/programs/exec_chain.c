// Calls getppid() below a frame of a size that -DPAD=N gives, then becomes the program of its argument, which becomes this one again.
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((noinline)) static void call(void) {
  volatile char pad[PAD];
  pad[0] = 1;
  syscall(SYS_getppid);
  pad[0] = 2;
}

int main(int argc, char** argv) {
  char* next[] = {argv[1], argv[0], "again", NULL};
  if (argc == 2) {
    puts("ready");
    fflush(stdout);
    usleep(200000);
  }
  call();
  return execv(argv[1], next);
}
