/* dlopen, calls into the library and back, dlclose; the library's path is the argument. */
#include <dlfcn.h>
#include <stdio.h>

static volatile int sink;

__attribute__((noinline)) static int back(int n) { return n + sink; }

int main(int argc, char **argv)
{
    for (int i = 0; i < 2 && argc > 1; i++) {
        void *library = dlopen(argv[1], i ? RTLD_NOW : RTLD_LAZY);
        int (*plugin)(int (*)(int), int) = (int (*)(int (*)(int), int))dlsym(library, "plugin");
        sink += plugin(back, 3);
        dlclose(library);
    }
    sink += dlopen("/nonexistent", RTLD_NOW) != NULL;
    puts("done");
    return 0;
}
