/* Runs a program one instruction at a time (ptrace) and writes, at sampled instructions, the thread's registers and stack together with the
 * true list of its pending return points.
 *
 *     stepper -o OUT [-k STATES_PER_PC] [-m MAX_STEPS] [-e] [-u UNIFORM_EVERY] [-w MAX_SECONDS] -- PROGRAM ARGUMENTS...
 *
 * -e takes no states before the program's entry point (the dynamic loader's start is the same in every program); -p reads the mappings again for
 * every state (the kernel maps the trampoline of a uretprobe without a system call); -x enters, at every state, a system call that does not
 * exist with the state's registers, so that a BPF program on sys_enter sees the thread exactly as it is there.
 * Every thread is stepped (PTRACE_O_TRACECLONE), and children that run in its memory on a stack of their own until they call execve
 * (PTRACE_O_TRACEVFORK); other children are let go. x86-64 only.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stepped.h"
#include "snapshot.h"

#define MAX_THREADS 256
#define JUMP_STEPS 5000 /* a jump that has not landed after so many steps was none we understand */
#define SIGFRAME_PC 176 /* struct rt_sigframe, arch/x86: uc.uc_mcontext.rip, counted from the first stack pointer of the handler */
#define SIGFRAME_SP 168
#define CHILD_TAKES 16      /* clone's child pops the function and its argument */
#define NO_SUCH_SYSCALL 183 /* afs_syscall, never implemented */

static struct thread threads[MAX_THREADS];
static int thread_count;
static struct context *suspended;
static uint64_t initial_sp, lost_jumps;
static uint64_t option_uniform, option_max = 20000000, entry_point;
static int option_k = 2, option_seconds = 600, option_entry, option_probed, option_enter;

void put_entry(const struct entry *e)
{
    add_u64(&payload, e->id);
    add_u64(&payload, e->ra);
    add_u64(&payload, e->slot);
    add_u32(&payload, e->kind);
    put_payload(RECORD_ENTRY);
}

void put_fate(uint64_t id, enum fate fate, uint64_t landing, int outermost)
{
    add_u64(&payload, id);
    add_u64(&payload, landing);
    add_u32(&payload, fate);
    add_u32(&payload, (uint32_t)outermost);
    put_payload(RECORD_FATE);
}

static int runs_to_syscall_stop(struct thread *t)
{
    int status;
    if (ptrace(PTRACE_SYSCALL, t->tid, 0, 0) || waitpid(t->tid, &status, __WALL) != t->tid)
        return 0;
    return WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80);
}

/* The thread is led to some `syscall` instruction; at its entry stop, which comes before the tracepoint, it gets the state's registers back. */
static int enter_syscall(struct thread *t)
{
    struct user_regs_struct there = t->regs;
    if (!syscall_pc)
        return 0;
    there.rip = syscall_pc;
    there.rax = NO_SUCH_SYSCALL;
    there.orig_rax = (uint64_t)-1;
    if (ptrace(PTRACE_SETREGS, t->tid, 0, &there))
        return 0;
    int entered = runs_to_syscall_stop(t);
    there = t->regs;
    there.orig_rax = NO_SUCH_SYSCALL;
    if (entered)
        entered = !ptrace(PTRACE_SETREGS, t->tid, 0, &there) && runs_to_syscall_stop(t);
    ptrace(PTRACE_SETREGS, t->tid, 0, &t->regs);
    return entered;
}

static void sample(struct thread *t, struct place *p)
{
    uint32_t flags = 0;
    p->hits++;
    if (option_entry && p->pc != entry_point)
        return;
    option_entry = 0;
    if (p->samples < option_k) {
        p->samples++;
        flags |= FLAG_PER_PC;
    }
    if (option_uniform && steps % option_uniform == 0)
        flags |= FLAG_UNIFORM;
    if (flags && option_enter && enter_syscall(t))
        flags |= FLAG_ENTERED;
    if (!flags)
        return;
    maps_dirty |= option_probed;
    put_state(t, flags);
}

/* ---- what a step did ---- */

static void find_stack(struct thread *t)
{
    /* A stack may begin at the very end of its mapping. */
    uint64_t sp = t->regs.rsp, base = t->context ? t->context->base_sp : 0;
    struct map *m = map_of(base && sp - base <= CHILD_TAKES ? sp - CHILD_TAKES - 1 : sp);
    t->stack_start = m ? m->start : 0;
    t->stack_end = m ? m->end : 0;
}

