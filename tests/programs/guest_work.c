// Keeps a guest's kernel busy in ways that busybox cannot: guest_work faults | threads | sockets | ptrace | bpf | uring | perf. It never ends.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 16 };

static void need(int good, const char* what) {
  if (good) return;
  perror(what);
  exit(1);
}

// Page faults that another thread answers, copies on write, and memory that comes and goes.

static void* answer_faults(void* argument) {
  int file = *(int*)argument;
  static char page[PAGE] __attribute__((aligned(PAGE)));
  for (;;) {
    struct uffd_msg message;
    struct pollfd ready = {.fd = file, .events = POLLIN};
    poll(&ready, 1, -1);
    if (read(file, &message, sizeof message) != sizeof message || message.event != UFFD_EVENT_PAGEFAULT) continue;
    struct uffdio_copy copy = {.dst = message.arg.pagefault.address & -PAGE, .src = (unsigned long)page, .len = PAGE};
    ioctl(file, UFFDIO_COPY, &copy);
  }
  return NULL;
}

static void faults(void) {
  int file = (int)syscall(SYS_userfaultfd, O_CLOEXEC), zero = open("/dev/zero", O_RDONLY);
  struct uffdio_api api = {.api = UFFD_API};
  pthread_t thread;
  need(file >= 0 && ioctl(file, UFFDIO_API, &api) == 0, "userfaultfd");
  pthread_create(&thread, NULL, answer_faults, &file);
  for (;;) {
    char* memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register range = {.range = {(unsigned long)memory, PAGES / 2 * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    need(ioctl(file, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER");
    memory[0] = 1;
    // The kernel itself faults here.
    need(read(zero, memory + PAGE, (PAGES - 1) * PAGE) > 0, "read");
    if (fork() == 0) {
      memory[PAGE] = 2;
      memory[(PAGES - 1) * PAGE] = 2;
      _exit(0);
    }
    mprotect(memory, PAGE, PROT_READ);
    wait(NULL);
    madvise(memory + (PAGES - 2) * PAGE, PAGE, MADV_DONTNEED);
    munmap(memory, PAGES * PAGE);
  }
}

// Threads that take turns, that begin and end, and timers that go off.

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static volatile int turn;

static void* takes_turns(void* me) {
  for (int round = 0; round < 50; round++) {
    pthread_mutex_lock(&lock);
    while (turn != (int)(long)me) pthread_cond_wait(&turned, &lock);
    turn = !turn;
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&lock);
  }
  return NULL;
}

static void on_alarm(int number) { (void)number; }

static void threads(void) {
  struct itimerval every = {{0, 3000}, {0, 3000}};
  signal(SIGALRM, on_alarm);
  setitimer(ITIMER_REAL, &every, NULL);
  for (;;) {
    pthread_t one, other;
    pthread_create(&one, NULL, takes_turns, (void*)0L);
    pthread_create(&other, NULL, takes_turns, (void*)1L);
    pthread_join(one, NULL);
    pthread_join(other, NULL);
  }
}

// TCP over the loopback device, which is the network's softirqs, and epoll.

static void sockets(void) {
  struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(7777)};
  int server = socket(AF_INET, SOCK_STREAM, 0), one = 1, poller = epoll_create1(0);
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  need(bind(server, (struct sockaddr*)&place, sizeof place) == 0 && listen(server, 8) == 0, "listen");
  for (;;) {
    int client = socket(AF_INET, SOCK_STREAM, 0);
    need(connect(client, (struct sockaddr*)&place, sizeof place) == 0, "connect");
    int peer = accept(server, NULL, NULL);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = peer};
    epoll_ctl(poller, EPOLL_CTL_ADD, peer, &event);
    for (int round = 0; round < 20; round++) {
      char data[3000] = {0};
      need(send(client, data, sizeof data, 0) > 0, "send");
      epoll_wait(poller, &event, 1, -1);
      need(recv(peer, data, sizeof data, 0) > 0, "recv");
    }
    close(client);
    close(peer);
  }
}

// A child that is single-stepped, stopped at its system calls, and watched: the kernel's copies to its memory trap too.

static volatile long watched[64];

static void ptrace_child(void) {
  int zero = open("/dev/zero", O_RDONLY);
  ptrace(PTRACE_TRACEME, 0, 0, 0);
  raise(SIGSTOP);
  for (;;) {
    watched[1]++;
    read(zero, (void*)watched, sizeof watched);
    getppid();
  }
}

static void traces(void) {
  pid_t child = fork();
  if (child == 0) ptrace_child();
  waitpid(child, NULL, 0);
  ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL);
  // Debug register 0: eight bytes, on writes (Intel SDM volume 3, section 18.2.4).
  ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[0]), &watched[8]);
  ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[7]), 0x90001L);
  for (unsigned long count = 0;; count++) {
    struct user_regs_struct registers;
    ptrace(count % 64 < 48 ? PTRACE_SINGLESTEP : count % 64 < 56 ? PTRACE_SYSCALL : PTRACE_CONT, child, 0, 0);
    if (waitpid(child, NULL, 0) != child) exit(1);
    ptrace(PTRACE_GETREGS, child, 0, &registers);
  }
}

// A socket's filter and a raw tracepoint's program that call the kernel back, and a program that calls another.

static int bpf(int command, union bpf_attr* attributes) { return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes); }

static int bpf_load(int type, const struct bpf_insn* code, int count) {
  static char log[65536];
  union bpf_attr load = {.prog_type = (unsigned)type, .insns = (unsigned long)code, .insn_cnt = (unsigned)count,
                         .license = (unsigned long)"GPL", .log_level = 1, .log_buf = (unsigned long)log, .log_size = sizeof log};
  int program = bpf(BPF_PROG_LOAD, &load);
  if (program < 0) fputs(log, stderr);
  need(program >= 0, "BPF_PROG_LOAD");
  return program;
}

