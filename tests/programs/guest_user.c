// Spins three calls below main for ever: a user stack of known functions. Built without frame pointers, it can only be walked by its tables.
static volatile unsigned long turns;

__attribute__((noinline)) static void spin_inner(unsigned long n) {
  for (unsigned long i = 0; i < n; i++) turns += i;
}

__attribute__((noinline)) static void middle(unsigned long n) {
  for (;;) spin_inner(n);
}

__attribute__((noinline)) static int outer(int n) {
  middle((unsigned long)n * 100000);
  return n + (int)turns;
}

int main(int argc, char** argv) {
  (void)argv;
  return outer(argc);
}