static struct context *context_on(uint64_t stack_end)
{
    for (struct context **at = &suspended; *at; at = &(*at)->next) {
        struct context *c = *at;
        if (c->stack_end == stack_end) {
            *at = c->next;
            return c;
        }
    }
    struct context *c = calloc(1, sizeof *c);
    c->stack_end = stack_end;
    return c;
}

static int has_entry_on(struct context *c, uint64_t sp, uint64_t stack_end)
{
    for (int i = c->count - 1; i >= 0; i--)
        if (c->entries[i].stack_end == stack_end && c->entries[i].slot >= sp && c->entries[i].kind != KIND_LANDING)
            return 1;
    return 0;
}

/* The stack pointer is on another stack now and no signal put it there: a jump out of an alternate stack, or a coroutine switch. */
static void changed_stack(struct thread *t)
{
    uint64_t from = t->stack_end, sp = t->regs.rsp;
    find_stack(t);
    if (t->stack_end == from)
        return;
    if (has_entry_on(t->context, sp, t->stack_end)) {
        raised(t->context, &t->jump, sp, t->stack_end);
        return;
    }
    if (t->jump.open)
        land_on_top(t->context, &t->jump, 0);
    t->context->stack_end = from;
    t->context->next = suspended;
    suspended = t->context;
    t->context = context_on(t->stack_end);
    drop_dead(t->context, &t->jump, sp, t->stack_end);
    if (!t->context->count && !t->context->base_sp)
        push(t->context, word_at(sp), sp, t->stack_end, KIND_COROUTINE);
    open_jump(t->context, &t->jump, t->stack_end);
}

static int entered_handler(struct thread *t, const struct user_regs_struct *before)
{
    uint64_t sp = t->regs.rsp;
    if (sp == before->rsp || word_at(sp + SIGFRAME_SP) != before->rsp)
        return 0;
    uint64_t interrupted_end = t->stack_end;
    find_stack(t);
    struct entry *e = push(t->context, word_at(sp + SIGFRAME_PC), sp + SIGFRAME_PC, t->stack_end, KIND_SIGNAL);
    e->interrupted_sp = before->rsp;
    e->interrupted_end = interrupted_end;
    push(t->context, word_at(sp), sp, t->stack_end, KIND_RESTORER);
    return 1;
}

static void signal_returned(struct thread *t, const struct user_regs_struct *before)
{
    struct entry *e = top_of(t->context);
    if (e && e->kind == KIND_SIGNAL && e->slot == before->rsp + SIGFRAME_PC - 8) {
        if (e->ra == t->regs.rip)
            pop_returned(t->context);
        else
            pop_discarded(t->context, &t->jump);
    }
    find_stack(t);
    drop_dead(t->context, &t->jump, t->regs.rsp, t->stack_end);
    if (t->jump.count)
        land(&t->jump, t->regs.rip);
}

static int changes_maps(uint64_t number)
{
    /* mmap mprotect munmap brk mremap shmat shmdt execve */
    return number == 9 || number == 10 || number == 11 || number == 12 || number == 25 || number == 30 || number == 67 || number == 59;
}

static void give_up_jump(struct thread *t)
{
    struct entry *e = top_of(t->context);
    if (e && e->kind == KIND_LANDING)
        land_on_top(t->context, &t->jump, 0);
    t->jump.open = 0;
    lost_jumps++;
}

static void after_syscall(struct thread *t, const struct user_regs_struct *before)
{
    if (changes_maps(before->orig_rax == (uint64_t)-1 ? before->rax : before->orig_rax) || changes_maps(before->rax)) {
        maps_dirty = 1;
        if (before->rax == 11 || before->rax == 9)
            generation++;
    }
    if (before->rax == 15)
        signal_returned(t, before);
}

