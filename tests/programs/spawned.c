/* A child in its parent's memory, on a stack of its own, that waits for a FIFO to be opened before it calls execve.
 *
 *     spawned HOW FIFO     spawn, thread (posix_spawn from another thread), clone, liar (clone, and assembly that hides its caller)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK 65536

static const char *fifo;

__attribute__((noinline)) int waits(void)
{
    return open(fifo, O_RDONLY) + 1;
}

/* Says that it has no caller, and has one. */
int liar(void);
__asm__(".text\n"
        ".globl liar\n"
        ".type liar, @function\n"
        "liar:\n"
        ".cfi_startproc\n"
        ".cfi_undefined rip\n"
        "	subq $8, %rsp\n"
        ".cfi_adjust_cfa_offset 8\n"
        "	call waits\n"
        "	addq $8, %rsp\n"
        ".cfi_adjust_cfa_offset -8\n"
        "	ret\n"
        ".cfi_endproc\n"
        ".size liar, . - liar\n");

static int child(void *how)
{
    return strcmp(how, "liar") ? waits() : liar();
}

static void *spawn(void *argument)
{
    char *arguments[] = {"true", NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, fifo, O_RDONLY, 0);
    if (!posix_spawn(&pid, "/bin/true", &actions, NULL, arguments, environ))
        waitpid(pid, NULL, 0);
    return argument;
}

int main(int count, char **words)
{
    const char *how = count > 2 ? words[1] : "";
    pthread_t thread;
    fifo = count > 2 ? words[2] : "";
    puts("ready");
    fflush(stdout);
    if (!strcmp(how, "spawn"))
        return spawn(NULL) != NULL;
    if (!strcmp(how, "thread"))
        return pthread_create(&thread, NULL, spawn, NULL) || pthread_join(thread, NULL);
    char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pid_t pid = clone(child, stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)how);
    return pid < 0 || waitpid(pid, NULL, 0) != pid;
}