#define INSN(op, dst, src, o, i) ((struct bpf_insn){.code = (op), .dst_reg = (dst), .src_reg = (src), .off = (o), .imm = (i)})
#define CALL(number) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, number)
#define MOVI(dst, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, i)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

static void bpf_programs(void) {
  union bpf_attr map = {.map_type = BPF_MAP_TYPE_HASH, .key_size = 8, .value_size = 8, .max_entries = 64};
  int table = bpf(BPF_MAP_CREATE, &map), pair[2];
  need(table >= 0, "BPF_MAP_CREATE");
  struct bpf_insn code[] = {
      INSN(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_CALL, 0, 2),  // call the subprogram below
      MOVI(0, 1 << 16),
      EXIT,
      CALL(BPF_FUNC_get_prandom_u32),
      INSN(BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, 31),
      INSN(BPF_STX | BPF_MEM | BPF_DW, 10, 0, -8, 0),
      CALL(BPF_FUNC_ktime_get_ns),
      INSN(BPF_STX | BPF_MEM | BPF_DW, 10, 0, -16, 0),
      INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, table),
      INSN(0, 0, 0, 0, 0),
      INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
      INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -8),
      INSN(BPF_ALU64 | BPF_MOV | BPF_X, 3, 10, 0, 0),
      INSN(BPF_ALU64 | BPF_ADD | BPF_K, 3, 0, 0, -16),
      MOVI(4, 0),
      CALL(BPF_FUNC_map_update_elem),
      MOVI(0, 0),
      EXIT,
  };
  int count = sizeof code / sizeof code[0];
  int filter = bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, code, count);
  union bpf_attr point = {.raw_tracepoint = {.name = (unsigned long)"sys_enter", .prog_fd = (unsigned)bpf_load(BPF_PROG_TYPE_RAW_TRACEPOINT, code, count)}};
  need(bpf(BPF_RAW_TRACEPOINT_OPEN, &point) >= 0, "BPF_RAW_TRACEPOINT_OPEN");
  need(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0, "socketpair");
  need(setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_BPF, &filter, sizeof filter) == 0, "SO_ATTACH_BPF");
  for (;;) {
    char data[64] = {0};
    need(send(pair[0], data, sizeof data, 0) > 0, "send");
    need(recv(pair[1], data, sizeof data, 0) > 0, "recv");
  }
}

// io_uring: requests that are done at once, that worker threads do, and that time out.

static void uring(void) {
  struct io_uring_params parameters = {0};
  int ring = (int)syscall(SYS_io_uring_setup, 8, &parameters), file = open("/proc/uptime", O_RDONLY);
  need(ring >= 0, "io_uring_setup");
  size_t size = parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned);
  size_t other = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
  char* shared = mmap(NULL, size > other ? size : other, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
  struct io_uring_sqe* entries =
      mmap(NULL, parameters.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
  need(shared != MAP_FAILED && entries != MAP_FAILED, "mmap");
  unsigned *tail = (unsigned*)(shared + parameters.sq_off.tail), *array = (unsigned*)(shared + parameters.sq_off.array);
  unsigned *head = (unsigned*)(shared + parameters.cq_off.head), *filled = (unsigned*)(shared + parameters.cq_off.tail);
  static char data[256];
  static struct __kernel_timespec soon = {0, 100000};
  for (unsigned turns = 0;; turns++) {
    for (unsigned index = 0; index < 4; index++) {
      struct io_uring_sqe* entry = &entries[(*tail + index) & (parameters.sq_entries - 1)];
      memset(entry, 0, sizeof *entry);
      entry->opcode = index == 0 ? IORING_OP_NOP : index == 3 ? IORING_OP_TIMEOUT : IORING_OP_READ;
      entry->fd = index == 0 || index == 3 ? -1 : file;
      entry->flags = index == 2 ? IOSQE_ASYNC : 0;
      entry->addr = index == 3 ? (unsigned long)&soon : index == 0 ? 0 : (unsigned long)data;
      entry->len = index == 3 ? 1 : index == 0 ? 0 : sizeof data;
      array[(*tail + index) & (parameters.sq_entries - 1)] = (*tail + index) & (parameters.sq_entries - 1);
    }
    __atomic_store_n(tail, *tail + 4, __ATOMIC_RELEASE);
    need(syscall(SYS_io_uring_enter, ring, 4, 4, IORING_ENTER_GETEVENTS, NULL, 0) >= 0 || errno == EINTR, "io_uring_enter");
    __atomic_store_n(head, __atomic_load_n(filled, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
  }
}

// A sampling event of this very process, whose interrupts walk its stacks in the kernel.

static void perf(void) {
  struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_CPU_CLOCK,
                                       .sample_period = 20000, .sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_CALLCHAIN};
  int event = (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
  need(event >= 0, "perf_event_open");
  need(mmap(NULL, 9 * PAGE, PROT_READ, MAP_SHARED, event, 0) != MAP_FAILED, "mmap");
  for (;;) {
    char data[256];
    int file = open("/proc/self/maps", O_RDONLY);
    while (read(file, data, sizeof data) > 0) continue;
    close(file);
  }
}

int main(int count, char** words) {
  static const struct {
    const char* name;
    void (*run)(void);
  } modes[] = {{"faults", faults}, {"threads", threads}, {"sockets", sockets}, {"ptrace", traces},
               {"bpf", bpf_programs}, {"uring", uring}, {"perf", perf}};
  for (size_t index = 0; index < sizeof modes / sizeof modes[0]; index++)
    if (count > 1 && strcmp(words[1], modes[index].name) == 0) modes[index].run();
  return 2;
}