static void stepped(struct thread *t, const struct user_regs_struct *before)
{
    struct user_regs_struct *now = &t->regs;
    struct context *c = t->context;
    struct entry *e = top_of(c);
    enum insn insn = insn_at(place_of(before->rip));
    if (now->rip == before->rip && now->rsp == before->rsp)
        return;
    if (e && e->kind == KIND_URETPROBE && now->rip == e->ra) {
        pop_returned(c); /* the trampoline's instructions cannot be read, its last one is a return */
        return;
    }
    if (insn == INSN_CALL && now->rsp == before->rsp - 8) {
        push(c, word_at(now->rsp), now->rsp, t->stack_end, KIND_CALL);
        return;
    }
    if (insn == INSN_SYSCALL)
        after_syscall(t, before);
    else if (insn == INSN_RET && now->rsp > before->rsp)
        returned(c, &t->jump, before->rsp, now->rsp, now->rip, t->stack_end);
    else if (insn == INSN_JUMP_REG && e && e->kind == KIND_LANDING)
        land_on_top(c, &t->jump, now->rip);
    e = top_of(t->context);
    if (now->rsp < t->stack_start || now->rsp >= t->stack_end)
        changed_stack(t);
    else if (now->rsp > before->rsp && (e = top_of(t->context)))
        if (e->kind == KIND_LANDING || is_dead(e, now->rsp, t->stack_end))
            raised(t->context, &t->jump, now->rsp, t->stack_end);
    if (t->jump.open && ++t->jump.steps > JUMP_STEPS)
        give_up_jump(t);
}

/* ---- the run ---- */

static struct thread *thread_of(int tid)
{
    for (int i = 0; i < thread_count; i++)
        if (threads[i].tid == tid)
            return &threads[i];
    if (thread_count == MAX_THREADS) {
        fprintf(stderr, "stepper: too many threads\n");
        exit(3);
    }
    threads[thread_count] = (struct thread){.tid = tid, .fresh = 1};
    return &threads[thread_count++];
}

static void forget_thread(int tid)
{
    for (int i = 0; i < thread_count; i++)
        if (threads[i].tid == tid) {
            threads[i] = threads[--thread_count];
            return;
        }
}

static void put_header(void)
{
    char path[64];
    uint64_t pair[2], entry = 0, base = 0, vdso = 0;
    snprintf(path, sizeof path, "/proc/%d/auxv", leader);
    FILE *f = fopen(path, "r");
    while (f && fread(pair, sizeof pair, 1, f) == 1) {
        entry = pair[0] == AT_ENTRY ? pair[1] : entry;
        base = pair[0] == AT_BASE ? pair[1] : base;
        vdso = pair[0] == AT_SYSINFO_EHDR ? pair[1] : vdso;
    }
    if (f)
        fclose(f);
    Elf64_Ehdr interpreter = {0};
    if (base)
        peek(base, &interpreter, sizeof interpreter);
    entry_point = entry;
    add_u64(&payload, entry);
    add_u64(&payload, base ? base + interpreter.e_entry : 0);
    add_u64(&payload, initial_sp);
    put_payload(RECORD_HEADER);
    uint8_t page[2 * PAGE];
    size_t size = peek(vdso, page, sizeof page) ? sizeof page : PAGE;
    if (!vdso || (size == PAGE && !peek(vdso, page, PAGE)))
        return;
    add_u64(&payload, vdso);
    add(&payload, page, size);
    put_payload(RECORD_VDSO);
}

static void begin_thread(struct thread *t)
{
    t->fresh = 0;
    t->context = calloc(1, sizeof *t->context);
    t->context->base_sp = t->regs.rsp;
    find_stack(t);
    t->context->stack_end = t->stack_end;
}

/* A child in the same memory: it is stepped when the system call gave it a stack of its own, with an empty list. */
static void begin_child(struct thread *t)
{
    ptrace(PTRACE_GETREGS, t->tid, 0, &t->regs);
    if (t->regs.rsp == t->creator.rsp) {
        ptrace(PTRACE_DETACH, t->tid, 0, 0);
        forget_thread(t->tid);
        return;
    }
    maps_dirty = 1;
    begin_thread(t);
    add_u64(&payload, t->tid);
    add_u64(&payload, t->creator.rip);
    add_u64(&payload, t->regs.rsp);
    add_u64(&payload, t->creator.rsp);
    put_payload(RECORD_BIRTH);
    steps++;
    sample(t, place_of(t->regs.rip));
    ptrace(PTRACE_SINGLESTEP, t->tid, 0, 0);
}

/* A thread has made a child and waits for it. */
static void made_child(struct thread *t)
{
    unsigned long tid = 0;
    struct user_regs_struct creator;
    if (ptrace(PTRACE_GETEVENTMSG, t->tid, 0, &tid) || ptrace(PTRACE_GETREGS, t->tid, 0, &creator))
        return;
    struct thread *child = thread_of((int)tid);
    child->is_child = 1;
    child->creator = creator;
    if (child->stopped)
        begin_child(child);
}

