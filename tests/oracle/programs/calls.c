/* Plain calls in all their shapes: recursion, tail calls, variable frames, over-aligned frames, callbacks from libc, varargs, longjmp. */
#include <alloca.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP __attribute__((noinline))

static volatile int sink;
static jmp_buf out;

KEEP int leaf(int a) { return a * 3 + sink; }
KEEP int middle(int a) { return leaf(a) + leaf(a + 1); }
KEEP int tail(int a) { return middle(a + 2); }
KEEP int recursive(int n) { return n ? recursive(n - 1) + leaf(n) : middle(1); }
KEEP int even(int n);
KEEP int odd(int n) { return n ? even(n - 1) : 0; }
KEEP int even(int n) { return n ? odd(n - 1) : leaf(4); }

KEEP int with_alloca(int n)
{
    char *p = alloca((size_t)n);
    memset(p, n, (size_t)n);
    return middle(p[n / 2]);
}

KEEP int with_vla(int n)
{
    int v[n];
    for (int i = 0; i < n; i++)
        v[i] = leaf(i);
    return v[n - 1] + middle(n);
}

KEEP int aligned(int n)
{
    _Alignas(64) char block[128];
    memset(block, n, sizeof block);
    char *p = alloca((size_t)n);
    p[0] = block[5];
    return middle(p[0]) + (int)((uintptr_t)block & 63);
}

KEEP int many(int a, int b, int c, int d, int e, int f, int g, int h) { return leaf(a + b + c + d) + leaf(e + f + g + h); }

KEEP int sum(int n, ...)
{
    va_list list;
    int total = 0;
    va_start(list, n);
    while (n--)
        total += leaf(va_arg(list, int));
    va_end(list);
    return total;
}

KEEP double floating(double x) { return x > 1 ? floating(x / 2) * 1.5 + leaf((int)x) : x; }
static int compare(const void *a, const void *b) { return leaf(*(const int *)a) - leaf(*(const int *)b); }
KEEP int sorted(void)
{
    int v[] = {5, 2, 9, 1, 7, 3};
    qsort(v, 6, sizeof *v, compare);
    return v[0];
}

KEEP void deep_jump(int n)
{
    if (!n)
        longjmp(out, 1);
    deep_jump(n - 1);
    sink++;
}

KEEP int jumps(void)
{
    int volatile tries = 0;
    if (setjmp(out) == 0 || tries < 2) {
        tries++;
        deep_jump(5);
    }
    return tries;
}

KEEP int large(int n)
{
    char volatile block[20000];
    block[n] = 1;
    return middle(n) + block[n];
}

KEEP int switched(int n)
{
    switch (n) {
    case 0: return leaf(1);
    case 1: return middle(2);
    case 2: return tail(3);
    case 3: return many(1, 2, 3, 4, 5, 6, 7, 8);
    case 4: return sum(3, 1, 2, 3);
    default: return recursive(n);
    }
}

static int (*volatile pointer)(int) = switched;

static void at_end(void) { sink += middle(3); }

__attribute__((constructor)) static void early(void) { sink += recursive(2); }
__attribute__((destructor)) static void late(void) { sink += recursive(2); }

KEEP static void last(int code)
{
    sink += leaf(code);
    exit(0);
}

int main(void)
{
    atexit(at_end);
    for (int i = 0; i < 7; i++)
        sink += pointer(i);
    sink += tail(1) + even(6) + with_alloca(100) + with_vla(5) + aligned(32) + sorted() + jumps() + large(7);
    sink += (int)floating(9.0);
    char text[64];
    snprintf(text, sizeof text, "%d %s %.3f", sink, "words", 1.5);
    sink += (int)strtol(text, NULL, 10);
    free(malloc(100000));
    puts(text);
    last(1);
}
