// Two libraries of equal size that take each other's place, and a program that runs both in turn; their code at one address needs different
// unwind rules. A walk that used a rule of the one in the other would find frames that are not there.
//   gcc -shared -fPIC -DLETTER=a -DROOM=48  remapped.c -o a.so      functions work_a > spin_a
//   gcc -shared -fPIC -DLETTER=b -DROOM=720 remapped.c -o b.so      functions work_b > spin_b
//   gcc -DPROGRAM remapped.c -o remapped                            remapped dlopen|mmap CPU_SECONDS a.so b.so
//   gcc -DLETTER=a -DROOM=48 -DALONE remapped.c -o a                main > work_a > spin_a, then exec of its argument; for ever shorter CPU time
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PASTE(name, letter) name##_##letter
#define NAMED(name, letter) PASTE(name, letter)

#ifndef PROGRAM

// Without calls into other files, so that a library that was mapped by hand, and never relocated, runs too.
__attribute__((noinline)) unsigned long NAMED(spin, LETTER)(unsigned long rounds) {
    volatile char room[ROOM];
    unsigned long sum = rounds;
    for (unsigned long i = 0; i < rounds; i++) {
        room[i % ROOM] = (char)i;
        sum += sum * 31 + (unsigned char)room[sum % ROOM];
    }
    return sum;
}

__attribute__((noinline)) unsigned long NAMED(work, LETTER)(unsigned long rounds) {
    volatile char room[ROOM * 3];
    room[rounds % sizeof(room)] = 1;
    return NAMED(spin, LETTER)(rounds) + (unsigned char)room[1];
}

#endif

#ifdef ALONE

// main of a program: argv[1] is how many programs of the chain are still to come, argv[2] the next one, argv[3] the one after it.
int main(int argc, char **argv) {
    volatile unsigned long sum = NAMED(work, LETTER)(400000);
    int left = argc > 3 ? atoi(argv[1]) - 1 : 0;
    if (left > 0) {
        char count[16];
        snprintf(count, sizeof(count), "%d", left);
        // Every other program of the chain is a child's: fork and exec take turns.
        if (left % 2) {
            execl(argv[2], argv[2], count, argv[3], argv[2], NULL);
            return 1;
        }
        pid_t child = fork();
        if (child == 0) {
            execl(argv[2], argv[2], count, argv[3], argv[2], NULL);
            _exit(1);
        }
        waitpid(child, NULL, 0);
    }
    return sum == 1;
}

#endif

#ifdef PROGRAM

typedef unsigned long work(unsigned long rounds);

static double budget;
static int runs;

static int is_over(void) {
    return (double)clock() / CLOCKS_PER_SEC >= budget;
}

__attribute__((noinline)) static unsigned long calling_a(work *function) {
    return function(200000) + 1;
}

__attribute__((noinline)) static unsigned long calling_b(work *function) {
    return function(200000) + 2;
}

static unsigned long by_dlopen(char **paths) {
    unsigned long sum = 0;
    while (!is_over()) {
        for (int i = 0; i < 2; i++) {
            void *library = dlopen(paths[i], RTLD_NOW);
            work *function = (work *)dlsym(library, i ? "work_b" : "work_a");
            sum += i ? calling_b(function) : calling_a(function);
            dlclose(library);
            runs++;
        }
    }
    return sum;
}

// Where a function of a library lies, counted from the library's start.
static unsigned long distance(const char *path, const char *name) {
    void *library = dlopen(path, RTLD_NOW);
    Dl_info info = {0};
    void *address = dlsym(library, name);
    dladdr(address, &info);
    unsigned long distance = (unsigned long)address - (unsigned long)info.dli_fbase;
    dlclose(library);
    return distance;
}

// Each library's whole file at one fixed address, readable and executable: both are linked so that file offsets and addresses are the same.
static unsigned long by_mmap(char **paths) {
    char *place = (char *)0x10000000000;
    unsigned long starts[2] = {distance(paths[0], "work_a"), distance(paths[1], "work_b")};
    int files[2] = {open(paths[0], O_RDONLY), open(paths[1], O_RDONLY)};
    unsigned long sum = 0;
    while (!is_over()) {
        for (int i = 0; i < 2; i++) {
            struct stat status;
            fstat(files[i], &status);
            char *image = mmap(place, (size_t)status.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, files[i], 0);
            work *function = (work *)(image + starts[i]);
            sum += i ? calling_b(function) : calling_a(function);
            if (runs % 3 == 0) munmap(image, (size_t)status.st_size);
            runs++;
        }
    }
    return sum;
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    budget = atof(argv[2]);
    unsigned long sum = strcmp(argv[1], "mmap") ? by_dlopen(argv + 3) : by_mmap(argv + 3);
    printf("%d %s\n", runs, sum ? "done" : "nothing");
    return 0;
}

#endif