static void started_program(struct thread *t)
{
    initial_sp = t->regs.rsp;
    generation++;
    maps_dirty = 1;
    t->jump.open = t->jump.count = 0;
    begin_thread(t);
    put_header();
    if (t->regs.rip == entry_point)
        option_entry = 0; /* a static program */
}

static void stopped(struct thread *t, int signal)
{
    struct user_regs_struct before = t->regs;
    if (ptrace(PTRACE_GETREGS, t->tid, 0, &t->regs))
        return;
    if (t->fresh) {
        begin_thread(t);
    } else {
        steps++;
        if (!(t->injected && entered_handler(t, &before)))
            stepped(t, &before);
        sample(t, place_of(t->regs.rip));
    }
    t->injected = signal != 0;
    ptrace(PTRACE_SINGLESTEP, t->tid, 0, signal);
}

static void run(void)
{
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    while (thread_count && steps < option_max) {
        int status;
        if (!(steps & 0xffff)) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            if (now.tv_sec - begin.tv_sec > option_seconds)
                break;
        }
        int tid = waitpid(-1, &status, __WALL);
        if (tid < 0)
            break;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            forget_thread(tid);
            continue;
        }
        struct thread *t = thread_of(tid);
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_EXEC && t->is_child) {
            ptrace(PTRACE_DETACH, tid, 0, 0);
            forget_thread(tid);
        } else if (event == PTRACE_EVENT_EXEC) {
            if (!ptrace(PTRACE_GETREGS, tid, 0, &t->regs))
                started_program(t);
            ptrace(PTRACE_SINGLESTEP, tid, 0, 0);
        } else if (event) {
            if (event == PTRACE_EVENT_VFORK)
                made_child(t);
            ptrace(PTRACE_SINGLESTEP, tid, 0, 0);
        } else if (t->fresh && syscall(SYS_tgkill, leader, tid, 0)) {
            t->stopped = 1;
            if (t->is_child)
                begin_child(t);
        } else {
            stopped(t, signal == SIGTRAP || (t->fresh && signal == SIGSTOP) ? 0 : signal);
        }
    }
}

static void put_end(void)
{
    for (uint64_t i = 0; i < PCS; i++)
        if (places[i].samples) {
            add_u64(&payload, places[i].pc);
            add_u64(&payload, places[i].hits);
        }
    put_payload(RECORD_HITS);
    add_u64(&payload, steps);
    add_u64(&payload, states);
    add_u64(&payload, skipped);
    add_u64(&payload, in_jump_states);
    add_u64(&payload, lost_jumps);
    put_payload(RECORD_END);
}

static void pin(void)
{
    /* Tracer and tracee on one processor: a hand-over costs 1 us there and 10 us across two. */
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void start(char **argv)
{
    pin();
    leader = fork();
    if (!leader) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execvp(argv[0], argv);
        _exit(127);
    }
    int status;
    waitpid(leader, &status, 0);
    if (!WIFSTOPPED(status)) {
        fprintf(stderr, "stepper: cannot run %s\n", argv[0]);
        exit(2);
    }
    ptrace(PTRACE_SETOPTIONS, leader, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
    struct thread *t = thread_of(leader);
    ptrace(PTRACE_GETREGS, leader, 0, &t->regs);
    started_program(t);
    ptrace(PTRACE_SINGLESTEP, leader, 0, 0);
}

int main(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "+o:k:m:epxu:w:")) != -1) {
        switch (option) {
        case 'o': output = fopen(optarg, "wb"); break;
        case 'k': option_k = atoi(optarg); break;
        case 'm': option_max = strtoull(optarg, 0, 0); break;
        case 'e': option_entry = 1; break;
        case 'p': option_probed = 1; break;
        case 'x': option_enter = 1; break;
        case 'u': option_uniform = strtoull(optarg, 0, 0); break;
        case 'w': option_seconds = atoi(optarg); break;
        default: return 2;
        }
    }
    if (!output || optind >= argc)
        return 2;
    places = calloc(PCS, sizeof *places);
    start(argv + optind);
    run();
    put_end();
    fclose(output);
    if (thread_count)
        kill(leader, SIGKILL);
    fprintf(stderr, "steps %lu states %lu skipped %lu in-jump %lu lost-jumps %lu\n", steps, states, skipped, in_jump_states, lost_jumps);
    return 0;
}
