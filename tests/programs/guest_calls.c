// Makes system calls for ever, three calls below main: mostly a kernel stack above a user stack of known functions, without frame pointers.
#include <fcntl.h>
#include <unistd.h>

static volatile unsigned long turns;

__attribute__((noinline)) static void read_all(const char* path) {
  char data[256];
  int file = open(path, O_RDONLY);
  while (file >= 0 && read(file, data, sizeof data) > 0) turns++;
  close(file);
}

__attribute__((noinline)) static void one_turn(void) {
  read_all("/proc/self/maps");
  read_all("/proc/meminfo");
  turns++;
}

__attribute__((noinline)) static int work(int n) {
  for (;;) one_turn();
  return n + (int)turns;
}

int main(int argc, char** argv) {
  (void)argv;
  return work(argc);
}
