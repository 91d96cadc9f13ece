/* Children that run in their parent's memory on a stack of their own until they call execve: posix_spawn (from several threads), popen and
 * system, clone with stacks of several kinds; vfork, whose child has no stack of its own; and assembly in a child or a thread that hides its caller. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK 65536
#define SHARED_UNTIL_EXEC (CLONE_VM | CLONE_VFORK | SIGCHLD)

static volatile int sink;

/* Says that it has no caller, and has one. */
int liar(int (*function)(int), int argument);
__asm__(".text\n"
        ".type liar, @function\n"
        "liar:\n"
        ".cfi_startproc\n"
        ".cfi_undefined rip\n"
        "	subq $8, %rsp\n"
        ".cfi_adjust_cfa_offset 8\n"
        "	movq %rdi, %rax\n"
        "	movl %esi, %edi\n"
        "	call *%rax\n"
        "	addq $8, %rsp\n"
        ".cfi_adjust_cfa_offset -8\n"
        "	ret\n"
        ".cfi_endproc\n"
        ".size liar, . - liar\n");

/* clone by hand: int by_hand(long flags, void *stack, int (*function)(void *)); no row holds its child's first instructions. */
int by_hand(long flags, void *stack, int (*function)(void *));
__asm__(".text\n"
        ".type by_hand, @function\n"
        "by_hand:\n"
        ".cfi_startproc\n"
        "	movq %rdx, %r9\n"
        "	xorl %edx, %edx\n"
        "	xorl %r10d, %r10d\n"
        "	xorl %r8d, %r8d\n"
        "	movl $56, %eax\n"
        ".cfi_endproc\n"
        "	syscall\n"
        "	testq %rax, %rax\n"
        "	jz 1f\n"
        "	ret\n"
        "1:\n"
        ".cfi_startproc\n"
        ".cfi_undefined rip\n"
        "	xorl %ebp, %ebp\n"
        "	call *%r9\n"
        "	movl %eax, %edi\n"
        "	movl $60, %eax\n"
        "	syscall\n"
        ".cfi_endproc\n"
        ".size by_hand, . - by_hand\n");

__attribute__((noinline)) static int deep(int depth)
{
    volatile int own = depth;
    return depth ? deep(depth - 1) + own : own;
}

static void handler(int number)
{
    sink += number + deep(1);
}

static int child(void *argument)
{
    (void)argument;
    sink += deep(3);
    sink += liar(deep, 2);
    return 0;
}

static int child_with_signal(void *argument)
{
    raise(SIGUSR1);
    return child(argument);
}

static int child_with_child(void *argument)
{
    char *arguments[] = {"true", NULL};
    pid_t pid;
    if (!posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ))
        waitpid(pid, NULL, 0);
    return child(argument);
}

static void wait_for(pid_t pid)
{
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

/* Stacks: a mapping of its own, a part of the heap, a part of the creator's own frame. */
__attribute__((noinline)) static void clones(int (*function)(void *))
{
    char own[STACK] __attribute__((aligned(16)));
    char *heap = malloc(STACK);
    char *mapping = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    wait_for(clone(function, mapping + STACK, SHARED_UNTIL_EXEC, NULL));
    wait_for(clone(function, heap + STACK - 24, SHARED_UNTIL_EXEC, NULL));
    wait_for(clone(function, own + STACK, SHARED_UNTIL_EXEC, NULL));
    wait_for(by_hand(SHARED_UNTIL_EXEC, mapping + STACK, function));
    wait_for(by_hand(SHARED_UNTIL_EXEC, own + STACK, function));
    munmap(mapping, STACK);
    free(heap);
    sink += own[STACK - 1];
}

static void spawn(const char *path)
{
    char *arguments[] = {"true", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t pid;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", 0, 0);
    posix_spawn_file_actions_adddup2(&actions, 0, 5);
    posix_spawn_file_actions_addclose(&actions, 5);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setsigmask(&attributes, &none);
    if (!posix_spawnp(&pid, path, &actions, &attributes, arguments, environ))
        waitpid(pid, NULL, 0);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
}

static void *worker(void *argument)
{
    for (int i = 0; i < 3; i++)
        spawn(argument);
    clones(child);
    sink += liar(deep, 2);
    return NULL;
}

int main(void)
{
    pthread_t threads[3];
    signal(SIGUSR1, handler);
    spawn("true");
    spawn("no such program");
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, worker, "true");
    clones(child);
    clones(child_with_signal);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    clones(child_with_child);
    sink += system("true");
    FILE *from = popen("true", "r");
    if (from)
        pclose(from);
    pid_t pid = vfork();
    if (!pid) {
        sink += deep(2);
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    wait_for(pid);
    puts("done");
    return 0;
}
