/* A function for a uretprobe: the kernel swaps its return address for a trampoline while it runs. */
#include <setjmp.h>
#include <stdio.h>

static volatile int sink;
static jmp_buf out;

__attribute__((noinline)) int leaf(int n) { return n + sink; }

__attribute__((noinline)) int work(int n)
{
    sink += leaf(n);
    return n ? work(n - 1) + 1 : sink;
}

__attribute__((noinline)) static void leaves(void)
{
    sink += work(1);
    longjmp(out, 1);
}

int main(void)
{
    for (int i = 0; i < 3; i++)
        sink += work(i);
    if (!setjmp(out))
        leaves();
    sink += work(1);
    puts("done");
    return 0;
}
