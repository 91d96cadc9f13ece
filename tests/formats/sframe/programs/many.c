/* Prologues of many shapes: frame pointers, DRAP, alloca, large frames, cold paths, handlers. */
#include <alloca.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int wide __attribute__((vector_size(32)));
static volatile int sink;

__attribute__((noinline)) int realigned(int n) {
    wide a = {n};
    volatile wide b __attribute__((aligned(64))) = a;
    char *p = alloca(n);
    memset(p, 1, n);
    return b[0] + p[n - 1];
}
__attribute__((noinline)) int large(int n) {
    volatile char buffer[70000];
    buffer[n] = 1;
    return buffer[n] + sink;
}
__attribute__((noinline, cold)) void die(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}
__attribute__((noinline)) int recursion(int n) { return n == 0 ? realigned(3) + large(5) : recursion(n - 1) + 1; }
__attribute__((noinline)) double saves(double x, int n, int a, int b, int c, int d, int e, int f) {
    double total = x;
    for (int i = 0; i < n; i++) {
        total += a * b + sink;
        sink += c * d - e * f;
        if (sink == 123456789) die("no");
    }
    return total;
}
static void handler(int number) { sink += number; }
static jmp_buf place;
__attribute__((noinline)) void leaves(int n) {
    if (n == 0) longjmp(place, 1);
    leaves(n - 1);
    sink++;
}
int main(int argc, char **argv) {
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
    if (!setjmp(place)) leaves(argc + 3);
    printf("%d %f\n", recursion(argc + 9), saves(1.0, argc + 3, 1, 2, 3, 4, 5, argc));
    return 0;
}
