// Calls a function of lazy_library.c through the PLT for the first time. Build with -Wl,-z,lazy.
int chosen_late(int number);

__attribute__((noinline)) int caller(int number) { return chosen_late(number) * 2; }

int main(void) { return caller(20); }
